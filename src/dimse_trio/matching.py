"""Attribute matching for C-FIND: which records an identifier asks for (PS3.4 §C.2.2.2).

An identifier's elements are keys. What a key asks depends on its value and VR: nothing at all
(universal matching, §C.2.2.2.3), one value (§C.2.2.2.1), any UID of a list (§C.2.2.2.2), a pattern
with `*` and `?` (§C.2.2.2.4), a range of dates or times (§C.2.2.2.5), or an item of a sequence
(§C.2.2.2.6). A record matches when every key does; of an attribute with several values any one is
enough. The response then has the keys asked for, with the record's values (§C.4.1.1.3.2).

Everything here is a pure function of pydicom data sets; a query that meets many records is compiled
first, `compile_query(identifier).matches(data_set)`. Where the standard leaves a choice, numbers in
IS and DS are compared as numbers, dates and times of less precision stand for all that they begin,
a lone `*` is universal matching for every VR, and a key with several values matches any of them.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, cast

import attrs

from .attributes import check_data_set

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

Accepts = Callable[[Sequence[str]], bool]
"""Whether an attribute's values, of which there is at least one, satisfy a key."""

WILDCARD_VRS = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_NUMBER_VRS = frozenset(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"))
_BINARY_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_CHARSET_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))

_LENGTH_TO_END, _TIMEZONE_OFFSET_FROM_UTC = 0x00080001, 0x00080201
_SPECIFIC_CHARACTER_SET, _LEVEL, _VIEW = 0x00080005, 0x00080052, 0x00080053
_NO_KEYS = (_LENGTH_TO_END, _SPECIFIC_CHARACTER_SET, _LEVEL, _VIEW)
_FIRST = 0x00080000


@attrs.frozen
class MatchingOptions:
    """The choices that the standard leaves to an SCP or to extended negotiation.

    Attributes:
        pn_ignore_case: Person names match whatever their case (§C.2.2.2.1.1).
        missing_matches: A record without an attribute, or with no value for it, matches any key.
        combined_datetime: A range of dates and one of times, asked for together, are one range
            from the first date and time to the last (§C.2.2.2.5.4), not a time on each day.
    """

    pn_ignore_case: bool = True
    missing_matches: bool = False
    combined_datetime: bool = False


_DEFAULT = MatchingOptions()


@attrs.frozen
class Key:
    """One key of an identifier.

    Attributes:
        values: What it asks for, as written; empty for universal matching and for sequences.
        accepts: Whether values of a record satisfy it; `None` if any do (universal matching).
        item: For sequence matching, the query that an item of the record must match.
    """

    tag: int
    vr: str
    values: tuple[str, ...] = ()
    accepts: Accepts | None = None
    item: CompiledQuery | None = None

    @property
    def is_private_creator(self) -> bool:
        """Whether it is no key but names the block of private keys beside it (PS3.5 §7.8.1)."""
        return self.tag >> 16 & 1 == 1 and self.tag & 0xFFFF < 0x100


@attrs.frozen
class _DateTimeRange:
    """A date key and a time key that make one range (§C.2.2.2.5.4)."""

    date: int
    time: int
    low: str
    high: str

    def accepts(self, dates: Sequence[str], times: Sequence[str]) -> bool:
        date, time = _moment(dates[0], "DA"), _moment(times[0] if times else "00", "TM")
        if date is None or time is None:
            return False
        return self.low <= date[0] + time[0].ljust(12, "0") <= self.high


@attrs.frozen
class CompiledQuery:
    """An identifier, ready to be matched against any number of records. Made by `compile_query`.

    Attributes:
        identifier: The identifier that it was made from.
        keys: Its keys in the order of their tags, those of universal matching included.
    """

    identifier: Dataset = attrs.field(repr=False)
    options: MatchingOptions
    keys: tuple[Key, ...] = attrs.field(repr=False)
    _ranges: tuple[_DateTimeRange, ...] = attrs.field(repr=False)

    @property
    def is_universal(self) -> bool:
        """Whether every record matches."""
        return not self._ranges and all(
            key.accepts is None and (key.item is None or key.item.is_universal) for key in self.keys
        )

    def accepts(self, values_of: Callable[[int], Sequence[str]]) -> bool:
        """Whether a record matches whose attributes are strings looked up by tag.

        For records that are no data sets, such as rows of a database. Sequences are not matched.
        """
        missing = self.options.missing_matches
        for key in self.keys:
            if key.accepts is not None:
                values = [value for value in values_of(key.tag) if value]
                if not (key.accepts(values) if values else missing):
                    return False
        for pair in self._ranges:
            dates, times = values_of(pair.date), values_of(pair.time)
            if not (pair.accepts(dates, times) if any(dates) else missing):
                return False
        return True

    def matches(self, data_set: Dataset) -> bool:
        """Whether a record matches; `LocalProtocolError` if it is no data set."""
        check_data_set("a record", data_set)
        missing = self.options.missing_matches
        if not self.accepts(lambda tag: values_of(data_set, tag)):
            return False
        for key in self.keys:
            if key.item is not None and not key.item.is_universal:
                items = _items(data_set, key.tag)
                if not (any(map(key.item.matches, items)) if items else missing):
                    return False
        return True

    def response(self, data_set: Dataset) -> Dataset:
        """The identifier of the response for a matching record (§C.4.1.1.3.2).

        Every key asked for is there; one that the record lacks has no value. Of a sequence, the
        items that match, with what was asked of them; all of it if nothing was.
        """
        response = self._attributes(data_set)
        if _LEVEL in self.identifier:
            response.QueryRetrieveLevel = self.identifier.QueryRetrieveLevel
        texts = (str(e.value) for e in response.iterall() if e.VR in _CHARSET_VRS)
        if not all(map(str.isascii, texts)):
            response.SpecificCharacterSet = "ISO_IR 192"
        return response

    def _attributes(self, data_set: Dataset) -> Dataset:
        from pydicom import DataElement, Dataset

        response = Dataset()
        for key in self.keys:
            vr, value = key.vr, cast("Any", None)
            if vr == "SQ":
                value = _items(data_set, key.tag)
                if (query := key.item) is not None:
                    value = [query._attributes(item) for item in value if query.matches(item)]
            elif (element := _element(data_set, key.tag)) is not None:
                vr, value = _unambiguous(element.VR), element.value
            elif key.is_private_creator:  # or the private keys beside it would be nobody's
                vr, value = "LO", "".join(key.values)
            response[key.tag] = DataElement(key.tag, vr, value, already_converted=vr != "SQ")
        return response


def matches(identifier: Dataset, data_set: Dataset, *, options: MatchingOptions = _DEFAULT) -> bool:
    """Whether a record matches an identifier."""
    return compile_query(identifier, options=options).matches(data_set)


def response(
    identifier: Dataset, data_set: Dataset, *, options: MatchingOptions = _DEFAULT
) -> Dataset:
    """The response for a record that matches an identifier; see `CompiledQuery.response`."""
    return compile_query(identifier, options=options).response(data_set)


def compile_query(identifier: Dataset, *, options: MatchingOptions = _DEFAULT) -> CompiledQuery:
    """Make out what each key of an identifier asks for.

    Group lengths, groups below 0008 and what says how to read the identifier (Specific Character
    Set, Query/Retrieve Level) are no keys. A value that its VR does not allow is taken as written.
    """
    tags = sorted({*identifier.keys()}.difference(_NO_KEYS))
    keys = [_key(identifier, tag, options) for tag in tags if tag >= _FIRST and tag & 0xFFFF]
    ranges: list[_DateTimeRange] = []
    if options.combined_datetime:
        ranges = list(_combined(keys))
        both = {tag for pair in ranges for tag in (pair.date, pair.time)}
        keys = [attrs.evolve(key, accepts=None) if key.tag in both else key for key in keys]
    return CompiledQuery(identifier, options, tuple(keys), tuple(ranges))


def _key(identifier: Dataset, tag: int, options: MatchingOptions) -> Key:
    vr, values = _written(identifier, tag)
    if vr == "SQ":
        items = _items(identifier, tag)
        # several items are not allowed; the first is what most SCPs take
        return Key(tag, vr, item=compile_query(items[0], options=options) if items else None)
    values = tuple(filter(None, values))
    if (creator := Key(tag, vr, values)).is_private_creator:
        return creator
    universal = vr not in _BINARY_VRS and any(not value.strip("*") for value in values)
    if not values or universal or tag == _TIMEZONE_OFFSET_FROM_UTC:
        return Key(tag, vr)
    return Key(tag, vr, values, _accepts(vr, values, options))


def _accepts(vr: str, keys: Sequence[str], options: MatchingOptions) -> Accepts:
    """The function that compares a record's values with a key's, by VR."""
    if vr == "PN":
        names = [_person_name(key, options.pn_ignore_case) for key in keys]
        fold = options.pn_ignore_case
        return lambda values: any(name(_groups(v, fold)) for v in values for name in names)
    if vr in _NUMBER_VRS:
        numbers = frozenset(map(_number, keys))
        return lambda values: any(_number(value) in numbers for value in values)
    if vr in _WIDTHS and all(bounds := [bounds_of(key, vr) for key in keys]):
        return lambda values: any(b.contain(value) for value in values for b in bounds if b)
    if vr in WILDCARD_VRS and any("*" in key or "?" in key for key in keys):
        patterns = [wildcard(key) for key in keys]
        return lambda values: any(pattern.fullmatch(v) for v in values for pattern in patterns)
    exact = frozenset(keys)
    return lambda values: not exact.isdisjoint(values)


# -- values as text --------------------------------------------------------------------------------


def _element(data_set: Dataset, tag: int) -> DataElement | None:
    """An element of a data set; `None` if it is absent or no value of its VR."""
    try:
        return data_set[tag]
    except Exception:  # pydicom's converters raise what they like about malformed values
        return None


def values_of(data_set: Dataset, tag: int) -> tuple[str, ...]:
    """The values of an element as text without padding; none if it is absent."""
    return _written(data_set, tag)[1] if tag in data_set else ()


def _written(data_set: Dataset, tag: int) -> tuple[str, tuple[str, ...]]:
    """VR and values of an element that is there, values that its VR does not allow included."""
    element = _element(data_set, tag)
    if element is None:  # pydicom cannot read it: take it as it came
        raw: Any = data_set.get_item(tag)
        text = bytes(raw.value or b"").decode("latin-1")
        return raw.VR or "UN", tuple(part.strip(" \0") for part in text.split("\\"))
    vr, value = _unambiguous(element.VR), element.value
    if vr == "SQ" or value is None:
        return vr, ()
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    parts: list[Any] = list(value) if element.VM > 1 else [value]
    # spaces in front are significant in texts (PS3.5 §6.2)
    strip = str.rstrip if vr in ("LT", "ST", "UT") else str.strip
    return vr, tuple(strip(str(part), " \0") for part in parts)


def _items(data_set: Dataset, tag: int) -> list[Dataset]:
    element = _element(data_set, tag)
    return list(element.value or ()) if element is not None and element.VR == "SQ" else []


def _unambiguous(vr: str) -> str:
    """One VR for those that depend on other elements, such as "US or SS"."""
    return vr if len(vr) == 2 else vr[-2:] if vr.startswith("OB") else vr[:2]


def _number(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


# -- patterns and names ----------------------------------------------------------------------------


def wildcard(pattern: str) -> re.Pattern[str]:
    """A pattern with `*` and `?` as a regular expression for `fullmatch` (§C.2.2.2.4).

    What lies between two stars is looked for once, at its first place, and never again (an atomic
    group): no pattern that a peer sends takes exponential time.
    """
    head, *rest = (
        "".join("." if char == "?" else re.escape(char) for char in part)
        for part in re.sub(r"\*+", "*", pattern).split("*")
    )
    if not rest:
        return re.compile(head, re.DOTALL)
    *middle, tail = rest
    body = "".join(f"(?>.*?{part})" for part in middle)
    return re.compile(f"{head}{body}.*{tail}", re.DOTALL)


def _groups(name: str, fold: bool) -> list[str]:
    """The component groups of a person name, without the padding and delimiters at their ends."""
    if fold:
        name = name.casefold()
    return [
        "^".join(component.strip() for component in group.split("^")).rstrip("^")
        for group in name.split("=")
    ]


def _person_name(key: str, fold: bool) -> Callable[[Sequence[str]], bool]:
    """How the component groups of a name are compared with a key (§C.2.2.2.1.1, PS3.5 §6.2.1).

    A key with one group finds it in any group of the record, so that an ideographic name need not
    stand behind an `=`; of a key with several, each group is compared with its counterpart.
    """
    wanted = [_component_group(group) if group else None for group in _groups(key, fold)]
    if len(wanted) == 1:
        only = wanted[0]
        return lambda groups: only is None or any(map(only, groups))
    return lambda groups: all(
        accepts is None or (position < len(groups) and accepts(groups[position]))
        for position, accepts in enumerate(wanted)
    )


def _component_group(key: str) -> Callable[[str], bool]:
    if "*" not in key and "?" not in key:
        return key.__eq__
    full = wildcard(key).fullmatch
    # DOE^* finds DOE as well, which is short for DOE^^^^
    return lambda group: bool(group and (full(group) or full(group + "^" * (4 - group.count("^")))))


# -- dates and times -------------------------------------------------------------------------------

_WIDTHS = {"DA": 8, "TM": 12, "DT": 20}
_FORMS = {
    # 2026.01.31 and 10:15 are from before DICOM 3 and still met (PS3.5 §6.2)
    "DA": re.compile(r"(\d{8}|\d{4}\.\d\d\.\d\d)()", re.ASCII),
    "TM": re.compile(r"(\d\d(?::?\d\d(?::?\d\d(?:\.\d{1,6})?)?)?)()", re.ASCII),
    "DT": re.compile(
        r"(\d{4}(?:\d\d){0,4}|\d{14}(?:\.\d{1,6})?)([+-](?:0\d|1[0-4])[0-5]\d)?", re.ASCII
    ),
}
_OPEN_LOW, _OPEN_HIGH = "", ":"
"""Sort before and after every digit."""


@attrs.frozen
class Bounds:
    """What a key of VR DA, TM or DT asks for, as digits: all that sorts from `low` to `high`.

    A single value is the range of all that it begins, so that precision needs no calendar.
    """

    vr: str
    low: str
    high: str
    is_range: bool
    _low_offset: dt.timedelta | None = None
    _high_offset: dt.timedelta | None = None

    def contain(self, value: str) -> bool:
        """Whether the first moment that a value stands for is within."""
        if (moment := _moment(value, self.vr)) is None:
            return False
        low = high = _padded(*moment, self._low_offset, self.vr)
        if self._low_offset != self._high_offset:
            high = _padded(*moment, self._high_offset, self.vr)
        return self.low <= low and high <= self.high


def bounds_of(key: str, vr: str) -> Bounds | None:
    """The range or single value that a key is; `None` if it is neither.

    A hyphen is the sign of an offset from UTC where that makes a valid DT, else the range's.
    """
    width = _WIDTHS[vr]
    if (moment := _moment(key, vr)) is not None:
        digits, offset = moment
        return Bounds(vr, digits.ljust(width, "0"), digits.ljust(width, "9"), False, offset, offset)
    for hyphen in (position for position, char in enumerate(key) if char == "-"):
        before, after = key[:hyphen].strip(), key[hyphen + 1 :].strip()
        first, last = _moment(before, vr), _moment(after, vr)
        if (first or not before) and (last or not after) and (first or last):
            low = first[0].ljust(width, "0") if first else _OPEN_LOW
            high = last[0].ljust(width, "9") if last else _OPEN_HIGH
            offsets = [moment and moment[1] for moment in (first or last, last or first)]
            return Bounds(vr, low, high, True, *offsets)
    return None


def _moment(text: str, vr: str) -> tuple[str, dt.timedelta | None] | None:
    """A value's digits, and its offset from UTC where it has one; `None` if it is malformed."""
    match = _FORMS[vr].fullmatch(text)
    if match is None:
        return None
    digits, zone = match[1].translate({ord("."): None, ord(":"): None}), match[2]
    if not zone:
        return digits, None
    offset = dt.timedelta(hours=int(zone[1:3]), minutes=int(zone[3:]))
    return digits, -offset if zone[0] == "-" else offset


def _padded(
    digits: str, offset: dt.timedelta | None, key_offset: dt.timedelta | None, vr: str
) -> str:
    """A value's first moment, in the key's time zone if both name theirs (§C.2.2.2.5.3)."""
    if offset is not None and key_offset is not None and offset != key_offset:
        whole, fraction = (digits + "00000101000000"[len(digits) :])[:14], digits[14:]
        try:
            moment = dt.datetime.strptime(whole, "%Y%m%d%H%M%S") - offset + key_offset
        except (ValueError, OverflowError):
            return digits.ljust(_WIDTHS[vr], "0")
        digits = re.sub(r"\D", "", moment.isoformat()) + fraction
    return digits.ljust(_WIDTHS[vr], "0")


def _combined(keys: Sequence[Key]) -> Iterator[_DateTimeRange]:
    """The pairs of keys that are a range of dates and the same form of range of times."""
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    by_tag = {key.tag: key for key in keys if len(key.values) == 1}
    for key in by_tag.values():
        keyword = keyword_for_tag(key.tag)
        time = by_tag.get(tag_for_keyword(keyword.removesuffix("Date") + "Time") or 0)
        if key.vr != "DA" or not keyword.endswith("Date") or time is None or time.vr != "TM":
            continue
        one, other = bounds_of(key.values[0], "DA"), bounds_of(time.values[0], "TM")
        if one is None or other is None or not (one.is_range and other.is_range):
            continue
        if (not one.low) == (not other.low) and (one.high == ":") == (other.high == ":"):
            yield _DateTimeRange(key.tag, time.tag, one.low + other.low, one.high + other.high)
