"""A relay between a client and a peer that passes every byte on, and says what goes by.

It is no party to the association: nothing is negotiated, answered or mended. What it cannot read it
passes on all the same. Bytes are received from one side when the other has taken those before, so
that a slow side slows the other one down, and a direction that ends is ended on the other side.
When one side takes nothing more, what it has said before is still passed on.
"""

from __future__ import annotations

import inspect
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import final

import attrs
import trio

from .checks import (
    called_form,
    check_address,
    check_count,
    check_grace,
    check_ssl_context,
    checked_timeouts,
)
from .client import connect
from .config import Timeouts
from .errors import (
    AssociationAborted,
    AssociationClosed,
    AssociationError,
    LocalProtocolError,
)
from .instruments import Instrument, checked_instruments
from .observer import Observer
from .passages import (
    ConnectionRelayed,
    MessageRelayed,
    Passage,
    PDURelayed,
    RelayEnd,
)
from .protocol.events import DataSetFragment, MessageReceived
from .protocol.messages import Message
from .protocol.overheard import NotUnderstood, Overheard, OverheardEvent
from .protocol.pdus import (
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
)
from .protocol.upper_layer import Role
from .relay_sides import Side
from .server import alongside, open_listeners
from .tls import TLSHandshakeError, handshake
from .transport import addresses, peer_address_of, tls_version

__all__ = [
    "Abort",
    "AssociateAC",
    "AssociateRJ",
    "AssociateRQ",
    "ConnectionRelayed",
    "MessageRelayed",
    "NotUnderstood",
    "PDURelayed",
    "Passage",
    "Relay",
    "RelayEnd",
    "ReleaseRP",
    "ReleaseRQ",
    "open_relay",
]

logger = logging.getLogger("dimse_trio")


@attrs.frozen(kw_only=True)
class _Settings:
    host: str
    port: int
    ssl_context: ssl.SSLContext | None
    tls_server_name: str | None
    server_ssl_context: ssl.SSLContext | None
    on_passage: Callable[[Passage], Awaitable[None]]
    data_set_limit: int
    max_connections: int
    timeouts: Timeouts
    instruments: tuple[Instrument, ...]


@final
class Relay:
    """A listener that relays. Made by `open_relay`."""

    def __init__(self, settings: _Settings, listeners: list[trio.SocketListener]) -> None:
        self._settings = settings
        self._listeners = listeners
        self._accepting = trio.CancelScope()
        self._everything = trio.CancelScope()
        self._stopped = trio.Event()
        self._count = self._open = 0
        self.port: int = listeners[0].socket.getsockname()[1]
        """The port that it listens on."""

    async def stop(self, grace: float = 0) -> None:
        """Accept no more, let connections end within `grace` seconds, and close the rest.

        Cancelled while it waits, it leaves a relay that accepts no more.
        """
        check_grace(grace)
        self._accepting.cancel()
        with trio.move_on_after(max(grace, 0)):
            await self._stopped.wait()
        self._everything.cancel()
        await self._stopped.wait()

    async def run(self) -> None:
        """Relay until cancelled or stopped."""
        try:
            with self._everything:
                async with trio.open_nursery() as connections:
                    with self._accepting:
                        await trio.serve_listeners(
                            self._serve, self._listeners, handler_nursery=connections
                        )
        finally:
            self._stopped.set()

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One connection to its end. Whatever goes wrong ends this one alone."""
        if self._open >= self._settings.max_connections:
            logger.warning("%s: too many connections, closed", peer_address_of(stream))
            await trio.aclose_forcefully(stream)
            return
        self._count += 1
        self._open += 1
        try:
            await _Connection(self._settings, self._count).run(stream)
        except Exception as error:
            logger.error("a relayed connection failed", exc_info=error)
        finally:
            self._open -= 1
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_relay(
    host: str,
    port: int = 104,
    *,
    listen_port: int = 0,
    listen_host: str | None = "127.0.0.1",
    ssl_context: ssl.SSLContext | None = None,
    tls_server_name: str | None = None,
    server_ssl_context: ssl.SSLContext | None = None,
    on_passage: Callable[[Passage], Awaitable[None]],
    data_set_limit: int = 0,
    max_connections: int = 100,
    timeouts: Timeouts | None = None,
    instruments: Iterable[Instrument] = (),
) -> AsyncGenerator[Relay]:
    """Listen for clients inside a block, and relay each to a peer byte for byte.

    Leaving the block closes what is still open, and drops what is not passed on yet;
    `await relay.stop(grace)` lets it end first. Of each direction 64 KiB are held at most, and a
    PDU or command set that is not whole.

    Stopping or leaving it cancels `on_passage`; the `RelayEnd` of every connection is told all the
    same, within `Timeouts.linger`, except to one that has raised.

    The end of one direction is the end of that direction on the other side. With TLS that side sees
    the end of the transport connection, without TLS's own notice. A side that closes with bytes
    unread, which resets the connection, may have said something before, such as A-ABORT: that is
    passed on. What the other side still sends then nobody gets: it is read until that side closes,
    for `Timeouts.linger` seconds at most, as closing before could undo what it was sent.

    Args:
        host: Name or address of the peer.
        port: Its port.
        listen_port: The port to listen on; 0 for a free one, see `Relay.port`.
        listen_host: The address to listen on; `None` for all of this machine's.
        ssl_context: For TLS to the peer.
        tls_server_name: The name in its certificate, where that is another than `host`.
        server_ssl_context: For TLS with clients.
        on_passage: An `async def` that is told what goes by, before it is passed on, which waits
            for it. One that raises ends that connection.
        data_set_limit: `MessageRelayed.data_set` has data sets of up to so many bytes, which are
            patient data.
        max_connections: At once; others are closed.
        timeouts: `connect` is for the connection to the peer, and for TLS handshakes. A side that
            is gone without a word, or takes nothing, is given up after `network` seconds, where the
            system can tell; so is passing on what was said by a side that takes nothing more.
            `linger` is for a side to close once the other one has. How long something else may take
            is between the two sides.
        instruments: Told what happens, as of an acceptor that is the peer; of the end in any case.

    Raises:
        OSError: The port is taken, or not ours to take.
        LocalProtocolError: An argument cannot be.
    """
    check_address(host, port)
    check_count(max_connections, name="max_connections")
    check_count(data_set_limit, name="data_set_limit", least=0)
    check_ssl_context(ssl_context)
    check_ssl_context(server_ssl_context, name="server_ssl_context", server=True)
    _check_teller(on_passage)
    settings = _Settings(
        host=host,
        port=port,
        ssl_context=ssl_context,
        tls_server_name=tls_server_name,
        server_ssl_context=server_ssl_context,
        on_passage=on_passage,
        data_set_limit=data_set_limit,
        max_connections=max_connections,
        timeouts=checked_timeouts(timeouts),
        instruments=checked_instruments(instruments),
    )
    relay = Relay(settings, await open_listeners(listen_port, listen_host, prefix="listen_"))
    async with alongside(relay.run):
        yield relay


def _check_teller(on_passage: Callable[..., object]) -> None:
    """That what is told of passages takes one, and can be awaited."""
    wrong = not callable(on_passage) or isinstance(on_passage, type)
    if wrong or not inspect.iscoroutinefunction(called_form(on_passage)):
        raise LocalProtocolError("on_passage must be an `async def` that takes a passage")
    try:
        inspect.signature(on_passage, follow_wrapped=False).bind(object())
    except TypeError:
        raise LocalProtocolError("on_passage must take one argument, a passage") from None


class _Connection:
    """A client's connection and the peer's, and what has gone by."""

    def __init__(self, settings: _Settings, number: int) -> None:
        self._settings = settings
        self._number = number
        self._tell = settings.on_passage
        self._overheard = Overheard()
        self._messages: dict[Role, _Arriving] = {}
        self._bytes = dict.fromkeys(Role, 0)
        self._observer: Observer | None = None
        self._error: str | None = None
        self._began = trio.current_time()

    async def run(self, stream: trio.SocketStream) -> None:
        """Connect to the peer, and relay until both sides are done. The end of it is told."""
        address = peer_address_of(stream)
        peer: trio.abc.Stream | None = None
        error: str | None = "the relay was stopped"
        raised = False
        try:
            try:
                client = await self._handshake(stream)
                peer = await self._connect()
            except (AssociationError, TLSHandshakeError) as failure:
                error = str(failure)
            except trio.TooSlowError:
                error = "the client's TLS handshake was not complete in time"
            else:
                await self._relay(client, peer, address)
                error = self._error or self._unfinished()
        except Exception:
            error, raised = "on_passage raised", True
            raise
        finally:
            with trio.CancelScope(shield=True):
                if peer is not None:
                    await trio.aclose_forcefully(peer)
                await trio.aclose_forcefully(stream)
            if self._observer is not None:
                self._observer.closed(None if error is None else AssociationAborted(error))
            if not raised:
                await self._tell_end(error)

    async def _handshake(self, stream: trio.SocketStream) -> trio.abc.Stream:
        context = self._settings.server_ssl_context
        if context is None:
            return stream
        with trio.fail_after(self._settings.timeouts.connect):
            return await handshake(stream, context, server_side=True)

    async def _connect(self) -> trio.abc.Stream:
        settings = self._settings
        return await connect(
            settings.host,
            settings.port,
            ssl_context=settings.ssl_context,
            tls_server_name=settings.tls_server_name,
            timeouts=settings.timeouts,
        )

    async def _tell_end(self, error: str | None) -> None:
        """Tell it though the relay has been stopped, which leaves `linger` seconds for it."""
        duration = trio.current_time() - self._began
        client_bytes, peer_bytes = self._bytes[Role.REQUESTOR], self._bytes[Role.ACCEPTOR]
        end = RelayEnd(self._number, client_bytes, peer_bytes, duration, error)
        telling = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:

            async def tell() -> None:
                with telling:
                    await self._tell(end)
                nursery.cancel_scope.cancel()

            nursery.start_soon(tell)
            try:
                await trio.sleep_forever()
            finally:
                telling.deadline = trio.current_time() + self._settings.timeouts.linger

    def _unfinished(self) -> str | None:
        """What is in the midst of its data set."""
        for arriving in self._messages.values():
            return f"{arriving.message.name} ended after {arriving.length} bytes of its data set"
        return None

    async def _relay(self, client: trio.abc.Stream, peer: trio.abc.Stream, address: str) -> None:
        await self._tell(ConnectionRelayed(self._number, address))
        if self._settings.instruments:
            self._observer = Observer(
                self._settings.instruments, Role.ACCEPTOR, addresses(client), tls_version(client)
            )
        client_side, peer_side = sides = Side(client), Side(peer)
        timeouts = self._settings.timeouts
        for side in sides:
            side.give_up_after(timeouts.network)
        done: list[Role] = []
        async with trio.open_nursery() as nursery:

            async def pump(sender: Role, source: Side, target: Side) -> None:
                while data := await source.receive():
                    await self._hear(sender, data)
                    if not await target.send(data):
                        break
                done.append(sender)
                if data is not None and not data:
                    target.end()
                elif self._error is None:
                    whose = "client" if sender is Role.REQUESTOR else "peer"
                    self._error = f"the connection broke on what the {whose} sent"
                if data is None or (self._error is not None and len(done) == len(sides)):
                    nursery.cancel_scope.cancel()
                elif data:
                    # what the target has said before is passed on, to a source that may not read
                    # as long as it cannot write
                    nursery.cancel_scope.deadline = trio.current_time() + timeouts.network
                    while await source.receive():
                        pass

            nursery.start_soon(pump, Role.REQUESTOR, client_side, peer_side)
            nursery.start_soon(pump, Role.ACCEPTOR, peer_side, client_side)
        async with trio.open_nursery() as nursery:
            for side in sides:
                nursery.start_soon(side.finish, timeouts.linger)

    async def _hear(self, sender: Role, data: bytes | bytearray) -> None:
        """Tell what is complete with these bytes."""
        self._bytes[sender] += len(data)
        if self._observer is not None and sender is Role.REQUESTOR:
            self._observer.received(memoryview(data))
        elif self._observer is not None:
            self._observer.sent((memoryview(data),))
        for event in self._overheard.feed_untrusted(sender, memoryview(data)):
            if isinstance(event, MessageReceived):
                keep = self._settings.data_set_limit and event.has_data_set
                self._messages[sender] = arriving = _Arriving(
                    event.context_id, event.message, data=bytearray() if keep else None
                )
                self._observe(sender, event)
                if not event.has_data_set:
                    await self._message(sender, arriving, None)
            elif isinstance(event, DataSetFragment):
                arriving = self._messages[sender]
                arriving.take(event.data, self._settings.data_set_limit)
                self._observe(sender, event)
                if event.is_last:
                    await self._message(sender, arriving, arriving.length)
            elif not isinstance(event, PDataTF):
                if isinstance(event, NotUnderstood):
                    self._messages.pop(sender, None)
                self._observe(sender, event)
                agreed = self._overheard.negotiated if isinstance(event, AssociateAC) else None
                await self._tell(PDURelayed(self._number, sender, event, agreed))

    async def _message(self, sender: Role, arriving: _Arriving, length: int | None) -> None:
        del self._messages[sender]
        negotiated = self._overheard.negotiated
        context = None if negotiated is None else negotiated.accepted.get(arriving.context_id)
        kept = None if arriving.data is None else bytes(arriving.data)
        if self._observer is not None and context is not None and sender is Role.ACCEPTOR:
            self._observer.message_sent(arriving.context_id, arriving.message, length, kept)
        await self._tell(
            MessageRelayed(
                self._number, sender, arriving.context_id, context, length, arriving.message, kept
            )
        )

    def _observe(self, sender: Role, event: OverheardEvent) -> None:
        """Tell the instruments, as the peer that is an acceptor would."""
        observer, negotiated = self._observer, self._overheard.negotiated
        if observer is None:
            return
        match event:
            case AssociateRQ():
                observer.requested(event)
            case AssociateAC() if negotiated is not None:
                observer.associated(negotiated)
            case AssociateRJ():
                observer.rejected(event)
            case MessageReceived(context_id=context_id):
                known = negotiated is not None and context_id in negotiated.accepted
                if sender is Role.REQUESTOR and known:
                    observer.event(event)
            case DataSetFragment():
                if sender is Role.REQUESTOR:
                    observer.event(event)
            case ReleaseRP():
                observer.ended(AssociationClosed("the association has been released"))
            case Abort():
                observer.ended(AssociationAborted("one side has aborted the association"))
            case _:
                pass


@attrs.define
class _Arriving:
    """A message whose data set has begun to go by, with its bytes as long as they are wanted."""

    context_id: int
    message: Message
    length: int = 0
    data: bytearray | None = None

    def take(self, data: bytes | memoryview, limit: int) -> None:
        self.length += len(data)
        if self.data is not None and self.length <= limit:
            self.data += data
        else:
            self.data = None
