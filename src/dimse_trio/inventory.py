"""What a peer has of what is to be retrieved: the unique keys, and a C-FIND level by level.

C-GET and C-MOVE go by unique keys alone, each level's beside those above (PS3.4 §C.4.2.2.1,
§C.4.3.2.1). Asking first which instances there are says which presentation contexts a C-GET needs,
and afterwards whether all of them came.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import attrs

from .association import Association
from .contexts import default_contexts, retrieve_contexts
from .errors import QueryError
from .protocol.negotiation import DEFAULT_TRANSFER_SYNTAXES, PresentationContext
from .queries import LEVELS, Model, Query, unchecked_query

if TYPE_CHECKING:
    from pydicom import Dataset

UNIQUE_KEYS: dict[str, str] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
"""The unique key of each level (PS3.4 §C.6.1.1, §C.6.2.1)."""

UniqueKeys = Mapping[str, Sequence[str]]
"""Unique keys by keyword, each with its values."""


def retrievable(what: Query) -> Query | None:
    """The query with nothing but unique keys, if these are what it goes by."""
    keys = unique_keys_of(what.identifier)
    return None if keys is None else _query(what.level, keys, what.model)


def unique_keys_of(identifier: Dataset) -> dict[str, list[str]] | None:
    """The unique keys of an identifier that a retrieve can go by.

    `None` if it has to be found first what it means: the level's own key has no value or a
    wildcard, or something else is to match.
    """
    level = str(identifier.get("QueryRetrieveLevel", ""))
    allowed = [UNIQUE_KEYS[name] for name in LEVELS[: LEVELS.index(level) + 1]]
    keys: dict[str, list[str]] = {}
    for element in identifier:
        if element.keyword in ("QueryRetrieveLevel", "SpecificCharacterSet") or not element.value:
            continue
        if element.keyword not in allowed:
            return None
        keys[element.keyword] = values = _values(element.value)
        if set("".join(values)) & set("*?"):
            return None
    return keys if allowed[-1] in keys else None


def _values(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(part) for part in value]


@attrs.frozen
class Stock:
    """An instance that the peer says it has.

    Attributes:
        sop_class_uid: Empty where the peer did not return it.
        transfer_syntax_uids: Those that it is available in; none where the peer did not say.
        series: The unique keys of its series and above, by keyword.
    """

    sop_class_uid: str
    transfer_syntax_uids: tuple[str, ...]
    series: Mapping[str, str]


@attrs.frozen
class Inventory:
    """What the peer says it has.

    Attributes:
        model: The information model that was asked for; `None` where either root would do.
        instances: By SOP Instance UID.
    """

    model: Model | None
    instances: dict[str, Stock] = attrs.field(factory=dict[str, Stock])

    def add(self, match: Dataset, keys: Mapping[str, str]) -> None:
        """Take a match at the level IMAGE, found with these keys of the levels above."""
        uid = match.get("SOPInstanceUID")
        if uid:
            syntaxes = tuple(_values(match.get("AvailableTransferSyntaxUID") or ()))
            stock = Stock(str(match.get("SOPClassUID") or ""), syntaxes, keys)
            self.instances[str(uid)] = stock

    def without(self, received: Container[str]) -> list[str]:
        """The SOP Instance UIDs that are not among those received."""
        return [uid for uid in self.instances if uid not in received]

    def queries_for(self, uids: Iterable[str]) -> list[Query]:
        """What retrieves just these instances: a query for each series."""
        wanted: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for uid in uids:
            wanted.setdefault(tuple(self.instances[uid].series.items()), []).append(uid)
        return [
            _query("IMAGE", {k: [v] for k, v in series} | {UNIQUE_KEYS["IMAGE"]: uids}, self.model)
            for series, uids in wanted.items()
        ]

    def queries_by_series(self, level: str) -> list[Query]:
        """What retrieves all there is, a query for each series, if it was found at this level."""
        if level == "IMAGE":  # of a series perhaps not all is wanted
            return self.queries_for(self.instances)
        every = dict.fromkeys(tuple(each.series.items()) for each in self.instances.values())
        return [_query("SERIES", {k: [v] for k, v in keys}, self.model) for keys in every]

    def get_contexts(self) -> list[PresentationContext]:
        """What a C-GET needs: just the SOP classes there are if they are known, else common ones.

        Where the peer says which transfer syntaxes it has, those and the two that every peer has
        are proposed.
        """
        stock = self.instances.values()
        classes = {each.sop_class_uid for each in stock}
        if not classes or "" in classes:
            return default_contexts()
        options: dict[str, Iterable[str]] = {}
        if all(each.transfer_syntax_uids for each in stock):
            available = {syntax for each in stock for syntax in each.transfer_syntax_uids}
            options["transfer_syntaxes"] = available | set(DEFAULT_TRANSFER_SYNTAXES)
        models = [root.value[2] for root in _roots(self.model)]
        return retrieve_contexts(sorted(classes), models=models, **options)


def _query(level: str, keys: UniqueKeys, model: Model | None) -> Query:
    """A query whose identifier has nothing but unique keys, as C-GET and C-MOVE want it."""
    if level != "PATIENT" and model is not Model.PATIENT_ROOT:
        keys = {name: values for name, values in keys.items() if name != "PatientID"}
    return unchecked_query(level, keys, model=model)


async def take_inventory(association: Association, *queries: Query) -> Inventory:
    """Ask a peer which instances there are of what unique keys name, level by level.

    At each level the unique keys of all levels above are given, as the hierarchical search method
    wants it, which every peer has (PS3.4 §C.4.1.2.1). Cancelled, it leaves the association as
    `Association.find` does.

    Args:
        association: One with contexts for C-FIND.
        queries: Of one information model, each with the unique key of its level.

    Raises:
        QueryError: A query has no unique key, or others beside unique ones.
        DimseError: The peer cannot be asked, or fails.
    """
    inventory = Inventory(queries[0].model if queries else None)
    model = inventory.model
    if model is None:
        accepted = any(association.negotiated.contexts_for(Model.STUDY_ROOT.value[0]))
        model = Model.STUDY_ROOT if accepted else Model.PATIENT_ROOT
    for what in queries:
        unique = unique_keys_of(what.identifier)
        if unique is None:
            raise QueryError(
                f"instances are retrieved by unique keys: {UNIQUE_KEYS[what.level]} and those of"
                " the levels above, without wildcards"
            )
        known: list[dict[str, str]] = [{}]
        for name, values in unique.items():
            known = [each | {name: value} for each in known for value in values]
        below = LEVELS[LEVELS.index(what.level) + 1 :] or LEVELS[-1:]
        for keys in known:
            await _walk(association, model, keys, below, inventory)
    return inventory


async def _walk(
    association: Association,
    model: Model,
    keys: dict[str, str],
    levels: Sequence[str],
    inventory: Inventory,
) -> None:
    """Go down the levels below what the keys name, and add the instances there."""
    level, below = levels[0], levels[1:]
    if model is Model.STUDY_ROOT:
        keys = {name: value for name, value in keys.items() if name != "PatientID"}
    unique = UNIQUE_KEYS[level]
    wanted: dict[str, Any] = {unique: None, **keys}
    if not below:
        wanted |= {"SOPClassUID": None, "AvailableTransferSyntaxUID": None}
    for match in await association.find(unchecked_query(level, wanted, model=model)):
        if not below:
            above = {name: value for name, value in keys.items() if name != unique}
            inventory.add(match, above)
        elif uid := match.get(unique):
            await _walk(association, model, keys | {unique: str(uid)}, below, inventory)


async def by_unique_keys(association: Association, what: Query) -> list[Query]:
    """A query by unique keys for each entity that matches a query by others.

    Raises:
        QueryError: A match has no unique key.
        DimseError: The peer cannot be asked, or fails.
    """
    wanted = [UNIQUE_KEYS[name] for name in LEVELS[: LEVELS.index(what.level) + 1]]
    identifier = copy(what.identifier)
    for keyword in wanted:
        if keyword not in identifier:
            setattr(identifier, keyword, None)
    found: list[Query] = []
    for match in await association.find(attrs.evolve(what, identifier=identifier)):
        keys = {k: [str(match[k].value)] for k in wanted if k in match and match[k].value}
        if wanted[-1] not in keys:
            raise QueryError(f"the peer returned a match without {wanted[-1]}")
        found.append(_query(what.level, keys, what.model))
    return found


def find_contexts(model: Model | None) -> list[PresentationContext]:
    """What C-FIND with a model needs; both roots where either will do."""
    return [PresentationContext(root.value[0]) for root in _roots(model)]


def move_contexts(model: Model | None) -> list[PresentationContext]:
    """What C-MOVE with a model needs."""
    return [PresentationContext(root.value[1]) for root in _roots(model)]


def _roots(model: Model | None) -> list[Model]:
    return [Model.STUDY_ROOT, Model.PATIENT_ROOT] if model is None else [model]
