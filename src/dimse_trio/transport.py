"""The transport connection: one stream, shielded and bounded writes, errors translated once.

A write that is cancelled half-way would leave the peer inside a PDU with no way back, so a write is
never cancelled: it is shielded, and bounded in time instead. A write that fails or is not done in
time ends the connection (PS3.8 §9.1: the transport's errors are the association's).
"""

from __future__ import annotations

from contextlib import suppress
from typing import cast

import trio

RECEIVE_SIZE = 1 << 17
"""Bytes asked of the transport at once: as much as the longest PDU that we announce."""


class TransportError(Exception):
    """The connection cannot be written to any more; the link makes it AssociationAborted."""


class Transport:
    """A stream with PDU-wise writes.

    Args:
        stream: Any byte stream; TCP and TLS from this package's openers, or the user's own.
        timeout: Seconds for one write.
        grace: Seconds for a write once the surrounding cancel scope's deadline has passed.
    """

    def __init__(self, stream: trio.abc.Stream, *, timeout: float, grace: float) -> None:
        self._stream = stream
        self._timeout = timeout
        self._grace = grace
        self._lock = trio.Lock()
        self.peer_address = _peer_address(stream)

    @property
    def lock(self) -> trio.Lock:
        """Held while the core advances and the resulting bytes are written, so that they agree."""
        return self._lock

    async def write(self, data: bytes) -> None:
        """Write whole PDUs; the caller holds `lock`. Cancellation is not noticed in here.

        Raises:
            TransportError: The connection broke, or the peer does not read. It is closed.
        """
        now = trio.current_time()
        cut = max(trio.current_effective_deadline(), now) + self._grace
        with trio.CancelScope(shield=True, deadline=min(now + self._timeout, cut)) as scope:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise TransportError("the connection is broken") from error
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self._stream)
            raise TransportError("the peer does not read what it is sent")

    async def receive(self) -> bytes:
        """The next bytes; empty at the end of the stream, in whatever way it ended."""
        try:
            return bytes(await self._stream.receive_some(RECEIVE_SIZE))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def send_eof(self) -> None:
        """Say that nothing more will be sent, where the stream can say that."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the connection, at once."""
        await trio.aclose_forcefully(self._stream)


def _peer_address(stream: trio.abc.Stream) -> str:
    """Host and port of the peer for messages and logs; empty where the stream has none."""
    inner: object = stream
    if isinstance(stream, trio.SSLStream):
        inner = cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream
    if not isinstance(inner, trio.SocketStream):
        return ""
    try:
        name = inner.socket.getpeername()
    except OSError:
        return ""
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
