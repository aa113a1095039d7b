"""A handler for the tests: keeps what it is sent in memory, and finds, moves and gets files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import attrs
import pydicom
import trio
from pydicom import Dataset

import dimse_trio as dimse

LEVEL_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


@attrs.frozen
class Received:
    """One instance as it came."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    data_set: bytes
    calling_ae_title: str
    move_originator: dimse.MoveOriginator | None


@attrs.define
class Shelf:
    """All five services, over a list of files.

    Attributes:
        received: What was stored.
        stuck_after: Queries stop after so many matches, and stores after so many instances, until
            they are cancelled.
        stuck: Set when a query or store stops for that.
        cancelled: Set when one is cancelled.
    """

    files: Iterable[Path] = ()
    received: list[Received] = attrs.field(factory=list)
    stuck_after: int | None = None
    stuck: trio.Event = attrs.field(factory=trio.Event)
    cancelled: trio.Event = attrs.field(factory=trio.Event)
    released: int = 0

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        if self.stuck_after is not None and len(self.received) >= self.stuck_after:
            await self._stick()
        self.received.append(
            Received(
                request.sop_class_uid,
                request.sop_instance_uid,
                request.transfer_syntax_uid,
                b"".join([chunk async for chunk in request.chunks()]),
                request.association.calling_ae_title,
                request.move_originator,
            )
        )
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        unique = LEVEL_KEYS[request.level]
        seen: set[str] = set()
        for _, record in self._matches(request.identifier):
            if record[unique].value in seen:
                continue
            if len(seen) == self.stuck_after:
                await self._stick()
            seen.add(record[unique].value)
            yield answer_to(record, request.identifier)

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        for path, _ in self._matches(request.identifier):
            yield path

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Path]:
        for path, _ in self._matches(request.identifier):
            yield path

    async def _stick(self) -> None:
        self.stuck.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    def _matches(self, identifier: Dataset) -> list[tuple[Path, Dataset]]:
        records = ((path, pydicom.dcmread(path, stop_before_pixels=True)) for path in self.files)
        return [(path, record) for path, record in records if matches(record, identifier)]


def matches(record: Dataset, identifier: Dataset) -> bool:
    """Single value, wildcard and UID list matching (PS3.4 §C.2.2.2)."""
    for key in identifier:
        if key.keyword in ("QueryRetrieveLevel", "SpecificCharacterSet") or key.is_empty:
            continue
        wanted = [str(value) for value in (key.value if key.VM > 1 else [key.value])]
        value = str(record.get(key.keyword, ""))
        if not any(fnmatchcase(value, pattern) for pattern in wanted):
            return False
    return True


def answer_to(record: Dataset, identifier: Dataset) -> Dataset:
    """What was asked for, empty where the record does not have it."""
    answer = Dataset()
    for key in identifier:
        answer[key.tag] = record.get(key.tag, key)
        if key.tag not in record and key.keyword != "QueryRetrieveLevel":
            answer[key.tag].value = None
    return answer
