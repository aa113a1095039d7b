"""Data sets on their way out: a length, and bytes in order, from memory or from a file."""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import attrs
import trio

from .errors import InvalidFile
from .part10 import Instance, open_file

BLOCKING_READ = 1 << 20
"""A file up to this long is read in the event loop, wherever it lies: the way to a worker thread
and back takes longer than that from any disk that is not itself far away."""
BLOCK = 1 << 19
"""About how many bytes of a data set are read and written at once."""
MAX_FRAGMENTS = 256
"""Most fragments that are read and written at once, however short a peer wants them."""

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


def block_length(fragment_length: int) -> int:
    """How many bytes of a data set to read at once, so that they make whole fragments."""
    return min(max(BLOCK // fragment_length, 1), MAX_FRAGMENTS) * fragment_length


class DataSource(Protocol):
    """A data set to be sent: its length, and its bytes in order."""

    length: int

    async def read(self, size: int) -> bytes | memoryview:
        """The next `size` bytes, fewer only at the end; valid until the next call."""
        ...

    def close(self) -> None: ...


class BytesSource:
    """A data set in memory."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._view = memoryview(data)
        self._position = 0
        self.length = len(data)

    async def read(self, size: int) -> memoryview:
        start = self._position
        self._position += size
        return self._view[start : self._position]

    def close(self) -> None:
        self._view.release()


class FileSource:
    """The data set of a DICOM file, from its bytes on disk.

    A file may have been replaced since it was looked at, so its header is read again when it is
    opened; from then on it is the file that was opened, whatever happens to its name.

    What the system has in memory is read in the event loop, where that takes a tenth of the time;
    what it would have to wait for, in a worker thread. All reads go into one buffer.

    Attributes:
        instance: What the file holds, and where in it the data set is.
    """

    def __init__(self, instance: Instance, file: BufferedReader | None = None) -> None:
        self.instance = instance
        self._file = file
        self._position = instance.offset
        self._buffer = bytearray()
        self._nowait = _NOWAIT
        self.length = instance.length

    @classmethod
    def open(cls, path: Path) -> FileSource:
        """The data set of the file at `path`, open.

        Raises:
            OSError, InvalidFile: As `Instance.from_file`.
        """
        file = open_file(path)
        try:
            return cls(Instance.from_open_file(file, path), file)
        except BaseException:
            file.close()
            raise

    async def read(self, size: int) -> memoryview:
        if self._file is None:
            if self.length <= BLOCKING_READ:
                self._file = self._open()
            else:
                self._file = await trio.to_thread.run_sync(self._open)
        size = min(size, self.instance.offset + self.length - self._position)
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        view = memoryview(self._buffer)[:size]
        filled = self._read_now(view) if self.length > BLOCKING_READ else self._read(view)
        if filled < size:
            filled += await trio.to_thread.run_sync(self._read, view[filled:])
        return view[:filled]

    def _open(self) -> BufferedReader:
        opened = FileSource.open(self.instance.path)
        now = opened.instance
        if now != attrs.evolve(self.instance, offset=now.offset, length=now.length):
            opened.close()
            raise InvalidFile(f"{now.path}: it has been replaced by another instance")
        self.instance = now
        self._position, self.length = now.offset, now.length
        assert opened._file is not None
        return opened._file

    def _read_now(self, view: memoryview) -> int:
        """Read what the system need not wait for."""
        if self._nowait is None or self._file is None:
            return 0
        try:
            done = os.preadv(self._file.fileno(), [view], self._position, self._nowait)
        except BlockingIOError:
            return 0
        except OSError:  # this file system cannot tell
            self._nowait = None
            return 0
        self._position += done
        return done

    def _read(self, view: memoryview) -> int:
        """Read as much as there is."""
        assert self._file is not None
        self._file.seek(self._position)
        done = self._file.readinto(view)
        self._position += done
        return done

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
