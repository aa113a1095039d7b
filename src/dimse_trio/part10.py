"""DICOM files around data sets that stay as they are (PS3.10 §7.1).

Only the File Meta Information (group 0002, always Explicit VR Little Endian) is read and written
here; the data set behind it is a run of bytes with an offset.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import attrs

from .errors import InvalidFile
from .version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

PREAMBLE_LENGTH = 128
MAX_META_LENGTH = 1 << 20
"""Longest File Meta Information read, in bytes; private information can make it long."""

_GROUP = 0x0002
_LONG_VRS = frozenset((b"OB", b"OW", b"OF", b"OL", b"OD", b"SQ", b"UC", b"UN", b"UR", b"UT"))
_MEDIA_STORAGE_SOP_CLASS_UID = 0x0002
_MEDIA_STORAGE_SOP_INSTANCE_UID = 0x0003
_TRANSFER_SYNTAX_UID = 0x0010
_UIDS = (_MEDIA_STORAGE_SOP_CLASS_UID, _MEDIA_STORAGE_SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID)


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
        """Read the File Meta Information of a file; its data set is not looked at.

        Only where the meta information lacks a SOP UID, that of the data set is taken.

        Raises:
            OSError: The file cannot be read.
            InvalidFile: It is no DICOM file, or lacks what sending it takes.
        """
        path = Path(path)
        with path.open("rb") as file:
            meta, offset = _read_meta(file, path)
            length = os.fstat(file.fileno()).st_size - offset
            uids = {number: str(meta.get(number, b""), "latin-1").strip(" \0") for number in _UIDS}
            if not uids[_TRANSFER_SYNTAX_UID]:
                raise InvalidFile(
                    f"{path}: the File Meta Information has no Transfer Syntax UID (0002,0010);"
                    " rewrite it with one, for example with pydicom"
                )
            if not all(uids.values()):
                uids |= _uids_of_data_set(path)
        return cls(
            path,
            uids[_MEDIA_STORAGE_SOP_CLASS_UID],
            uids[_MEDIA_STORAGE_SOP_INSTANCE_UID],
            uids[_TRANSFER_SYNTAX_UID],
            offset,
            length,
        )


def path_of(data: object) -> Path | None:
    """The path that an argument is, if it is one; `trio.Path` too."""
    if isinstance(data, str | os.PathLike):
        return Path(os.fspath(data))  # pyright: ignore[reportUnknownArgumentType]
    return None


def _read_meta(file: BinaryIO, path: Path) -> tuple[dict[int, bytes], int]:
    """The elements of group 0002 by number, and where they end."""
    if file.read(PREAMBLE_LENGTH + 4)[PREAMBLE_LENGTH:] != b"DICM":
        raise InvalidFile(
            f"{path}: not a DICOM file, as it has no preamble and File Meta Information;"
            " a bare data set can be rewritten with pydicom's dcmread(force=True) and save_as"
        )
    meta: dict[int, bytes] = {}
    while True:
        start_of_element = file.tell()
        header = file.read(8)
        if len(header) < 8 or int.from_bytes(header[:2], "little") != _GROUP:
            return meta, start_of_element
        number = int.from_bytes(header[2:4], "little")
        length = int.from_bytes(header[6:8], "little")
        if header[4:6] in _LONG_VRS:
            length = int.from_bytes(file.read(4), "little")
        if length > MAX_META_LENGTH:
            raise InvalidFile(f"{path}: element (0002,{number:04x}) claims {length} bytes")
        raw = file.read(length)
        if len(raw) < length:
            raise InvalidFile(f"{path}: ends inside its File Meta Information")
        meta[number] = raw


def _uids_of_data_set(path: Path) -> dict[int, str]:
    """SOP Class UID and SOP Instance UID as the data set itself has them."""
    from . import datasets

    try:
        sop_class, sop_instance = datasets.sop_uids(datasets.read_uids(path))
    except datasets.DataSetError as error:
        raise InvalidFile(f"{path}: {error}") from error
    return {
        _MEDIA_STORAGE_SOP_CLASS_UID: sop_class,
        _MEDIA_STORAGE_SOP_INSTANCE_UID: sop_instance,
    }


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
        + _element(_MEDIA_STORAGE_SOP_CLASS_UID, b"UI", sop_class_uid.encode("latin-1"))
        + _element(_MEDIA_STORAGE_SOP_INSTANCE_UID, b"UI", sop_instance_uid.encode("latin-1"))
        + _element(_TRANSFER_SYNTAX_UID, b"UI", transfer_syntax_uid.encode("latin-1"))
        + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode())
        + _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode())
    )
    if source_ae_title:
        body += _element(0x0016, b"AE", source_ae_title.encode("latin-1", "replace")[:16])
    group_length = _element(0x0000, b"UL", len(body).to_bytes(4, "little"))
    return bytes(PREAMBLE_LENGTH) + b"DICM" + group_length + body
