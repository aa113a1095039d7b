"""`dimse-trio modify`: what is changed in files, and that nothing else is."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from dimse_trio.cli import dicom_files

from .program import Ended, dcmdump

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CT = TEST_FILES / "CT_small.dcm"
ITEM = b"\xfe\xff\x00\xe0"
DEFLATED_AT = 334
"""Where the data set of image_dfl.dcm begins."""

RunHere = Callable[..., Ended]


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """A file that may be changed."""
    return Path(shutil.copy(CT, tmp_path / "ct.dcm"))


@pytest.fixture
def folder(files: list[Path], tmp_path: Path) -> Path:
    """A study in several transfer syntaxes, to be changed."""
    folder = tmp_path / "study"
    folder.mkdir()
    for number, path in enumerate(files):
        shutil.copy(path, folder / f"{number:02}.dcm")
    return folder


@pytest.mark.interop
def test_dcmdump_reads_what_was_changed(ct: Path, run_here: RunHere) -> None:
    ended = run_here(
        *("modify", ct, "-k", "PatientName=山田^太郎", "-k", "Rows=128", "-d", "PatientAge"),
        *("-r", "OtherPatientIDsSequence[0].PatientID=NEW", "-d", "OtherPatientIDsSequence[0]"),
    ).check_done()
    assert ended.stdout == "1 changed, 0 failed\n"
    shown = dcmdump(ct)
    for words in ("[山田^太郎]", "CS [ISO_IR 192]", "US 128"):
        assert words in shown
    assert "PatientAge" not in shown
    changed = pydicom.dcmread(ct)
    assert [item.PatientID for item in changed.OtherPatientIDsSequence] == ["NEW"]


def test_everything_else_stays_as_it_is(folder: Path, files: list[Path], run_here: RunHere) -> None:
    run_here("modify", folder, "-k", "PatientID=4711", "-k", "PatientName=Doe").check_done()
    for number, path in enumerate(files):
        changed, original = pydicom.dcmread(folder / f"{number:02}.dcm"), pydicom.dcmread(path)
        assert (changed.PatientID, changed.PatientName) == ("4711", "Doe")
        assert changed.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        original.PatientID, original.PatientName = "4711", "Doe"
        assert changed == original
        if "PixelData" in original:
            assert changed.PixelData == original.PixelData


def test_new_uids_are_the_same_in_all_files(
    folder: Path, tmp_path: Path, run_here: RunHere
) -> None:
    paths = sorted(folder.iterdir())
    first, second = (pydicom.dcmread(path) for path in paths[:2])
    second.ReferencedImageSequence = [pydicom.Dataset()]
    second.ReferencedImageSequence[0].ReferencedSOPInstanceUID = first.SOPInstanceUID
    second.save_as(paths[1])
    before = [pydicom.dcmread(path) for path in paths]
    run_here(
        *("modify", folder, "--new-study-uid", "--new-series-uid", "--new-instance-uid"),
        *("--output", tmp_path / "copy"),
    ).check_done()
    after = [pydicom.dcmread(tmp_path / "copy" / path.name) for path in paths]
    assert [pydicom.dcmread(path) for path in paths] == before
    assert len({data_set.StudyInstanceUID for data_set in after}) == 1
    assert after[0].StudyInstanceUID != before[0].StudyInstanceUID
    pairs = {(b.SeriesInstanceUID, a.SeriesInstanceUID) for b, a in zip(before, after, strict=True)}
    assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs})
    assert len({data_set.SOPInstanceUID for data_set in after}) == len(paths)
    for data_set in after:
        assert data_set.SOPInstanceUID == data_set.file_meta.MediaStorageSOPInstanceUID
    reference = after[1].ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert reference == after[0].SOPInstanceUID


def test_private_attributes_go(ct: Path, run_here: RunHere) -> None:
    run_here("modify", ct, "--delete-private").check_done()
    changed, original = pydicom.dcmread(ct), pydicom.dcmread(CT)
    original.remove_private_tags()
    assert changed == original


def test_a_backup_is_the_file_as_it_was(ct: Path, run_here: RunHere) -> None:
    run_here("modify", ct, "-k", "PatientID=1", "--backup").check_done()
    assert ct.with_name("ct.dcm.bak").read_bytes() == CT.read_bytes()
    assert pydicom.dcmread(ct).PatientID == "1"


def test_what_changes_nothing_leaves_the_file(ct: Path, run_here: RunHere) -> None:
    before = ct.stat()
    ended = run_here("modify", ct, "-d", "PatientAddress").check_done()
    assert ended.stdout == "0 changed, 1 as they were, 0 failed\n"
    assert (ct.stat().st_mtime_ns, ct.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_file_that_fails_is_left_alone_and_the_others_go_on(
    ct: Path, tmp_path: Path, run_here: RunHere
) -> None:
    broken = Path(shutil.copy(TEST_FILES / "MR_truncated.dcm", tmp_path / "a.dcm"))
    text = tmp_path / "b.txt"
    text.write_text("no DICOM")
    ended = run_here("modify", broken, text, ct, "-k", "PatientID=1", "--json")
    assert ended.code == 1
    assert [row["changed"] for row in ended.objects] == [False, False, True]
    assert "cut off" in ended.objects[0]["error"]
    assert "not a DICOM file" in ended.objects[1]["error"]
    assert len(ended.errors) == 2
    assert broken.read_bytes() == (TEST_FILES / "MR_truncated.dcm").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dcm", "b.txt", "ct.dcm"]


def test_a_file_cut_off_anywhere_is_left_alone(tmp_path: Path, run_here: RunHere) -> None:
    """At the end of an element, nobody can tell; nothing else is lost silently."""
    whole = (TEST_FILES / "JPEG2000.dcm").read_bytes()
    cuts = [len(whole) - n for n in (1, 2, 7, 9, 50, 500, 1000)]
    for cut in cuts:
        path = tmp_path / f"{cut}.dcm"
        path.write_bytes(whole[:cut])
        ended = run_here("modify", path, "-k", "PatientID=1")
        assert ended.code == 1, cut
        assert path.read_bytes() == whole[:cut]


def test_replacing_needs_what_is_replaced(ct: Path, run_here: RunHere) -> None:
    run_here("modify", ct, "-r", "PatientAddress=x").check(1, "it has no PatientAddress")
    assert ct.read_bytes() == CT.read_bytes()


def test_a_folder_of_output_is_not_overwritten(ct: Path, tmp_path: Path, run_here: RunHere) -> None:
    command = ("modify", ct, "-k", "PatientID=1", "--output", tmp_path / "out")
    run_here(*command).check_done()
    run_here(*command).check(1, "is there already")
    run_here(*command, "--force").check_done()
    assert ct.read_bytes() == CT.read_bytes()


def test_another_character_set_means_the_same_text(tmp_path: Path, run_here: RunHere) -> None:
    path = Path(shutil.copy(CT, tmp_path / "x.dcm"))
    run_here("modify", path, "-k", "PatientName=Müller").check_done()
    run_here("modify", path, "-k", "SpecificCharacterSet=ISO_IR 192").check_done()
    assert "Müller".encode() in path.read_bytes()
    assert pydicom.dcmread(path).PatientName == "Müller"
    run_here("modify", path, "-k", "SpecificCharacterSet=ISO_IR 100").check_done()
    assert "Müller".encode("latin-1") in path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to change"),
        (("-k", "PatientID"), "PatientID="),
        (("-k", "StudyDate=2020-"), "StudyDate"),
        (("-k", "StudyDate=20200101-20200102"), "is a range"),
        (("-k", "AcquisitionDateTime=2020-"), "is a range"),
        (("-k", f"PerformedSeriesSequence[{'9' * 5000}].Modality=MR"), "so many items"),
        (("-k", "Rows=-1"), "not from 0 to 65535"),
        (("-k", "SpecificCharacterSet=ISO_IR 100", "-k", "PatientName=山田"), "does not fit"),
        (("-k", "StudyInstanceUID=1.a"), "StudyInstanceUID"),
        (("-k", "MediaStorageSOPInstanceUID=1.2"), "File Meta Information"),
        (("-k", "PatientID=1", "--force"), "--output"),
        (("-k", "PatientID=1", "--output", "x", "--backup"), "--backup"),
    ],
)
def test_a_wrong_command_line(
    arguments: tuple[str, ...], says: str, ct: Path, run_here: RunHere
) -> None:
    run_here("modify", ct, *arguments).check(2, says)
    assert ct.read_bytes() == CT.read_bytes()


def test_a_backup_is_never_lost(tmp_path: Path, ct: Path, run_here: RunHere) -> None:
    link = tmp_path / "link.dcm"
    link.symlink_to(ct)
    before = ct.read_bytes()
    run_here("modify", "--backup", link, "-k", "PatientName=One").check_done()
    kept = ct.with_name(f"{ct.name}.bak")
    assert (kept.read_bytes(), kept.is_symlink()) == (before, False)
    again = run_here("modify", "--backup", ct, "-k", "PatientName=Two")
    again.check(1, ".bak is there already")
    assert kept.read_bytes() == before
    assert pydicom.dcmread(ct).PatientName == "One"


def test_backups_in_a_folder_are_not_changed_in_their_turn(ct: Path, run_here: RunHere) -> None:
    before = ct.read_bytes()
    modify = ("modify", "--backup", ct.parent)
    run_here(*modify, "-k", "PatientName=One").check_done()
    run_here(*modify, "-k", "PatientName=Two").check(1, ".bak is there already")
    kept = ct.with_name(f"{ct.name}.bak")
    assert kept.read_bytes() == before
    assert sorted(ct.parent.iterdir()) == [ct, kept]


@pytest.mark.parametrize("command", [("modify", "-k", "PatientID=1"), ("dump",)])
def test_a_folder_without_files_is_a_failure(
    command: tuple[str, ...], tmp_path: Path, run_here: RunHere
) -> None:
    run_here(*command, tmp_path).check(1, f"there are no files in {tmp_path}")


def with_last_fragment_odd(name: str, path: Path) -> bytes:
    """A file whose last fragment lacks a byte; the fragment."""
    original = pydicom.dcmread(TEST_FILES / name)
    value = original.PixelData
    at = value.rindex(ITEM)
    length = int.from_bytes(value[at + 4 : at + 8], "little")
    fragment = value[at + 8 :][: length - 1]
    assert len(fragment) % 2
    odd = value[: at + 4] + len(fragment).to_bytes(4, "little") + fragment
    path.write_bytes((TEST_FILES / name).read_bytes().replace(value, odd))
    return bytes(fragment)


@pytest.mark.interop
def test_a_fragment_of_odd_length_gets_the_byte_that_it_lacks(
    tmp_path: Path, run_here: RunHere
) -> None:
    path = tmp_path / "odd.dcm"
    fragment = with_last_fragment_odd("JPEG2000.dcm", path)
    run_here("modify", path, "-k", "PatientID=1").check_done()
    assert pydicom.dcmread(path).PixelData.endswith(
        ITEM + (len(fragment) + 1).to_bytes(4, "little") + fragment + b"\0"
    )
    assert dcmdump(path).count(" pi ") == 2
    before = path.read_bytes()
    run_here("modify", path, "-k", "PatientID=2").check_done()
    run_here("modify", path, "-k", "PatientID=1").check_done()
    assert path.read_bytes() == before


def test_fragments_that_would_move_are_left_alone(tmp_path: Path, run_here: RunHere) -> None:
    path = tmp_path / "odd.dcm"
    with_last_fragment_odd("JPEG2000.dcm", path)
    data_set = path.read_bytes()
    delimiter = data_set.rindex(b"\xfe\xff\xdd\xe0")
    path.write_bytes(data_set[:delimiter] + ITEM + b"\2\0\0\0\0\0" + data_set[delimiter:])
    before = path.read_bytes()
    ended = run_here("modify", path, "-k", "PatientID=1")
    assert "fragment of odd length" in ended.errors[0]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("element", "vr"),
    [(b"\x02\0\x03\0", b"U\x16"), (b"\x02\0\0\0", b"UI"), (b"\x08\0\x18\0", b"U\x16")],
)
def test_an_element_that_is_none_fails_its_file_alone(
    element: bytes, vr: bytes, ct: Path, tmp_path: Path, run_here: RunHere
) -> None:
    whole = ct.read_bytes()
    at = whole.index(element) + 4
    damaged = tmp_path / "a.dcm"
    damaged.write_bytes(whole[:at] + vr + whole[at + 2 :])
    ended = run_here("modify", tmp_path, "-k", "PatientID=NEW")
    assert (ended.code, ended.stdout) == (1, "1 changed, 1 failed\n")
    assert "a.dcm: " in ended.errors[0]
    assert "internal" not in ended.stderr
    assert pydicom.dcmread(ct).PatientID == "NEW"
    copy = tmp_path / "copy.dcm"
    ended = run_here("create", copy, "--template", damaged).check(1, "copy.dcm: ")
    assert "internal" not in ended.stderr


def test_a_number_is_signed_where_the_pixels_are(ct: Path, run_here: RunHere) -> None:
    run_here("modify", ct, "-k", "SmallestImagePixelValue=-5").check_done()
    element = pydicom.dcmread(ct)["SmallestImagePixelValue"]
    assert (element.VR, element.value) == ("SS", -5)
    run_here("modify", ct, "-k", "SmallestImagePixelValue=40000").check(2, "not from -32768")
    run_here("modify", ct, "-k", "PixelRepresentation=0").check_done()
    run_here("modify", ct, "-k", "SmallestImagePixelValue=-5").check(2, "not from 0 to 65535")
    run_here("modify", ct, "-k", "SmallestImagePixelValue=40000").check_done()
    assert pydicom.dcmread(ct)["SmallestImagePixelValue"].value == 40000


@pytest.mark.parametrize("change", [("-d", "SOPInstanceUID"), ("-k", "SOPInstanceUID=")])
def test_an_instance_keeps_its_uids(change: tuple[str, str], ct: Path, run_here: RunHere) -> None:
    run_here("modify", ct, *change).check(2, "--new-instance-uid")
    run_here("modify", ct, "-d", "SOPClassUID").check(2, "would be no instance")
    assert ct.read_bytes() == CT.read_bytes()


def test_what_is_no_instance_may_lose_its_uid(tmp_path: Path, run_here: RunHere) -> None:
    query = tmp_path / "query.dcm"
    run_here("create", query, "QueryRetrieveLevel=IMAGE", "SOPInstanceUID=1.2").check_done()
    assert pydicom.dcmread(query).file_meta.MediaStorageSOPInstanceUID == "1.2"
    run_here("modify", query, "-d", "SOPInstanceUID").check_done()
    assert "MediaStorageSOPInstanceUID" not in pydicom.dcmread(query).file_meta


def test_a_directory_keeps_the_uids_that_stand_in_its_meta(
    tmp_path: Path, run_here: RunHere
) -> None:
    path = Path(shutil.copy(TEST_FILES / "dicomdirtests" / "DICOMDIR", tmp_path))
    before = pydicom.dcmread(path).file_meta
    run_here("modify", path, "-k", "FileSetID=NEW").check_done()
    after = pydicom.dcmread(path).file_meta
    for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID"):
        assert after[keyword] == before[keyword]


def test_a_deflated_file_is_looked_at_for_its_end(tmp_path: Path, run_here: RunHere) -> None:
    whole = (TEST_FILES / "image_dfl.dcm").read_bytes()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inner = inflater.decompress(whole[DEFLATED_AT:])
    path = tmp_path / "x.dcm"
    for number, (data, good) in enumerate(
        ((inner, True), (inner[:-1], False), (inner[:-1000], False), (inner + b"junk", False))
    ):
        deflated = zlib.compress(data, wbits=-zlib.MAX_WBITS)
        path.write_bytes(whole[:DEFLATED_AT] + deflated)
        before = path.read_bytes()
        ended = run_here("modify", path, "-k", f"PatientID={number}")
        assert (ended.code == 0) == (path.read_bytes() != before) == good
        assert run_here("dump", path, "-k", "Rows").code == ended.code
    path.write_bytes(whole[:-100])
    for command in (("dump", path), ("modify", path, "-k", "PatientID=1")):
        assert "cut off" in run_here(*command).errors[0]


def test_a_deflated_file_is_not_inflated_without_end(
    tmp_path: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_files, "MAX_INFLATED", 1 << 20)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(1 << 21)) + deflater.flush()
    path = tmp_path / "bomb.dcm"
    path.write_bytes((TEST_FILES / "image_dfl.dcm").read_bytes()[:DEFLATED_AT] + bomb)
    run_here("dump", path).check(1, "bomb.dcm: its deflated data set has more than 1 MiB")
    ended = run_here("modify", path, "-k", "PatientID=1")
    assert ended.stdout == "0 changed, 1 failed\n"
    assert "more than 1 MiB" in ended.errors[0]
