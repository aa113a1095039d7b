"""Bringing the index up to date with the folder, which is the truth.

After a crash the folder may hold a file that the index does not know, or a later one than it
knows; rebuilding reads every file. Both are one comparison, in batches, beside a running archive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import trio

from dimse_trio.errors import InvalidFile
from dimse_trio.part10 import Instance

from .arrivals import Arrivals, is_same
from .folder import Folder, StoredFile
from .header import read_header
from .index import Index, IndexedFile, Record

logger = logging.getLogger("dimse_trio.archive")

Progress = Callable[[int, int], None]
"""Told how many files have been looked at, of how many."""
_BATCH = 200


async def bring_up_to_date(
    folder: Folder,
    index: Index,
    arrivals: Arrivals,
    *,
    everything: bool,
    progress: Progress | None = None,
) -> int:
    """Index the files that the index lacks or knows otherwise; forget those that are gone.

    Cancelled, it leaves an index that is valid and not up to date, which the next start notices.

    Args:
        folder: Where the files are.
        index: What is compared with it.
        arrivals: Whoever writes to both meanwhile.
        everything: Read files that have not changed, too.
        progress: Called after every batch.

    Returns:
        How many files were indexed.

    Raises:
        ArchiveError: The index cannot be read or written.
        OSError: The folder cannot be read.
    """
    async with arrivals.writing:
        known, files = await trio.to_thread.run_sync(_compare, folder, index)
        arrivals.consistent = True  # unless something goes wrong from here on
    try:
        return await _change(folder, index, arrivals, known, files, everything, progress)
    except BaseException:
        arrivals.consistent = False
        raise


async def _change(
    folder: Folder,
    index: Index,
    arrivals: Arrivals,
    known: Mapping[str, IndexedFile],
    files: Sequence[StoredFile],
    everything: bool,
    progress: Progress | None,
) -> int:
    changed = [f for f in files if everything or not is_same(f, known.get(f.path))]
    # of two files with one SOP Instance UID, the later one is meant
    changed.sort(key=lambda file: file.modified_ns)
    gone = set(known) - {file.path for file in files}
    indexed = 0
    for start in range(0, len(changed), _BATCH):
        batch = changed[start : start + _BATCH]
        async with arrivals.writing:
            count, unreadable = await trio.to_thread.run_sync(_index, folder, index, batch)
        indexed += count
        gone.update(unreadable)
        if progress is not None:
            progress(start + len(batch), len(changed))
    forgotten = [file for path in gone if (file := known.get(path)) is not None]
    if forgotten:
        async with arrivals.writing:
            await trio.to_thread.run_sync(_forget, index, forgotten)
    return indexed


def _compare(folder: Folder, index: Index) -> tuple[dict[str, IndexedFile], list[StoredFile]]:
    with index.transaction():
        return index.files(), list(folder.files())


def _index(folder: Folder, index: Index, files: Sequence[StoredFile]) -> tuple[int, list[str]]:
    """Index files; how many, and which cannot be."""
    read = {file.path: _record(folder, file) for file in files}
    records = [record for record in read.values() if record is not None]
    with index.transaction():
        known = index.find(record.header.sop_instance_uid for record in records)
        kept = [
            record
            for record in records
            if not _is_superseded(folder, record, known.get(record.header.sop_instance_uid))
        ]
        index.put(kept)
    return len(kept), [path for path, record in read.items() if record is None]


def _record(folder: Folder, file: StoredFile) -> Record | None:
    """What the index keeps of a file; `None`, with a warning, if it is none of an instance."""
    path = folder.absolute(file.path)
    try:
        instance = Instance.from_file(path)
        with path.open("rb") as stream:
            stream.seek(instance.offset)
            header = read_header(stream, instance.transfer_syntax_uid)
    except FileNotFoundError:
        return None  # replaced or removed meanwhile
    except (OSError, InvalidFile) as error:
        logger.warning("not indexed: %s: %s", file.path, error)
        return None
    except Exception as error:  # one file does not keep the archive from its others
        logger.error("not indexed: %s: %s", file.path, type(error).__name__)
        return None
    return Record(
        header,
        file.path,
        file.size,
        file.modified_ns,
        instance.offset,
        instance.transfer_syntax_uid,
    )


def _is_superseded(folder: Folder, record: Record, known: IndexedFile | None) -> bool:
    """Whether the index has the same instance from another file that is there, and later."""
    return (
        known is not None
        and known.path != record.path
        and known.modified_ns >= record.modified_ns
        and folder.absolute(known.path).exists()
    )


def _forget(index: Index, files: Sequence[IndexedFile]) -> None:
    """Forget files, unless they have been stored again meanwhile."""
    with index.transaction():
        current = index.files()
        index.remove(file for file in files if current.get(file.path) == file)
