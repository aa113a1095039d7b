"""`dimse-trio receive`: a storage SCP that writes to a folder."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import click

import dimse_trio as dimse

from .errors import LISTENER_EPILOG, ExitCode
from .listening import Listening, listen
from .options import CONTEXT_SETTINGS, Listener, listener_options, output_options
from .output import Format, Output
from .receiver import Receiver


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=LISTENER_EPILOG,
    short_help="Receive instances into a folder (C-STORE SCP).",
)
@click.argument("folder", type=click.Path(file_okay=False))
@output_options(csv=False)
@listener_options
def receive(listener: Listener, folder: str, output: Format, verbose: int) -> ExitCode:
    """Write every instance that is sent here to FOLDER, as <SOP Instance UID>.dcm.

    It prints `listening on HOST:PORT as TITLE` once it listens, with -v a line for each instance,
    and with --json an object for either. C-ECHO is answered too.

    \b
    Examples:
      dimse-trio receive incoming --port 11113 --aet WORKSTATION
      dimse-trio receive incoming --port 0 --port-file port.txt --json
    """  # noqa: D301 - \b is for click
    Path(folder).mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def make_handler(listening: Listening) -> AsyncGenerator[Receiver]:
        printed = Output(listening.output_closed, output)

        async def on_received(request: dimse.StoreRequest, path: Path) -> None:
            if output is Format.JSON:
                await printed.json(
                    {
                        "path": str(path),
                        "sop_class_uid": request.sop_class_uid,
                        "sop_instance_uid": request.sop_instance_uid,
                        "transfer_syntax_uid": request.transfer_syntax_uid,
                        "calling_ae_title": request.association.calling_ae_title,
                    }
                )
            elif verbose:
                await printed.line(f"{path} {dimse.uid_name(request.sop_class_uid)}")

        yield Receiver(Path(folder), on_received)

    return listen(listener, make_handler, output=output)
