"""Identifiers for C-FIND, C-MOVE and C-GET from keyword arguments (PS3.4 §C.4, §C.6; §K.6).

`query` checks what pydicom's dictionary can check before a peer has to: keywords, levels, dates.
"""

from __future__ import annotations

import datetime as dt
import difflib
import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import attrs

from .errors import QueryError
from .protocol.uids import (
    MODALITY_WORKLIST_FIND,
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
)

if TYPE_CHECKING:
    from pydicom import Dataset


class Model(enum.Enum):
    """An information model, with its SOP classes for C-FIND, C-MOVE and C-GET."""

    PATIENT_ROOT = (PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET)
    STUDY_ROOT = (STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET)
    WORKLIST = (MODALITY_WORKLIST_FIND, "", "")


LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")

_PATIENT_KEYS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY_KEYS = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "StudyInstanceUID",
    "StudyDescription",
    "ReferringPhysicianName",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
_RETURN_KEYS: dict[str, tuple[str, ...]] = {
    "PATIENT": _PATIENT_KEYS,
    "STUDY": _PATIENT_KEYS + _STUDY_KEYS,
    "SERIES": (
        "Modality",
        "SeriesNumber",
        "SeriesInstanceUID",
        "SeriesDescription",
        "NumberOfSeriesRelatedInstances",
        "StudyInstanceUID",
    ),
    "IMAGE": (
        "InstanceNumber",
        "SOPInstanceUID",
        "SOPClassUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
    ),
}
"""Keys asked for by default at each level: its unique and required keys, and what every PACS
has (PS3.4 §C.6.1.1, §C.6.2.1)."""

_WORKLIST_STEP_KEYS = (
    "Modality",
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "ScheduledPerformingPhysicianName",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
)
_WORKLIST_KEYS = (
    *_PATIENT_KEYS,
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyInstanceUID",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
)


@attrs.frozen
class Query:
    """An identifier and the information model it is for. Made by `query`."""

    model: Model | None
    """`None`: Study Root, or Patient Root with a peer that accepts only that."""
    identifier: Dataset = attrs.field(repr=False)

    @property
    def level(self) -> str:
        """The query/retrieve level; empty for a worklist."""
        return str(self.identifier.get("QueryRetrieveLevel", ""))


def query(
    level: str,
    *,
    model: Model | str | None = None,
    return_keys: bool = True,
    universal_wildcard: bool = True,
    **keys: Any,
) -> Query:
    """An identifier for a level of a query/retrieve model.

    Args:
        level: `"PATIENT"`, `"STUDY"`, `"SERIES"`, `"IMAGE"` (or `"INSTANCE"`); or `"WORKLIST"` for
            the modality worklist, whose scheduled procedure step keys are given by keyword too.
        model: `Model.PATIENT_ROOT`, `Model.STUDY_ROOT` or their names. By default Patient Root for
            the level PATIENT, else Study Root with Patient Root as the fallback.
        return_keys: Whether the level's usual attributes are asked for besides `keys`.
        universal_wildcard: Whether a key of `"*"` is sent as it is, which some PACS refuse;
            otherwise, and for dates, times and UIDs always, as an empty value, which asks for the
            same (PS3.4 §C.2.2.2.3).
        keys: Matching keys by keyword. A string is taken as it is, with wildcards and ranges; a
            `datetime.date`, `time` or `datetime` is formatted; a pair of them, either of which may
            be `None`, is a range; a list is a list of UIDs or values; `None` or `""` asks for the
            attribute to be returned.

    Raises:
        QueryError: A keyword is not in the dictionary (the message names the near ones), or a
            level, model or value is none.
    """
    from pydicom import Dataset

    name = level.strip().upper().replace("INSTANCE", "IMAGE")
    worklist = name == "WORKLIST"
    if not worklist and name not in LEVELS:
        raise QueryError(f"no level {level!r}; there are {', '.join(LEVELS)} and WORKLIST")
    identifier = Dataset()
    if not worklist:
        identifier.QueryRetrieveLevel = name
    step = Dataset()
    if worklist:
        identifier.ScheduledProcedureStepSequence = [step]
    if return_keys:
        for keyword in _WORKLIST_KEYS if worklist else _RETURN_KEYS[name]:
            setattr(identifier, keyword, None)
        if worklist:
            for keyword in _WORKLIST_STEP_KEYS:
                setattr(step, keyword, None)
    for keyword, value in keys.items():
        target = step if worklist and keyword in _WORKLIST_STEP_KEYS else identifier
        if value == "*" and not universal_wildcard:
            value = ""
        set_key(target, keyword, value)
    set_character_set(identifier)
    return Query(_model_of(model, name), identifier)


def _model_of(model: Model | str | None, level: str) -> Model | None:
    if level == "WORKLIST":
        return Model.WORKLIST
    if model is None:
        return Model.PATIENT_ROOT if level == "PATIENT" else None
    if isinstance(model, str):
        try:
            model = Model[model.strip().upper().replace(" ", "_")]
        except KeyError:
            names = ", ".join(known.name for known in Model)
            raise QueryError(f"no information model {model!r}; there are {names}") from None
    return model


def set_key(identifier: Dataset, keyword: str, value: Any) -> None:
    """Set one matching key of an identifier, value formatted as `query` says.

    Raises:
        QueryError: The keyword is not in the dictionary, or the value does not fit its VR.
    """
    from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None:
        near = difflib.get_close_matches(keyword, keyword_dict, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise QueryError(f"{keyword!r} is no DICOM keyword{hint}")
    vr = dictionary_VR(tag)
    if vr == "SQ":
        raise QueryError(f"{keyword} is a sequence: give its items as a pydicom Dataset identifier")
    try:
        identifier.add_new(tag, vr, _formatted(value, vr))
    except (TypeError, ValueError) as error:
        raise QueryError(f"{keyword}={value!r}: {error}") from error


def _formatted(value: Any, vr: str) -> Any:
    match value:
        case None:
            return ""
        case "*" if vr in ("DA", "TM", "DT", "UI"):  # which have no wildcards (PS3.4 §C.2.2.2.4)
            return ""
        case (None, None):
            return ""
        case (start, end) if isinstance(value, tuple) and vr in ("DA", "TM", "DT"):
            return f"{_moment(start, vr)}-{_moment(end, vr)}"
        case dt.date() | dt.time():
            return _moment(value, vr)
        case list() | tuple() | set() | frozenset():
            parts = cast("Iterable[Any]", value)
            return [_formatted(part, vr) for part in parts]
        case _:
            return value


def _moment(value: object, vr: str) -> str:
    """A date, time or date-time as its VR writes it (PS3.5 §6.2)."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dt.datetime):
        zone = value.strftime("%z") if vr == "DT" else ""
        return value.strftime({"DA": "%Y%m%d", "TM": "%H%M%S"}.get(vr, "%Y%m%d%H%M%S")) + zone
    if isinstance(value, dt.date):
        if vr == "TM":
            raise QueryError(f"{value!r} is a date, where a time is asked for")
        return value.strftime("%Y%m%d")
    if isinstance(value, dt.time):
        if vr != "TM":
            raise QueryError(f"{value!r} is a time, where a date is asked for")
        return value.strftime("%H%M%S")
    raise QueryError(f"{value!r} is neither a date nor a time")


def set_character_set(data_set: Dataset) -> None:
    """Name UTF-8 as the character set if the values need one (PS3.3 §C.12.1.1.2).

    Values that were read from somewhere and never looked at are written as they came.
    """
    if "SpecificCharacterSet" not in data_set and _needs_character_set(data_set):
        for _ in data_set.iterall():  # or those would be left in another character set
            pass
        data_set.SpecificCharacterSet = "ISO_IR 192"


def _needs_character_set(data_set: Dataset) -> bool:
    from pydicom import DataElement

    for element in data_set.values():
        if isinstance(element, DataElement):
            if element.VR == "SQ":
                if any(map(_needs_character_set, element.value or ())):
                    return True
            elif not str(element.value).isascii():
                return True
    return False
