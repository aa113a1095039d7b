"""Attributes that a caller gives: by keyword or in a data set, and refused if they cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from .codes import Code
from .datasets import no_keyword
from .errors import LocalProtocolError

if TYPE_CHECKING:
    from pydicom import Dataset


_FIRST = 0x0008_0000
"""The first tag of a data set; groups 0000 and 0002 are of commands and files."""


def check_data_set(name: str, value: object) -> None:
    """That an argument, if it is given, is a data set.

    Raises:
        LocalProtocolError: It is something else.
    """
    if value is not None and (not hasattr(value, "iterall") or isinstance(value, type)):
        raise LocalProtocolError(f"{name} is a pydicom Dataset, not {type(value).__name__}")


def set_attributes(data_set: Dataset, attributes: Mapping[str, Any]) -> None:
    """Set attributes by keyword; a `Code` is an item of a sequence.

    Raises:
        LocalProtocolError: One is no keyword, or its value none of its VR; the value is not said.
    """
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    for keyword, given in attributes.items():
        value = _items(given)
        if not keyword or (tag := tag_for_keyword(keyword)) is None:
            raise LocalProtocolError(no_keyword(keyword))
        if tag < _FIRST:
            raise LocalProtocolError(f"{keyword} is of a command or a file, not of a data set")
        check_value(keyword, dictionary_VR(tag), value)
        if dictionary_VR(tag) == "DS":
            value = _decimals(value)
        try:
            setattr(data_set, keyword, value)
        except Exception as error:  # pydicom raises what it likes about values
            raise _unfit(keyword, dictionary_VR(tag)) from error


def _items(value: Any) -> Any:
    """A value in which codes are the items of a sequence that they stand for."""
    if isinstance(value, Code):
        return [value.item()]
    if isinstance(value, list | tuple):
        several = _values(cast("object", value))
        return [each.item() if isinstance(each, Code) else each for each in several]
    return value


def _decimals(value: Any) -> Any:
    """Numbers of a DS as 16 bytes have room for (PS3.5 §6.2); others as they are."""
    from pydicom.valuerep import DSfloat

    rounded = [
        DSfloat(each, auto_format=True) if isinstance(each, float | Decimal) else each
        for each in _values(value)
    ]
    return rounded[0] if len(rounded) == 1 else rounded


def _values(value: object) -> Sequence[object]:
    """The values that are given for an element; pydicom has a sequence of its own for several."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return [value]
    return cast("Sequence[object]", value)


def check_value(keyword: str, vr: str, value: object) -> None:
    """That a value is one of a VR (PS3.5 §6.2); sequences and several VRs are not looked at.

    Raises:
        LocalProtocolError: It is not.
    """
    from pydicom import config
    from pydicom.valuerep import validate_value

    if vr == "SQ" or " or " in vr:
        return
    values = _values(value)
    if len(values) > 1 and None in values:  # which pydicom writes as its name
        raise _unfit(keyword, vr)
    for each in values:
        whole = not isinstance(each, str) or vr in ("LT", "ST", "UT", "UR")
        for part in [each] if whole else cast("str", each).split("\\"):
            try:
                validate_value(vr, _as_validated(vr, part), config.RAISE)
            except Exception as error:  # pydicom raises what it likes about values
                raise _unfit(keyword, vr) from error


def _as_validated(vr: str, value: object) -> object:
    """A value as pydicom looks at it, which wants numbers of text VRs as text."""
    if vr not in ("DS", "IS") or not isinstance(value, int | float | Decimal):
        return value
    if vr == "IS":
        return str(int(value)) if value == int(value) else str(value)
    return f"{float(value):.10g}"


def _unfit(keyword: str, vr: str) -> LocalProtocolError:
    examples = {
        "DA": "20260131",
        "TM": "153000",
        "DT": "20260131153000",
        "UI": "1.2.3",
        "SQ": "[Code(…), Dataset()]",
    }
    example = f", such as {examples[vr]}" if vr in examples else ""
    return LocalProtocolError(f"the value of {keyword} is none of its VR {vr}{example}")
