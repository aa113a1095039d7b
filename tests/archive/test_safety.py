"""What the archive answers for, and what it does not (PS3.4 Annex J)."""

from __future__ import annotations

import os
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import FailureReason, SOPReference, datasets
from dimse_trio.archive import Archive, open_archive
from dimse_trio.part10 import file_header
from dimse_trio.protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from dimse_trio.testing import served_archive
from dimse_trio.wholeness import Ending, ending_of, follow

from .instances import CT, TEST_FILES, instance, store

FILES = [
    path
    for path in sorted(TEST_FILES.glob("*.dcm"))
    if path.name
    in {
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "JPEG2000.dcm",
        "JPEG-lossy.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "test-SR.dcm",
        "rtplan.dcm",
        "rtdose.dcm",
        "image_dfl.dcm",
        "liver_1frame.dcm",
        "reportsi.dcm",
    }
]
HELD = SOPReference(CT, "1.2.1.1.1")
MR = dimse.uid_of("MRImageStorage")


def file_of(archive: Archive) -> Path:
    [path] = archive.folder.rglob("*.dcm")
    return path


async def test_what_is_there_and_whole_is_committed(archive: Archive) -> None:
    await store(archive, instance())
    assert await archive.committed(HELD) is None


async def test_what_is_not_there_is_not(archive: Archive) -> None:
    await store(archive, instance())
    stranger = SOPReference(CT, "1.2.3")
    assert await archive.committed(stranger) == FailureReason.NO_SUCH_OBJECT_INSTANCE
    file_of(archive).unlink()
    assert await archive.committed(HELD) == FailureReason.NO_SUCH_OBJECT_INSTANCE


async def test_another_sop_class_is_a_conflict(archive: Archive) -> None:
    await store(archive, instance())
    other = SOPReference(MR, HELD.sop_instance_uid)
    assert await archive.committed(other) == FailureReason.CLASS_INSTANCE_CONFLICT


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\1\2")


def garble(path: Path) -> None:
    """The length of its last element is another one, so that it does not end with the file."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x20\0\x13\0IS") + 6
    data[at : at + 2] = b"\xff\0"
    path.write_bytes(data)


def replace(path: Path) -> None:
    """Another instance, as long as this one."""
    path.write_bytes(path.read_bytes().replace(b"1.2.1.1.1\0", b"1.2.1.1.9\0"))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [cut, empty, lengthen, garble, replace, make_folder])
async def test_a_damaged_file_is_not_answered_for(archive: Archive, harm: Any) -> None:
    await store(archive, instance())
    harm(file_of(archive))
    assert await archive.committed(HELD) == FailureReason.PROCESSING_FAILURE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_files_are_whole_until_they_are_cut(path: Path, tmp_path: Path) -> None:
    def whole(data: bytes) -> bool:
        copy = tmp_path / "copy.dcm"
        copy.write_bytes(data)
        with copy.open("rb") as file:
            found = dimse.Instance.from_open_file(file, copy)
            file.seek(found.offset)
            return ending_of(file, found.transfer_syntax_uid) is Ending.WHOLE

    data = path.read_bytes()
    assert whole(data)
    offset = dimse.Instance.from_file(path).offset
    for length in {len(data) - 1, len(data) - 9, (offset + len(data)) // 2 | 1}:
        assert not whole(data[:length])


@pytest.mark.parametrize(
    ("syntax", "ending"),
    [
        ("1.2.840.10008.1.2.4.95", Ending.UNCLEAR),  # JPIP Referenced Deflate
        ("1.2.840.113619.5.2", Ending.UNCLEAR),  # a private one
        ("1.2.840.10008.1.2.1.99", Ending.WHOLE),
        ("1.2.840.10008.1.2.1", Ending.CUT_OFF),
    ],
)
def test_what_is_encoded_in_a_way_that_is_not_known_is_not_called_cut_off(
    syntax: str, ending: Ending
) -> None:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = (
        compressor.compress(datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN))
        + compressor.flush()
    )
    assert ending_of(BytesIO(data), syntax) is ending


def nested() -> Dataset:
    made, outer, inner = instance(), Dataset(), Dataset()
    inner.CodeValue = "1"
    inner.is_undefined_length_sequence_item = True
    outer.ConceptNameCodeSequence = [inner, Dataset()]
    outer["ConceptNameCodeSequence"].is_undefined_length = True
    made.ContentSequence = [outer]
    made["ContentSequence"].is_undefined_length = True
    return made


@pytest.mark.parametrize("agreed", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
@pytest.mark.parametrize(
    "sent", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN]
)
def test_undefined_lengths_are_followed_in_every_native_encoding(
    sent: str, agreed: str, tmp_path: Path
) -> None:
    if sent == EXPLICIT_VR_BIG_ENDIAN:
        agreed = sent
    assert whole(tmp_path, datasets.encode(nested(), sent), agreed)
    assert not whole(tmp_path, datasets.encode(nested(), sent)[:-8], agreed)


def test_a_sequence_of_unknown_vr_holds_implicit_vr(tmp_path: Path) -> None:
    content = datasets.encode(nested(), IMPLICIT_VR_LITTLE_ENDIAN)
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + content + b"\xfe\xff\x0d\xe0" + bytes(4)
    unknown = b"\x41\0\x10\x10UN\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0" + bytes(4)
    after = b"\x42\0\x10\x10SH\2\0A "
    head = datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
    assert whole(tmp_path, head + unknown + after)
    assert not whole(tmp_path, head + unknown[:-8])


def test_a_deflated_data_set_is_inflated_to_its_end(tmp_path: Path) -> None:
    syntax = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    data = datasets.encode(instance(PatientComments="long " * 2000), syntax)
    assert whole(tmp_path, data, syntax)
    assert not whole(tmp_path, data[: len(data) // 2], syntax)
    assert not whole(tmp_path, data + b"more", syntax)
    assert not whole(tmp_path, b"\xff" * 100, syntax)
    bomb = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert whole(tmp_path, bomb.compress(bytes(1 << 24)) + bomb.flush(), syntax)


def whole(folder: Path, data: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bool:
    path = folder / "made.dcm"
    header = file_header(sop_class_uid=CT, sop_instance_uid="1.2.3", transfer_syntax_uid=syntax)
    path.write_bytes(header + data)
    with path.open("rb") as file:
        file.seek(len(header))
        return ending_of(file, syntax) is Ending.WHOLE


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"\x09\0\x01\x10??\x04\0ABCD", id="an unknown VR"),
        pytest.param(b"\xfe\xff\xdd\xe0\0\0\0\0", id="the end of a sequence that is none"),
        pytest.param(bytes(16), id="padding to a block"),
    ],
)
def test_what_is_not_followed_is_not_said_to_be_cut_off(end: bytes) -> None:
    data = datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN) + end
    assert ending_of(BytesIO(data), EXPLICIT_VR_LITTLE_ENDIAN) is Ending.UNCLEAR


def test_elements_are_followed_up_to_a_bound() -> None:
    empty = b"\x09\0\x10\x10LO\0\0"
    data = BytesIO(empty * 10)
    assert follow(data, implicit=False, most_elements=11) is Ending.WHOLE
    data.seek(0)
    assert follow(data, implicit=False, most_elements=10) is Ending.UNCLEAR


async def test_the_archive_commits_over_the_network(tmp_path: Path) -> None:
    ct, mr = TEST_FILES / "CT_small.dcm", TEST_FILES / "MR_small.dcm"
    with trio.fail_after(30):
        async with served_archive(tmp_path, ct) as peer:
            pacs = dimse.RemoteAE(peer.ae_title, peer.host, peer.port)
            result = await pacs.commit([ct, mr])
    assert [each.sop_instance_uid for each in result.committed] == [
        dimse.Instance.from_file(ct).sop_instance_uid
    ]
    assert [each.reason for each in result.failed] == [FailureReason.NO_SUCH_OBJECT_INSTANCE]
    assert result.retrieve_ae_title == "ARCHIVE"


async def test_an_index_that_leads_outside_is_a_failure(tmp_path: Path) -> None:
    async with open_archive(tmp_path / "archive") as archive:
        await store(archive, instance())
        with archive._index.transaction():
            archive._index._run("UPDATE instances SET path = '../../etc/passwd'")
        assert await archive.committed(HELD) == FailureReason.PROCESSING_FAILURE
