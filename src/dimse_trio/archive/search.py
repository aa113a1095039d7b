"""Queries against the index: C-FIND responses, and the instances of a C-GET or C-MOVE.

SQL narrows where it is exactly right (UIDs, other single values, ranges of dates); the last word
has `matching`. Rows are read a batch at a time in the order of their row numbers, each batch from
where the one before ended, so that no cursor and no transaction is open while a peer takes its
responses, however many there are (PS3.4 §C.4.1.2.1, §C.4.2.2, §C.4.3.2).
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import sqlalchemy as sa
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from dimse_trio.matching import (
    WILDCARD_VRS,
    CompiledQuery,
    Key,
    MatchingOptions,
    bounds_of,
    compile_query,
    values_of,
)
from dimse_trio.part10 import Instance

from .attributes import COMPUTED, LEVELS, STORED, WANTED, Attribute, above
from .folder import Folder
from .index import INSTANCES, PATIENTS, SERIES, STUDIES, TABLES

if TYPE_CHECKING:
    from pydicom import Dataset

FIRST_BATCH, LAST_BATCH = 100, 2000
"""Rows read at a time: few for a quick first response, then more and more."""
_TEXTS = frozenset(tag for tag, a in WANTED.items() if a.vr in ("LT", "ST", "UT"))
"""Attributes in whose values a backslash is a character like any other (PS3.5 §6.2)."""
_EXACT_VRS = WILDCARD_VRS - {"PN"}
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l"}
_SPECIFIC_CHARACTER_SET, _LEVEL, _RETRIEVE_AE_TITLE = 0x00080005, 0x00080052, 0x00080054
_ASCII, _UTF_8 = default_encoding, convert_encodings("ISO_IR 192")


def _count(table: sa.Table, *joined: sa.Table, of: sa.Table) -> sa.ScalarSelect[int]:
    """How many rows of a table belong to the row of another, over the tables between them."""
    statement = sa.select(sa.func.count()).select_from(table)
    child = table
    for parent in joined:
        statement = statement.join(parent, child.c.parent == parent.c.id)
        child = parent
    return statement.where(child.c.parent == of.c.id).correlate(of).scalar_subquery()


def _distinct(column: sa.ColumnElement[str], statement: sa.Select[Any]) -> sa.ScalarSelect[str]:
    """The different values of a column, with backslashes between them."""
    values = sa.func.coalesce(sa.func.group_concat(column.distinct()), "")
    statement = statement.where(column != "").with_only_columns(sa.func.replace(values, ",", "\\"))
    return statement.correlate(STUDIES).scalar_subquery()


_SERIES_OF_STUDY = sa.select(SERIES).where(SERIES.c.parent == STUDIES.c.id)
_INSTANCES_OF_STUDY = (
    sa.select(INSTANCES)
    .join(SERIES, INSTANCES.c.parent == SERIES.c.id)
    .where(SERIES.c.parent == STUDIES.c.id)
)
_COLUMNS: Mapping[str, sa.ColumnElement[Any]] = {
    "NumberOfPatientRelatedStudies": _count(STUDIES, of=PATIENTS),
    "NumberOfPatientRelatedSeries": _count(SERIES, STUDIES, of=PATIENTS),
    "NumberOfPatientRelatedInstances": _count(INSTANCES, SERIES, STUDIES, of=PATIENTS),
    "NumberOfStudyRelatedSeries": _count(SERIES, of=STUDIES),
    "NumberOfStudyRelatedInstances": _count(INSTANCES, SERIES, of=STUDIES),
    "NumberOfSeriesRelatedInstances": _count(INSTANCES, of=SERIES),
    "ModalitiesInStudy": _distinct(SERIES.c.Modality, _SERIES_OF_STUDY),
    "SOPClassesInStudy": _distinct(INSTANCES.c.SOPClassUID, _INSTANCES_OF_STUDY),
    "AvailableTransferSyntaxUID": INSTANCES.c.transfer_syntax_uid,
    "InstanceAvailability": sa.literal("ONLINE"),
}


def _joined(level: str) -> sa.FromClause:
    """The table of a level with those above it."""
    tables = [TABLES[name] for name in reversed(above(level))]
    clause: sa.FromClause = tables[0]
    for child, parent in itertools.pairwise(tables):
        clause = clause.join(parent, child.c.parent == parent.c.id)
    return clause


def _one_of(column: sa.ColumnElement[Any], values: Sequence[str]) -> sa.ColumnElement[bool]:
    """`column IN values`, as one parameter whatever their number."""
    listed = sa.func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(sa.select(listed.c.value))


def _narrowed(attribute: Attribute, key: Key) -> sa.ColumnElement[bool] | None:
    """What a key asks for in SQL, if SQL can say exactly that, or a little less."""
    if key.accepts is None or attribute.keyword in _COLUMNS or not attribute.is_single:
        return None
    column = TABLES[attribute.level].c[attribute.keyword]
    if key.vr == "UI":
        return _one_of(column, key.values)
    if key.vr in _EXACT_VRS and not any(set("*?") & set(value) for value in key.values):
        return _one_of(column, key.values)
    if key.vr == "DA" and len(key.values) == 1 and (bounds := bounds_of(key.values[0], "DA")):
        # other forms of a date, which do not sort like this one, are left to `matching`
        return column.between(bounds.low, bounds.high) | (sa.func.length(column) != 8)
    return None


class _Batches:
    """The rows of a statement, read in batches in the order of their numbers, the first column.

    Attributes:
        done: Whether there are no more.
    """

    def __init__(self, row_id: sa.ColumnElement[int], statement: Any) -> None:
        self.done = False
        self._after = 0
        self._size = FIRST_BATCH
        after = sa.bindparam("after", type_=sa.Integer)
        size = sa.bindparam("size", type_=sa.Integer)
        self._statement = statement.where(row_id > after).order_by(row_id).limit(size)

    def rows(self, connection: sa.Connection) -> Sequence[Any]:
        """The next batch."""
        values = {"after": self._after, "size": self._size}
        rows: Sequence[Any] = connection.execute(self._statement, values).all()
        self.done = len(rows) < self._size
        if not self.done:
            self._after = int(rows[-1][0])
            self._size = min(2 * self._size, LAST_BATCH)
        return rows


@attrs.frozen
class _Slot:
    """An element of the responses: at a position of the rows, or the same in all of them."""

    tag: BaseTag
    vr: str
    position: int | None
    value: bytes = b""


class FindQuery(_Batches):
    """A C-FIND identifier against the index.

    Keys of the level and those above it are matched and returned, whether or not the model has
    them at that level; what the index does not keep is returned without a value.

    Args:
        level: The query/retrieve level.
        identifier: The request's identifier.
        options: For matching.
        retrieve_ae_title: Where the instances can be retrieved from.
        implicit_vr: How the responses will be encoded; knowing it makes that quick.
    """

    def __init__(
        self,
        level: str,
        identifier: Dataset,
        *,
        options: MatchingOptions,
        retrieve_ae_title: str,
        implicit_vr: bool,
    ) -> None:
        query = compile_query(identifier, options=options)
        known = {a.tag: a for name in above(level) for a in (*STORED[name], *COMPUTED[name])}
        kept = [(known[key.tag], key) for key in query.keys if key.tag in known]
        self._query: CompiledQuery = attrs.evolve(query, keys=tuple(key for _, key in kept))
        self._positions = {key.tag: position for position, (_, key) in enumerate(kept, 1)}
        row_id = TABLES[level].c.id
        narrowed = [] if options.missing_matches else kept
        conditions = [_narrowed(attribute, key) for attribute, key in narrowed]
        super().__init__(
            row_id,
            sa.select(row_id, *(_column(attribute) for attribute, _ in kept))
            .select_from(_joined(level))
            .where(*(condition for condition in conditions if condition is not None)),
        )
        self._implicit_vr = implicit_vr
        self._slots = [
            _Slot(BaseTag(_LEVEL), "CS", None, _bytes("CS", level)),
            _Slot(BaseTag(_RETRIEVE_AE_TITLE), "AE", None, _bytes("AE", retrieve_ae_title)),
        ]
        for key in query.keys:
            if key.tag != _RETRIEVE_AE_TITLE:
                vr = known[key.tag].vr if key.tag in known else key.vr
                creator = "".join(key.values) if key.is_private_creator else ""
                position = self._positions.get(key.tag)
                self._slots.append(_Slot(BaseTag(key.tag), vr, position, _bytes("LO", creator)))

    def batch(self, connection: sa.Connection) -> list[Dataset]:
        """The responses for the next rows."""
        rows = self.rows(connection)
        return [self._response(row) for row in rows if self._query.accepts(self._values_of(row))]

    def _values_of(self, row: Sequence[Any]) -> Callable[[int], Sequence[str]]:
        def values_of(tag: int) -> Sequence[str]:
            text = str(row[self._positions[tag]])
            return (text,) if tag in _TEXTS else text.split("\\")

        return values_of

    def _response(self, row: Sequence[Any]) -> Dataset:
        """The identifier of a response, its elements encoded already (PS3.4 §C.4.1.1.3.2)."""
        from pydicom import Dataset

        is_ascii, implicit = True, self._implicit_vr
        elements: dict[BaseTag, Any] = {}
        for slot in self._slots:
            value = slot.value
            if slot.position is not None:
                text = str(row[slot.position])
                is_ascii = is_ascii and text.isascii()
                value = _bytes(slot.vr, text)
            elements[slot.tag] = _raw(slot.tag, slot.vr, value, implicit)
        if not is_ascii:
            tag = BaseTag(_SPECIFIC_CHARACTER_SET)
            elements[tag] = _raw(tag, "CS", b"ISO_IR 192", implicit)
        response = Dataset(elements)
        response.set_original_encoding(implicit, True, _ASCII if is_ascii else _UTF_8)
        return response


def _column(attribute: Attribute) -> sa.ColumnElement[Any]:
    computed = _COLUMNS.get(attribute.keyword)
    if computed is not None:
        return computed.label(attribute.keyword)
    return TABLES[attribute.level].c[attribute.keyword]


def _raw(tag: BaseTag, vr: str, value: bytes, implicit_vr: bool) -> RawDataElement:
    return RawDataElement(tag, vr, len(value), value, 0, implicit_vr, True)


def _bytes(vr: str, text: str) -> bytes:
    """A value as it is written in a little endian data set (PS3.5 §6.2)."""
    if (number := _BINARY.get(vr)) is not None:
        try:
            numbers = [int(part) for part in text.split("\\")] if text else []
            return struct.pack(f"<{len(numbers)}{number}", *numbers)
        except (ValueError, struct.error):
            return b""
    raw = text.encode("utf-8", "replace")
    return raw + (b"\0" if vr == "UI" else b" ") if len(raw) % 2 else raw


class RetrieveQuery(_Batches):
    """The instances that the identifier of a C-GET or C-MOVE names (PS3.4 §C.4.2.2.1).

    Each unique key may hold one value or a list of UIDs; those of other levels than the one asked
    for narrow it further.

    Attributes:
        has_keys: Whether there is a unique key of the level, or of one above it. Without any, the
            whole archive would be meant.
    """

    def __init__(self, level: str, identifier: Dataset, folder: Folder) -> None:
        statement = sa.select(
            INSTANCES.c.id,
            INSTANCES.c.path,
            INSTANCES.c.SOPClassUID,
            INSTANCES.c.SOPInstanceUID,
            INSTANCES.c.transfer_syntax_uid,
            INSTANCES.c.data_offset,
            INSTANCES.c.size,
        ).select_from(_joined("IMAGE"))
        self.has_keys = False
        for name in LEVELS:
            unique = STORED[name][0]
            values = [value for value in values_of(identifier, unique.tag) if value]
            if values:
                statement = statement.where(_one_of(_column(unique), values))
                self.has_keys = self.has_keys or name in above(level)
        super().__init__(INSTANCES.c.id, statement)
        self._folder = folder

    def batch(self, connection: sa.Connection) -> list[Instance]:
        """The next instances."""
        return [
            Instance(
                self._folder.absolute(path), sop_class, sop_instance, syntax, offset, size - offset
            )
            for _, path, sop_class, sop_instance, syntax, offset, size in self.rows(connection)
        ]


@attrs.frozen
class Statistics:
    """How much an archive holds."""

    patients: int
    studies: int
    series: int
    instances: int
    bytes: int


def statistics(connection: sa.Connection) -> Statistics:
    """Count what the index has."""
    counts = [sa.select(sa.func.count()).select_from(t).scalar_subquery() for t in TABLES.values()]
    size = sa.select(sa.func.coalesce(sa.func.sum(INSTANCES.c.size), 0)).scalar_subquery()
    row = connection.execute(sa.select(*counts, size)).one()
    return Statistics(*(int(value) for value in row))
