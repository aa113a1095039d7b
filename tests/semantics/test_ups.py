"""Unified Procedure Steps, both roles, over memory streams (PS3.4 Annex CC)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import StepEventType, StepState
from dimse_trio.testing import associated_pair

PUSH = dimse.uid_of("UnifiedProcedureStepPush")
PULL = dimse.uid_of("UnifiedProcedureStepPull")
WATCH = dimse.uid_of("UnifiedProcedureStepWatch")
EVENT = dimse.uid_of("UnifiedProcedureStepEvent")
EVERY = "1.2.840.10008.5.1.4.34.5"
IMAGING = dimse.Code("110001", "DCM", "Image Processing")
READING = dimse.Code("110005", "DCM", "Interpretation")

Clock = trio.abc.Clock


def attributes(**values: object) -> Dataset:
    data_set = Dataset()
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return data_set


@asynccontextmanager
async def worklist(
    steps: dimse.ProcedureSteps, title: str = "STATION", **options: Any
) -> AsyncGenerator[dimse.UnifiedProcedureSteps]:
    """An association with an SCP, whose block is the caller's."""
    options.setdefault("contexts", dimse.procedure_step_contexts())
    async with associated_pair(steps, calling_ae_title=title, **options) as association:
        yield dimse.UnifiedProcedureSteps(association)


@asynccontextmanager
async def managed(**options: Any) -> AsyncGenerator[tuple[Any, dimse.UnifiedProcedureSteps]]:
    async with dimse.ProcedureSteps(**options) as steps, worklist(steps) as ups:
        yield steps, ups


async def status_of(awaitable: Any) -> int:
    """The status that a request ends with, be it an error or not."""
    try:
        result = await awaitable
    except dimse.StatusError as error:
        return int(error.status)
    return int(result.status)


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


def a_step(**changes: object) -> Dataset:
    return attributes(
        **{
            "ProcedureStepState": "SCHEDULED",
            "ProcedureStepLabel": "Step",
            "ScheduledProcedureStepStartDateTime": "20260101",
            "InputReadinessState": "READY",
            **changes,
        }
    )


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


# -- events ----------------------------------------------------------------------------------------


async def test_a_watcher_sees_every_event_of_a_step_in_order(autojump_clock: Clock) -> None:
    seen: list[tuple[StepEventType, object]] = []
    async with dimse.ProcedureSteps() as steps:
        uid = await steps.add(a_step())
        async with worklist(steps, "WATCHER") as watcher, worklist(steps) as ups:

            async def work() -> None:
                async with ups.claim(uid) as work:
                    await work.update(progress=25)
                    await work.update(InputReadinessState="INCOMPLETE")
                    station = [IMAGING.item()]
                    await work.update(attributes(ScheduledStationNameCodeSequence=station))
                    await watcher.request_cancel(uid, "no more", contact="Me")
                    await work.cancel("agreed")

            async with watcher.watch(uid) as events, trio.open_nursery() as nursery:
                nursery.start_soon(work)
                async for event in events:
                    assert event.sop_instance_uid == uid
                    seen.append((event.type, event.state or event.progress or event.reason))
                    if event.state is not None and event.state.is_final:
                        assert event.reason == "agreed"
                        break
            assert len(steps._subscriptions) == 0
    assert seen == [
        (StepEventType.STATE, StepState.SCHEDULED),
        (StepEventType.STATE, StepState.IN_PROGRESS),
        (StepEventType.PROGRESS, 25),
        (StepEventType.STATE, StepState.IN_PROGRESS),
        (StepEventType.ASSIGNED, ""),
        (StepEventType.CANCEL_REQUESTED, "no more"),
        (StepEventType.PROGRESS, 25),
        (StepEventType.STATE, StepState.CANCELED),
    ]


async def test_a_scheduled_step_is_canceled_by_request_through_both_states(
    autojump_clock: Clock,
) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step")
        async with ups.watch(uid) as events:
            await ups.request_cancel(uid, "not needed")
            states = []
            async for event in events:
                states.append(event.state)
                if event.type is StepEventType.CANCEL_REQUESTED:
                    assert event.requesting_ae_title == "STATION"
                if event.state is StepState.CANCELED:
                    break
        assert states == [
            StepState.SCHEDULED,
            None,
            StepState.IN_PROGRESS,
            StepState.CANCELED,
        ]
        [progress] = (await ups.get(uid)).ProcedureStepProgressInformationSequence
        assert progress.ReasonForCancellation == "not needed"
        assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
        assert await status_of(ups.request_cancel(uid)) == 0xB304


async def test_a_global_subscription_is_for_steps_that_come_a_filtered_one_for_those_that_match(
    autojump_clock: Clock,
) -> None:
    async with managed() as (steps, ups):
        await ups.create("Old")
        async with ups.watch() as events:
            new = await ups.create("New")
            event = await anext(events)
            assert (event.sop_instance_uid, event.state) == (new, StepState.SCHEDULED)
        assert steps._subscriptions.ae_titles == []
        high_ones: list[Any] = [
            attributes(ScheduledProcedureStepPriority="HIGH"),
            {"ScheduledProcedureStepPriority": "HI*"},
            {"ScheduledStationNameCodeSequence": IMAGING},
        ]
        for keys in high_ones:
            async with ups.watch(matching=keys) as events:
                await ups.create("Low", priority="LOW")
                high = await ups.create("High", priority="HIGH", station=IMAGING)
                assert (await anext(events)).sop_instance_uid == high
                assert (await anext(events)).type is StepEventType.ASSIGNED


async def test_a_global_subscription_with_lock_reports_the_steps_that_there_are(
    autojump_clock: Clock,
) -> None:
    async with managed() as (_, ups):
        uids = [await ups.create("One"), await ups.create("Two")]
        async with ups.watch(deletion_lock=True) as events:
            assert [(await anext(events)).sop_instance_uid for _ in uids] == uids


async def test_suspended_it_is_not_told_of_new_steps_but_of_those_it_has(
    autojump_clock: Clock,
) -> None:
    async with managed() as (_, ups):
        old = await ups.create("Old")
        async with ups.watch() as events:
            await ups.suspend()
            await ups.create("New")
            await ups.request_cancel(old)
            assert {(await anext(events)).sop_instance_uid for _ in range(3)} == {old}


async def test_a_deletion_lock_keeps_a_step_that_has_ended(autojump_clock: Clock) -> None:
    async with managed(max_steps=2) as (steps, ups):
        one, two = await ups.create("One"), await ups.create("Two")
        await ups.subscribe(one, deletion_lock=True)
        for uid in (one, two):
            await ups.request_cancel(uid)
        three = await ups.create("Three")
        assert list(steps.states) == [one, three]
        assert await status_of(ups.association.n_create(PUSH, None, a_step())) == 0x0213
        await ups.unsubscribe(one)
        four = await ups.create("Four")
        assert list(steps.states) == [three, four]


async def test_the_locks_of_an_ae_that_is_gone_can_be_taken_away(autojump_clock: Clock) -> None:
    async with managed(max_steps=1) as (steps, ups):
        one = await ups.create("One")
        await ups.subscribe(deletion_lock=True)
        await ups.request_cancel(one)
        assert await status_of(ups.association.n_create(PUSH, None, a_step())) == 0x0213
        steps.unsubscribe("STATION")
        two = await ups.create("Two")
        assert list(steps.states) == [two]


async def test_subscribers_are_told_that_the_scp_was_restarted(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups), ups.watch() as events:
        steps.report_status()
        event = await anext(events)
        assert event.type is StepEventType.SCP_STATUS
        assert event.information.SCPStatus == "RESTARTED"
        assert event.information.UnifiedProcedureStepListStatus == "COLD START"


async def test_events_that_nobody_takes_are_refused_beyond_the_limit(
    autojump_clock: Clock,
) -> None:
    async with managed(retries=0) as (_, ups):
        async with ups.watch(limit=2) as events:
            for number in range(4):
                await ups.create(f"Step {number}")
            await trio.sleep(5)
            assert events.refused == 2
            assert [(await anext(events)).state for _ in range(2)] == [StepState.SCHEDULED] * 2
    with pytest.raises(dimse.DimseError):
        await anext(events)


# -- what peers get wrong --------------------------------------------------------------------------


async def test_wrong_and_missing_transaction_uids_change_nothing(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        act = ups.association.n_action
        no_uid = attributes(ProcedureStepState="IN PROGRESS")
        bad_uid = attributes(ProcedureStepState="IN PROGRESS")
        bad_uid.add_new("TransactionUID", "LO", "nonsense")
        for information in (no_uid, bad_uid):
            assert await status_of(act(PUSH, uid, 1, information)) == 0xC301
        assert steps.states[uid] is StepState.SCHEDULED
        async with ups.claim(uid) as work:
            changes = attributes(ProcedureStepLabel="Mine")
            for transaction_uid in (None, "1.2.3"):
                assert await status_of(ups.update(uid, changes, transaction_uid)) == 0xC301
                for state in ("IN PROGRESS", "COMPLETED", "CANCELED"):
                    information = attributes(ProcedureStepState=state)
                    if transaction_uid:
                        information.TransactionUID = transaction_uid
                    assert await status_of(act(PUSH, uid, 1, information)) == 0xC301
            assert steps.step(uid).ProcedureStepLabel == "Step"
            await work.complete()
        assert await status_of(ups.update(uid, changes, work.transaction_uid)) == 0xC300


async def test_a_scheduled_step_is_changed_without_a_transaction_uid(
    autojump_clock: Clock,
) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step")
        await ups.update(uid, attributes(ProcedureStepLabel="Other"))
        await ups.update(uid, WorklistLabel="W")
        assert (await ups.get(uid)).WorklistLabel == "W"
        assert steps.step(uid).ProcedureStepLabel == "Other"
        assert await status_of(ups.update(uid, attributes(ProcedureStepLabel="X"), "1.2")) == 0xC310


async def test_a_step_that_is_unknown_is_c307_to_everything(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        for asked in (
            ups.change_state("1.2.9", StepState.IN_PROGRESS, "1.2"),
            ups.change_state("1.2.9", StepState.CANCELED, "1.2"),
            ups.request_cancel("1.2.9"),
            ups.subscribe("1.2.9"),
            ups.unsubscribe("1.2.9"),
            ups.update("1.2.9", attributes(ProcedureStepLabel="X")),
            ups.association.n_get(PUSH, "1.2.9"),
        ):
            assert await status_of(asked) == 0xC307


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, 0xC309),
        ({"ProcedureStepState": None}, 0x0121),
        ({"ProcedureStepLabel": ""}, 0x0121),
        ({"ScheduledProcedureStepPriority": "SOON"}, 0x0106),
        ({"InputReadinessState": "MAYBE"}, 0x0106),
        ({"WorklistLabel": "W", "ScheduledProcedureStepPriority": "LOW"}, 0),
        ({"TransactionUID": "1.2.3"}, 0xB300),
        ({}, 0xB300),
    ],
)
async def test_what_a_step_is_created_with_is_checked(
    changes: dict[str, Any], status: int, autojump_clock: Clock
) -> None:
    async with managed() as (steps, ups):
        made = ups.association.n_create(PUSH, "1.2.3", a_step(**changes))
        assert await status_of(made) == status
        if status in (0, 0xB300):
            assert "TransactionUID" not in steps.step("1.2.3")
            assert await status_of(ups.association.n_create(PUSH, "1.2.3", a_step())) == 0x0111


async def test_a_step_without_a_label_or_state_is_missing_an_attribute(
    autojump_clock: Clock,
) -> None:
    async with managed() as (_, ups):
        for keyword in ("ProcedureStepLabel", "ProcedureStepState"):
            step = a_step()
            del step[keyword]
            assert await status_of(ups.association.n_create(PUSH, "1.2.3", step)) == 0x0120


async def test_n_get_gives_neither_class_nor_uid_of_the_step(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step")
        for step in (await ups.get(uid), await ups.get(uid, ["SOPInstanceUID", "WorklistLabel"])):
            assert "SOPClassUID" not in step
            assert "SOPInstanceUID" not in step
            assert step.WorklistLabel == "DEFAULT"
        assert [found.SOPInstanceUID for found in await ups.find()] == [uid]


async def test_what_a_step_must_have_is_not_emptied(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        for keyword in (
            "ProcedureStepLabel",
            "WorklistLabel",
            "ScheduledProcedureStepStartDateTime",
            "ScheduledWorkitemCodeSequence",
        ):
            assert await status_of(ups.update(uid, **{keyword: None})) == 0x0121
        assert steps.step(uid).ProcedureStepLabel == "Step"


async def test_a_step_that_is_taken_from_its_station_is_reported(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step", station=IMAGING)
        async with ups.watch(uid) as events:
            assert (await anext(events)).type is StepEventType.STATE
            await ups.update(uid, ScheduledStationNameCodeSequence=[])
            event = await anext(events)
            assert event.type is StepEventType.ASSIGNED
            assert not event.information.ScheduledStationNameCodeSequence


async def test_sequences_that_are_none_are_refused(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step")
        for keyword in (
            "ProcedureStepProgressInformationSequence",
            "UnifiedProcedureStepPerformedProcedureSequence",
            "ScheduledStationNameCodeSequence",
        ):
            broken = Dataset()
            broken.add_new(keyword, "LO", "text")
            assert await status_of(ups.update(uid, broken)) == 0x0106
            created = a_step()
            created.add_new(keyword, "LO", "text")
            assert await status_of(ups.association.n_create(PUSH, None, created)) == 0x0106
        text = Dataset()
        text.add_new("ProcedureStepLabel", "SQ", [Dataset()])
        assert await status_of(ups.update(uid, text)) == 0x0106
        assert steps.step(uid).ProcedureStepLabel == "Step"
        reasons = Dataset()
        reasons.add_new("ProcedureStepDiscontinuationReasonCodeSequence", "LO", "text")
        assert await status_of(ups.association.n_action(PUSH, uid, 2, reasons)) == 0x0106
        assert steps.states[uid] is StepState.SCHEDULED


async def test_what_n_set_may_not_change_stays(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step", PatientName="Ä^B", ScheduledWorkitemCodeSequence=[])
        code = dimse.Code("1", "L").item()
        for fixed in (
            {"ProcedureStepState": "COMPLETED"},
            {"SOPInstanceUID": "1.2"},
            {"SOPClassUID": "1.2"},
            {"PatientName": "C^D"},
            {"PatientID": "2"},
            {"IssuerOfPatientID": "X"},
            {"PatientBirthDate": "20000101"},
            {"PatientSex": "O"},
            {"AdmissionID": "2"},
            {"AdmittingDiagnosesCodeSequence": [code]},
            {"ReferencedRequestSequence": [code]},
            {"ReplacedProcedureStepSequence": [code]},
        ):
            assert await status_of(ups.update(uid, **fixed)) == 0x0106
        same = attributes(PatientName="Ä^B", PatientSex="", WorklistLabel="W")
        await ups.update(uid, same)  # nothing else than it is
        assert (await ups.get(uid)).WorklistLabel == "W"


async def test_actions_that_make_no_sense_are_refused(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step")
        act = ups.association.n_action
        for instance, action, information, status in (
            (uid, 9, {}, 0x0123),
            (uid, 1, {"ProcedureStepState": "PAUSED"}, 0x0115),
            (uid, 1, {"ProcedureStepState": "SCHEDULED", "TransactionUID": "1.2"}, 0xC303),
            (uid, 3, {"ReceivingAE": "STATION"}, 0x0115),
            (uid, 3, {"DeletionLock": "TRUE"}, 0x0115),
            (uid, 3, {"ReceivingAE": "STATION", "DeletionLock": "MAYBE"}, 0x0115),
            (uid, 3, {"ReceivingAE": "NOBODY", "DeletionLock": "TRUE"}, 0xC308),
            (EVERY, 3, {"ReceivingAE": "NOBODY", "DeletionLock": "TRUE"}, 0xC308),
            (uid, 5, {"ReceivingAE": "STATION"}, 0xC314),
            (EVERY, 4, {"ReceivingAE": "NOBODY"}, 0),
        ):
            assert await status_of(act(PUSH, instance, action, attributes(**information))) == status


async def test_a_storage_that_fails_leaves_the_step_as_it_was(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        broken = False

        async def load(self) -> Iterable[Dataset]:
            return []

        async def save(self, step: Dataset) -> None:
            if self.broken:
                raise OSError("disk is full")

        async def remove(self, sop_instance_uid: str) -> None:
            pass

    storage = Failing()
    async with managed(storage=storage) as (steps, ups):
        uid = await ups.create("Step")
        storage.broken = True
        assert await status_of(ups.change_state(uid, StepState.IN_PROGRESS, "1.2")) == 0x0110
        assert steps.states[uid] is StepState.SCHEDULED


async def test_the_scp_says_that_it_needs_its_block(autojump_clock: Clock) -> None:
    steps = dimse.ProcedureSteps()
    with pytest.raises(dimse.LocalProtocolError, match="block"):
        await steps.add(a_step())


# -- what a breaker found --------------------------------------------------------------------------


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


@pytest.mark.parametrize("tag", [0x00741202, 0x00741200, 0x00404010, 0x00080018])
async def test_a_value_of_a_wrong_vr_is_refused_and_spoils_nothing(
    tag: int, autojump_clock: Clock
) -> None:
    bad = Dataset()
    bad.add_new(tag, "FL", None)
    async with managed() as (_, ups):
        uid = await ups.create("Step")
        with pytest.raises(dimse.StatusError) as caught:
            await ups.create("Bad", bad)
        assert caught.value.status == dimse.Status.INVALID_ATTRIBUTE_VALUE
        with pytest.raises(dimse.StatusError) as caught:
            await ups.update(uid, bad)
        assert caught.value.status == dimse.Status.INVALID_ATTRIBUTE_VALUE
        assert len(await ups.find()) == 1
        await ups.get(uid)


class Viewer:
    """Takes events, slowly or while the connection breaks right after each answer."""

    normalized_sop_classes = (dimse.uid_of("UnifiedProcedureStepEvent"),)

    def __init__(self, *, takes: float = 0, leaves: bool = False) -> None:
        self.takes, self.leaves = takes, leaves
        self.seen: list[str] = []
        self.ended = trio.Event()

    async def handle_n_event_report(self, request: dimse.NEventReportRequest) -> dimse.Status:
        await trio.sleep(self.takes)
        state = request.information.get("ProcedureStepState")
        if state:
            self.seen.append(state)
        if state == "CANCELED":
            self.ended.set()
        if self.leaves:
            request.association.start_soon(self.leave, request)
        return dimse.Status.SUCCESS

    async def leave(self, request: dimse.NEventReportRequest) -> None:
        await request.responded.wait()
        await request.association.abort()


@pytest.mark.parametrize(("takes", "leaves"), [(0.2, False), (0, True)])
async def test_a_report_that_was_answered_is_not_sent_again(takes: float, leaves: bool) -> None:
    viewer = Viewer(takes=takes, leaves=leaves)
    with trio.fail_after(30):
        async with dimse.open_server(viewer) as listener:
            peers = {"VIEWER": ("127.0.0.1", listener.port)}
            handler = dimse.ProcedureSteps(peers=peers)
            handler._options = attrs.evolve(handler._options, within=0.5, pause=0.01)
            async with handler as steps, worklist(steps) as ups:
                uid = await ups.create("Step")
                await ups.subscribe(uid, receiving_ae_title="VIEWER")
                async with ups.claim(uid) as work:
                    for percent in range(4):
                        await work.update(progress=percent)
                    await work.cancel()
                await viewer.ended.wait()
    assert viewer.seen == ["SCHEDULED", "IN PROGRESS", "CANCELED"]


async def test_a_watch_cancelled_as_it_begins_leaves_no_subscription(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step")
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                async with ups.watch(uid, deletion_lock=True):
                    await trio.sleep_forever()
        assert not steps._subscriptions.of_step(uid)
