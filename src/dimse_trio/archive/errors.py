"""What can be wrong with an archive itself."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from dimse_trio.protocol.errors import DimseError

_HINT = (
    "the files are safe, and the index can be made anew from them:"
    " open_archive(folder, rebuild_index=True), or dimse-trio archive --rebuild-index"
)
_PASSING = {
    "SQLITE_BUSY": "is locked by another program",
    "SQLITE_LOCKED": "is locked by another program",
    "SQLITE_FULL": "cannot be written, the disk is full",
    "SQLITE_READONLY": "cannot be written, it is read-only",
    "SQLITE_CANTOPEN": "cannot be opened",
    "SQLITE_IOERR": "cannot be read or written, the disk fails",
    "SQLITE_NOMEM": "cannot be read, memory is short",
}


class ArchiveError(DimseError):
    """The archive's folder or index cannot be used; the message says what helps.

    Attributes:
        damaged: Whether the index must be rebuilt; else it may work again by itself.
    """

    def __init__(self, message: str, *, damaged: bool = False) -> None:
        super().__init__(f"{message}; {_HINT}" if damaged else message)
        self.damaged = damaged


INDEX_ERRORS = (sqlite3.Error, SQLAlchemyError, UnicodeDecodeError)
"""What an index raises; the last if SQLite quotes what is damaged, and it is no text."""


def archive_error(error: sqlite3.Error | SQLAlchemyError | UnicodeDecodeError) -> ArchiveError:
    """What SQLite, or SQLAlchemy in between, has to say, in an archive's words."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    name = str(getattr(cause, "sqlite_errorname", ""))
    for code, what in _PASSING.items():
        if name.startswith(code):
            return ArchiveError(f"the archive's index {what}")
    return ArchiveError(f"the archive's index is damaged ({cause})", damaged=True)
