"""Which files a command line means, and what they say they are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import trio

import dimse_trio as dimse

from .errors import describe
from .progress import Bar

_DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"
"""Media Storage Directory Storage: a DICOMDIR, which says what is in a folder and is not sent."""
_BLOCK = 64
"""Files looked at in one go in a worker thread."""


@attrs.frozen
class BadFile:
    """A file that cannot be sent, and why."""

    path: Path
    reason: str


async def scan(paths: Iterable[str], progress: Bar) -> tuple[list[dimse.Instance], list[BadFile]]:
    """The instances in files and folders, and what is no instance; in the order of their names.

    Files are opened in a worker thread; their data sets are not read. It may be cancelled between
    blocks of files.
    """
    found: list[dimse.Instance] = []
    bad: list[BadFile] = []
    files = _files(paths)
    while block := await trio.to_thread.run_sync(_next_block, files):
        for item in block:
            if isinstance(item, BadFile):
                bad.append(item)
            elif item is not None:
                found.append(item)
        progress.update(len(found) + len(bad))
    return found, bad


def _next_block(
    files: Iterator[Path | BadFile],
) -> list[dimse.Instance | BadFile | None]:
    block: list[dimse.Instance | BadFile | None] = []
    for file in files:
        block.append(file if isinstance(file, BadFile) else _look_at(file))
        if len(block) == _BLOCK:
            break
    return block


def _look_at(path: Path) -> dimse.Instance | BadFile | None:
    try:
        instance = dimse.Instance.from_file(path)
    except dimse.InvalidFile as error:
        return BadFile(path, str(error).removeprefix(f"{path}: "))
    except OSError as error:
        return BadFile(path, error.strerror or str(error))
    return None if instance.sop_class_uid == _DIRECTORY_STORAGE else instance


def _files(paths: Iterable[str]) -> Iterator[Path | BadFile]:
    """The files that are meant: those named, and all in the folders named but hidden ones."""
    for given in paths:
        path = Path(given)
        if not path.is_dir():
            if path.name.upper() != "DICOMDIR":
                yield path
            continue
        errors: list[OSError] = []
        for folder, folders, names in os.walk(path, onerror=errors.append):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                file = Path(folder, name)
                if not name.startswith(".") and name.upper() != "DICOMDIR" and file.is_file():
                    yield file
            yield from (BadFile(path, describe(error)) for error in errors)
            errors.clear()
        yield from (BadFile(path, describe(error)) for error in errors)
