"""Identifiers for C-FIND, C-MOVE and C-GET from keyword arguments (PS3.4 §C.4, §C.6; §K.6).

`query` checks what can be checked before a peer has to: keywords, levels, and values by their VR.
"""

from __future__ import annotations

import datetime as dt
import enum
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import attrs

from .character_sets import set_character_set
from .datasets import no_keyword
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
    *(
        "ScheduledProcedureStepDescription",
        "ScheduledStationName",
        "ScheduledProcedureStepLocation",
    ),
    *("ScheduledProtocolCodeSequence", "PreMedication", "ScheduledProcedureStepID"),
    *("RequestedContrastAgent", "ScheduledProcedureStepStatus"),
)
_WORKLIST_KEYS = (
    *_PATIENT_KEYS,
    *("AccessionNumber", "ReferringPhysicianName", "RequestingPhysician", "StudyInstanceUID"),
    *("StudyDate", "StudyTime", "RequestedProcedureID", "RequestedProcedureDescription"),
    *("RequestedProcedureCodeSequence", "ReferencedStudySequence", "RequestedProcedurePriority"),
    *("PatientTransportArrangements", "AdmissionID", "CurrentPatientLocation"),
    *("ReferencedPatientSequence", "IssuerOfPatientID", "PatientWeight", "PatientState"),
    *("ConfidentialityConstraintOnPatientDataDescription", "PregnancyStatus", "MedicalAlerts"),
    *("Allergies", "SpecialNeeds"),
)
"""What a worklist query asks for by default (PS3.4 Table K.6-1)."""
_STEP_ONLY = frozenset(
    (*_WORKLIST_STEP_KEYS, "ScheduledProcedureStepEndDate", "ScheduledProcedureStepEndTime")
)
"""Keys that stand in the item of the Scheduled Procedure Step Sequence."""


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
            otherwise, and for ages, dates, times, UIDs and numbers always, as an empty value, which
            asks for the same (PS3.4 §C.2.2.2.3).
        keys: Matching keys by keyword. A string is sent as it is, with wildcards and ranges, if its
            VR allows it; a `datetime.date`, `time` or `datetime` is formatted; a pair of them,
            either of which may be `None`, is a range; a list is a list of UIDs or values; `None` or
            `""` asks for the attribute to be returned.

    Raises:
        QueryError: A keyword is not in the dictionary (the message names the near ones), or a
            level, model or value is none.
    """
    if not universal_wildcard:
        stars = {name for name, value in keys.items() if isinstance(value, str) and value == "*"}
        keys |= dict.fromkeys(stars, "")
    for keyword, value in keys.items():
        _check(keyword, value, keys)
    return unchecked_query(level, keys, model=model, return_keys=return_keys)


def unchecked_query(
    level: str,
    keys: Mapping[str, Any],
    *,
    model: Model | str | None = None,
    return_keys: bool = False,
) -> Query:
    """As `query`, for values that came from a peer and go back to it, whatever their form."""
    from pydicom import Dataset

    name = str(level).strip().upper().replace("INSTANCE", "IMAGE")
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
            _ask_for(identifier, keyword)
        if worklist:
            for keyword in _WORKLIST_STEP_KEYS:
                _ask_for(step, keyword)
    for keyword, value in keys.items():
        target = step if worklist and keyword in _STEP_ONLY else identifier
        set_key(target, keyword, value)
    set_character_set(identifier)
    return Query(_model_of(model, name), identifier)


def _ask_for(identifier: Dataset, keyword: str) -> None:
    """Have an attribute returned, whatever its value (PS3.4 §C.2.2.2.3)."""
    setattr(identifier, keyword, [] if keyword.endswith("Sequence") else None)


def _model_of(model: Model | str | None, level: str) -> Model | None:
    if level == "WORKLIST":
        return Model.WORKLIST
    if model is None:
        return Model.PATIENT_ROOT if level == "PATIENT" else None
    if isinstance(model, Model):
        return model
    try:
        return Model[str(model).strip().upper().replace(" ", "_")]
    except KeyError:
        names = ", ".join(known.name for known in Model)
        raise QueryError(f"no information model {model!r}; there are {names}") from None


def set_key(identifier: Dataset, keyword: str, value: Any) -> None:
    """Set one matching key of an identifier, value formatted as `query` says.

    Raises:
        QueryError: The keyword is not in the dictionary, or pydicom does not take the value.
    """
    tag, vr = _entry(keyword)
    try:
        identifier.add_new(tag, vr, _formatted(value, vr))
    except (TypeError, ValueError) as error:
        raise QueryError(f"{keyword}={value!r}: {error}") from error


def _entry(keyword: str) -> tuple[int, str]:
    """Tag and VR of a keyword that a key can have."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None:
        raise QueryError(no_keyword(keyword))
    vr = dictionary_VR(tag)
    if vr == "SQ":
        raise QueryError(f"{keyword} is a sequence: give its items as a pydicom Dataset identifier")
    return tag, vr


def _formatted(value: Any, vr: str) -> Any:
    match value:
        case None:
            return ""
        case "*" if vr in _FORMS:  # which have no wildcards (PS3.4 §C.2.2.2.4)
            return ""
        case (None, None):
            return ""
        case (start, end) if isinstance(value, tuple) and vr in ("DA", "TM", "DT"):
            return f"{_moment(start, vr)}-{_moment(end, vr)}"
        case dt.date() | dt.time():
            return _moment(value, vr)
        case str() | bytes() | bytearray():
            return value
        case Sequence() | AbstractSet():
            return _formatted_each(value, vr)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return value


def _formatted_each(values: Iterable[Any], vr: str) -> list[Any]:
    return [_formatted(value, vr) for value in values]


def _moment(value: object, vr: str) -> str:
    """A date, time or date-time as its VR writes it (PS3.5 §6.2)."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dt.datetime):
        zone = value.strftime("%z") if vr == "DT" else ""
        if vr == "TM":
            return value.strftime("%H%M%S")
        # years before 1000 are not padded everywhere
        return value.strftime("%Y%m%d").zfill(8) + (value.strftime("%H%M%S") + zone) * (vr != "DA")
    if isinstance(value, dt.date):
        if vr == "TM":
            raise QueryError(f"{value!r} is a date, where a time is asked for")
        return value.strftime("%Y%m%d").zfill(8)
    if isinstance(value, dt.time):
        if vr != "TM":
            raise QueryError(f"{value!r} is a time, where a date is asked for")
        return value.strftime("%H%M%S")
    raise QueryError(f"{value!r} is neither a date nor a time")


# -- what a value may be ---------------------------------------------------------------------------

_CLOCK = r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?"
_FORMS = {
    "AS": re.compile(r"\d{3}[DWMY]", re.ASCII),
    # the form 2026.01.31 is from before DICOM 3, and some peers know no other (PS3.5 §6.2)
    "DA": re.compile(r"\d{8}|\d{4}\.\d\d\.\d\d", re.ASCII),
    "TM": re.compile(_CLOCK, re.ASCII),
    "DT": re.compile(rf"(?:\d{{4}}|\d{{6}}|\d{{8}}(?:{_CLOCK})?)([+-]\d{{4}})?", re.ASCII),
    # leading zeros are not allowed, but peers have instances with them
    "UI": re.compile(r"(?=.{1,64}$)\d+(?:\.\d+)*", re.ASCII),
    "IS": re.compile(r" *[+-]?\d+ *", re.ASCII),
    "DS": re.compile(r" *[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? *", re.ASCII),
}
"""Single values as text (PS3.5 Table 6.2-1)."""
_WHAT = {
    "AS": ("DICOM age", "three digits and D, W, M or Y, as '031Y'"),
    "DA": (
        "DICOM date",
        "YYYYMMDD as '20260131' or a datetime.date; a range '20260101-20260131'",
    ),
    "TM": ("DICOM time", "HHMMSS as '093000' or a datetime.time; a range '0930-1800'"),
    "DT": ("DICOM date-time", "YYYYMMDDHHMMSS as '20260131093000' or a datetime.datetime"),
    "UI": ("UID", "up to 64 digits and dots, as '1.2.840.10008.1.1'; UIDs have no wildcards"),
    "IS": ("whole number", "5 or '5'"),
    "DS": ("number", "1.5 or '1.5'"),
}
_MOMENTS = frozenset(("DA", "TM", "DT"))
_TEXTS = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_BINARY_INTEGERS = frozenset(("US", "SS", "UL", "SL", "UV", "SV"))
_BINARY_FLOATS = frozenset(("FL", "FD"))


def _check(keyword: str, value: Any, keys: Mapping[str, Any]) -> None:
    """Refuse a value that no peer could match by, and say what to write instead.

    Only its type and form are looked at, and the form only of ages, dates, times, UIDs and numbers.
    """
    vr = _entry(keyword)[1].split(" or ")[0]
    try:
        formatted = _formatted(value, vr)
    except QueryError as error:
        raise QueryError(f"{keyword}={value!r}: {error}") from None
    for part in _formatted_each(value, vr) if isinstance(formatted, list) else [formatted]:
        if problem := _problem(part, vr, midnight=_has_date_range(keyword, keys)):
            raise QueryError(f"{keyword} {value!r} {problem}")


def _has_date_range(keyword: str, keys: Mapping[str, Any]) -> bool:
    """Whether a range of times may begin on one day and end on another (PS3.4 §C.2.2.2.5.4)."""
    dates = keys.get(keyword.removesuffix("Time") + "Date")
    return isinstance(dates, tuple) or (isinstance(dates, str) and "-" in dates)


def _problem(value: Any, vr: str, *, midnight: bool) -> str | None:
    """What is wrong with a value, and what to write; `None` if nothing is."""
    if vr in _FORMS:
        what, form = _WHAT[vr]
        number = isinstance(value, numbers.Real) and vr in ("IS", "DS")
        if not (isinstance(value, str) or (number and (vr == "DS" or float(value).is_integer()))):
            return f"is no {what}; write {_suggestion(value, vr) or form}"
        for text in str(value).rstrip(" \0").split("\\"):
            ends = _ends(text, vr)
            if text and ends is None:
                return f"is no {what}; write {_suggestion(text, vr) or form}"
            if ends is not None and _reversed(*ends) and not (vr == "TM" and midnight):
                return f"is a range that ends before it begins; write '{ends[1]}-{ends[0]}'"
    elif vr in _TEXTS:
        from pydicom.valuerep import PersonName

        if not isinstance(value, str | PersonName):
            number = isinstance(value, numbers.Real)
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            advice = f"; write {text!r}" if number or isinstance(value, bytes) else ""
            return f"is no text but {type(value).__name__}{advice}"
    elif vr in _BINARY_INTEGERS and value != "" and not isinstance(value, numbers.Integral):
        return f"is no whole number but {type(value).__name__}"
    elif vr in _BINARY_FLOATS and value != "" and not isinstance(value, numbers.Real):
        return f"is no number but {type(value).__name__}"
    return None


def _ends(text: str, vr: str) -> tuple[str, str] | None:
    """The ends of a range, of which one may be empty; of a single value, that value twice."""
    if _is_single(text, vr):
        return text, text
    if vr in _MOMENTS:
        for hyphen in (position for position, char in enumerate(text) if char == "-"):
            first, last = text[:hyphen], text[hyphen + 1 :]
            if (first or last) and all(not end or _is_single(end, vr) for end in (first, last)):
                return first, last
    return None


def _is_single(text: str, vr: str) -> bool:
    match = _FORMS[vr].fullmatch(text)
    if match is None or vr not in ("DA", "DT"):
        return match is not None
    if vr == "DT" and match[1] and not -1200 <= int(match[1]) <= 1400:
        return False
    date = re.split("[+-]", text)[0].replace(".", "")[:8]
    try:
        # a DT may end after the year or the month
        dt.date(int(date[:4]), int(date[4:6] or 1), int(date[6:] or 1))
    except ValueError:
        return False
    return True


def _reversed(first: str, last: str) -> bool:
    """Whether the ends of a range are in the wrong order, as far as their digits say."""
    if not first or not last or set(first + last) & {"+", "-"}:  # offsets from UTC
        return False
    return first.replace(".", "").ljust(20, "0") > last.replace(".", "").ljust(20, "9")


def _suggestion(value: Any, vr: str) -> str | None:
    """How to write what a value in ISO 8601 or of a wrong type must mean."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    if vr not in _MOMENTS:
        return repr(text) if _ends(text, vr) else None
    try:
        if vr == "TM":
            if "-" in text:  # a range, which Python would take for an offset from UTC
                return None
            moment: dt.date | dt.time = dt.time.fromisoformat(text).replace(tzinfo=None)
        elif vr == "DT":
            moment = dt.datetime.fromisoformat(text).replace(tzinfo=None)
        else:
            moment = dt.datetime.fromisoformat(text.replace("/", "-")).date()
    except ValueError:
        return None
    return f"'{_moment(moment, vr)}' or {moment!r}"
