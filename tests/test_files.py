"""DICOM files and data sets: the header is ours, the data set is never touched unless asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pydicom.data
import pytest
import trio
from pydicom import Dataset, dcmread

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.part10 import file_header, path_of
from dimse_trio.protocol.uids import NATIVE_TRANSFER_SYNTAXES

FILES = Path(pydicom.data.__file__).parent / "test_files"
READABLE = sorted(
    path
    for path in FILES.glob("*.dcm")
    if path.name
    not in {
        "ExplVR_BigEndNoMeta.dcm",
        "ExplVR_LitEndNoMeta.dcm",
        "no_meta.dcm",
        "meta_missing_tsyntax.dcm",
        "rtstruct.dcm",  # a bare data set
        "empty_charset_LEI.dcm",  # no SOP UIDs anywhere
        "nested_priv_SQ.dcm",
    }
)


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.name)
def test_the_header_says_what_pydicom_says(path: Path) -> None:
    instance = dimse.Instance.from_file(path)
    data_set = dcmread(path, stop_before_pixels=True, force=True)
    meta = data_set.file_meta
    assert instance.sop_class_uid == data_set.get("SOPClassUID", meta.MediaStorageSOPClassUID)
    assert instance.sop_instance_uid == data_set.get(
        "SOPInstanceUID", meta.MediaStorageSOPInstanceUID
    )
    assert instance.transfer_syntax_uid == meta.TransferSyntaxUID
    assert instance.offset + instance.length == path.stat().st_size


def test_a_header_of_ours_is_read_by_pydicom_and_by_us(tmp_path: Path) -> None:
    source = dimse.Instance.from_file(FILES / "CT_small.dcm")
    raw = source.path.read_bytes()[source.offset :]
    target = tmp_path / "copy.dcm"
    header = file_header(
        sop_class_uid=source.sop_class_uid,
        sop_instance_uid=source.sop_instance_uid,
        transfer_syntax_uid=source.transfer_syntax_uid,
        source_ae_title="SENDER",
    )
    target.write_bytes(header + raw)
    copy, original = dcmread(target), dcmread(source.path)
    assert copy == original
    assert copy.file_meta.SourceApplicationEntityTitle == "SENDER"
    assert copy.file_meta.FileMetaInformationGroupLength == len(header) - 144
    assert dimse.Instance.from_file(target).offset == len(header)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("README.txt", "not a DICOM file"),
        ("nested_priv_SQ.dcm", "no SOP Class UID"),
        ("rtstruct.dcm", "File Meta Information"),
        ("no_meta.dcm", "File Meta Information"),
        ("ExplVR_LitEndNoMeta.dcm", "File Meta Information"),
        ("meta_missing_tsyntax.dcm", r"Transfer Syntax UID \(0002,0010\)"),
    ],
)
def test_a_file_that_cannot_be_sent_says_why(name: str, message: str) -> None:
    with pytest.raises(dimse.InvalidFile, match=message):
        dimse.Instance.from_file(FILES / name)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dimse.Instance.from_file(tmp_path / "none.dcm")


@pytest.mark.parametrize("cut", [10, 131, 140, 150, 200])
def test_a_cut_file_says_why(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes((FILES / "CT_small.dcm").read_bytes()[:cut])
    with pytest.raises(dimse.InvalidFile):
        dimse.Instance.from_file(path)


@pytest.mark.parametrize("target", NATIVE_TRANSFER_SYNTAXES)
@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_implicit.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm"]
)
def test_conversion_between_native_syntaxes_keeps_every_value(
    tmp_path: Path, name: str, target: str
) -> None:
    instance = dimse.Instance.from_file(FILES / name)
    original = dcmread(instance.path)
    converted = datasets.decode(datasets.convert(instance, target), target)
    to_original = tmp_path / "there.dcm"
    header = file_header(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        transfer_syntax_uid=target,
    )
    to_original.write_bytes(header + datasets.convert(instance, target))
    back = dimse.Instance.from_file(to_original)
    restored = datasets.decode(
        datasets.convert(back, instance.transfer_syntax_uid), instance.transfer_syntax_uid
    )
    assert restored.PixelData == original.PixelData
    assert [e.tag for e in converted] == [e.tag for e in original]
    assert converted.get("PatientName") == original.get("PatientName")
    assert converted.Rows == original.Rows


@pytest.mark.parametrize("syntax", NATIVE_TRANSFER_SYNTAXES)
def test_pixels_are_the_same_in_every_native_syntax(tmp_path: Path, syntax: str) -> None:
    little = dimse.Instance.from_file(FILES / "MR_small.dcm")
    big = dcmread(FILES / "MR_small_bigendian.dcm").PixelData
    converted = datasets.decode(datasets.convert(little, syntax), syntax).PixelData
    expected = dcmread(little.path).PixelData
    assert converted == (big if syntax.endswith("1.2.2") else expected)


def test_bytes_that_are_no_data_set_are_our_error() -> None:
    unknown_vr = b"\x08\x00\x18\x00ZZ\x04\x001.2\0"
    with pytest.raises(dimse.DataSetError):
        datasets.decode(unknown_vr, "1.2.840.10008.1.2.1", max_values=datasets.MAX_VALUES)
    with pytest.raises(dimse.DataSetError, match="deflated"):
        datasets.decode(b"\xff\xff\xff", "1.2.840.10008.1.2.1.99")


def test_a_data_set_without_uids_is_no_instance() -> None:
    with pytest.raises(dimse.DataSetError, match="SOP Class UID"):
        datasets.sop_uids(Dataset())


def test_contexts_for_files_are_their_pairs_and_a_native_way_out() -> None:
    names = ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small.dcm", "JPEG2000.dcm"]
    contexts = dimse.contexts_for(FILES / name for name in names)
    pairs = {(c.abstract_syntax, c.transfer_syntaxes) for c in contexts}
    for name in names:
        instance = dimse.Instance.from_file(FILES / name)
        assert (instance.sop_class_uid, (instance.transfer_syntax_uid,)) in pairs
    jpeg = dimse.Instance.from_file(FILES / "JPEG2000.dcm").sop_class_uid
    assert [len(s) for c, s in pairs if c == jpeg] == [1]
    ct = dimse.uid_of("CTImageStorage")
    assert (ct, ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")) in pairs


def test_instances_are_split_so_that_each_group_fits_an_association(tmp_path: Path) -> None:
    syntaxes = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2"]
    instances = [
        dimse.Instance(tmp_path / "x", f"1.2.{number}", f"1.{number}", syntax, 0, 0)
        for syntax in syntaxes
        for number in range(100)
    ]
    groups = dimse.split_instances(instances)
    assert [instance for group in groups for instance in group] == instances
    assert all(len(dimse.contexts_for(group)) <= 128 for group in groups)
    assert len(groups) <= 6


def test_default_contexts_fit_and_retrieve_contexts_fit() -> None:
    assert len(dimse.default_contexts()) <= 128
    classes = [c.abstract_syntax for c in dimse.default_contexts()]
    for count in (0, 1, 5, 40, 126):
        contexts = dimse.retrieve_contexts(classes[:count])
        assert len(contexts) <= 128
        offered = {(c.abstract_syntax, s) for c in contexts for s in c.transfer_syntaxes}
        assert all((c, "1.2.840.10008.1.2.4.90") in offered for c in classes[:count])


TRUNCATED = ("MR_truncated.dcm", "rtplan_truncated.dcm")


async def test_a_scan_finds_every_file_whole_but_those_that_are_not() -> None:
    """Of all encodings that pydicom is tested with."""
    found, unreadable = await dimse.scan_files(FILES)
    assert len(found) > 100
    cut = [each for each in unreadable if "its data set is cut off" in str(each.error)]
    assert sorted(each.path.name for each in cut) == sorted(TRUNCATED)


@pytest.mark.parametrize("cut", [1, 10_000, 30_000])
async def test_a_file_that_is_cut_off_is_no_instance_to_send(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes((FILES / "CT_small.dcm").read_bytes()[:-cut])
    found, [unreadable] = await dimse.scan_files(tmp_path)
    assert found == []
    assert str(unreadable.error).startswith(f"{path}: its data set is cut off")


async def test_a_large_file_is_not_read_through(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    data_set = dcmread(FILES / "CT_small.dcm")
    data_set.PixelData = b""
    del data_set[0xFFFCFFFC]
    data_set.save_as(path)
    with path.open("r+b") as file:  # whose pixels are a hole that takes no room
        file.seek(-4, 2)
        file.write((0xFFFFFFFE).to_bytes(4, "little"))
        file.truncate(file.tell() + 0xFFFFFFFE)
    with trio.fail_after(5):
        [instance], unreadable = await dimse.scan_files(path)
    assert (instance.path, unreadable) == (path, [])


def test_a_copy_of_a_test_file_stays_readable(tmp_path: Path) -> None:
    shutil.copy(FILES / "rtplan.dcm", tmp_path / "a.dcm")
    assert dimse.Instance.from_file(tmp_path / "a.dcm").sop_class_uid == dimse.uid_of(
        "RTPlanStorage"
    )


def test_an_implicit_element_whose_length_looks_like_a_vr_is_read_as_what_it_is() -> None:
    uids = ["1.2.3.4.5.6.7.8"] * (0x4955 // 16)
    data_set = Dataset()
    data_set.SOPInstanceUID = uids
    implicit = "1.2.840.10008.1.2"
    encoded = datasets.encode(data_set, implicit)
    length = int.from_bytes(encoded[4:8], "little")
    padded = encoded[:4] + (0x4956).to_bytes(4, "little") + encoded[8:].ljust(0x4956, b"\0")
    assert length <= 0x4956
    assert len(datasets.decode(padded, implicit).SOPInstanceUID) == len(uids)


def test_a_path_may_be_one_of_bytes() -> None:
    class Named:
        def __fspath__(self) -> bytes:
            return b"/a/b.dcm"

    assert path_of(Named()) == Path("/a/b.dcm")
