"""Unified Procedure Steps over sockets: with pynetdicom on either side, and with ourselves."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import trio
from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

import dimse_trio as dimse
from dimse_trio import StepEventType, StepState

from .pynetdicom_peer import LE, attributes, request

PUSH = dimse.uid_of("UnifiedProcedureStepPush")
PULL = dimse.uid_of("UnifiedProcedureStepPull")
WATCH = dimse.uid_of("UnifiedProcedureStepWatch")
EVENT = dimse.uid_of("UnifiedProcedureStepEvent")
QUERY = dimse.uid_of("UnifiedProcedureStepQuery")
CLASSES = (PUSH, PULL, WATCH, EVENT, QUERY)
IMAGING = dimse.Code("110001", "DCM", "Image Processing")


def a_step() -> Dataset:
    return attributes(
        ProcedureStepState="SCHEDULED",
        ProcedureStepLabel="Step",
        ScheduledProcedureStepStartDateTime="20260101",
        InputReadinessState="READY",
    )


Received = queue.SimpleQueue[tuple[str, int, str]]


def taking_events(received: Received) -> list[Any]:
    def take(event: evt.Event) -> tuple[int, None]:
        information = event.event_information
        uid = str(event.request.AffectedSOPInstanceUID)
        received.put((uid, event.event_type, information.get("ProcedureStepState", "")))
        return 0x0000, None

    return [(evt.EVT_N_EVENT_REPORT, take)]


@contextmanager
def listener(handlers: list[Any], *sop_classes: str) -> Iterator[int]:
    ae = AE(ae_title="PYNETDICOM")
    for sop_class in sop_classes:
        ae.add_supported_context(sop_class, LE, scu_role=True, scp_role=True)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        ae.shutdown()


def checked(answer: tuple[Dataset, Dataset | None], status: int = 0x0000) -> Dataset | None:
    assert answer[0].Status == status, answer[0]
    return answer[1]


async def test_pynetdicom_schedules_claims_performs_and_completes_at_our_scp() -> None:
    def operate(association: Association) -> None:
        uid, lock = "1.2.3", "1.2.4"
        checked(association.send_n_create(a_step(), PUSH, uid), 0xB300)
        found = [i for s, i in association.send_c_find(attributes(SOPInstanceUID=""), PULL) if i]
        assert [match.SOPInstanceUID for match in found] == [uid]

        def act(action: int, status: int, **information: object) -> None:
            answer = association.send_n_action(
                attributes(**information) or None, action, PUSH, uid, meta_uid=PULL
            )
            checked(answer, status)

        def change(status: int, transaction_uid: str = lock, **changes: object) -> None:
            changes["TransactionUID"] = transaction_uid
            answer = association.send_n_set(attributes(**changes), PUSH, uid, meta_uid=PULL)
            checked(answer, status)

        act(1, 0xC310, ProcedureStepState="COMPLETED", TransactionUID=lock)
        act(1, 0x0000, ProcedureStepState="IN PROGRESS", TransactionUID=lock)
        act(1, 0xC301, ProcedureStepState="IN PROGRESS", TransactionUID="1.2.5")
        act(1, 0xC302, ProcedureStepState="IN PROGRESS", TransactionUID=lock)
        change(0xC301, "1.2.5", ProcedureStepLabel="X")
        act(1, 0xC304, ProcedureStepState="COMPLETED", TransactionUID=lock)
        performed = attributes(
            PerformedStationNameCodeSequence=[IMAGING.item()],
            PerformedProcedureStepStartDateTime="20260101",
            PerformedWorkitemCodeSequence=[IMAGING.item()],
            PerformedProcedureStepEndDateTime="20260102",
            OutputInformationSequence=[],
        )
        change(0x0000, UnifiedProcedureStepPerformedProcedureSequence=[performed])
        got = checked(association.send_n_get([0x00741000, 0x00081195], PUSH, uid, meta_uid=WATCH))
        assert got is not None
        assert [element.keyword for element in got] == ["ProcedureStepState"]
        act(1, 0x0000, ProcedureStepState="COMPLETED", TransactionUID=lock)
        act(2, 0xC311)

    with trio.fail_after(30):
        async with dimse.ProcedureSteps() as steps, dimse.open_server(steps, 0) as server:
            await request(server.port, operate, [(uid, LE) for uid in CLASSES])
            assert steps.states == {"1.2.3": StepState.COMPLETED}


async def test_our_scu_works_through_a_step_of_pynetdicoms_scp() -> None:
    steps: dict[str, Dataset] = {}
    log: list[tuple[str, str]] = []

    def create(event: evt.Event) -> tuple[int, Dataset]:
        uid = str(event.request.AffectedSOPInstanceUID)
        steps[uid] = event.attribute_list
        log.append(("create", str(event.request.AffectedSOPClassUID)))
        return 0x0000, Dataset()

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        log.append(("find", str(event.context.abstract_syntax)))
        for uid in steps:
            yield 0xFF00, attributes(SOPInstanceUID=uid, ProcedureStepState="SCHEDULED")

    def get(event: evt.Event) -> tuple[int, Dataset]:
        return 0x0000, steps[event.request.RequestedSOPInstanceUID]

    def change(event: evt.Event) -> tuple[int, Dataset]:
        step = steps[event.request.RequestedSOPInstanceUID]
        if event.modification_list.TransactionUID != step.TransactionUID:
            return 0xC301, Dataset()
        step.update(event.modification_list)
        log.append(("set", str(event.request.RequestedSOPClassUID)))
        return 0x0000, Dataset()

    def act(event: evt.Event) -> tuple[int, Dataset | None]:
        information = event.action_information
        log.append((f"action {event.action_type}", information.get("ProcedureStepState", "")))
        if event.action_type == 1:
            step = steps[event.request.RequestedSOPInstanceUID]
            step.TransactionUID = information.TransactionUID
            step.ProcedureStepState = information.ProcedureStepState
        return 0x0000, None

    handlers = [
        (evt.EVT_N_CREATE, create),
        (evt.EVT_C_FIND, find),
        (evt.EVT_N_GET, get),
        (evt.EVT_N_SET, change),
        (evt.EVT_N_ACTION, act),
    ]
    with trio.fail_after(30), listener(handlers, *CLASSES) as port:
        async with dimse.open_association(
            "127.0.0.1", port, contexts=dimse.procedure_step_contexts()
        ) as association:
            ups = dimse.UnifiedProcedureSteps(association)
            uid = await ups.create("Step", workitem=IMAGING)
            assert [match.SOPInstanceUID for match in await ups.find()] == [uid]
            async with ups.claim(uid) as work:
                await work.update(progress=50)
                await work.complete()
            await ups.subscribe(uid, deletion_lock=True)
            await ups.request_cancel(uid, "late")
            await ups.suspend()
            await ups.unsubscribe()
    assert steps[uid].ProcedureStepState == "COMPLETED"
    assert log == [
        ("create", PUSH),
        ("find", PULL),
        ("action 1", "IN PROGRESS"),
        ("set", PUSH),
        ("set", PUSH),
        ("action 1", "COMPLETED"),
        ("action 3", ""),
        ("action 2", ""),
        ("action 5", ""),
        ("action 4", ""),
    ]


async def test_events_reach_pynetdicom_on_its_association_and_on_one_of_ours() -> None:
    same: Received = queue.SimpleQueue()
    new: Received = queue.SimpleQueue()
    done = trio.Event()

    def subscribe(association: Association) -> None:
        for title in ("STATION", "PYNETDICOM"):
            information = attributes(ReceivingAE=title, DeletionLock="FALSE")
            checked(association.send_n_action(information, 3, PUSH, "1.2.3", meta_uid=WATCH))
        checked(association.send_n_action(None, 2, PUSH, "1.2.3", meta_uid=WATCH))
        for events in (same, new):
            got = [events.get(timeout=20) for _ in range(4)]
            assert got == [
                ("1.2.3", 1, "SCHEDULED"),
                ("1.2.3", 2, ""),
                ("1.2.3", 1, "IN PROGRESS"),
                ("1.2.3", 1, "CANCELED"),
            ]

    def connect(port: int) -> None:
        ae = AE(ae_title="STATION")
        for uid in CLASSES:
            ae.add_requested_context(uid, LE)
        association = ae.associate("127.0.0.1", port, evt_handlers=taking_events(same))
        assert association.is_established
        try:
            subscribe(association)
        finally:
            association.release()

    with trio.fail_after(60), listener(taking_events(new), EVENT) as port:
        async with (
            dimse.ProcedureSteps(peers={"PYNETDICOM": ("127.0.0.1", port)}) as steps,
            dimse.open_server(steps, 0) as server,
        ):
            await steps.add(a_step(), "1.2.3")
            await trio.to_thread.run_sync(connect, server.port)
            done.set()
    assert done.is_set()


async def test_events_of_pynetdicom_reach_our_listener() -> None:
    events = dimse.StepEvents()

    def report(port: int) -> None:
        ae = AE(ae_title="PYNETDICOM")
        ae.add_requested_context(EVENT, LE)
        association = ae.associate("127.0.0.1", port, ext_neg=[build_role(EVENT, scp_role=True)])
        assert association.is_established
        for state in ("SCHEDULED", "IN PROGRESS"):
            information = attributes(ProcedureStepState=state, InputReadinessState="READY")
            answer = association.send_n_event_report(information, 1, PUSH, "1.2.3", meta_uid=EVENT)
            checked(answer)
        answer = association.send_n_event_report(None, 99, PUSH, "1.2.3", meta_uid=EVENT)
        checked(answer, 0x0113)
        association.release()

    with trio.fail_after(30):
        async with dimse.open_server(events, 0) as server:
            await trio.to_thread.run_sync(report, server.port)
            states = [(await anext(events)).state for _ in range(2)]
    assert states == [StepState.SCHEDULED, StepState.IN_PROGRESS]


# -- with ourselves --------------------------------------------------------------------------------


@attrs.define
class Worker:
    port: int
    done: list[str] = attrs.field(factory=list)

    async def work(self) -> None:
        async with dimse.open_association(
            "127.0.0.1", self.port, contexts=dimse.procedure_step_contexts()
        ) as association:
            ups = dimse.UnifiedProcedureSteps(association)
            while found := await ups.find(ProcedureStepState="SCHEDULED"):
                for match in found:
                    try:
                        async with ups.claim(str(match.SOPInstanceUID)) as work:
                            await work.complete(workitem=IMAGING)
                            self.done.append(work.sop_instance_uid)
                    except dimse.StatusError as error:
                        if error.status not in (0xC300, 0xC301):
                            raise


async def test_two_workers_share_the_steps_and_a_watcher_sees_each_end_once() -> None:
    with trio.fail_after(60):
        watcher = dimse.StepEvents()

        async def where(ae_title: str) -> dimse.Destination | None:
            known = ae_title == "WATCHER"
            return dimse.Destination("127.0.0.1", listening.port) if known else None

        async with (
            dimse.open_server(watcher, 0) as listening,
            dimse.ProcedureSteps(peers=where) as steps,
            dimse.open_server(steps, 0, contexts=dimse.procedure_step_contexts()) as server,
        ):
            async with dimse.open_association(
                "127.0.0.1", server.port, contexts=dimse.procedure_step_contexts()
            ) as association:
                ups = dimse.UnifiedProcedureSteps(association)
                await ups.subscribe(receiving_ae_title="WATCHER")
            uids = [await steps.add(a_step()) for _ in range(10)]
            workers = [Worker(server.port) for _ in range(2)]
            async with trio.open_nursery() as nursery:
                for worker in workers:
                    nursery.start_soon(worker.work)
            seen: dict[str, list[StepState | None]] = {uid: [] for uid in uids}
            while not all(states[-1:] == [StepState.COMPLETED] for states in seen.values()):
                event = await anext(watcher)
                if event.type is StepEventType.STATE:
                    seen[event.sop_instance_uid].append(event.state)
    done = [uid for worker in workers for uid in worker.done]
    assert sorted(done) == sorted(uids)
    in_order = [StepState.SCHEDULED, StepState.IN_PROGRESS, StepState.COMPLETED]
    assert all(states == in_order for states in seen.values())


async def test_a_subscriber_that_is_gone_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(30):
        async with dimse.open_server(dimse.StepEvents(), 0) as gone:
            port = gone.port
        async with (
            dimse.ProcedureSteps(peers={"GONE": ("127.0.0.1", port)}, retries=0) as steps,
            dimse.open_server(steps, 0) as server,
            dimse.open_association(
                "127.0.0.1", server.port, contexts=dimse.procedure_step_contexts()
            ) as association,
        ):
            ups = dimse.UnifiedProcedureSteps(association)
            await ups.subscribe(receiving_ae_title="GONE")
            async with ups.watch() as events:
                uid = await ups.create("Step", workitem=IMAGING)
                assert (await anext(events)).sop_instance_uid == uid
                async with ups.claim(uid) as work:
                    await work.complete()
                assert (await anext(events)).state is StepState.IN_PROGRESS
            assert steps.states[uid] is StepState.COMPLETED
