"""Bytes that have arrived and are not yet a PDU.

A PDU that lies whole inside one received block is handed out as a view of that block; only a PDU
that spans blocks is copied together. Views are valid until the next `append`.
"""

from __future__ import annotations


class ReceiveBuffer:
    """First in, first out; `peek` and `take` give `None` until enough bytes are there."""

    __slots__ = ("_block", "_start")

    def __init__(self) -> None:
        self._block: bytes | bytearray = b""
        self._start = 0

    def __len__(self) -> int:
        return len(self._block) - self._start

    def append(self, data: bytes | bytearray | memoryview) -> None:
        if not len(self):
            # a block that its owner may write to again is copied
            self._block = data if isinstance(data, bytes) else bytes(data)
            self._start = 0
            return
        if not isinstance(self._block, bytearray):
            self._block = bytearray(memoryview(self._block)[self._start :])
            self._start = 0
        try:
            if self._start:
                del self._block[: self._start]
                self._start = 0
            self._block += data
        except BufferError:  # a view handed out earlier is still held: leave it its bytes
            self._block = bytearray(memoryview(self._block)[self._start :])
            self._start = 0
            self._block += data

    def peek(self, length: int) -> memoryview | None:
        if len(self) < length:
            return None
        return memoryview(self._block)[self._start : self._start + length]

    def take(self, length: int) -> memoryview | None:
        view = self.peek(length)
        if view is not None:
            self._start += length
        return view

    def clear(self) -> None:
        self._block = b""
        self._start = 0
