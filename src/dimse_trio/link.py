"""One association's core joined to its connection: events in, whole messages out.

The link advances the core and writes what follows from it under one lock, so that core and wire
never disagree. It owns ARTIM, the time one PDU may take, and how an association ends on the wire
(PS3.8 §9.1.5, §9.2); it knows nothing of operations, handlers or users' tasks.

One task receives (`next_event`); any task may send. A message is sent whole before the next begins
(PS3.8 Annex E); if it cannot be finished once begun, the association is aborted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from .config import Limits, Timeouts
from .errors import (
    TRY_AGAIN,
    AssociationAborted,
    AssociationClosed,
    AssociationError,
    AssociationRejected,
    AssociationTimeout,
    ConnectionFailed,
    LocalProtocolError,
    ended_by,
)
from .protocol.dimse import DimseConnection
from .protocol.events import (
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    DimseEvent,
    ProviderAborted,
)
from .protocol.messages import Message
from .protocol.negotiation import Negotiated
from .protocol.pdus import AssociateAC, AssociateRJ, AssociateRQ
from .protocol.state import State
from .protocol.upper_layer import Role
from .sources import DataSource, block_length
from .transport import (
    Buffer,
    PeerStalled,
    Receiver,
    Transport,
    TransportError,
    addresses,
    take,
    tls_version,
)

if TYPE_CHECKING:
    from .instruments import Instrument
    from .observer import Observer

logger = logging.getLogger("dimse_trio")


class Silence:
    """Nothing arrived until the time that `Link.due` gives."""


class Link:
    """See the module.

    Args:
        stream: The connection; the link closes it.
        role: Which side of the association this is.
        max_pdu_length: What is announced as maximum length, in bytes.
        timeouts, limits: `associate`, `network`, `linger`, `cancel_grace`; `command_set`.
        quick_ack, strict: As of `Transport` and of `UpperLayer`.
        instruments: Told what happens.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        max_pdu_length: int,
        timeouts: Timeouts,
        limits: Limits,
        quick_ack: bool = True,
        strict: bool = False,
        instruments: Sequence[Instrument] = (),
    ) -> None:
        self.core = DimseConnection(
            role,
            max_pdu_length=max_pdu_length,
            max_command_length=limits.command_set,
            strict=strict,
        )
        self.timeouts = timeouts
        self.limits = limits
        self._transport = Transport(
            stream, timeout=timeouts.network, grace=timeouts.cancel_grace, quick_ack=quick_ack
        )
        self.observer: Observer | None = None
        self._receiver: Receiver = self.core.upper_layer
        if instruments:
            from .observer import Observer

            self.observer = Observer(instruments, role, addresses(stream), tls_version(stream))
            self._receiver = self.observer.watch(self.core.upper_layer)
        self._message_lock = trio.Lock()
        self._receive_scope = trio.CancelScope()
        self._lost = False
        self._artim_starts = 0
        self._artim_deadline = inf
        self._pdu_deadline = inf
        self._look_again = min(timeouts.response, timeouts.idle)
        self.due: Callable[[], float] = lambda: inf
        """Until when something must begin to arrive; `next_event` else gives `Silence`.

        While `next_event` waits it may become earlier, but not than the shorter one of
        `Timeouts.response` and `Timeouts.idle` from then: it is looked at again after that time.
        """
        self.failure: AssociationError | None = None
        """Why this side gave the association up, where it did."""
        self.left = False
        """Whether that is since somebody leaves an operation, until they have: see `let_out`."""
        self.on_left: Callable[[], None] = lambda: None

    @property
    def peer_address(self) -> str:
        return self._transport.peer_address

    @property
    def peer_certificate(self) -> Mapping[str, Any] | None:
        """The peer's certificate, of TLS that has asked for it."""
        return self._transport.peer_certificate

    @property
    def negotiated(self) -> Negotiated:
        return self.core.negotiated

    @property
    def state(self) -> State:
        return self.core.upper_layer.state

    @property
    def established(self) -> bool:
        """Whether requests can be sent."""
        return self.state is State.ESTABLISHED

    # -- establishment ---------------------------------------------------------------------------

    async def associate(self, request: AssociateRQ) -> Negotiated:
        """Ask for an association and await the answer (PS3.8 §7.1).

        Raises:
            AssociationError: Rejected, aborted, too late, or no connection any more.
        """
        try:
            return await self._associate(request)
        except AssociationAborted as error:
            # of a client certificate that it misses, a TLS 1.3 peer tells only now
            if (why := self._transport.tls_end) is None:
                raise
            peer = self.peer_address or "the peer"  # whom a socket that is reset no longer knows
            raise ConnectionFailed(f"no TLS connection to {peer}: {why}") from error

    async def _associate(self, request: AssociateRQ) -> Negotiated:
        async with self._transport.lock:
            if self.observer is not None:
                self.observer.requested(request)
            self.core.associate(request)
            await self._write_pending()
        with trio.move_on_after(self.timeouts.associate):
            match event := await self.next_event():
                case AssociateAccepted():
                    if self.observer is not None:
                        self.observer.associated(self.negotiated)
                    return self.negotiated
                case AssociateRejected(reject=rj):
                    raise AssociationRejected.of(rj, request)
                case ProviderAborted(error=None) | None if self.failure is None:
                    raise AssociationAborted(
                        "the connection was lost before A-ASSOCIATE-RQ was answered;"
                        f" does this port expect TLS? {TRY_AGAIN}"
                    )
                case _:
                    raise self.end_of(event)
        raise AssociationTimeout(
            f"no answer to A-ASSOCIATE-RQ in {self.timeouts.associate:g} s"
            " (Timeouts.associate): is this a DICOM port, and does it expect TLS?"
        )

    async def await_request(self) -> AssociateRQ:
        """Await the peer's A-ASSOCIATE-RQ, as long as ARTIM runs.

        Raises:
            AssociationError: The peer sent something else, nothing in time, or closed.
        """
        self.core.upper_layer.transport_connected()
        event = await self.next_event()
        if isinstance(event, AssociateRequested):
            return event.request
        raise self.end_of(event)

    async def accept(self, accept: AssociateAC, *, implied_scp: Collection[str] = ()) -> None:
        """Answer A-ASSOCIATE-AC; see `DimseConnection.accept`."""
        async with self._transport.lock:
            self.core.accept(accept, implied_scp=implied_scp)
            await self._write_pending()
            if self.observer is not None:
                self.observer.associated(self.negotiated)

    async def reject(self, reject: AssociateRJ) -> None:
        """Answer A-ASSOCIATE-RJ and see that the peer can read it."""
        async with self._transport.lock:
            self.core.reject(reject)
            if self.observer is not None:
                self.observer.rejected(reject)
            await self._write_pending()
            await self._transport.send_eof()
        await self.drain()

    # -- receiving -------------------------------------------------------------------------------

    async def next_event(self) -> DimseEvent | Silence | None:
        """The next event; `None` when the connection is over. Only one task may call this."""
        upper_layer = self.core.upper_layer
        while True:
            event = self.core.next_event()
            while upper_layer.warnings:
                logger.warning("%s: %s", self.peer_address, upper_layer.warnings.popleft())
            if upper_layer.has_data_to_send or upper_layer.close_transport:
                await self._flush()
            if event is not None:
                self._pdu_deadline = inf
                if self.observer is not None:
                    self.observer.event(event)
                return event
            if self.state is State.IDLE:
                return None
            if await self._receive():
                return Silence()

    async def _receive(self) -> bool:
        """Give the core more bytes, the end of the stream, or ARTIM's expiry.

        Returns whether nothing came until it was `due`.
        """
        upper_layer = self.core.upper_layer
        receiving = self.core.receiving
        now = trio.current_time()
        if receiving:
            self._pdu_deadline = min(self._pdu_deadline, now + self.timeouts.network)
            deadline = self._pdu_deadline
        else:
            deadline = min(self.due(), now + self._look_again)
        with trio.CancelScope(deadline=deadline) as self._receive_scope:
            self._set_artim()
            if await self._transport.receive(self._receiver):
                return False
        if not self._receive_scope.cancelled_caught or self._lost:
            upper_layer.receive_eof()
        elif upper_layer.artim_running:
            upper_layer.artim_expired()
        elif receiving:
            await self.abort(
                AssociationTimeout(
                    f"the rest of a message did not come in {self.timeouts.network:g} s"
                    " (Timeouts.network); the association was aborted"
                )
            )
        else:
            return trio.current_time() >= self.due()
        return False

    def _set_artim(self) -> None:
        """Let ARTIM, if the core runs it, bound the receiving that is going on or begins."""
        upper_layer = self.core.upper_layer
        if self._artim_starts != upper_layer.artim_starts:
            self._artim_starts = upper_layer.artim_starts
            awaiting_close = self.state is State.AWAITING_CLOSE
            wait = self.timeouts.linger if awaiting_close else self.timeouts.associate
            self._artim_deadline = trio.current_time() + wait
        if upper_layer.artim_running:
            self._receive_scope.deadline = self._artim_deadline

    async def _flush(self) -> None:
        """Write what the core wants to say by itself. A peer that does not take it is dropped."""
        upper_layer = self.core.upper_layer
        if upper_layer.has_data_to_send:
            with trio.CancelScope(shield=True), trio.move_on_after(self.timeouts.linger) as scope:
                async with self._transport.lock:
                    try:
                        await self._write_pending(timeout=self.timeouts.linger)
                    except AssociationError:
                        return
                    if self.state is State.AWAITING_CLOSE:
                        await self._transport.send_eof()
            if scope.cancelled_caught:
                await self._transport.aclose()
        if upper_layer.close_transport:
            await self._transport.aclose()

    def end_of(self, event: DimseEvent | Silence | None) -> AssociationError:
        """The error for an event that ends an association (or for one that has no place)."""
        return self.failure or ended_by(event)

    # -- sending ---------------------------------------------------------------------------------

    async def send_message(
        self, context_id: int, message: Message, source: DataSource | None = None
    ) -> None:
        """Send a message and its data set; the caller closes the source.

        Cancelled before its first PDU, nothing is sent; after the last it is not noticed. Between
        PDUs the association is aborted, as half a message cannot be taken back.

        Raises:
            AssociationError: The association is over.
            OSError: The source cannot be read.
        """
        await take(self._message_lock)
        try:
            block: bytes | memoryview = b""
            if source is not None:
                block = await source.read(block_length(self.core.fragment_length))
            await take(self._transport.lock)
            try:
                self._check_open()
                has_data_set = source is not None
                command = self.core.command_pdus(context_id, message, has_data_set=has_data_set)
                buffers: list[Buffer] = [command]
                left = 0
                if source is not None:
                    left = source.length - len(block)
                    self._add_data_set_pdus(buffers, context_id, block, is_last=left <= 0)
                if self.observer is not None:
                    length = None if source is None else source.length
                    whole = block if source is not None and left <= 0 else None
                    self.observer.message_sent(context_id, message, length, whole)
                await self._write(buffers)
            finally:
                self._transport.lock.release()
            if source is not None and left > 0:
                await self._send_rest(context_id, message, source, left)
        finally:
            self._message_lock.release()
            self.let_out()

    async def _send_rest(
        self, context_id: int, message: Message, source: DataSource, left: int
    ) -> None:
        """The data set's blocks after the first; whatever stops this aborts the association."""
        try:
            while left > 0:
                await trio.lowlevel.checkpoint()
                block = await source.read(block_length(self.core.fragment_length))
                if not block:
                    raise OSError(f"the data set of {message.name} ended {left} bytes early")
                left -= len(block)
                buffers: list[Buffer] = []
                async with self._transport.lock:
                    self._check_open()
                    self._add_data_set_pdus(buffers, context_id, block, is_last=left <= 0)
                    await self._write(buffers)
        except BaseException as error:
            await self.abort(
                AssociationAborted(f"aborted inside a {message.name}, which was not all sent"),
                left=not isinstance(error, AssociationError),
            )
            raise

    def _add_data_set_pdus(
        self, buffers: list[Buffer], context_id: int, data: bytes | memoryview, *, is_last: bool
    ) -> None:
        for header_and_fragment in self.core.data_set_pdus(context_id, data, is_last=is_last):
            buffers += header_and_fragment

    def _check_open(self) -> None:
        if self.state in (State.ESTABLISHED, State.AWAITING_LOCAL_RELEASE):
            return
        raise self.failure or AssociationClosed("the association is over")

    async def _write_pending(self, *, timeout: float | None = None) -> None:
        data = self.core.upper_layer.data_to_send()
        if data:
            await self._write([data], timeout=timeout)

    async def _write(self, buffers: list[Buffer], *, timeout: float | None = None) -> None:
        if self.observer is not None:
            self.observer.sent(buffers)
        try:
            await self._transport.write(buffers, timeout=timeout)
        except TransportError as error:
            # what the peer said before it went may still be there to be read
            self._lost = True
            self._receive_scope.deadline = trio.current_time() + self.timeouts.linger
            lost = AssociationAborted(f"connection lost: {error}; {TRY_AGAIN}")
            if isinstance(error, PeerStalled):
                self.left = trio.current_effective_deadline() == -inf  # its caller was cancelled
                self.failure = self.failure or lost  # before the receive task sees the end
                await self._transport.aclose()
            raise lost from error

    # -- the end ---------------------------------------------------------------------------------

    async def release(self) -> None:
        """Send A-RELEASE-RQ, after any message that is being sent (PS3.8 §7.2)."""
        async with self._message_lock, self._transport.lock:
            if self.established:
                self.core.upper_layer.release()
                await self._write_pending()

    async def respond_to_release(self) -> None:
        """Send A-RELEASE-RP, if one is due."""
        async with self._message_lock, self._transport.lock:
            try:
                self.core.upper_layer.respond_to_release()
            except LocalProtocolError:
                return  # the peer has aborted in the meantime
            self._set_artim()
            await self._write_pending()

    async def abort(self, why: AssociationError | None = None, *, left: bool = False) -> None:
        """Send A-ABORT, if there is still an association: shielded, bounded by `linger`."""
        try:
            self.core.upper_layer.abort()
        except LocalProtocolError:
            return  # Sta1, Sta2 or Sta13: nothing to abort
        self.left = left and self.failure is None
        self.failure = self.failure or why
        self._set_artim()
        await self._flush()

    def let_out(self) -> None:
        """Who leaves an operation reaches their own scope from here on without a checkpoint."""
        if self.left:
            self.left = False
            self.on_left()

    async def drain(self) -> None:
        """Receive until the peer closes, or ARTIM expires; shielded."""
        with trio.CancelScope(shield=True):
            while await self.next_event() is not None:
                pass

    async def aclose(self) -> None:
        """Close the connection at once, whatever the state."""
        await self._transport.aclose()
