"""Whether the archive can answer for an instance: its file is there, its own, whole, on the disk.

A file is whole if it has the size that the index knows and its data set ends where it ends. The
elements' headers are gone through without reading the values between them (PS3.5 §7).
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import attrs
import sqlalchemy as sa

from dimse_trio.errors import InvalidFile
from dimse_trio.part10 import Instance, open_file
from dimse_trio.protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from dimse_trio.references import FailureReason, SOPReference

from .header import LONG_VRS, SHORT_VRS
from .index import INSTANCES

logger = logging.getLogger("dimse_trio.archive")

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_TRAILER = struct.Struct("<LL")
_BLOCK = 1 << 20
"""Bytes that are inflated at a time."""


@attrs.frozen
class Located:
    """Where the index has an instance, and how long its file was when it came."""

    path: str
    size: int


def located(connection: sa.Connection, reference: SOPReference) -> Located | None:
    """Where the index has an instance, whatever its SOP class."""
    statement = sa.select(INSTANCES.c.path, INSTANCES.c.size).where(
        INSTANCES.c.SOPInstanceUID == reference.sop_instance_uid
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else Located(*row)


def examine(path: Path, size: int, reference: SOPReference) -> FailureReason | None:
    """Why the archive cannot answer for the instance in a file of that size; `None` if it can."""
    try:
        with open_file(path) as file:
            instance = Instance.from_open_file(file, path)
            if instance.sop_instance_uid != reference.sop_instance_uid:
                logger.error("a file of the archive holds another instance than the index says")
                return FailureReason.PROCESSING_FAILURE
            if instance.sop_class_uid != reference.sop_class_uid:
                return FailureReason.CLASS_INSTANCE_CONFLICT
            if instance.offset + instance.length != size or not is_whole(file, instance):
                logger.error("a file of the archive is damaged or not whole")
                return FailureReason.PROCESSING_FAILURE
            if os.name == "posix":  # elsewhere only what is open for writing can be synchronized
                os.fsync(file.fileno())
    except FileNotFoundError:
        logger.error("a file of the archive is gone")
        return FailureReason.NO_SUCH_OBJECT_INSTANCE
    except (OSError, InvalidFile) as error:
        logger.error("a file of the archive cannot be read: %s", type(error).__name__)
        return FailureReason.PROCESSING_FAILURE
    return None


def is_whole(file: BinaryIO, instance: Instance) -> bool:
    """Whether an instance's data set, read in its transfer syntax, ends where its file ends.

    Some peers send Implicit VR where Explicit was agreed on, or the other way round: a data set
    that ends properly in that is whole too.

    Raises:
        OSError: The file cannot be read.
    """
    file.seek(instance.offset)
    if instance.transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return _inflates(file)
    end = instance.offset + instance.length
    order = ">" if instance.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<"
    implicit = instance.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    if _ends_at(file, end, order, implicit):
        return True
    file.seek(instance.offset)
    return _ends_at(file, end, order, not implicit)


def _inflates(file: BinaryIO) -> bool:
    """Whether a deflated stream comes to its end, with padding or gzip's trailer behind it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    check, length = 0, 0
    try:
        while not inflater.eof:
            data = inflater.unconsumed_tail or file.read(_BLOCK)
            inflated = inflater.decompress(data, _BLOCK)
            if not inflated and not data:
                return False
            check = zlib.crc32(inflated, check)
            length += len(inflated)
    except zlib.error:
        return False
    behind = inflater.unused_data + file.read(_TRAILER.size)
    trailer = _TRAILER.pack(check, length & 0xFFFFFFFF)
    return behind in (b"", b"\0", trailer, trailer + b"\0")


def _ends_at(file: BinaryIO, end: int, order: str, implicit: bool) -> bool:
    """Whether the elements from here are well-formed and the last one ends at `end`.

    What has an undefined length is gone through by keeping count of what is open, so that no depth
    of nesting matters.
    """
    header = struct.Struct(f"{order}HHL").unpack
    short = struct.Struct(f"{order}H").unpack
    long = struct.Struct(f"{order}L").unpack
    open_vrs: list[bool] = []
    """For each that is open, whether implicit VR goes on behind it."""
    position = file.tell()
    while position < end:
        head = file.read(8)
        position += 8
        if len(head) < 8:
            return not open_vrs and not any(head)  # some pad to a length of blocks
        group, element, length = header(head)
        tag = group << 16 | element
        unknown = False
        if tag in (_ITEM_END, _SEQUENCE_END):
            if not open_vrs or length:
                return False
            implicit = open_vrs.pop()
            continue
        if tag != _ITEM and not implicit:
            vr = head[4:6]
            if vr in SHORT_VRS:
                (length,) = short(head[6:8])
            elif vr in LONG_VRS:
                rest = file.read(4)
                position += 4
                if len(rest) < 4:
                    return False
                (length,) = long(rest)
                unknown = vr == b"UN"
            else:
                return False
        if length == _UNDEFINED:
            open_vrs.append(implicit)
            implicit = implicit or unknown  # its content is implicit VR (PS3.5 §6.2.2)
            continue
        position += length
        if length:
            file.seek(position)
    return position == end and not open_vrs
