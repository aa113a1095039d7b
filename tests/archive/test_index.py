"""The index: entities by level, contradictions, versions, damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from dimse_trio import datasets
from dimse_trio.archive import Archive, ArchiveError
from dimse_trio.archive import index as index_module
from dimse_trio.archive.header import read_header
from dimse_trio.archive.index import SCHEMA_VERSION, Index, Record
from dimse_trio.protocol.uids import EXPLICIT_VR_LITTLE_ENDIAN

from .instances import instance, store


def record(data_set: Dataset, path: str = "", modified_ns: int = 1) -> Record:
    data = datasets.encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    header = read_header(BytesIO(data), EXPLICIT_VR_LITTLE_ENDIAN)
    path = path or f"{header.sop_instance_uid}.dcm"
    return Record(header, path, len(data), modified_ns, 0, EXPLICIT_VR_LITTLE_ENDIAN)


def put(index: Index, *data_sets: Dataset) -> None:
    with index.transaction():
        index.put([record(data_set) for data_set in data_sets])


def rows(index: Index, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(index.path)) as connection:
        return connection.execute(statement).fetchall()


def counts(index: Index) -> tuple[int, ...]:
    tables = ("patients", "studies", "series", "instances")
    return tuple(rows(index, f"SELECT count(*) FROM {table}")[0][0] for table in tables)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def index(path: Path) -> Generator[Index]:
    opened = Index(path)
    opened.open()
    yield opened
    opened.close(consistent=True)


def test_instances_share_what_is_above_them(index: Index) -> None:
    put(index, *(instance(uid=f"1.2.1.1.{number}") for number in range(5)))
    put(index, instance(series="1.2.1.2", uid="1.2.1.2.1"))
    put(index, instance(study="1.2.2", series="1.2.2.1", uid="1.2.2.1.1"))
    put(index, instance("1.2.3", "1.2.3.1", "1.2.3.1.1", PatientID="P2"))
    assert counts(index) == (2, 3, 4, 8)


@pytest.mark.parametrize(
    ("one", "other", "patients"),
    [
        ({"PatientID": "A"}, {"PatientID": "A", "PatientName": "Roe"}, 1),
        ({"PatientID": "A"}, {"PatientID": "a"}, 2),
        ({"PatientID": "A"}, {"PatientID": "A", "IssuerOfPatientID": "X"}, 2),
        ({"PatientID": ""}, {"PatientID": "", "PatientName": "Roe"}, 2),
        ({"PatientID": ""}, {"PatientID": None}, 1),
        ({"PatientID": ""}, {"PatientID": "", "PatientBirthDate": "19700101"}, 2),
    ],
)
def test_who_is_the_same_patient(
    index: Index, one: dict[str, Any], other: dict[str, Any], patients: int
) -> None:
    put(index, instance("1.1", "1.1.1", "1.1.1.1", **one))
    put(index, instance("1.2", "1.2.1", "1.2.1.1", **other))
    assert counts(index)[:2] == (patients, 2)


def test_contradictions_are_kept_as_each_instance_says(index: Index) -> None:
    put(index, instance("1.1", "1.9", "1.1.1"), instance("1.2", "1.9", "1.2.1"))
    put(index, instance("1.1", "1.9", "1.1.2", PatientID="P2"))
    assert counts(index) == (2, 3, 3, 3)


def test_attributes_are_those_last_given_a_value(index: Index) -> None:
    put(index, instance(uid="1.1", StudyDescription="first", StudyID="1"))
    put(index, instance(uid="1.2", StudyDescription="second", StudyID=""))
    put(index, instance(uid="1.3"))
    statement = "SELECT StudyDescription, StudyID FROM studies"
    assert rows(index, statement) == [("second", "1")]
    # the same with nothing remembered
    index._entities.clear()  # pyright: ignore[reportPrivateUsage]
    put(index, instance(uid="1.4", StudyDescription="third"), instance(uid="1.5"))
    assert rows(index, statement) == [("third", "1")]


def test_an_instance_is_there_once_and_moves(index: Index) -> None:
    put(index, instance(), instance(uid="1.2.1.1.2"))
    put(index, instance(InstanceNumber="7"))
    assert counts(index) == (1, 1, 1, 2)
    put(index, instance("1.9", "1.9.1", PatientID="P2"))
    assert counts(index) == (2, 2, 2, 2)
    put(index, instance("1.9", "1.9.1", "1.2.1.1.2", PatientID="P2"))
    assert counts(index) == (1, 1, 1, 2)
    with index.transaction():
        index.remove(index.files().values())
    assert counts(index) == (0, 0, 0, 0)


def test_twice_in_one_go_the_last_counts(index: Index) -> None:
    put(index, instance("1.1", "1.1.1", InstanceNumber="1"), instance(InstanceNumber="2"))
    assert rows(index, "SELECT InstanceNumber FROM instances") == [("2",)]


def test_what_is_forgotten_is_not_remembered(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_CACHED_ENTITIES", 3)
    for number in range(20):
        put(index, instance(f"1.{number}", f"1.{number}.1", f"1.{number}.1.1"))
    put(index, instance("1.3", "1.3.1", "1.3.1.2"))
    assert counts(index) == (1, 20, 20, 21)


def test_a_transaction_that_fails_leaves_nothing(index: Index) -> None:
    with pytest.raises(ZeroDivisionError), index.transaction():
        index.put([record(instance())])
        raise ZeroDivisionError
    assert counts(index) == (0, 0, 0, 0)
    put(index, instance())  # the series is not taken to be there
    assert counts(index) == (1, 1, 1, 1)


def reopen(path: Path) -> bool:
    index = Index(path)
    closed = index.open()
    index.close(consistent=True)
    return closed


def test_it_knows_whether_it_was_closed(path: Path) -> None:
    assert not reopen(path)
    assert reopen(path)
    index = Index(path)
    index.open()
    index.close(consistent=False)
    assert not reopen(path)
    assert reopen(path)


def break_it(statements: Iterable[str], path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statements",
    [
        [f"PRAGMA user_version = {SCHEMA_VERSION + 1}"],
        ["PRAGMA application_id = 1"],
        ["DROP TABLE state"],
    ],
)
def test_another_database_is_no_index(path: Path, statements: list[str]) -> None:
    reopen(path)
    break_it(statements, path)
    before = path.read_bytes()
    with pytest.raises(ArchiveError, match="rebuild") as caught:
        Index(path).open()
    assert caught.value.damaged
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough for one" * 99)
    with pytest.raises(ArchiveError, match="rebuild"):
        Index(path).open()


@pytest.mark.parametrize("garbage", [b"", b"x"])
def test_a_file_that_is_hardly_begun_is_made_anew(path: Path, garbage: bytes) -> None:
    path.write_bytes(garbage)
    assert not reopen(path)
    assert reopen(path)


def test_a_database_that_is_damaged_inside_is_noticed_after_a_crash(path: Path) -> None:
    index = Index(path)
    index.open()
    put(index, *(instance(uid=f"1.2.1.1.{number}") for number in range(200)))
    index.close(consistent=False)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 2 * 4096] = b"\xaa" * 2 * 4096
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="rebuild"):
        Index(path).open()


def garble_schema(path: Path) -> None:
    """Have SQLite complain in what is no UTF-8, and Python not understand it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql ="
            " CAST(replace(CAST(sql AS BLOB), 'NOT NULL', x'4e4f5420a3') AS TEXT)"
            " WHERE name = 'studies'"
        )
        connection.execute(f"PRAGMA schema_version = {version + 1}")


def test_damage_of_which_sqlite_says_what_is_no_text(path: Path) -> None:
    reopen(path)
    data = path.read_bytes()
    at = data.index(b"NOT NULL", data.index(b"CREATE TABLE studies")) + 6
    path.write_bytes(data[:at] + b"\xa3" + data[at + 1 :])
    with pytest.raises(ArchiveError, match="rebuild") as caught:
        Index(path).open()
    assert caught.value.damaged


def test_such_damage_while_it_is_open(path: Path) -> None:
    index = Index(path)
    index.open()
    garble_schema(path)
    with pytest.raises(ArchiveError, match="rebuild") as caught:
        put(index, instance())
    assert caught.value.damaged
    with pytest.raises(ArchiveError, match="rebuild"):
        index.close(consistent=True)


async def test_such_damage_seen_by_a_query(archive: Archive) -> None:
    await store(archive, instance())
    garble_schema(archive.folder / "index.sqlite")
    with pytest.raises(ArchiveError, match="rebuild") as caught:
        await archive.statistics()
    assert caught.value.damaged


def test_a_lock_is_said_to_be_one(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index._writer.execute("PRAGMA busy_timeout = 1")  # pyright: ignore[reportPrivateUsage]
    other = sqlite3.connect(index.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ArchiveError, match="locked") as caught:
        put(index, instance())
    assert not caught.value.damaged
    other.execute("ROLLBACK")
    other.close()
    put(index, instance())
    assert counts(index) == (1, 1, 1, 1)


def test_a_path_may_look_like_a_url(tmp_path: Path) -> None:
    assert not reopen(tmp_path / "a?b#c%20.sqlite")
    assert (tmp_path / "a?b#c%20.sqlite").exists()
