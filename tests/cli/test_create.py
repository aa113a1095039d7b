"""`dimse-trio create`: the files it makes, as pydicom and DCMTK read them."""

from __future__ import annotations

import datetime as dt
import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import trio

from dimse_trio.cli.dicom_files import EXPLICIT, write
from dimse_trio.cli.errors import CommandFailed

from .program import Ended, Keeper, dcmdump, run, served

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CT = TEST_FILES / "CT_small.dcm"
QUERY = ("QueryRetrieveLevel=STUDY", "PatientName=CompressedSamples*", "StudyInstanceUID=")

RunHere = Callable[..., Ended]


@pytest.mark.interop
def test_dcmdump_reads_what_keys_make(tmp_path: Path, run_here: RunHere) -> None:
    path = tmp_path / "item.wl"
    run_here(
        *("create", path, "PatientName=Müller^Jörg", "PatientID=4711", "Rows=512"),
        *("ScheduledProcedureStepSequence.Modality=MR", "StudyInstanceUID=new"),
        *("ReferencedStudySequence[0].ReferencedSOPInstanceUID=1.2",),
        *("ReferencedStudySequence[1].ReferencedSOPInstanceUID=1.3",),
    ).check_done()
    shown = dcmdump(path)
    for words in ("[Müller^Jörg]", "CS [ISO_IR 192]", "CS [MR]", "UI [1.3]", "US 512"):
        assert words in shown
    uid = str(pydicom.dcmread(path).StudyInstanceUID)
    assert uid.startswith("2.25.")


@pytest.mark.interop
async def test_findscu_asks_with_a_query_file(keeper: Keeper, tmp_path: Path) -> None:
    path = tmp_path / "query.dcm"
    (await run("create", path, *QUERY)).check_done()
    async with served(keeper) as (address, *_):
        port = address.rpartition(":")[2]
        await trio.run_process(["findscu", "-S", "-aec", "KEEPER", "127.0.0.1", port, str(path)])
    (identifier,) = keeper.identifiers
    assert identifier.PatientName == "CompressedSamples*"
    assert "StudyInstanceUID" in identifier


def test_what_dump_prints_makes_the_same_file(tmp_path: Path, run_here: RunHere) -> None:
    shown = run_here("dump", CT, "--json", "--full").check_done().stdout
    (tmp_path / "ct.json").write_text(shown, encoding="utf-8")
    run_here("create", tmp_path / "ct.dcm", "--from-json", tmp_path / "ct.json").check_done()
    made, original = pydicom.dcmread(tmp_path / "ct.dcm"), pydicom.dcmread(CT)
    original.SpecificCharacterSet = "ISO_IR 192"
    assert made.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
    for element in original:
        if element.VR != "DS":  # which JSON has as numbers
            assert made[element.tag] == element


def test_a_template_keeps_its_pixels(tmp_path: Path, run_here: RunHere) -> None:
    path = tmp_path / "copy.dcm"
    for name in ("CT_small.dcm", "JPEG2000.dcm", "ExplVR_BigEnd.dcm", "image_dfl.dcm"):
        template = TEST_FILES / name
        run_here(
            *("create", path, "--template", template, "--new-uids", "--force", "PatientID=X")
        ).check_done()
        made, original = pydicom.dcmread(path), pydicom.dcmread(template)
        assert made.PixelData == original.PixelData
        assert made.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID
        assert made.SOPInstanceUID != original.SOPInstanceUID
        assert made.PatientID == "X"


def test_a_native_transfer_syntax_is_chosen(tmp_path: Path, run_here: RunHere) -> None:
    path = tmp_path / "implicit.dcm"
    run_here(
        *("create", path, "--template", CT, "--transfer-syntax", "ImplicitVRLittleEndian")
    ).check_done()
    made = pydicom.dcmread(path)
    assert made.file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
    assert made.PixelData == pydicom.dcmread(CT).PixelData


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to write"),
        (("PatientNam=X",), "PatientName"),
        (("StudyDate=yesterday",), "StudyDate"),
        (("PatientID",), "write PatientID=VALUE, or PatientID= for an empty value"),
        (("(0009,0010)=ACME",), "a private attribute is set only where it is"),
        (("Rows=many",), "Rows=many: no value"),
        (("Rows=-1",), "Rows=-1: not from 0 to 65535"),
        (("TagAngleSecondAxis=40000",), "not from -32768 to 32767"),
        (("RecommendedDisplayFrameRateInFloat=1e39",), "too great"),
        (("PatientID=" + 65 * "1",), "maximum length"),
        (("Modality=mr",), "Modality=mr"),
        (("SpecificCharacterSet=KLINGON",), "no such character set"),
        (("PatientID=1", "-k", "PatientID=2"), "PatientID is given twice"),
        (("CommandGroupLength=1",), "that is of commands"),
        (("PixelData=1",), "PixelData is binary"),
        (("PatientID.Modality=CT",), "PatientID is no sequence"),
        (("ReferencedStudySequence=1",), "is a sequence"),
        (("TransferSyntaxUID=1.2",), "File Meta Information"),
        (("PatientID=1", "--transfer-syntax", "JPEG2000"), "for compressed pixel data"),
        (("PatientID=1", "--transfer-syntax", "Nonsense"), "Nonsense"),
        (
            (
                "--template",
                str(TEST_FILES / "JPEG2000.dcm"),
                "--transfer-syntax",
                "1.2.840.10008.1.2",
            ),
            "pixel data stays in",
        ),
        (("--from-json", str(CT)), "no JSON"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[str, ...], says: str, tmp_path: Path, run_here: RunHere
) -> None:
    run_here("create", tmp_path / "x.dcm", *arguments).check(2, says)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unless_asked_for(tmp_path: Path, run_here: RunHere) -> None:
    path = tmp_path / "x.dcm"
    run_here("create", path, "PatientID=1").check_done()
    run_here("create", path, "PatientID=2").check(1, "is there already: --force")
    assert pydicom.dcmread(path).PatientID == "1"
    run_here("create", path, "PatientID=2", "--force").check_done()
    assert pydicom.dcmread(path).PatientID == "2"
    assert list(tmp_path.iterdir()) == [path]


def test_bulk_data_that_is_elsewhere_is_refused(tmp_path: Path, run_here: RunHere) -> None:
    json_file = tmp_path / "x.json"
    json_file.write_text(json.dumps({"7FE00010": {"vr": "OW", "BulkDataURI": "http://x/1"}}))
    run_here("create", tmp_path / "x.dcm", "--from-json", json_file).check(2, "not fetched")


def test_a_character_set_of_ones_own_must_fit(tmp_path: Path, run_here: RunHere) -> None:
    path = tmp_path / "x.dcm"
    keys = ("SpecificCharacterSet=ISO_IR 100", "PatientName=Müller")
    run_here("create", path, *keys).check_done()
    assert "Müller".encode("latin-1") in path.read_bytes()
    japanese = ("SpecificCharacterSet=ISO_IR 100", "PatientName=山田")
    run_here("create", path, *japanese, "--force").check(2, "does not fit")


@pytest.mark.interop
def test_text_of_json_is_utf8(tmp_path: Path, run_here: RunHere) -> None:
    name = "山田"
    (tmp_path / "x.json").write_text(
        json.dumps(
            {
                "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
                "00100010": {
                    "vr": "PN",
                    "Value": [{"Alphabetic": "Yamada", "Ideographic": name}],
                },
                "00101000": {"vr": "LO", "Value": ["Größe"]},
            }
        )
    )
    for arguments in ((), ("--template", CT), ("PatientComments=日本",)):
        path = tmp_path / "x.dcm"
        run_here(
            *("create", path, "--from-json", tmp_path / "x.json", "--force", *arguments)
        ).check_done()
        shown = dcmdump(path)
        for words in ("CS [ISO_IR 192]", "[Yamada=山田]", "[Größe]"):
            assert words in shown


def test_dates_may_be_counted_from_today(tmp_path: Path, run_here: RunHere) -> None:
    path = tmp_path / "x.dcm"
    run_here("create", path, "StudyDate=today", "ContentDate=today+1").check_done()
    made = pydicom.dcmread(path)
    begin = dt.date.fromisoformat(made.StudyDate)
    assert abs(begin - dt.date.today()) <= dt.timedelta(days=1)
    assert dt.date.fromisoformat(made.ContentDate) - begin == dt.timedelta(days=1)


def test_what_only_queries_have_is_kept(tmp_path: Path, run_here: RunHere) -> None:
    path = tmp_path / "x.dcm"
    run_here("create", path, "StudyDate=20260101-", "Modality=m*").check_done()
    made = pydicom.dcmread(path)
    assert (made.StudyDate, made.Modality) == ("20260101-", "m*")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, run_here: RunHere) -> None:
    ended = run_here("create", tmp_path / "nowhere" / "x.dcm", "PatientID=1")
    ended.check(1, f"{tmp_path / 'nowhere'}: No such file")


def test_what_pydicom_cannot_write_is_told_by_its_tag_alone() -> None:
    item = pydicom.Dataset()
    item.Rows = 70000
    data_set = pydicom.Dataset()
    data_set.ReferencedStudySequence = [item]
    with pytest.raises(CommandFailed) as failure:
        write(data_set, io.BytesIO(), EXPLICIT)
    assert "(0028,0010)" in str(failure.value)
    assert "70000" not in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_a_full_disk_is_no_matter_of_a_tag() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    data_set = pydicom.Dataset()
    data_set.Rows = 7
    with pytest.raises(OSError, match="No space left"):
        write(data_set, Full(), EXPLICIT)
