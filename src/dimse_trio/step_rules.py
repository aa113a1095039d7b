"""What a modality performed procedure step must and may have, as tables (PS3.4 Table F.7.2-1).

Of an attribute of type 1 there is a value; one of type 2 is there, and may be empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from .datasets import items_of

if TYPE_CHECKING:
    from pydicom import Dataset

IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"
FINAL = frozenset((COMPLETED, DISCONTINUED))
MAY_NO_LONGER_BE_UPDATED = 0xA710
"""The Error ID beside 0x0110 of a step that has ended (PS3.4 §F.7.2.2.2)."""

SCHEDULED_2 = (
    "ReferencedStudySequence",
    "AccessionNumber",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "ScheduledProcedureStepID",
    "ScheduledProcedureStepDescription",
    "ScheduledProtocolCodeSequence",
)
PATIENT_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "ReferencedPatientSequence",
)
CREATE_2 = (
    *PATIENT_2,
    "PerformedStationName",
    "PerformedLocation",
    "PerformedProcedureStepDescription",
    "PerformedProcedureTypeDescription",
    "ProcedureCodeSequence",
    "PerformedProcedureStepEndDate",
    "PerformedProcedureStepEndTime",
    "StudyID",
    "PerformedProtocolCodeSequence",
    "PerformedSeriesSequence",
)
SET_LATER = ("PerformedProcedureStepDiscontinuationReasonCodeSequence",)
"""What N-SET may change only if N-CREATE has made it, empty."""
SERIES_2 = (
    "PerformingPhysicianName",
    "OperatorsName",
    "SeriesDescription",
    "RetrieveAETitle",
    "ReferencedImageSequence",
    "ReferencedNonImageCompositeSOPInstanceSequence",
)
FIXED = frozenset(
    (
        *PATIENT_2,
        "ScheduledStepAttributesSequence",
        "PerformedProcedureStepID",
        "PerformedStationAETitle",
        "PerformedStationName",
        "PerformedLocation",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "Modality",
        "StudyID",
        "IssuerOfPatientID",
        "IssuerOfPatientIDQualifiersSequence",
        "OtherPatientIDsSequence",
        "AdmissionID",
        "IssuerOfAdmissionIDSequence",
        "ServiceEpisodeID",
        "IssuerOfServiceEpisodeIDSequence",
        "ServiceEpisodeDescription",
    )
)
"""What N-SET may not change."""


@attrs.frozen
class Rules:
    """What must have a value, what must be there, and rules for the items of sequences."""

    values: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    items: tuple[tuple[str, Rules], ...] = ()


_SERIES = (("PerformedSeriesSequence", Rules(("ProtocolName", "SeriesInstanceUID"), SERIES_2)),)
CREATE = Rules(
    (
        "ScheduledStepAttributesSequence",
        "PerformedProcedureStepID",
        "PerformedStationAETitle",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "PerformedProcedureStepStatus",
        "Modality",
    ),
    CREATE_2,
    (("ScheduledStepAttributesSequence", Rules(("StudyInstanceUID",), SCHEDULED_2)), *_SERIES),
)
SET = Rules(items=_SERIES)
ENDED = Rules(("PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime"), items=_SERIES)
"""Of a discontinued step that came to no series, as many do though the table wants one."""
DONE = Rules((*ENDED.values, "PerformedSeriesSequence"), items=_SERIES)


def breaches(
    data_set: Dataset, rules: Rules, path: tuple[str, ...] = (), *, strict: bool = True
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """What a data set lacks: the keywords that lead there, and whether it is there but empty.

    Attributes of type 2 are looked for only if it is `strict`.
    """
    for keyword in (*rules.values, *(rules.present if strict else ())):
        if keyword not in data_set:
            yield (*path, keyword), False
        elif keyword in rules.values and _is_empty(data_set, keyword):
            yield (*path, keyword), True
    for keyword, inner in rules.items:
        for item in items_of(data_set, keyword):
            yield from breaches(item, inner, (*path, keyword), strict=strict)


def _is_empty(data_set: Dataset, keyword: str) -> bool:
    value = data_set.get(keyword)
    return value is None or not str(value).strip(" \0") or (hasattr(value, "append") and not value)


def ask_for(data_set: Dataset, keywords: Iterable[str]) -> None:
    """Give a data set the attributes of type 2 that it lacks, empty."""
    for keyword in keywords:
        if keyword not in data_set:
            setattr(data_set, keyword, [] if keyword.endswith("Sequence") else None)
