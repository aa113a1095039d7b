"""Places in data sets: `find`'s keys, and beyond them private tags and numbers of items.

`PerformedSeriesSequence[1].SeriesDescription` is in the second item. Without a number all items are
meant; where a value is set and there is no item, one is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from typing import TYPE_CHECKING, cast

import attrs

import dimse_trio as dimse

from .keys import DATES, Attribute, check_values, dates, tag_of, value_of, vr_of
from .texts import CHARACTER_SET, check_character_sets

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset
    from pydicom.dataelem import RawDataElement

BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
"""VRs of values that are no text, and may be long."""
NEW = "new"
"""As the value of a UID: make one."""
_SEGMENT = re.compile(r"(.*?)(?:\[([0-9]+)\])?")
_MOST_DIGITS = 9
"""Of an item's number: more items do not fit into a data set."""
_TEXTS = frozenset(("LT", "ST", "UR", "UT"))
"""VRs with one value, in which a backslash is itself (PS3.5 §6.2)."""

_MOMENTS = frozenset(("DA", "TM", "DT"))
_RANGE = re.compile(r"-(?!(?:0\d|1[0-2])\d\d\Z)")
"""A hyphen that is not of an offset from UTC."""

_NUMBERS = frozenset(("AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"))
"""VRs whose values are no text; `value_of` has looked at them."""

_PIXEL_REPRESENTATION = 0x00280103

Path = tuple["Step", ...]


@attrs.frozen
class Step:
    """One tag on the way, and which item of the sequence; `None` for all."""

    tag: int
    item: int | None = None


@attrs.frozen
class Place:
    """Where in a data set."""

    path: Path

    @property
    def name(self) -> str:
        """As the command line would write it."""
        return ".".join(
            Attribute((step.tag,)).name + ("" if step.item is None else f"[{step.item}]")
            for step in self.path
        )

    @property
    def attribute(self) -> Attribute:
        """The attribute, whatever the item."""
        return Attribute(tuple(step.tag for step in self.path))


@attrs.frozen
class Setting:
    """A place and its value; `None` for an empty one."""

    place: Place
    value: str | None


def parse_place(text: str) -> Place:
    """The place that a text names.

    Raises:
        QueryError: It is no keyword, tag or path.
    """
    path: list[Step] = []
    for segment in text.split("."):
        match = _SEGMENT.fullmatch(segment.strip())
        assert match is not None  # it matches anything
        tag = tag_of(match[1], text, private=True)
        if len(match[2] or "") > _MOST_DIGITS:
            raise dimse.QueryError(f"{text}: no sequence has so many items")
        path.append(Step(tag, None if match[2] is None else int(match[2])))
    for step in path[:-1]:
        if not is_private(step.tag) and vr_of(step.tag) != "SQ":
            raise dimse.QueryError(f"{text}: {Attribute((step.tag,)).name} is no sequence")
    return Place(tuple(path))


def parse_settings(texts: Iterable[str], *, strict: bool) -> list[Setting]:
    """`KEY=VALUE`, each a place and its value.

    Args:
        texts: As on the command line.
        strict: Refuse what only a query may have: wildcards and ranges.

    Raises:
        QueryError: One is no keyword, tag or path, has no `=`, or its value cannot be.
    """
    settings: list[Setting] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise dimse.QueryError(f"{text}: write {text}=VALUE, or {text}= for an empty value")
        place = parse_place(name)
        if place.path[-1].item is not None:
            raise dimse.QueryError(f"{text}: name an attribute in the item, {name}.…=…")
        if place.path[0].tag >> 16 == 0x0002:
            raise dimse.QueryError(
                f"{text}: File Meta Information follows from the data set, and is not set"
            )
        if any(step.tag >> 16 == 0x0000 for step in place.path):
            raise dimse.QueryError(f"{text}: that is of commands, and not in a data set")
        tag = place.path[-1].tag
        if value and not is_private(tag) and vr_of(tag) in DATES:
            value = dates(value, text)
        setting = Setting(place, value or None)
        _check(setting, strict=strict)
        if any(setting.place == other.place for other in settings):
            raise dimse.QueryError(f"{place.name} is given twice")
        settings.append(setting)
    return settings


def _check(setting: Setting, *, strict: bool) -> None:
    place, value = setting.place, setting.value
    tag = place.path[-1].tag
    if value is None or is_private(tag):
        return
    vr = vr_of(tag)
    if vr == "SQ":
        raise dimse.QueryError(
            f"{place.name} is a sequence: name an attribute in it, {place.name}.…=…"
        )
    if vr == "UI" and value == NEW:
        return
    _typed(place, value, "SS" if _is_us_or_ss(tag) and "-" in value else vr)
    check_values({place.attribute.tags: value})
    if tag == CHARACTER_SET:
        check_character_sets(value)
    if strict or not _is_for_queries(value, vr):
        _check_strictly(place, value, vr)


def _is_for_queries(value: str, vr: str) -> bool:
    """Whether a value may have wildcards or be a range, which instances do not have."""
    return "-" in value if vr in _MOMENTS else bool(set(value) & set("*?"))


def value_in(setting: Setting) -> object:
    """The value of a setting as pydicom wants it.

    Raises:
        QueryError: The form of its attribute is not known.
    """
    place = setting.place
    tag = place.path[-1].tag
    if is_private(tag):
        raise dimse.QueryError(f"{place.name}: private attributes have no known form")
    vr = vr_of(tag)
    return () if vr == "SQ" else _typed(place, setting.value, vr)


def _typed(place: Place, value: str | None, vr: str) -> object:
    """A value as pydicom wants it."""
    if value is not None and vr in BINARY:
        raise dimse.QueryError(f"{place.name} is binary ({vr}): create --from-json can set it")
    if vr == "UI" and value == NEW:
        return dimse.new_uid()
    return value_of(value, vr, place.name)


def _check_strictly(place: Place, value: str, vr: str) -> None:
    from pydicom import config
    from pydicom.valuerep import validate_value

    if vr in _NUMBERS:
        return
    if _RANGE.search(value) if vr == "DT" else vr in _MOMENTS and "-" in value:
        raise dimse.QueryError(f"{place.name}={value} is a range, and not one value")
    try:
        for part in [value] if vr in _TEXTS else value.split("\\"):
            validate_value(vr, part, config.RAISE)
    except ValueError as error:
        problem = str(error).partition(" Please see")[0]
        raise dimse.QueryError(f"{place.name}={value}: {problem}") from error


def is_private(tag: int) -> bool:
    """Whether a tag's group is odd."""
    return bool(tag >> 16 & 1)


def raw(data_set: Dataset, tag: int) -> DataElement | RawDataElement | None:
    """An element that may not have been looked at yet, and whose value may still be in the file."""
    return cast("DataElement | RawDataElement | None", data_set.get_item(tag, keep_deferred=True))


def raw_vr(element: DataElement | RawDataElement) -> str:
    """The VR of an element that may not have been looked at yet."""
    if element.VR and element.VR != "UN":
        return element.VR
    try:
        return vr_of(int(element.tag))
    except dimse.QueryError:
        return "UN"


def sequence_of(data_set: Dataset, tag: int) -> MutableSequence[Dataset] | None:
    """The items of a sequence; `None` if it is absent or none. Other values stay as they are."""
    element = raw(data_set, tag)
    if element is None or raw_vr(element) not in ("SQ", "UN"):
        return None
    element = data_set[tag]  # of what is UN, pydicom finds out
    return element.value if element.VR == "SQ" else None


def _holders(data_set: Dataset, path: Path, *, make: bool) -> Iterator[Dataset]:
    """The data sets, this one or items further down, in which the last tag of a path is."""
    from pydicom import Dataset

    if len(path) == 1:
        yield data_set
        return
    step = path[0]
    items = sequence_of(data_set, step.tag)
    if items is None:
        if not make:
            return
        if step.tag in data_set or is_private(step.tag):
            raise dimse.QueryError(f"{Place(path[:1]).name} is no sequence")
        data_set.add_new(step.tag, "SQ", [])
        items = data_set[step.tag].value
    if make and len(items) == (step.item or 0):
        items.append(Dataset())
    chosen = list(items) if step.item is None else list(items[step.item : step.item + 1])
    if make and not chosen:
        raise dimse.QueryError(f"{Place(path[:1]).name}: it has only {len(items)} items")
    for item in chosen:
        yield from _holders(item, path[1:], make=make)


def put(data_set: Dataset, setting: Setting, *, existing: bool = False) -> int:
    """Set a value, in how many data sets.

    Args:
        data_set: Where.
        setting: What.
        existing: Only where the attribute is there already.

    Raises:
        QueryError: It is no value of that attribute.
    """
    place, tag = setting.place, setting.place.path[-1].tag
    count = 0
    for holder in list(_holders(data_set, place.path, make=not existing)):
        there = raw(holder, tag)
        if there is None and existing:
            continue
        if is_private(tag):
            vr = "UN" if there is None else holder[tag].VR
            if vr == "UN":
                raise dimse.QueryError(
                    f"{place.name}: a private attribute is set only where it is, with a known VR"
                )
        else:
            vr = _vr_in((holder, data_set), tag)
        holder.add_new(tag, vr, () if vr == "SQ" else _typed(place, setting.value, vr))
        count += 1
    return count


def _is_us_or_ss(tag: int) -> bool:
    """Whether an attribute's VR follows from Pixel Representation (PS3.6 Table 6-1)."""
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(tag).startswith("US or SS")


def _vr_in(data_sets: Iterable[Dataset], tag: int) -> str:
    """The VR of an attribute, which may follow from one of the data sets that it is in."""
    if _is_us_or_ss(tag):
        for data_set in data_sets:
            if _PIXEL_REPRESENTATION in data_set:
                return "SS" if data_set[_PIXEL_REPRESENTATION].value == 1 else "US"
    return vr_of(tag)


def delete(data_set: Dataset, place: Place) -> int:
    """Delete an attribute, or an item of a sequence, in how many data sets."""
    step = place.path[-1]
    count = 0
    for holder in _holders(data_set, place.path, make=False):
        if step.item is None:
            count += step.tag in holder
            holder.pop(step.tag, None)
        elif (items := sequence_of(holder, step.tag)) is not None and step.item < len(items):
            del items[step.item]
            count += 1
    return count


def select(data_set: Dataset, paths: Sequence[Path]) -> Dataset:
    """A data set of those attributes only, and of the items that have some."""
    from pydicom import Dataset

    chosen = Dataset()
    for tag in dict.fromkeys(path[0].tag for path in paths):
        if tag not in data_set:
            continue
        here = [path for path in paths if path[0].tag == tag]
        if (Step(tag),) in here:
            chosen[tag] = data_set[tag]
        elif (items := sequence_of(data_set, tag)) is not None:
            kept: list[Dataset] = []
            for number, item in enumerate(items):
                inner = [path[1:] for path in here if path[0].item in (None, number)]
                if inner:
                    kept.append(item if () in inner else select(item, inner))
            chosen.add_new(tag, "SQ", kept)
    return chosen
