"""DICOM files around data sets that stay as they are (PS3.10 §7.1).

The File Meta Information (group 0002, always Explicit VR Little Endian) is read and written here,
and the first few elements of the data set behind it are looked at for its SOP UIDs; otherwise the
data set is a run of bytes with an offset.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

import attrs

from .errors import InvalidFile
from .protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from .version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

PREAMBLE_LENGTH = 128
MAX_ELEMENT_LENGTH = 1 << 20
"""Longest element read here, in bytes; private meta information can make it long."""
HEAD_LENGTH = 1 << 13
"""Bytes read at once to find what stands at the beginning: usually all of it."""

_GROUP = 0x0002
_LONG_VRS = frozenset((b"OB", b"OW", b"OF", b"OL", b"OD", b"SQ", b"UC", b"UN", b"UR", b"UT"))
_META_SOP_CLASS_UID = 0x0002_0002
_META_SOP_INSTANCE_UID = 0x0002_0003
_TRANSFER_SYNTAX_UID = 0x0002_0010
_SOP_CLASS_UID = 0x0008_0016
_SOP_INSTANCE_UID = 0x0008_0018
_META = range(0x0002_0000, 0x0003_0000)
_HEAD = range(_SOP_INSTANCE_UID + 1)


@attrs.frozen
class Instance:
    """A composite instance in a DICOM file.

    `offset` is where its data set begins in the file, `length` how many bytes it has.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int
    length: int

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Instance:
        """Read a file's transfer syntax and SOP UIDs.

        The SOP UIDs are those of the data set, which is what a peer will look at; those of the
        File Meta Information, which a careless writer may have made up, only where it has none.

        Raises:
            OSError: The file cannot be read.
            InvalidFile: It is no DICOM file, or lacks what sending it takes.
        """
        path = Path(path)
        with open_file(path) as file:
            return cls.from_open_file(file, path)

    @classmethod
    def from_open_file(cls, file: BinaryIO, path: Path) -> Instance:
        """As `from_file`, of a file that is open at its beginning and called `path`."""
        meta = _read_meta(file, path)
        offset = file.tell()
        length = os.fstat(file.fileno()).st_size - offset
        syntax = _text(meta.get(_TRANSFER_SYNTAX_UID))
        if not syntax:
            raise InvalidFile(
                f"{path}: the File Meta Information has no Transfer Syntax UID (0002,0010);"
                " rewrite it with one, for example with pydicom"
            )
        head = _read_head(file, syntax)
        sop_class = _text(head.get(_SOP_CLASS_UID)) or _text(meta.get(_META_SOP_CLASS_UID))
        sop_instance = _text(head.get(_SOP_INSTANCE_UID)) or _text(meta.get(_META_SOP_INSTANCE_UID))
        if not sop_class or not sop_instance:
            raise InvalidFile(f"{path}: it has no SOP Class UID or SOP Instance UID")
        return cls(path, sop_class, sop_instance, syntax, offset, length)


def open_file(path: Path) -> BufferedReader:
    """Open a file for reading; of a pipe, that would wait for a writer.

    Raises:
        OSError: It cannot be opened, or is a folder.
        InvalidFile: It is a pipe, a device, or a socket.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InvalidFile(f"{path}: not a regular file")
    return file


def path_of(data: object) -> Path | None:
    """The path that an argument is, if it is one; `trio.Path` too.

    Raises:
        OSError: It has a NUL, which no name of a file has.
    """
    if not isinstance(data, str | os.PathLike):
        return None
    path = Path(os.fsdecode(data))  # pyright: ignore[reportUnknownArgumentType]
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a path has no NUL", str(path))
    return path


def _text(raw: bytes | None) -> str:
    return str(raw or b"", "latin-1").strip(" \0")


class _NotElements(Exception):
    """Bytes that are no elements, or longer than what is read here."""


def _read_meta(file: BinaryIO, path: Path) -> dict[int, bytes]:
    """The elements of group 0002; the file is left where the data set begins."""
    if file.read(PREAMBLE_LENGTH + 4)[PREAMBLE_LENGTH:] != b"DICM":
        raise InvalidFile(
            f"{path}: not a DICOM file, as it has no preamble and File Meta Information;"
            " a bare data set can be rewritten with pydicom's dcmread(force=True) and save_as"
        )
    try:
        return _read_elements(file, _META)
    except _NotElements as error:
        raise InvalidFile(f"{path}: in the File Meta Information, {error}") from error


def _read_head(file: BinaryIO, transfer_syntax_uid: str) -> dict[int, bytes]:
    """The elements of a data set up to the SOP Instance UID; none if they cannot be read."""
    try:
        if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            file = BytesIO(inflater.decompress(file.read(HEAD_LENGTH), HEAD_LENGTH))
        return _read_elements(
            file,
            _HEAD,
            explicit=transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN,
            big=transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN,
        )
    except (_NotElements, zlib.error):
        return {}


def _read_elements(
    file: BinaryIO, tags: range, *, explicit: bool = True, big: bool = False
) -> dict[int, bytes]:
    """The elements from here as long as their tags are these; the file is left at the next."""
    beginning = file.tell()
    data = file.read(HEAD_LENGTH)
    unpack_header = struct.Struct(">HHL" if big else "<HHL").unpack_from
    order: Literal["big", "little"] = "big" if big else "little"
    elements: dict[int, bytes] = {}
    position = 0
    while True:
        if len(data) - position < 12:  # the longest header, if there is any
            data += file.read(HEAD_LENGTH)
        if len(data) - position < 8:
            break
        group, number, length = unpack_header(data, position)
        tag = group << 16 | number
        if tag not in tags:
            break
        start = position + 8
        if explicit and data[position + 4 : position + 6] in _LONG_VRS:
            length = int.from_bytes(data[start : start + 4], order)
            start += 4
        elif explicit:
            length = int.from_bytes(data[position + 6 : start], order)
        if length > MAX_ELEMENT_LENGTH:
            raise _NotElements(f"element ({group:04x},{number:04x}) claims {length} bytes")
        position = start + length
        if position > len(data):
            data += file.read(position - len(data) + HEAD_LENGTH)
        if position > len(data):
            raise _NotElements(f"element ({group:04x},{number:04x}) ends with the file")
        elements[tag] = data[start:position]
    file.seek(beginning + position)
    return elements


def without_meta(data: bytes) -> bytes:
    """A data set without the File Meta Information that some peers send in front of it."""
    if not (data.startswith(b"\x02\0") and data[4:6].isalpha()):  # Explicit VR, as in a file
        return data
    file = BytesIO(data)
    try:
        _read_elements(file, _META)
    except _NotElements:
        return data
    return data[file.tell() :]


def _element(number: int, vr: bytes, raw: bytes) -> bytes:
    if len(raw) % 2:
        raw += b" " if vr in (b"SH", b"AE") else b"\0"
    if vr in _LONG_VRS:
        return struct.pack("<HH2sxxL", _GROUP, number, vr, len(raw)) + raw
    return struct.pack("<HH2sH", _GROUP, number, vr, len(raw)) + raw


def file_header(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    source_ae_title: str = "",
) -> bytes:
    """Preamble, prefix and File Meta Information for a data set (PS3.10 Table 7.1-1)."""
    body = (
        _element(0x0001, b"OB", b"\0\1")
        + _element(0x0002, b"UI", sop_class_uid.encode("latin-1"))
        + _element(0x0003, b"UI", sop_instance_uid.encode("latin-1"))
        + _element(0x0010, b"UI", transfer_syntax_uid.encode("latin-1"))
        + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode())
        + _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode())
    )
    if source_ae_title:
        body += _element(0x0016, b"AE", source_ae_title.encode("latin-1", "replace")[:16])
    group_length = _element(0x0000, b"UL", len(body).to_bytes(4, "little"))
    return bytes(PREAMBLE_LENGTH) + b"DICM" + group_length + body
