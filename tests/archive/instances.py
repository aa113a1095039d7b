"""Instances to store, and the requests that bring them: real ones, with no association behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import attrs
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.archive import Archive
from dimse_trio.association import Association
from dimse_trio.incoming import IncomingDataSet
from dimse_trio.protocol.messages import CFindRQ, CGetRQ, CMoveRQ, CStoreRQ
from dimse_trio.protocol.negotiation import AcceptedContext, Negotiated
from dimse_trio.protocol.pdus import UserInformation
from dimse_trio.protocol.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    uid_of,
)

CT = uid_of("CTImageStorage")
TEST_FILES = Path(str(get_testdata_file("CT_small.dcm"))).parent

VICTIMS_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        str(Path(file).parents[1]) for file in (__file__, dimse.__file__)
    ),
}
"""Of processes that are started to be killed: they find these modules, and the package tested."""

HOSTILE = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..\\windows",
    "C:\\x",
    "1.2.3/../../x",
    "1.2\0.3",
    "1.2.3\n",
    ".hidden",
    "1" * 300,
    "1.2." + "3" * 61,
    "1..2",
    "1.2.",
    "CON",
    "-rf",
    "\uff11.\uff12",
    "ü",
    "\udcff",
]
"""UIDs that are none, and some that name paths."""


@attrs.frozen
class StubAssociation:
    """What handlers ask of an association."""

    called_ae_title: str = "ARCHIVE"
    calling_ae_title: str = "MODALITY"
    peer_ae_title: str = "MODALITY"
    negotiated: Negotiated = attrs.field(
        factory=lambda: Negotiated("ARCHIVE", "MODALITY", {}, (), 0, 1, 1, UserInformation())
    )


ASSOCIATION = cast("Association", StubAssociation())


def instance(
    study: str = "1.2.1", series: str = "1.2.1.1", uid: str = "1.2.1.1.1", **more: Any
) -> Dataset:
    """An instance with a little of everything, and what a test wants."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CT, uid
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.PatientID, made.PatientName, made.Modality = "P1", "Doe^John", "CT"
    made.StudyDate, made.StudyTime, made.InstanceNumber = "20260131", "101530", "1"
    for keyword, value in more.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def request_with(
    data: bytes,
    sop_instance_uid: str,
    *,
    sop_class_uid: str = CT,
    syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    ended: bool = True,
) -> dimse.StoreRequest:
    """A C-STORE with those bytes, all of which have arrived."""
    incoming = IncomingDataSet(memory_limit=1 << 30, size_limit=1 << 32)
    incoming.feed(data, ended)
    return dimse.StoreRequest(
        ASSOCIATION,
        AcceptedContext(1, sop_class_uid, syntax, scu=False, scp=True),
        CStoreRQ(
            message_id=1,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            priority=0,
        ),
        incoming,
    )


def store_request(
    data_set: Dataset, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, **more: Any
) -> dimse.StoreRequest:
    """A C-STORE of a data set."""
    more.setdefault("sop_class_uid", str(data_set.get("SOPClassUID", CT)))
    return request_with(
        datasets.encode(data_set, syntax), str(data_set.SOPInstanceUID), syntax=syntax, **more
    )


def file_request(path: Path) -> dimse.StoreRequest:
    """A C-STORE of a file."""
    found = dimse.Instance.from_file(path)
    return request_with(
        path.read_bytes()[found.offset :],
        found.sop_instance_uid,
        sop_class_uid=found.sop_class_uid,
        syntax=found.transfer_syntax_uid,
    )


async def store(archive: Archive, *data_sets: Dataset) -> None:
    for data_set in data_sets:
        assert await archive.handle_store(store_request(data_set)) == dimse.Status.SUCCESS


def write(path: Path, data_set: Dataset) -> Path:
    """A DICOM file with a data set."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    meta.TransferSyntaxUID = EXPLICIT_VR_LITTLE_ENDIAN
    data_set.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    data_set.save_as(path, enforce_file_format=True)
    return path


# -- queries ---------------------------------------------------------------------------------------


def identifier(level: str | None, **keys: Any) -> Dataset:
    made = Dataset()
    if level is not None:
        made.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    if not str(made).isascii():
        made.SpecificCharacterSet = "ISO_IR 192"
    return made


def find_request(
    query: Dataset, model: str = STUDY_ROOT_FIND, syntax: str = IMPLICIT_VR_LITTLE_ENDIAN
) -> dimse.FindRequest:
    return dimse.FindRequest(
        ASSOCIATION,
        AcceptedContext(1, model, syntax, scu=False, scp=True),
        datasets.encode(query, syntax),
        message=CFindRQ(message_id=1, affected_sop_class_uid=model, priority=0),
    )


async def find(
    archive: Archive,
    level: str | None,
    *,
    model: str = "STUDY",
    syntax: str = IMPLICIT_VR_LITTLE_ENDIAN,
    **keys: Any,
) -> list[Dataset]:
    """The responses to a query, as a peer decodes them."""
    uid = {"STUDY": STUDY_ROOT_FIND, "PATIENT": PATIENT_ROOT_FIND}.get(model, model)
    request = find_request(identifier(level, **keys), uid, syntax)
    return [
        datasets.decode(datasets.encode(response, syntax), syntax)
        async for response in archive.handle_find(request)
    ]


async def found(archive: Archive, level: str, keyword: str, **keys: Any) -> list[str]:
    """One attribute of the responses, sorted."""
    keys.setdefault(keyword, "")
    responses = await find(archive, level, **keys)
    return sorted(str(response[keyword].value) for response in responses)


async def retrieved(
    archive: Archive, level: str | None, *, model: str = "STUDY", move: bool = False, **keys: Any
) -> list[dimse.Instance]:
    """What a C-GET or C-MOVE would send."""
    data = datasets.encode(identifier(level, **keys), IMPLICIT_VR_LITTLE_ENDIAN)
    items: AsyncIterator[dimse.Instance]
    if move:
        uid = {"STUDY": STUDY_ROOT_MOVE, "PATIENT": PATIENT_ROOT_MOVE}.get(model, model)
        context = AcceptedContext(1, uid, IMPLICIT_VR_LITTLE_ENDIAN, scu=False, scp=True)
        message = CMoveRQ(
            message_id=1, affected_sop_class_uid=uid, priority=0, move_destination="THERE"
        )
        items = archive.handle_move(dimse.MoveRequest(ASSOCIATION, context, data, message=message))
    else:
        uid = {"STUDY": STUDY_ROOT_GET, "PATIENT": PATIENT_ROOT_GET}.get(model, model)
        context = AcceptedContext(1, uid, IMPLICIT_VR_LITTLE_ENDIAN, scu=False, scp=True)
        message_ = CGetRQ(message_id=1, affected_sop_class_uid=uid, priority=0)
        items = archive.handle_get(dimse.GetRequest(ASSOCIATION, context, data, message=message_))
    return [item async for item in items]


def content(path: Path) -> Dataset:
    return dcmread(BytesIO(path.read_bytes()))


def visible_files(folder: Path) -> list[Path]:
    """What somebody who looks for DICOM files in the folder sees."""
    return sorted(folder.rglob("*.dcm"))


def unfinished_files(folder: Path) -> list[Path]:
    return list((folder / ".incoming").iterdir())


def failing(error: Exception) -> Callable[..., None]:
    def fail(*args: object) -> None:
        raise error

    return fail
