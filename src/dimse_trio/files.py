"""Which DICOM files a path means: a file is itself, a folder is what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs
import trio

from .errors import InvalidFile
from .part10 import Instance, open_file, path_of
from .protocol.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
from .wholeness import MANY_ELEMENTS, Ending, ending_of

_DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"
"""Media Storage Directory Storage: a DICOMDIR, which says what is in a folder and is not sent."""
_BLOCK = 64
"""Files looked at in one go in a worker thread."""


@attrs.frozen
class UnreadableFile:
    """A file that is no instance, is cut off or cannot be read, and why."""

    path: Path
    error: InvalidFile | OSError


async def scan_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Instance], list[UnreadableFile]]:
    """The instances in files and folders, and what is none; in the order of their names.

    Hidden files and folders and DICOMDIRs are left out; links are followed. Files are opened in a
    worker thread. The headers of their elements are gone through, not their values: what ends
    inside an element or a sequence is cut off, and counts as unreadable. Where the cut is between
    two elements it cannot be seen, nor in a deflated data set. Cancelled, it ends when the files in
    hand have been looked at.

    Args:
        paths: Files, and folders with everything below them.
        progress: Told now and then how many files there have been.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    found: list[Instance] = []
    unreadable: list[UnreadableFile] = []
    files = _files(path for path in map(path_of, given) if path is not None)
    while block := await trio.to_thread.run_sync(_next_block, files):
        for item in block:
            if isinstance(item, UnreadableFile):
                unreadable.append(item)
            elif item is not None:
                found.append(item)
        progress(len(found) + len(unreadable))
    return found, unreadable


def _next_block(
    files: Iterator[Path | UnreadableFile],
) -> list[Instance | UnreadableFile | None]:
    block: list[Instance | UnreadableFile | None] = []
    for file in files:
        block.append(file if isinstance(file, UnreadableFile) else _look_at(file))
        if len(block) == _BLOCK:
            break
    return block


def _look_at(path: Path) -> Instance | UnreadableFile | None:
    try:
        instance = _whole_instance(path)
    except (InvalidFile, OSError) as error:
        return UnreadableFile(path, error)
    return None if instance.sop_class_uid == _DIRECTORY_STORAGE else instance


def _whole_instance(path: Path) -> Instance:
    """As `Instance.from_file`; a data set that is cut off is invalid, too."""
    with open_file(path) as file:
        instance = Instance.from_open_file(file, path)
        syntax = instance.transfer_syntax_uid
        if syntax != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            file.seek(instance.offset)
            if ending_of(file, syntax, most_elements=MANY_ELEMENTS) is Ending.CUT_OFF:
                raise InvalidFile(
                    f"{path}: its data set is cut off; get the file again from where it came"
                )
    return instance


def _files(paths: Iterable[Path]) -> Iterator[Path | UnreadableFile]:
    """The files that are meant: those named, and all in the folders named but hidden ones."""
    for path in paths:
        if not path.is_dir():
            if path.name.upper() != "DICOMDIR":
                yield path
            continue
        errors: list[OSError] = []
        seen: set[tuple[int, int]] = set()
        for folder, folders, names in os.walk(path, onerror=errors.append, followlinks=True):
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in seen:  # a link that leads back
                folders.clear()
                continue
            seen.add((here.st_dev, here.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                file = Path(folder, name)
                if name.startswith(".") or name.upper() == "DICOMDIR":
                    continue
                if file.is_file() or (file.is_symlink() and not file.exists()):
                    yield file
            yield from (UnreadableFile(path, error) for error in errors)
            errors.clear()
        yield from (UnreadableFile(path, error) for error in errors)
