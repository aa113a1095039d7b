"""The transport connection: one stream, shielded and bounded writes, errors translated once.

A write that is cancelled half-way would leave the peer inside a PDU with no way back, so a write is
never cancelled: it is shielded, and bounded in time instead. A write that fails or is not done in
time ends the connection (PS3.8 §9.1: the transport's errors are the association's).

Over plain TCP the descriptor is read and written directly where the system allows it: header and
fragment go out in one call without being joined, and a write that the kernel takes at once costs no
trip through the scheduler. Whatever else a stream is, it is used through trio's interface.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Protocol, cast

import trio

from .tls import why_tls_ended

MIN_RECEIVE = 1 << 12
MAX_RECEIVE = 1 << 18
"""Bytes received at once: few where messages are short, so that an idle association costs little;
twice the longest PDU that we announce where they are long."""
MOMENT = 0.1
"""Seconds for which a write waits before it is prepared to wait for long."""
MAX_BUFFERS = 512
"""Buffers in one write; systems take 1024."""
_PDU = 2
"""Buffers of a P-DATA-TF: its header and its fragment."""

QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)

Buffer = bytes | memoryview


class TransportError(Exception):
    """The connection cannot be written to any more; the link makes it AssociationAborted."""


class PeerStalled(TransportError):
    """The peer does not read; the connection has been closed."""


class Receiver(Protocol):
    """What takes received bytes: the upper layer, or what watches it."""

    def receive_data(self, data: bytes | bytearray | memoryview) -> None: ...

    def get_buffer(self, size: int) -> memoryview: ...

    def buffer_updated(self, count: int) -> None: ...


class Transport:
    """A stream with PDU-wise writes.

    Args:
        stream: Any byte stream; TCP and TLS from this package's openers, or the user's own.
        timeout: Seconds for one PDU.
        grace: Seconds that a write has left once its task is cancelled.
        quick_ack: Whether to acknowledge at once what is received, where the system can.
    """

    def __init__(
        self, stream: trio.abc.Stream, *, timeout: float, grace: float, quick_ack: bool
    ) -> None:
        self._stream = stream
        self._timeout = timeout
        self._grace = grace
        self._socket: trio.socket.SocketType | None = None
        if isinstance(stream, trio.SocketStream) and hasattr(os, "writev"):
            self._socket = stream.socket
        self._receive_size = MIN_RECEIVE
        self._acknowledged: trio.socket.SocketType | None = None
        """The socket on which what comes is acknowledged at once."""
        if quick_ack and QUICKACK is not None and (connection := _socket_below(stream)) is not None:
            over_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
            self._acknowledged = connection if over_tcp else None
        self.lock = trio.Lock()
        """Held while the core advances and the resulting bytes are written, so that they agree."""
        self.tls_end: str | None = None
        """Why a TLS connection ended before anything came, as far as that is known, once it has."""
        self._heard = False
        self.peer_address = peer_address_of(stream)

    @property
    def peer_certificate(self) -> Mapping[str, Any] | None:
        """The peer's certificate as `ssl` gives it; `None` without TLS, or if it has shown none."""
        if not isinstance(self._stream, trio.SSLStream):
            return None
        tls = cast("Any", self._stream)
        return cast("Mapping[str, Any] | None", tls.getpeercert() or None)

    async def write(self, buffers: Sequence[Buffer], *, timeout: float | None = None) -> None:
        """Write whole PDUs; the caller holds `lock`. Cancellation is not noticed in here.

        Args:
            buffers: The bytes, in order.
            timeout: Seconds for this write, where they are not those of the connection.

        Raises:
            TransportError: The connection broke.
            PeerStalled: The peer does not read; close the connection.
        """
        try:
            rest = self._write_now(buffers)
            if rest and self._socket is not None:
                rest = await self._write_soon(self._socket, rest)
            if rest and not await self._write_shielded(rest, timeout or self._timeout):
                raise PeerStalled("the peer does not read what it is sent")
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._note_end(error)
            raise TransportError("the connection is broken") from error

    async def _write_soon(
        self, connection: trio.socket.SocketType, buffers: Sequence[Buffer]
    ) -> Sequence[Buffer]:
        """Write what a peer that reads takes in a moment, shielded; the rest.

        That the caller is cancelled is noticed that much later, but what follows costs a task.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + MOMENT):
            while buffers:
                _check_open(connection)
                await trio.lowlevel.wait_writable(connection)
                buffers = self._write_now(buffers)
        return buffers

    async def _write_shielded(self, buffers: Sequence[Buffer], timeout: float) -> bool:
        """Write what has to wait, in a task that only time ends; whether it was done in time.

        Each PDU has the whole time; when the caller is cancelled, `grace` seconds are left for all.
        That it was, it learns at its next checkpoint: here it is told whether the bytes are gone.
        """
        failure: list[Exception] = []
        async with trio.open_nursery() as nursery:
            with_deadline = trio.CancelScope(shield=True, deadline=trio.current_time() + timeout)
            given_up = inf

            def renew() -> None:
                with_deadline.deadline = min(trio.current_time() + timeout, given_up)

            async def write() -> None:
                with with_deadline:
                    try:
                        await self._write_rest(buffers, renew)
                    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                        failure.append(error)
                nursery.cancel_scope.cancel()

            nursery.start_soon(write)
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                given_up = trio.current_time() + self._grace
                with_deadline.deadline = min(with_deadline.deadline, given_up)
        if failure:
            raise failure[0]
        return not with_deadline.cancelled_caught

    def _write_now(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """Write what the kernel takes without waiting; the rest."""
        if self._socket is None:
            return buffers
        try:
            written = os.writev(self._socket.fileno(), buffers[:MAX_BUFFERS])
        except BlockingIOError:
            return buffers
        for index, buffer in enumerate(buffers):
            if written < len(buffer):
                return (memoryview(buffer)[written:], *buffers[index + 1 :])
            written -= len(buffer)
        return ()

    async def _write_rest(self, buffers: Sequence[Buffer], renew: Callable[[], None]) -> None:
        """Write it all; `renew` is called when a PDU has gone out."""
        while buffers:
            before = len(buffers)
            if self._socket is None:
                await self._stream.send_all(b"".join(buffers[:_PDU]))
                buffers = buffers[_PDU:]
            else:
                _check_open(self._socket)
                await trio.lowlevel.wait_writable(self._socket)
                buffers = self._write_now(buffers)
            if len(buffers) < before:
                renew()

    async def receive(self, core: Receiver) -> bool:
        """Receive the next bytes into the core; whether the stream has not ended, in any way."""
        try:
            if self._socket is None:
                data = await self._stream.receive_some(MAX_RECEIVE)
                core.receive_data(data)
                self._acknowledge()
                if data:
                    self._heard = True
                else:
                    self._note_end()
                return bool(data)
            while True:
                _check_open(self._socket)
                await trio.lowlevel.wait_readable(self._socket)
                with suppress(BlockingIOError):
                    return self._receive_now(self._socket, core)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._note_end(error)
            return False

    def _note_end(self, error: Exception | None = None) -> None:
        """Say why TLS ended; who has sent something has no objection to TLS or certificates."""
        if not self._heard:
            self.tls_end = why_tls_ended(self._stream, error)

    def _receive_now(self, connection: trio.socket.SocketType, core: Receiver) -> bool:
        count = os.readv(connection.fileno(), (core.get_buffer(self._receive_size),))
        core.buffer_updated(count)
        if count == self._receive_size:
            self._receive_size = min(2 * count, MAX_RECEIVE)
        elif 4 * count < self._receive_size:
            self._receive_size = max(self._receive_size // 2, MIN_RECEIVE)
        self._acknowledge()
        return count > 0

    def _acknowledge(self) -> None:
        """Have what has come acknowledged at once.

        A peer that writes a PDU in two pieces, with Nagle on, waits for that.
        """
        if self._acknowledged is not None:
            self._acknowledged.setsockopt(socket.IPPROTO_TCP, cast("int", QUICKACK), 1)

    async def send_eof(self) -> None:
        """Say that nothing more will be sent, where the stream can say that."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the connection, at once."""
        await trio.aclose_forcefully(self._stream)


async def take(lock: trio.Lock) -> None:
    """Acquire a lock, without a trip through the scheduler where it is free."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()


def _check_open(connection: trio.socket.SocketType) -> None:
    """Refuse to wait for a closed socket, whose descriptor is -1: trio would, and for ever."""
    if connection.fileno() < 0:
        raise trio.ClosedResourceError("the connection has been closed")


def addresses(stream: trio.abc.Stream) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    """Host and port of this side and of the peer; `None` where the stream has none."""
    connection = _socket_below(stream)
    if connection is None:
        return None, None
    return _address(connection.getsockname), _address(connection.getpeername)


def _socket_below(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    """The socket of a stream, with or without TLS; `None` where it has none."""
    inner: object = stream
    if isinstance(stream, trio.SSLStream):
        inner = cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream
    return inner.socket if isinstance(inner, trio.SocketStream) else None


def _address(name_of: Callable[[], object]) -> tuple[str, int] | None:
    try:
        name = name_of()
    except OSError:
        return None
    return cast("tuple[str, int]", name[:2]) if isinstance(name, tuple) else None


def tls_version(stream: trio.abc.Stream) -> str | None:
    """The version of TLS that a stream speaks, such as "TLSv1.3"; `None` without TLS."""
    return stream.version() if isinstance(stream, trio.SSLStream) else None


def peer_address_of(stream: trio.abc.Stream) -> str:
    """Host and port of the peer for messages and logs; empty where the stream has none."""
    _, peer = addresses(stream)
    return "" if peer is None else f"{peer[0]}:{peer[1]}"
