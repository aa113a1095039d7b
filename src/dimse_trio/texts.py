"""Whether text fits its Specific Character Set, by how pydicom writes it and reads it back.

Where a character is not in the set, pydicom writes a question mark, which as a key matches anybody.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import attrs

from .errors import CharacterSetError, DataSetError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.valuerep import PersonName

SPECIFIC_CHARACTER_SET = 0x00080005
TEXT_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
"""Those that Specific Character Set is for."""
_DEFAULT = "iso8859"
"""What pydicom calls the default repertoire, and takes for Latin-1."""


@contextmanager
def checked_texts(data_set: Dataset) -> Generator[None]:
    """A block that writes a data set whose text fits.

    Raises:
        CharacterSetError: Some does not.
        DataSetError: A value of a text VR is none.
    """
    names: list[PersonName] = []
    try:
        _check(data_set, _CharacterSets((_DEFAULT,), "latin-1"), names)
        yield
    finally:
        for name in names:  # pydicom keeps the bytes, and would write them in any character set
            name.original_string = cast("bytes", None)


@attrs.frozen
class _CharacterSets:
    """Python's names of the character sets, and what the default repertoire has.

    That is ASCII if the data set says so. If it says nothing, what was read from somewhere is
    written as it came, Latin-1 included, which many devices leave unsaid.
    """

    encodings: tuple[str, ...]
    default: str = "ascii"

    def have(self, character: str) -> bool:
        return any(self._has(encoding, character) for encoding in self.encodings)

    def _has(self, encoding: str, character: str) -> bool:
        try:
            return bool(character.encode(self.default if encoding == _DEFAULT else encoding))
        except UnicodeError:
            return False

    def fit(self, texts: Sequence[str], written: Sequence[bytes]) -> bool:
        """Whether the values of an element, as pydicom writes them, are read as what they are.

        They are read as a whole: a character set that one has begun goes on in the next.
        """
        from pydicom.charset import decode_bytes
        from pydicom.valuerep import TEXT_VR_DELIMS

        data = b"\\".join(written)
        data += b" " * (len(data) % 2)  # the padding is read in the last character set, too
        read = decode_bytes(data, self.encodings, TEXT_VR_DELIMS)
        return read.rstrip(" ") == "\\".join(texts).rstrip(" ")


def _check(data_set: Dataset, sets: _CharacterSets, names: list[PersonName]) -> None:
    """Refuse text for which pydicom would write question marks; `names` get those of no bytes.

    Args:
        data_set: What is to be written.
        sets: The character sets, where the data set does not say itself.
        names: Where the names are put that were made of text, not read.
    """
    from pydicom.charset import convert_encodings
    from pydicom.datadict import keyword_for_tag
    from pydicom.valuerep import PersonName

    if SPECIFIC_CHARACTER_SET in data_set:
        sets = _CharacterSets(tuple(convert_encodings(data_set.SpecificCharacterSet)))
    for element in data_set.values():
        if element.is_raw:
            continue  # it is written as it came
        value = cast("Any", element.value)
        if element.VR == "SQ":
            for item in value or ():
                _check(item, sets, names)
        elif element.VR in TEXT_VRS:
            several = not isinstance(value, str) and hasattr(value, "append")
            keyword = keyword_for_tag(element.tag) or str(element.tag)
            values: list[Any] = list(value) if several else [value]
            for each in values:
                if not (each is None or isinstance(each, str | bytes | PersonName)):
                    raise DataSetError(f"{keyword} is text, not {type(each).__name__}")
            if not _texts_fit(values, sets, names):
                raise CharacterSetError(
                    f"{keyword} does not fit the Specific Character Set; ISO_IR 192 is UTF-8,"
                    " which has all characters"
                )


def _texts_fit(values: list[Any], sets: _CharacterSets, names: list[PersonName]) -> bool:
    """Whether the values of an element are in the character sets, or are written as they came."""
    from pydicom.valuerep import PersonName

    names += (v for v in values if isinstance(v, PersonName) and not v.original_string)
    texts = [str(value or "") for value in values]
    if all(map(str.isascii, texts)) or sets.encodings[0] == "UTF8":
        return True
    if any(isinstance(value, bytes) for value in values):
        return True
    written = [_as_it_came(value, sets) for value in values]
    if len(values) == 1 and written[0] is not None:
        return True
    for position, value in enumerate(values):
        if written[position] is None:
            if not all(map(sets.have, set(texts[position]))):
                return False  # for which pydicom would warn, too
            written[position] = _written(value, sets)
    return None not in written and sets.fit(texts, cast("list[bytes]", written))


def _as_it_came(value: Any, sets: _CharacterSets) -> bytes | None:
    """The bytes that a name was read from, if they are written again."""
    same = getattr(value, "encodings", ()) in (None, sets.encodings)
    return value.original_string or None if same else None


def _written(value: Any, sets: _CharacterSets) -> bytes | None:
    """What pydicom makes of a text or name; `None` where it cannot."""
    from pydicom.charset import encode_string
    from pydicom.valuerep import PersonName

    try:
        if isinstance(value, str) or not value:
            return encode_string(value or "", sets.encodings)
        copy: Any = PersonName(str(value))
        return cast("bytes", copy.encode(sets.encodings))
    except (LookupError, UnicodeError):  # of a set that takes two bytes and stands alone, say
        return None
