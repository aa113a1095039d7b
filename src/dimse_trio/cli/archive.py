"""`dimse-trio archive`: the embedded archive as a server of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import Literal

import click

import dimse_trio as dimse

from .errors import LISTENER_EPILOG, CommandFailed, ExitCode
from .listening import Listening, listen
from .options import (
    CONTEXT_SETTINGS,
    Listener,
    listener_options,
    peers_file_option,
)
from .output import Format, counted
from .peers import find_titled_peer
from .progress import bar
from .tls import client_ssl_context

logger = logging.getLogger("dimse_trio.cli")


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=LISTENER_EPILOG,
    short_help="Run an archive: store, query, retrieve (SCP).",
)
@click.argument("folder", type=click.Path(file_okay=False))
@click.option(
    "--peer",
    "peers",
    metavar="TITLE=PEER",
    multiple=True,
    help="Where C-MOVE may send to, and late reports of storage commitment go: AE title and"
    " HOST:PORT, or a name in the peers file. May be repeated.",
)
@click.option(
    "--on-mismatch",
    type=click.Choice(["error", "transcode"]),
    default="error",
    show_default=True,
    help="What to do in C-GET and C-MOVE about a compressed instance whose transfer syntax the"
    " receiver does not take: report it as failed, or decompress it.",
)
@click.option("--rebuild-index", is_flag=True, help="Read all files anew first.")
@peers_file_option
@listener_options
def archive(
    listener: Listener,
    folder: str,
    peers: tuple[str, ...],
    on_mismatch: Literal["error", "transcode"],
    rebuild_index: bool,
    peers_file: str | None,
    verbose: int,
) -> ExitCode:
    """Keep what is sent here in FOLDER; answer C-FIND, C-GET, C-MOVE and storage commitment.

    It prints `listening on HOST:PORT as TITLE` once it listens.

    \b
    Examples:
      dimse-trio archive /data/archive --port 11112 --aet ARCHIVE
      dimse-trio archive /data/archive --aet ARCHIVE --peer WORKSTATION=127.0.0.1:11113
    """  # noqa: D301 - \b is for click
    destinations = dict(destination(text, peers_file) for text in peers)
    if find_spec("sqlalchemy") is None:
        raise CommandFailed(
            "the archive needs SQLAlchemy, which comes with the extra archive:"
            ' pip install "dimse-trio[archive]"',
            ExitCode.USAGE,
        )

    @asynccontextmanager
    async def make_handler(listening: Listening) -> AsyncGenerator[dimse.AnyHandler]:
        from dimse_trio.archive import open_archive

        async with AsyncExitStack() as stack:
            with bar("indexing", Format.TABLE) as progress:
                archive = await stack.enter_async_context(
                    open_archive(folder, rebuild_index=rebuild_index, progress=progress.update)
                )
            holds = await archive.statistics()
            logger.info(
                "the archive holds %s in %s",
                counted(holds.instances, "instance"),
                counted(holds.studies, "study"),
            )
            yield archive

    return listen(listener, make_handler, destinations, on_mismatch=on_mismatch)


def destination(text: str, peers_file: str | None) -> tuple[str, dimse.Destination]:
    """An AE and where it is, from `TITLE=HOST:PORT`, `TITLE=NAME` or `NAME`."""
    ae_title, peer = find_titled_peer(text, peers_file, "--peer")
    return ae_title, dimse.Destination(
        peer.host,
        peer.port,
        peer.ae_title,
        client_ssl_context(peer.tls),
        peer.tls.server_name,
    )
