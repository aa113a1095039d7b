"""SOP Class Extended Negotiation as values: what its bytes mean for queries and for storage.

A requestor proposes options for a SOP class, an acceptor answers which of them it will go by, and
what neither mentions has its default (PS3.7 §D.3.3.5). The bytes are defined by service class: for
Query/Retrieve by PS3.4 Tables C.5-1 to C.5-4, for Modality Worklist by §K.5.1, which the Unified
Procedure Step goes by too (§CC.3.2), for storage by Table B.3-1. Either side may send fewer bytes,
or, some day, more.
"""

from __future__ import annotations

import enum

import attrs

from .pdus import SOPClassExtended
from .uids import MODALITY_WORKLIST_FIND, SOP_CLASSES, Service, uid_of

STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"
"""The Storage Service Class, as Common Extended Negotiation names it (PS3.4 §B.3.1.4)."""


@attrs.frozen(kw_only=True)
class QueryOptions:
    """Options of a C-FIND, C-MOVE or C-GET SOP class (PS3.4 §C.5).

    Modality Worklist and Unified Procedure Step have four of them: `fuzzy_names` and `timezone` are
    negotiated, `relational` and `date_time` are so in any case (§K.5.1, §CC.3.2).

    Attributes:
        relational: Keys of higher levels may be left out (PS3.4 §C.4.1.2.2.1).
        date_time: A date and a time range are one range of moments (§C.2.2.2.5).
        fuzzy_names: Person names match by what they sound like or similar (§C.2.2.2.1.1).
        timezone: Times are adjusted to the query's Timezone Offset From UTC.
        enhanced_conversion: Query/Retrieve View is known, with multi-frame conversion.
        empty_values: Keys may ask for empty values (§C.2.2.2.7).
        multiple_values: Keys may have several values to choose from (§C.2.2.2.8).
    """

    relational: bool = False
    date_time: bool = False
    fuzzy_names: bool = False
    timezone: bool = False
    enhanced_conversion: bool = False
    empty_values: bool = False
    multiple_values: bool = False

    def __and__(self, other: QueryOptions) -> QueryOptions:
        """What both have."""
        names = attrs.fields_dict(QueryOptions)
        return QueryOptions(**{n: getattr(self, n) and getattr(other, n) for n in names})


@attrs.frozen
class _Layout:
    """What the bytes say, one option each.

    Attributes:
        options: Of each byte, in order.
        always: How many of them, from the first, are 1 whatever is asked and answered.
        least: As many bytes are sent at least.
        matched: An answer has as many bytes as the proposal, up to this many.
    """

    options: tuple[str, ...]
    always: int = 0
    least: int = 1
    matched: int = 1


_RETRIEVE = _Layout(("relational", "enhanced_conversion"))
_WORKLIST = _Layout(
    ("relational", "date_time", "fuzzy_names", "timezone"), always=2, least=3, matched=4
)
_LAYOUTS: dict[Service | str, _Layout] = {
    Service.FIND: _Layout(tuple(attrs.fields_dict(QueryOptions))),
    Service.MOVE: _RETRIEVE,
    Service.GET: _RETRIEVE,
    Service.NORMALIZED: _WORKLIST,  # Unified Procedure Step's C-FIND
    uid_of("UnifiedProcedureStepQuery"): _WORKLIST,
    MODALITY_WORKLIST_FIND: _WORKLIST,
}
"""By SOP class, else by what the SOP class does."""
QUERYING = frozenset(each for each in _LAYOUTS if isinstance(each, Service))
"""Services whose classes have query options."""


def _layout(sop_class_uid: str) -> _Layout:
    entry = SOP_CLASSES.get(sop_class_uid)
    service = entry.service if entry else Service.FIND
    return _LAYOUTS.get(sop_class_uid) or _LAYOUTS.get(service) or _Layout(())


class StorageLevel(enum.IntEnum):
    """How much of an instance an SCP keeps (PS3.4 §B.4.1)."""

    LOCAL = 0
    BASE = 1
    FULL = 2
    NOT_APPLICABLE = 3
    """The requestor is an SCU only."""


class ElementCoercion(enum.IntEnum):
    """Whether an SCP changes data elements (PS3.4 Table B.3-1)."""

    NONE = 0
    MAY_COERCE = 1
    NOT_APPLICABLE = 2
    """The requestor is an SCU only."""


@attrs.frozen(kw_only=True)
class StorageOptions:
    """Options of a storage SOP class (PS3.4 §B.3.1). Numbers outside the standard are kept."""

    level: int = StorageLevel.NOT_APPLICABLE
    signature_level: int = 0
    """0 unspecified, or 1 to 3 (PS3.4 §B.4.1)."""
    coercion: int = ElementCoercion.NOT_APPLICABLE


Options = QueryOptions | StorageOptions | bytes
"""Options of a SOP class; bytes for what is not known here."""


def encode_options(sop_class_uid: str, options: Options, *, proposed: int = 0) -> SOPClassExtended:
    """The sub-item that says it; of query options as many bytes as are needed.

    An answer gives the number of bytes that were `proposed`.
    """
    match options:
        case bytes():
            information = options
        case StorageOptions():
            values = (options.level, 0, options.signature_level, 0, options.coercion, 0)
            information = bytes(value & 0xFF for value in values)
        case QueryOptions():
            layout = _layout(sop_class_uid)
            given = bytes(getattr(options, name) for name in layout.options)
            information = (b"\1" * layout.always + given[layout.always :]).rstrip(b"\0")
            length = max(layout.least, min(proposed, layout.matched))
            information = information.ljust(length, b"\0")
    return SOPClassExtended(sop_class_uid, information)


def decode_query_options(item: SOPClassExtended) -> QueryOptions:
    """What a sub-item says of queries; bytes that are missing say no, others are not looked at.

    Those that shall always be 1 are taken for it.
    """
    layout = _layout(item.sop_class_uid)
    said = b"\1" * layout.always + item.information[layout.always :]
    return QueryOptions(**{n: b == 1 for n, b in zip(layout.options, said, strict=False)})


def decode_storage_options(item: SOPClassExtended) -> StorageOptions:
    """What a sub-item says of storage; missing bytes have their defaults."""
    values = item.information
    return StorageOptions(
        level=values[0] if values else StorageLevel.NOT_APPLICABLE,
        signature_level=values[2] if len(values) > 2 else 0,
        coercion=values[4] if len(values) > 4 else ElementCoercion.NOT_APPLICABLE,
    )


def answer_options(item: SOPClassExtended, offered: Options | None) -> SOPClassExtended | None:
    """An acceptor's answer to a proposal: `None`, for no sub-item, if it offers nothing.

    Of query options those that both have, of storage options the acceptor's own.
    """
    match offered:
        case None:
            return None
        case QueryOptions():
            return encode_options(
                item.sop_class_uid,
                decode_query_options(item) & offered,
                proposed=len(item.information),
            )
        case _:
            return encode_options(item.sop_class_uid, offered)
