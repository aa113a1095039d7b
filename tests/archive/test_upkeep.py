"""Start-up after a crash, rebuilding, and what happens to an archive that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from io import BufferedReader
from pathlib import Path

import pytest
import trio

import dimse_trio as dimse
from dimse_trio.archive import Archive, ArchiveError, Statistics, open_archive, upkeep
from dimse_trio.archive.folder import Folder
from dimse_trio.archive.header import Header

from .instances import (
    VICTIMS_ENVIRONMENT,
    content,
    find,
    found,
    instance,
    retrieved,
    store,
    visible_files,
    write,
)


async def filled(folder: Path) -> Statistics:
    async with open_archive(folder) as archive:
        await store(
            archive,
            *(instance(uid=f"1.2.1.1.{number}") for number in range(5)),
            instance("1.3", "1.3.1", "1.3.1.1", PatientID="P2"),
        )
        return await archive.statistics()


async def opened(folder: Path, *, rebuild_index: bool = False) -> tuple[Statistics, list[str]]:
    async with open_archive(folder, rebuild_index=rebuild_index) as archive:
        statistics = await archive.statistics()
        return statistics, await found(archive, "IMAGE", "SOPInstanceUID")


def crash(folder: Path) -> None:
    """Have the index say that it was not closed."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(folder / "index.sqlite")) as connection:
        connection.execute("UPDATE state SET closed = 0")
        connection.commit()


async def test_it_is_there_the_next_time(tmp_path: Path) -> None:
    before = await filled(tmp_path)
    assert before == Statistics(2, 2, 2, 6, sum(f.stat().st_size for f in visible_files(tmp_path)))
    assert (await opened(tmp_path))[0] == before


@pytest.mark.parametrize("how", ["rebuild", "no index", "damaged", "no database"])
async def test_the_index_is_made_from_the_files(tmp_path: Path, how: str) -> None:
    before = await filled(tmp_path)
    index = tmp_path / "index.sqlite"
    if how == "no index":
        index.unlink()
    elif how != "rebuild":
        index.write_bytes(b"garbage" * 9999 if how == "damaged" else index.read_bytes()[:5000])
        if how == "damaged":
            with pytest.raises(ArchiveError, match="--rebuild-index"):
                await opened(tmp_path)
    after, uids = await opened(tmp_path, rebuild_index=how != "no index")
    assert after == before
    assert len(uids) == 6
    assert (await opened(tmp_path))[0] == before


async def test_it_is_rebuilt_while_it_works(archive: Archive, tmp_path: Path) -> None:
    await store(archive, *(instance(uid=f"1.2.1.1.{number}") for number in range(30)))
    before = await archive.statistics()
    write(archive.folder / "brought" / "along.dcm", instance("1.9", "1.9.1", "1.9.1.1"))
    write(archive.folder / "brought" / "no.dcm", instance(StudyInstanceUID=None))
    (archive.folder / "brought" / "text.dcm").write_text("no DICOM")
    (archive.folder / "1.2.1/1.2.1.1/1.2.1.1.3.dcm").unlink()
    told: list[tuple[int, int]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store, archive, instance(uid="1.2.1.1.99"))
        assert await archive.rebuild_index(lambda *numbers: told.append(numbers)) in (30, 31)
    assert told[-1][0] == told[-1][1]
    after = await archive.statistics()
    assert (after.studies, after.instances) == (2, before.instances + 1)
    (item,) = await retrieved(archive, "STUDY", StudyInstanceUID="1.9")
    assert item == dimse.Instance.from_file(archive.folder / "brought" / "along.dcm")
    assert await found(archive, "IMAGE", "SOPInstanceUID", SOPInstanceUID="1.2.1.1.3") == []


async def test_a_file_that_has_become_unreadable_is_forgotten(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    await store(archive, instance(), instance(uid="1.2.1.1.2"))
    (archive.folder / "1.2.1/1.2.1.1/1.2.1.1.2.dcm").write_bytes(b"")
    assert await archive.catch_up() == 0
    assert await found(archive, "IMAGE", "SOPInstanceUID") == ["1.2.1.1.1"]
    assert "1.2.1.1.2.dcm" in caplog.text


@pytest.mark.parametrize("error", [ZeroDivisionError("Doe^John"), UnicodeError("Doe^John")])
async def test_a_file_that_cannot_be_read_keeps_no_archive_closed(
    tmp_path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await filled(tmp_path)
    reading = upkeep.read_header

    def read(file: BufferedReader, syntax: str) -> Header:
        if "1.2.1.1.2.dcm" in file.name:
            raise error
        return reading(file, syntax)

    monkeypatch.setattr(upkeep, "read_header", read)
    assert (await opened(tmp_path, rebuild_index=True))[0].instances == 5
    assert f"1.2.1.1.2.dcm: {type(error).__name__}" in caplog.text
    assert "Doe" not in caplog.text


async def test_a_file_in_what_is_no_character_set_is_indexed(tmp_path: Path) -> None:
    await filled(tmp_path)
    path = tmp_path / "1.2.1/1.2.1.1/1.2.1.1.2.dcm"
    for name in (b"IDNA", b"PUNYCODE", b"UNDEFINED"):
        made = write(path, instance(uid="1.2.1.1.2", SpecificCharacterSet="ISO_IR 100"))
        data = made.read_bytes().replace(b"ISO_IR 100", name.ljust(10))
        path.write_bytes(data.replace(b"Doe", b"D\xf6e"))
        for rebuild_index in (False, True):
            async with open_archive(tmp_path, rebuild_index=rebuild_index) as archive:
                await archive.catch_up()
                keys = {"SOPInstanceUID": "1.2.1.1.2"}
                assert await found(archive, "IMAGE", "PatientName", **keys) == ["D\xf6e^John"]


async def test_after_a_crash_only_what_changed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await filled(tmp_path)
    crash(tmp_path)
    write(tmp_path / "1.4" / "new.dcm", instance("1.4", "1.4.1", "1.4.1.1"))
    (tmp_path / "1.3/1.3.1/1.3.1.1.dcm").unlink()
    changed = tmp_path / "1.2.1/1.2.1.1/1.2.1.1.0.dcm"
    write(changed, instance(uid="1.2.1.1.0", PatientName="Roe"))
    (tmp_path / ".incoming" / "leftover.part").write_text("part of an instance")
    read: list[str] = []
    record = upkeep._record  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(
        upkeep, "_record", lambda folder, file: read.append(file.path) or record(folder, file)
    )
    after, uids = await opened(tmp_path)
    assert sorted(read) == ["1.2.1/1.2.1.1/1.2.1.1.0.dcm", "1.4/new.dcm"]
    assert (after.patients, after.studies, after.instances) == (1, 2, before.instances)
    assert "1.4.1.1" in uids
    assert "1.3.1.1" not in uids
    assert list((tmp_path / ".incoming").iterdir()) == []


async def test_without_a_crash_nothing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tmp_path)
    monkeypatch.setattr(upkeep, "_compare", None)
    await opened(tmp_path)


async def test_of_two_files_the_later_counts(tmp_path: Path) -> None:
    async with open_archive(tmp_path) as archive:
        await store(archive, instance())
        for name, when in (("a", 2), ("b", 3), ("c", 1)):
            path = write(tmp_path / f"{name}.dcm", instance(f"1.{when}", "1.9", "1.9.9"))
            os.utime(path, (when, when))
        for _ in range(2):
            await archive.rebuild_index()
            await archive.catch_up()
            keys = {"SOPInstanceUID": "1.9.9"}
            assert await found(archive, "IMAGE", "StudyInstanceUID", **keys) == ["1.3"]
        # an earlier one that appears later changes nothing; it does if the other goes
        os.utime(tmp_path / "c.dcm", (2, 2))
        await archive.catch_up()
        assert await found(archive, "IMAGE", "StudyInstanceUID", **keys) == ["1.3"]
        (tmp_path / "b.dcm").unlink()
        (tmp_path / "a.dcm").touch()
        await archive.catch_up()
        assert await found(archive, "IMAGE", "StudyInstanceUID", **keys) == ["1.2"]


async def test_cancelled_it_is_done_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_BATCH", 2)
    await filled(tmp_path)
    write(tmp_path / "new.dcm", instance(uid="1.2.1.1.77"))
    async with open_archive(tmp_path) as archive:
        with trio.CancelScope() as scope:
            await archive.rebuild_index(lambda done, of: scope.cancel())
        assert scope.cancelled_caught
        assert await found(archive, "IMAGE", "SOPInstanceUID", SOPInstanceUID="1.2.1.1.77") == []
    assert "1.2.1.1.77" in (await opened(tmp_path))[1]


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ArchiveError, match="cannot use"):
            await opened(path)
    async with open_archive(tmp_path / "archive"):
        with pytest.raises(ArchiveError, match="in use"):
            await opened(tmp_path / "archive")
    await opened(tmp_path / "archive")


async def test_a_folder_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "files", fail)
        with pytest.raises(ArchiveError, match="Permission denied"):
            await opened(tmp_path)
    await opened(tmp_path)


async def test_a_folder_is_named_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("relative", trio.Path("relative"), Path("relative")):
        async with open_archive(name) as archive:  # type: ignore[arg-type]
            assert archive.folder == tmp_path / "relative"
            monkeypatch.chdir("/")
            await store(archive, instance())
        monkeypatch.chdir(tmp_path)


VICTIM = """
import sys
import trio
from dimse_trio.archive import open_archive
from archive.instances import instance, store_request

async def main():
    async with open_archive(sys.argv[1]) as archive, trio.open_nursery() as nursery:
        async def store(worker):
            number = 0
            while True:
                number += 1
                study = f"1.{sys.argv[2]}.{number % 5}"
                # some are stored again and again, some move to another study
                uid = f"1.2.{number % 7}" if number % 3 == 0 else f"{study}.1.{worker}.{number}"
                await archive.handle_store(
                    store_request(instance(study, study + ".1", uid, PatientComments="x" * 5000))
                )
                print(uid, flush=True)
        for worker in range(4):
            nursery.start_soon(store, worker)

trio.run(main)
"""


def run_and_kill(folder: Path, number: int, after: int) -> set[str]:
    """Have a process store until it has said so of some instances; all that it said."""
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(folder), str(number)],
        stdout=subprocess.PIPE,
        env=VICTIMS_ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    return {line.decode().strip() for line in said if line.endswith(b"\n")}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
async def test_killed_at_any_time_it_has_what_it_said_it_has(tmp_path: Path) -> None:
    promised: set[str] = set()
    for number in range(4):
        promised |= await trio.to_thread.run_sync(run_and_kill, tmp_path, number, 60 + 7 * number)
        async with open_archive(tmp_path) as archive:
            uids = {str(r.SOPInstanceUID) for r in await find(archive, "IMAGE", SOPInstanceUID="")}
            assert promised <= uids
            assert {str(content(path).SOPInstanceUID) for path in visible_files(tmp_path)} == uids
            for item in await retrieved(archive, "IMAGE", SOPInstanceUID=sorted(uids)):
                assert item == dimse.Instance.from_file(item.path)
                assert len(content(item.path).PatientComments) == 5000
                assert content(item.path).SOPInstanceUID == item.sop_instance_uid
