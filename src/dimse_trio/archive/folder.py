"""The folder with the instances: where each goes, and how it gets there whole.

`study/series/instance.dcm`, named by their UIDs. What is no UID becomes a digest, so that nothing
that a peer sends names a path outside, an overlong or a hidden one. An instance is written in
`.incoming`, in the same file system under a name that does not end in `.dcm`, and renamed: whoever
looks at the folder sees no file, the old one or the new one, and never a part (POSIX rename).

A file that is replaced is kept in `.replaced` until the index has the new one: refused, or killed
before that, the archive has the old one again. Killed while it replaces one by another of other
Study or Series Instance UIDs, which has another place, it has both, and the later one counts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import attrs

from dimse_trio.requests import is_uid

from .errors import ArchiveError

SUFFIX = ".dcm"
_INCOMING = ".incoming"
_REPLACED = ".replaced"
_ASIDE = ".old"
"""Behind the name of a file in `.replaced`, for which nobody looks."""
_LOCK = ".lock"


def component(uid: str) -> str:
    """A UID as the name of a file or folder; a digest of what is no UID."""
    if is_uid(uid):
        return uid
    return "x" + hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def path_for(study_uid: str, series_uid: str, instance_uid: str) -> str:
    """Where an instance lies, relative to the folder."""
    return f"{component(study_uid)}/{component(series_uid)}/{component(instance_uid)}{SUFFIX}"


@attrs.frozen
class StoredFile:
    """A file in the folder as it was when it was looked at."""

    path: str
    size: int
    modified_ns: int


class Folder:
    """An archive's folder; nobody else's while it is open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / _INCOMING
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder, keep other processes out, remove what a killed one left unfinished.

        Raises:
            OSError: It cannot be made or written.
            ArchiveError: It is in use.
        """
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.root / _LOCK)
        if self._lock is None:
            raise ArchiveError(f"the archive {self.root} is in use by another process")
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    def close(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self.tidy()
            os.close(self._lock)
            self._lock = None

    def temporary(self) -> Path:
        """A new name in `.incoming`."""
        return self._incoming / f"{secrets.token_hex(12)}.part"

    def absolute(self, path: str) -> Path:
        """A path in the folder; one that leads out of it is refused."""
        parts = PurePosixPath(path).parts
        if not parts or ".." in parts or parts[0] == "/":
            raise ArchiveError(f"the index names {path!r}, outside the archive", damaged=True)
        return self.root.joinpath(*parts)

    def place(self, temporary: Path, path: str) -> None:
        """Move a finished file to its final name, in place of one that is there.

        Raises:
            OSError: It cannot be done.
        """
        target = self.absolute(path)
        try:
            temporary.replace(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)

    def remove(self, path: str) -> None:
        """Remove a file and the folders that it leaves empty, as far as that is possible."""
        target = self.absolute(path)
        with contextlib.suppress(OSError):
            target.unlink()
            for parent in target.parents:
                if parent == self.root:
                    break
                parent.rmdir()

    # -- what is replaced --------------------------------------------------------------------------

    def set_aside(self, path: str) -> bool:
        """Keep the file of that name, if there is one, for another is about to take its place.

        It gets a second name or, on a file system where a file has but one, that instead of its
        own.

        Raises:
            FileExistsError: One is kept already.
            OSError: It cannot be done.
        """
        if not os.path.isfile(f"{self.root}/{path}"):
            return False
        target, aside = self.absolute(path), self._aside(path)
        if not aside.parent.is_dir():
            aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(target, aside)
        except OSError as error:
            if aside.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            target.rename(aside)
        return True

    def put_back(self, path: str) -> None:
        """Have the file that was set aside in its place again.

        Raises:
            OSError: It cannot be done.
        """
        target, aside = self.absolute(path), self._aside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(target)
        aside.unlink(missing_ok=True)  # two names of one file: the system leaves both

    def let_go(self, path: str) -> None:
        """Remove the file that was set aside.

        Raises:
            OSError: It cannot be done.
        """
        self._aside(path).unlink()

    def replaced(self) -> list[str]:
        """The paths of which a file is set aside; after a crash, or if it could not be removed."""
        folder = self.root / _REPLACED
        return [
            file.relative_to(folder).as_posix().removesuffix(_ASIDE)
            for file in folder.rglob(f"*{_ASIDE}")
        ]

    def tidy(self) -> None:
        """Remove the folders that were made for files set aside, if they are empty."""
        for folder, _, _ in os.walk(self.root / _REPLACED, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def states(self, path: str) -> tuple[StoredFile | None, StoredFile | None]:
        """The file in its place, and that which was set aside."""
        return _stored(self.absolute(path), path), _stored(self._aside(path), path)

    def _aside(self, path: str) -> Path:
        return self.absolute(f"{_REPLACED}/{path}{_ASIDE}")

    # -- what is there -----------------------------------------------------------------------------

    def files(self) -> Iterator[StoredFile]:
        """Every DICOM file in the folder, by its suffix."""
        yield from self._files(self.root)

    def _files(self, folder: Path) -> Iterator[StoredFile]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self._files(Path(entry.path))
                elif entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    path = Path(entry.path).relative_to(self.root).as_posix()
                    yield StoredFile(path, status.st_size, status.st_mtime_ns)


def _stored(file: Path, path: str) -> StoredFile | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return StoredFile(path, status.st_size, status.st_mtime_ns)


def write_blocks(path: Path, blocks: Iterable[bytes]) -> None:
    """Append to a file, which is made if it is not there."""
    with path.open("ab") as file:
        file.writelines(blocks)


if sys.platform == "win32":
    import msvcrt

    def _locked(path: Path) -> int | None:
        """A lock that ends with the process; `None` if another has it."""
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            os.close(file)
            return None
        return file

else:
    import fcntl

    def _locked(path: Path) -> int | None:
        """A lock that ends with the process; `None` if another has it."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except OSError:  # a file system without locks
            pass
        return file
