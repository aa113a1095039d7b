"""Worklists, both roles (PS3.4 Annex K), and relevant patient information (Annex Q)."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.testing import associated_pair

from .worklists import item, step


def write(folder: Path, made: Dataset, suffix: str = "json") -> Path:
    path = folder / f"{made.PatientID}.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(made.to_json_dict()), encoding="utf-8")
    else:
        made.save_as(path, implicit_vr=False, little_endian=True)
    return path


async def ids(folder: Path, **keys: Any) -> list[str]:
    async with associated_pair(dimse.WorklistFolder(folder)) as association:
        return [str(match.PatientID) for match in await association.find_worklist(**keys)]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, ["A", "B"]),
        ({"Modality": "MR"}, ["B"]),
        ({"Modality": ["MR", "CT"]}, ["A", "B"]),
        ({"ScheduledStationAETitle": "SCAN*"}, ["A", "B"]),
        ({"ScheduledPerformingPhysicianName": "who^*"}, ["A", "B"]),
        ({"ScheduledProcedureStepStartDate": "20260103-"}, ["B"]),
        (
            {
                "ScheduledProcedureStepStartDate": ("20260102", "20260103"),
                "ScheduledProcedureStepStartTime": ("1000", "0830"),
            },
            ["B"],  # from the one moment to the other
        ),
        ({"PatientName": "A*", "Modality": "CT"}, ["A"]),
        ({"PatientID": "A", "Modality": "MR"}, []),
    ],
)
async def test_keys_match_at_both_levels(
    tmp_path: Path, keys: dict[str, Any], found: list[str]
) -> None:
    write(tmp_path, item("A", step()), "wl")
    later = {"ScheduledProcedureStepStartDate": "20260103", "ScheduledProcedureStepStartTime": "08"}
    write(tmp_path, item("B", step(Modality="MR", **later)))
    assert await ids(tmp_path, **keys) == found


async def test_an_item_with_two_steps_is_a_match_for_each_that_matches(tmp_path: Path) -> None:
    both = item("A", step(), step(ScheduledProcedureStepID="S2"), step(Modality="MR"))
    write(tmp_path, both)
    async with (
        associated_pair(dimse.WorklistFolder(tmp_path)) as association,
        association.find_worklist(Modality="CT") as matches,
    ):
        steps = [match.ScheduledProcedureStepSequence async for match in matches]
    assert [len(each) for each in steps] == [1, 1]
    assert [each[0].ScheduledProcedureStepID for each in steps] == ["S1", "S2"]


async def test_what_is_asked_for_and_not_there_comes_back_empty(tmp_path: Path) -> None:
    write(tmp_path, item("Ä", step()))
    async with associated_pair(dimse.WorklistFolder(tmp_path)) as association:
        (match,) = await association.find_worklist()
    assert match.PatientName == "Ä^X"
    assert match.Allergies == ""
    assert not match.ReferencedStudySequence


@pytest.mark.parametrize("steps", [None, [], [Dataset()], [Dataset(), Dataset()]])
async def test_an_identifier_with_an_odd_sequence_finds_everything(
    tmp_path: Path, steps: list[Dataset] | None
) -> None:
    write(tmp_path, item("A", step()))
    identifier = Dataset()
    identifier.PatientID = ""
    if steps is not None:
        identifier.ScheduledProcedureStepSequence = steps
    async with associated_pair(dimse.WorklistFolder(tmp_path)) as association:
        found = await association.find(identifier, model=dimse.Model.WORKLIST.value[0])
    assert [match.PatientID for match in found] == ["A"]


async def test_files_are_read_again_when_they_change_and_broken_ones_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "broken.wl").write_bytes(b"\x00" * 3)
    (tmp_path / "notes.txt").write_text("no item")
    path = write(tmp_path, item("A", step()))
    folder = dimse.WorklistFolder(tmp_path)
    with caplog.at_level(logging.WARNING, "dimse_trio.worklist"):
        assert [made.PatientID for made in await folder.items()] == ["A"]
        (again,) = await folder.items()
    assert len(caplog.records) == 2
    path.write_text(json.dumps(item("C", step()).to_json_dict()), encoding="utf-8")
    os.utime(path, ns=(1, 1))
    (changed,) = await folder.items()
    assert (again.PatientID, changed.PatientID) == ("A", "C")
    path.unlink()
    assert await folder.items() == []


async def test_a_worklist_is_no_archive(tmp_path: Path) -> None:
    async with associated_pair(dimse.WorklistFolder(tmp_path)) as association:
        with pytest.raises(dimse.ContextNotAccepted):
            association.find_studies()


def test_keys_of_the_step_go_into_its_item_and_are_checked() -> None:
    query = dimse.worklist_query(ScheduledProcedureStepEndDate="20260101", PatientID="1")
    assert query.identifier.PatientID == "1"
    (inner,) = query.identifier.ScheduledProcedureStepSequence
    assert inner.ScheduledProcedureStepEndDate == "20260101"
    with pytest.raises(dimse.QueryError):
        dimse.worklist_query(ScheduledProcedureStepStartDate="tomorrow")


class Reports:
    query_sop_classes = tuple(
        dimse.relevant_patient_query("1", about)[0] for about in ("general", "breast", "cardiac")
    )

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        (template,) = request.identifier.ContentTemplateSequence
        if request.identifier.PatientID == "1":
            report = Dataset()
            report.PatientID, report.ValueType = "1", "CONTAINER"
            report.IssuerOfPatientID = request.identifier.IssuerOfPatientID
            report.ContentLabel = template.TemplateIdentifier
            yield report


@pytest.mark.parametrize(
    ("about", "template"), [("general", "9007"), ("breast", "9000"), ("cardiac", "3802")]
)
async def test_what_is_known_of_a_patient_is_one_match(
    autojump_clock: trio.abc.Clock, about: str, template: str
) -> None:
    uid = dimse.relevant_patient_query("1", about)[0]
    context = dimse.PresentationContext(uid)
    async with associated_pair(Reports(), contexts=[context]) as association:
        (report,) = await association.find_relevant_patient("1", about)
        assert report.ContentLabel == template
        assert await association.find_relevant_patient("2", about) == []
        (other,) = await association.find_relevant_patient("1", about, issuer="ELSEWHERE")
        assert (report.IssuerOfPatientID, other.IssuerOfPatientID) == ("", "ELSEWHERE")


@pytest.mark.parametrize(("patient", "about"), [("", "general"), ("A*", "general"), ("1", "x")])
def test_relevant_patient_information_is_about_one_patient(patient: str, about: str) -> None:
    with pytest.raises(dimse.QueryError):
        dimse.relevant_patient_query(patient, about)


async def test_an_item_with_two_steps_has_both_of_them_the_next_time_too(tmp_path: Path) -> None:
    write(tmp_path, item("A", step(Modality="CT"), step(Modality="MR")))
    async with associated_pair(dimse.WorklistFolder(tmp_path)) as association:
        for _ in range(2):
            found = await association.find_worklist()
            steps = [match.ScheduledProcedureStepSequence for match in found]
            assert [[each.Modality for each in sequence] for sequence in steps] == [["CT"], ["MR"]]


def _odd(**values: object) -> Dataset:
    identifier = Dataset()
    identifier.PatientID = "B"
    for keyword, value in values.items():
        identifier.add_new(keyword, "SQ" if isinstance(value, list) else "LO", value)
    return identifier


def _group_lengths() -> Dataset:
    identifier = _odd()
    identifier.add_new(0x00100000, "UL", 4)
    identifier.add_new(0x00400000, "UL", 4)
    return identifier


def _wildcards() -> Dataset:
    inner = Dataset()
    inner.add_new("ScheduledProcedureStepStartDate", "LO", "*")
    return _odd(ScheduledProcedureStepSequence=[inner], StudyInstanceUID="*")


@pytest.mark.parametrize(
    "identifier",
    [
        _odd(),
        _odd(ScheduledProcedureStepSequence=[]),
        _odd(ScheduledProcedureStepSequence=[Dataset()]),
        _odd(ScheduledProcedureStepSequence=[Dataset(), Dataset()]),
        _odd(QueryRetrieveLevel="worklist"),
        _group_lengths(),
        _wildcards(),
    ],
    ids=["absent", "empty", "empty-item", "two-items", "level", "group-lengths", "wildcards"],
)
async def test_a_query_of_another_form_finds_the_item(identifier: Dataset, tmp_path: Path) -> None:
    for name in "AB":
        write(tmp_path, item(name, step()))
    async with associated_pair(dimse.WorklistFolder(tmp_path)) as association:
        [found] = await association.find(identifier, model=dimse.Model.WORKLIST.value[0])
    assert found.PatientID == "B"


async def test_a_remote_ae_is_asked_for_its_worklist_too(tmp_path: Path) -> None:
    write(tmp_path, item("A", step(Modality="CT")))
    write(tmp_path, item("B", step(Modality="MR")))
    async with (
        dimse.open_server(dimse.WorklistFolder(tmp_path), ae_title="RIS") as server,
        dimse.RemoteAE("RIS", "127.0.0.1", server.port) as remote,
    ):
        [found] = await remote.find_worklist(Modality="MR")
    assert found.PatientID == "B"


@pytest.mark.parametrize(
    "text",
    [
        '{"00100020":{"vr":"LO","Value":[4711]},"00400100":{"vr":"SQ","Value":[{}]}}',
        '{"00100020":{"vr":"LO","Value":[{"a":1}]},"00400100":{"vr":"SQ","Value":[{}]}}',
        '{"00400100":{"vr":"SQ","Value":[{"00400002":{"vr":"DA","Value":[19800231]}}]}}',
        '{"00400100":{"vr":"SQ","Value":[{"00400001":{"vr":"XX","Value":["A"]}}]}}',
        '"text"',
    ],
)
async def test_a_file_that_cannot_be_sent_does_not_spoil_the_rest(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worklist_item("GOOD").save_as(
        tmp_path / "good.wl", enforce_file_format=False, implicit_vr=True, little_endian=True
    )
    (tmp_path / "bad.json").write_text(text)
    async with associated_pair(dimse.WorklistFolder(tmp_path)) as association:
        for _ in range(2):
            found = await association.find_worklist()
            assert [item.PatientID for item in found] == ["GOOD"]
    assert caplog.text.count("bad.json is no worklist item") == 1


async def test_what_is_cut_off_or_no_file_is_no_item(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole.wl"
    worklist_item("WHOLE").save_as(
        whole, enforce_file_format=False, implicit_vr=True, little_endian=True
    )
    for length in range(len(whole.read_bytes())):
        (tmp_path / f"cut{length}.wl").write_bytes(whole.read_bytes()[:length])
    os.mkfifo(tmp_path / "pipe.wl")
    (tmp_path / "dangling.wl").symlink_to(tmp_path / "nothing")
    folder = dimse.WorklistFolder(tmp_path)
    with trio.fail_after(30):
        for _ in range(2):
            assert [item.PatientID for item in await folder.items()] == ["WHOLE"]
    assert caplog.text.count("dangling.wl is no worklist item") == 1
    assert caplog.text.count("is no worklist item: not a DICOM file") == 0


@pytest.mark.parametrize(
    "content",
    [
        b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n" * 9,
        b"%PDF-1.7\n" * 50,
        b"\x89PNG\r\n\x1a\n" + bytes(200),
    ],
)
async def test_what_is_not_dicom_is_said_to_be_that(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "g.wl").write_bytes(content)
    assert await dimse.WorklistFolder(tmp_path).items() == []
    assert "g.wl is no worklist item: not a DICOM file" in caplog.text


def worklist_item(patient_id: str) -> Dataset:
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = "CT", "SCANNER"
    step.ScheduledProcedureStepStartDate = "20261121"
    item = Dataset()
    item.PatientID, item.PatientName = patient_id, "A^B"
    item.ScheduledProcedureStepSequence = [step]
    return item


@pytest.mark.parametrize("name", ["山田^花子", "Müller^Jörg"])
@pytest.mark.parametrize("character_set", [None, "ISO_IR 192"])
async def test_a_name_in_a_json_file_reaches_the_modality_as_it_is(
    tmp_path: Path, name: str, character_set: str | None
) -> None:
    made = item("A", step())
    made.PatientName = name
    made.SpecificCharacterSet = character_set
    if character_set is None:
        del made.SpecificCharacterSet
    (tmp_path / "a.json").write_text(made.to_json(), encoding="utf-8")
    folder = dimse.WorklistFolder(tmp_path)
    async with associated_pair(folder) as association:
        for keys in ({}, {"PatientName": name}):
            [found] = await association.find_worklist(**keys)
            assert found.PatientName == name


async def test_one_bad_item_of_a_file_leaves_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = item("FOREIGN", step(), PatientName="Жуков^Пётр")
    foreign.SpecificCharacterSet = "ISO_IR 100"  # whatever JSON says of that, it is in UTF-8
    stepless = item("STEPLESS")
    made = [item("GOOD", step(), PatientName="山田^太郎"), stepless, foreign, item("NONE")]
    text = json.dumps([each.to_json_dict() for each in made] + ["secret"])
    (tmp_path / "all.json").write_text(text, encoding="utf-8")
    async with associated_pair(dimse.WorklistFolder(tmp_path)) as association:
        found = {
            str(match.PatientID): match.PatientName for match in await association.find_worklist()
        }
    assert found == {"GOOD": "山田^太郎", "FOREIGN": "Жуков^Пётр"}
    assert "no Scheduled Procedure Step Sequence (item 2), and 2 more" in caplog.text
    assert "secret" not in caplog.text
