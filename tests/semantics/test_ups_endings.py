"""Unified Procedure Steps: what is left when a claim, a watch or a program has ended."""

from __future__ import annotations

import logging
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

from .procedure_steps import IMAGING, PUSH, Clock, a_step, managed, status_of, worklist
from .script import attributes


@attrs.define
class Storage:
    """Keeps steps in memory; each change takes `seconds`."""

    steps: list[Dataset] = attrs.field(factory=list)
    seconds: float = 0

    async def load(self) -> Iterable[Dataset]:
        return self.steps

    async def save(self, step: Dataset) -> None:
        await trio.sleep(self.seconds)

    async def remove(self, sop_instance_uid: str) -> None:
        pass


# -- claims ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["complete", "cancel"])
async def test_a_claim_cancelled_while_it_ends_knows_how_the_step_has_ended(
    ending: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with managed(storage=Storage(seconds=1)) as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        with trio.CancelScope() as scope:
            async with ups.claim(uid) as work:
                scope.deadline = trio.current_time() + 1.5  # in the second of two requests
                await (work.complete(workitem=IMAGING) if ending == "complete" else work.cancel())
        assert scope.cancelled_caught
        ended = StepState.COMPLETED if ending == "complete" else StepState.CANCELED
        assert (work.state, steps.states[uid]) == (ended, ended)
        assert (await ups.state(uid)) is ended
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_claim_that_was_never_asked_for_is_not_undone(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step")
        async with ups.claim(uid) as work:
            with trio.CancelScope() as scope:
                scope.cancel()
                async with ups.claim(uid, transaction_uid=work.transaction_uid):
                    pytest.fail("it is not entered")
            with pytest.raises(TypeError):
                async with ups.claim(5, transaction_uid=work.transaction_uid):  # type: ignore[arg-type]
                    pytest.fail("it is not entered")
            assert steps.states[uid] is StepState.IN_PROGRESS
            work.keep()


class Forgetful(dimse.EchoSCP):
    """Grants claims, and refuses everything else, with one status."""

    normalized_sop_classes = (PUSH,)

    def __init__(self, status: int, state: str = "IN PROGRESS") -> None:
        self.status, self.state = status, state

    async def handle_n_create(self, request: dimse.NCreateRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_n_set(self, request: dimse.NSetRequest) -> dimse.Status:
        return dimse.Status(self.status)

    async def handle_n_get(self, request: dimse.NGetRequest) -> Dataset:
        return attributes(ProcedureStepState=self.state)


@pytest.mark.parametrize("status", [0x0110, 0xC301, 0xC307, 0xC310, 0xC300])
async def test_a_claimed_step_that_could_not_be_canceled_is_logged(
    status: int, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = dimse.procedure_step_contexts()
    async with associated_pair(Forgetful(status), contexts=contexts) as association:
        with pytest.raises(KeyError):
            async with dimse.UnifiedProcedureSteps(association).claim("1.2.3") as work:
                raise KeyError
    assert work.state is StepState.IN_PROGRESS
    assert f"{status:#06x}" in caplog.text


class NeverDone(dimse.EchoSCP):
    """Takes an event, and does not come to an end with it."""

    def __init__(self) -> None:
        self.busy = trio.Event()

    async def handle_n_event_report(self, request: dimse.NEventReportRequest) -> dimse.Status:
        self.busy.set()
        await trio.sleep_forever()


async def test_a_claim_is_undone_though_what_the_peer_asks_for_is_cancelled_with_it(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    busy = NeverDone()
    async with dimse.ProcedureSteps() as steps:
        with trio.CancelScope() as scope:
            async with worklist(steps, requestor_handler=busy) as ups:
                uid = await ups.create("Step", workitem=IMAGING)
                await ups.subscribe(uid)
                async with ups.claim(uid):
                    await busy.busy.wait()
                    scope.cancel()
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert steps.states[uid] is StepState.CANCELED
    assert "left undone" not in caplog.text


# -- watches ---------------------------------------------------------------------------------------


async def test_of_two_watches_of_a_step_each_ends_by_itself(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step")
        async with ups.watch(uid) as first:
            async with ups.watch(uid):
                await anext(first)
                await anext(first)  # each subscription is answered with the state
            await ups.request_cancel(uid)
            kinds = [(await anext(first)).type for _ in range(3)]
    assert kinds == [StepEventType.CANCEL_REQUESTED, StepEventType.STATE, StepEventType.STATE]


async def test_a_step_watched_among_all_is_told_of_when_its_own_watch_has_ended(
    autojump_clock: Clock,
) -> None:
    async with managed() as (_, ups):
        async with ups.watch() as every:
            uid = await ups.create("Step")
            async with ups.watch(uid) as only:
                assert (await anext(every)).state is StepState.SCHEDULED
            await ups.request_cancel(uid)
            with pytest.raises(dimse.LocalProtocolError, match="left"):
                [event async for event in only]
            # the one entered first has the answer to the second subscription, too
            events = [await anext(every) for _ in range(4)]
    assert events[-1].state is StepState.CANCELED


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"matching": {"NoSuchKeyword": "1"}}, dimse.QueryError),
        ({"matching": 5}, dimse.LocalProtocolError),
        ({"sop_instance_uid": "1.2.3", "matching": {"PatientID": "1"}}, dimse.LocalProtocolError),
        ({"sop_instance_uid": "x"}, dimse.LocalProtocolError),
        ({"matching": attributes(PatientID="1", SliceThickness="1")}, dimse.DataSetError),
        (None, None),
    ],
)
async def test_a_watch_that_was_never_asked_for_ends_no_subscription(
    arguments: dict[str, Any] | None, error: type[Exception] | None, autojump_clock: Clock
) -> None:
    async with managed() as (steps, ups):
        await ups.subscribe()
        if error is None:
            with trio.CancelScope() as scope:
                scope.cancel()
                async with ups.watch():
                    pytest.fail("it is not entered")
        else:
            assert arguments is not None
            if error is dimse.DataSetError:
                arguments["matching"].add_new("NumberOfStudyRelatedInstances", "US", "many")
            with pytest.raises(error):
                async with ups.watch(**arguments):
                    pytest.fail("it is not entered")
        assert steps._subscriptions.ae_titles == ["STATION"]


async def test_a_watch_that_is_refused_says_nothing_more(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with managed() as (_, ups):
        with pytest.raises(dimse.StatusError) as refused:
            async with ups.watch("1.2.3"):
                pass
        assert refused.value.status == 0xC307
    assert caplog.records == []


async def test_the_watch_of_a_step_that_has_made_room_for_another_ends_without_a_word(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with managed(max_steps=1) as (steps, ups):
        uid = await ups.create("Step")
        async with ups.watch(uid):
            await ups.request_cancel(uid)
            other = await ups.create("Another")
        assert set(steps.states) == {other}
    assert "left undone" not in caplog.text


async def test_each_of_many_steps_is_reported_to_who_locks_them_all(autojump_clock: Clock) -> None:
    many = 1500
    async with dimse.ProcedureSteps() as steps:
        uids = [await steps.add(a_step()) for _ in range(many)]
        async with worklist(steps) as ups:
            async with ups.watch(deletion_lock=True, limit=many) as events:
                seen = [(await anext(events)).sop_instance_uid for _ in range(many)]
    assert seen == uids


async def test_no_filter_of_a_subscription_finds_out_a_transaction_uid(
    autojump_clock: Clock,
) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step")
        async with ups.claim(uid) as work:
            for guess in (work.transaction_uid, "1.2.3"):
                keys = attributes(TransactionUID=guess)
                async with ups.watch(matching=keys, deletion_lock=True) as events:
                    # told of the step whatever the guess is: it is no key
                    assert (await anext(events)).sop_instance_uid == uid
            work.keep()


# -- what a storage brings in ----------------------------------------------------------------------


async def test_what_a_storage_loads_that_is_no_step_is_left_out_and_spoils_nothing(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    good = a_step(SOPInstanceUID="1.2.3", PatientID="secret")
    unsendable = a_step(SOPInstanceUID="1.2.4", PatientName="secret")
    unsendable.add_new("ScheduledProcedureStepModificationDateTime", "DT", "20260101")
    unsendable.add_new("NumberOfStudyRelatedInstances", "US", "secret")
    stateless = a_step(SOPInstanceUID="1.2.5", ProcedureStepState="secret")
    nameless = a_step(PatientID="secret")
    caplog.clear()  # pydicom has had its say
    async with managed(storage=Storage([unsendable, stateless, nameless, good])) as (steps, ups):
        assert steps.states == {"1.2.3": StepState.SCHEDULED}
        assert [step.SOPInstanceUID for step in await ups.find()] == ["1.2.3"]
        assert await status_of(ups.request_cancel("1.2.4")) == 0xC307
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    assert "secret" not in caplog.text


# -- associations of others ------------------------------------------------------------------------


async def test_a_requestor_that_manages_steps_can_leave_its_block(autojump_clock: Clock) -> None:
    watch = dimse.uid_of("UnifiedProcedureStepWatch")
    event = dimse.uid_of("UnifiedProcedureStepEvent")
    got: list[Dataset] = []

    class Asking:
        normalized_sop_classes = (watch, event)

        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            yield

        async def handle_n_event_report(self, request: dimse.NEventReportRequest) -> dimse.Status:
            result = await request.association.n_get(PUSH, uid)
            got.append(result.data_set)
            return dimse.Status.SUCCESS

    async with dimse.ProcedureSteps() as steps:
        uid = await steps.add(a_step())
        contexts = [dimse.PresentationContext(each, scp=True) for each in (watch, event)]
        with trio.fail_after(60):
            async with associated_pair(
                Asking(), contexts=contexts, requestor_handler=steps
            ) as association:
                await association.n_event_report(PUSH, uid, StepEventType.STATE, Dataset())
    assert [step.ProcedureStepLabel for step in got] == ["Step"]


async def test_reports_that_cannot_be_delivered_are_logged_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with dimse.ProcedureSteps(retries=0) as steps:
        for _ in range(20):
            await steps.add(a_step())
        async with worklist(steps) as ups:
            async with ups.watch(deletion_lock=True, limit=5) as events:
                await trio.sleep(60)
                assert events.refused > 5
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["event reports to STATION cannot be delivered"]


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["山田^花子", "Müller^Jörg", "Doe^Jane"])
async def test_names_reach_others_as_they_are(name: str, autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        added = await steps.add(a_step(PatientName=name, ProcedureStepLabel=name))
        created = await ups.create(name, PatientName=name)
        for uid in (added, created):
            for seen in (await ups.get(uid), steps.step(uid)):
                assert (seen.PatientName, seen.ProcedureStepLabel) == (name, name)
        assert len(await ups.find(PatientName=name)) == 2
