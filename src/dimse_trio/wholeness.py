"""Whether a data set is whole: its last element ends where it ends.

The elements' headers are gone through, and the values between them are sought over (PS3.5 §7). A
data set that is cut between two elements of its top level cannot be told from one that has no more.
"""

from __future__ import annotations

import enum
import os
import struct
import zlib
from typing import BinaryIO, Final

from .protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    TRANSFER_SYNTAXES,
)

LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Explicit VRs with a length of four bytes, and of two (PS3.5 §7.1.2)."""

MANY_ELEMENTS: Final = 1_000_000
"""So many are followed in less than a second."""

_UNDEFINED = 0xFFFFFFFF
_ITEMS: Final = 0xFFFE
"""The group of items and of what ends them and their sequences; none has a VR."""
_ITEM: Final = 0xE000
_BLOCK = 1 << 12
"""Bytes read at a time; more would be read of values that are sought over."""
_INFLATED = 1 << 20
"""Bytes that are inflated at a time."""
_TRAILER = struct.Struct("<LL")
_LITTLE, _BIG = (
    tuple(struct.Struct(order + form).unpack_from for form in ("HHL", "HH2sH", "L"))
    for order in "<>"
)
"""How headers without and with a VR are unpacked, and long lengths."""


class Ending(enum.Enum):
    """How a data set ends."""

    WHOLE = enum.auto()
    CUT_OFF = enum.auto()
    UNCLEAR = enum.auto()
    """It is encoded in a way that is not followed here, or has very many elements."""


def ending_of(
    file: BinaryIO, transfer_syntax_uid: str, *, most_elements: int | None = None
) -> Ending:
    """How the data set ends that goes from where `file` stands to the file's end.

    Some peers send Implicit VR where Explicit was agreed on, or the other way round: one that is
    not whole in its transfer syntax is taken for what it looks like. A deflated one is inflated.

    Args:
        file: Where it is.
        transfer_syntax_uid: Its transfer syntax.
        most_elements: As for `follow`.

    Raises:
        OSError: The file cannot be read.
    """
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return _inflates(file)
    start = file.tell()
    implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    big = transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    ending = follow(file, implicit, big=big, most_elements=most_elements)
    if ending is not Ending.WHOLE:
        file.seek(start)
        looks_implicit = not file.read(6)[4:].isalpha()
        if looks_implicit != implicit:
            file.seek(start)
            ending = follow(file, looks_implicit, big=big, most_elements=most_elements)
    if ending is Ending.CUT_OFF and transfer_syntax_uid not in TRANSFER_SYNTAXES:
        return Ending.UNCLEAR  # who knows how it is encoded: JPIP has deflated ones
    return ending


def follow(
    file: BinaryIO, implicit: bool, *, big: bool = False, most_elements: int | None = None
) -> Ending:
    """How the elements end that go from where `file` stands, between two of them, to its end.

    What has an undefined length is gone through by keeping count of what is open, so that no depth
    of nesting matters.

    Args:
        file: A file, or one in memory.
        implicit: Whether their VRs are not written.
        big: Whether they are big-endian.
        most_elements: How many to look at, if there is a bound.

    Raises:
        OSError: The file cannot be read.
    """
    unpack_bare, unpack, unpack_long = _BIG if big else _LITTLE
    open_vrs: list[bool] = []
    """For each that is open, whether implicit VR goes on behind it."""
    start = file.tell()
    end = file.seek(0, os.SEEK_END)
    data, size, position = b"", 0, 0
    count = 0
    while start + position < end:
        if position + 12 > size:
            start, position = start + position, 0
            file.seek(start)
            data = file.read(_BLOCK)
            if (size := len(data)) < 8:  # some pad to a length of blocks
                return Ending.CUT_OFF if open_vrs or any(data) else Ending.WHOLE
        if (count := count + 1) == most_elements:
            return Ending.UNCLEAR
        unknown = False
        if implicit:
            group, element, length = unpack_bare(data, position)
        else:
            group, element, vr, length = unpack(data, position)
            if group == _ITEMS:
                _, _, length = unpack_bare(data, position)
            elif vr in LONG_VRS:
                if position + 12 > size:
                    return Ending.CUT_OFF
                (length,) = unpack_long(data, position + 8)
                position += 4
                unknown = vr == b"UN"
            elif vr not in SHORT_VRS:
                return Ending.UNCLEAR
        position += 8
        if group == _ITEMS and element != _ITEM:
            if not open_vrs or length:
                return Ending.UNCLEAR
            implicit = open_vrs.pop()
        elif length == _UNDEFINED:
            open_vrs.append(implicit)
            implicit = implicit or unknown  # its content is implicit VR (PS3.5 §6.2.2)
        else:
            position += length
    return Ending.CUT_OFF if open_vrs or start + position > end else Ending.WHOLE


def _inflates(file: BinaryIO) -> Ending:
    """Whether a deflated stream comes to its end, with padding or gzip's trailer behind it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    check, length = 0, 0
    try:
        while not inflater.eof:
            data = inflater.unconsumed_tail or file.read(_INFLATED)
            inflated = inflater.decompress(data, _INFLATED)
            if not inflated and not data:
                return Ending.CUT_OFF
            check = zlib.crc32(inflated, check)
            length += len(inflated)
    except zlib.error:
        return Ending.UNCLEAR
    behind = inflater.unused_data + file.read(_TRAILER.size)
    trailer = _TRAILER.pack(check, length & 0xFFFFFFFF)
    whole = behind in (b"", b"\0", trailer, trailer + b"\0")
    return Ending.WHOLE if whole else Ending.UNCLEAR
