"""Fixtures of the tests of `RemoteAE`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .peers import instance, write


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "files"
    folder.mkdir()
    return [write(folder / f"{n:02}.dcm", instance(f"1.2.3.{n}")) for n in range(20)]
