"""Whether text fits its Specific Character Set, by how pydicom writes it and reads it back.

Where a character is not in the set, pydicom writes a question mark, which as a key matches anybody.
"""

from __future__ import annotations

from collections.abc import Generator
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

    def fits(self, text: str, delimiters: set[int], written: bytes | None = None) -> bool:
        """Whether text is the same when it has been encoded and decoded, as pydicom does it."""
        from pydicom.charset import decode_bytes, encode_string

        if text.isascii() or self.encodings[0] == "UTF8":
            return True
        if not all(map(self.have, set(text))):
            return False  # for which pydicom would warn, too
        if written is None:
            written = encode_string(text, self.encodings)
        return decode_bytes(written, self.encodings, delimiters) == text


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
            for each in value if several else [value]:
                keyword = keyword_for_tag(element.tag) or str(element.tag)
                if each and not isinstance(each, str | bytes | PersonName):
                    raise DataSetError(f"{keyword} is text, not {type(each).__name__}")
                if not _text_fits(each, sets, names):
                    raise CharacterSetError(
                        f"{keyword} does not fit the Specific Character Set; ISO_IR 192 is UTF-8,"
                        " which has all characters"
                    )


def _text_fits(value: Any, sets: _CharacterSets, names: list[PersonName]) -> bool:
    """Whether text, or a name, is in the character sets, or is written as it was read."""
    from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS, PersonName

    if not value or isinstance(value, bytes):
        return True
    if isinstance(value, str):
        return sets.fits(value, TEXT_VR_DELIMS)
    if value.original_string is None:
        names.append(value)
    elif value.encodings in (None, sets.encodings):
        return True
    groups = (group for component in value.components for group in component.split("^"))
    if not all(sets.fits(group, PN_DELIMS) for group in groups):
        return False
    # a name is read as a whole, with a character set that one part has begun going on in the next
    whole: Any = PersonName(str(value))
    return sets.fits(str(value), TEXT_VR_DELIMS, whole.encode(sets.encodings))
