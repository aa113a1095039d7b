"""Naming a character set that text fits: UTF-8, unless the data set says another that does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import datasets
from .errors import CharacterSetError

if TYPE_CHECKING:
    from pydicom import Dataset


def set_character_set(data_set: Dataset) -> None:
    """Name UTF-8 as the character set if the values need one (PS3.3 §C.12.1.1.2).

    Values that were read from somewhere and never looked at are written as they came.
    """
    if "SpecificCharacterSet" not in data_set and _needs_character_set(data_set):
        for _ in data_set.iterall():  # or those would be left in another character set
            pass
        data_set.SpecificCharacterSet = "ISO_IR 192"


def encode_answer(data_set: Dataset, transfer_syntax_uid: str) -> bytes:
    """The bytes of a handler's data set, in UTF-8 where its own character set does not do.

    Raises:
        DataSetError: It cannot be encoded.
    """
    set_character_set(data_set)
    try:
        return datasets.encode(data_set, transfer_syntax_uid)
    except CharacterSetError:
        for element in data_set.iterall():
            if element.VR == "SQ":
                for item in element.value or ():
                    item.pop("SpecificCharacterSet", None)
        data_set.SpecificCharacterSet = "ISO_IR 192"
        return datasets.encode(data_set, transfer_syntax_uid)


def _needs_character_set(data_set: Dataset) -> bool:
    from pydicom import DataElement

    for element in data_set.values():
        if isinstance(element, DataElement):
            if element.VR == "SQ":
                if any(map(_needs_character_set, element.value or ())):
                    return True
            elif not str(element.value).isascii():
                return True
    return False
