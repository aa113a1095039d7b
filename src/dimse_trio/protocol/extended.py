"""SOP Class Extended Negotiation as values: what its bytes mean for queries and for storage.

A requestor proposes options for a SOP class, an acceptor answers which of them it will go by, and
what neither mentions has its default (PS3.7 §D.3.3.5). The bytes are defined by service class: for
Query/Retrieve by PS3.4 Tables C.5-1 to C.5-4, for Modality Worklist by §K.5.1, for storage by
Table B.3-1. Either side may send fewer bytes, or, some day, more.
"""

from __future__ import annotations

import enum

import attrs

from .pdus import SOPClassExtended
from .uids import SOP_CLASSES, Service

STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"
"""The Storage Service Class, as Common Extended Negotiation names it (PS3.4 §B.3.1.4)."""


@attrs.frozen(kw_only=True)
class QueryOptions:
    """Options of a C-FIND, C-MOVE or C-GET SOP class (PS3.4 §C.5).

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


_OPTION_BYTES: dict[Service, tuple[str, ...]] = {
    Service.FIND: tuple(attrs.fields_dict(QueryOptions)),
    Service.MOVE: ("relational", "enhanced_conversion"),
    Service.GET: ("relational", "enhanced_conversion"),
    Service.NORMALIZED: tuple(attrs.fields_dict(QueryOptions)),  # Unified Procedure Step's C-FIND
}
"""What each byte says, by what the SOP class does."""
QUERYING = frozenset(_OPTION_BYTES)
"""Services whose classes have query options."""


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


def encode_options(sop_class_uid: str, options: Options) -> SOPClassExtended:
    """The sub-item that says it; of query options as many bytes as are needed."""
    match options:
        case bytes():
            information = options
        case StorageOptions():
            values = (options.level, 0, options.signature_level, 0, options.coercion, 0)
            information = bytes(value & 0xFF for value in values)
        case QueryOptions():
            entry = SOP_CLASSES.get(sop_class_uid)
            names = _OPTION_BYTES.get(entry.service if entry else Service.FIND, ())
            information = bytes(getattr(options, name) for name in names)
            information = information.rstrip(b"\0") or b"\0"
    return SOPClassExtended(sop_class_uid, information)


def decode_query_options(item: SOPClassExtended) -> QueryOptions:
    """What a sub-item says of queries; bytes that are missing say no, others are not looked at."""
    entry = SOP_CLASSES.get(item.sop_class_uid)
    names = _OPTION_BYTES.get(entry.service if entry else Service.FIND, ())
    return QueryOptions(**{n: b == 1 for n, b in zip(names, item.information, strict=False)})


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
            return encode_options(item.sop_class_uid, decode_query_options(item) & offered)
        case _:
            return encode_options(item.sop_class_uid, offered)
