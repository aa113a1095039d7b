"""Codes with their meanings, as the items of code sequences have them (PS3.3 §8.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .errors import LocalProtocolError

if TYPE_CHECKING:
    from pydicom import Dataset


@attrs.frozen
class Code:
    """A code and its meaning, as in code sequences (PS3.3 §8.8)."""

    value: str
    scheme: str
    meaning: str = ""

    def item(self) -> Dataset:
        """The item of a code sequence."""
        from pydicom import Dataset

        item = Dataset()
        item.CodeValue = self.value
        item.CodingSchemeDesignator = self.scheme
        if self.meaning:
            item.CodeMeaning = self.meaning
        return item


_WORKITEM = 'Code("110001", "DCM", "Image Processing")'
WHY = 'Code("110514", "DCM", "Incorrect worklist entry selected"), say (PS3.16 CID 9300)'


def code_of(name: str, value: object, example: str = _WORKITEM) -> Code:
    """A code that was given as one, or as value, scheme and meaning; `name` is the argument's.

    Raises:
        LocalProtocolError: It was given otherwise.
    """
    match value:
        case Code():
            return value
        case (str(code), str(scheme), str(meaning)):
            return Code(code, scheme, meaning)
        case _:
            raise LocalProtocolError(
                f"{name} is a code, not {type(value).__name__}: write {example}"
            )
