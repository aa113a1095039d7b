"""A Unified Procedure Step that this side performs: claimed by a block (PS3.4 §CC.2.1, §CC.2.6)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from . import datasets
from .attributes import check_data_set
from .blocks import Entered
from .codes import WHY, Code, code_of
from .errors import LocalProtocolError, StatusError
from .protocol.ups import StepAction, StepState
from .ups_attributes import act, changes, date_time, new_state

if TYPE_CHECKING:
    from pydicom import Dataset

    from .invocations import Invocation
    from .normalized import NormalizedResult
    from .ups import UnifiedProcedureSteps


UNSPECIFIED_REASON = Code("110513", "DCM", "Discontinued for unspecified reason")
"""Of a step that is canceled and no reason given (PS3.16 CID 9300)."""
_NOT_OURS = (0xC301, 0xC307, 0xC310)
"""Statuses of canceling a step that has not been claimed after all."""
_HAS_ENDED = 0xC300
"""Status of canceling a step that what we were cancelled in has completed or canceled."""


def _percent(progress: object) -> str:
    """How much is done, as a DS."""
    if not isinstance(progress, int | float) or not 0 <= progress <= 100:
        raise LocalProtocolError("progress is in percent: a number from 0 to 100")
    return f"{progress:g}"


@final
class Claim(Entered):
    """A step that this side performs. Made by `UnifiedProcedureSteps.claim` and `resume`.

        async with ups.claim(uid) as work:
            await work.update(progress=50)
            await work.complete(workitem=Code("110001", "DCM", "Image Processing"))

    Entering the block claims the step: of several that try, one gets it, the others get 0xC301.
    A block that is left without `complete`, `cancel` or `keep` cancels the step, as one in progress
    that nobody works on would never end: after an exception or cancellation shielded and within
    `Timeouts.cancel_grace`, failures being logged; else as `cancel` does. If the association is
    over by then, the step stays in progress, and `resume` with `transaction_uid` goes on with it.

    Attributes:
        sop_instance_uid: The step.
        transaction_uid: What locks it. Kept somewhere safe, it survives a crash.
        state: The step's state as far as this side has changed it; `None` before it is claimed.
    """

    _usage = "async with ups.claim(…) as work"

    def __init__(
        self, steps: UnifiedProcedureSteps, uid: str, transaction_uid: str, *, resumed: bool
    ) -> None:
        self._steps = steps
        self.sop_instance_uid = uid
        self.transaction_uid = transaction_uid
        self.state: StepState | None = StepState.IN_PROGRESS if resumed else None
        self._resumed = resumed
        self._kept = False
        self._started = date_time()
        self._progress: Dataset | None = None
        """What the peer has been told of it, of which each message has all."""

    def __repr__(self) -> str:
        state = "not claimed" if self.state is None else self.state.value
        return f"<Claim {self.sop_instance_uid} {state}>"

    async def __aenter__(self) -> Self:
        if self.state is not None and not self._resumed:
            raise LocalProtocolError("a claim is entered once; claim another step")
        if not self._resumed:
            begun: list[Invocation] = []
            try:
                await self._change(StepState.IN_PROGRESS, begun.append)
            except BaseException:
                if any(each.may_be_done for each in begun):
                    await self._steps.politely(self._unclaim)
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._kept or self.state is not StepState.IN_PROGRESS:
            return
        if error is not None:
            await self._steps.politely(self._abandon)
            return
        try:
            await self.cancel()
        except StatusError:
            raise
        except BaseException:  # cancelled meanwhile, say: the step must not stay in progress
            await self._steps.politely(self._abandon)
            raise

    async def update(
        self,
        modifications: Dataset | None = None,
        *,
        progress: float | None = None,
        description: str | None = None,
        **more: Any,
    ) -> NormalizedResult:
        """N-SET: say how far it is, or change other attributes (PS3.4 §CC.2.6).

        Args:
            modifications: The attributes to change, of a sequence all items.
            progress: How much is done, in percent.
            description: What is being done.
            more: Attributes by keyword, which go before `modifications`.

        Raises:
            LocalProtocolError: `progress` is no percentage, or as `UnifiedProcedureSteps.update`.
        """
        modifications = changes(modifications, more)
        item = self._progress
        if progress is not None:
            item = changes(item, {"ProcedureStepProgress": _percent(progress)})
        if description is not None:
            item = changes(item, {"ProcedureStepProgressDescription": description})
        if item is not self._progress:
            modifications.ProcedureStepProgressInformationSequence = [item]
        result = await self._steps.update(
            self.sop_instance_uid, modifications, self.transaction_uid
        )
        self._progress = item
        return result

    async def complete(
        self,
        *,
        station: Code | None = None,
        workitem: Code | None = None,
        start: dt.datetime | str | None = None,
        end: dt.datetime | str | None = None,
        outputs: Iterable[Dataset] = (),
        performed: Dataset | None = None,
    ) -> NormalizedResult:
        """Set what has been performed, and change the state to COMPLETED.

        The final state needs all of this (PS3.4 Table CC.2.5-3). A failure leaves the step in
        progress: 0xC304 says that the SCP finds something missing.

        Args:
            station: Performed Station Name Code; by default our AE title, as a local code.
            workitem: Performed Workitem Code; by default the scheduled one, which is asked for.
            start: When it began; by default when it was claimed.
            end: When it ended; now by default.
            outputs: Items of the Output Information Sequence: references to what has come of it.
            performed: The item of the Performed Procedure Sequence, in place of the others.

        Raises:
            LocalProtocolError: There is no workitem, scheduled or given, or an argument is none of
                what it should be.
        """
        if not isinstance(outputs, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise LocalProtocolError("outputs are data sets that refer to what has come of it")
        if performed is None:
            own = self._steps.own_ae_title
            started = self._started if start is None else date_time(start)
            done: Code | Dataset
            if workitem is None:
                done = await self._scheduled_workitem()
            else:
                done = code_of("workitem", workitem)
            performed = changes(
                None,
                {
                    "PerformedStationNameCodeSequence": code_of(
                        "station", station or Code(own, "L", own)
                    ),
                    "PerformedProcedureStepStartDateTime": started,
                    "PerformedWorkitemCodeSequence": [done],
                    "PerformedProcedureStepEndDateTime": date_time(end),
                    "OutputInformationSequence": list(outputs),
                },
            )
        check_data_set("performed", performed)
        await self.update(UnifiedProcedureStepPerformedProcedureSequence=[performed])
        return await self._change(StepState.COMPLETED)

    async def _scheduled_workitem(self) -> Dataset:
        keyword = "ScheduledWorkitemCodeSequence"
        scheduled = await self._steps.get(self.sop_instance_uid, [keyword])
        for item in datasets.items_of(scheduled, keyword):
            return item
        raise LocalProtocolError(
            "the step has no scheduled workitem to report as performed: complete(workitem=Code(…))"
        )

    async def cancel(
        self, reason: str = "", *, code: Code | tuple[str, str, str] = UNSPECIFIED_REASON
    ) -> NormalizedResult:
        """Set why, and change the state to CANCELED.

        Args:
            reason: Reason For Cancellation, a text.
            code: The item of the Procedure Step Discontinuation Reason Code Sequence; or value,
                scheme and meaning.

        Raises:
            LocalProtocolError: `reason` is no text of VR LT, or `code` no code.
        """
        why: dict[str, Any] = {
            "ProcedureStepCancellationDateTime": date_time(),
            "ProcedureStepDiscontinuationReasonCodeSequence": code_of("code", code, WHY),
        }
        if reason:
            why["ReasonForCancellation"] = reason
        await self._steps.update(
            self.sop_instance_uid,
            None,
            self.transaction_uid,
            ProcedureStepProgressInformationSequence=[changes(self._progress, why)],
        )
        return await self._change(StepState.CANCELED)

    def keep(self) -> str:
        """Leave the block later without canceling the step; its Transaction UID, for `resume`."""
        self._kept = True
        return self.transaction_uid

    async def _unclaim(self) -> None:
        """Cancel the step, if it has been claimed at all."""
        try:
            await self._abandon()
        except StatusError as error:
            if error.status not in _NOT_OURS:
                raise

    async def _abandon(self) -> None:
        """Cancel the step, unless it has ended, though we have not heard of it."""
        try:
            await self.cancel()
        except StatusError as error:
            if error.status != _HAS_ENDED:
                raise
            state = await self._steps.state(self.sop_instance_uid)
            if state is None or not state.is_final:
                raise
            self.state = state

    async def _change(
        self, state: StepState, begun: Callable[[Invocation], None] = lambda _: None
    ) -> NormalizedResult:
        information = new_state(state, self.transaction_uid)
        result = await act(
            self._steps.association,
            self.sop_instance_uid,
            StepAction.CHANGE_STATE,
            information,
            begun,
        )
        self.state = state
        return result
