"""Instances and queries to work with: made up here, from nothing that has to be fetched."""

from __future__ import annotations

import os
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

STUDY = "1.2.826.0.1.3680043.10.999.1"
SMALL, MEDIUM = (64, 1), (512, 1)
"""Rows and columns, frames: 9 KB and 525 KB."""
LARGE, LARGE_QUICK = (512, 384), (512, 96)
"""201 MB and 50 MB."""
LARGEST = 0xFFFF_FFFE - (1 << 16)
"""Pixels of an instance just under 4 GiB, which is the library's default limit for all of it."""


def instance(uid: str, size: tuple[int, int], pixels: bytes | None = None) -> Dataset:
    """A CT image of so many rows, columns and frames."""
    side, frames = size
    data_set = Dataset()
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data_set.SOPClassUID, data_set.SOPInstanceUID = CTImageStorage, UID(uid)
    data_set.StudyDate = data_set.SeriesDate = "20260101"
    data_set.StudyTime = data_set.SeriesTime = "120000"
    data_set.AccessionNumber = "4711"
    data_set.Modality = "CT"
    data_set.Manufacturer = "Made up"
    data_set.StudyDescription = "Benchmark"
    data_set.PatientName, data_set.PatientID = "Bench^Mark", "BENCH"
    data_set.PatientBirthDate, data_set.PatientSex = "19700101", "O"
    data_set.SliceThickness, data_set.KVP = "1.0", "120"
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = UID(STUDY), UID(f"{STUDY}.1")
    data_set.SeriesNumber, data_set.InstanceNumber = "1", uid.rpartition(".")[2]
    data_set.ImagePositionPatient = ["0", "0", "0"]
    data_set.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    if frames > 1:
        data_set.NumberOfFrames = str(frames)
    data_set.Rows = data_set.Columns = side
    data_set.PixelSpacing = ["0.5", "0.5"]
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = 16, 12, 11
    data_set.PixelRepresentation = 0
    if pixels is None:
        pixels = os.urandom(side * side * 2 * frames)
    data_set.add_new("PixelData", "OW", pixels)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data_set.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    return data_set


def write_instances(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """That many files; they stay if they are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05d}.dcm" for number in range(1, count + 1)]
    side, frames = size
    for number, file in enumerate(files, start=1):
        if not file.exists():
            instance(f"{STUDY}.{side}.{frames}.{number}", size).save_as(
                file, enforce_file_format=True
            )
    return files


def write_largest(file: Path) -> Path:
    """An instance just under 4 GiB that takes no room on disk: its pixels are a hole."""
    instance(f"{STUDY}.9", (512, 1), b"").save_as(file, enforce_file_format=True)
    with file.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(LARGEST.to_bytes(4, "little"))
        os.truncate(stream.fileno(), stream.tell() + LARGEST)
    return file


def match(number: int) -> Dataset:
    """A study as an answer to a query."""
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.StudyDate, data_set.StudyTime = "20260101", "120000"
    data_set.AccessionNumber = str(number)
    data_set.QueryRetrieveLevel = "STUDY"
    data_set.ModalitiesInStudy = ["CT", "SR"]
    data_set.ReferringPhysicianName = "Referring^Physician"
    data_set.StudyDescription = "Benchmark"
    data_set.PatientName, data_set.PatientID = f"Bench^Mark {number}", str(number)
    data_set.PatientBirthDate, data_set.PatientSex = "19700101", "O"
    data_set.StudyInstanceUID = UID(f"{STUDY}.{number}")
    data_set.StudyID = str(number)
    data_set.NumberOfStudyRelatedSeries = data_set.NumberOfStudyRelatedInstances = "3"
    return data_set


MATCHES = 100
"""Different ones; an answer repeats them as often as it takes."""
FIND_KEYS = (
    "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName",
    "StudyDescription", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
    "StudyID", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
)  # fmt: skip
"""Asked for, beside Patient ID, which says how many matches there are to be."""
