"""Fixtures of the archive's tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from dimse_trio.archive import Archive, open_archive


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncGenerator[Archive]:
    """An empty archive."""
    async with open_archive(tmp_path / "archive") as opened:
        yield opened
