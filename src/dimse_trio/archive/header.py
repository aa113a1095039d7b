"""The indexed attributes of an instance, read from the head of its data set (PS3.5 §7).

The elements' headers are walked without making objects of them, as this is done for every
instance that arrives; a data set that is encoded in an unusual way is left to pydicom. Nothing
behind the last attribute wanted is looked at, and however much a peer sends or compresses, what
is read has a bound.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import BinaryIO

import attrs
from pydicom.charset import STAND_ALONE_ENCODINGS, decode_bytes, python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from dimse_trio.errors import InvalidFile
from dimse_trio.matching import values_of
from dimse_trio.protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from dimse_trio.wholeness import LONG_VRS, MANY_ELEMENTS, SHORT_VRS, Ending, ending_of, follow

from .attributes import LEVELS, STORED, WANTED

MAX_VALUE_LENGTH = 1 << 16
"""Longest value indexed, in bytes; of longer ones nothing."""
MAX_ELEMENTS = 100_000
"""Most elements looked at; wanted ones come among the first of any real data set."""
MAX_INFLATED = 16 << 20
"""Most of a deflated data set that is inflated, in bytes: a head, not a bomb."""

_SPECIFIC_CHARACTER_SET = 0x00080005
_READ = frozenset((_SPECIFIC_CHARACTER_SET, *WANTED))
_LAST_WANTED = max(WANTED)
_BLOCK = 1 << 14
"""Bytes of the file read at a time."""
_ENDS = (0xFFFEE00D, 0xFFFEE0DD)
"""Item and Sequence Delimitation Item."""
_UNDEFINED = 0xFFFFFFFF
_MISSPELT = re.compile(r"^(?:(ISO[^_]IR)|(ISO.2022.IR.))")
_SPELT = ("", "ISO_IR", "ISO 2022 IR ")
_UTF_8 = ("UTF-8", "UTF8")
"""What some call ISO_IR 192, and pydicom takes for it."""
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l"}


class MissingAttribute(InvalidFile):
    """A data set that lacks a UID without which it is no composite instance."""


@attrs.frozen
class Header:
    """What the index keeps of an instance: by level, one text for each attribute of `STORED`."""

    values: Mapping[str, tuple[str, ...]]

    def unique_key(self, level: str) -> str:
        """Patient ID or the level's UID."""
        return self.values[level][0]

    @property
    def sop_instance_uid(self) -> str:
        return self.values["IMAGE"][0]

    @property
    def sop_class_uid(self) -> str:
        return self.values["IMAGE"][1]


class CutOff(InvalidFile):
    """A data set whose last element, or sequence, does not end with it."""


class _Unusual(Exception):
    """Not what the fast reader reads."""


def read_header(file: BinaryIO, transfer_syntax_uid: str, *, to_end: bool = False) -> Header:
    """Read the attributes of a data set that begins where `file` stands.

    Args:
        file: A file that goes to the data set's end.
        transfer_syntax_uid: Its transfer syntax.
        to_end: Go on to the end, and see that nothing is cut off there, as far as that can be said.

    Raises:
        OSError: The file cannot be read.
        InvalidFile: It is no data set.
        MissingAttribute: It is one without Study, Series or SOP Instance UID, or SOP Class UID.
        CutOff: It is cut off, be that in its head or, with `to_end`, behind it.
    """
    try:
        return _read_header(file, transfer_syntax_uid, to_end)
    except (OSError, InvalidFile):
        raise
    except Exception as error:  # pydicom raises whatever its parser meets
        raise InvalidFile(f"data set cannot be read: {type(error).__name__}") from error


def _read_header(file: BinaryIO, transfer_syntax_uid: str, to_end: bool) -> Header:
    start, ending = file.tell(), Ending.WHOLE
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        file, ending = _inflated(file)
        start, transfer_syntax_uid = 0, EXPLICIT_VR_LITTLE_ENDIAN
    implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    little = transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    try:
        found, rest = _walk(file, implicit, little)
        header = _header(_decoded(found, little))
    except (_Unusual, MissingAttribute):
        rest = None
        file.seek(start)
        header = _header(_decoded(_read_by_pydicom(file, implicit, little), little))
    if to_end and ending is Ending.WHOLE:
        file.seek(start if rest is None else rest)
        if rest is None:
            ending = ending_of(file, transfer_syntax_uid, most_elements=MANY_ELEMENTS)
        else:
            ending = follow(file, implicit, big=not little, most_elements=MANY_ELEMENTS)
    if to_end and ending is Ending.CUT_OFF:
        raise CutOff("data set is cut off")
    return header


def _header(values: Mapping[int, str]) -> Header:
    header = Header(
        {level: tuple(values.get(a.tag, "") for a in STORED[level]) for level in LEVELS}
    )
    for level, position in (("STUDY", 0), ("SERIES", 0), ("IMAGE", 0), ("IMAGE", 1)):
        if not header.values[level][position]:
            raise MissingAttribute(f"data set has no {STORED[level][position].keyword}")
    return header


def _inflated(file: BinaryIO) -> tuple[BinaryIO, Ending]:
    """A deflated data set, as much of it as is inflated, and how the stream ends."""
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        data = inflater.decompress(file.read(MAX_INFLATED), MAX_INFLATED)
    except zlib.error as error:
        raise InvalidFile(f"the deflated data set is damaged: {error}") from error
    if inflater.eof:
        ending = Ending.WHOLE
    elif len(data) == MAX_INFLATED or file.read(1):
        ending = Ending.UNCLEAR
    else:
        ending = Ending.CUT_OFF
    return BytesIO(data), ending


def _walk(
    file: BinaryIO, implicit: bool, little: bool
) -> tuple[dict[int, tuple[bytes, bytes]], int | None]:
    """The wanted elements by tag: VR where it is written, value. And where in the file those begin
    that are not wanted; `None` if the file ends inside a sequence.

    Sequences of undefined length are gone through by counting what is open, so that no depth of
    nesting matters.
    """
    order = "<" if little else ">"
    unpack = struct.Struct(f"{order}HHL" if implicit else f"{order}HH2sH").unpack_from
    unpack_item = struct.Struct(f"{order}HHL").unpack_from
    unpack_long = struct.Struct(f"{order}L").unpack_from
    found: dict[int, tuple[bytes, bytes]] = {}
    data, size, position, depth, vr = b"", 0, 0, 0, b""
    for _ in range(MAX_ELEMENTS):
        if position + 12 > size:
            data, position = _more(file, data, position, _BLOCK), 0
            if (size := len(data)) < 8:
                if any(data):
                    raise CutOff("data set ends inside an element")
                return found, None if depth else file.tell() - size
        header = position
        if implicit:
            group, element, length = unpack(data, position)
        else:
            group, element, vr, length = unpack(data, position)
            if group == 0xFFFE:  # items and delimiters have no VR
                _, _, length = unpack_item(data, position)
            elif vr in LONG_VRS:
                if position + 12 > size:
                    raise CutOff("data set ends inside an element")
                (length,) = unpack_long(data, position + 8)
                position += 4
            elif vr not in SHORT_VRS:
                raise _Unusual
        position += 8
        tag = group << 16 | element
        if depth == 0 and tag > _LAST_WANTED:
            return found, file.tell() - size + header
        if length == _UNDEFINED:
            if vr == b"UN":  # holds implicit VR inside explicit (PS3.5 §6.2.2)
                raise _Unusual
            depth += 1
            continue
        if depth == 0:
            if tag in _READ and 0 < length <= MAX_VALUE_LENGTH:
                if position + length > size:
                    data, position = _more(file, data, position, length + _BLOCK), 0
                    if (size := len(data)) < length:
                        raise CutOff("data set ends inside an element")
                found[tag] = (vr, data[position : position + length])
        elif tag in _ENDS:
            depth -= 1
        position += length
    raise InvalidFile(f"data set has more than {MAX_ELEMENTS} elements in its head")


def _more(file: BinaryIO, data: bytes, position: int, count: int) -> bytes:
    """What is left of `data` from a position on, with more of the file behind it."""
    if position > len(data):
        file.seek(position - len(data), 1)
    return data[position:] + file.read(count)


def _read_by_pydicom(
    file: BinaryIO, implicit: bool, little: bool
) -> dict[int, tuple[bytes, bytes]]:
    """As `_walk`, of what that does not read."""
    try:
        data_set = read_dataset(
            file,
            is_implicit_VR=implicit,
            is_little_endian=little,
            stop_when=lambda tag, vr, length: tag > _LAST_WANTED,
            specific_tags=list(WANTED),
        )
    except OSError as error:  # what pydicom calls so
        raise InvalidFile("data set cannot be read") from error
    # which pydicom has decoded already
    character_set = "\\".join(values_of(data_set, _SPECIFIC_CHARACTER_SET))
    found = {_SPECIFIC_CHARACTER_SET: (b"CS", character_set.encode("latin-1", "replace"))}
    for tag in WANTED:
        element: object = data_set.get_item(tag) if tag in data_set else None
        if not isinstance(element, RawDataElement):  # absent, or a sequence
            continue
        if element.value and len(element.value) <= MAX_VALUE_LENGTH:
            found[tag] = (element.VR or "").encode(), element.value
    return found


# -- values ----------------------------------------------------------------------------------------


def _decoded(raw: Mapping[int, tuple[bytes, bytes]], little: bool) -> dict[int, str]:
    encodings = _encodings(raw.get(_SPECIFIC_CHARACTER_SET, (b"", b""))[1])
    return {
        tag: _text(value, WANTED[tag].vr, vr, encodings, little)
        for tag, (vr, value) in raw.items()
        if tag in WANTED
    }


def _encodings(raw: bytes) -> list[str]:
    """Python's names of the character sets; of what is none, that of the default repertoire.

    pydicom would take any codec that Python knows for one, and some of them fail on some text.
    """
    values = raw.decode("latin-1").split("\\")
    first, *others = dict.fromkeys(_defined(value.strip(" \0")) for value in values)
    if first in STAND_ALONE_ENCODINGS:
        return [python_encoding[first]]
    return [python_encoding[name] for name in (first, *others) if name not in STAND_ALONE_ENCODINGS]


def _defined(name: str) -> str:
    """A character set of PS3.3 §C.12.1.1.2, with the misspellings that pydicom knows, or none."""
    if name.upper() in _UTF_8:
        return "ISO_IR 192"
    if name not in python_encoding:
        name = _MISSPELT.sub(lambda found: _SPELT[found.lastindex or 0], name)
    return name if name in python_encoding else ""


def _text(raw: bytes, vr: str, written_vr: bytes, encodings: list[str], little: bool) -> str:
    """A value as text, several values with a backslash between them, without padding."""
    if written_vr in _NUMBERS or (vr == "US" and written_vr in (b"", b"UN")):
        code = _NUMBERS.get(written_vr, "H")
        count = len(raw) // struct.calcsize(f"={code}")
        numbers = struct.unpack_from(f"{'<' if little else '>'}{count}{code}", raw)
        return "\\".join(map(str, numbers))
    if raw.isascii() and b"\x1b" not in raw:
        text = raw.decode("ascii")
    elif vr == "PN":
        groups = (_characters(group, encodings, PN_DELIMS) for group in raw.split(b"="))
        text = "=".join(groups)
    elif vr in ("LO", "LT", "SH", "ST", "UC", "UT"):
        text = _characters(raw, encodings, TEXT_VR_DELIMS)
    else:
        text = raw.decode("latin-1")
    if not text.isprintable():
        text = text.replace("\0", "").encode("utf-8", "replace").decode()
    if vr in ("LT", "ST", "UT"):
        return text.rstrip(" \0")
    if "\\" in text:
        return "\\".join(part.strip(" \0") for part in text.split("\\"))
    return text.strip(" \0")


def _characters(raw: bytes, encodings: list[str], delimiters: set[int]) -> str:
    """Text in its character sets; with replacement characters where it is not in them."""
    try:
        return decode_bytes(raw, encodings, delimiters)
    except Exception:  # of pydicom or, for its warning, of Python, as they are configured
        return raw.decode(encodings[0], "replace")
