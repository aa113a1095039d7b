"""Modality performed procedure steps as their SCP keeps them (PS3.4 §F.7, §F.8)."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from .checks import check_keeper
from .errors import HandlerError, StatusError
from .handlers import EchoSCP
from .normalized_requests import NCreateRequest, NGetRequest, NSetRequest, Reply
from .protocol.status import Status
from .protocol.uids import uid_of
from .step_rules import (
    COMPLETED,
    CREATE,
    DONE,
    ENDED,
    FINAL,
    FIXED,
    IN_PROGRESS,
    MAY_NO_LONGER_BE_UPDATED,
    SET,
    Rules,
    breaches,
)

if TYPE_CHECKING:
    from pydicom import Dataset

MPPS = uid_of("ModalityPerformedProcedureStep")
MPPS_RETRIEVE = uid_of("ModalityPerformedProcedureStepRetrieve")


class PerformedStepStore(Protocol):
    """Where `PerformedProcedureSteps` keeps steps. One call is made at a time."""

    async def load(self, uid: str, /) -> Dataset | None:
        """The step of that SOP Instance UID; `None` if there is none."""
        ...

    async def save(self, uid: str, step: Dataset, /) -> None:
        """Keep a step, new or changed."""
        ...


@attrs.frozen
class PerformedStepMemory:
    """Keeps steps as long as the process lives, in `steps` by their UIDs."""

    steps: dict[str, Dataset] = attrs.field(factory=dict[str, Any], repr=False)

    async def load(self, uid: str) -> Dataset | None:
        return copy.deepcopy(self.steps.get(uid))

    async def save(self, uid: str, step: Dataset) -> None:
        self.steps[uid] = step


@attrs.frozen
class PerformedStepFolder:
    """Keeps each step in a folder, as a DICOM file `<SOP Instance UID>.dcm`."""

    folder: Path = attrs.field(converter=Path)

    def __attrs_post_init__(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise HandlerError(f"{self.folder} is no folder that steps could be kept in")

    async def load(self, uid: str) -> Dataset | None:
        return await trio.to_thread.run_sync(self._load, self._path(uid))

    async def save(self, uid: str, step: Dataset) -> None:
        await trio.to_thread.run_sync(self._save, self._path(uid), uid, step)

    def _path(self, uid: str) -> Path:
        if not re.fullmatch(r"[0-9.]{1,64}", uid, re.ASCII) or not uid.strip("."):
            raise StatusError(Status.INVALID_SOP_INSTANCE)
        return self.folder / f"{uid}.dcm"

    @staticmethod
    def _load(path: Path) -> Dataset | None:
        import pydicom

        if not path.exists():
            return None
        step = pydicom.dcmread(path)
        for keyword in ("SOPClassUID", "SOPInstanceUID"):
            if keyword in step:
                delattr(step, keyword)
        return step

    @staticmethod
    def _save(path: Path, uid: str, step: Dataset) -> None:
        import pydicom
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import UID, ExplicitVRLittleEndian

        written = pydicom.Dataset(copy.deepcopy(step))
        written.SOPClassUID, written.SOPInstanceUID = MPPS, uid
        written.file_meta = FileMetaDataset()
        written.file_meta.MediaStorageSOPClassUID = UID(MPPS)
        written.file_meta.MediaStorageSOPInstanceUID = UID(uid)
        written.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            written.save_as(file, enforce_file_format=True)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


_OWN = frozenset(("SOPClassUID", "SOPInstanceUID"))
"""What the messages say, and the attributes need not."""


class PerformedProcedureSteps(EchoSCP):
    """A handler, or the base class of one, that is the SCP of performed procedure steps.

    A step is made IN PROGRESS, changed while it is, and ends COMPLETED or DISCONTINUED. What breaks
    PS3.4 Table F.7.2-1 is refused: 0x0120 for what is missing, 0x0121 for what has no value, 0x0106
    for another status. A step that has ended is changed no more (0x0110). An N-SET that would
    change what it may not is carried out but for that, with the warning 0x0107.

    MPPS Retrieve reads steps with N-GET. C-ECHO is answered too.

    Args:
        store: Where steps are kept; by default in memory.
        strict: Refuse steps without an attribute of type 2, too, which many modalities leave out,
            and discontinued ones without a series.

    Raises:
        HandlerError: `store` is no store.
    """

    normalized_sop_classes = (MPPS, MPPS_RETRIEVE)
    _from_init = "store"

    def __init__(self, store: PerformedStepStore | None = None, *, strict: bool = False) -> None:
        if isinstance(store, str | os.PathLike):
            raise HandlerError(
                f"{store!r} is no PerformedStepStore; for a folder: PerformedStepFolder(path)"
            )
        if store is not None:
            check_keeper("store", store, "PerformedStepStore", "load", "save", error=HandlerError)
        self.strict = strict
        self.store: PerformedStepStore = PerformedStepMemory() if store is None else store
        self._lock = trio.Lock()

    async def handle_n_create(self, request: NCreateRequest) -> Reply:
        """Begin a step."""
        _check_class(request.sop_class_uid, MPPS)
        step, uid = request.attributes, request.sop_instance_uid
        for keyword in _OWN:
            if keyword in step:
                delattr(step, keyword)
        self._check(step, CREATE)
        if _status(step) != IN_PROGRESS:
            raise StatusError(Status.INVALID_ATTRIBUTE_VALUE, "a step begins IN PROGRESS")
        async with self._lock:
            if await self.store.load(uid) is not None:
                raise StatusError(Status.DUPLICATE_SOP_INSTANCE)
            await self.store.save(uid, step)
        return Reply()

    async def handle_n_set(self, request: NSetRequest) -> Reply:
        """Change a step, or end it."""
        _check_class(request.sop_class_uid, MPPS)
        changes = request.modifications
        self._check(changes, SET)
        for _ in changes.iterall():  # or their text would be left in a character set of its own
            pass
        async with self._lock:
            step = await self._known(request.sop_instance_uid)
            if _status(step) in FINAL:
                return Reply(
                    Status.PROCESSING_FAILURE,
                    comment="Performed Procedure Step Object may no longer be updated",
                    error_id=MAY_NO_LONGER_BE_UPDATED,
                )
            refused: list[int] = []
            for element in changes:
                if element.keyword in FIXED or element.keyword in _OWN:
                    if element.tag not in step or step[element.tag] != element:
                        refused.append(int(element.tag))
                elif element.keyword != "SpecificCharacterSet":
                    step[element.tag] = element
            # either may be in a character set that the other has not
            if changes.get("SpecificCharacterSet") != step.get("SpecificCharacterSet"):
                for _ in step.iterall():
                    pass
                step.SpecificCharacterSet = "ISO_IR 192"
            status = _status(step)
            if status not in (IN_PROGRESS, *FINAL):
                raise StatusError(Status.INVALID_ATTRIBUTE_VALUE, "no status of a step")
            if status in FINAL:
                done = status == COMPLETED or self.strict
                self._check(step, DONE if done else ENDED)
            await self.store.save(request.sop_instance_uid, step)
        if refused:
            return Reply(Status.ATTRIBUTE_LIST_ERROR, attribute_identifiers=refused)
        return Reply()

    async def handle_n_get(self, request: NGetRequest) -> Dataset:
        """Give a step's attributes."""
        _check_class(request.sop_class_uid, MPPS_RETRIEVE)
        async with self._lock:
            return await self._known(request.sop_instance_uid)

    def _check(self, step: Dataset, rules: Rules) -> None:
        for path, empty in breaches(step, rules, strict=self.strict):
            status = Status.MISSING_ATTRIBUTE_VALUE if empty else Status.MISSING_ATTRIBUTE
            raise StatusError(status, path[-1])

    async def _known(self, uid: str) -> Dataset:
        step = await self.store.load(uid)
        if step is None:
            raise StatusError(Status.NO_SUCH_SOP_INSTANCE)
        return step


def _check_class(given: str, wanted: str) -> None:
    if given != wanted:
        raise StatusError(Status.NO_SUCH_SOP_CLASS)


def _status(step: Dataset) -> str:
    return str(step.get("PerformedProcedureStepStatus") or "").strip(" \0")
