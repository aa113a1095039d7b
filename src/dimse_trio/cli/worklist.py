"""`dimse-trio worklist`: a modality worklist, and the steps that modalities report, as a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import click

import dimse_trio as dimse

from .errors import LISTENER_EPILOG, CommandFailed, ExitCode
from .listening import Listening, listen
from .options import CONTEXT_SETTINGS, Listener, listener_options


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=LISTENER_EPILOG,
    short_help="Answer worklist queries from a folder (SCP).",
)
@click.argument("folder", type=click.Path(file_okay=False))
@click.option(
    "--steps",
    metavar="FOLDER",
    type=click.Path(file_okay=False),
    help="Take performed procedure steps (MPPS) too, and keep them there.",
)
@listener_options
def worklist(listener: Listener, folder: str, steps: str | None, verbose: int) -> ExitCode:
    """Answer worklist queries from the .wl, .dcm and .json files in FOLDER.

    Each has a worklist item; the last are in the DICOM JSON Model. Files may come, change and go
    while it runs. It prints `listening on HOST:PORT as TITLE` once it listens. Such queries are
    asked with `dimse-trio find --level worklist`.

    \b
    Examples:
      dimse-trio worklist orders --port 11114 --aet RIS
      dimse-trio worklist orders --steps performed --aet RIS
    """  # noqa: D301 - \b is for click
    if not Path(folder).is_dir():
        raise CommandFailed(f"{folder} is no folder", ExitCode.USAGE)
    handlers: list[object] = [dimse.WorklistFolder(folder)]
    if steps is not None:
        handlers.append(dimse.PerformedProcedureSteps(dimse.PerformedStepFolder(Path(steps))))

    @asynccontextmanager
    async def make_handler(listening: Listening) -> AsyncGenerator[dimse.AnyHandler]:
        yield dimse.Handlers(*handlers)

    return listen(listener, make_handler)
