"""Modality worklists: DCMTK's for our requestor, ours for DCMTK's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset

import dimse_trio as dimse

pytestmark = pytest.mark.interop


def worklist_item(number: int) -> Dataset:
    step = Dataset()
    step.Modality = "MR" if number % 2 else "CT"
    step.ScheduledStationAETitle = "SCANNER"
    step.ScheduledProcedureStepStartDate = "20260102"
    step.ScheduledProcedureStepStartTime = "0900"
    step.ScheduledPerformingPhysicianName = "Who^Doctor"
    step.ScheduledProcedureStepDescription = "Head"
    step.ScheduledProcedureStepID = f"SPS{number}"
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 100"
    item.PatientName = f"Müller^No{number}"
    item.PatientID = f"W{number}"
    item.PatientBirthDate = "19700101"
    item.PatientSex = "O"
    item.AccessionNumber = f"ACC{number}"
    item.ReferringPhysicianName = "Who^Doctor"
    item.StudyInstanceUID = f"2.25.99.{number}"
    item.RequestedProcedureID = f"RP{number}"
    item.RequestedProcedureDescription = "MR of the head"
    item.RequestedProcedurePriority = "LOW"
    item.ScheduledProcedureStepSequence = [step]
    return item


async def test_worklist(dcmtk: Any, tmp_path: Path) -> None:
    async with (
        dcmtk.wlmscpfs(tmp_path, map(worklist_item, range(6)), options=["-csk"]) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        everything = await association.find(dimse.query("WORKLIST"))
        scheduled = await association.find(
            dimse.query("WORKLIST", Modality="MR", ScheduledStationAETitle="SCANNER")
        )
        await association.echo()
    assert len(everything) == 6
    assert {item.PatientID for item in scheduled} == {"W1", "W3", "W5"}
    assert str(scheduled[0].PatientName).startswith("Müller^No")
    assert scheduled[0].ScheduledProcedureStepSequence[0].Modality == "MR"


async def test_worklist_of_ours(dcmtk: Any, tmp_path: Path) -> None:
    class Worklist:
        query_sop_classes = (dimse.uid_of("ModalityWorklistInformationModelFind"),)

        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            (step,) = request.identifier.ScheduledProcedureStepSequence
            for item in map(worklist_item, range(6)):
                if item.ScheduledProcedureStepSequence[0].Modality == step.Modality:
                    yield item

    async with dimse.open_server(Worklist()) as server:
        result = await dcmtk.findscu(
            server.port,
            {"ScheduledProcedureStepSequence[0].Modality": "CT", "PatientName": ""},
            model="-W",
            folder=tmp_path,
        )
    found = [pydicom.dcmread(path, force=True) for path in result.files]
    assert [str(item.PatientName) for item in found] == ["Müller^No0", "Müller^No2", "Müller^No4"]


async def test_keys_of_the_step_reach_dcmtks_worklist(dcmtk: Any, tmp_path: Path) -> None:
    async with (
        dcmtk.wlmscpfs(tmp_path, map(worklist_item, range(4)), options=["-csk"]) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        found = await association.find_worklist(
            Modality="CT", ScheduledProcedureStepStartDate=("20260101", "20260103")
        )
        none = await association.find_worklist(ScheduledProcedureStepStartDate="20260201-")
    assert {item.PatientID for item in found} == {"W0", "W2"}
    assert none == []


async def test_dcmtk_finds_the_items_of_our_folder(dcmtk: Any, tmp_path: Path) -> None:
    items, answers = tmp_path / "items", tmp_path / "answers"
    items.mkdir()
    answers.mkdir()
    for number in range(4):
        worklist_item(number).save_as(items / f"{number}.wl", implicit_vr=False, little_endian=True)
    async with dimse.open_server(dimse.WorklistFolder(items)) as server:
        result = await dcmtk.findscu(
            server.port,
            {
                "ScheduledProcedureStepSequence[0].Modality": "MR",
                "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate": "20260101-",
                "PatientName": "M*",
            },
            model="-W",
            folder=answers,
        )
    found = [pydicom.dcmread(path, force=True) for path in result.files]
    assert [str(item.PatientName) for item in found] == ["Müller^No1", "Müller^No3"]


async def test_a_folder_of_ours_answers_as_dcmtks_does(dcmtk: Any, tmp_path: Path) -> None:
    items = list(map(worklist_item, range(6)))
    for number, item in enumerate(items):
        [step] = item.ScheduledProcedureStepSequence
        step.ScheduledProcedureStepStartDate = f"202601{2 + number // 2:02d}"
        step.ScheduledProcedureStepStartTime = f"{9 + number:02d}00"
    queries = [
        dimse.worklist_query(),
        dimse.worklist_query(Modality="MR"),
        dimse.worklist_query(PatientName="M?ller^No*", AccessionNumber="ACC1"),
        dimse.worklist_query(ScheduledProcedureStepStartDate="20260103-"),
        dimse.worklist_query(ScheduledProcedureStepStartTime=(None, "1030")),
        dimse.worklist_query(
            ScheduledProcedureStepStartDate=("20260102", "20260104"),
            ScheduledProcedureStepStartTime=("1000", "1300"),
        ),
        dimse.worklist_query(PatientID="none"),
    ]
    answers: list[list[list[str]]] = []
    async with dcmtk.wlmscpfs(tmp_path, items, options=["-csk"]) as peer:
        ours = dimse.WorklistFolder(tmp_path / peer.ae_title)
        async with dimse.open_server(ours, ae_title=peer.ae_title) as server:
            for port in (peer.port, server.port):
                async with dimse.open_association(
                    "127.0.0.1", port, called_ae_title=peer.ae_title
                ) as association:
                    found = [await association.find(query) for query in queries]
                    answers.append([sorted(i.PatientID for i in matches) for matches in found])
    assert answers[0] == answers[1]
    assert [len(found) for found in answers[1]] == [6, 3, 1, 4, 2, 4, 0]
