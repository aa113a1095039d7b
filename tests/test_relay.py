"""A relay: what a side says last reaches the other one, and the end of everything is told."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import attrs
import pytest
import trio
import trustme

import dimse_trio as dimse
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.relay import (
    Abort,
    ConnectionRelayed,
    Passage,
    PDURelayed,
    RelayEnd,
    open_relay,
)

ABORT = encode_pdu(Abort())
FLOOD = b"\x04\0\0\0\x40\0" + bytes(0x4000)
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.define
class Told:
    """What a relay has told, and for how long it waits for each."""

    passages: list[Passage] = attrs.field(factory=list)
    seconds: float = 0
    _more: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, passage: Passage) -> None:
        await trio.sleep(self.seconds)
        self.passages.append(passage)
        self._more.set()

    async def have(self, number: int) -> None:
        """Wait until it has told so much."""
        while len(self.passages) < number:
            self._more = trio.Event()
            await self._more.wait()

    @property
    def ends(self) -> list[RelayEnd]:
        return [passage for passage in self.passages if isinstance(passage, RelayEnd)]


class Watching(dimse.Instrument):
    """Counts connections and associations."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.end: dimse.instruments.ConnectionEnd | None = None

    def connection_opened(self, connection: object, /) -> None:
        self.said.append("opened")

    def connection_closed(self, end: dimse.instruments.ConnectionEnd, /) -> None:
        self.said.append("closed")
        self.end = end

    def association_opened(self, association: object, /) -> None:
        self.said.append("associated")

    def association_closed(self, end: object, /) -> None:
        self.said.append("ended")


class Echoing:
    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


@asynccontextmanager
async def listening(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncGenerator[int]:
    """A peer; its port."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def idle(stream: trio.SocketStream) -> None:
    """A peer that listens, and says nothing."""
    async for _ in stream:
        pass


# -- what is said last ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and a server's."""
    authority = trustme.CA()
    client = ssl.create_default_context()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(client)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    return client, server


async def flood(stream: trio.abc.Stream, heard: bytearray) -> None:
    """Send without end, and hear all that is said."""

    async def send() -> None:
        try:
            while True:
                await stream.send_all(FLOOD)
        except BROKEN:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            while data := await stream.receive_some():
                heard += data
        except BROKEN:
            pass
        nursery.cancel_scope.cancel()


async def abort(stream: trio.abc.Stream) -> None:
    """Hear a little, say A-ABORT, and close at once: with bytes unread, it is a reset."""
    await stream.receive_some(len(FLOOD))
    await stream.send_all(ABORT)
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("seconds", [0, 0.001], ids=["told at once", "told slowly"])
@pytest.mark.parametrize("peer_tls", [False, True], ids=["plain peer", "TLS peer"])
@pytest.mark.parametrize("client_tls", [False, True], ids=["plain client", "TLS client"])
@pytest.mark.parametrize("aborting", ["client", "peer"])
async def test_an_abort_with_a_reset_after_it_reaches_the_side_that_is_sending(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    aborting: str,
    client_tls: bool,
    peer_tls: bool,
    seconds: float,
) -> None:
    for_client, for_server = contexts
    heard, over, told = bytearray(), trio.Event(), Told(seconds=seconds)

    async def behave(side: str, stream: trio.abc.Stream) -> None:
        if side == aborting:
            await abort(stream)
        else:
            await flood(stream, heard)
            over.set()

    async def peer(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, for_server, server_side=True, https_compatible=True)
        await behave("peer", tls if peer_tls else stream)

    async with (
        listening(peer) as port,
        open_relay(
            "127.0.0.1",
            port,
            ssl_context=for_client if peer_tls else None,
            server_ssl_context=for_server if client_tls else None,
            on_passage=told,
        ) as relay,
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", relay.port)
        tls = trio.SSLStream(stream, for_client, server_hostname="127.0.0.1", https_compatible=True)
        with trio.fail_after(20):
            await behave("client", tls if client_tls else stream)
            await over.wait()
            await trio.aclose_forcefully(stream)
            await relay.stop(grace=20)
    assert bytes(heard) == ABORT
    (end,) = told.ends
    assert (end.error or "").startswith("the connection broke on what the ")


async def test_what_is_on_its_way_to_a_side_that_sends_is_not_lost_by_closing() -> None:
    """The client has ended properly; that the peer sends on does not undo what it was sent."""
    body, heard, over = bytes(3_000_000) + ABORT, bytearray(), trio.Event()

    async def peer(stream: trio.SocketStream) -> None:
        await flood(stream, heard)
        over.set()

    async with (
        listening(peer) as port,
        open_relay("127.0.0.1", port, on_passage=Told()) as relay,
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", relay.port)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(idle, stream)
                await stream.send_all(body)
                await stream.send_eof()
                await over.wait()
                nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)
    assert bytes(heard) == body


# -- the end of everything -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["left", "stopped", "cancelled", "broken"])
async def test_instruments_and_on_passage_are_told_the_end_of_what_is_open(how: str) -> None:
    told, watching = Told(seconds=0.001), Watching()
    async with listening(idle) as port:
        with trio.CancelScope() as scope:
            try:
                async with open_relay(
                    "127.0.0.1", port, on_passage=told, instruments=[watching]
                ) as relay:
                    stream = await trio.open_tcp_stream("127.0.0.1", relay.port)
                    await stream.send_all(ABORT)
                    await told.have(2)
                    if how == "stopped":
                        await relay.stop()
                        assert len(told.ends) == 1
                    elif how == "cancelled":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
                    elif how == "broken":
                        raise KeyError
            except KeyError:
                assert how == "broken"
        with trio.fail_after(5):
            assert await stream.receive_some() == b""
        await stream.aclose()
    assert watching.said == ["opened", "closed"]
    assert watching.end is not None
    assert "the relay was stopped" in str(watching.end.error)
    (end,) = told.ends
    assert (end.bytes_from_client, end.error) == (len(ABORT), "the relay was stopped")


async def test_on_passage_cannot_keep_a_relay_from_stopping() -> None:
    told, watching = Told(), Watching()

    async def on_passage(passage: Passage) -> None:
        await told(passage)
        if isinstance(passage, RelayEnd):
            await trio.sleep_forever()

    timeouts = dimse.Timeouts(linger=0.05)
    async with listening(idle) as port:
        with trio.fail_after(10):
            async with open_relay(
                "127.0.0.1", port, on_passage=on_passage, timeouts=timeouts, instruments=[watching]
            ) as relay:
                async with await trio.open_tcp_stream("127.0.0.1", relay.port) as stream:
                    await stream.send_all(ABORT)
                await told.have(3)  # the end of a connection that has ended by itself
                async with await trio.open_tcp_stream("127.0.0.1", relay.port) as stream:
                    await stream.send_all(ABORT)
                    await told.have(5)
                    await relay.stop()
    assert watching.said == ["opened", "closed"] * 2


async def test_on_passage_may_stop_the_relay() -> None:
    told = Told()

    async def on_passage(passage: Passage) -> None:
        await told(passage)
        if isinstance(passage, PDURelayed):
            await relay.stop()

    async with listening(idle) as port:
        with trio.fail_after(10):
            async with open_relay("127.0.0.1", port, on_passage=on_passage) as relay:
                async with await trio.open_tcp_stream("127.0.0.1", relay.port) as stream:
                    await stream.send_all(ABORT)
                    assert await stream.receive_some() == b""
                await relay.stop()
    assert [type(passage) for passage in told.passages] == [
        *(ConnectionRelayed, PDURelayed, RelayEnd)
    ]


async def test_on_passage_that_raises_is_told_no_more_of_that_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told, watching = Told(), Watching()

    async def on_passage(passage: Passage) -> None:
        await told(passage)
        if isinstance(passage, PDURelayed):
            raise KeyError

    async with (
        listening(idle) as port,
        open_relay("127.0.0.1", port, on_passage=on_passage, instruments=[watching]) as relay,
    ):
        for _ in range(2):
            async with await trio.open_tcp_stream("127.0.0.1", relay.port) as stream:
                await stream.send_all(ABORT)
                assert await stream.receive_some() == b""
    assert [type(passage) for passage in told.passages] == [ConnectionRelayed, PDURelayed] * 2
    assert watching.said == ["opened", "closed"] * 2
    assert watching.end is not None
    assert "on_passage raised" in str(watching.end.error)
    assert [record.message for record in caplog.records] == ["a relayed connection failed"] * 2


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when any task is about to take the n-th step from here."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self._steps = steps
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if not self._steps:
            self._scope.cancel()


@pytest.mark.parametrize("stop", [False, True], ids=["left", "stopped"])
async def test_cancelled_at_any_step_it_leaves_nothing_open_and_nothing_untold(stop: bool) -> None:
    timeouts = dimse.Timeouts(connect=5, associate=5, response=5, release=5)
    outcomes: Counter[str] = Counter()

    async def echo(port: int) -> None:
        try:
            async with dimse.open_association("127.0.0.1", port, timeouts=timeouts) as association:
                await association.echo()
            outcomes["echoed"] += 1
        except dimse.AssociationError:
            outcomes["lost"] += 1

    async with dimse.open_server(Echoing()) as server:
        for steps in count(1):
            told, watching = Told(), Watching()
            with trio.fail_after(20):
                async with trio.open_nursery() as clients:
                    with trio.CancelScope() as scope:
                        instrument = CancelAfter(steps, scope)
                        trio.lowlevel.add_instrument(instrument)
                        try:
                            async with open_relay(
                                "127.0.0.1", server.port, on_passage=told, instruments=[watching]
                            ) as relay:
                                clients.start_soon(echo, relay.port)
                                await told.have(4)  # up to the request to echo
                                if stop:
                                    await relay.stop(grace=5)
                        finally:
                            trio.lowlevel.remove_instrument(instrument)
            counts = Counter(watching.said)
            assert counts["opened"] == counts["closed"]
            assert counts["associated"] == counts["ended"]
            opened = [p.connection for p in told.passages if isinstance(p, ConnectionRelayed)]
            assert set(opened) <= {end.connection for end in told.ends}
            assert len(told.ends) <= 1
            assert not any(isinstance(passage, RelayEnd) for passage in told.passages[:-1])
            if not scope.cancelled_caught:
                break
    assert outcomes["lost"] > 10


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"listen_port": 70000}, "listen_port is a number from 0 to 65535"),
        ({"listen_port": "104"}, "write listen_port=104"),
        ({"listen_host": 5}, "listen_host is a name or an address"),
        ({"listen_host": "127.0.0.1:104"}, "listen_host='127.0.0.1', listen_port=104"),
    ],
)
async def test_where_it_cannot_listen(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=says):
        async with open_relay("127.0.0.1", 104, on_passage=Told(), **arguments):
            pass
