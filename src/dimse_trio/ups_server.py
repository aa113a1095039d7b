"""Unified Procedure Steps as SCP: a handler that is a worklist manager (PS3.4 Annex CC).

What a request does in which state is in `protocol.ups`; what attributes must be, in `ups_rules`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from copy import deepcopy
from typing import TYPE_CHECKING, Protocol, Self, final

import trio

from . import datasets, ups_rules
from .checks import check_count, check_keeper
from .client import DEFAULT_AE_TITLE, check_ae_title
from .config import Timeouts
from .errors import LocalProtocolError, StatusError
from .handlers import EchoSCP
from .matching import compile_query
from .normalized_requests import Reply
from .protocol.status import Status
from .protocol.uids import new_uid
from .protocol.ups import (
    CHANGES_TO,
    FILTERED_SUBSCRIPTION,
    GLOBAL_SUBSCRIPTION,
    UPS_EVENT,
    UPS_PULL,
    UPS_PUSH,
    UPS_QUERY,
    UPS_WATCH,
    Decision,
    StepAction,
    StepEventType,
    StepRequest,
    StepState,
    decide,
)
from .ups_reports import Peers, Report, Reporter, ReportOptions, Resolve
from .ups_subscriptions import GlobalSubscription, Subscriptions, in_turns

if TYPE_CHECKING:
    from pydicom import Dataset

    from .normalized_requests import NActionRequest, NCreateRequest, NGetRequest, NSetRequest
    from .requests import FindRequest

_NO_SUCH_STEP = Status(0xC307)
_UNKNOWN_RECEIVER = Status(0xC308)
_NOT_FINAL = Status(0xC304)
_WRONG_INSTANCE = Status(0xC314)


class StepStorage(Protocol):
    """Keeps procedure steps beyond the end of the program, for `ProcedureSteps`.

    A step is a data set with SOP Instance UID, Procedure Step State and Transaction UID.
    """

    async def load(self) -> Iterable[Dataset]:
        """All steps, once, when the block is entered. What is no step is logged and left out."""
        ...

    async def save(self, step: Dataset) -> None:
        """Keep a step that is new or has changed; it is not cancelled. What it raises is 0x0110."""
        ...

    async def remove(self, sop_instance_uid: str) -> None:
        """Forget a step."""
        ...


@final
class ProcedureSteps(EchoSCP):
    """A handler that manages procedure steps: UPS Push, Pull, Watch, Event and Query.

        async with ProcedureSteps(peers={"VIEWER": ("127.0.0.1", 11113)}) as steps:
            await serve(steps, 11112, contexts=procedure_step_contexts())

    It is a block, whose tasks deliver event reports; leaving it drops those not delivered yet. Its
    methods may also be called by a handler that does more. Requests that change a step come one
    after the other, so that of several that claim it one gets it.

    Steps are in memory. One that has ended is kept until there are `max_steps`; then the first to
    end without a deletion lock makes room for a new one. If there is none, N-CREATE is answered
    0x0213.

    Reports go to an AE's own association, where that has a context for UPS Event, else to the AE
    at its address in `peers`, on a new association. Who has neither cannot subscribe (0xC308).

    Args:
        storage: Where steps are kept beside; by default nowhere.
        peers: AE title to `Destination` or `(host, port)`: where reports may go; or an async
            function from title to `Destination`, or `None` for an AE that is not known.
        ae_title: What we are called where we open an association to report.
        max_steps: Most steps.
        max_subscribers: Most AEs with subscriptions; one more is answered 0x0213.
        retries: How often a report is tried again.
        timeouts: Of the associations that are opened to report.

    Raises:
        LocalProtocolError: An argument cannot be.
    """

    normalized_sop_classes = (UPS_PUSH, UPS_PULL, UPS_WATCH, UPS_EVENT)
    query_sop_classes = (UPS_QUERY,)

    def __init__(
        self,
        storage: StepStorage | None = None,
        *,
        peers: Peers | Resolve | None = None,
        ae_title: str = DEFAULT_AE_TITLE,
        max_steps: int = 10_000,
        max_subscribers: int = 1000,
        retries: int = 2,
        timeouts: Timeouts | None = None,
    ) -> None:
        check_count(max_steps, name="max_steps")
        check_count(max_subscribers, name="max_subscribers", least=0)
        check_count(retries, name="retries", least=0)
        if storage is not None:
            check_keeper("storage", storage, "StepStorage", "load", "save", "remove")
        self._storage = storage
        self._options = ReportOptions(
            peers={} if peers is None else peers,
            ae_title=check_ae_title(ae_title),
            retries=retries,
            timeouts=timeouts or Timeouts(),
        )
        self._max_steps = max_steps
        self._max_subscribers = max_subscribers
        self._steps: dict[str, Dataset] = {}
        self._ended: dict[str, None] = {}
        self._subscriptions = Subscriptions()
        self._changing = trio.Lock()
        self._block: AsyncExitStack | None = None
        self._reporter: Reporter | None = None

    def check_ready(self) -> None:
        """Refuse to be served outside of its block."""
        self._in_block()

    def __repr__(self) -> str:
        return f"<ProcedureSteps {len(self._steps)} steps, {len(self._subscriptions)} subscribers>"

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise LocalProtocolError("ProcedureSteps is in its block already")
        if self._storage is not None:
            self._steps = dict(ups_rules.loaded(await self._storage.load()))
            self._ended = {uid: None for uid, state in self.states.items() if state.is_final}
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            self._reporter = Reporter(self._options, nursery)
            self._block = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        block, self._block, self._reporter = self._block, None, None
        assert block is not None
        await block.aclose()

    def _in_block(self) -> Reporter:
        if self._reporter is None:
            raise LocalProtocolError("use ProcedureSteps in its block: async with … as steps:")
        return self._reporter

    # -- for the program that it is part of ------------------------------------------------------

    @property
    def states(self) -> dict[str, StepState]:
        """The steps by SOP Instance UID, oldest first, and their states."""
        return {uid: ups_rules.state_of(step) for uid, step in self._steps.items()}

    def step(self, sop_instance_uid: str) -> Dataset:
        """A copy of a step's attributes, without the Transaction UID.

        Raises:
            StatusError: There is none (0xC307).
        """
        return deepcopy(ups_rules.without_lock(self._step(sop_instance_uid)))

    async def add(self, attributes: Dataset, sop_instance_uid: str | None = None) -> str:
        """Schedule a step, as an N-CREATE would; its UID.

        Raises:
            StatusError: As N-CREATE would be answered.
        """
        uid = sop_instance_uid or new_uid()
        await self._create(uid, attributes, None)
        return uid

    def unsubscribe(self, ae_title: str) -> None:
        """End all subscriptions and deletion locks of an AE, one that is not coming back say."""
        self._subscriptions.unsubscribe(ae_title, None)

    def report_status(
        self, *ae_titles: str, going_down: bool = False, steps_kept: bool | None = None
    ) -> None:
        """Report that this SCP has been restarted, or is about to be shut down (PS3.4 §CC.2.4.3).

        Args:
            ae_titles: Who is told beside those that are subscribed: the fallback list.
            going_down: It will be shut down; by default it has been restarted.
            steps_kept: Whether the steps have survived; by default, whether there is a `storage`.
        """
        from pydicom import Dataset

        kept = self._storage is not None if steps_kept is None else steps_kept
        information = Dataset()
        information.SCPStatus = "GOING DOWN" if going_down else "RESTARTED"
        information.SubscriptionListStatus = "WARM START" if going_down else "COLD START"
        information.UnifiedProcedureStepListStatus = "WARM START" if kept else "COLD START"
        report = Report(GLOBAL_SUBSCRIPTION, StepEventType.SCP_STATUS, information)
        for title in dict.fromkeys((*ae_titles, *self._subscriptions.ae_titles)):
            self._in_block().report(title, report)

    # -- the services ----------------------------------------------------------------------------

    async def handle_n_create(self, request: NCreateRequest) -> Reply:
        """Schedule a step (PS3.4 §CC.2.5)."""
        self._in_block().saw(request.association)
        status = await self._create(request.sop_instance_uid, request.attributes, request.responded)
        return Reply(status, sop_instance_uid=request.sop_instance_uid)

    async def handle_n_get(self, request: NGetRequest) -> Dataset:
        """Give a step's attributes, but never its Transaction UID (PS3.4 §CC.2.7)."""
        self._in_block().saw(request.association)
        return ups_rules.gotten(self._step(request.sop_instance_uid))

    async def handle_n_set(self, request: NSetRequest) -> Status:
        """Change a step that is scheduled, or whose Transaction UID is given (PS3.4 §CC.2.6)."""
        self._in_block().saw(request.association)
        uid, changes = request.sop_instance_uid, request.modifications
        async with self._changing:
            # here a Transaction UID that is no UID is a wrong one: not the same as none
            given = datasets.text_of(changes, "TransactionUID")
            self._decide(StepRequest.SET, uid, given)
            before = self._step(uid)
            after = ups_rules.changed_step(before, changes)
            await self._keep(uid, after)
            self._report_changes(uid, before, after, request.responded)
        return Status.SUCCESS

    async def handle_n_action(self, request: NActionRequest) -> Status:
        """Change a step's state, ask for its cancellation, or subscribe (PS3.4 §CC.2.1 to 2.3)."""
        self._in_block().saw(request.association)
        try:
            action = StepAction(request.action_type_id)
        except ValueError:
            raise StatusError(Status.NO_SUCH_ACTION, "there are 1 to 5") from None
        if action in (StepAction.SUBSCRIBE, StepAction.UNSUBSCRIBE, StepAction.SUSPEND):
            return await self._subscription(action, request)
        async with self._changing:
            if action is StepAction.CHANGE_STATE:
                return await self._change_state(request)
            return await self._request_cancel(request)

    async def handle_find(self, request: FindRequest) -> AsyncIterator[Dataset]:
        """Find steps (PS3.4 §CC.2.8)."""
        if request.sop_class_uid not in (UPS_PULL, UPS_WATCH, UPS_QUERY):
            raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED, "only procedure steps are here")
        self._in_block().saw(request.association)
        # without its Transaction UID, which queries could else find out
        query = compile_query(ups_rules.without_lock(request.identifier))
        await trio.lowlevel.checkpoint()
        async for step in in_turns(list(self._steps.values())):
            if query.matches(step):
                yield query.response(step)

    # -- states ----------------------------------------------------------------------------------

    def _step(self, uid: str) -> Dataset:
        if uid not in self._steps:
            raise StatusError(_NO_SUCH_STEP)
        return self._steps[uid]

    def _decide(self, request: StepRequest, uid: str, given: str = "") -> Decision:
        """What the tables say about a request; what is no success is raised."""
        step = self._steps.get(uid)
        state = None if step is None else ups_rules.state_of(step)
        recorded = "" if step is None else ups_rules.transaction_of(step)
        decision = decide(request, state, given=given, recorded=recorded)
        if decision.status != Status.SUCCESS:
            raise StatusError(decision.status)
        return decision

    async def _create(self, uid: str, attributes: Dataset, responded: trio.Event | None) -> Status:
        async with self._changing:
            self._decide(StepRequest.CREATE, uid)
            if uid in (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION):
                raise StatusError(Status.INVALID_SOP_INSTANCE, "this UID is for subscriptions")
            step, status = ups_rules.new_step(uid, attributes)
            await self._make_room()
            await self._keep(uid, step)
            self._subscriptions.created(uid, step)
            self._report_state(uid, step, responded)
            if ups_rules.is_assigned(step):
                self._report_assigned(uid, step, responded)
        return status

    async def _make_room(self) -> None:
        if len(self._steps) < self._max_steps:
            return
        uid = next((uid for uid in self._ended if not self._subscriptions.is_locked(uid)), None)
        if uid is None:
            raise StatusError(Status.RESOURCE_LIMITATION, "there are too many steps")
        if self._storage is not None:
            with trio.CancelScope(shield=True):
                await self._storage.remove(uid)
        del self._steps[uid], self._ended[uid]
        self._subscriptions.removed(uid)

    async def _keep(self, uid: str, step: Dataset) -> None:
        """Put a step in its place; if the storage fails, nothing has changed."""
        self._in_block()
        if self._storage is not None:
            with trio.CancelScope(shield=True):
                await self._storage.save(step)
        self._steps[uid] = step
        if ups_rules.state_of(step).is_final:
            self._ended[uid] = None

    async def _change_state(self, request: NActionRequest) -> Status:
        uid = request.sop_instance_uid
        given = ups_rules.transaction_of(request.information)
        wanted = CHANGES_TO.get(datasets.text_of(request.information, "ProcedureStepState"))
        if wanted is None:
            self._step(uid)
            raise StatusError(Status.INVALID_ARGUMENT_VALUE, "no such Procedure Step State")
        decision = self._decide(wanted, uid, given)
        step = self._step(uid)
        for state in decision.states:
            step = ups_rules.in_state(step, state)
            if decision.if_final and (missing := ups_rules.missing_in(step, state)):
                raise StatusError(_NOT_FINAL, f"no {missing.rpartition('.')[2]}")
        step.TransactionUID = given
        await self._keep(uid, step)
        self._report_state(uid, step, request.responded)
        return decision.status

    async def _request_cancel(self, request: NActionRequest) -> Status:
        uid = request.sop_instance_uid
        decision = self._decide(StepRequest.REQUEST_CANCEL, uid)
        peer = request.association.peer_ae_title
        information = ups_rules.request_information(request.information, peer)
        steps = [self._step(uid)]
        if decision.states:
            steps[0] = ups_rules.canceled_on_request(steps[0], request.information)
        for state in decision.states:
            steps.append(ups_rules.in_state(steps[-1], state))
        await self._keep(uid, steps[-1])
        self._report(uid, StepEventType.CANCEL_REQUESTED, information, request.responded)
        for step in steps[1:]:
            self._report_state(uid, step, request.responded)
        return decision.status

    # -- subscriptions ---------------------------------------------------------------------------

    async def _subscription(self, action: StepAction, request: NActionRequest) -> Status:
        uid, information = request.sop_instance_uid, request.information
        every = uid in (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION)
        if not every:
            self._step(uid)
        if not (receiver := datasets.text_of(information, "ReceivingAE")):
            raise StatusError(Status.INVALID_ARGUMENT_VALUE, "Receiving AE is missing")
        if action is StepAction.SUSPEND:
            if not every:
                raise StatusError(_WRONG_INSTANCE)
            self._subscriptions.suspend(receiver)
            return Status.SUCCESS
        if action is StepAction.UNSUBSCRIBE:
            self._subscriptions.unsubscribe(receiver, None if every else uid)
            return Status.SUCCESS
        lock = datasets.text_of(information, "DeletionLock")
        if lock not in ("TRUE", "FALSE"):
            raise StatusError(Status.INVALID_ARGUMENT_VALUE, "Deletion Lock is TRUE or FALSE")
        if not await self._in_block().knows(receiver):
            raise StatusError(_UNKNOWN_RECEIVER, f"no way to {receiver}")
        async with self._changing:  # a step that is made meanwhile would be forgotten
            if not every:
                self._step(uid)
            known = self._subscriptions
            if receiver not in known and len(known) >= self._max_subscribers:
                raise StatusError(Status.RESOURCE_LIMITATION, "there are too many subscribers")
            if every:
                told = await self._subscribe_to_all(receiver, lock == "TRUE", uid, information)
            else:
                told = [known.subscribe(receiver, uid, lock == "TRUE")]
            async for each in in_turns(told):
                self._report_state(each, self._steps[each], request.responded, only=receiver)
        return Status.SUCCESS

    async def _subscribe_to_all(
        self, receiver: str, lock: bool, uid: str, information: Dataset
    ) -> list[str]:
        """Subscribe an AE to all steps, or those that match; those that it is told of at once."""
        matching = None
        if uid == FILTERED_SUBSCRIPTION:
            keys = ups_rules.without_lock(information)
            del keys.ReceivingAE, keys.DeletionLock
            matching = compile_query(keys)
        every = GlobalSubscription(lock, matching)
        covered = [uid async for uid, step in in_turns(self._steps.items()) if every.covers(step)]
        new = self._subscriptions.subscribe_to_all(receiver, every, covered)
        return new if lock else []

    # -- reports ---------------------------------------------------------------------------------

    def _report(
        self,
        uid: str,
        kind: StepEventType,
        information: Dataset,
        after: trio.Event | None,
        only: str | None = None,
    ) -> None:
        report = Report(uid, kind, information, after)
        for title in self._subscriptions.of_step(uid) if only is None else (only,):
            self._in_block().report(title, report)

    def _report_state(
        self, uid: str, step: Dataset, after: trio.Event | None, only: str | None = None
    ) -> None:
        self._report(uid, StepEventType.STATE, ups_rules.state_information(step), after, only)

    def _report_assigned(self, uid: str, step: Dataset, after: trio.Event | None) -> None:
        self._report(uid, StepEventType.ASSIGNED, ups_rules.assignment_information(step), after)

    def _report_changes(
        self, uid: str, before: Dataset, after: Dataset, responded: trio.Event
    ) -> None:
        """Report what an N-SET has changed that subscribers are told of."""

        def changed(*keywords: str) -> bool:
            return any(before.get(keyword) != after.get(keyword) for keyword in keywords)

        if changed("InputReadinessState"):
            self._report_state(uid, after, responded)
        if changed("ScheduledStationNameCodeSequence", "ScheduledHumanPerformersSequence"):
            self._report_assigned(uid, after, responded)
        if changed("ProcedureStepProgressInformationSequence"):
            information = ups_rules.progress_information(after)
            self._report(uid, StepEventType.PROGRESS, information, responded)
