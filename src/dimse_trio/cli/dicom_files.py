"""DICOM files as `dump`, `create` and `modify` read and write them, with pydicom.

A file is written beside its place under another name, and renamed when it is whole: whoever looks
sees the old one or the new one. One that is read is looked at for its end: pydicom leaves out what
is cut off.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import stat
import struct
import sys
import zlib
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import attrs

import dimse_trio as dimse
from dimse_trio.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

from .errors import CommandFailed, ExitCode
from .places import Setting, put
from .texts import CHARACTER_SET, fits_character_set, texts_of, to_utf8

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.tag import BaseTag

IMPLICIT = dimse.uid_of("ImplicitVRLittleEndian")
EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")
BIG_ENDIAN = dimse.uid_of("ExplicitVRBigEndian")
DEFLATED = dimse.uid_of("DeflatedExplicitVRLittleEndian")
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
"""Transfer syntaxes in which pixel data is not compressed."""
BULK = 1 << 14
"""Values longer than this, in bytes, stay in the file until somebody asks for them."""
MAX_INFLATED = 1 << 29
"""Longest that a deflated data set may become, in bytes."""
_WITH_TAG = re.compile(r"(?:With tag (\(\w+, ?\w+\)) got exception: )+")
_PIXEL_DATA = 0x7FE00010
SOP_UIDS = frozenset(("SOPClassUID", "SOPInstanceUID"))
_END = 0xFFFF_FFFD
_END_VALUE = b"the end."


@attrs.frozen
class File:
    """A file that is open: its data set, and whether that goes to the file's end."""

    name: str
    data_set: Dataset
    whole: bool

    @property
    def meta(self) -> FileMetaDataset:
        """Its File Meta Information."""
        return self.data_set.file_meta

    @property
    def transfer_syntax_uid(self) -> str:
        return str(self.meta.get("TransferSyntaxUID") or "")


async def expand(paths: Iterable[str], *, stdin: bool = False) -> list[tuple[Path, Path]]:
    """Files, those in folders too, each with its name from the folder on.

    Only where `stdin` says so, and only as a path of its own, `-` is standard input.
    """
    found: list[tuple[Path, Path]] = []
    for name in paths:
        path = Path(name)
        if not os.path.isdir(path):  # noqa: ASYNC240 - as fast as a look at a name
            found.append((path if stdin and name == "-" else _not_stdin(path), Path(path.name)))
            continue
        instances, others = await dimse.scan_files(path)
        files = sorted([file.path for file in instances] + [file.path for file in others])
        found += [
            (_not_stdin(file), file.relative_to(path) if file != path else path) for file in files
        ]
    return found


def _not_stdin(path: Path) -> Path:
    """The path of a file, which one in the current folder that is named `-` is, too."""
    return path.absolute() if str(path) == "-" else path


@contextmanager
def reading(name: str | Path, *, whole: bool = False) -> Generator[File]:
    """A file, or standard input for `-`; its long values can be read inside the block only.

    Args:
        name: Which.
        whole: Read long values at once.

    Raises:
        CommandFailed: It is no DICOM file, or cannot be read.
        OSError: It cannot be opened.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    name = str(name)
    with _open(name) as file:
        try:
            preamble, meta = _meta(file)
            syntax = str(meta.get("TransferSyntaxUID") or IMPLICIT)
            ended = True
            if syntax == DEFLATED:  # which pydicom would inflate to whatever size
                data_set, ended = _inflated(file)
                data_set.file_meta, data_set.preamble = meta, preamble
            else:
                marked = _Marked(file, _end_mark(syntax))
                data_set = pydicom.dcmread(marked, defer_size=None if whole else BULK)
        except _TooLong as error:
            raise CommandFailed(
                f"{name}: its deflated data set has more than {MAX_INFLATED >> 20} MiB"
            ) from error
        except InvalidDicomError as error:
            raise CommandFailed(f"{name}: not a DICOM file") from error
        except Exception as error:  # pydicom raises whatever its parser meets
            raise CommandFailed(
                f"{name}: cannot be read as DICOM ({type(error).__name__})"
            ) from error
        complete = _END in data_set and data_set.pop(_END).value == _END_VALUE and ended
        yield File("standard input" if name == "-" else name, data_set, complete)


@contextmanager
def _open(name: str) -> Generator[BinaryIO]:
    """A file that can be sought in: what cannot is read at once."""
    if name == "-":
        yield io.BytesIO(sys.stdin.buffer.read())
        return
    with open(name, "rb", opener=_at_once) as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield file
        else:
            yield io.BytesIO(file.read())


def _at_once(name: str, flags: int) -> int:
    """Open a file without waiting, as a pipe would for somebody to write into it."""
    descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return descriptor


def _meta(file: BinaryIO) -> tuple[bytes | None, FileMetaDataset]:
    """Preamble and File Meta Information; the file is left where the data set begins."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset, read_preamble

    def behind(tag: BaseTag, vr: str | None, length: int) -> bool:
        return tag.group != 0x0002

    preamble = read_preamble(file, force=False)
    elements = read_dataset(file, False, True, stop_when=behind)  # Explicit VR Little Endian
    return preamble, FileMetaDataset(elements)


class _TooLong(Exception):
    """A data set that is inflated without end, as far as anybody wants to know."""


def _inflated(file: BinaryIO) -> tuple[Dataset, bool]:
    """A deflated data set (PS3.5 §A.5), from here on, and whether the stream comes to its end.

    Behind that there may be a byte of padding, or what gzip puts there.
    """
    from pydicom.filereader import read_dataset

    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = io.BytesIO()
    while not inflater.eof and (block := file.read(1 << 16)):
        data.write(inflater.decompress(block, MAX_INFLATED + 1 - data.tell()))
        if data.tell() > MAX_INFLATED:
            raise _TooLong
    data.write(_end_mark(EXPLICIT))
    data.seek(0)
    return read_dataset(data, is_implicit_VR=False, is_little_endian=True), inflater.eof


def _end_mark(transfer_syntax_uid: str) -> bytes:
    """An element that comes behind all others."""
    order = ">" if transfer_syntax_uid == BIG_ENDIAN else "<"
    group, element = _END >> 16, _END & 0xFFFF
    if transfer_syntax_uid == IMPLICIT:
        header = struct.pack("<HHL", group, element, len(_END_VALUE))
    else:
        header = struct.pack(f"{order}HH2s2xL", group, element, b"OB", len(_END_VALUE))
    return header + _END_VALUE


class _Marked:
    """A file with something behind its end, as pydicom reads files."""

    def __init__(self, file: BinaryIO, mark: bytes) -> None:
        self._file = file
        self._mark = mark
        self._size = file.seek(0, os.SEEK_END)
        self._position = 0
        file.seek(0)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        begins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        self._position = offset + begins.get(whence, self._size + len(self._mark))
        self._file.seek(min(self._position, self._size))
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        if size < 0 or len(data) < size:
            start = max(self._position + len(data) - self._size, 0)
            rest = self._mark[start:]
            data += rest if size < 0 else rest[: size - len(data)]
        self._position += len(data)
        return data


@contextmanager
def looking_at(what: str) -> Generator[None]:
    """A block that looks at values of a data set.

    Raises:
        CommandFailed: One is none.
    """
    try:
        yield
    except (CommandFailed, dimse.DimseError, OSError):
        raise
    except Exception as error:  # pydicom raises whatever its parser meets
        raise CommandFailed(f"{what} has a value that is none ({type(error).__name__})") from error


@contextmanager
def writing(target: Path) -> Generator[BinaryIO]:
    """A file that takes its place when the block ends well, and is gone when not.

    It gets the permissions of the one that it replaces.
    """
    folder, target = target.parent, Path(os.path.realpath(target))
    part = target.with_name(f".{secrets.token_hex(8)}.part")  # which fits where its name does
    try:
        file = part.open("xb")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            shutil.copymode(target, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write(data_set: Dataset, file: BinaryIO, transfer_syntax_uid: str) -> None:
    """Write a data set with complete File Meta Information (PS3.10 §7.1).

    The Media Storage SOP UIDs are those of the data set. Where it has none, what it was read with
    stays: of a DICOMDIR they stand there only (PS3.3 §F.3.2).

    Raises:
        CommandFailed: A value cannot be encoded.
    """
    import pydicom

    try:
        data_set.file_meta = _whole_meta(data_set, transfer_syntax_uid)
        data_set.preamble = getattr(data_set, "preamble", None) or bytes(128)
        _make_even(data_set)
        pydicom.dcmwrite(file, data_set)
    except CommandFailed:
        raise
    except Exception as error:  # pydicom raises whatever its writers meet
        if (refused := _by_system(error)) is not None:
            raise refused from None
        # its message quotes values; of tags it begins with those on the way to the value
        tags = _WITH_TAG.match(str(error))
        where = f" at {tags[1]}" if tags else ""
        raise CommandFailed(f"cannot be written: {type(error).__name__}{where}") from error


def _whole_meta(data_set: Dataset, transfer_syntax_uid: str) -> FileMetaDataset:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta: FileMetaDataset = getattr(data_set, "file_meta", None) or FileMetaDataset()
    with looking_at("its File Meta Information"):
        list(meta)
    meta.FileMetaInformationGroupLength = 0  # pydicom counts
    meta.FileMetaInformationVersion = b"\0\1"
    for keyword in SOP_UIDS:
        if data_set.get(keyword):
            setattr(meta, f"MediaStorage{keyword}", data_set.get(keyword))
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _make_even(data_set: Dataset) -> None:
    """Give a last fragment of odd length the byte that it lacks (PS3.5 §A.4).

    pydicom would put one behind it, where readers look for the sequence's end.
    """
    if _PIXEL_DATA not in data_set or not data_set[_PIXEL_DATA].is_undefined_length:
        return
    value: bytes = data_set[_PIXEL_DATA].value
    if len(value) % 2 == 0:
        return
    position = last = 0
    while position < len(value):
        last = position
        position += 8 + int.from_bytes(value[position + 4 : position + 8], "little")
    length = len(value) - last - 8
    if position != len(value) or length % 2 == 0:
        raise CommandFailed("its pixel data has a fragment of odd length that is not the last one")
    size = (length + 1).to_bytes(4, "little")
    data_set[_PIXEL_DATA].value = value[: last + 4] + size + value[last + 8 :] + b"\0"


def _by_system(error: BaseException | None) -> OSError | None:
    """The system's error that another was made of; pydicom's own of that type have no number."""
    while error is not None and not (isinstance(error, OSError) and error.errno):
        error = error.__cause__
    return error


def sop_uids(data_set: Dataset) -> frozenset[str]:
    """Which SOP UIDs a data set has; an instance has both."""
    return frozenset(keyword for keyword in SOP_UIDS if data_set.get(keyword))


def drop_uids(data_set: Dataset, keywords: Iterable[str]) -> None:
    """Take SOP UIDs that a data set has no more out of its File Meta Information."""
    for keyword in keywords:
        getattr(data_set, "file_meta", {}).pop(f"MediaStorage{keyword}", None)


# -- values and their character set --------------------------------------------------------------


def apply_settings(
    data_set: Dataset, settings: Collection[Setting], *, existing: bool = False
) -> int:
    """Set values, in how many places.

    The character set becomes UTF-8 where a text does not fit what it is (PS3.3 §C.12.1.1.2), unless
    it is among what is set.

    Args:
        data_set: Where.
        settings: What.
        existing: Only attributes that are there.

    Raises:
        QueryError: One is no value of its attribute.
        CommandFailed: One is not there, where it should be, or text does not fit the character set.
    """
    chosen = any(setting.place.attribute.tags == (CHARACTER_SET,) for setting in settings)
    if chosen:
        data_set.decode()  # while it is known what its bytes mean
    elif not fits_character_set(data_set, (setting.value or "" for setting in settings)):
        to_utf8(data_set)  # before: what pydicom holds does not outlive its decode()
    count = 0
    for setting in settings:
        changed = put(data_set, setting, existing=existing)
        if existing and not changed:
            raise CommandFailed(f"it has no {setting.place.name}")
        count += changed
    if chosen and not fits_character_set(data_set, texts_of(data_set)):
        declared = data_set.get("SpecificCharacterSet")
        raise CommandFailed(
            f"text does not fit Specific Character Set {declared or '(none)'}", ExitCode.USAGE
        )
    return count
