"""Fixtures for the interoperability tests."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from .samples import STUDY_UID, Sample

CROWD = 300
"""Instances enough that a peer is still at work on them when a C-CANCEL arrives."""


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory, study: dict[str, Sample]) -> list[Path]:
    """Many small instances of one series."""
    folder = tmp_path_factory.mktemp("crowd")
    data_set = pydicom.dcmread(study["ExplicitVRLittleEndian"].path)
    data_set.Rows = data_set.Columns = 8
    data_set.PixelData = bytes(128)
    files = []
    for number in range(1, CROWD + 1):
        data_set.SOPInstanceUID = f"{STUDY_UID}.1.{1000 + number}"
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        data_set.InstanceNumber = number
        files.append(folder / f"{number:04d}.dcm")
        data_set.save_as(files[-1])
    return files


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory, study: dict[str, Sample]) -> Sample:
    """An instance of 32 MiB."""
    data_set = pydicom.dcmread(study["ExplicitVRLittleEndian"].path)
    data_set.NumberOfFrames = 64
    data_set.Rows = data_set.Columns = 512
    data_set.PixelData = bytes(range(256)) * (1 << 17)
    path = tmp_path_factory.mktemp("big") / "big.dcm"
    data_set.save_as(path)
    return Sample.of(path)
