"""Modality performed procedure steps as their SCU reports them (PS3.4 §F.7)."""

from __future__ import annotations

import copy
import datetime as dt
import itertools
import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, final

import attrs
import trio

from .attributes import check_data_set, check_value, set_attributes
from .blocks import block
from .codes import WHY, Code, code_of
from .datasets import items_of, text_of
from .errors import DimseError, LocalProtocolError, StatusError
from .protocol.messages import NCreateRQ, NSetRQ
from .protocol.negotiation import PresentationContext
from .protocol.status import Status
from .protocol.uids import SOP_CLASSES, new_uid, uid_of
from .references import SOPReference, reference_items
from .requests import is_uid
from .step_rules import (
    COMPLETED,
    CREATE,
    CREATE_2,
    DISCONTINUED,
    DONE,
    ENDED,
    FINAL,
    IN_PROGRESS,
    MAY_NO_LONGER_BE_UPDATED,
    PATIENT_2,
    SCHEDULED_2,
    SERIES_2,
    SET_LATER,
    Rules,
    ask_for,
    breaches,
)

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association
    from .invocations import Invocation
    from .normalized import NormalizedResult

logger = logging.getLogger("dimse_trio.performed_steps")

MPPS = uid_of("ModalityPerformedProcedureStep")
MPPS_RETRIEVE = uid_of("ModalityPerformedProcedureStepRetrieve")
_numbers = itertools.count(int.from_bytes(os.urandom(2), "big"))
"""Tell steps of one second apart; begun anywhere, as other processes have some of their own."""
_DISCONTINUE_TIMEOUT = 5.0
"""Seconds that a block which ends by an exception takes to report that."""


def performed_step_contexts() -> list[PresentationContext]:
    """What to propose to a peer that is told of performed procedure steps.

    The class to report them, and that to ask for them by N-GET, which not every peer has.
    """
    return [PresentationContext(MPPS), PresentationContext(MPPS_RETRIEVE)]


@attrs.frozen
class PerformedSeries:
    """A series that a step has made, for the Performed Series Sequence (PS3.3 §C.4.15).

    Attributes:
        series_instance_uid: The series.
        protocol_name: By which protocol it was made.
        images: Each image, by SOP Class UID and SOP Instance UID or as a `SOPReference`.
        non_images: The same of what is no image, such as presentation states.
        attributes: Other attributes of the item by keyword, such as `SeriesDescription`.
    """

    series_instance_uid: str
    protocol_name: str
    images: Iterable[tuple[str, str] | SOPReference] = attrs.field(default=(), repr=False)
    non_images: Iterable[tuple[str, str] | SOPReference] = attrs.field(default=(), repr=False)
    attributes: dict[str, Any] = attrs.field(factory=dict[str, Any], repr=False, kw_only=True)

    def item(self) -> Dataset:
        """The item of the Performed Series Sequence.

        Raises:
            LocalProtocolError: An attribute is not what it should be.
        """
        from pydicom import Dataset

        if not isinstance(self.attributes, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise LocalProtocolError("attributes of a series are values by keyword")
        item = Dataset()
        check_value("SeriesInstanceUID", "UI", self.series_instance_uid)
        item.SeriesInstanceUID = self.series_instance_uid
        set_attributes(item, {"ProtocolName": self.protocol_name})
        item.ReferencedImageSequence = [*map(_reference, self.images)]
        item.ReferencedNonImageCompositeSOPInstanceSequence = [*map(_reference, self.non_images)]
        set_attributes(item, self.attributes)
        ask_for(item, SERIES_2)
        return item


def performed_step_attributes(
    scheduled: Dataset | Iterable[Dataset] = (), **attributes: Any
) -> Dataset:
    """The attributes of an N-CREATE (PS3.4 Table F.7.2-1), complete.

    Args:
        scheduled: The worklist item that is performed, or several of one patient that are performed
            at once. Without, the step is unscheduled, and `StudyInstanceUID` is a new one unless
            it is given.
        attributes: Attributes by keyword. `Modality` and `PerformedStationAETitle` are taken from
            the first worklist item where they are not given (a method of an association has our
            AE title for the latter, if that says nothing), start date and time are now,
            `PerformedProcedureStepID` is the time and a number that the next step will not have.

    Raises:
        LocalProtocolError: Something that must have a value has none, a keyword is none, or the
            items are of several patients.
    """
    from pydicom import Dataset

    items = _listed(scheduled)
    for item in items:  # what is never looked at would be left in the item's character set
        for _ in item.iterall():
            pass
    _check_patient(items)
    now = dt.datetime.now()
    step = Dataset()
    study = attributes.pop("StudyInstanceUID", None)
    step.ScheduledStepAttributesSequence = [
        _scheduled(item, study) for item in items or [Dataset()]
    ]
    for item in items[:1]:
        _copy(item, step, PATIENT_2)
        for inner in items_of(item, "ScheduledProcedureStepSequence")[:1]:
            _copy(inner, step, ("Modality",))
            if _station_of(item):
                step.PerformedStationAETitle = _station_of(item)
    # SH: 16 characters
    step.PerformedProcedureStepID = f"{now:%y%m%d%H%M%S}{next(_numbers) % 10_000:04}"
    step.PerformedProcedureStepStartDate = now.strftime("%Y%m%d")
    step.PerformedProcedureStepStartTime = now.strftime("%H%M%S")
    step.PerformedProcedureStepStatus = IN_PROGRESS
    set_attributes(step, attributes)
    ask_for(step, (*CREATE_2, *SET_LATER))
    _check(step, CREATE)
    return step


def _attributes_of_ours(
    association: Association, scheduled: Dataset | Iterable[Dataset], attributes: dict[str, Any]
) -> Dataset:
    """The attributes of a step that is performed here, whoever it was scheduled for, if anybody."""
    items = _listed(scheduled)
    ours = {"PerformedStationAETitle": association.calling_ae_title}
    known = items and _station_of(items[0])
    return performed_step_attributes(items, **({} if known else ours) | attributes)


def _listed(scheduled: Dataset | Iterable[Dataset]) -> list[Dataset]:
    """The worklist items, looked at: one, or several, or what is none and refused."""
    given: Any = scheduled
    # a data set is iterable itself, over its elements
    one = hasattr(given, "iterall") or not hasattr(given, "__iter__")
    items: list[Any] = [given] if one else list(given)
    for item in items:
        if item is None:
            raise LocalProtocolError("scheduled is a pydicom Dataset, or several, not None")
        check_data_set("scheduled", item)
    return items


def _station_of(item: Dataset) -> str:
    """The AE title, or the first of them, that a worklist item is scheduled for."""
    for inner in items_of(item, "ScheduledProcedureStepSequence")[:1]:
        title: Any = inner.get("ScheduledStationAETitle") or ""
        return title if isinstance(title, str) else str(title[0])
    return ""


def _check_patient(items: Sequence[Dataset]) -> None:
    """Refuse worklist items of several patients, by what says most about that."""
    for keyword in ("PatientID", "IssuerOfPatientID", "PatientName"):
        values = {text for item in items if (text := text_of(item, keyword))}
        if len(values) > 1:
            raise LocalProtocolError(
                f"the scheduled steps are not of one patient: there are {len(values)} values of"
                f" {keyword}; begin a step for each"
            )
        if keyword == "IssuerOfPatientID" and all(text_of(item, "PatientID") for item in items):
            return  # names are spelt in many ways


def _scheduled(item: Dataset, study: str | None) -> Dataset:
    """The item of the Scheduled Step Attributes Sequence for a worklist item."""
    from pydicom import Dataset

    made = Dataset()
    _copy(item, made, ("StudyInstanceUID", *SCHEDULED_2))
    for inner in items_of(item, "ScheduledProcedureStepSequence")[:1]:
        _copy(inner, made, SCHEDULED_2)
    check_value("StudyInstanceUID", "UI", study)
    if study or not made.get("StudyInstanceUID"):
        made.StudyInstanceUID = study or new_uid()
    ask_for(made, SCHEDULED_2)
    return made


@final
class PerformedStep:
    """A performed procedure step that is under way at its SCP.

    Attributes:
        uid: Its SOP Instance UID: all that another process needs to go on with it.
        status: "IN PROGRESS", "COMPLETED" or "DISCONTINUED", as far as this side has said.
    """

    def __init__(self, association: Association, uid: str) -> None:
        self._association = association
        self.uid = uid
        self.status = IN_PROGRESS
        self._unanswered = ""
        """The status that it may have at the SCP: asked for, and not heard of."""

    def __repr__(self) -> str:
        return f"<PerformedStep {self.uid} {self.status}>"

    async def update(self, *series: PerformedSeries, **attributes: Any) -> NormalizedResult:
        """N-SET: change attributes. Of series, all are given that there are until now.

        Cancelled, whether the peer has taken them is not known.

        Raises:
            LocalProtocolError: The step has ended, or a keyword is none.
            StatusError, AssociationError: As `Association.n_set`.
        """
        return await self._set(_changes(series, attributes))

    async def complete(self, *series: PerformedSeries, **attributes: Any) -> NormalizedResult:
        """N-SET: the step is COMPLETED, with all its series. Its end is now unless given.

        Raises:
            LocalProtocolError: There is no series, something that must have a value has none, or
                the step has ended.
            StatusError, AssociationError: As `Association.n_set`.
        """
        changes = _changes(series, attributes)
        return await self._end(changes, COMPLETED, DONE)

    async def discontinue(
        self,
        reason: Code | tuple[str, str, str] | None = None,
        *series: PerformedSeries,
        **attributes: Any,
    ) -> NormalizedResult:
        """N-SET: the step is DISCONTINUED.

        Args:
            reason: Why, such as `Code("110514", "DCM", "Incorrect worklist entry selected")`
                (PS3.16 CID 9300); or value, scheme and meaning.
            series: What was made until then.
            attributes: Other attributes by keyword.

        Raises:
            LocalProtocolError: `reason` is no code, or as `complete`.
            StatusError, AssociationError: As `complete`.
        """
        changes = _changes(series, attributes)
        if reason is not None:
            code = code_of("reason", reason, WHY)
            changes.PerformedProcedureStepDiscontinuationReasonCodeSequence = [code.item()]
        return await self._end(changes, DISCONTINUED, ENDED)

    async def _end(self, changes: Dataset, status: str, rules: Rules) -> NormalizedResult:
        now = dt.datetime.now()
        if not changes.get("PerformedProcedureStepEndDate"):
            changes.PerformedProcedureStepEndDate = now.strftime("%Y%m%d")
        if not changes.get("PerformedProcedureStepEndTime"):
            changes.PerformedProcedureStepEndTime = now.strftime("%H%M%S")
        changes.PerformedProcedureStepStatus = status
        if self.status not in FINAL:  # which is refused whatever the changes are
            _check(changes, rules)
        begun: list[Invocation] = []
        try:
            result = await self._set(changes, begun.append)
        except BaseException:
            if any(each.may_be_done for each in begun):
                self._unanswered = self._unanswered or status  # what comes later changes no end
            raise
        self.status = status
        return result

    async def give_up(self) -> None:
        """Discontinue it, unless it has ended, though we have not heard of it."""
        try:
            await self.discontinue()
        except StatusError as error:
            # 0x0110 by itself is any failure
            error_id = None if error.response is None else error.response.error_id
            if not self._unanswered or error_id != MAY_NO_LONGER_BE_UPDATED:
                raise
            self.status = self._unanswered

    async def _set(
        self, changes: Dataset, begun: Callable[[Invocation], None] = lambda _: None
    ) -> NormalizedResult:
        if self.status in FINAL:
            raise LocalProtocolError(f"the step is {self.status}, and cannot be changed any more")

        def make(message_id: int) -> NSetRQ:
            uid = self.uid
            return NSetRQ(
                message_id=message_id, requested_sop_class_uid=MPPS, requested_sop_instance_uid=uid
            )

        return await self._association._normalized(  # pyright: ignore[reportPrivateUsage]
            MPPS, self.uid, make, changes, None, True, begun=begun
        )


async def create_performed_step(
    association: Association,
    scheduled: Dataset | Iterable[Dataset],
    sop_instance_uid: str | None,
    attributes: dict[str, Any],
) -> PerformedStep:
    """See `Association.create_performed_step`."""
    step = _attributes_of_ours(association, scheduled, attributes)
    result = await _create(association, sop_instance_uid or new_uid(), step)
    return PerformedStep(association, result.sop_instance_uid)


async def _create(
    association: Association,
    uid: str,
    attributes: Dataset,
    begun: Callable[[Invocation], None] = lambda _: None,
) -> NormalizedResult:
    def make(message_id: int) -> NCreateRQ:
        return NCreateRQ(
            message_id=message_id, affected_sop_class_uid=MPPS, affected_sop_instance_uid=uid
        )

    return await association._normalized(  # pyright: ignore[reportPrivateUsage]
        MPPS, uid, make, attributes, None, True, begun=begun
    )


@block("association.performed_procedure_step(…) as step")
async def performed_procedure_step(
    association: Association,
    scheduled: Dataset | Iterable[Dataset],
    sop_instance_uid: str | None,
    attributes: dict[str, Any],
) -> AsyncGenerator[PerformedStep]:
    """See `Association.performed_procedure_step`."""
    made = _attributes_of_ours(association, scheduled, attributes)
    step = PerformedStep(association, sop_instance_uid or new_uid())
    begun: list[Invocation] = []
    try:
        step.uid = (await _create(association, step.uid, made, begun.append)).sop_instance_uid
    except BaseException as error:
        if any(each.may_be_done for each in begun):
            await _give_up(step, association, error, known=False)
        raise
    try:
        yield step
    except BaseException as error:
        if step.status not in FINAL:
            await _give_up(step, association, error)
        raise


async def _give_up(
    step: PerformedStep, association: Association, why: BaseException, *, known: bool = True
) -> None:
    """Discontinue a step; if that fails, log it, and note it in the exception.

    One that is not known to have been begun need not be there.
    """
    problem = "the association is over"
    if association.is_open:
        problem = f"no answer within {_DISCONTINUE_TIMEOUT:g} s"
        with trio.move_on_after(_DISCONTINUE_TIMEOUT, shield=True):
            try:
                exchange = association._exchange  # pyright: ignore[reportPrivateUsage]
                await exchange.wait_abandoned()
                await step.give_up()
                return
            except StatusError as error:
                if error.status == Status.NO_SUCH_SOP_INSTANCE and not known:
                    return
                problem = str(error.status)
            except DimseError as error:
                problem = type(error).__name__
    note = f"a performed procedure step could not be discontinued: {problem}"
    logger.warning("%s", note)
    why.add_note(f"{note}; its UID is {step.uid}")


def _changes(series: tuple[PerformedSeries, ...], attributes: dict[str, Any]) -> Dataset:
    from pydicom import Dataset

    changes = Dataset()
    for each in series:
        if not isinstance(each, PerformedSeries):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise LocalProtocolError(f"series are PerformedSeries(…), not {type(each).__name__}")
    if series:
        changes.PerformedSeriesSequence = [each.item() for each in series]
    set_attributes(changes, attributes)
    return changes


def _reference(reference: object) -> Dataset:
    match reference:
        case SOPReference():
            pass
        case (str(sop_class), str(instance)) if (
            is_uid(sop_class) and is_uid(instance) and instance not in SOP_CLASSES
        ):
            reference = SOPReference(sop_class, instance)
        case _:
            raise LocalProtocolError(
                "a PerformedSeries refers to an instance by (SOP Class UID, SOP Instance UID), or"
                f" a SOPReference, not by {type(reference).__name__}, nor the other way round"
            )
    return reference_items([reference])[0]


def _copy(source: Dataset, target: Dataset, keywords: Iterable[str]) -> None:
    for keyword in keywords:
        if keyword in source:
            target[keyword] = copy.deepcopy(source[keyword])


def _check(data_set: Dataset, rules: Rules) -> None:
    missing = [" > ".join(path) for path, _ in breaches(data_set, rules)]
    if missing:
        raise LocalProtocolError(
            f"a performed procedure step needs {', '.join(missing)}: give a value by keyword, or"
            " a PerformedSeries"
        )
