"""Associations against a script, over memory streams; nothing outlives the test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.protocol.messages import CEchoRQ, CEchoRSP, CFindRSP
from dimse_trio.protocol.negotiation import PresentationContext
from dimse_trio.protocol.pdus import PDataTF
from dimse_trio.protocol.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    uid_of,
)
from dimse_trio.testing.scripted import ScriptedPeer

CT = uid_of("CTImageStorage")
LE = (EXPLICIT_VR_LITTLE_ENDIAN,)
CONTEXTS = [
    PresentationContext(VERIFICATION, LE),
    PresentationContext(STUDY_ROOT_FIND, LE),
    PresentationContext(STUDY_ROOT_GET, LE),
    PresentationContext(STUDY_ROOT_MOVE, LE),
    PresentationContext(CT, LE, scp=True),
]
ECHO, FIND, GET, MOVE, STORE = 1, 3, 5, 7, 9
"""Context IDs of `CONTEXTS`."""

TIMEOUTS = dimse.Timeouts(associate=30, release=10, network=60, cancel_grace=5, linger=1)

Script = Callable[[ScriptedPeer], Awaitable[None]]


@asynccontextmanager
async def scripted(
    script: Script,
    *,
    timeouts: dimse.Timeouts = TIMEOUTS,
    accept: bool = True,
    contexts: list[PresentationContext] = CONTEXTS,
    **options: object,
) -> AsyncGenerator[dimse.Association]:
    """An association whose acceptor is `script`, which must end by itself."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = ScriptedPeer(theirs)

    async def play() -> None:
        if accept:
            await peer.accept(LE)
        await script(peer)
        await theirs.aclose()

    async with unwrapped_nursery() as nursery:
        nursery.start_soon(play)
        async with dimse.associate_over(
            ours,
            contexts=contexts,
            timeouts=timeouts,
            **options,  # type: ignore[arg-type]
        ) as association:
            yield association


@asynccontextmanager
async def unwrapped_nursery() -> AsyncGenerator[trio.Nursery]:
    """A nursery whose lone exception comes out as itself."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


@asynccontextmanager
async def served(
    handler: object, *, timeouts: dimse.Timeouts = TIMEOUTS, **options: object
) -> AsyncGenerator[ScriptedPeer]:
    """A script's peer as requestor, connected to a handler's acceptor, which ends with the test."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with unwrapped_nursery() as nursery:

        async def serve() -> None:
            await dimse.serve_stream(handler, ours, timeouts=timeouts, **options)  # type: ignore[arg-type]

        nursery.start_soon(serve)
        yield ScriptedPeer(theirs)
        await theirs.aclose()


def study(index: int = 1, **values: object) -> Dataset:
    data_set = Dataset()
    data_set.QueryRetrieveLevel = "STUDY"
    data_set.StudyInstanceUID = f"1.2.{index}"
    data_set.PatientName = f"Name^{index}"
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return data_set


def encoded(data_set: Dataset) -> bytes:
    return datasets.encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)


def instance(size: int = 64, uid: str = "1.2.3.4") -> Dataset:
    """A CT image with that many bytes of pixel data."""
    data_set = Dataset()
    data_set.SOPClassUID = CT
    data_set.SOPInstanceUID = uid
    data_set.PatientID = "1"
    data_set.StudyInstanceUID = "1.2.3"
    data_set.SeriesInstanceUID = "1.2.3.1"
    data_set.add_new("PixelData", "OW", bytes(size))
    return data_set


def attributes(**values: object) -> Dataset:
    data_set = Dataset()
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return data_set


async def answer_echo(peer: ScriptedPeer) -> None:
    request = await peer.expect_message(CEchoRQ)
    await peer.send_message(
        ECHO, CEchoRSP(message_id_being_responded_to=request.message_id, status=0)
    )


def matches(message_id: int, count: int, start: int = 1) -> list[PDataTF]:
    return [
        pdu
        for index in range(start, start + count)
        for pdu in ScriptedPeer.message_pdus(
            FIND,
            CFindRSP(message_id_being_responded_to=message_id, status=0xFF00),
            encoded(study(index)),
        )
    ]


def final(message_id: int, status: int) -> list[PDataTF]:
    response = CFindRSP(message_id_being_responded_to=message_id, status=status)
    return ScriptedPeer.message_pdus(FIND, response)
