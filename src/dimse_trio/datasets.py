"""The boundary to pydicom: data sets as objects, only when somebody asks for them.

pydicom is imported when a data set is first touched. Everything else in the package passes data
sets on as bytes or files and leaves them as they are.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterable
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, cast

from .errors import CharacterSetError, DataSetError, LocalProtocolError
from .flat import encode_flat
from .part10 import Instance, without_meta
from .protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    uid_name,
)
from .texts import SPECIFIC_CHARACTER_SET, checked_texts

if TYPE_CHECKING:
    from pydicom import Dataset

_GROUP_0008_LITTLE, _GROUP_0008_BIG = b"\x08\0", b"\0\x08"
_WORD_LENGTHS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_END, _END_VALUE = 0xFFFF_FFFD, b"end of the data set."

MAX_VALUES = 1 << 12
"""Most elements of an identifier: far more than there are keys. Decoding one takes pydicom up to
some 50 microseconds and, if it has to warn, memory for ever."""
MAX_IDENTIFIER = 1 << 24
"""Longest that a deflated identifier may become, in bytes."""
MAX_ATTRIBUTES = 1 << 17
"""Most elements of a DIMSE-N data set, those in its items counted: storage commitment of 65,000
instances."""
MAX_ATTRIBUTES_LENGTH = 1 << 26
"""Longest that a deflated one may become, in bytes."""


def decode(
    data: bytes,
    transfer_syntax_uid: str,
    *,
    max_values: int | None = None,
    character_set: str | None = None,
    limit: int = 1 << 30,
) -> Dataset:
    """The data set in `data`.

    Peers are known to send another native transfer syntax than negotiated; it is read as what its
    first element shows it to be. Elements of groups 0000 and 0002 are left out.

    Args:
        data: The encoded data set.
        transfer_syntax_uid: How it is, or should be, encoded.
        max_values: Decode every value at once, and refuse more elements than this; otherwise each
            is decoded when it is asked for, which is faster, and raises pydicom's errors there if
            the value is none.
        character_set: How text is read if the data set does not say so itself; by default as
            latin-1, which cannot fail.
        limit: The longest that a deflated data set may become, in bytes.

    Raises:
        DataSetError: pydicom cannot read it, or it is too large.
    """
    from pydicom.charset import convert_encodings, default_encoding
    from pydicom.filereader import read_dataset

    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        try:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            data = inflater.decompress(data, limit)
            if inflater.unconsumed_tail:
                raise DataSetError(f"the deflated data set has more than {limit} bytes")
        except zlib.error as error:
            if not data.startswith(_GROUP_0008_LITTLE):  # sent as it was, which is easily seen
                raise DataSetError(f"the deflated data set is damaged: {error}") from error
    data = without_meta(data)
    little_endian = transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    if data.startswith(_GROUP_0008_BIG if little_endian else _GROUP_0008_LITTLE):
        little_endian = not little_endian
    implicit = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    try:
        data_set = read_dataset(
            BytesIO(data),
            is_implicit_VR=implicit,
            # pydicom may then find that the VRs are explicit, which some lengths look like
            at_top_level=not implicit or data[6:8] != b"\0\0",
            is_little_endian=little_endian,
            parent_encoding=convert_encodings(character_set) if character_set else default_encoding,
        )
        _check_character_sets(data_set.original_character_set)
        if max_values is not None:
            _decode_values(data_set, max_values)
    except Exception as error:  # pydicom raises whatever its parser meets
        raise DataSetError(
            f"not a data set in {uid_name(transfer_syntax_uid)}: {_without_values(error)}"
        ) from None
    for tag in [tag for tag in data_set.keys() if tag.group in (0x0000, 0x0002)]:  # noqa: SIM118 - a Dataset iterates over elements
        del data_set[tag]  # command or meta elements that some peers leave in
    return data_set


def _check_character_sets(encodings: str | Iterable[str]) -> None:
    """Refuse what pydicom has no character set for, as any name that Python has a codec for is one.

    Some of these are not of text, or raise what pydicom takes for a sign of another VR.
    """
    if not all(map(_reads_anything, [encodings] if isinstance(encodings, str) else encodings)):
        raise DataSetError("its Specific Character Set is none")


@lru_cache
def _reads_anything(encoding: str) -> bool:
    """Whether a codec makes something of whatever bytes there are."""
    try:
        bytes(range(256)).decode(encoding, "replace")
    except Exception:  # each codec raises its own
        return False
    return True


def end_mark(transfer_syntax_uid: str) -> bytes:
    """An element that comes behind all others, to see whether a data set ends where it should."""
    from pydicom import Dataset

    end = Dataset()
    end.add_new(_END, "OB", _END_VALUE)
    return encode(end, transfer_syntax_uid)


def take_end_mark(data_set: Dataset) -> bool:
    """Take the mark out again; whether it was there, and whole."""
    return _END in data_set and data_set.pop(_END).value == _END_VALUE


def decode_whole(
    data: bytes, transfer_syntax_uid: str, *, max_values: int | None = None, limit: int = 1 << 30
) -> Dataset:
    """The data set in `data`, which must be one from its first byte to its last.

    pydicom leaves out what is cut off, which may be all that matters, so an element is put behind
    it and has to come out again. Of a deflated one that is not looked at.

    Raises:
        DataSetError: As `decode`; it is cut off, or more stands behind it.
    """
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return decode(data, transfer_syntax_uid, max_values=max_values, limit=limit)
    big = transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    if data.startswith((_GROUP_0008_LITTLE, _GROUP_0008_BIG)):  # as in decode
        big = data.startswith(_GROUP_0008_BIG)
    looks_like = EXPLICIT_VR_BIG_ENDIAN if big else transfer_syntax_uid
    if not big and data:
        explicit = data[4:6].isalpha()  # a VR
        looks_like = EXPLICIT_VR_LITTLE_ENDIAN if explicit else IMPLICIT_VR_LITTLE_ENDIAN
    data_set = decode(data + end_mark(looks_like), transfer_syntax_uid, max_values=max_values)
    if not take_end_mark(data_set):
        raise DataSetError("the data set is cut off, or more stands behind it")
    return data_set


def decode_identifier(data: bytes, transfer_syntax_uid: str) -> Dataset:
    """An identifier, every value decoded.

    Raises:
        DataSetError: It is none, or is larger than identifiers are.
    """
    return decode(data, transfer_syntax_uid, max_values=MAX_VALUES, limit=MAX_IDENTIFIER)


def decode_attributes(data: bytes, transfer_syntax_uid: str) -> Dataset:
    """The data set of a DIMSE-N message, every value decoded.

    Raises:
        DataSetError: It is none, or has more elements than the library takes.
    """
    return decode_whole(
        data, transfer_syntax_uid, max_values=MAX_ATTRIBUTES, limit=MAX_ATTRIBUTES_LENGTH
    )


def _without_values(error: Exception) -> str:
    """What pydicom says, as far as it can be told: it shows values, which may be a patient's."""
    from pydicom.datadict import keyword_for_tag

    if isinstance(error, DataSetError):
        return str(error)
    tags = re.findall(r"\(([0-9A-Fa-f]{4}),\s?([0-9A-Fa-f]{4})\)", str(error))
    if not tags:
        return type(error).__name__
    group, number = tags[-1]  # the innermost
    keyword = keyword_for_tag(int(group + number, 16))
    return f"{type(error).__name__} at {keyword}{' ' if keyword else ''}({group},{number})"


def _decode_values(data_set: Dataset, limit: int) -> None:
    from pydicom.charset import convert_encodings

    too_many = DataSetError(f"more than {limit} elements")
    if len(data_set) > limit:
        raise too_many
    for number, element in enumerate(data_set.iterall()):
        if number >= limit:
            raise too_many
        if element.tag == SPECIFIC_CHARACTER_SET:  # of an item, before its texts
            _check_character_sets(convert_encodings(element.value))


def encode(data_set: Dataset, transfer_syntax_uid: str) -> bytes:
    """The bytes of a data set in a transfer syntax; of compressed ones the pixel data stays as is.

    Raises:
        DataSetError: It has a value that does not fit.
    """
    implicit_vr = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    data = None
    if transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN:
        data = encode_flat(data_set, implicit_vr=implicit_vr)
    if data is None:
        data = _write(data_set, transfer_syntax_uid, implicit_vr)
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = compressor.compress(data) + compressor.flush()
        data += b"\0" * (len(data) % 2)
    return data


def _write(data_set: Dataset, transfer_syntax_uid: str, implicit_vr: bool) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_implicit_VR = implicit_vr
    buffer.is_little_endian = transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    try:
        with checked_texts(data_set):
            write_dataset(buffer, data_set)
    except DataSetError:
        raise
    except IndexError:  # pydicom, of an empty part of a name in a set of two bytes that is alone
        raise CharacterSetError("pydicom cannot write a name in this character set") from None
    except Exception as error:  # as above
        raise DataSetError(
            f"cannot encode in {uid_name(transfer_syntax_uid)}: {_without_values(error)}"
        ) from None
    return buffer.getvalue()


def convert(instance: Instance, transfer_syntax_uid: str) -> bytes:
    """The data set of a file, re-encoded between native transfer syntaxes; no pixel changes.

    Raises:
        OSError: The file cannot be read.
        DataSetError: It is damaged.
    """
    with instance.path.open("rb") as file:
        instance = Instance.from_open_file(file, instance.path)  # it may have been replaced
        file.seek(instance.offset)
        data_set = decode(file.read(), instance.transfer_syntax_uid)
    big = EXPLICIT_VR_BIG_ENDIAN
    if (instance.transfer_syntax_uid == big) != (transfer_syntax_uid == big):
        try:
            swap_words(data_set)
        except Exception as error:  # as in decode, of which this forces the rest
            raise DataSetError(f"{instance.path}: {error}") from error
    return encode(data_set, transfer_syntax_uid)


def swap_words(data_set: Dataset) -> None:
    """Turn the bytes of the values that pydicom keeps as they came from a file."""
    for element in data_set.iterall():
        width = _WORD_LENGTHS.get(element.VR)
        if width is None and element.VR == "OB or OW":
            width = 2
        if width is not None and isinstance(element.value, bytes):
            value = element.value
            if len(value) % width == 0:
                swapped = bytearray(len(value))
                for index in range(width):
                    swapped[index::width] = value[width - 1 - index :: width]
                element.value = bytes(swapped)


def sop_uids(data_set: Dataset) -> tuple[str, str]:
    """SOP Class UID and SOP Instance UID of a composite instance.

    Raises:
        DataSetError: It lacks one.
    """
    sop_class, sop_instance = data_set.get("SOPClassUID"), data_set.get("SOPInstanceUID")
    if not sop_class or not sop_instance:
        raise DataSetError(
            "the data set has no SOP Class UID or SOP Instance UID, so it is no instance"
        )
    return str(sop_class), str(sop_instance)


def failed_uids(data: bytes, transfer_syntax_uid: str) -> tuple[str, ...]:
    """The Failed SOP Instance UID List in a final C-GET or C-MOVE response, as far as it is one."""
    try:
        value = decode(data, transfer_syntax_uid, max_values=MAX_VALUES).get(
            "FailedSOPInstanceUIDList"
        )
    except DataSetError:
        return ()
    if value is None or isinstance(value, str):
        return (value,) if value else ()
    values = cast("Iterable[object]", value) if isinstance(value, Iterable) else (value,)
    return tuple(map(str, values))


def no_keyword(keyword: str) -> str:
    """What to say of a keyword that no dictionary has, with the near ones."""
    import difflib

    from pydicom.datadict import keyword_dict

    near = difflib.get_close_matches(keyword, keyword_dict, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{keyword!r} is no DICOM keyword{hint}"


def attribute_tags(attributes: Iterable[str | int]) -> tuple[int, ...]:
    """Tags of attributes that are given as keywords or tags.

    Raises:
        LocalProtocolError: A keyword is in no dictionary.
    """
    from pydicom.tag import Tag

    if not isinstance(attributes, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LocalProtocolError(f"attributes are keywords or tags, not {attributes!r}")
    tags: list[int] = []
    for attribute in (attributes,) if isinstance(attributes, str) else attributes:
        try:
            tags.append(int(Tag(attribute)))
        except (ValueError, TypeError, OverflowError):
            text = isinstance(attribute, str)
            problem = no_keyword(str(attribute)) if text else f"{attribute!r} is no attribute"
            raise LocalProtocolError(
                f"{problem} (attributes are keywords, such as 'PatientName', or tags)"
            ) from None
    return tuple(tags)


def attribute_names(tags: Iterable[int]) -> tuple[str, ...]:
    """Keywords of attributes, or tags as text where there is none."""
    from pydicom.datadict import keyword_for_tag

    return tuple(keyword_for_tag(t) or f"({t >> 16:04x},{t & 0xFFFF:04x})" for t in tags)


def select(data_set: Dataset, tags: Collection[int]) -> Dataset:
    """The attributes of a data set with those tags, and its character set; all without tags."""
    from pydicom import Dataset

    if not tags:
        return data_set
    chosen = Dataset()
    for tag in sorted({*tags, SPECIFIC_CHARACTER_SET}):
        if tag in data_set:
            chosen[tag] = data_set[tag]
    return chosen


def original_transfer_syntax(data_set: Dataset) -> str | None:
    """The transfer syntax that a data set was read in, where it says so."""
    meta = getattr(data_set, "file_meta", None)
    uid = None if meta is None else meta.get("TransferSyntaxUID")
    return None if uid is None else str(uid)


def text_of(data_set: Dataset, keyword: str) -> str:
    """An attribute's value as text; empty where it is absent, or has no value or several."""
    if keyword not in data_set or (element := data_set[keyword]).VM != 1:
        return ""
    return str(element.value).strip(" \0")


def items_of(data_set: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent or no sequence."""
    if keyword not in data_set or (element := data_set[keyword]).VR != "SQ":
        return []
    return list(element.value or ())
