"""`dimse-trio dump`: what is printed of files, and of what is none."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import trio
from pydicom import Dataset

from .program import COMMAND, Ended, run

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CT = TEST_FILES / "CT_small.dcm"

RunHere = Callable[..., Ended]


def test_a_file_is_printed_with_its_meta_information(run_here: RunHere) -> None:
    lines = run_here("dump", CT).check_done().stdout.splitlines()
    assert lines[0].startswith("(0002,0000) File Meta Information Group Length")
    assert "(0010,0010) Patient's Name                      PN: 'CompressedSamples^CT1'" in lines
    assert "    (0010,0020) Patient ID                          LO: '1234ABCD'" in lines
    assert "(7FE0,0010) Pixel Data                          OW: 32768 bytes, not read" in lines


def test_every_kind_of_file_is_printed(files: list[Path], run_here: RunHere) -> None:
    ended = run_here("dump", *files, "-k", "SOPInstanceUID", "--csv").check_done()
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(ended.stdout))}
    for path in files:
        expected = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        assert rows[str(path)]["SOPInstanceUID"] == expected


def test_json_is_what_pydicom_makes_of_it(run_here: RunHere) -> None:
    (shown,) = run_here("dump", CT, "--json", "--full").check_done().objects
    original = pydicom.dcmread(CT)
    again = Dataset.from_json({tag: e for tag, e in shown.items() if tag[:4] != "0002"})
    again.SpecificCharacterSet = original.SpecificCharacterSet
    assert again == Dataset(original)
    assert shown["00020010"]["Value"] == [original.file_meta.TransferSyntaxUID]


def test_long_values_stay_where_they_are_in_json(run_here: RunHere) -> None:
    (shown,) = run_here("dump", CT, "--json").check_done().objects
    where = shown["7FE00010"]
    assert "InlineBinary" not in where
    uri, _, query = where["BulkDataURI"].partition("?")
    offset, length = (int(part.partition("=")[2]) for part in query.split("&"))
    assert uri == CT.as_uri()
    assert CT.read_bytes()[offset : offset + length] == pydicom.dcmread(CT).PixelData


def test_chosen_attributes_are_printed_alone(run_here: RunHere) -> None:
    keys = ("-k", "(0010,0020)", "-k", "OtherPatientIDsSequence[1].PatientID")
    text = run_here("dump", CT, *keys).check_done().stdout.splitlines()
    assert [line.strip().partition(" ")[0] for line in text] == [
        *("(0010,0020)", "(0010,1002)", "[0]", "(0010,0020)")
    ]
    (shown,) = run_here("dump", CT, "--json", *keys).check_done().objects
    assert shown["00101002"]["Value"] == [{"00100020": {"vr": "LO", "Value": ["1234ABCD"]}}]


def test_long_values_are_cut_unless_asked_for(tmp_path: Path, run_here: RunHere) -> None:
    data_set = pydicom.dcmread(CT)
    data_set.ImageComments = "long " * 100
    data_set.save_as(tmp_path / "long.dcm")
    key = ("-k", "ImageComments")
    (cut,) = run_here("dump", tmp_path / "long.dcm", *key).check_done().stdout.splitlines()
    (full,) = run_here("dump", tmp_path / "long.dcm", *key, "--full").stdout.splitlines()
    assert len(cut) < 140
    assert "… (" in cut
    assert full.endswith("long'")
    assert len(full) > 500


def test_what_is_no_dicom_file_is_named_and_the_others_go_on(
    tmp_path: Path, run_here: RunHere
) -> None:
    (tmp_path / "a.dcm").write_bytes(b"no DICOM at all" * 100)
    shutil.copy(CT, tmp_path / "b.dcm")
    ended = run_here("dump", tmp_path, "-k", "PatientID")
    ended.check(1, "a.dcm: not a DICOM file")
    assert "1CT1" in ended.stdout


def test_a_missing_file_is_named(run_here: RunHere) -> None:
    run_here("dump", "missing.dcm").check(1, "missing.dcm: No such file")


def test_a_file_that_is_cut_off_is_printed_and_named(run_here: RunHere) -> None:
    ended = run_here("dump", TEST_FILES / "MR_truncated.dcm")
    ended.check(1, "MR_truncated.dcm: its data set is cut off")
    assert "Patient ID" in ended.stdout


@pytest.mark.parametrize("path", sorted(TEST_FILES.glob("*.dcm")), ids=lambda path: path.name)
def test_no_file_is_an_internal_error(path: Path, run_here: RunHere) -> None:
    for arguments in ((), ("--json",), ("--json", "--full")):
        ended = run_here("dump", path, *arguments)
        assert ended.code in (0, 1)
        assert "internal error" not in ended.stderr
        if arguments and ended.stdout:
            json.loads(ended.stdout)


def test_csv_needs_keys(run_here: RunHere) -> None:
    run_here("dump", CT, "--csv").check(2, "--csv needs -k")


async def test_a_control_character_does_not_reach_the_lines(tmp_path: Path) -> None:
    data_set = pydicom.dcmread(CT)
    data_set.ImageComments = "one\ntwo\x1b[31m"
    data_set.save_as(tmp_path / "odd.dcm")
    ended = (await run("dump", tmp_path / "odd.dcm", "-k", "ImageComments")).check_done()
    assert len(ended.stdout.splitlines()) == 1
    assert "\x1b" not in ended.stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_that_nobody_writes_into_is_not_waited_for(
    tmp_path: Path, run_here: RunHere
) -> None:
    os.mkfifo(tmp_path / "pipe")
    run_here("dump", tmp_path / "pipe").check(1, "not a DICOM file")


def test_numbers_that_json_has_not_are_strings_in_it(tmp_path: Path, run_here: RunHere) -> None:
    data_set = pydicom.dcmread(CT)
    data_set.add_new("AcquisitionDuration", "FD", math.nan)
    data_set.add_new("ReferencedImageSequence", "SQ", [Dataset()])
    data_set.ReferencedImageSequence[0].add_new("TableOfParameterValues", "FL", [1.5, -math.inf, 3])
    data_set.add_new("TagSpacingFirstDimension", "FD", math.inf)
    path, copy = tmp_path / "nan.dcm", tmp_path / "copy.dcm"
    data_set.save_as(path)
    text = run_here("dump", path, "--json").check_done().stdout
    shown = json.loads(text, parse_constant=pytest.fail)
    assert shown["00189073"]["Value"] == ["NaN"]
    assert shown["00189030"]["Value"] == ["Infinity"]
    (item,) = shown["00081140"]["Value"]
    assert item["0018605A"]["Value"] == [1.5, "-Infinity", 3]
    (tmp_path / "x.json").write_text(run_here("dump", path, "--json", "--full").stdout)
    run_here("create", copy, "--from-json", tmp_path / "x.json").check_done()
    again = pydicom.dcmread(copy)
    assert math.isnan(again.AcquisitionDuration)
    assert again.TagSpacingFirstDimension == math.inf
    assert again.ReferencedImageSequence[0].TableOfParameterValues == [1.5, -math.inf, 3]


def test_an_empty_binary_value_is_not_elsewhere(tmp_path: Path, run_here: RunHere) -> None:
    data_set = pydicom.dcmread(CT)
    data_set.add_new("EncapsulatedDocument", "OB", b"")
    path, copy = tmp_path / "empty.dcm", tmp_path / "copy.dcm"
    data_set.save_as(path)
    (line,) = run_here("dump", path, "-k", "EncapsulatedDocument").check_done().stdout.splitlines()
    assert "not read" not in line
    (shown,) = run_here("dump", path, "--json").check_done().objects
    assert shown["00420011"] == {"vr": "OB"}
    (tmp_path / "x.json").write_text(run_here("dump", path, "--json", "--full").stdout)
    run_here("create", copy, "--from-json", tmp_path / "x.json").check_done()
    assert pydicom.dcmread(copy)["EncapsulatedDocument"].is_empty


@pytest.mark.parametrize("way", [".", "./-"])
def test_a_file_named_as_standard_input_is_a_file(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: RunHere
) -> None:
    monkeypatch.setattr("sys.stdin", None)  # nothing to be read
    monkeypatch.chdir(tmp_path)
    shutil.copy(CT, "-")
    assert "1CT1" in run_here("dump", way, "-k", "PatientID").check_done().stdout
    run_here("modify", way, "-k", "PatientID=5").check_done()
    assert pydicom.dcmread("-").PatientID == "5"


async def test_a_file_goes_through_standard_output_and_input() -> None:
    made = await trio.run_process([*COMMAND, "create", "-", "PatientID=7"], capture_stdout=True)
    shown = await trio.run_process(
        [*COMMAND, "dump", "-", "-k", "PatientID"], stdin=made.stdout, capture_stdout=True
    )
    assert made.stdout[128:132] == b"DICM"
    assert shown.stdout.strip().endswith(b"LO: '7'")
