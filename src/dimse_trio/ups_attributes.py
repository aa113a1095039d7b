"""What is sent to a UPS SCP: attributes of steps, and keys that find some (PS3.4 §CC.2)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

from .attributes import check_data_set, check_value, set_attributes
from .codes import Code
from .errors import LocalProtocolError
from .protocol.messages import NActionRQ
from .protocol.ups import UPS_PUSH, StepAction, StepState
from .queries import query

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association
    from .invocations import Invocation
    from .normalized import NormalizedResult

_FIND_KEYS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "ProcedureStepState",
    "ProcedureStepLabel",
    "WorklistLabel",
    "ScheduledProcedureStepPriority",
    "ScheduledProcedureStepStartDateTime",
    "ExpectedCompletionDateTime",
    "InputReadinessState",
    "PatientName",
    "PatientID",
    "StudyInstanceUID",
)
_FIND_SEQUENCES = ("ScheduledWorkitemCodeSequence", "ScheduledStationNameCodeSequence")

PRIORITIES = ("HIGH", "MEDIUM", "LOW")
RELATIONSHIP = (
    "PatientName",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate",
    "PatientSex",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "ReferencedRequestSequence",
)
"""Whose step it is and what for: type 2 in an N-CREATE, and fixed from there on."""
CREATED_EMPTY = (
    "TransactionUID",
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledWorkitemCodeSequence",
    "CommentsOnTheScheduledProcedureStep",
    "InputInformationSequence",
    "OtherPatientIDsSequence",
    *RELATIONSHIP,
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
"""Type 2 in an N-CREATE: there, with or without a value (PS3.4 Table CC.2.5-3)."""


def date_time(moment: dt.datetime | str | None = None) -> str:
    """A DT; now, in local time, by default."""
    if isinstance(moment, str):
        check_value("a date and time", "DT", moment)
        return moment
    if moment is not None and not isinstance(moment, dt.datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LocalProtocolError(
            f"a date and time is a datetime.datetime or a DT, not {type(moment).__name__}"
        )
    moment = moment or dt.datetime.now().astimezone()
    return moment.strftime("%Y%m%d%H%M%S") + (moment.strftime("%z") if moment.tzinfo else "")


def copied(data_set: Dataset, name: str = "attributes") -> Dataset:
    """A data set whose attributes can be set without changing the other's; items are shared."""
    from pydicom import Dataset

    check_data_set(name, data_set)
    result = Dataset()
    for element in data_set:
        result[element.tag] = copy(element)
    return result


def changes(
    attributes: Dataset | None, more: Mapping[str, Any], name: str = "attributes"
) -> Dataset:
    """A copy of a data set, in which attributes are set by keyword; `name` is its argument's.

    Raises:
        LocalProtocolError: It is no data set, a keyword is none, or a value none of its VR.
    """
    from pydicom import Dataset

    result = Dataset() if attributes is None else copied(attributes, name)
    set_attributes(result, more)
    return result


def new_state(state: StepState | str, transaction_uid: str) -> Dataset:
    """Action Information that changes the state (PS3.4 Table CC.2.1-1).

    Raises:
        LocalProtocolError: `state` is none.
    """
    from pydicom import Dataset

    try:
        wanted = StepState(state)
    except ValueError:
        words = ", ".join(each.value for each in StepState)
        raise LocalProtocolError(f"a state is a StepState: {words}, not {state!r}") from None
    information = Dataset()
    information.ProcedureStepState = wanted.value
    information.TransactionUID = transaction_uid
    return information


async def act(
    association: Association,
    sop_instance_uid: str,
    action: StepAction,
    information: Dataset,
    begun: Callable[[Invocation], None] = lambda _: None,
) -> NormalizedResult:
    """N-ACTION; what is given to `begun` says later whether the peer may have done it."""

    def make(message_id: int) -> NActionRQ:
        return NActionRQ(
            message_id=message_id,
            requested_sop_class_uid=UPS_PUSH,
            requested_sop_instance_uid=sop_instance_uid,
            action_type_id=action,
        )

    return await association._normalized(  # pyright: ignore[reportPrivateUsage]
        UPS_PUSH, sop_instance_uid, make, information, None, True, begun=begun
    )


def find_identifier(keys: Mapping[str, Any]) -> Dataset:
    """The identifier of a C-FIND: keys by keyword, and the usual ones to be told of.

    Raises:
        QueryError: A keyword is in no dictionary, or a value is none of its VR.
    """
    identifier = matching_keys({**dict.fromkeys(_FIND_KEYS), **keys})
    for keyword in _FIND_SEQUENCES:
        if keyword not in identifier:
            setattr(identifier, keyword, [])
    return identifier


def matching_keys(keys: Mapping[str, Any]) -> Dataset:
    """Keys by keyword, as for `query`; of a code sequence a `Code`.

    Raises:
        QueryError: As `find_identifier`.
    """
    codes = {keyword: code for keyword, code in keys.items() if isinstance(code, Code)}
    plain = {keyword: value for keyword, value in keys.items() if keyword not in codes}
    # a step has no level; any serves to have the keys looked at
    identifier = query("STUDY", return_keys=False, **plain).identifier
    del identifier.QueryRetrieveLevel
    for keyword, code in codes.items():
        setattr(identifier, keyword, [code.item()])
    return identifier
