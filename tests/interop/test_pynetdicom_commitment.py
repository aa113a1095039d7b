"""Storage commitment with pynetdicom, each side as SCU and as SCP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

import dimse_trio as dimse
from dimse_trio import FailureReason, SOPReference

from .orthanc_peer import free_ports
from .pynetdicom_peer import request

pytestmark = pytest.mark.interop

COMMITMENT = dimse.uid_of("StorageCommitmentPushModel")
INSTANCE = "1.2.840.10008.1.20.1.1"
CT = dimse.uid_of("CTImageStorage")
LE = "1.2.840.10008.1.2.1"
GOOD, BAD = SOPReference(CT, "1.2.1"), SOPReference(CT, "1.2.2")


class Keeper(dimse.StorageCommitmentProvider):
    """Ours: it has `GOOD`."""

    async def committed(self, reference: SOPReference, /) -> FailureReason | None:
        return None if reference == GOOD else FailureReason.NO_SUCH_OBJECT_INSTANCE


def report_of(information: Dataset) -> Dataset:
    """What pynetdicom's SCP, which has `GOOD`, says to a request."""
    report = Dataset()
    report.TransactionUID = information.TransactionUID
    report.ReferencedSOPSequence = []
    report.FailedSOPSequence = []
    for item in information.ReferencedSOPSequence:
        if item.ReferencedSOPInstanceUID == GOOD.sop_instance_uid:
            report.ReferencedSOPSequence.append(item)
        else:
            item.FailureReason = 0x0112
            report.FailedSOPSequence.append(item)
    return report


@contextmanager
def scp(tell: Callable[[Association, Dataset], None]) -> Iterator[int]:
    """pynetdicom's SCP, which tells in a thread of its own, once it has answered."""
    threads: list[threading.Thread] = []

    def act(event: evt.Event) -> tuple[int, None]:
        report = report_of(event.action_information)
        threads.append(threading.Thread(target=tell, args=(event.assoc, report)))
        return 0x0000, None

    def sent(event: evt.Event) -> None:
        if type(event.message).__name__ == "N_ACTION_RSP":
            threads[-1].start()

    ae = AE(ae_title="PYNETDICOM")
    ae.add_supported_context(COMMITMENT, LE)
    handlers: list[Any] = [(evt.EVT_N_ACTION, act), (evt.EVT_DIMSE_SENT, sent)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        for thread in threads:
            thread.join()
        ae.shutdown()


async def commit(pacs: dimse.RemoteAE) -> None:
    result = await pacs.commit([GOOD, BAD])
    assert result.committed == (GOOD,)
    assert [each.reference for each in result.failed] == [BAD]


async def test_pynetdicom_reports_on_the_same_association() -> None:
    def tell(association: Association, report: Dataset) -> None:
        association.send_n_event_report(report, 2, COMMITMENT, INSTANCE)

    with trio.fail_after(30), scp(tell) as port:
        await commit(dimse.RemoteAE("PYNETDICOM", "127.0.0.1", port))


async def test_pynetdicom_reports_on_an_association_of_its_own() -> None:
    statuses: list[int] = []

    def tell(_: Association, report: Dataset) -> None:
        ae = AE(ae_title="PYNETDICOM")
        ae.add_requested_context(COMMITMENT, LE)
        role = build_role(COMMITMENT, scu_role=False, scp_role=True)
        association = ae.associate("127.0.0.1", ours, ae_title="DIMSE-TRIO", ext_neg=[role])
        assert association.is_established
        for uid in ("1.2.3", report.TransactionUID):
            report.TransactionUID = uid
            status, _ = association.send_n_event_report(report, 2, COMMITMENT, INSTANCE)
            statuses.append(status.Status)
        association.release()

    [ours] = free_ports(1)
    with trio.fail_after(30), scp(tell) as port:
        await commit(dimse.RemoteAE("PYNETDICOM", "127.0.0.1", port, listen_port=ours))
    assert statuses == [dimse.Status.INVALID_ARGUMENT_VALUE, 0x0000]


def asking() -> Dataset:
    information = Dataset()
    information.TransactionUID = "1.2.3.4"
    information.ReferencedSOPSequence = []
    for reference in (GOOD, BAD):
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        information.ReferencedSOPSequence.append(item)
    return information


class Reports:
    """What pynetdicom is told, and that it was."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Dataset]] = []
        self.came = threading.Event()
        self.handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self.take)]

    def take(self, event: evt.Event) -> tuple[int, None]:
        self.seen.append((event.event_type, event.event_information))
        self.came.set()
        return 0x0000, None

    def check(self) -> None:
        [(event_type, information)] = self.seen
        assert event_type == 2
        assert information.TransactionUID == "1.2.3.4"
        [kept] = information.ReferencedSOPSequence
        [failed] = information.FailedSOPSequence
        assert kept.ReferencedSOPInstanceUID == GOOD.sop_instance_uid
        assert failed.ReferencedSOPInstanceUID == BAD.sop_instance_uid
        assert failed.FailureReason == 0x0112


async def test_pynetdicom_is_told_on_the_same_association() -> None:
    reports = Reports()

    def ask(association: Association) -> None:
        status, _ = association.send_n_action(asking(), 1, COMMITMENT, INSTANCE)
        assert status.Status == 0x0000
        assert reports.came.wait(20)

    with trio.fail_after(30):
        async with dimse.open_server(Keeper()) as server:
            await request(server.port, ask, [(COMMITMENT, LE)], evt_handlers=reports.handlers)
    reports.check()


async def test_pynetdicom_is_told_on_an_association_of_our_own() -> None:
    class Separate(Keeper):
        report_on_same_association = False

    def ask(association: Association) -> None:
        status, _ = association.send_n_action(asking(), 1, COMMITMENT, INSTANCE)
        assert status.Status == 0x0000

    reports = Reports()
    ae = AE(ae_title="PYNETDICOM")
    ae.add_supported_context(COMMITMENT, LE, scu_role=False, scp_role=True)
    listener = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=reports.handlers)
    assert listener is not None
    try:
        peers = {"PYNETDICOM": ("127.0.0.1", listener.socket.getsockname()[1])}
        with trio.fail_after(30):
            async with dimse.open_server(Separate(), peers=peers) as server:
                await request(server.port, ask, [(COMMITMENT, LE)])
                assert await trio.to_thread.run_sync(reports.came.wait, 20)
                await server.stop(grace=5)
    finally:
        ae.shutdown()
    reports.check()
