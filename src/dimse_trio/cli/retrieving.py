"""What C-GET and C-MOVE share: their identifier, and what a C-FIND says there is to retrieve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

import dimse_trio as dimse

from .find import find_contexts
from .keys import LEVELS, UNIQUE_KEYS, check_retrieve_keys, make_query, parse_keys

if TYPE_CHECKING:
    from pydicom import Dataset


@attrs.frozen
class Selection:
    """What is to be retrieved: the identifier, and its unique keys with their values."""

    query: dimse.Query
    level: str
    unique: Mapping[str, Sequence[str]]


def select(level: str, keys: Sequence[str], model: str | None) -> Selection:
    """The selection of a command line.

    Raises:
        QueryError: The keys do not say what to retrieve.
    """
    level = level.lower()
    parsed = parse_keys(keys)
    unique = check_retrieve_keys(level, parsed)
    query, _ = make_query(level, parsed, model=model, return_keys=False)
    return Selection(query, level, unique)


@attrs.define
class Inventory:
    """What the peer says it has of a selection."""

    instances: dict[str, str] = attrs.field(factory=dict[str, str])
    """SOP Class UID by SOP Instance UID; empty where the peer did not return it."""
    transfer_syntaxes: set[str] = attrs.field(factory=set[str])
    all_syntaxes_known: bool = True

    def add(self, match: Dataset) -> None:
        """Take a match at the level IMAGE."""
        uid = match.get("SOPInstanceUID")
        if not uid:
            return
        self.instances[str(uid)] = str(match.get("SOPClassUID") or "")
        available = match.get("AvailableTransferSyntaxUID") or ()
        available = [available] if isinstance(available, str) else available
        self.transfer_syntaxes.update(map(str, available))
        self.all_syntaxes_known &= bool(available)

    @property
    def sop_classes(self) -> set[str] | None:
        """The SOP classes of all the instances; `None` if they are not all known."""
        classes = set(self.instances.values())
        return classes if classes and "" not in classes else None


async def take_inventory(association: dimse.Association, selection: Selection) -> Inventory:
    """Find the instances of a selection, level by level.

    At each level the unique keys of all levels above are given, as the hierarchical search method
    wants it, which every peer has (PS3.4 §C.4.1.2.1).

    Raises:
        DimseError: The peer cannot be asked, or fails.
    """
    inventory = Inventory()
    model = selection.query.model
    if model is None:
        study_root = dimse.Model.STUDY_ROOT
        accepted = any(association.negotiated.contexts_for(study_root.value[0]))
        model = study_root if accepted else dimse.Model.PATIENT_ROOT
    known: list[dict[str, str]] = [{}]
    for name, values in selection.unique.items():
        known = [keys | {name: value} for keys in known for value in values]
    levels = LEVELS[LEVELS.index(selection.level) + 1 :] or LEVELS[-1:]
    for keys in known:
        await _walk(association, model, keys, levels, inventory)
    return inventory


async def _walk(
    association: dimse.Association,
    model: dimse.Model,
    keys: dict[str, str],
    levels: Sequence[str],
    inventory: Inventory,
) -> None:
    """Go down the levels below what the keys name, and add the instances there."""
    level, *below = levels
    if model is dimse.Model.STUDY_ROOT:
        keys = {name: value for name, value in keys.items() if name != "PatientID"}
    unique = UNIQUE_KEYS[level.upper()]
    wanted: dict[str, Any] = {unique: None, **keys}
    if not below:
        wanted |= {"SOPClassUID": None, "AvailableTransferSyntaxUID": None}
    query = dimse.query(level, model=model, return_keys=False, **wanted)
    for match in await association.find(query):
        if not below:
            inventory.add(match)
        elif uid := match.get(unique):
            await _walk(association, model, keys | {unique: str(uid)}, below, inventory)


def inventory_contexts(selection: Selection) -> list[dimse.PresentationContext]:
    """What `take_inventory` needs."""
    return find_contexts(selection.query)


def get_contexts(selection: Selection, inventory: Inventory) -> list[dimse.PresentationContext]:
    """What a C-GET of a selection needs: just its SOP classes if they are known, else common ones.

    Where the peer says which transfer syntaxes it has, those and the two that every peer has are
    proposed.
    """
    if inventory.sop_classes is None:
        return dimse.default_contexts()
    roots = [dimse.Model.STUDY_ROOT, dimse.Model.PATIENT_ROOT]
    models = roots if selection.query.model is None else [selection.query.model]
    options: dict[str, set[str]] = {}
    if inventory.all_syntaxes_known:
        native = map(dimse.uid_of, ("ExplicitVRLittleEndian", "ImplicitVRLittleEndian"))
        options["transfer_syntaxes"] = inventory.transfer_syntaxes | set(native)
    return dimse.retrieve_contexts(
        sorted(inventory.sop_classes), models=[model.value[2] for model in models], **options
    )
