"""Peers for `RemoteAE`, with what they take and send; a cancellation at a chosen step."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import trio
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

import dimse_trio as dimse

CT = dimse.uid_of("CTImageStorage")
EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")


def instance(uid: str, sop_class: str = CT) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = UID(sop_class), UID(uid)
    data_set.PatientID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "1", "1.2", "1.2.1"
    return data_set


def write(path: Path, data_set: Dataset) -> Path:
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    data_set.save_as(path, enforce_file_format=True)
    return path


@attrs.define
class Taker:
    """Takes instances, and breaks the association over some of them the first times."""

    breaks: dict[str, int] = attrs.field(factory=dict)
    refuses: tuple[str, ...] = ()
    taken: Counter[str] = attrs.field(factory=Counter[str])
    at_once: int = 0
    most_at_once: int = 0

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await request.data_set()
            uid = request.sop_instance_uid
            if self.breaks.get(uid, 0):
                self.breaks[uid] -= 1
                await request.association.abort()
            if uid in self.refuses:
                return dimse.Status.OUT_OF_RESOURCES
            self.taken[uid] += 1
            await trio.lowlevel.checkpoint()
            return dimse.Status.SUCCESS
        finally:
            self.at_once -= 1


def remote(port: int, **options: object) -> dimse.RemoteAE:
    options.setdefault("pause", 0)
    return dimse.RemoteAE("ARCHIVE", "127.0.0.1", port, **options)  # type: ignore[arg-type]


async def until(condition: object) -> None:
    assert callable(condition)
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


class Leaky:
    """An archive that forgets an instance in its C-GETs, the first times."""

    def __init__(self, files: dict[str, Path], forgets: int) -> None:
        self.files = files
        self.forgets = forgets
        self.gets = 0

    async def handle_find(self, request: dimse.FindRequest) -> AsyncGenerator[Dataset]:
        level = request.identifier.QueryRetrieveLevel
        matches = {"SERIES": ["1.2.1"], "IMAGE": list(self.files)}[level]
        for uid in matches:
            match = instance(uid if level == "IMAGE" else "1")
            match.QueryRetrieveLevel = level
            yield match

    async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Path]:
        self.gets += 1
        wanted = request.identifier.get("SOPInstanceUID") or list(self.files)
        wanted = [wanted] if isinstance(wanted, str) else wanted
        for uid in wanted:
            if uid == "1.2.3.4" and self.gets <= self.forgets:
                continue
            yield self.files[uid]


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when the current task is about to take its n-th step from here."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self._task = trio.lowlevel.current_task()
        self._steps = steps
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._steps -= 1
            if not self._steps:
                self._scope.cancel()
