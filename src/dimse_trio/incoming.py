"""What arrives before its reader wants it: bounded in memory, the rest in a temporary file.

The receive task never waits for a handler while anything else needs the connection. So what it has
read must go somewhere: into memory up to a limit, then, if waiting for the reader is no option,
into an unnamed temporary file.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable
from typing import IO

import trio

from .errors import DataSetTooLarge, DimseError
from .protocol.errors import AbortReason, RemoteProtocolError

ENTRY_COST = 64
"""Bytes that a byte string takes beside its content: a peer may send its data set in ones."""
_LENGTH_BYTES = 8


class Bell:
    """Wakes whoever waits at the moment; made for many rings that nobody hears."""

    __slots__ = ("_rung",)

    def __init__(self) -> None:
        self._rung: trio.Event | None = None

    async def wait(self) -> None:
        """Wait until it is rung the next time."""
        if self._rung is None:
            self._rung = trio.Event()
        await self._rung.wait()

    def ring(self) -> None:
        if self._rung is not None:
            self._rung.set()
            self._rung = None


class Spool:
    """A queue of byte strings whose tail lies in a temporary file once memory is full.

    The temporary file is written and read in place, in the event loop: its blocks are in the page
    cache, where a thread costs more than the copy.
    """

    def __init__(self, memory_limit: int) -> None:
        self._memory: deque[bytes] = deque()
        self._limit = memory_limit
        self._file: IO[bytes] | None = None
        self._read = self._written = 0
        self.in_memory = 0

    @property
    def full(self) -> bool:
        """Whether what is appended next goes to the file."""
        return self.in_memory + ENTRY_COST * len(self._memory) >= self._limit

    def append(self, data: bytes) -> None:
        if self._read == self._written and not self.full:
            self._memory.append(data)
            self.in_memory += len(data)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the spool
        self._file.seek(self._written)
        self._file.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
        self._file.write(data)
        self._written += _LENGTH_BYTES + len(data)

    def popleft(self) -> bytes | None:
        """The oldest byte string, or `None` if there is none."""
        if self._memory:
            data = self._memory.popleft()
            self.in_memory -= len(data)
            return data
        if self._file is None or self._read == self._written:
            return None
        self._file.seek(self._read)
        length = int.from_bytes(self._file.read(_LENGTH_BYTES), "big")
        data = self._file.read(length)
        self._read += _LENGTH_BYTES + length
        if self._read == self._written:
            self._file.seek(0)
            self._file.truncate()
            self._read = self._written = 0
        return data

    def close(self) -> None:
        """Give up memory and file."""
        self._memory.clear()
        self.in_memory = self._read = self._written = 0
        if self._file is not None:
            self._file.close()
            self._file = None


class Inbox:
    """A spool between the receive task and one reader.

    The receive task calls `put`, `end`, `fail` and `discard`, which never wait; the reader awaits
    `get`.
    """

    def __init__(self, memory_limit: int) -> None:
        self._spool = Spool(memory_limit)
        self._changed = Bell()
        self._error: BaseException | None = None
        self.ended = False
        self.discarding = False
        self._reader_moved = Bell()
        self._given_up = False

    @property
    def full(self) -> bool:
        return self._spool.full and not self.discarding

    @property
    def worth_waiting_for(self) -> bool:
        """Whether it is full, and its reader has not been waited for in vain."""
        return self.full and not self._given_up

    def put(self, data: bytes) -> None:
        if self.discarding or self.ended:
            return
        try:
            self._spool.append(data)
        except OSError as error:
            self.fail(DataSetTooLarge(f"no room to keep what arrives: {error}"))
        self._wake_reader()

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self._wake_reader()

    def fail(self, error: BaseException) -> None:
        """Nothing more will come, because of `error`; the reader gets what is there, then it."""
        if not self.ended:
            self._error = error
            self.end()

    def discard(self) -> None:
        """The reader wants nothing more: drop what is there and what comes."""
        self.discarding = True
        self._spool.close()
        self.wake_receiver()
        self._wake_reader()

    async def get(self) -> bytes | None:
        """The next byte string, or `None` at the end. Cancellation takes nothing away.

        Raises:
            DimseError: What `fail` was given.
        """
        while (data := self._spool.popleft()) is None:
            if self.ended:
                if self._error is not None:
                    raise self._error
                if not self.discarding:
                    return None
            if self.discarding:
                raise DimseError("this is read too late: what was not taken has been dropped")
            await self._changed.wait()
        self._given_up = False
        self.wake_receiver()
        return data

    async def wait_moved(self, timeout: float) -> None:
        """For the receive task: wait until the reader takes something, or `wake_receiver`.

        After `timeout` seconds in vain it is not `worth_waiting_for` until it takes something.
        """
        with trio.move_on_after(timeout) as scope:
            await self._reader_moved.wait()
        self._given_up = scope.cancelled_caught

    def wake_receiver(self) -> None:
        """End a `wait_moved`, so that it is decided anew whether to wait."""
        self._reader_moved.ring()

    def _wake_reader(self) -> None:
        self._changed.ring()


class IncomingDataSet:
    """The data set of one message while it arrives. Its bytes can be read once.

    Args:
        memory_limit: Bytes held in memory.
        size_limit: Bytes taken in all; of a longer data set the rest is dropped and the reader
            gets `DataSetTooLarge`.
    """

    def __init__(self, *, memory_limit: int, size_limit: int) -> None:
        self.inbox = Inbox(memory_limit)
        self.size = 0
        self._size_limit = size_limit
        self._taken = False
        self._complete = trio.Event()

    def feed(self, data: bytes | memoryview, is_last: bool) -> None:
        """Take the next fragment from the receive task."""
        self.size += len(data)
        if self.size > self._size_limit:
            self.inbox.fail(DataSetTooLarge(f"a data set of more than {self._size_limit} bytes"))
        elif len(data):
            self.inbox.put(bytes(data))
        if is_last:
            self.end()

    def end(self) -> None:
        """No more fragments follow."""
        self.inbox.end()
        self._complete.set()

    async def wait_complete(self) -> None:
        """Wait until the last fragment has arrived, read or not."""
        await self._complete.wait()

    def chunks(self) -> Chunks:
        """The bytes as they come.

        Iterating raises:
            DimseError: They have been read before, are too many, or the association is gone.
        """
        return Chunks(self)

    def take(self) -> Inbox:
        """What a reader reads from; there can be one."""
        if self._taken:
            raise DimseError("this data set has been read already: it is streamed, not kept")
        self._taken = True
        return self.inbox

    async def read(self) -> bytes:
        """All of it, in memory."""
        return b"".join([chunk async for chunk in self.chunks()])


def gathering(
    limit: int, then: Callable[[bytes], None]
) -> Callable[[bytes | memoryview, bool], None]:
    """What takes the fragments of a short data set and, when it is whole, goes on with it.

    It raises `RemoteProtocolError` when there are more than `limit` bytes.
    """
    gathered = bytearray()

    def take(data: bytes | memoryview, is_last: bool) -> None:
        if len(gathered) + len(data) > limit:
            raise RemoteProtocolError(
                f"a data set of more than {limit} bytes", AbortReason.NOT_SPECIFIED
            )
        gathered.extend(data)
        if is_last:
            then(bytes(gathered))

    return take


class Chunks:
    """The bytes of a data set as they come. No generator, so it may be left where one likes."""

    def __init__(self, data_set: IncomingDataSet) -> None:
        self._data_set = data_set
        self._inbox: Inbox | None = None

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        if self._inbox is None:
            self._inbox = self._data_set.take()
        chunk = await self._inbox.get()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Nothing; for users who close what they iterate over."""
