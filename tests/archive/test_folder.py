"""Where instances lie: nowhere but in the folder, and whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimse_trio.archive import ArchiveError
from dimse_trio.archive.folder import Folder, component, path_for

from .instances import HOSTILE


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "archive")
    made.open()
    return made


def test_uids_name_files_and_folders() -> None:
    assert path_for("1.2.1", "1.2.2", "1.2.3") == "1.2.1/1.2.2/1.2.3.dcm"


@pytest.mark.parametrize("uid", HOSTILE)
def test_what_is_no_uid_becomes_a_digest(uid: str) -> None:
    name = component(uid)
    assert name.isascii()
    assert name.isalnum()
    assert len(name) == 41
    assert name != component(uid + "1")


@given(st.text(), st.text(), st.text())
def test_no_path_leads_outside(study: str, series: str, uid: str) -> None:
    root = Path("/archive")
    path = Folder(root).absolute(path_for(study, series, uid))
    assert path.parts[:2] == root.parts
    assert len(path.parts) == 5
    assert ".." not in path.parts
    assert all(len(part) <= 64 + 4 for part in path.parts)


@pytest.mark.parametrize("path", ["", "../x.dcm", "/etc/passwd", "1/../../x.dcm"])
def test_an_index_that_leads_outside_is_damaged(folder: Folder, path: str) -> None:
    with pytest.raises(ArchiveError, match="rebuild"):
        folder.absolute(path)


def test_placing_replaces_and_removing_leaves_no_empty_folders(folder: Folder) -> None:
    for text in ("one", "two"):
        temporary = folder.temporary()
        temporary.write_text(text)
        folder.place(temporary, "1/2/3.dcm")
        assert not temporary.exists()
        assert (folder.root / "1/2/3.dcm").read_text() == text
    (folder.root / "1/2/4.dcm").touch()
    folder.remove("1/2/3.dcm")
    assert [file.path for file in folder.files()] == ["1/2/4.dcm"]
    folder.remove("1/2/4.dcm")
    assert not (folder.root / "1").exists()
    folder.remove("1/2/4.dcm")  # nor is that an error


def test_files_are_those_with_the_suffix(folder: Folder) -> None:
    for name in ("1/2/3.dcm", "elsewhere/4.dcm", "5.dcm", "6.txt", ".hidden/7.dcm", ".8.dcm"):
        path = folder.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (folder.root / "9.dcm").symlink_to("/etc/passwd")
    assert {f.path for f in folder.files()} == {"1/2/3.dcm", "elsewhere/4.dcm", "5.dcm"}


def test_only_one_has_it_open(folder: Folder) -> None:
    with pytest.raises(ArchiveError, match="in use"):
        Folder(folder.root).open()
    folder.close()
    again = Folder(folder.root)
    again.open()
    again.close()


def test_what_a_killed_process_left_is_removed(folder: Folder) -> None:
    leftover = folder.temporary()
    leftover.write_text("part of an instance")
    assert not leftover.name.endswith(".dcm")
    folder.close()
    again = Folder(folder.root)
    again.open()
    assert not leftover.exists()
    again.close()
