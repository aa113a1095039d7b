"""The index: patients, studies, series and instances in SQLite, through SQLAlchemy.

Four tables, one for each level of the Patient Root model (PS3.4 §C.6.1.1), with the attributes of
`attributes.STORED` as text. An entity is identified within the one above it, so instances that
contradict one another (one Series Instance UID in two studies) are kept as each says of itself;
the SOP Instance UID alone is unique in the whole archive. A study's attributes are those that its
latest instance gave a value to.

The files are the truth and the index is made from them: it is written in WAL mode without waiting
for the disk at each commit, survives the process being killed, and notes whether it was closed
properly, so that the next start knows when to compare it with the folder.

Writing, done for every instance, goes straight to the driver below SQLAlchemy, which takes a
third of the time; `search` reads. One thread writes at a time, which is the caller's to see to.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

import attrs
import sqlalchemy as sa

from .attributes import LEVELS, STORED
from .errors import INDEX_ERRORS, ArchiveError, archive_error
from .header import Header

FILE_NAME = "index.sqlite"
APPLICATION_ID = 0x44_54_41_31
SCHEMA_VERSION = 1
LOCK_TIMEOUT = 5.0
"""Seconds for which somebody else's lock on the database is waited for."""
_CACHED_ENTITIES = 4096

METADATA = sa.MetaData()


def _table(name: str, level: str, *columns: sa.Column[int] | sa.Column[str]) -> sa.Table:
    stored = [sa.Column(a.keyword, sa.Text, nullable=False) for a in STORED[level]]
    return sa.Table(
        name, METADATA, sa.Column("id", sa.Integer, primary_key=True), *columns, *stored
    )


PATIENTS = _table("patients", "PATIENT", sa.Column("identity", sa.Text, unique=True))
STUDIES = _table("studies", "STUDY", sa.Column("parent", sa.ForeignKey("patients.id")))
SERIES = _table("series", "SERIES", sa.Column("parent", sa.ForeignKey("studies.id")))
INSTANCES = _table(
    "instances",
    "IMAGE",
    sa.Column("parent", sa.ForeignKey("series.id"), index=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("modified_ns", sa.Integer, nullable=False),
    sa.Column("data_offset", sa.Integer, nullable=False),
    sa.Column("transfer_syntax_uid", sa.Text, nullable=False),
)
TABLES: dict[str, sa.Table] = dict(zip(LEVELS, (PATIENTS, STUDIES, SERIES, INSTANCES), strict=True))
STATE = sa.Table(
    "state",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("closed", sa.Boolean),
)

sa.Index("study_of_patient", STUDIES.c.parent, STUDIES.c.StudyInstanceUID, unique=True)
sa.Index("series_of_study", SERIES.c.parent, SERIES.c.SeriesInstanceUID, unique=True)
sa.Index("instance_uid", INSTANCES.c.SOPInstanceUID, unique=True)
for _column in (
    PATIENTS.c.PatientID,
    STUDIES.c.StudyInstanceUID,
    STUDIES.c.AccessionNumber,
    SERIES.c.SeriesInstanceUID,
):
    sa.Index(f"by_{_column.name}", _column)


@attrs.frozen
class Record:
    """An instance with its file, as the index keeps it."""

    header: Header
    path: str
    size: int
    modified_ns: int
    data_offset: int
    transfer_syntax_uid: str


@attrs.frozen
class IndexedFile:
    """Where the index has an instance, and what its file was like."""

    row: int
    parent: int
    path: str
    size: int
    modified_ns: int


class Index:
    """The database of one archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            isolation_level="AUTOCOMMIT",  # transactions are begun and ended where they are needed
            connect_args={"timeout": LOCK_TIMEOUT, "check_same_thread": False},
        )
        self._entities: dict[tuple[str, int | None, str], tuple[int, tuple[str, ...]]] = {}

    def open(self) -> bool:
        """Open the database, or make it; whether it was closed properly the last time.

        Raises:
            ArchiveError: It cannot be read or is no index of this version.
        """
        try:
            with contextlib.ExitStack() as undo:
                undo.callback(self.engine.dispose)
                self._pooled = self.engine.raw_connection()  # kept, or the pool would have it back
                undo.callback(self._pooled.close)
                driver = self._pooled.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                self._writer = driver
                closed = self._prepare(driver)
                undo.pop_all()
                return closed
        except INDEX_ERRORS as error:
            raise archive_error(error) from error

    def _prepare(self, db: sqlite3.Connection) -> bool:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            METADATA.create_all(self.engine)
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise ArchiveError(f"{self.path} is no index of an archive", damaged=True)
        if version != SCHEMA_VERSION:
            message = f"{self.path} has version {version}, where {SCHEMA_VERSION} is needed"
            raise ArchiveError(message, damaged=True)
        state = db.execute("SELECT closed FROM state WHERE id = 1").fetchone()
        closed = bool(state and state[0])
        if not closed and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise ArchiveError(f"{self.path} is damaged", damaged=True)
        db.execute("INSERT INTO state VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET closed = 0")
        return closed

    def close(self, *, consistent: bool) -> None:
        """Close the database, and note whether it says what the folder holds."""
        try:
            if consistent:
                self._writer.execute("UPDATE state SET closed = 1")
        except INDEX_ERRORS as error:
            raise archive_error(error) from error
        finally:
            self._pooled.close()
            self.engine.dispose()

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """A transaction that writes; the methods below are called in one.

        The lock for writing is taken first, so that what else is done in the block is done only
        if the database can be written.

        Raises:
            ArchiveError: It cannot be, or the transaction failed and was rolled back.
        """
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                self._entities.clear()
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
        except INDEX_ERRORS as error:
            raise archive_error(error) from error

    def find(self, sop_instance_uids: Iterable[str]) -> dict[str, IndexedFile]:
        """What is indexed of these instances."""
        rows = self._run(_FIND, json.dumps(list(sop_instance_uids)))
        return {uid: IndexedFile(*rest) for uid, *rest in rows}

    def files(self) -> dict[str, IndexedFile]:
        """Everything that is indexed, by path."""
        return {file.path: file for _, *rest in self._run(_FILES) if (file := IndexedFile(*rest))}

    def put(self, records: Sequence[Record]) -> None:
        """Add instances, the last of each SOP Instance UID, in place of those that are there."""
        latest = {record.header.sop_instance_uid: record for record in records}
        old = self.find(latest)
        rows = {uid: (self._parent(r.header), *_columns(r)) for uid, r in latest.items()}
        self._writer.executemany(_PUT, list(rows.values()))
        if any(file.parent != rows[uid][0] for uid, file in old.items()):
            self.prune()

    def remove(self, files: Iterable[IndexedFile]) -> None:
        """Remove instances, and what they leave empty."""
        self._writer.executemany("DELETE FROM instances WHERE id = ?", [(f.row,) for f in files])
        self.prune()

    def doubt(self, path: str) -> None:
        """Have a file read again when the index is compared with the folder."""
        self._run("UPDATE instances SET modified_ns = -1 WHERE path = ?", path)

    def prune(self) -> None:
        """Remove series, studies and patients without instances."""
        for child, parent in (
            ("instances", "series"),
            ("series", "studies"),
            ("studies", "patients"),
        ):
            self._writer.execute(
                f"DELETE FROM {parent} WHERE NOT EXISTS"
                f" (SELECT 1 FROM {child} WHERE {child}.parent = {parent}.id)"
            )
        self._entities.clear()

    def _parent(self, header: Header) -> int:
        """The row of the instance's series; it and those above are made or brought up to date."""
        if len(self._entities) > _CACHED_ENTITIES:
            self._entities.clear()
        row = self._entity("PATIENT", None, _patient_identity(header), header)
        row = self._entity("STUDY", row, header.unique_key("STUDY"), header)
        return self._entity("SERIES", row, header.unique_key("SERIES"), header)

    def _entity(self, level: str, parent: int | None, identity: str, header: Header) -> int:
        key, new = (level, parent, identity), header.values[level]
        above, statements = identity if parent is None else parent, _ENTITIES[level]
        found = self._entities.get(key)
        if found is None:
            row = self._run(statements.select, above, new[0]).fetchone()
            found = (row[0], row[1:]) if row else None
        if found is None:
            number = self._run(statements.insert, above, *new).lastrowid
            assert number is not None
        else:
            number, old = found
            new = tuple(now or before for now, before in zip(new, old, strict=True))
            if new != old:
                self._run(statements.update, *new, number)
        self._entities[key] = (number, new)
        return number

    def _run(self, statement: str, *values: str | int) -> sqlite3.Cursor:
        return self._writer.execute(statement, values)


def _patient_identity(header: Header) -> str:
    """What tells patients apart (PS3.3 §C.2.1): ID and issuer; without an ID, all that is known."""
    patient = header.values["PATIENT"]
    return "\n".join(patient[:2] if patient[0] else ("", *patient[1:6]))


def _columns(record: Record) -> tuple[str | int, ...]:
    return (
        record.path,
        record.size,
        record.modified_ns,
        record.data_offset,
        record.transfer_syntax_uid,
        *record.header.values["IMAGE"],
    )


# -- statements ------------------------------------------------------------------------------------


def _insert(table: sa.Table) -> tuple[str, list[str]]:
    names = [column.name for column in table.columns if column.name != "id"]
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", names


@attrs.frozen
class _Statements:
    """How an entity above the instances is looked up by its parent and key, made and changed."""

    select: str
    insert: str
    update: str


def _statements(level: str) -> _Statements:
    table = TABLES[level]
    insert, (above, *names) = _insert(table)
    uid = f" AND {names[0]} = ?" if level != "PATIENT" else " AND ? IS NOT NULL"
    return _Statements(
        f"SELECT id, {', '.join(names)} FROM {table.name} WHERE {above} = ?{uid}",
        insert,
        f"UPDATE {table.name} SET {' = ?, '.join(names)} = ? WHERE id = ?",
    )


def _put() -> str:
    insert, names = _insert(INSTANCES)
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    return f"{insert} ON CONFLICT (SOPInstanceUID) DO UPDATE SET {changes}"


_ENTITIES = {level: _statements(level) for level in LEVELS[:3]}
_PUT = _put()
_FILES = "SELECT SOPInstanceUID, id, parent, path, size, modified_ns FROM instances"
_FIND = f"{_FILES} WHERE SOPInstanceUID IN (SELECT value FROM json_each(?))"
