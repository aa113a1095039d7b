"""DIMSE-N with pynetdicom, each side as SCU and as SCP."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association

import dimse_trio as dimse

from .pynetdicom_peer import LE, attributes, listener, request

RT = dimse.uid_of("RTConventionalMachineVerification")
COMMITMENT = dimse.uid_of("StorageCommitmentPushModel")
GRAYSCALE_PRINT = dimse.uid_of("BasicGrayscalePrintManagementMeta")
PRINTER = dimse.uid_of("Printer")


@attrs.define
class Instances:
    """Our handler: instances in a dictionary."""

    instances: dict[str, Dataset] = attrs.field(factory=dict)
    events: list[dimse.NEventReportRequest] = attrs.field(factory=list)

    async def handle_n_create(self, request: dimse.NCreateRequest) -> Dataset:
        self.instances[request.sop_instance_uid] = request.attributes
        return request.attributes

    async def handle_n_set(self, request: dimse.NSetRequest) -> Dataset:
        self.instances[request.sop_instance_uid].update(request.modifications)
        return request.modifications

    async def handle_n_get(self, request: dimse.NGetRequest) -> Dataset:
        return self.instances[request.sop_instance_uid]

    async def handle_n_action(self, request: dimse.NActionRequest) -> Dataset:
        return attributes(PatientID=f"{request.action_type_id} {request.information.PatientID}")

    async def handle_n_delete(self, request: dimse.NDeleteRequest) -> dimse.Status:
        del self.instances[request.sop_instance_uid]
        return dimse.Status.SUCCESS

    async def handle_n_event_report(self, request: dimse.NEventReportRequest) -> dimse.Status:
        self.events.append(request)
        return dimse.Status.SUCCESS


async def test_our_six_operations_reach_pynetdicom() -> None:
    store: dict[str, Dataset] = {}
    with trio.fail_after(30), listener(RT, store=store) as port:
        async with dimse.open_association(
            "127.0.0.1", port, contexts=[dimse.PresentationContext(RT, scp=True)]
        ) as association:
            made = await association.n_create(RT, attributes=attributes(PatientID="1"))
            uid = made.sop_instance_uid
            assert uid == "1.2.3.4"
            assert uid in store
            await association.n_set(RT, uid, attributes(PatientID="2", PatientName="A^B"))
            got = await association.n_get(RT, uid, ["PatientID"])
            assert got.data_set.PatientID == "2"
            done = await association.n_action(RT, uid, 3, attributes(PatientID="4"))
            assert done.data_set.PatientID == "3 4"
            event = await association.n_event_report(RT, uid, 1, attributes(PatientID="5"))
            assert event.data_set.PatientID == "5"
            await association.n_delete(RT, uid)
            with pytest.raises(dimse.StatusError) as caught:
                await association.n_delete(RT, uid)
            assert caught.value.status == dimse.Status.NO_SUCH_SOP_INSTANCE


async def test_a_printer_of_pynetdicom_is_asked_on_the_meta_classs_context() -> None:
    printer = {"1.2.840.10008.5.1.1.17": attributes(PrinterName="LASER")}
    with trio.fail_after(30), listener(GRAYSCALE_PRINT, store=printer) as port:
        async with dimse.open_association(
            "127.0.0.1", port, contexts=[dimse.PresentationContext(GRAYSCALE_PRINT)]
        ) as association:
            got = await association.n_get(PRINTER, "1.2.840.10008.5.1.1.17")
            assert got.data_set.PrinterName == "LASER"


async def test_pynetdicoms_six_operations_reach_our_handler() -> None:
    def operate(association: Association) -> list[Any]:
        def checked(answer: tuple[Dataset, Dataset | None]) -> Dataset | None:
            assert answer[0].Status == 0x0000, answer[0]
            return answer[1]

        made = association.send_n_create(attributes(PatientID="1"), RT, "1.2.3")
        checked(made)
        uid = "1.2.3"
        checked(association.send_n_set(attributes(PatientID="2"), RT, uid))
        got = checked(association.send_n_get([0x00100020], RT, uid))
        done = checked(association.send_n_action(attributes(PatientID="4"), 3, RT, uid))
        checked(association.send_n_event_report(attributes(PatientID="5"), 1, RT, uid))
        assert association.send_n_delete(RT, uid).Status == 0x0000
        assert got is not None
        assert done is not None
        return [got.PatientID, done.PatientID]

    handler = Instances()
    with trio.fail_after(30):
        async with dimse.open_server(handler) as server:
            answers = await request(server.port, operate, [(RT, LE)])
    assert answers == ["2", "3 4"]
    assert handler.instances == {}
    assert [event.information.PatientID for event in handler.events] == ["5"]


async def test_our_scps_event_reaches_pynetdicom_on_the_same_association() -> None:
    seen: list[str] = []

    class Committing:
        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            request.association.start_soon(self.report, request)
            return dimse.Status.SUCCESS

        async def report(self, request: dimse.NActionRequest) -> None:
            await request.responded.wait()
            await request.association.n_event_report(
                COMMITMENT, "1.2.840.10008.1.20.1.1", 1, attributes(TransactionUID="1.2.3")
            )
            reported.set()

    def take(event: evt.Event) -> tuple[int, None]:
        seen.append(event.event_information.TransactionUID)
        return 0x0000, None

    def commit(association: Association) -> None:
        status, _ = association.send_n_action(
            attributes(TransactionUID="1.2.3"), 1, COMMITMENT, "1.2.840.10008.1.20.1.1"
        )
        assert status.Status == 0x0000
        trio.from_thread.run(reported.wait)

    reported = trio.Event()
    with trio.fail_after(30):
        async with dimse.open_server(Committing()) as server:
            await request(
                server.port,
                commit,
                [(COMMITMENT, LE)],
                evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)],
            )
    assert seen == ["1.2.3"]
