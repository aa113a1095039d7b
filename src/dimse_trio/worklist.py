"""Modality worklists as asked for and answered for (PS3.4 Annex K)."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypedDict, Unpack, cast

import trio

from . import datasets
from .attributes import check_data_set
from .character_sets import encode_answer
from .errors import DataSetError, HandlerError, StatusError
from .handlers import EchoSCP
from .matching import MatchingOptions, compile_query
from .part10 import PREAMBLE_LENGTH, open_file
from .protocol.status import Status
from .protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
)
from .queries import Query, query
from .requests import FindRequest

if TYPE_CHECKING:
    import os

    from pydicom import Dataset

MAX_FILE = 1 << 24
"""Longest file of a worklist, in bytes."""

logger = logging.getLogger("dimse_trio.worklist")

_SUFFIXES = (".wl", ".dcm", ".json")
_OPTIONS = MatchingOptions(combined_datetime=True)
_STEPS = "ScheduledProcedureStepSequence"


Text: TypeAlias = str | Sequence[str] | None
Date: TypeAlias = str | dt.date | tuple[str | dt.date | None, str | dt.date | None] | None
Time: TypeAlias = str | dt.time | tuple[str | dt.time | None, str | dt.time | None] | None


class WorklistKeys(TypedDict, total=False):
    """What worklists are asked by, for type checkers (PS3.4 Table K.6-1).

    A value is as for `query`, a pair a range. Other keywords work, too.
    """

    return_keys: bool
    universal_wildcard: bool
    ScheduledStationAETitle: Text
    ScheduledStationName: Text
    ScheduledProcedureStepLocation: Text
    ScheduledProcedureStepStartDate: Date
    ScheduledProcedureStepStartTime: Time
    ScheduledProcedureStepEndDate: Date
    ScheduledProcedureStepEndTime: Time
    ScheduledPerformingPhysicianName: Text
    ScheduledProcedureStepDescription: Text
    ScheduledProcedureStepID: Text
    ScheduledProcedureStepStatus: Text
    Modality: Text
    PatientName: Text
    PatientID: Text
    IssuerOfPatientID: Text
    PatientBirthDate: Date
    PatientSex: Text
    AdmissionID: Text
    CurrentPatientLocation: Text
    AccessionNumber: Text
    RequestingPhysician: Text
    ReferringPhysicianName: Text
    StudyInstanceUID: Text
    RequestedProcedureID: Text
    RequestedProcedureDescription: Text
    RequestedProcedurePriority: Text


def worklist_query(**keys: Unpack[WorklistKeys]) -> Query:
    """`query("WORKLIST", **keys)`: an identifier for the modality worklist (PS3.4 §K.6).

    Keys of the scheduled procedure step, such as ScheduledStationAETitle, Modality and
    ScheduledProcedureStepStartDate, are put into the item of its sequence.

    Raises:
        QueryError: As `query`.
    """
    values: dict[str, Any] = dict(keys)
    return query("WORKLIST", **values)


def worklist_matches(identifier: Dataset, items: Iterable[Dataset]) -> Iterator[Dataset]:
    """The responses to a worklist query (PS3.4 §K.4).

    An item with several scheduled procedure steps is as many matches as match, each with its one
    step. Keys within the sequence match as all others; a range of start dates and one of start
    times are one range from the first moment to the last (PS3.4 Table K.6-1).

    Args:
        identifier: The request's identifier.
        items: Worklist items, each with a Scheduled Procedure Step Sequence.

    Raises:
        LocalProtocolError: An item is no data set.
    """
    compiled = compile_query(identifier, options=_OPTIONS)
    for item in items:
        check_data_set("an item", item)
        for single in _single_steps(item):
            if compiled.matches(single):
                yield compiled.response(single)


def _single_steps(item: Dataset) -> Iterator[Dataset]:
    from pydicom import Dataset

    steps = list(item.get(_STEPS) or ())
    if len(steps) < 2:
        yield item
        return
    for step in steps:
        single = Dataset()
        single.update(item)
        single.add_new(_STEPS, "SQ", [step])  # set by name it would be changed in both
        yield single


class WorklistFolder(EchoSCP):
    """A handler that answers worklist queries from the files of a folder.

    Each file, `*.wl`, `*.dcm` or `*.json` (the DICOM JSON Model, PS3.18 Annex F; an object or an
    array of them), has a worklist item. Files are read again when they have changed; those that
    cannot be read, and items that are none, are logged and left out. C-ECHO is answered too.

    Attributes:
        folder: Where the files are; its subfolders too.
    """

    query_sop_classes: ClassVar = (MODALITY_WORKLIST_FIND,)
    _from_init = "folder"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._known: dict[Path, tuple[tuple[int, int], list[Dataset]]] = {}
        self._lock = trio.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    def check_ready(self) -> None:
        """Refuse a folder that is not there, which is no empty worklist."""
        if not self.folder.is_dir():
            raise HandlerError(f"{self.folder} is no folder that a worklist could be in")

    async def handle_find(self, request: FindRequest) -> AsyncGenerator[Dataset]:
        """Answer a worklist query; other C-FINDs are refused (0x0122)."""
        if request.sop_class_uid != MODALITY_WORKLIST_FIND:
            raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED, "a modality worklist and no archive")
        for response in worklist_matches(request.identifier, await self.items()):
            yield response

    async def items(self) -> list[Dataset]:
        """The worklist as it is now.

        Raises:
            OSError: The folder cannot be read.
        """
        async with self._lock:
            return await trio.to_thread.run_sync(self._read)

    def _read(self) -> list[Dataset]:
        known: dict[Path, tuple[tuple[int, int], list[Dataset]]] = {}
        self.folder.stat()  # a folder that is not there is no empty worklist
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
                continue
            stamp = _stamp(path)
            before = self._known.get(path)
            if before is not None and before[0] == stamp:
                known[path] = before
                continue
            items: list[Dataset] = []
            known[path] = (stamp, items)  # looked at once, whatever it is
            problems: list[str] = []
            try:
                for number, item in enumerate(_load(path), 1):
                    try:
                        items.append(_checked(item))
                    except Exception as error:  # pydicom raises what it likes
                        problems.append(f"{_why(error)} (item {number})")
            except Exception as error:  # about malformed files, too
                problems.append(_why(error))
            if problems:
                more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
                logger.warning("%s is no worklist item: %s%s", path, problems[0], more)
        self._known.clear()
        self._known.update(known)
        return [item for _, items in known.values() for item in items]


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when a file does; of what cannot be looked at, nothing."""
    try:
        stat = path.stat()
    except OSError:
        return -1, -1
    return stat.st_mtime_ns, stat.st_size


def _why(error: Exception) -> str:
    """What is wrong with an item, in words that quote nothing of it."""
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON at line {error.lineno}"
    if isinstance(error, _NoItem | DataSetError):
        return str(error)
    return f"it cannot be read ({type(error).__name__})"


class _NoItem(ValueError):
    """Something that is no worklist item; the message says why."""


def _load(path: Path) -> Iterator[Dataset | Callable[[], Dataset]]:
    """What may be the items in a file; of JSON yet to be made.

    Raises:
        Exception: It has none, is too long, cut off, or no file.
    """
    import pydicom

    with open_file(path) as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise _NoItem(f"it has more than {MAX_FILE} bytes")
    if path.suffix.lower() != ".json":
        yield _whole(data)
        return
    content: Any = json.loads(data.decode("utf-8"))
    if not isinstance(content, dict | list):
        raise _NoItem("it is no object or array of the DICOM JSON Model")
    for each in cast("Iterable[Any]", [content] if isinstance(content, dict) else content):
        yield partial(pydicom.Dataset.from_json, each)


def _checked(item: Dataset | Callable[[], Dataset]) -> Dataset:
    """An item that can be sent.

    Raises:
        Exception: It cannot.
    """
    made = item() if callable(item) else item
    for _ in made.iterall():
        pass
    if not made.get(_STEPS):
        raise _NoItem("it has no Scheduled Procedure Step Sequence")
    for single in _single_steps(made):
        encode_answer(single, IMPLICIT_VR_LITTLE_ENDIAN)  # in UTF-8, if it must be
    return made


def _whole(data: bytes) -> Dataset:
    """The data set in a file, which may lack its preamble, as wlmscpfs takes them, too.

    pydicom leaves out what is cut off, so an element is put behind it and has to come out again.
    """
    import pydicom

    item = pydicom.dcmread(BytesIO(data), force=True)
    if item.file_meta.get("TransferSyntaxUID") == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return item
    implicit, little = item.original_encoding
    syntax = EXPLICIT_VR_LITTLE_ENDIAN if little else EXPLICIT_VR_BIG_ENDIAN
    end = datasets.end_mark(IMPLICIT_VR_LITTLE_ENDIAN if implicit else syntax)
    item = pydicom.dcmread(BytesIO(data + end), force=True)
    if not datasets.take_end_mark(item):
        raise _NoItem("it is cut off" if _looks_like_dicom(data) else "not a DICOM file")
    return item


def _looks_like_dicom(data: bytes) -> bool:
    """Whether there is a preamble, or a bare data set may begin."""
    groups = range(0x0002, 0x0041, 2)
    return data[PREAMBLE_LENGTH:].startswith(b"DICM") or any(
        int.from_bytes(data[:2], order) in groups for order in ("little", "big")
    )
