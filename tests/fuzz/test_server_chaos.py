"""The whole server against peers that say anything: it ends in time, leaves nothing, serves on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import attrs
import trio
import trio.testing
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.acceptor import Acceptor
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    CStoreRQ,
    CStoreRSP,
    Message,
    NActionRQ,
    encode_command,
)
from dimse_trio.protocol.negotiation import propose
from dimse_trio.protocol.pdus import (
    PDU,
    PDV,
    Abort,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
    UserInformation,
)
from dimse_trio.settings import ServerSettings
from dimse_trio.testing.scripted import ScriptedPeer
from protocol import strategies
from semantics.script import CONTEXTS, TIMEOUTS, encoded, instance, study

BOUND = (
    TIMEOUTS.idle
    + 2 * TIMEOUTS.response
    + 2 * TIMEOUTS.network
    + TIMEOUTS.associate
    + 2 * TIMEOUTS.release
    + 60
)
"""Virtual seconds from a peer's last byte to the end of everything that was its. A handler takes 40
at most, and every timeout of the library may have to run out once, the one for an answer twice."""


class Planned(Exception):
    """What the handler raises on purpose: the one traceback that may be logged."""


@attrs.define
class Erratic:
    """A handler that is quick, slow, endless for a while, or broken, as the request says."""

    active: int = 0

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        if request.message.message_id == 13:
            raise Planned
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        if request.sop_instance_uid.endswith("9"):
            return dimse.Status.OUT_OF_RESOURCES  # without a look at the data set
        self.active += 1
        try:
            async for _ in request.chunks():
                await trio.sleep(0.1)
        finally:
            self.active -= 1
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        self.active += 1
        try:
            name = str(request.identifier.get("PatientName", ""))
            if name == "BROKEN":
                raise Planned
            for index in range(400 if name == "MANY" else 2):
                yield study(index)
                if name == "SLOW":
                    await trio.sleep(20)
        finally:
            self.active -= 1

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Dataset]:
        for index in range(3):
            yield instance(uid=f"1.2.{index}")

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Dataset]:
        yield instance()


@attrs.frozen
class Send:
    """Bytes, in two writes."""

    data: bytes
    cut: int = 0


@attrs.frozen
class Wait:
    """Nothing, for so many seconds."""

    seconds: float


@attrs.frozen
class Close:
    """The end: of this direction, or of both."""

    half: bool


Step = Send | Wait | Close

message_ids = st.integers(1, 3) | st.sampled_from([0, 13, 0xFFFF])
requests = st.one_of(
    st.builds(CEchoRQ, message_id=message_ids),
    st.builds(CFindRQ, message_id=message_ids),
    st.builds(CGetRQ, message_id=message_ids),
    st.builds(
        CMoveRQ, message_id=message_ids, move_destination=st.sampled_from(["NOBODY", "", None])
    ),
    st.builds(
        CStoreRQ,
        message_id=message_ids,
        affected_sop_instance_uid=st.sampled_from(["1.2.3", "1.2.9", "../../etc", "", None]),
    ),
    st.builds(NActionRQ, message_id=message_ids),
    st.builds(CCancelRQ, message_id_being_responded_to=message_ids),
    st.builds(
        CStoreRSP,
        message_id_being_responded_to=message_ids,
        status=st.sampled_from([0, 0xFF00, 0xB000, 0xA700]),
    ),
    strategies.messages,
)
identifiers = st.sampled_from(
    [
        encoded(study()),
        *(encoded(study(PatientName=name)) for name in ("MANY", "SLOW", "BROKEN")),
        encoded(instance(300)),
        encoded(study())[:-3],
        b"",
    ]
)
data_sets = st.none() | identifiers | st.binary(max_size=40)


def message_pdus(
    context_id: int, message: Message, data: bytes | None, missing: int, together: bool
) -> list[PDU]:
    """A message's PDUs, in pieces, perhaps without its last ones."""
    pdvs = [PDV(context_id, True, True, encode_command(message, has_data_set=data is not None))]
    if data is not None:
        middle = len(data) // 2
        pdvs += [
            PDV(context_id, False, False, data[:middle]),
            PDV(context_id, False, True, data[middle:]),
        ]
    pdvs = pdvs[: len(pdvs) - missing]
    return [PDataTF(tuple(pdvs))] if together else [PDataTF((pdv,)) for pdv in pdvs]


matching = st.one_of(  # the context that goes with the request, mostly
    st.tuples(st.just(1), requests, data_sets),
    st.tuples(st.just(3), st.builds(CFindRQ, message_id=message_ids), identifiers),
    st.tuples(st.just(5), st.builds(CGetRQ, message_id=message_ids), identifiers),
    st.tuples(
        st.just(9),
        st.builds(
            CStoreRQ,
            message_id=message_ids,
            affected_sop_instance_uid=st.sampled_from(["1.2.3", "1.2.9"]),
        ),
        identifiers,
    ),
    st.tuples(st.sampled_from([1, 3, 5, 7, 9, 11, 2]), requests, data_sets),
)
messages = st.builds(
    lambda parts, missing, together: message_pdus(*parts, missing, together),
    matching,
    st.sampled_from([0, 0, 0, 0, 1, 2]),
    st.booleans(),
)
request_pdus = st.just(
    [
        propose(
            CONTEXTS,
            called_ae_title="ANY",
            calling_ae_title="CHAOS",
            user_information=UserInformation(maximum_length=16384),
        )
    ]
)
wire = st.one_of(
    messages,
    messages,
    messages,
    request_pdus,
    st.lists(strategies.pdus, min_size=1, max_size=2),
    st.sampled_from([[ReleaseRQ()], [ReleaseRP()], [Abort(0, 0)], [PDataTF(())]]),
).map(lambda pdus: b"".join(map(encode_pdu, pdus)))
noise = st.binary(min_size=1, max_size=40) | st.sampled_from(
    [b"\x04\0\xff\xff\xff\xff", b"\x04\0\0\0\0\x20", b"\x01\0\0\x10\0\0", b"GET / HTTP/1.1\r\n\r\n"]
)
steps = st.one_of(
    *[st.builds(Send, wire, st.integers(0, 60))] * 6,
    st.builds(Send, noise),
    st.builds(Wait, st.sampled_from([0.01, 0.5, 2.0, 31.0, 61.0, 301.0])),
    st.builds(Close, st.booleans()),
)
scripts = st.tuples(st.sampled_from([True, True, True, False]), st.lists(steps, max_size=10))


async def play(peer: ScriptedPeer, script: list[Step]) -> None:
    """Do what the script says, as far as the server lets it."""
    stream = peer.stream
    assert isinstance(stream, trio.StapledStream)
    for step in script:
        match step:
            case Send(data, cut):
                await stream.send_all(data[:cut])
                await trio.sleep(0.001)
                await stream.send_all(data[cut:])
            case Wait(seconds):
                await trio.sleep(seconds)
            case Close(half):
                await (stream.send_stream if half else stream).aclose()
                return


async def read(stream: trio.abc.ReceiveStream) -> None:
    """Take what the server says, and do not look at it."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some():
            pass


async def echoes(acceptor: Acceptor) -> None:
    """An association of a well-behaved peer, from its beginning to its end."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = ScriptedPeer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acceptor.serve, ours)
        await peer.associate(CONTEXTS[:1])
        await peer.send_message(1, CEchoRQ(message_id=1))
        assert (await peer.expect_message(CEchoRSP)).status == 0
        await peer.release()
        await theirs.aclose()


async def run(script: list[Step], *, established: bool, reads: bool, buffered: bool) -> None:
    """One peer's life against a server, and what must hold after it."""
    handler = Erratic()
    acceptor = Acceptor(ServerSettings(handler=handler, timeouts=TIMEOUTS))
    pair = trio.testing.memory_stream_pair if buffered else trio.testing.lockstep_stream_pair
    ours, theirs = pair()
    peer = ScriptedPeer(theirs)
    tasks = trio.lowlevel.current_statistics().tasks_living
    ended = trio.Event()

    async def serve() -> None:
        await acceptor.serve(ours)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        if established:
            await peer.associate(CONTEXTS)
        if reads:
            nursery.start_soon(read, theirs.receive_stream)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await play(peer, script)
        await echoes(acceptor)
        with trio.move_on_after(BOUND):
            await ended.wait()
        assert ended.is_set(), "the connection outlives every timeout"
        await theirs.aclose()
    await echoes(acceptor)
    assert acceptor.statistics().associations_open == 0
    assert handler.active == 0
    assert trio.lowlevel.current_statistics().tasks_living == tasks


class Tracebacks(logging.Handler):
    """The exceptions that were logged, but for the planned one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not isinstance(record.exc_info[1], Planned):
            self.seen.append(record.exc_info[1])


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(script=scripts, reads=st.booleans(), buffered=st.booleans())
@example(  # a C-GET whose C-STOREs are never answered
    script=(
        True,
        [Send(b"".join(map(encode_pdu, message_pdus(5, CGetRQ(message_id=1), b"", 0, False))))],
    ),
    reads=True,
    buffered=True,
)
def test_the_server_ends_in_time_and_leaves_nothing(
    script: tuple[bool, list[Step]], reads: bool, buffered: bool
) -> None:
    tracebacks = Tracebacks()
    logger = logging.getLogger("dimse_trio")
    logger.addHandler(tracebacks)
    try:
        established, rest = script

        async def main() -> None:
            await run(rest, established=established, reads=reads, buffered=buffered)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        logger.removeHandler(tracebacks)
    assert tracebacks.seen == []
