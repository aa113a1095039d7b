"""Unified Procedure Steps: subscriptions, and the events that watchers are told of."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

import dimse_trio as dimse
from dimse_trio import StepEventType, StepState

from .procedure_steps import IMAGING, PUSH, Clock, a_step, managed, status_of, worklist
from .script import attributes


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


async def test_a_step_that_is_taken_from_its_station_is_reported(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step", station=IMAGING)
        async with ups.watch(uid) as events:
            assert (await anext(events)).type is StepEventType.STATE
            await ups.update(uid, ScheduledStationNameCodeSequence=[])
            event = await anext(events)
            assert event.type is StepEventType.ASSIGNED
            assert not event.information.ScheduledStationNameCodeSequence


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
