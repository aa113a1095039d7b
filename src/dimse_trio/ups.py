"""Unified Procedure Steps as SCU: schedule, find, claim, perform, watch (PS3.4 Annex CC).

Every message names UPS Push as its SOP class, on whichever UPS context was accepted (§CC.3.1).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

import trio

from . import datasets
from .attributes import check_data_set, set_attributes
from .blocks import block
from .checks import check_flag
from .codes import WHY, Code, code_of
from .contexts import context_for
from .errors import DimseError, LocalProtocolError, StatusError
from .operations import FindOperation
from .protocol.negotiation import PresentationContext
from .protocol.uids import new_uid
from .protocol.ups import (
    FILTERED_SUBSCRIPTION,
    GLOBAL_SUBSCRIPTION,
    UPS_EVENT,
    UPS_PULL,
    UPS_PUSH,
    UPS_QUERY,
    UPS_WATCH,
    StepAction,
    StepState,
)
from .ups_attributes import (
    CREATED_EMPTY,
    PRIORITIES,
    act,
    changes,
    date_time,
    find_identifier,
    matching_keys,
    new_state,
)
from .ups_claim import Claim
from .ups_events import StepEvents

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association
    from .invocations import Invocation
    from .normalized import NormalizedResult

logger = logging.getLogger("dimse_trio")

_NO_SUCH_STEP = 0xC307


def procedure_step_contexts() -> list[PresentationContext]:
    """The presentation contexts of all five UPS SOP classes, for an SCU and for a listener."""
    classes = (UPS_PUSH, UPS_PULL, UPS_WATCH, UPS_EVENT, UPS_QUERY)
    return [PresentationContext(uid) for uid in classes]


@final
class UnifiedProcedureSteps:
    """The procedure steps of a peer, by an association that `procedure_step_contexts` opened.

        ups = UnifiedProcedureSteps(association)
        uid = await ups.create("Segment the liver", workitem=Code("110001", "DCM"))

    A failure status raises `StatusError`; cancellation does what it does to the `n_*` methods.

    Raises:
        StatusError: With one of the statuses of PS3.4 §CC.2, or another.
        ContextNotAccepted: The peer accepts no UPS context that this could be sent on.
        AssociationError: The association is over, or ends before the response.
    """

    def __init__(self, association: Association) -> None:
        if not hasattr(association, "n_action"):
            raise LocalProtocolError(
                "UnifiedProcedureSteps are those of an association: open one with"
                " contexts=procedure_step_contexts()"
            )
        self._association = association
        self._exchange = association._exchange  # pyright: ignore[reportPrivateUsage]

    @property
    def association(self) -> Association:
        """The association."""
        return self._association

    # -- the worklist ----------------------------------------------------------------------------

    async def create(
        self,
        label: str,
        attributes: Dataset | None = None,
        *,
        sop_instance_uid: str | None = None,
        worklist: str = "DEFAULT",
        priority: str = "MEDIUM",
        start: dt.datetime | str | None = None,
        workitem: Code | None = None,
        station: Code | None = None,
        ready: bool = True,
        **more: Any,
    ) -> str:
        """N-CREATE: schedule a procedure step (PS3.4 §CC.2.5); its SOP Instance UID.

        `attributes` go before all that the other arguments and their defaults say. The attributes
        that the SOP class wants to be there and empty are (Table CC.2.5-3).

        Args:
            label: Procedure Step Label: what is to be done.
            attributes: More attributes: patient, study, input information.
            sop_instance_uid: The step's UID; a new one by default. The SCU is to choose it.
            worklist: Worklist Label: which worklist it belongs to.
            priority: HIGH, MEDIUM or LOW.
            start: When it is to begin, as a DT or a `datetime`; now by default.
            workitem: Scheduled Workitem Code.
            station: Scheduled Station Name Code: who is to do it.
            ready: Whether Input Readiness State is READY; else it is INCOMPLETE.
            more: Attributes by keyword, which go before `attributes`.

        Raises:
            LocalProtocolError: A keyword is none, or a value none of its VR; the priority is no
                such word.
        """
        from pydicom import Dataset

        if priority not in PRIORITIES:
            raise LocalProtocolError(f"priority is {', '.join(PRIORITIES)}, not {priority!r}")
        check_flag(ready, name="ready")
        step = Dataset()
        for keyword in CREATED_EMPTY:
            setattr(step, keyword, None if not keyword.endswith("Sequence") else [])
        step.ProcedureStepState = StepState.SCHEDULED.value
        set_attributes(
            step,
            {
                "ProcedureStepLabel": label,
                "WorklistLabel": worklist,
                "ScheduledProcedureStepPriority": priority,
            },
        )
        step.ScheduledProcedureStepStartDateTime = date_time(start)
        step.InputReadinessState = "READY" if ready else "INCOMPLETE"
        if workitem is not None:
            step.ScheduledWorkitemCodeSequence = [code_of("workitem", workitem).item()]
        if station is not None:
            step.ScheduledStationNameCodeSequence = [code_of("station", station).item()]
        check_data_set("attributes", attributes)
        step.update(attributes or {})
        set_attributes(step, more)
        uid = sop_instance_uid or new_uid()
        return (await self._association.n_create(UPS_PUSH, uid, step)).sop_instance_uid

    def find(
        self, identifier: Dataset | None = None, *, check: bool = True, **keys: Any
    ) -> FindOperation:
        """C-FIND: `await` it for all matches, or `async with` and `async for` (PS3.4 §CC.2.8).

        Args:
            identifier: The whole identifier, in place of `keys`.
            check: Whether a failure status is raised.
            keys: Matching keys by keyword, as for `query`; of a code sequence a `Code`, as in
                `ScheduledWorkitemCodeSequence=Code("110001", "DCM")`. The usual attributes of a
                step are asked for besides.

        Raises:
            QueryError: A keyword is in no dictionary, or a value is none of its VR.
        """
        negotiated = self._association.negotiated
        context = context_for(negotiated, UPS_PULL, UPS_WATCH, UPS_QUERY)
        if identifier is None:
            identifier = find_identifier(keys)
        elif keys:
            raise LocalProtocolError("give an identifier or keys, not both")
        return self._association.find(identifier, model=context.abstract_syntax, check=check)

    async def get(self, sop_instance_uid: str, attributes: Iterable[str | int] = ()) -> Dataset:
        """N-GET: attributes of a step, all by default; never its Transaction UID (§CC.2.7)."""
        result = await self._association.n_get(UPS_PUSH, sop_instance_uid, attributes)
        return result.data_set

    async def state(self, sop_instance_uid: str) -> StepState | None:
        """N-GET: the Procedure Step State; `None` if the SCP gives none that there is."""
        step = await self.get(sop_instance_uid, ["ProcedureStepState"])
        try:
            return StepState(datasets.text_of(step, "ProcedureStepState"))
        except ValueError:
            return None

    # -- performing ------------------------------------------------------------------------------

    def claim(self, sop_instance_uid: str, *, transaction_uid: str | None = None) -> Claim:
        """Claim a scheduled step, in a block that performs it: see `Claim`.

        Args:
            sop_instance_uid: The step.
            transaction_uid: The Transaction UID to lock it with; a new one by default.
        """
        return Claim(self, sop_instance_uid, transaction_uid or new_uid(), resumed=False)

    def resume(self, sop_instance_uid: str, transaction_uid: str) -> Claim:
        """Go on with a step that has been claimed before, with the Transaction UID of then."""
        return Claim(self, sop_instance_uid, transaction_uid, resumed=True)

    async def update(
        self,
        sop_instance_uid: str,
        modifications: Dataset | None = None,
        transaction_uid: str | None = None,
        **more: Any,
    ) -> NormalizedResult:
        """N-SET: change attributes of a step (PS3.4 §CC.2.6).

        A step in progress is changed with its Transaction UID, a scheduled one without any. Of a
        sequence all items are replaced.

        Args:
            sop_instance_uid: The step.
            modifications: The attributes to change.
            transaction_uid: What a step in progress is locked with.
            more: Attributes by keyword, which go before `modifications`.

        Raises:
            LocalProtocolError: A keyword is none, a value none of its VR, or there is nothing to
                change.
        """
        modification_list = changes(modifications, more, "modifications")
        if not modification_list:
            raise LocalProtocolError("an update changes something: update(uid, PatientName=…)")
        if transaction_uid is not None:
            modification_list.TransactionUID = transaction_uid
        return await self._association.n_set(UPS_PUSH, sop_instance_uid, modification_list)

    async def change_state(
        self, sop_instance_uid: str, state: StepState | str, transaction_uid: str
    ) -> NormalizedResult:
        """N-ACTION type 1, as it is (PS3.4 §CC.2.1); `claim` does more.

        Raises:
            LocalProtocolError: `state` is no `StepState`, nor the text of one.
        """
        information = new_state(state, transaction_uid)
        return await act(self._association, sop_instance_uid, StepAction.CHANGE_STATE, information)

    async def request_cancel(
        self,
        sop_instance_uid: str,
        reason: str = "",
        *,
        code: Code | None = None,
        contact: str = "",
        contact_uri: str = "",
    ) -> NormalizedResult:
        """N-ACTION type 2: ask for a step of somebody else to be canceled (PS3.4 §CC.2.2).

        A scheduled step is canceled by that; of one in progress the performer is told, and decides.

        Args:
            sop_instance_uid: The step.
            reason: Reason For Cancellation.
            code: Why, as an item of the Procedure Step Discontinuation Reason Code Sequence.
            contact: Contact Display Name: with whom to discuss it.
            contact_uri: How to reach them.
        """
        from pydicom import Dataset

        information = Dataset()
        said: dict[str, Any] = {
            "ReasonForCancellation": reason,
            "ContactDisplayName": contact,
            "ContactURI": contact_uri,
        }
        if code is not None:
            said["ProcedureStepDiscontinuationReasonCodeSequence"] = code_of("code", code, WHY)
        set_attributes(information, {keyword: value for keyword, value in said.items() if value})
        return await act(
            self._association, sop_instance_uid, StepAction.REQUEST_CANCEL, information
        )

    # -- watching --------------------------------------------------------------------------------

    async def subscribe(
        self,
        sop_instance_uid: str | None = None,
        *,
        matching: Dataset | Mapping[str, Any] | None = None,
        deletion_lock: bool = False,
        receiving_ae_title: str | None = None,
    ) -> NormalizedResult:
        """N-ACTION type 3: have an AE told of events (PS3.4 §CC.2.3).

        Args:
            sop_instance_uid: The step; all, those to come included, by default.
            matching: Only those steps that match these keys, as of `find`: a data set, or
                keys by keyword, as in `{"PatientID": "1*"}`.
            deletion_lock: Keep steps that have ended until the subscription does. 0xB301, a
                warning, says that the SCP does not do that.
            receiving_ae_title: Who is told; by default we are. Another AE the SCP must know, and
                us as well unless it reports on this association.

        Raises:
            LocalProtocolError: There are both a step and keys, or `matching` is neither form.
            QueryError: A keyword of `matching` is none, or a value none of its VR.
        """
        return await self._subscribe(sop_instance_uid, matching, deletion_lock, receiving_ae_title)

    async def unsubscribe(
        self, sop_instance_uid: str | None = None, *, receiving_ae_title: str | None = None
    ) -> NormalizedResult:
        """N-ACTION type 4: end a subscription to a step, or by default to all and each."""
        return await self._end_subscription(
            StepAction.UNSUBSCRIBE, sop_instance_uid or GLOBAL_SUBSCRIPTION, receiving_ae_title
        )

    async def suspend(self, *, receiving_ae_title: str | None = None) -> NormalizedResult:
        """N-ACTION type 5: no more subscriptions to new steps; those that there are stay."""
        return await self._end_subscription(
            StepAction.SUSPEND, GLOBAL_SUBSCRIPTION, receiving_ae_title
        )

    @block("ups.watch(…) as events")
    async def watch(
        self,
        sop_instance_uid: str | None = None,
        *,
        matching: Dataset | Mapping[str, Any] | None = None,
        deletion_lock: bool = False,
        limit: int = 1000,
    ) -> AsyncGenerator[StepEvents]:
        """Subscribe for a block, to iterate over the events that come on this association.

            async with ups.watch(uid) as events:
                async for event in events:
                    print(event.type, event.state)

        Leaving the block unsubscribes, within `Timeouts.cancel_grace` even after an exception or
        cancellation, unless another block of the association watches the same step, or all. Leaving
        the last block of all steps ends this AE's every subscription. An event that two blocks
        could have goes to the one entered first. Iterated after the block has been left, it raises
        what ended the association, or `LocalProtocolError`. A peer that opens an association of its
        own to report needs a listener: see `StepEvents`.

        Args:
            sop_instance_uid: As for `subscribe`.
            matching: As for `subscribe`.
            deletion_lock: As for `subscribe`.
            limit: Events that are held while nobody takes them; beyond, they are refused.
        """
        takers = self._exchange.event_takers
        events = StepEvents(limit, only=sop_instance_uid)
        takers.append(events)
        begun: list[Invocation] = []
        try:
            try:
                await self._subscribe(sop_instance_uid, matching, deletion_lock, None, begun.append)
            except BaseException:
                if any(each.may_be_done for each in begun):
                    await self.politely(self._unwatch, sop_instance_uid, events)
                raise
            try:
                yield events
            finally:
                await self.politely(self._unwatch, sop_instance_uid, events)
        finally:
            takers.remove(events)
            events.end(self._exchange.end or LocalProtocolError("the block has been left"))

    async def _unwatch(self, sop_instance_uid: str | None, events: StepEvents) -> None:
        """Unsubscribe, unless another block still needs the subscription."""
        for other in self._exchange.event_takers:
            same = isinstance(other, StepEvents) and other.only in (None, sop_instance_uid)
            if same and other is not events:
                return
        try:
            await self.unsubscribe(sop_instance_uid)
        except StatusError as error:
            if error.status != _NO_SUCH_STEP:  # there is nothing left to be told of
                raise

    async def politely(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Do what is still to be done when a block is left; failures are only logged."""
        if not self._association.is_open:
            return
        grace = self._exchange.link.timeouts.cancel_grace
        with trio.move_on_after(grace, shield=True) as scope:
            try:
                await self._exchange.wait_abandoned()
                await function(*args)
            except DimseError as error:
                logger.warning("%r: left undone: %s", self._association, error)
        if scope.cancelled_caught:
            logger.warning("%r: left undone in %g s", self._association, grace)

    async def _subscribe(
        self,
        sop_instance_uid: str | None,
        matching: Dataset | Mapping[str, Any] | None,
        deletion_lock: bool,
        receiving_ae_title: str | None,
        begun: Callable[[Invocation], None] = lambda _: None,
    ) -> NormalizedResult:
        if matching is not None and sop_instance_uid is not None:
            raise LocalProtocolError("keys are for a subscription to all steps, not to one")
        information = (
            matching_keys(matching)
            if isinstance(matching, Mapping)
            else changes(matching, {}, "matching, if it is no mapping,")
        )
        check_flag(deletion_lock, name="deletion_lock")
        information.DeletionLock = "TRUE" if deletion_lock else "FALSE"
        information.ReceivingAE = receiving_ae_title or self.own_ae_title
        every = GLOBAL_SUBSCRIPTION if matching is None else FILTERED_SUBSCRIPTION
        uid = sop_instance_uid or every
        return await act(self._association, uid, StepAction.SUBSCRIBE, information, begun)

    async def _end_subscription(
        self, action: StepAction, sop_instance_uid: str, receiving_ae_title: str | None
    ) -> NormalizedResult:
        information = changes(None, {"ReceivingAE": receiving_ae_title or self.own_ae_title})
        return await act(self._association, sop_instance_uid, action, information)

    @property
    def own_ae_title(self) -> str:
        """Our AE title on the association."""
        association = self._association
        titles = {association.calling_ae_title, association.called_ae_title}
        return next(iter(titles - {association.peer_ae_title}), association.calling_ae_title)
