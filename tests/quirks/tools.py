"""What the tests of quirks share: a handler that takes everything, raw PDUs, logged messages."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import attrs
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.protocol.decode import ByteReader
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import AbortReason
from dimse_trio.protocol.negotiation import PresentationContext
from dimse_trio.protocol.pdus import PDU, PDV, Abort, PDataTF, ProposedContext
from dimse_trio.protocol.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from dimse_trio.testing.scripted import ScriptedPeer
from semantics.script import CT, TIMEOUTS, Script, instance, study, unwrapped_nursery

HEADER = 6
ITEMS = HEADER + 68
"""Where the items of an A-ASSOCIATE PDU begin."""
CALLED = slice(10, 26)
CALLING = slice(26, 42)

VERIFY = ProposedContext(1, "1.2.840.10008.1.1", (IMPLICIT_VR_LITTLE_ENDIAN,))
KEEP = ProposedContext(3, CT, (EXPLICIT_VR_LITTLE_ENDIAN,))


@attrs.define
class Everything:
    """A handler that has every service and notes what it is given."""

    matches: list[Dataset] = attrs.field(factory=lambda: [study(1), study(2)])
    instances: list[Dataset] = attrs.field(factory=lambda: [instance(uid="1.2.3.4")])
    stores: list[dimse.StoreRequest] = attrs.field(factory=list)
    received: list[bytes] = attrs.field(factory=list)
    identifiers: list[Dataset] = attrs.field(factory=list)
    echoes: int = 0

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        self.echoes += 1
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        self.stores.append(request)
        self.received.append(b"".join([chunk async for chunk in request.chunks()]))
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        self.identifiers.append(request.identifier)
        for match in self.matches:
            yield match

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Dataset]:
        for item in self.instances:
            yield item

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Dataset]:
        for item in self.instances:
            yield item


@asynccontextmanager
async def listening(
    handle: Callable[[trio.SocketStream], Awaitable[object]],
) -> AsyncGenerator[int]:
    """A TCP port of this machine, and what is done with each connection to it."""
    async with unwrapped_nursery() as nursery:
        serve = partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(server: dimse.Server) -> AsyncGenerator[ScriptedPeer]:
    """A requestor on a TCP connection, closed at the end."""
    peer = await ScriptedPeer.connect("127.0.0.1", server.port)
    async with peer.stream:
        yield peer


@asynccontextmanager
async def proposing(
    contexts: Iterable[PresentationContext], script: Script, **options: object
) -> AsyncGenerator[dimse.Association]:
    """As `scripted`, for these contexts; the script takes the request and answers it."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def play() -> None:
        await script(ScriptedPeer(theirs))
        await theirs.aclose()

    async with unwrapped_nursery() as nursery:
        nursery.start_soon(play)
        async with dimse.associate_over(
            ours,
            contexts=contexts,
            timeouts=TIMEOUTS,
            **options,  # type: ignore[arg-type]
        ) as association:
            yield association


async def receive_raw(peer: ScriptedPeer) -> bytes:
    """The bytes of the next PDU, which is the first that this peer receives."""
    data = b""
    while len(data) < HEADER or len(data) < HEADER + int.from_bytes(data[2:6], "big"):
        data += await peer.stream.receive_some()
    return data


def item_types(reader: ByteReader) -> list[int]:
    return [item_type for item_type, _ in reader.items()]


def items_of(pdu: bytes, wanted: int) -> Iterator[ByteReader]:
    """The items of that type in an A-ASSOCIATE PDU."""
    for item_type, content in ByteReader(pdu[ITEMS:], "PDU").items():
        if item_type == wanted:
            yield content


def item(item_type: int, content: bytes) -> bytes:
    return bytes((item_type, 0)) + len(content).to_bytes(2, "big") + content


def with_items(pdu: PDU, *items: bytes) -> bytes:
    """An A-ASSOCIATE PDU with these items in place of its own."""
    body = encode_pdu(pdu)[HEADER:ITEMS] + b"".join(items)
    return encode_pdu(pdu)[:2] + len(body).to_bytes(4, "big") + body


def one_pdu(pdus: Iterable[PDataTF]) -> PDataTF:
    """The PDVs of several P-DATA-TF in one."""
    return PDataTF(tuple(pdv for pdu in pdus for pdv in pdu.pdvs))


def cut(pdus: Iterable[PDataTF], length: int) -> list[PDataTF]:
    """The same PDVs in pieces of that length, each alone in its PDU."""
    return [
        PDataTF(
            (
                PDV(
                    pdv.context_id,
                    pdv.is_command,
                    pdv.is_last and start + length >= len(pdv.data),
                    pdv.data[start : start + length],
                ),
            )
        )
        for pdu in pdus
        for pdv in pdu.pdvs
        for start in range(0, max(len(pdv.data), 1), length)
    ]


async def expect_abort(peer: ScriptedPeer, reason: AbortReason) -> None:
    """The library gives up as service-provider, for that reason."""
    assert await peer.expect(Abort) == Abort(2, reason)


@contextmanager
def logged(caplog: pytest.LogCaptureFixture, *, level: int = logging.INFO) -> Iterator[list[str]]:
    """The messages of this library, complete when the block has been left."""
    messages: list[str] = []
    with caplog.at_level(level, logger="dimse_trio"):
        caplog.clear()
        yield messages
    messages += [r.getMessage() for r in caplog.records if r.name.startswith("dimse_trio")]


class Unfinished:
    """Awaited in a handler that never comes to an end; notes that it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    async def __call__(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled = True
