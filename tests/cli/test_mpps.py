"""`dimse-trio mpps`, reporting to `dimse-trio worklist --steps`."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file

from .program import Running, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A worklist with one item."""
    step = Dataset()
    step.Modality = "MR"
    step.ScheduledStationAETitle = "MRSCAN"
    item = Dataset()
    item.PatientName = "Ada^Example"
    item.StudyInstanceUID = "2.25.7"
    item.ScheduledProcedureStepSequence = [step]
    worklist = tmp_path / "worklist"
    worklist.mkdir()
    (worklist / "item.json").write_text(json.dumps(item.to_json_dict()))
    return worklist


async def test_a_step_is_created_from_what_find_prints_and_completed(
    files: list[Path], folder: Path, tmp_path: Path
) -> None:
    item, steps = tmp_path / "item.json", tmp_path / "steps"
    async with await Running.start("worklist", folder, "--steps", steps, "--port", 0) as program:
        peer = (f"127.0.0.1:{await program.listening()}", "--aec", "DIMSE-TRIO")
        found = await run("find", *peer, "--level", "worklist", "--json")
        item.write_text(found.check_done().stdout)
        created = await run("mpps", "create", *peer, "--item", item)
        uid = created.check_done().stdout.strip()
        protocol = ("--protocol", "HEAD", "--retrieve-aet", "ARCHIVE")
        (await run("mpps", "complete", *peer, uid, *files, *protocol)).check_done()
        [got] = (await run("mpps", "get", *peer, uid)).check_done().objects
        assert got["00100010"]["Value"][0]["Alphabetic"] == "Ada^Example"
        assert got["00400252"]["Value"] == ["COMPLETED"]
        refused = await run("mpps", "discontinue", *peer, uid)
        refused.check(1, "0x0110", "may no longer be updated")
    step = pydicom.dcmread(steps / f"{uid}.dcm")
    assert step.PerformedStationAETitle == "MRSCAN"
    series = step.PerformedSeriesSequence
    references = [
        reference
        for each in series
        for reference in (
            *each.ReferencedImageSequence,
            *each.ReferencedNonImageCompositeSOPInstanceSequence,
        )
    ]
    assert {each.RetrieveAETitle for each in series} == {"ARCHIVE"}
    assert len(references) == len(files)


async def test_a_step_is_given_up_for_a_reason(folder: Path, tmp_path: Path) -> None:
    async with await Running.start("worklist", folder, "--steps", tmp_path, "--port", 0) as program:
        peer = (f"127.0.0.1:{await program.listening()}", "--aec", "DIMSE-TRIO")
        keys = ("-k", "Modality=US", "-k", "PatientID=4711", "--uid", "1.2.3")
        created = await run("mpps", "create", *peer, *keys, "--aet", "SCANNER")
        assert created.check_done().stdout == "1.2.3\n"
        (await run("mpps", "discontinue", *peer, "1.2.3", "--reason", "refused")).check_done()
    step = pydicom.dcmread(tmp_path / "1.2.3.dcm")
    assert step.PerformedStationAETitle == "SCANNER"
    [code] = step.PerformedProcedureStepDiscontinuationReasonCodeSequence
    assert code.CodeValue == "110505"


async def test_a_step_is_changed_under_way(files: list[Path], folder: Path, tmp_path: Path) -> None:
    async with await Running.start("worklist", folder, "--steps", tmp_path, "--port", 0) as program:
        peer = f"127.0.0.1:{await program.listening()}"
        (await run("mpps", "create", peer)).check(2, "needs Modality: give that with -k KEY=VALUE")
        (await run("mpps", "create", peer, "-k", "Modality=US", "--uid", "1.2.3")).check_done()
        keys = ("-k", "PerformedProcedureStepDescription=Abdomen", "--protocol", "ABDOMEN")
        (await run("mpps", "update", peer, "1.2.3", files[0], *keys)).check_done()
        fixed = await run("mpps", "update", peer, "1.2.3", "-k", "PatientName=Doe")
        fixed.check(0, "warning: N-SET-RQ answered Attribute list error (0x0107): PatientName")
    step = pydicom.dcmread(tmp_path / "1.2.3.dcm")
    assert step.PerformedProcedureStepStatus == "IN PROGRESS"
    assert step.PerformedProcedureStepDescription == "Abdomen"
    assert len(step.PerformedSeriesSequence) == 1


async def test_files_without_a_protocol_name_and_no_files_are_explained(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    complete = ("mpps", "complete", "127.0.0.1:1", "1.2.3", bare)
    (await run(*complete)).check(1, "there are no DICOM files")
    data_set = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    data_set.save_as(bare / "ct.dcm")
    (await run(*complete)).check(2, "Protocol Name", "--protocol")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "127.0.0.1:1", "--item", "README"), "neither"),
        (("create", "127.0.0.1:1", "--item", "EMPTY"), "EMPTY is empty: did nothing match?"),
        (("create", "127.0.0.1:1", "--uid", "abc"), "is no UID"),
        (("complete", "127.0.0.1:1", "", "README"), "'' is no UID"),
        (("get", "127.0.0.1:1", "here/"), "'here/' is no UID"),
        (("create", "127.0.0.1:1", "-k", "PatientWeight=abc"), "is no number"),
        (("create", "127.0.0.1:1", "-k", "Rows=x"), "VR US"),
        (("create", "127.0.0.1:1", "-k", "Rows=-1"), "not from 0 to 65535"),
        (("create", "127.0.0.1:1", "-k", "RealWorldValueSlope=abc"), "VR FD"),
        (("create", "127.0.0.1:1", "-k", "PixelData=ab"), "binary"),
        (("create", "127.0.0.1:1", "-k", "RequestAttributesSequence=1"), "is a sequence"),
        (("create", "127.0.0.1:1", "-k", "CommandGroupLength=1"), "of commands"),
        (("create", "127.0.0.1:1", "-k", "00110010=1"), "private"),
        (
            (
                "create",
                "127.0.0.1:1",
                "-k",
                "SpecificCharacterSet=ISO_IR 100",
                "-k",
                "PatientName=山田",
            ),
            "does not fit",
        ),
        (("update", "127.0.0.1:1", "1.2", "-k", "PatientBirthDate=2026-01-31"), "'20260131'"),
        (("complete", "127.0.0.1:1", "1.2", "README", "-k", "PatientSize=tall"), "is no number"),
        (("create", "127.0.0.1:1", "-k", "PatientNam=X"), "PatientName"),
        (("create", "127.0.0.1:1", "-k", "ProcedureCodeSequence.CodeValue=1"), "sequence"),
        (("complete", "127.0.0.1:1", "1.2.3"), "FILES"),
        (("update", "127.0.0.1:1", "1.2.3"), "FILES"),
        (("discontinue", "127.0.0.1:1", "1.2.3", "--reason", "boredom"), "unspecified"),
    ],
)
async def test_a_command_line_that_makes_no_step_is_refused(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    (tmp_path / "README").write_text("no item")
    (tmp_path / "EMPTY").write_text("")
    (await run("mpps", *arguments, cwd=tmp_path)).check(2, says)


async def test_the_files_of_another_patient_are_not_what_the_step_has_made(
    folder: Path, tmp_path: Path
) -> None:
    image = get_testdata_file("CT_small.dcm")
    async with await Running.start("worklist", folder, "--steps", tmp_path, "--port", 0) as program:
        peer = f"127.0.0.1:{await program.listening()}"
        keys = ("-k", "Modality=CT", "-k")
        for uid, patient in (("1.2.3", "4711"), ("1.2.4", "1CT1"), ("1.2.5", "")):
            await run("mpps", "create", peer, *keys, f"PatientID={patient}", "--uid", uid)
        complete = ("mpps", "complete", peer)
        refused = await run(*complete, "1.2.3", image, "--protocol", "HEAD")
        refused.check(2, "not of the step's patient", "--any-patient")
        both = (image, get_testdata_file("MR_small.dcm"), "--protocol", "HEAD")
        (await run(*complete, "1.2.4", *both)).check(2, "of 2 patients", "--any-patient")
        (await run(*complete, "1.2.4", *both, "--any-patient")).check_done()
        (await run(*complete, "1.2.5", image, "--protocol", "HEAD")).check_done()
    states = [
        pydicom.dcmread(tmp_path / f"1.2.{n}.dcm").PerformedProcedureStepStatus for n in "345"
    ]
    assert states == ["IN PROGRESS", "COMPLETED", "COMPLETED"]


async def test_a_step_whose_item_names_no_station_is_performed_here(tmp_path: Path) -> None:
    step, item = Dataset(), Dataset()
    step.Modality = "MR"
    item.PatientName = "Ada^Example"
    item.StudyInstanceUID = "2.25.7"
    item.ScheduledProcedureStepSequence = [step]
    (tmp_path / "item.json").write_text(json.dumps(item.to_json_dict()))
    steps = tmp_path / "steps"
    async with await Running.start("worklist", tmp_path, "--steps", steps, "--port", 0) as program:
        peer = f"127.0.0.1:{await program.listening()}"
        options = ("--item", tmp_path / "item.json", "--uid", "1.2.3", "--aet", "SCANNER")
        (await run("mpps", "create", peer, *options, "-k", "PatientWeight=70.5")).check_done()
    made = pydicom.dcmread(steps / "1.2.3.dcm")
    assert (made.PerformedStationAETitle, made.PatientWeight) == ("SCANNER", 70.5)
