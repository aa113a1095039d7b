"""What a Unified Procedure Step's attributes have to be, for its SCP (PS3.4 Table CC.2.5-3)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from . import datasets
from .character_sets import encode_answer
from .errors import DataSetError, StatusError
from .protocol.status import Status
from .protocol.uids import EXPLICIT_VR_LITTLE_ENDIAN
from .protocol.ups import UPS_PUSH, StepState, required_in
from .requests import is_uid
from .ups_attributes import PRIORITIES, RELATIONSHIP, copied, date_time
from .ups_claim import UNSPECIFIED_REASON

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger("dimse_trio")

_NOT_SCHEDULED = Status(0xC309)
_MODIFIED = Status(0xB300)

_PROGRESS = "ProcedureStepProgressInformationSequence"
_REQUIRED = (
    "ProcedureStepState",
    "ProcedureStepLabel",
    "ScheduledProcedureStepStartDateTime",
    "InputReadinessState",
)
"""Type 1 in an N-CREATE, beside those that the SCP can say itself."""
_NEVER_EMPTIED = (
    *_REQUIRED,
    "WorklistLabel",
    "ScheduledProcedureStepPriority",
    "ScheduledWorkitemCodeSequence",
)
"""Type 1 in an N-SET."""
_ENUMERATED = {
    "ScheduledProcedureStepPriority": PRIORITIES,
    "InputReadinessState": ("INCOMPLETE", "UNAVAILABLE", "READY"),
}
_EMPTIED = (
    "TransactionUID",
    _PROGRESS,
    "UnifiedProcedureStepPerformedProcedureSequence",
)
"""What an SCP empties in a new step, whatever its creator says."""
_REASONS = ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence")
_REQUESTED = (*_REASONS, "ContactURI", "ContactDisplayName")
_STATE = ("ProcedureStepState", "InputReadinessState")
_STATIONS, _PERFORMERS = "ScheduledStationNameCodeSequence", "ScheduledHumanPerformersSequence"
_PERFORMER = ("HumanPerformerCodeSequence", "HumanPerformerOrganization")
_OWN = ("SOPClassUID", "SOPInstanceUID")
"""What the messages say, and the attributes do not."""
_FIXED = (
    *_OWN,
    "ProcedureStepState",
    "PatientID",
    *RELATIONSHIP,
    "ReplacedProcedureStepSequence",
)
"""What no N-SET changes."""
_HIDDEN = "TransactionUID"
_CHARACTER_SET = "SpecificCharacterSet"


def loaded(steps: Iterable[Dataset]) -> Iterator[tuple[str, Dataset]]:
    """The steps of a storage and their UIDs; without those that would spoil the worklist."""
    for number, step in enumerate(steps, 1):
        uid = datasets.text_of(step, "SOPInstanceUID")
        try:
            state_of(step)
            _sendable(step)
            if not is_uid(uid):
                raise StatusError(Status.INVALID_SOP_INSTANCE, "SOP Instance UID is no UID")
        except (ValueError, StatusError) as error:
            why = error.comment if isinstance(error, StatusError) else "no Procedure Step State"
            logger.error("step %d of those loaded is left out: %s", number, why)
        else:
            yield uid, step


def state_of(step: Dataset) -> StepState:
    """Procedure Step State; `ValueError` if it has none that there is."""
    return StepState(datasets.text_of(step, "ProcedureStepState"))


def new_step(uid: str, attributes: Dataset) -> tuple[Dataset, Status]:
    """The step that an N-CREATE makes, and Success, or 0xB300 if it had to be put right.

    Raises:
        StatusError: It cannot be made (PS3.4 §CC.2.5.3).
    """
    step = _readable(attributes)
    for keyword in _REQUIRED:
        if keyword not in step:
            raise StatusError(Status.MISSING_ATTRIBUTE, f"{keyword} is missing")
        if not datasets.text_of(step, keyword):
            raise StatusError(Status.MISSING_ATTRIBUTE_VALUE, f"{keyword} has no value")
    if datasets.text_of(step, "ProcedureStepState") != StepState.SCHEDULED.value:
        raise StatusError(_NOT_SCHEDULED, "Procedure Step State is not SCHEDULED")
    status = Status.SUCCESS
    for keyword in _EMPTIED:
        if keyword in step and step[keyword].value:
            status = _MODIFIED
        setattr(step, keyword, [] if keyword.endswith("Sequence") else None)
    for keyword, value in (
        ("WorklistLabel", "DEFAULT"),
        ("ScheduledProcedureStepPriority", "MEDIUM"),
    ):
        if not datasets.text_of(step, keyword):
            setattr(step, keyword, value)
            status = _MODIFIED
    _check_values(step)
    step.SOPClassUID = UPS_PUSH
    step.SOPInstanceUID = uid
    step.ScheduledProcedureStepModificationDateTime = date_time()
    return _sendable(step), status


def changed_step(step: Dataset, modifications: Dataset) -> Dataset:
    """A step with the changes of an N-SET, all of them or none.

    Raises:
        StatusError: One cannot be (PS3.4 §CC.2.6).
    """
    changes = _readable(modifications)
    for keyword in _FIXED:
        if keyword in changes and (changes[keyword].value or None) != (step.get(keyword) or None):
            raise StatusError(Status.INVALID_ATTRIBUTE_VALUE, f"{keyword} is not set by N-SET")
    for keyword in _NEVER_EMPTIED:
        if keyword in changes and not changes[keyword].value:
            raise StatusError(Status.MISSING_ATTRIBUTE_VALUE, f"{keyword} has no value")
    if _HIDDEN in changes:
        del changes[_HIDDEN]
    _check_values(changes)
    changed = copied(step)
    changed.update(changes)
    changed.ScheduledProcedureStepModificationDateTime = date_time()
    return _sendable(changed)


def in_state(step: Dataset, state: StepState) -> Dataset:
    """A step in another state; the moment of its cancellation is filled in if it is missing."""
    changed = copied(step)
    changed.ProcedureStepState = state.value
    if state is StepState.CANCELED:
        items = datasets.items_of(step, _PROGRESS)
        progress = copied(items[0]) if items else type(step)()
        if not datasets.text_of(progress, "ProcedureStepCancellationDateTime"):
            progress.ProcedureStepCancellationDateTime = date_time()
        setattr(changed, _PROGRESS, [progress, *items[1:]])
    return changed


def canceled_on_request(step: Dataset, information: Dataset) -> Dataset:
    """A scheduled step with what a request to cancel says about why (PS3.4 §CC.2.2.3)."""
    progress = type(step)()
    keyword = "ProcedureStepDiscontinuationReasonCodeSequence"
    codes = datasets.items_of(information, keyword) or [UNSPECIFIED_REASON.item()]
    setattr(progress, keyword, codes)
    if reason := datasets.text_of(information, "ReasonForCancellation"):
        progress.ReasonForCancellation = reason
    changed = copied(step)
    setattr(changed, _PROGRESS, [progress])
    return changed


def missing_in(step: Dataset, state: StepState) -> str:
    """The first attribute that a step lacks for a final state; empty if there is none."""
    for path, may_be_empty in required_in(state):
        *sequences, keyword = path.split(".")
        holders = [step]
        for sequence in sequences:
            holders = [item for holder in holders for item in datasets.items_of(holder, sequence)]
        for holder in holders:
            if keyword not in holder or not (may_be_empty or holder[keyword].value):
                return path
    return ""


def without_lock(step: Dataset) -> Dataset:
    """What others than the performer may see of a step: not its Transaction UID."""
    return _without(step, _HIDDEN)


def gotten(step: Dataset) -> Dataset:
    """What N-GET gives of a step (PS3.4 §CC.2.7): the message says already which it is."""
    return _without(step, _HIDDEN, *_OWN)


def _without(step: Dataset, *keywords: str) -> Dataset:
    shown = copied(step)
    for keyword in keywords:
        if keyword in shown:
            del shown[keyword]
    return shown


def transaction_of(data_set: Dataset) -> str:
    """Transaction UID; empty if there is none that is a UID."""
    uid = datasets.text_of(data_set, _HIDDEN)
    return uid if is_uid(uid) else ""


# -- what events say (PS3.4 Table CC.2.4-1) --------------------------------------------------------


def state_information(step: Dataset) -> Dataset:
    """Of a UPS State Report."""
    information = _chosen(step, _STATE)
    for progress in datasets.items_of(step, _PROGRESS)[:1]:
        information.update(_chosen(progress, _REASONS))
    return information


def request_information(asked: Dataset, requesting_ae_title: str) -> Dataset:
    """Of a UPS Cancel Requested."""
    information = _chosen(_readable(asked), _REQUESTED)
    information.RequestingAE = requesting_ae_title
    return information


def progress_information(step: Dataset) -> Dataset:
    """Of a UPS Progress Report."""
    return _chosen(step, (_PROGRESS,))


def is_assigned(step: Dataset) -> bool:
    """Whether a step is for somebody in particular."""
    return any(datasets.items_of(step, keyword) for keyword in (_STATIONS, _PERFORMERS))


def assignment_information(step: Dataset) -> Dataset:
    """Of a UPS Assigned."""
    information = _chosen(step, (_STATIONS,))
    for performer in datasets.items_of(step, _PERFORMERS)[:1]:
        information.update(_chosen(performer, _PERFORMER))
    return information


def _chosen(data_set: Dataset, keywords: Iterable[str]) -> Dataset:
    chosen = type(data_set)()
    for keyword in keywords:
        if keyword in data_set:
            chosen[keyword] = data_set[keyword]
    return chosen


# -- checks ----------------------------------------------------------------------------------------


def _readable(attributes: Dataset) -> Dataset:
    """Attributes in no particular character set, each with the VR that it should have.

    Raises:
        StatusError: One has another VR.
    """
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    readable = copied(attributes)
    for element in attributes.iterall():
        tag = element.tag
        if dictionary_has_tag(tag) and element.VR not in dictionary_VR(tag).split(" or "):
            raise StatusError(Status.INVALID_ATTRIBUTE_VALUE, f"{element.keyword} has a wrong VR")
    if _CHARACTER_SET in readable:
        readable.decode()
        for element in readable.iterall():
            if element.VR == "SQ":
                for item in element.value or ():
                    item.pop(_CHARACTER_SET, None)
        del readable[_CHARACTER_SET]
    return readable


def _sendable(step: Dataset) -> Dataset:
    """A step, which others can be told of.

    Raises:
        StatusError: One of its values cannot be encoded.
    """
    try:
        encode_answer(copied(step), EXPLICIT_VR_LITTLE_ENDIAN)
    except DataSetError:
        raise StatusError(Status.INVALID_ATTRIBUTE_VALUE, "a value is none of its VR") from None
    return step


def _check_values(attributes: Dataset) -> None:
    for keyword, values in _ENUMERATED.items():
        if keyword in attributes and datasets.text_of(attributes, keyword) not in values:
            raise StatusError(
                Status.INVALID_ATTRIBUTE_VALUE, f"{keyword} is one of {', '.join(values)}"
            )
