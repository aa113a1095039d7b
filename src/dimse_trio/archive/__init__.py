"""The embedded archive: DICOM files in a folder, an SQLite index, and a handler that serves them.

    async with open_archive("folder") as archive:
        await serve(archive, 11112, ae_title="ARCHIVE")

C-ECHO, C-STORE, C-FIND, C-GET and C-MOVE with the Patient Root and Study Root models at all their
levels (PS3.4 Annexes A, B, C). The files are the truth; the index can be made anew from them.
Needs SQLAlchemy, which `dimse-trio[archive]` brings.
"""

from __future__ import annotations

try:
    import sqlalchemy as _sqlalchemy  # noqa: F401 # pyright: ignore[reportUnusedImport]
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "dimse_trio.archive needs SQLAlchemy: pip install 'dimse-trio[archive]'", name=error.name
    ) from error

from .errors import ArchiveError
from .handler import Archive, open_archive
from .search import Statistics
from .upkeep import Progress

__all__ = ["Archive", "ArchiveError", "Progress", "Statistics", "open_archive"]
