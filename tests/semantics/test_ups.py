"""Unified Procedure Steps, both roles, over memory streams (PS3.4 Annex CC): worklist, claims."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import StepState

from .procedure_steps import (
    IMAGING,
    PULL,
    PUSH,
    READING,
    WATCH,
    Clock,
    a_step,
    managed,
    status_of,
    worklist,
)
from .script import attributes

# -- the worklist ----------------------------------------------------------------------------------


async def test_a_step_is_scheduled_found_claimed_worked_on_and_completed(
    autojump_clock: Clock,
) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Segment", attributes(PatientName="Ä^B"), workitem=IMAGING)
        assert steps.states == {uid: StepState.SCHEDULED}
        [found] = await ups.find(ProcedureStepState="SCHEDULED", PatientName="Ä*")
        assert (found.SOPInstanceUID, found.SOPClassUID) == (uid, PUSH)
        assert found.ScheduledWorkitemCodeSequence[0].CodeValue == "110001"
        async with ups.claim(uid) as work:
            assert steps.states == {uid: StepState.IN_PROGRESS}
            await work.update(progress=50, description="half")
            [progress] = (await ups.get(uid)).ProcedureStepProgressInformationSequence
            assert (progress.ProcedureStepProgress, progress.ProcedureStepProgressDescription) == (
                50,
                "half",
            )
            await work.complete()
        assert work.state is StepState.COMPLETED
        [performed] = steps.step(uid).UnifiedProcedureStepPerformedProcedureSequence
        assert performed.PerformedWorkitemCodeSequence[0].CodeMeaning == "Image Processing"
        assert performed.PerformedStationNameCodeSequence[0].CodeValue == "STATION"
        assert steps.states == {uid: StepState.COMPLETED}


async def test_queries_match_by_state_and_by_code(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        one = await ups.create("One", workitem=IMAGING)
        two = await ups.create("Two", workitem=READING, priority="HIGH")
        found = await ups.find(ScheduledWorkitemCodeSequence=READING)
        assert [match.SOPInstanceUID for match in found] == [two]
        assert {m.SOPInstanceUID for m in await ups.find()} == {one, two}
        assert await ups.find(ProcedureStepState="COMPLETED") == []
        async with ups.find(ScheduledProcedureStepPriority="HIGH") as matches:
            assert [m.ProcedureStepLabel async for m in matches] == ["Two"]
        [label] = await ups.find(attributes(SOPInstanceUID=one, ProcedureStepLabel=""))
        assert label.ProcedureStepLabel == "One"
        with pytest.raises(dimse.QueryError, match="ProcedureStepState"):
            ups.find(ProcedureStepStat="X")


async def test_nobody_learns_the_transaction_uid(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        async with ups.claim(uid) as work:
            for got in (
                await ups.get(uid),
                await ups.get(uid, ["TransactionUID", "ProcedureStepState"]),
                steps.step(uid),
                *await ups.find(attributes(SOPInstanceUID=uid, TransactionUID="")),
                *await ups.find(attributes(SOPInstanceUID=uid, TransactionUID="1.2.3")),
            ):
                assert "TransactionUID" not in got
            assert work.keep() == work.transaction_uid


async def test_any_ups_context_carries_what_is_asked(autojump_clock: Clock) -> None:
    async with dimse.ProcedureSteps() as steps:
        uid = await steps.add(a_step())
        for sop_class in (PULL, WATCH):
            contexts = [dimse.PresentationContext(sop_class)]
            async with worklist(steps, contexts=contexts) as ups:
                assert (await ups.get(uid)).ProcedureStepLabel == "Step"
                assert len(await ups.find(ProcedureStepState="SCHEDULED")) == 1
                await ups.request_cancel(uid)
                assert steps.states[uid] is StepState.CANCELED
                uid = await steps.add(a_step())


# -- claiming --------------------------------------------------------------------------------------


async def test_of_many_that_claim_a_step_at_once_one_gets_it(autojump_clock: Clock) -> None:
    @attrs.define
    class SlowStorage:
        saved: dict[str, Dataset] = attrs.field(factory=dict)

        async def load(self) -> Iterable[Dataset]:
            return list(self.saved.values())

        async def save(self, step: Dataset) -> None:
            await trio.sleep(1)
            self.saved[str(step.SOPInstanceUID)] = step

        async def remove(self, sop_instance_uid: str) -> None:
            del self.saved[sop_instance_uid]

    storage = SlowStorage()
    winners: list[str] = []
    losers: list[int] = []
    async with dimse.ProcedureSteps(storage) as steps:
        uid = await steps.add(a_step())

        async def compete(title: str) -> None:
            async with worklist(steps, title) as ups:
                try:
                    async with ups.claim(uid) as work:
                        winners.append(title)
                        work.keep()
                except dimse.StatusError as error:
                    losers.append(int(error.status))

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(compete, f"WORKER{number}")
        assert len(winners) == 1
        assert losers == [0xC301] * 4
    async with dimse.ProcedureSteps(storage) as restarted:
        assert restarted.states == {uid: StepState.IN_PROGRESS}


async def test_a_block_left_by_an_exception_cancels_the_step(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        with pytest.raises(ZeroDivisionError):
            async with ups.claim(uid) as work:
                await work.update(progress=10)
                raise ZeroDivisionError
        step = steps.step(uid)
        assert step.ProcedureStepState == "CANCELED"
        [progress] = step.ProcedureStepProgressInformationSequence
        assert progress.ProcedureStepProgress == 10
        reason = progress.ProcedureStepDiscontinuationReasonCodeSequence[0]
        assert reason.CodeValue == "110513"


async def test_a_block_left_by_cancellation_cancels_the_step(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        with trio.move_on_after(5) as scope:
            async with ups.claim(uid):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert steps.states[uid] is StepState.CANCELED
        assert ups.association.is_open


async def test_a_block_left_without_a_word_cancels_the_step(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        async with ups.claim(uid):
            pass
        assert steps.states[uid] is StepState.CANCELED


async def test_a_kept_step_is_gone_on_with_by_its_transaction_uid(autojump_clock: Clock) -> None:
    async with dimse.ProcedureSteps() as steps:
        uid = await steps.add(a_step())
        async with worklist(steps) as ups, ups.claim(uid) as work:
            transaction_uid = work.keep()
        assert steps.states[uid] is StepState.IN_PROGRESS
        async with worklist(steps) as ups, ups.resume(uid, transaction_uid) as work:
            await work.complete(workitem=IMAGING)
        assert steps.states[uid] is StepState.COMPLETED


async def test_a_step_whose_association_is_lost_stays_in_progress(
    autojump_clock: Clock,
) -> None:
    async with dimse.ProcedureSteps() as steps:
        uid = await steps.add(a_step())
        with pytest.raises(dimse.AssociationError):
            async with worklist(steps) as ups, ups.claim(uid) as work:
                await ups.association.abort()
                await work.update(progress=1)
        assert steps.states[uid] is StepState.IN_PROGRESS
        assert work.state is StepState.IN_PROGRESS


async def test_a_claim_that_is_cancelled_while_it_is_asked_for_holds_nothing(
    autojump_clock: Clock,
) -> None:
    class Slow:
        async def load(self) -> Iterable[Dataset]:
            return []

        async def save(self, step: Dataset) -> None:
            await trio.sleep(1)

        async def remove(self, sop_instance_uid: str) -> None:
            pass

    async with managed(storage=Slow()) as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        with trio.move_on_after(0.5) as scope:
            async with ups.claim(uid):
                raise AssertionError
        assert scope.cancelled_caught
        assert steps.states[uid] is StepState.CANCELED


async def test_an_unfinished_completion_says_what_is_missing(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step")
        async with ups.claim(uid) as work:
            with pytest.raises(dimse.LocalProtocolError, match="workitem"):
                await work.complete()
            with pytest.raises(dimse.StatusError) as caught:
                await work.complete(
                    performed=attributes(PerformedProcedureStepStartDateTime="2026")
                )
            assert caught.value.status == 0xC304
            assert "PerformedStationNameCodeSequence" in str(caught.value)
            assert steps.states[uid] is StepState.IN_PROGRESS
            assert (
                await status_of(ups.change_state(uid, StepState.CANCELED, work.transaction_uid))
                == 0xC304
            )
            await work.complete(workitem=IMAGING)
            for state, status in ((StepState.COMPLETED, 0xB306), (StepState.CANCELED, 0xC300)):
                assert await status_of(ups.change_state(uid, state, work.transaction_uid)) == status


@pytest.mark.parametrize("steps_before", range(12))
async def test_a_claim_left_and_cancelled_at_any_step_is_not_left_in_progress(
    steps_before: int, autojump_clock: Clock
) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step")
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                for _ in range(steps_before):
                    await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                async with ups.claim(uid) as work:
                    await work.update(progress=10)
        assert steps.states[uid] is not StepState.IN_PROGRESS


async def test_a_claim_cancelled_as_its_block_ends_cancels_the_step(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step")
        with trio.CancelScope() as scope:
            async with ups.claim(uid):
                scope.cancel()
        assert steps.states[uid] is StepState.CANCELED


async def test_the_scp_says_that_it_needs_its_block(autojump_clock: Clock) -> None:
    steps = dimse.ProcedureSteps()
    with pytest.raises(dimse.LocalProtocolError, match="block"):
        await steps.add(a_step())
