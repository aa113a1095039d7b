"""C-STORE: success only for what is whole, in its place and indexed; else a status, and nothing."""

from __future__ import annotations

import errno
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom import Dataset, dcmread

import dimse_trio as dimse
from dimse_trio import Status, StatusError, datasets
from dimse_trio.archive import Archive, Statistics, arrivals, handler, header
from dimse_trio.archive.arrivals import Arrival, Arrivals
from dimse_trio.archive.folder import Folder
from dimse_trio.archive.index import Index, Record
from dimse_trio.protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NATIVE_TRANSFER_SYNTAXES,
    uid_of,
)

from .instances import (
    CT,
    TEST_FILES,
    file_request,
    found,
    instance,
    request_with,
    retrieved,
    store,
    store_request,
    unfinished_files,
    visible_files,
    write,
)
from .test_folder import HOSTILE


async def test_it_answers_an_echo(archive: Archive) -> None:
    assert await archive.handle_echo(None) == Status.SUCCESS  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "JPEG2000.dcm", "ExplVR_BigEnd.dcm", "test-SR.dcm"]
)
async def test_a_file_is_kept_byte_for_byte(archive: Archive, name: str) -> None:
    source = TEST_FILES / name
    original = dimse.Instance.from_file(source)
    assert await archive.handle_store(file_request(source)) == Status.SUCCESS
    (kept,) = visible_files(archive.folder)
    data_set = dcmread(source, stop_before_pixels=True)
    uids = (data_set.StudyInstanceUID, data_set.SeriesInstanceUID, f"{data_set.SOPInstanceUID}.dcm")
    assert kept == archive.folder.joinpath(*uids)
    copy = dimse.Instance.from_file(kept)
    assert copy.transfer_syntax_uid == original.transfer_syntax_uid
    assert kept.read_bytes()[copy.offset :] == source.read_bytes()[original.offset :]
    assert dcmread(kept).file_meta.SourceApplicationEntityTitle == "MODALITY"
    assert await retrieved(archive, "IMAGE", SOPInstanceUID=data_set.SOPInstanceUID) == [copy]
    assert unfinished_files(archive.folder) == []


@pytest.mark.parametrize("syntax", NATIVE_TRANSFER_SYNTAXES)
async def test_a_large_instance_is_written_as_it_comes(
    archive: Archive, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "BLOCK", 1000)
    data_set = instance(PatientComments="comment " * 1000)
    data = datasets.encode(data_set, syntax)
    request = request_with(b"", data_set.SOPInstanceUID, syntax=syntax, ended=False)
    incoming: Any = request._data  # pyright: ignore[reportPrivateUsage]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(archive.handle_store, request)
        for start in range(0, len(data) - 10, 300):
            incoming.feed(data[start : min(start + 300, len(data) - 10)], False)
        with trio.fail_after(60):
            while len(data) > 2000 and not unfinished_files(archive.folder):
                await trio.lowlevel.checkpoint()
        assert not visible_files(archive.folder)
        incoming.feed(data[-10:], True)
    (kept,) = visible_files(archive.folder)
    assert kept.read_bytes()[dimse.Instance.from_file(kept).offset :] == data
    assert unfinished_files(archive.folder) == []


async def test_the_last_with_an_instance_uid_stays(archive: Archive) -> None:
    await store(archive, instance(PatientComments="one"), instance(uid="1.2.1.1.2"))
    await store(archive, instance(PatientComments="two"))
    assert len(visible_files(archive.folder)) == 2
    (kept,) = await retrieved(archive, "IMAGE", SOPInstanceUID="1.2.1.1.1")
    assert dcmread(kept.path).PatientComments == "two"
    # and in another study
    await store(archive, instance("1.9", "1.9.1"))
    assert {path.parent.parent.name for path in visible_files(archive.folder)} == {"1.2.1", "1.9"}
    assert len(visible_files(archive.folder)) == 2
    await store(archive, instance("1.9", "1.9.1", "1.2.1.1.2"))
    assert not (archive.folder / "1.2.1").exists()
    assert (await archive.statistics()).studies == 1


@pytest.mark.parametrize("uid", [uid for uid in HOSTILE if uid and uid.isprintable()])
async def test_no_uid_names_a_path(archive: Archive, uid: str, tmp_path: Path) -> None:
    data_set = instance(SpecificCharacterSet="ISO_IR 192")
    data = datasets.encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    raw = uid.encode("latin-1", "replace").ljust(len(uid) + len(uid) % 2, b"\0")
    for tag, value in ((b"\x08\x00\x18\x00", b"1.2.1.1.1\0"), (b"\x20\0\r\0", b"1.2.1\0")):
        element = tag + b"UI" + len(value).to_bytes(2, "little") + value
        assert element in data
        data = data.replace(element, tag + b"UI" + len(raw).to_bytes(2, "little") + raw)
    name = raw.rstrip(b"\0").decode("latin-1").strip()
    assert await archive.handle_store(request_with(data, name)) == Status.SUCCESS
    (kept,) = visible_files(tmp_path)
    assert kept.resolve().is_relative_to(archive.folder)
    assert len(kept.relative_to(archive.folder).parts) == 3
    if "\\" not in name:  # which in a query means two UIDs
        items = await retrieved(archive, "IMAGE", SOPInstanceUID=name)
        assert [item.path for item in items] == [kept]


# -- refusals --------------------------------------------------------------------------------------


JPEG_BASELINE = uid_of("JPEGBaseline8Bit")


def cut(length: int) -> dimse.StoreRequest:
    data = datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
    return request_with(data[:length], "1.2.1.1.1")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (lambda: store_request(instance(StudyInstanceUID=None)), Status.DATA_SET_MISMATCH),
        (lambda: store_request(instance(SeriesInstanceUID="")), Status.DATA_SET_MISMATCH),
        (lambda: store_request(instance(SOPClassUID=None)), Status.DATA_SET_MISMATCH),
        (lambda: store_request(instance(), sop_class_uid="1.2"), Status.DATA_SET_MISMATCH),
        (lambda: request_with(b"", "1.2.1.1.1"), Status.DATA_SET_MISMATCH),
        (
            lambda: request_with(
                datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN), "1.2.1.1.2"
            ),
            Status.DATA_SET_MISMATCH,
        ),
        (lambda: cut(40), Status.CANNOT_UNDERSTAND),
        (lambda: request_with(b"\x08\0\x05\0CS\xff\0abc", "1.2.1.1.1"), Status.CANNOT_UNDERSTAND),
    ],
)
async def test_what_is_no_instance_is_refused(
    archive: Archive, request_: Callable[[], dimse.StoreRequest], status: Status
) -> None:
    with pytest.raises(StatusError) as caught:
        await archive.handle_store(request_())
    assert caught.value.status == status
    assert caught.value.comment
    assert len(caught.value.comment) <= 64
    assert visible_files(archive.folder) == unfinished_files(archive.folder) == []
    assert await archive.statistics() == Statistics(0, 0, 0, 0, 0)
    await store(archive, instance())


def encapsulated() -> bytes:
    """A data set that ends with pixel data in fragments."""
    item = b"\xfe\xff\x00\xe0"
    return (
        datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
        + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
        + item
        + bytes(4)
        + (item + b"\x04\0\0\0abcd") * 2
        + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )


def native(syntax: str) -> bytes:
    """A data set that ends with pixel data."""
    pixels = Dataset()
    pixels.add_new("PixelData", "OW", b"pixels" * 1000)
    return datasets.encode(instance(), syntax) + datasets.encode(pixels, syntax)


def deflated() -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(native(EXPLICIT_VR_LITTLE_ENDIAN)) + packer.flush()


CUT = [
    *(
        pytest.param(native(syntax), syntax, length, id=f"{dimse.uid_name(syntax)}-{length}")
        for syntax in (
            IMPLICIT_VR_LITTLE_ENDIAN,
            EXPLICIT_VR_LITTLE_ENDIAN,
            EXPLICIT_VR_BIG_ENDIAN,
        )
        for length in (-1, -5998, -6003)
    ),
    *(
        pytest.param(encapsulated(), JPEG_BASELINE, length, id=f"encapsulated-{length}")
        for length in (-1, -8, -9, -14, -20)
    ),
    pytest.param(deflated(), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, -20, id="deflated"),
]


@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "on disk"])
@pytest.mark.parametrize(("data", "syntax", "length"), CUT)
async def test_what_is_cut_off_does_not_take_the_place_of_what_is_whole(
    archive: Archive,
    data: bytes,
    syntax: str,
    length: int,
    in_memory: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not in_memory:
        monkeypatch.setattr(handler, "BLOCK", 1)
    uid = "1.2.1.1.1"
    assert await archive.handle_store(request_with(data, uid, syntax=syntax)) == Status.SUCCESS
    with pytest.raises(StatusError) as caught:
        await archive.handle_store(request_with(data[:length], uid, syntax=syntax))
    assert (caught.value.status, caught.value.comment) == (
        Status.CANNOT_UNDERSTAND,
        "data set is cut off",
    )
    (kept,) = visible_files(archive.folder)
    assert kept.read_bytes()[dimse.Instance.from_file(kept).offset :] == data
    assert unfinished_files(archive.folder) == []
    assert await archive.committed(dimse.SOPReference(CT, uid)) is None


async def test_what_is_cut_off_in_a_sequence_of_the_head_is_refused(archive: Archive) -> None:
    item = Dataset()
    item.RequestedProcedureDescription = "x" * 100
    data_set = instance(RequestAttributesSequence=[item])
    data_set["RequestAttributesSequence"].is_undefined_length = True
    data = datasets.encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    for length in (-1, -8, -20):
        with pytest.raises(StatusError, match="cut off"):
            await archive.handle_store(request_with(data[:length], data_set.SOPInstanceUID))
    assert visible_files(archive.folder) == []


@pytest.mark.parametrize(
    ("agreed", "sent"),
    [
        (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN),
        (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN),
    ],
)
async def test_another_encoding_than_agreed_is_followed_too(
    archive: Archive, agreed: str, sent: str
) -> None:
    data = native(sent)
    with pytest.raises(StatusError, match="cut off"):
        await archive.handle_store(request_with(data[:-1], "1.2.1.1.1", syntax=agreed))
    await archive.handle_store(request_with(data, "1.2.1.1.1", syntax=agreed))


async def test_what_cannot_be_followed_is_kept(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
    odd = b"\x71\0\x01\x10??\x04\0ABCD" + b"\x73\0\x01\x10LO\x04\0AB"
    await archive.handle_store(request_with(data + odd, "1.2.1.1.1"))
    monkeypatch.setattr(header, "MANY_ELEMENTS", 1)
    endless = native(EXPLICIT_VR_LITTLE_ENDIAN)[:-1]
    await archive.handle_store(request_with(endless, "1.2.1.1.1"))


def failing(error: Exception) -> Callable[..., None]:
    def fail(*args: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("what", ["writing a block", "writing the end", "placing"])
async def test_a_disk_that_fails(
    archive: Archive, code: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(archive, instance(PatientComments="old"))
    fail = failing(OSError(code, "what the system says"))
    with monkeypatch.context() as patch:
        if what == "writing a block":
            patch.setattr(handler, "BLOCK", 1)
            patch.setattr(handler, "write_blocks", fail)
        elif what == "writing the end":
            patch.setattr(arrivals, "write_blocks", fail)
        else:
            patch.setattr(Folder, "place", fail)
        for data_set in (instance(PatientComments="new"), instance("1.9", "1.9.1", "1.9.1.1")):
            with pytest.raises(StatusError) as caught:
                await archive.handle_store(store_request(data_set))
            assert caught.value.status == Status.OUT_OF_RESOURCES
            assert "what the system says" in str(caught.value.comment)
    (kept,) = visible_files(archive.folder)
    assert dcmread(kept).PatientComments == "old"
    assert unfinished_files(archive.folder) == []
    assert (await archive.statistics()).studies == 1
    await store(archive, instance(PatientComments="new"))
    assert dcmread(kept).PatientComments == "new"


async def test_an_index_that_is_locked(archive: Archive) -> None:
    await store(archive, instance())
    archive._index._writer.execute("PRAGMA busy_timeout = 1")  # pyright: ignore[reportPrivateUsage]
    with closing(sqlite3.connect(archive.folder / "index.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StatusError, match="locked") as caught:
            await archive.handle_store(store_request(instance(uid="1.2.1.1.2")))
        assert caught.value.status == Status.OUT_OF_RESOURCES
        other.execute("ROLLBACK")
    assert len(visible_files(archive.folder)) == 1
    assert unfinished_files(archive.folder) == []
    await store(archive, instance(uid="1.2.1.1.2"))


async def test_an_index_that_cannot_be_written_leaves_no_new_file(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(archive, instance(PatientComments="old"))
    with monkeypatch.context() as patch:
        patch.setattr(Index, "put", failing(sqlite3.OperationalError("disk is full")))
        for data_set in (instance(uid="1.2.1.1.2"), instance(PatientComments="new")):
            with pytest.raises(StatusError) as caught:
                await archive.handle_store(store_request(data_set))
            assert caught.value.status == Status.OUT_OF_RESOURCES
    # what there was is there still, though the index does not know what is in it now
    assert len(visible_files(archive.folder)) == 1
    assert await found(archive, "IMAGE", "SOPInstanceUID") == ["1.2.1.1.1"]
    assert not archive._arrivals.consistent  # pyright: ignore[reportPrivateUsage]


async def test_a_mistake_of_ours_reaches_everybody_who_waits(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Arrivals, "_commit", failing(ZeroDivisionError()))
        with pytest.raises(ZeroDivisionError):
            await archive.handle_store(store_request(instance()))
    assert unfinished_files(archive.folder) == []
    await store(archive, instance())


async def test_an_association_that_ends_is_not_the_disk(archive: Archive) -> None:
    request = request_with(b"half", "1.2.1.1.1", ended=False)
    error = dimse.ConnectionFailed("gone")
    request._data.inbox.fail(error)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(dimse.ConnectionFailed):
        await archive.handle_store(request)


# -- many at once ----------------------------------------------------------------------------------


async def test_those_who_wait_are_committed_together(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    put = Index.put

    def counting(self: Index, records: Sequence[Record]) -> None:
        groups.append(len(records))
        put(self, records)

    monkeypatch.setattr(Index, "put", counting)
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(store, archive, instance(uid=f"1.2.1.1.{number}"))
    assert sum(groups) == 50
    assert len(groups) < 10
    assert len(visible_files(archive.folder)) == 50
    assert (await archive.statistics()).instances == 50


async def test_one_that_fails_does_not_fail_its_group(archive: Archive) -> None:
    statuses: list[int] = []

    async def one(number: int) -> None:
        data_set = instance(uid=f"1.2.1.1.{number}", StudyInstanceUID="1.2" if number % 3 else "")
        try:
            statuses.append(await archive.handle_store(store_request(data_set)))
        except StatusError as error:
            statuses.append(error.status)

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(one, number)
    assert sorted(statuses) == [Status.SUCCESS] * 20 + [Status.DATA_SET_MISMATCH] * 10
    assert len(visible_files(archive.folder)) == 20
    assert unfinished_files(archive.folder) == []


async def test_the_same_instance_from_many_peers_at_once(archive: Archive) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(40):
            data_set = instance(
                f"1.{number % 3}", f"1.{number % 3}.1", "1.9.9", PatientComments=f"{number}"
            )
            nursery.start_soon(store, archive, data_set)
    (kept,) = visible_files(archive.folder)
    assert [item.path for item in await retrieved(archive, "IMAGE", SOPInstanceUID="1.9.9")] == [
        kept
    ]
    data_set = dcmread(kept)
    (study,) = await found(archive, "IMAGE", "StudyInstanceUID")
    assert study == data_set.StudyInstanceUID == kept.parent.parent.name
    statistics = await archive.statistics()
    assert statistics == Statistics(1, 1, 1, 1, kept.stat().st_size)


# -- cancellation ----------------------------------------------------------------------------------


async def test_cancelled_while_it_arrives_it_leaves_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "BLOCK", 1)
    request = request_with(b"the beginning", "1.2.1.1.1", ended=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(archive.handle_store, request)
        with trio.fail_after(60):
            while not unfinished_files(archive.folder):
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert visible_files(archive.folder) == unfinished_files(archive.folder) == []


async def test_cancelled_when_it_is_there_it_is_kept(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Arrivals._keep  # pyright: ignore[reportPrivateUsage]
    outer = trio.CancelScope()

    def cancelling(self: Arrivals, group: Sequence[Arrival]) -> None:
        trio.from_thread.run_sync(outer.cancel)
        keep(self, group)

    monkeypatch.setattr(Arrivals, "_keep", cancelling)
    with outer:
        assert await archive.handle_store(store_request(instance())) == Status.SUCCESS
        await trio.lowlevel.checkpoint()
    assert outer.cancelled_caught
    assert len(visible_files(archive.folder)) == 1
    assert (await archive.statistics()).instances == 1


# -- files -----------------------------------------------------------------------------------------


async def test_files_are_copied_in(archive: Archive, tmp_path: Path) -> None:
    source = write(tmp_path / "source", instance(PatientComments="x"))
    kept = await archive.add_file(source)
    assert source.exists()
    assert kept.path == archive.folder / "1.2.1" / "1.2.1.1" / "1.2.1.1.1.dcm"
    assert kept.path.read_bytes() == source.read_bytes()
    assert await retrieved(archive, "STUDY", StudyInstanceUID="1.2.1") == [kept]
    assert (kept.sop_class_uid, kept.sop_instance_uid) == (CT, "1.2.1.1.1")


async def test_a_file_that_is_cut_off_is_not_copied_in(archive: Archive, tmp_path: Path) -> None:
    source = tmp_path / "cut.dcm"
    source.write_bytes((TEST_FILES / "CT_small.dcm").read_bytes()[:20_000])
    with pytest.raises(dimse.InvalidFile, match="cut off"):
        await archive.add_file(source)
    assert visible_files(archive.folder) == unfinished_files(archive.folder) == []


async def test_files_that_cannot_be_added(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await archive.add_file(tmp_path / "nothing")
    (tmp_path / "text").write_text("not DICOM")
    with pytest.raises(dimse.InvalidFile):
        await archive.add_file(tmp_path / "text")
    with pytest.raises(dimse.InvalidFile, match="StudyInstanceUID"):
        await archive.add_file(write(tmp_path / "part", instance(StudyInstanceUID=None)))
    assert visible_files(archive.folder) == unfinished_files(archive.folder) == []


async def test_a_copy_that_fails_leaves_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "source", instance())
    monkeypatch.setattr(handler.shutil, "copyfile", failing(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        await archive.add_file(source)
    assert unfinished_files(archive.folder) == []
