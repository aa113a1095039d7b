"""Data sets on their way out: a length, and bytes in order, from memory or from a file."""

from __future__ import annotations

from typing import BinaryIO, Protocol

import attrs
import trio

from .errors import InvalidFile
from .part10 import Instance

BLOCKING_READ = 1 << 20
"""A file up to this long is read in the event loop: from the page cache that is faster than the
way to a thread and back; a longer one is read in a worker thread."""


class DataSource(Protocol):
    """A data set to be sent: its length, and its bytes in order."""

    length: int

    async def read(self, size: int) -> bytes | memoryview:
        """The next `size` bytes, fewer only at the end."""
        ...

    def close(self) -> None: ...


class BytesSource:
    """A data set in memory."""

    def __init__(self, data: bytes) -> None:
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

    The file may have been replaced since it was looked at, so its header is read again when it is
    opened; from then on it is the file that was opened, whatever happens to its name.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._file: BinaryIO | None = None
        self.length = instance.length

    async def read(self, size: int) -> bytes:
        if self.length <= BLOCKING_READ:
            return self._read(size)
        return await trio.to_thread.run_sync(self._read, size)

    def _read(self, size: int) -> bytes:
        if self._file is None:
            self._file = self._instance.path.open("rb")
            now = Instance.from_open_file(self._file, self._instance.path)
            before = attrs.evolve(self._instance, offset=now.offset, length=now.length)
            if now != before:
                raise InvalidFile(f"{now.path}: it has been replaced by another instance")
            self.length = now.length
            self._file.seek(now.offset)
        return self._file.read(size)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
