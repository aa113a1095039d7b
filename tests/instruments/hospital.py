"""A handler whose only patient can be told from everything else, and an instrument that keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

import dimse_trio as dimse
from dimse_trio.instruments import Instrument

PATIENT_NAME = "Telltale^Patient"
PATIENT_ID = "TELLTALE-4711"
STUDY_UID = "1.2.826.0.1.3680043.10.1234.1"
INSTANCE_UIDS = tuple(f"{STUDY_UID}.{number}" for number in (1, 2))


def write_files(folder: Path) -> list[Path]:
    """Two instances of the patient."""
    paths: list[Path] = []
    for uid in INSTANCE_UIDS:
        data_set = record()
        data_set.SOPClassUID = CTImageStorage
        data_set.SOPInstanceUID = uid
        data_set.file_meta = FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{uid}.dcm"
        data_set.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def record() -> Dataset:
    """What there is to know of the patient."""
    data_set = Dataset()
    data_set.QueryRetrieveLevel = "STUDY"
    data_set.PatientName = PATIENT_NAME
    data_set.PatientID = PATIENT_ID
    data_set.StudyInstanceUID = STUDY_UID
    return data_set


@attrs.define
class Hospital:
    """All services; a C-STORE of an instance that it has already says whose it is."""

    files: list[Path]
    stored: list[str] = attrs.field(factory=list)

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        if request.sop_instance_uid in self.stored:
            raise dimse.StatusError(dimse.Status.OUT_OF_RESOURCES, f"{PATIENT_ID}: have it")
        self.stored.append(request.sop_instance_uid)
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        yield record()

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        for path in self.files:
            yield path

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Path]:
        for path in self.files:
            yield path


async def all_operations(association: dimse.Association, files: list[Path], folder: Path) -> None:
    """Echo, find, store well and badly, get, and move to "STATION" where that is known."""
    await association.echo()
    await association.find_studies(PatientName=PATIENT_NAME, PatientID=PATIENT_ID)
    await association.store(files[0])
    await association.store(files[0], check=False)
    study = dimse.query("STUDY", StudyInstanceUID=STUDY_UID, PatientID=PATIENT_ID)
    await association.get(study, save_to=folder)
    await association.move(study, destination="STATION", check=False)


class Keeping(Instrument):
    """Keeps every value that it is given, with the name of the hook."""

    def __init__(self, data_set_limit: int = 0) -> None:
        self.data_set_limit = data_set_limit
        self.told: list[tuple[str, object]] = []

    def of(self, *hooks: str) -> list[object]:
        """What these hooks were given, in order."""
        return [value for hook, value in self.told if hook in hooks]


def _keep(hook: str) -> object:
    def keep(self: Keeping, value: object) -> None:
        self.told.append((hook, value))

    return keep


HOOKS = [
    name for name, value in vars(Instrument).items() if callable(value) and not name.startswith("_")
]
for name in HOOKS:
    setattr(Keeping, name, _keep(name))
