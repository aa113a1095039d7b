"""A connection that stops taking what it is sent, until this side cancels."""

from __future__ import annotations

import socket

import trio

C_CANCEL_RQ = b"\x00\x00\x00\x01\x02\x00\x00\x00\xff\x0f"
"""Command Field (0000,0100) of a C-CANCEL-RQ in Implicit VR Little Endian (PS3.7 §E.1)."""
BUFFER = 4096


class GatedStream(trio.abc.HalfCloseableStream):
    """A TCP stream of small buffers that receives `allowance` bytes, then nothing until C-CANCEL.

    So the peer of a long operation cannot have finished before the C-CANCEL is on its way.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._gate = trio.Event()
        self.allowance: int | None = None

    @classmethod
    async def connect(cls, host: str, port: int) -> GatedStream:
        connection = trio.socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        await connection.connect((host, port))
        return cls(trio.SocketStream(connection))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)
        if C_CANCEL_RQ in bytes(data):
            self._gate.set()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.allowance == 0:
            await self._gate.wait()
            self.allowance = None
        if self.allowance is None:
            return bytes(await self._stream.receive_some(max_bytes))
        data = await self._stream.receive_some(min(self.allowance, max_bytes or self.allowance))
        self.allowance -= len(data)
        return bytes(data)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
