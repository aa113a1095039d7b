"""Text in data sets, and the character sets that it fits (PS3.3 §C.12.1.1.2)."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import dimse_trio as dimse

if TYPE_CHECKING:
    from pydicom import Dataset

CHARACTER_SET = 0x00080005


def check_character_sets(value: str) -> None:
    """Refuse a Specific Character Set that there is not.

    Raises:
        QueryError: It is none.
    """
    from pydicom.charset import python_encoding

    for part in value.split("\\"):
        if part not in python_encoding:
            raise dimse.QueryError(
                f"SpecificCharacterSet={value}: no such character set; that of UTF-8 is ISO_IR 192"
            )


def check_texts(data_set: Dataset, texts: Iterable[str]) -> None:
    """Refuse text that does not fit the character set that a data set says, if it says one.

    Raises:
        QueryError: It does not fit, or there is no such character set.
    """
    if declared := data_set.get("SpecificCharacterSet"):
        name = declared if isinstance(declared, str) else "\\".join(declared)
        check_character_sets(name)
        if not fits_character_set(data_set, texts):
            raise dimse.QueryError(f"text does not fit SpecificCharacterSet={name}")


def fits_character_set(data_set: Dataset, texts: Iterable[str]) -> bool:
    """Whether a data set's character set has all that is in texts."""
    from pydicom.charset import convert_encodings

    declared = data_set.get("SpecificCharacterSet")
    encodings = convert_encodings(declared) if declared else []
    return all(text.isascii() or _fits(text, encodings) for text in texts)


def to_utf8(data_set: Dataset) -> None:
    """Have a data set written in UTF-8, its items too."""
    data_set.decode()
    for element in data_set.iterall():
        for item in element.value if element.VR == "SQ" else ():
            item.pop("SpecificCharacterSet", None)
    data_set.SpecificCharacterSet = "ISO_IR 192"


def texts_of(data_set: Dataset) -> Generator[str]:
    """All text that a character set is for."""
    from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

    for element in data_set.iterall():
        if element.VR in CUSTOMIZABLE_CHARSET_VR:
            values = element.value if element.VM > 1 else [element.value]
            yield from (str(value) for value in values if value)


def _fits(text: str, encodings: list[str]) -> bool:
    from pydicom.charset import encode_string

    if not encodings:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            encode_string(text, encodings)
        except (UserWarning, ValueError, LookupError):
            return False
    return True
