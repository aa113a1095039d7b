"""Performed procedure steps and relevant patient information with pynetdicom, both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association

import dimse_trio as dimse

from .pynetdicom_peer import LE, listener, request

pytestmark = pytest.mark.interop

MPPS = dimse.uid_of("ModalityPerformedProcedureStep")
RETRIEVE = dimse.uid_of("ModalityPerformedProcedureStepRetrieve")
GENERAL = dimse.uid_of("GeneralRelevantPatientInformationQuery")
SERIES = dimse.PerformedSeries("1.2.4", "HEAD", [("1.2.840.10008.5.1.4.1.1.2", "1.2.5")])
WHO = {"Modality": "CT", "PerformedStationAETitle": "SCANNER", "PatientName": "Müller^Ä"}


async def test_our_step_reaches_pynetdicom() -> None:
    store: dict[str, Dataset] = {}
    with trio.fail_after(30), listener(MPPS, store=store) as port:
        async with (
            dimse.open_association(
                "127.0.0.1", port, contexts=[dimse.PresentationContext(MPPS)]
            ) as association,
            association.performed_procedure_step(**WHO) as step,
        ):
            await step.update(PerformedProcedureStepDescription="x")
            await step.complete(SERIES)
    assert store[step.uid].PerformedProcedureStepStatus == "COMPLETED"
    assert store[step.uid].PatientName == "Müller^Ä"
    assert store[step.uid].PerformedSeriesSequence[0].SeriesInstanceUID == "1.2.4"


async def test_pynetdicoms_step_reaches_ours() -> None:
    def operate(association: Association) -> list[Any]:
        made = dimse.performed_step_attributes(**WHO)
        changes = Dataset()
        changes.PerformedProcedureStepStatus = "DISCONTINUED"
        changes.PerformedProcedureStepEndDate = "20260102"
        changes.PerformedProcedureStepEndTime = "0900"
        created, _ = association.send_n_create(made, MPPS, "1.2.3")
        ended, _ = association.send_n_set(changes, MPPS, "1.2.3")
        late, _ = association.send_n_set(changes, MPPS, "1.2.3")
        _, got = association.send_n_get([0x00400252, 0x00100010], RETRIEVE, "1.2.3")
        assert got is not None
        return [created.Status, ended.Status, late, got]

    with trio.fail_after(30):
        async with dimse.open_server(dimse.PerformedProcedureSteps()) as server:
            created, ended, late, got = await request(
                server.port, operate, [(MPPS, LE), (RETRIEVE, LE)]
            )
    assert (created, ended, late.Status) == (0, 0, 0x0110)
    assert late.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    assert late.ErrorID == 0xA710
    assert (got.PerformedProcedureStepStatus, got.PatientName) == ("DISCONTINUED", "Müller^Ä")


async def test_relevant_patient_information_of_pynetdicom() -> None:
    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        report = Dataset()
        report.PatientID = event.identifier.PatientID
        report.ContentLabel = event.identifier.ContentTemplateSequence[0].TemplateIdentifier
        yield 0xFF00, report

    ae = AE()
    ae.add_supported_context(GENERAL, LE)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    assert server is not None
    try:
        with trio.fail_after(30):
            async with dimse.open_association(
                *server.socket.getsockname(), contexts=[dimse.PresentationContext(GENERAL)]
            ) as association:
                (report,) = await association.find_relevant_patient("P1")
    finally:
        ae.shutdown()
    assert (report.PatientID, report.ContentLabel) == ("P1", "9007")


async def test_pynetdicom_asks_us_for_relevant_patient_information() -> None:
    class Reports:
        query_sop_classes = (GENERAL,)

        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            report = Dataset()
            report.PatientID = request.identifier.PatientID
            yield report

    def operate(association: Association) -> list[str]:
        answers = association.send_c_find(dimse.relevant_patient_query("P1")[1], GENERAL)
        return [data.PatientID for _, data in answers if data is not None]

    with trio.fail_after(30):
        async with dimse.open_server(Reports()) as server:
            assert await request(server.port, operate, [(GENERAL, LE)]) == ["P1"]
