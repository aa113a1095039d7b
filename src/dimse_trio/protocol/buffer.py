"""Bytes that have arrived and are not yet a PDU: one buffer that is received into and read from.

PDUs are handed out as views, valid until more is received: then their bytes are written over. What
is left of an unfinished PDU is moved to the front, so that nothing is copied but that.
"""

from __future__ import annotations

SHRINK_FACTOR = 4
"""An empty buffer so many times larger than what is asked for is given back."""


class ReceiveBuffer:
    """First in, first out; `peek` and `take` give `None` until enough bytes are there."""

    __slots__ = ("_data", "_end", "_start")

    def __init__(self) -> None:
        self._data = bytearray()
        self._start = self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    def space(self, size: int) -> memoryview:
        """Room for `size` bytes, to be received into; `filled` says how many came."""
        length = self._end - self._start
        if len(self._data) - self._end < size:
            if len(self._data) - length < size:
                larger = bytearray(max(length + size, 2 * length))
                larger[:length] = memoryview(self._data)[self._start : self._end]
                self._data = larger
            elif length:
                self._data[:length] = self._data[self._start : self._end]
            self._start, self._end = 0, length
        elif not length and len(self._data) > SHRINK_FACTOR * size:
            self._data = bytearray(size)
            self._start = self._end = 0
        return memoryview(self._data)[self._end : self._end + size]

    def filled(self, count: int) -> None:
        """So many bytes have been put into `space`."""
        self._end += count

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that were received elsewhere."""
        self.space(len(data))[:] = data
        self.filled(len(data))

    def peek(self, length: int) -> memoryview | None:
        if self._end - self._start < length:
            return None
        return memoryview(self._data)[self._start : self._start + length]

    def take(self, length: int) -> memoryview | None:
        view = self.peek(length)
        if view is not None:
            self._start += length
            if self._start == self._end:
                self._start = self._end = 0
        return view

    def clear(self) -> None:
        self._data = bytearray()
        self._start = self._end = 0
