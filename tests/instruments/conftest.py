"""Fixtures of the instruments' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from .hospital import write_files


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_files(tmp_path)
