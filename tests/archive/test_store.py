"""C-STORE: what is kept is whole, in its place and indexed, whoever sends what at once."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom import dcmread

import dimse_trio as dimse
from dimse_trio import Status, StatusError, datasets
from dimse_trio.archive import Archive, Statistics, handler
from dimse_trio.archive.arrivals import Arrival, Arrivals
from dimse_trio.archive.index import Index, Record
from dimse_trio.protocol.uids import EXPLICIT_VR_LITTLE_ENDIAN, NATIVE_TRANSFER_SYNTAXES

from .instances import (
    CT,
    HOSTILE,
    TEST_FILES,
    failing,
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
