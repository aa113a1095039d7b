"""What the tests of the command line have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

from .program import Keeper


@pytest.fixture
def files(study: dict[str, Any]) -> list[Path]:
    """The files of one study, in several transfer syntaxes, SOP classes and series."""
    return [sample.path for sample in study.values()]


@pytest.fixture
def study_uid(files: list[Path]) -> str:
    """Their Study Instance UID."""
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


@pytest.fixture
def keeper(files: list[Path], tmp_path: Path) -> Keeper:
    """A handler that has these files."""
    return Keeper.of(tmp_path / "kept", files)
