"""One instance in place of another: until the index has it, the old one can be had again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dimse_trio import SOPReference, Status, StatusError
from dimse_trio.archive import Archive, ArchiveError, open_archive
from dimse_trio.archive.folder import Folder
from dimse_trio.archive.index import Index

from .instances import (
    CT,
    VICTIMS_ENVIRONMENT,
    content,
    failing,
    found,
    instance,
    store,
    store_request,
    unfinished_files,
    visible_files,
)

UID = "1.2.1.1.1"


@pytest.fixture(params=["two names", "one name"])
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system where a file may have two names, and one where it may not."""
    if request.param == "one name":
        monkeypatch.setattr(os, "link", failing(OSError(errno.EPERM, "not permitted")))


async def comments(archive: Archive) -> list[str]:
    """What the index and what the files say, which is the same; and nothing else lies about."""
    files = sorted(str(content(path).PatientComments) for path in visible_files(archive.folder))
    assert await found(archive, "IMAGE", "PatientComments") == files
    for uid in await found(archive, "IMAGE", "SOPInstanceUID"):
        assert await archive.committed(SOPReference(CT, uid)) is None
    assert unfinished_files(archive.folder) == []
    assert left_aside(archive.folder) == []
    return files


def left_aside(folder: Path) -> list[Path]:
    return [path for path in folder.joinpath(".replaced").rglob("*") if path.is_file()]


async def refused(archive: Archive, **more: Any) -> None:
    with pytest.raises(StatusError) as caught:
        await archive.handle_store(store_request(instance(**more)))
    assert caught.value.status == Status.OUT_OF_RESOURCES


# -- refusals --------------------------------------------------------------------------------------


@contextmanager
def full_at_commit(archive: Archive) -> Generator[None]:
    """The system lets no file grow that is as long as the index's log."""
    import resource

    wal = (archive.folder / "index.sqlite-wal").stat().st_size
    assert wal > 50_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def no_more_pages(archive: Archive) -> Generator[None]:
    """SQLite says that the disk is full when the index needs another page."""
    writer = archive._index._writer  # pyright: ignore[reportPrivateUsage]
    (limit,) = writer.execute("PRAGMA max_page_count").fetchone()
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        writer.execute(f"PRAGMA max_page_count = {limit}")


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("full", [full_at_commit, no_more_pages])
@pytest.mark.parametrize("study", ["1.2.1", "1.9"])
async def test_a_refused_instance_takes_no_place(archive: Archive, full: Any, study: str) -> None:
    if full is full_at_commit and sys.platform == "win32":
        pytest.skip("there is no limit to the size of files")
    await store(archive, instance(PatientComments="old"))
    (file,) = visible_files(archive.folder)
    before = file.read_bytes(), file.stat().st_mtime_ns
    with full(archive):
        for _ in range(2):
            await refused(archive, study=study, PatientComments="new" * 8000)
    assert await comments(archive) == ["old"]
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert archive._arrivals.consistent  # pyright: ignore[reportPrivateUsage]
    await store(archive, instance(study=study, PatientComments="new"))
    assert await comments(archive) == ["new"]


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("is_there", [True, False])
async def test_the_same_twice_in_a_group_that_is_refused(
    archive: Archive, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_there:
        await store(archive, instance(PatientComments="old"))
    with monkeypatch.context() as patch:
        patch.setattr(Index, "put", failing(sqlite3.OperationalError("disk is full")))
        async with trio.open_nursery() as nursery:
            async with archive._arrivals.writing:  # pyright: ignore[reportPrivateUsage]
                for _ in range(3):
                    nursery.start_soon(refused, archive)
                await wait_all_tasks_blocked()
    assert await comments(archive) == ["old"] * is_there


@pytest.mark.usefixtures("names")
async def test_a_file_that_cannot_be_placed_leaves_the_old_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(archive, instance(PatientComments="old"))
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "place", failing(OSError(errno.ENOSPC, "no space")))
        await refused(archive)
    assert await comments(archive) == ["old"]
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "set_aside", failing(OSError(errno.ENOSPC, "no space")))
        await refused(archive)
    assert await comments(archive) == ["old"]


@pytest.mark.usefixtures("names")
async def test_a_mistake_of_ours_leaves_the_old_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(archive, instance(PatientComments="old"))
    with monkeypatch.context() as patch:
        patch.setattr(Index, "put", failing(ZeroDivisionError()))
        with pytest.raises(ZeroDivisionError):
            await archive.handle_store(store_request(instance()))
    assert await comments(archive) == ["old"]


# -- what could not be put back or removed ---------------------------------------------------------


async def misplaced(folder: Path, monkeypatch: pytest.MonkeyPatch, archive: Archive) -> None:
    """Refuse an instance, and fail to put the old one back."""
    with monkeypatch.context() as patch:
        patch.setattr(Index, "put", failing(sqlite3.OperationalError("disk is full")))
        patch.setattr(Folder, "put_back", failing(OSError(errno.EIO, "it fails")))
        await refused(archive, PatientComments="refused")
    assert len(left_aside(folder)) == 1


@pytest.mark.usefixtures("names")
async def test_what_cannot_be_put_back_is_put_back_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_archive(tmp_path) as archive:
        await store(archive, instance(PatientComments="old"))
        await misplaced(tmp_path, monkeypatch, archive)
    async with open_archive(tmp_path) as archive:
        assert await comments(archive) == ["old"]


async def test_or_before_it_is_replaced_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(archive, instance(PatientComments="old"))
    await misplaced(archive.folder, monkeypatch, archive)
    with monkeypatch.context() as patch:
        patch.setattr(Index, "put", failing(sqlite3.OperationalError("disk is full")))
        await refused(archive)
    assert await comments(archive) == ["old"]
    await misplaced(archive.folder, monkeypatch, archive)
    await store(archive, instance(PatientComments="new"))
    assert await comments(archive) == ["new"]


@pytest.mark.usefixtures("names")
async def test_a_replaced_file_that_cannot_be_removed_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_archive(tmp_path) as archive:
        for text in ("first", "second"):
            with monkeypatch.context() as patch:
                patch.setattr(Folder, "let_go", failing(OSError(errno.EIO, "it fails")))
                await store(archive, instance(PatientComments=text))
        assert len(left_aside(tmp_path)) == 1
    async with open_archive(tmp_path) as archive:
        assert await comments(archive) == ["second"]
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "let_go", failing(OSError(errno.EIO, "it fails")))
            await store(archive, instance(PatientComments="third"))
        with monkeypatch.context() as patch:
            patch.setattr(Index, "put", failing(sqlite3.OperationalError("disk is full")))
            await refused(archive)
        assert await comments(archive) == ["third"]


async def test_a_start_that_cannot_settle_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_archive(tmp_path) as archive:
        await store(archive, instance(PatientComments="old"))
        await misplaced(tmp_path, monkeypatch, archive)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put_back", failing(OSError(errno.EIO, "it fails")))
        with pytest.raises(ArchiveError, match="it fails"):
            async with open_archive(tmp_path):
                pass
    async with open_archive(tmp_path) as archive:
        assert await comments(archive) == ["old"]


async def test_nothing_is_left_of_where_they_were(tmp_path: Path) -> None:
    async with open_archive(tmp_path) as archive:
        await store(archive, instance(), instance(PatientComments="new"))
        assert await comments(archive) == ["new"]
    assert not tmp_path.joinpath(".replaced").exists()


async def test_two_files_that_look_the_same_to_the_index(archive: Archive) -> None:
    await store(archive, instance(PatientComments="old"))
    (file,) = visible_files(archive.folder)
    path = file.relative_to(archive.folder).as_posix()
    then, old = file.stat().st_mtime_ns, file.read_bytes()
    assert archive._folder.set_aside(path)  # pyright: ignore[reportPrivateUsage]
    file.unlink()
    file.write_bytes(old.replace(b"old", b"new"))
    os.utime(file, ns=(then, then))
    assert archive._arrivals.settle()  # pyright: ignore[reportPrivateUsage]
    assert await archive.catch_up() == 1
    assert await comments(archive) == ["old"]


# -- kills -----------------------------------------------------------------------------------------

VICTIM = """
import os
import signal
import sys

import trio
from dimse_trio.archive import open_archive
from dimse_trio.archive.arrivals import Arrivals
from dimse_trio.archive.folder import Folder
from dimse_trio.archive.index import Index
from archive.instances import instance, store

folder, where, name, moment, links = sys.argv[1:]

def impossible(*args):
    raise PermissionError(1, "not permitted")

def die_in(owner):
    function = getattr(owner, name)
    def dying(*args):
        if moment == "after":
            function(*args)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, dying)

async def main():
    async with open_archive(folder) as archive:
        if links == "one name":
            os.link = impossible
        await store(archive, instance(PatientComments="old"))
        print("stored", flush=True)
        die_in({"Folder": Folder, "Index": Index}[where])
        await store(archive, instance(PatientComments="new"))

trio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("links", ["two names", "one name"])
@pytest.mark.parametrize(
    ("where", "name", "moment", "there"),
    [
        ("Folder", "set_aside", "before", "old"),
        ("Folder", "set_aside", "after", "old"),
        ("Folder", "place", "after", "old"),
        ("Index", "put", "after", "old"),
        ("Folder", "let_go", "before", "new"),  # the index has it
        ("Folder", "let_go", "after", "new"),
    ],
)
async def test_killed_at_each_step(
    tmp_path: Path, where: str, name: str, moment: str, there: str, links: str
) -> None:
    folder = tmp_path / "archive"
    command = [sys.executable, "-c", VICTIM, str(folder), where, name, moment, links]
    killed = await trio.run_process(
        command, capture_stdout=True, check=False, env=VICTIMS_ENVIRONMENT
    )
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == b"stored\n"
    shutil.copytree(folder, tmp_path / "copy")
    async with open_archive(folder) as archive:
        assert await comments(archive) == [there]
        await store(archive, instance(PatientComments="newer"))
        assert await comments(archive) == ["newer"]
    # without what the index said, an instance that nobody was told of may be forgotten
    async with open_archive(tmp_path / "copy", rebuild_index=True) as archive:
        assert await comments(archive) == [there if moment == "after" else "old"]
