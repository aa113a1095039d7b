"""Fixtures for the interoperability tests."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID

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
    uids = [f"{STUDY_UID}.1.{number}" for number in range(1001, 1001 + CROWD)]
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = UID(uids[0])
    data_set.save_as(folder / "first.dcm")
    first = (folder / "first.dcm").read_bytes()
    files = [folder / f"{uid}.dcm" for uid in uids]
    for file, uid in zip(files, uids, strict=True):
        file.write_bytes(first.replace(uids[0].encode(), uid.encode()))
    return files
