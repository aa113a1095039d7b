"""Instances on their way into the archive: written, read, put in place and indexed, in groups.

What waits while one group is committed makes the next, in one transaction: an archive that many
peers store to, or one with a window of operations, pays for one commit and one worker thread for
all of them. An instance's data set reaches the disk in `.incoming`; only then is it given its name
and, in the same step, its place in the index.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import attrs
import trio

from dimse_trio.errors import InvalidFile

from .attributes import LEVELS
from .errors import ArchiveError
from .folder import Folder, StoredFile, path_for, write_blocks
from .header import read_header
from .index import Index, IndexedFile, Record

logger = logging.getLogger("dimse_trio.archive")


class Mismatch(InvalidFile):
    """A data set whose SOP Class or Instance UID is not the one that it came under."""


@attrs.define(eq=False)
class Arrival:
    """An instance that is to be kept.

    Attributes:
        temporary: Its file in `.incoming`.
        transfer_syntax_uid: Its transfer syntax.
        data_offset: Where the data set begins.
        uids: The SOP Class and Instance UID that it came under, if it came under any.
        blocks: The end of the file, not written yet.
        begun: Whether the file is there, with what comes before `blocks`.
        path: Where it lies in the folder, once it is there.
        failure: What went wrong, if something did.
        done: Whether it is decided.
    """

    temporary: Path
    transfer_syntax_uid: str
    data_offset: int
    uids: tuple[str, str] | None = None
    blocks: list[bytes] = attrs.field(factory=list[bytes], repr=False)
    begun: bool = False
    path: str = ""
    failure: Exception | None = None
    done: bool = False


class Arrivals:
    """The way into one archive."""

    def __init__(self, folder: Folder, index: Index) -> None:
        self._folder = folder
        self._index = index
        self._waiting: list[Arrival] = []
        self.writing = trio.Lock()
        self.consistent = True
        """Whether the index says what the folder holds, as far as is known."""

    async def add(self, arrival: Arrival) -> None:
        """Keep an instance. Not to be cancelled: it returns when it is decided, in bounded time.

        Raises:
            OSError: It could not be written.
            InvalidFile: It is no instance, or another than it says.
            ArchiveError: It could not be indexed, and is not in the folder either.
        """
        self._waiting.append(arrival)
        with trio.CancelScope(shield=True):
            async with self.writing:
                if not arrival.done:
                    group, self._waiting = self._waiting, []
                    await trio.to_thread.run_sync(self._keep, group)
        if arrival.failure is not None:
            raise arrival.failure

    def _keep(self, group: Sequence[Arrival]) -> None:
        """Decide about each of a group; in a worker thread, one at a time."""
        try:
            read = [(arrival, record) for arrival in group if (record := self._read(arrival))]
            self._commit(read)
        except Exception as error:  # whatever it is, those who wait must hear of it
            if not isinstance(error, ArchiveError):
                self.consistent = False
            for arrival in group:
                arrival.failure = arrival.failure or error
        for arrival in group:
            arrival.done = True
            if arrival.failure is not None:
                _discard(arrival.temporary)

    def _read(self, arrival: Arrival) -> Record | None:
        """Write what is not written yet, and read what the index keeps."""
        try:
            if arrival.blocks or not arrival.begun:
                write_blocks(arrival.temporary, arrival.blocks)
            status = arrival.temporary.stat()
            with _opened(arrival) as file:
                file.seek(arrival.data_offset)
                header = read_header(file, arrival.transfer_syntax_uid, to_end=True)
            if arrival.uids not in (None, (header.sop_class_uid, header.sop_instance_uid)):
                raise Mismatch("SOP Class or Instance UID is not that of the data set")
            arrival.path = path_for(*(header.unique_key(level) for level in LEVELS[1:]))
        except Exception as error:  # whatever it is, the others of the group have no part in it
            arrival.failure = error
            return None
        return Record(
            header,
            arrival.path,
            status.st_size,
            status.st_mtime_ns,
            arrival.data_offset,
            arrival.transfer_syntax_uid,
        )

    def _commit(self, read: Sequence[tuple[Arrival, Record]]) -> None:
        """Give the files their names and index them, all or, but for the names, none."""
        placed: list[Record] = []
        aside: dict[str, bool] = {}
        try:
            with self._index.transaction():
                uids = [record.header.sop_instance_uid for _, record in read]
                old = {uid: file.path for uid, file in self._index.find(uids).items()}
                for arrival, record in read:
                    try:
                        self._place(arrival, aside)
                        placed.append(record)
                    except OSError as error:
                        arrival.failure = error
                self._index.put(placed)
        except BaseException:
            for path, was_there in aside.items():
                self._undo(path, was_there)
            raise
        kept = {record.header.sop_instance_uid: record.path for record in placed}
        replaced = {path for uid, path in old.items() if uid in kept}
        replaced.update(record.path for record in placed)
        for path in replaced.difference(kept.values()):
            self._folder.remove(path)
        for path, was_there in aside.items():
            if was_there:
                self._let_go(path)

    # -- what is replaced --------------------------------------------------------------------------

    def _place(self, arrival: Arrival, aside: dict[str, bool]) -> None:
        """Give a file its name; `aside` says by path whether one was there before this group."""
        path = arrival.path
        if is_first := path not in aside:
            try:
                aside[path] = self._folder.set_aside(path)
            except FileExistsError:  # it could not be put back, or removed, before
                self._settle([path])
                aside[path] = self._folder.set_aside(path)
        try:
            self._folder.place(arrival.temporary, path)
        except OSError:
            if is_first and aside.pop(path):
                self._undo(path, was_there=True)
            raise

    def _undo(self, path: str, was_there: bool) -> None:
        """Have what was there before."""
        if not was_there:
            self._folder.remove(path)
            return
        try:
            self._folder.put_back(path)
        except OSError as error:  # the next start does it
            self.consistent = False
            logger.error("cannot put a file back: %s", os.strerror(error.errno or 0))

    def _let_go(self, path: str) -> None:
        try:
            self._folder.let_go(path)
        except OSError as error:  # the next start does it
            logger.warning("cannot remove a replaced file: %s", os.strerror(error.errno or 0))

    def settle(self) -> bool:
        """Decide which of two files counts where a process was killed while it replaced one.

        Returns:
            Whether the index must be compared with the folder.

        Raises:
            OSError: A file cannot be put in its place.
            ArchiveError: The index cannot be read or written.
        """
        paths = self._folder.replaced()
        if not paths:
            return False
        with self._index.transaction():
            return self._settle(paths)

    def _settle(self, paths: Sequence[str]) -> bool:
        """Keep the new file where the index has it for certain, else the old one."""
        known = self._index.files()
        is_back = False
        for path in paths:
            new, old = (is_same(file, known.get(path)) for file in self._folder.states(path))
            if new and not old:
                self._folder.let_go(path)
            else:
                self._folder.put_back(path)
                self._index.doubt(path)
                is_back = True
        return is_back


def is_same(file: StoredFile | None, known: IndexedFile | None) -> bool:
    """Whether a file is the one that the index knows, as far as can be seen from outside."""
    if file is None or known is None:
        return False
    return (known.size, known.modified_ns) == (file.size, file.modified_ns)


def _opened(arrival: Arrival) -> BinaryIO:
    """The file, from memory if all of it is there."""
    if arrival.begun:
        return arrival.temporary.open("rb")
    return BytesIO(b"".join(arrival.blocks))


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # the next start removes it
        logger.warning("cannot remove an unfinished file: %s", os.strerror(error.errno or 0))
