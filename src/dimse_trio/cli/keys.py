"""`-k`: keys by keyword, tag or path, and their values in the data sets that come back.

A path names items of sequences, from the outside in: `ScheduledProcedureStepSequence.Modality`,
`0040,0100.0008,0060`. Tags are `(0010,0010)`, `0010,0010` or `00100010`. DCMTK's item number `[0]`
may stand behind a sequence: in an identifier there is only that item (PS3.4 §C.2.2.2.6).

A date may be `today`, `today-7` or `today+1`, and a range of such dates `today-7..today`.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

import dimse_trio as dimse

from .texts import check_texts

if TYPE_CHECKING:
    from pydicom import Dataset

_TAG = re.compile(r"\(?([0-9a-fA-F]{4}),?([0-9a-fA-F]{4})\)?")
_ITEM = re.compile(r"\[0\]$")
_TODAY = re.compile(r"\btoday([+-][0-9]{1,5}(?![0-9]))?")
_BITS = {"S": 16, "L": 32, "V": 64}
_INTEGERS = {f"U{size}": (0, 2**bits - 1) for size, bits in _BITS.items()} | {
    f"S{size}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for size, bits in _BITS.items()
}
"""VRs of binary integers, and their least and greatest value (PS3.5 Table 6.2-1)."""
_FLOATS = {"FL": 3.4028234663852886e38, "FD": math.inf}
"""VRs of binary floating-point numbers, and their greatest finite value."""
_CHECKED = frozenset(("AS", "DA", "TM", "DT", "UI", "IS", "DS"))
_UNMATCHABLE = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))

DATES = frozenset(("DA", "DT"))
"""VRs of values that may be `today`."""

LEVELS = ("patient", "study", "series", "image")
_UNIQUE_KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""The unique key of each level (PS3.4 §C.6.1.1, §C.6.2.1)."""


@attrs.frozen
class Attribute:
    """An attribute of a data set or, further down, of items in it: its tags from the outside in."""

    tags: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its path in keywords, a tag where there is none."""
        from pydicom.datadict import keyword_for_tag

        return ".".join(keyword_for_tag(tag) or f"{tag:08X}" for tag in self.tags)

    def text_in(self, data_set: Dataset) -> str:
        """Its value as text; empty if it is absent or empty."""
        return _text(data_set, self.tags)


@attrs.frozen
class Key:
    """One `-k`, resolved; the value is `None` for a key that is only to be returned."""

    attribute: Attribute
    value: str | None


def parse_keys(keys: Iterable[str]) -> list[Key]:
    """The keys of a command line.

    Raises:
        QueryError: One is no keyword, tag or path.
    """
    parsed: list[Key] = []
    for text in keys:
        name, equals, value = text.partition("=")
        tags = tuple(tag_of(segment.strip(), text) for segment in name.split("."))
        for tag in tags[:-1]:
            if vr_of(tag) != "SQ":
                raise dimse.QueryError(f"{text}: {Attribute((tag,)).name} is no sequence")
        if equals and value and vr_of(tags[-1]) in DATES:
            value = dates(value, text)
        parsed.append(Key(Attribute(tags), value if equals and value else None))
    return parsed


def dates(value: str, key: str) -> str:
    """Dates with `today` and days from it as DICOM has them; `..` is the hyphen of a range."""

    def day(match: re.Match[str]) -> str:
        try:
            moment = dt.date.today() + dt.timedelta(days=int(match[1] or 0))
        except OverflowError:
            raise dimse.QueryError(f"{key}: there is no such day") from None
        return f"{moment.year:04}{moment:%m%d}"

    return _TODAY.sub(day, value).replace("..", "-")


def tag_of(segment: str, key: str, *, private: bool = False) -> int:
    """The tag that a keyword or tag of a key means.

    Raises:
        QueryError: It is none, or is private where those are not meant.
    """
    from pydicom.datadict import tag_for_keyword

    segment = _ITEM.sub("", segment)
    if (match := _TAG.fullmatch(segment)) is not None:
        tag = int(match[1] + match[2], 16)
        if tag >> 16 & 1 and not private:
            raise dimse.QueryError(f"{key}: private attributes have no known form to ask for")
        return tag
    tag_or_none = tag_for_keyword(segment)
    if tag_or_none is None or not segment:
        keys: dict[str, Any] = {segment: None} if segment else {}
        dimse.query("STUDY", **keys)  # raises, and names the keywords that are near
        raise dimse.QueryError(f"{key!r} has no DICOM keyword or tag before its value")
    return int(tag_or_none)


def vr_of(tag: int) -> str:
    """The VR of a tag in the data dictionary; the first where it has several.

    Raises:
        QueryError: It is not in it.
    """
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        raise dimse.QueryError(
            f"({tag >> 16:04x},{tag & 0xFFFF:04x}) is no attribute of the data dictionary"
        ) from None


def make_query(
    level: str, keys: Sequence[Key], *, model: str | None = None, return_keys: bool = True
) -> tuple[dimse.Query, list[Attribute]]:
    """A query for a level, and the attributes that it asks for, the named ones first.

    At the level WORKLIST, a key of the scheduled procedure step may be named without its sequence.

    Raises:
        QueryError: A key's value does not fit its attribute, or the model has no such level.
    """
    level = level.upper()
    if (model == "worklist") != (level == "WORKLIST") and model is not None:
        if model != "worklist":
            raise dimse.QueryError(f"the level worklist is not in the {model} model")
        level = "WORKLIST"
    if model == "study" and level == "PATIENT":
        raise dimse.QueryError("the Study Root model has no level patient: --model patient has")
    root = {"patient": dimse.Model.PATIENT_ROOT, "study": dimse.Model.STUDY_ROOT}.get(model or "")
    usual = dimse.query(level, model=root)
    step = _step_tags(usual.identifier) if level == "WORKLIST" else ()
    query = usual if return_keys else dimse.query(level, model=root, return_keys=False)
    named: list[Attribute] = []
    values: dict[tuple[int, ...], str | None] = {}
    for key in keys:
        tags = key.attribute.tags
        if len(tags) == 1 and tags[0] in step:
            tags = (_STEP_SEQUENCE, *tags)
        named.append(Attribute(tags))
        if key.value is not None and values.get(tags) is not None:
            raise dimse.QueryError(f"{key.attribute.name} is given twice")
        values[tags] = values.get(tags) if key.value is None else key.value
    check_values(values)
    for tags, value in values.items():
        _set(query.identifier, tags, value)
    check_texts(query.identifier, filter(None, values.values()))
    asked = list(dict.fromkeys(named + list(_attributes_of(query.identifier))))
    return query, [attribute for attribute in asked if attribute.tags[0] not in _NOT_SHOWN]


_STEP_SEQUENCE = 0x00400100
_QUERY_RETRIEVE_LEVEL = 0x00080052
_NOT_SHOWN = frozenset((_QUERY_RETRIEVE_LEVEL, 0x00080005))


def check_values(values: Mapping[tuple[int, ...], str | None]) -> None:
    """Have the library look at the values as at those of `query`: of each item together."""
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    items: dict[tuple[int, ...], dict[str, Any]] = {}
    for (*sequences, tag), value in values.items():
        keyword = keyword_for_tag(tag)
        # numbers are text on a command line, and repeating groups have no tag of their own
        if value and tag_for_keyword(keyword) == tag and vr_of(tag) in _CHECKED:
            items.setdefault(tuple(sequences), {})[keyword] = value
    for keys in items.values():
        dimse.query("STUDY", return_keys=False, **keys)


def _step_tags(identifier: Dataset) -> frozenset[int]:
    """The attributes of the scheduled procedure step that stand only there."""
    return frozenset(int(element.tag) for element in identifier[_STEP_SEQUENCE].value[0])


def _attributes_of(data_set: Dataset, path: tuple[int, ...] = ()) -> Iterable[Attribute]:
    for element in data_set:
        tags = (*path, int(element.tag))
        if element.VR == "SQ" and element.value:
            yield from _attributes_of(element.value[0], tags)
        else:
            yield Attribute(tags)


def _set(identifier: Dataset, tags: Sequence[int], value: str | None) -> None:
    """Set a key of an identifier, and the sequences around it with their one item."""
    from pydicom import Dataset

    *sequences, tag = tags
    for sequence in sequences:
        if sequence not in identifier or not identifier[sequence].value:
            identifier.add_new(sequence, "SQ", [Dataset()])
        identifier = identifier[sequence].value[0]
    vr = vr_of(tag)
    name = Attribute(tuple(tags)).name
    if vr == "SQ":
        if value is not None:
            raise dimse.QueryError(f"{name} is a sequence: name an attribute in it, {name}.…=…")
        if tag not in identifier:
            identifier.add_new(tag, vr, [])
        return
    if vr in _UNMATCHABLE and value is not None:
        raise dimse.QueryError(f"{name} cannot be matched: its value is binary ({vr})")
    universal = value == "*" and vr in _CHECKED  # without wildcards: an empty value says it
    identifier.add_new(tag, vr, value_of(None if universal else value, vr, name))


def value_of(value: str | None, vr: str, name: str) -> Any:
    """A value as pydicom wants it; strings keep their wildcards, ranges and backslashes.

    Raises:
        QueryError: The attribute of that name cannot have it.
    """
    if value is None:
        return None
    parts = value.split("\\")
    integers: list[int] = []
    floats: list[float] = []
    try:
        if vr in _INTEGERS:
            integers = [int(part, 0) for part in parts]
        elif vr in _FLOATS:
            floats = [float(part) for part in parts]
    except ValueError as error:
        raise dimse.QueryError(f"{name}={value}: no value of an attribute with VR {vr}") from error
    least, greatest = _INTEGERS.get(vr, (0, 0))
    if not all(least <= number <= greatest for number in integers):
        raise dimse.QueryError(f"{name}={value}: not from {least} to {greatest}")
    if any(math.isfinite(number) and abs(number) > _FLOATS[vr] for number in floats):
        raise dimse.QueryError(f"{name}={value}: too great for an attribute with VR {vr}")
    if vr == "AT":
        return [tag_of(part, value) for part in parts]
    return integers or floats or value


def _text(data_set: Dataset, tags: Sequence[int]) -> str:
    try:
        if tags[0] not in data_set:
            return ""
        element = data_set[tags[0]]
        if element.value is None:
            return ""
        if element.VR == "SQ":
            if len(tags) == 1:
                if not element.value:
                    return ""
                return f"{len(element.value)} item{'s' * (len(element.value) != 1)}"
            return "; ".join(filter(None, (_text(item, tags[1:]) for item in element.value)))
        if isinstance(element.value, bytes):
            return f"{len(element.value)} bytes"
        if element.VM > 1:
            return "\\".join(map(str, element.value))
        return str(element.value)
    except Exception:  # a value that its VR forbids; pydicom raises whatever its parser meets
        return "(invalid)"


def retrieve_query(level: str, texts: Sequence[str], model: str | None) -> dimse.Query:
    """The query of a C-GET or C-MOVE: unique keys with their values (PS3.4 §C.4.2.2.1, §C.4.3.2.1).

    Raises:
        QueryError: One is no unique key, lacks a value, or has a wildcard; or the level's is not
            there.
    """
    level = level.lower()
    allowed = _UNIQUE_KEYS[: LEVELS.index(level) + 1]
    keys = parse_keys(texts)
    for key in keys:
        name = key.attribute.name
        if name not in allowed:
            raise dimse.QueryError(
                f"{name} is no unique key down to the level {level} ({', '.join(allowed)}), and"
                " instances are retrieved by these: find them with dimse-trio find"
            )
        values = [part.strip() for part in (key.value or "").split("\\")]
        if not all(values) or (name != "PatientID" and set("".join(values)) & set("*?")):
            raise dimse.QueryError(f"{name} needs a value without wildcards to retrieve by")
    if allowed[-1] not in [key.attribute.name for key in keys]:
        raise dimse.QueryError(f"the level {level} needs -k {allowed[-1]}=…")
    return make_query(level, keys, model=model, return_keys=False)[0]
