"""The pytest plugin: fixtures for tests against DCMTK and against an embedded archive.

pytest loads it wherever the package is installed, so it imports nothing until a fixture is used.
The fixtures are ordinary ones that hand out asynchronous context managers: they work in any test
that runs under Trio, with pytest-trio or without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import ModuleType
    from typing import Protocol

    from .archive import ArchivePeer

    class OpenArchive(Protocol):
        """What the fixture `dimse_archive` is; annotate it with this."""

        def __call__(
            self, *files: str | os.PathLike[str], ae_title: str = "ARCHIVE", **options: Any
        ) -> AbstractAsyncContextManager[ArchivePeer]: ...


@pytest.fixture
def dcmtk() -> ModuleType:
    """`dimse_trio.testing.dcmtk`, the runners for DCMTK's programs.

    Where DCMTK is not installed the test is skipped; in CI (the environment variable `CI` is set)
    it fails, so that no tests are missed without notice.
    """
    from . import dcmtk

    if not dcmtk.available():
        reason = f"DCMTK is not installed: {dcmtk.HOW_TO_INSTALL}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return dcmtk


@pytest.fixture
def dimse_archive(tmp_path_factory: pytest.TempPathFactory) -> OpenArchive:
    """Opens embedded archives, each on a free port of this machine and with the files given.

    It is to be entered, `async with dimse_archive("image.dcm") as archive`, and gives an
    `ArchivePeer`. Its options are those of `served_archive`.
    """
    from .archive import served_archive

    def open_one(
        *files: str | os.PathLike[str], ae_title: str = "ARCHIVE", **options: Any
    ) -> AbstractAsyncContextManager[ArchivePeer]:
        folder: Path = tmp_path_factory.mktemp("dimse_archive")
        return served_archive(folder, *files, ae_title=ae_title, **options)

    return open_one
