"""The embedded archive as a peer in tests, on a free port of this machine."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import attrs

from dimse_trio.archive import Archive, open_archive
from dimse_trio.blocks import block
from dimse_trio.server import Server, open_server


@attrs.frozen
class ArchivePeer:
    """An embedded archive that is listening.

    `archive` is its handler, which can be asked what it holds; `server` its listener.
    """

    host: str
    port: int
    ae_title: str
    folder: Path
    archive: Archive
    server: Server


@block("served_archive(…) as peer")
async def served_archive(
    folder: str | os.PathLike[str],
    *files: str | os.PathLike[str],
    ae_title: str = "ARCHIVE",
    **server_options: Any,
) -> AsyncGenerator[ArchivePeer]:
    """Serve an archive on a free port of this machine, inside a block.

    Args:
        folder: Where it keeps its files and index.
        files: DICOM files to begin with.
        ae_title: Its AE title. An association that calls another is rejected.
        server_options: Everything else that `open_server` takes, `peers` for example.

    Raises:
        OSError, InvalidFile: A file cannot be read.
        HandlerError, LocalProtocolError: As `open_server`.
    """
    async with open_archive(folder) as archive:
        for file in files:
            await archive.add_file(file)
        async with open_server(archive, ae_title=ae_title, **server_options) as server:
            yield ArchivePeer("127.0.0.1", server.port, ae_title, Path(folder), archive, server)
