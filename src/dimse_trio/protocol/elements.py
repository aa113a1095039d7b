"""The command elements, group 0000, as a table (PS3.7 §E.1), and how their values are coded.

Command sets are always Implicit VR Little Endian (PS3.7 §6.3.1). Peers pad, repeat and misspell:
a value that is too long or multiple is read as its first one, a UID padded otherwise than with one
NUL keeps its bytes in `PaddedUID`, so that a response can echo them exactly.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import attrs

from .errors import LocalProtocolError, MalformedCommand


class PaddedUID(str):
    """A UID as the peer wrote it: equal to the bare UID, encoded again as it came."""

    __slots__ = ("raw",)
    raw: bytes

    @classmethod
    def of(cls, raw: bytes) -> str:
        """The UID in `raw`: a plain `str` where its padding is the standard's own."""
        bare = _decode_text(raw)
        padding = len(raw) - len(bare)
        if padding == len(bare) % 2 and (not padding or raw.endswith(b"\0")):
            return bare
        uid = cls(bare)
        uid.raw = raw
        return uid


def _encode_uid(value: str) -> bytes:
    if isinstance(value, PaddedUID):
        return value.raw
    data = value.encode("latin-1")
    return data if len(data) % 2 == 0 else data + b"\0"


def _encode_text(value: str) -> bytes:
    data = value.encode("latin-1", "replace")
    return data if len(data) % 2 == 0 else data + b" "


def _decode_text(raw: bytes) -> str:
    return str(raw, "latin-1").partition("\\")[0].strip(" \0")


def _encode_us(value: int) -> bytes:
    if not 0 <= value <= 0xFFFF:
        raise LocalProtocolError(f"{value} does not fit the 16 bits of a command element")
    return value.to_bytes(2, "little")


def _decode_us(raw: bytes) -> int | None:
    return int.from_bytes(raw[:2], "little") if raw else None


def _encode_tags(value: tuple[int, ...]) -> bytes:
    return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)


def _decode_tags(raw: bytes) -> tuple[int, ...]:
    count = len(raw) // 4
    parts = struct.unpack_from(f"<{2 * count}H", raw)
    return tuple(parts[i] << 16 | parts[i + 1] for i in range(0, 2 * count, 2))


@attrs.frozen
class Coding:
    """How values of one VR become bytes, and bytes values."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


_CODINGS: dict[str, Coding] = {
    "UI": Coding(_encode_uid, PaddedUID.of),
    "AE": Coding(_encode_text, _decode_text),
    "LO": Coding(_encode_text, _decode_text),
    "US": Coding(_encode_us, _decode_us),
    "AT": Coding(_encode_tags, _decode_tags),
}


@attrs.frozen
class CommandElement:
    """One row of the table."""

    tag: int
    vr: str
    keyword: str

    @property
    def coding(self) -> Coding:
        return _CODINGS[self.vr]


GROUP_LENGTH = 0x0000_0000
COMMAND_FIELD = 0x0000_0100
COMMAND_DATA_SET_TYPE = 0x0000_0800

NO_DATA_SET = 0x0101
"""The one CommandDataSetType that says that no data set follows (PS3.7 §E.1-1)."""
DATA_SET_PRESENT = 0x0001
"""What we send otherwise: the only other value that old DCMTK understands."""

ELEMENTS: dict[str, CommandElement] = {
    keyword: CommandElement(tag, vr, keyword)
    for tag, vr, keyword in (
        (0x0002, "UI", "AffectedSOPClassUID"),
        (0x0003, "UI", "RequestedSOPClassUID"),
        (0x0100, "US", "CommandField"),
        (0x0110, "US", "MessageID"),
        (0x0120, "US", "MessageIDBeingRespondedTo"),
        (0x0600, "AE", "MoveDestination"),
        (0x0700, "US", "Priority"),
        (0x0800, "US", "CommandDataSetType"),
        (0x0900, "US", "Status"),
        (0x0901, "AT", "OffendingElement"),
        (0x0902, "LO", "ErrorComment"),
        (0x0903, "US", "ErrorID"),
        (0x1000, "UI", "AffectedSOPInstanceUID"),
        (0x1001, "UI", "RequestedSOPInstanceUID"),
        (0x1002, "US", "EventTypeID"),
        (0x1005, "AT", "AttributeIdentifierList"),
        (0x1008, "US", "ActionTypeID"),
        (0x1020, "US", "NumberOfRemainingSuboperations"),
        (0x1021, "US", "NumberOfCompletedSuboperations"),
        (0x1022, "US", "NumberOfFailedSuboperations"),
        (0x1023, "US", "NumberOfWarningSuboperations"),
        (0x1030, "AE", "MoveOriginatorApplicationEntityTitle"),
        (0x1031, "US", "MoveOriginatorMessageID"),
    )
}
"""Every element of PS3.7 §E.1 but the group length, which is computed, by keyword."""

_ELEMENT_HEADER = struct.Struct("<HHL")
_ELEMENT_HEADER_LENGTH = _ELEMENT_HEADER.size
_GROUP_LENGTH = struct.Struct("<HHLL")


def encode_elements(values: list[tuple[int, bytes]]) -> bytes:
    """Elements as Implicit VR Little Endian in ascending order, behind their group length.

    A value of odd length, which only an echo of the peer's own can be, gets a NUL: fragments of odd
    length are not taken everywhere.
    """
    values.sort()
    parts = [b""]
    length = 0
    for tag, raw in values:
        if len(raw) % 2:
            raw += b"\0"
        parts += (_ELEMENT_HEADER.pack(tag >> 16, tag & 0xFFFF, len(raw)), raw)
        length += _ELEMENT_HEADER_LENGTH + len(raw)
    parts[0] = _GROUP_LENGTH.pack(0, 0, 4, length)
    return b"".join(parts)


def decode_elements_untrusted(data: bytes) -> dict[int, bytes]:
    """The elements of a command set by tag; the group length is left out and not believed."""
    elements: dict[int, bytes] = {}
    unpack_header = _ELEMENT_HEADER.unpack_from
    position = 0
    end = len(data)
    while position < end:
        if end - position < _ELEMENT_HEADER_LENGTH:
            raise MalformedCommand(f"command set ends inside an element at byte {position}")
        group, number, length = unpack_header(data, position)
        position += _ELEMENT_HEADER_LENGTH
        if length > end - position:
            raise MalformedCommand(
                f"command element ({group:04x},{number:04x}) claims {length} bytes,"
                f" {end - position} are left"
            )
        elements[group << 16 | number] = data[position : position + length]
        position += length
    elements.pop(GROUP_LENGTH, None)
    return elements
