"""One side of a relayed connection: what it has said last can be read when it takes nothing more.

Who closes with bytes unread resets the connection, perhaps right after an A-ABORT. Then writing
fails, while what has arrived is still there to be read. And who closes so loses what it has written
itself, as far as that is under way: a relay reads on for a while before it closes.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import cast

import trio

from .transport import QUICKACK

CHUNK = 1 << 16
"""Bytes received at once, and all that is held of a direction."""
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Side:
    """One side's connection, with or without TLS. It is closed by whoever has opened it.

    Args:
        stream: The connection; a TLS stream is this side's from here on.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._lasting: _Lasting | None = None
        transport = stream
        if isinstance(stream, trio.SSLStream):
            tls = cast("trio.SSLStream[trio.abc.Stream]", stream)
            transport = tls.transport_stream
            tls.transport_stream = self._lasting = _Lasting(transport)
        self._transport = transport
        self._socket = transport.socket if isinstance(transport, trio.SocketStream) else None

    async def receive(self) -> bytes | bytearray | None:
        """The next bytes, acknowledged at once; none at the end, `None` if the connection broke.

        The acknowledgement is what a side that writes a PDU in two pieces with Nagle on waits for.
        """
        try:
            data = await self._stream.receive_some(CHUNK)
        except _BROKEN:
            return None
        if self._socket is not None and QUICKACK is not None:
            with suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        return data

    async def send(self, data: bytes | bytearray) -> bool:
        """Send bytes; whether the connection takes any."""
        try:
            await self._stream.send_all(data)
        except _BROKEN:
            return False
        return self._lasting is None or not self._lasting.takes_nothing

    def end(self) -> None:
        """Say that nothing more will be sent. TLS is not told: trio's would stop reading, too."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    async def finish(self, seconds: float) -> None:
        """Say that nothing more will be sent, and wait for the other's end, at most so long.

        What it sends in the meantime, nobody wants.
        """
        self.end()
        with trio.move_on_after(seconds), suppress(*_BROKEN):
            while await self._transport.receive_some(CHUNK):
                pass

    def give_up_after(self, seconds: float) -> None:
        """Have the system find out that it is gone without a word, or takes nothing for so long."""
        if self._socket is None:
            return
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
                self._socket.setsockopt(socket.IPPROTO_TCP, option, round(seconds * 1000))


class _Lasting(trio.abc.Stream):
    """What TLS goes over. Writing to it never fails: trio's TLS would not read any more."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.takes_nothing = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.takes_nothing:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._stream.send_all(data)
        except _BROKEN:
            self.takes_nothing = True

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()
