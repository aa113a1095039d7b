"""`dimse-trio move`: C-MOVE to another AE, or to a listener of our own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import click

import dimse_trio as dimse

from .errors import EPILOG, ExitCode, report
from .keys import LEVELS, retrieve_query
from .options import CONTEXT_SETTINGS, Client, client_options, output_options, peer_argument
from .output import Format, Output, counted
from .progress import bar
from .query_options import keys_option, level_option, model_option
from .receiver import Receiver
from .running import Work, run

_COLUMNS = ("status", "meaning", "completed", "failed", "warning", "remaining", "received")


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Have a peer send instances to another AE (C-MOVE).",
)
@peer_argument
@level_option(*LEVELS)
@keys_option
@model_option("patient", "study")
@click.option(
    "--destination",
    metavar="TITLE",
    help="AE title to send to, which PEER must know.  [default, with --receive: --aet]",
)
@click.option(
    "--receive",
    "folder",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Be the destination: listen meanwhile, and write what comes to FOLDER.",
)
@click.option(
    "--receive-host",
    metavar="HOST",
    help="With --receive, the address to listen on.  [default: all of this machine's]",
)
@click.option(
    "--receive-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    default=11112,
    show_default=True,
    help="With --receive, the port that PEER has for the destination.",
)
@output_options()
@client_options
def move(
    client: Client,
    level: str,
    keys: tuple[str, ...],
    model: str | None,
    destination: str | None,
    folder: str | None,
    receive_host: str | None,
    receive_port: int,
    output: Format,
) -> ExitCode:
    """Have PEER send what the -k keys name to the AE --destination.

    PEER must know that AE title and its address. The keys are as for dimse-trio get.

    \b
    Examples:
      dimse-trio move ARCHIVE -k StudyInstanceUID=1.2.3 --destination WORKSTATION
      dimse-trio move ARCHIVE -k StudyInstanceUID=1.2.3 --aet US --receive FOLDER \\
          --receive-port 11113
    """  # noqa: D301 - \b is for click
    query = retrieve_query(level, keys, model)
    if destination is None:
        if folder is None:
            raise click.UsageError("say where to: --destination TITLE or --receive FOLDER")
        destination = client.calling_ae_title
    receiver = None if folder is None else Receiver(Path(folder))

    async def command(work: Work) -> ExitCode:
        async with _listening(
            receiver, receive_host, receive_port, destination, client.instruments
        ):
            return await _move(work, client, query, destination, receiver, output)

    return run(command, timeout=client.timeout)


@asynccontextmanager
async def _listening(
    receiver: Receiver | None,
    host: str | None,
    port: int,
    ae_title: str,
    instruments: tuple[dimse.Instrument, ...],
) -> AsyncGenerator[None]:
    """With a receiver, a listener for it."""
    if receiver is None:
        yield
        return
    async with dimse.open_server(
        receiver,
        port,
        host=host,
        ae_title=ae_title,
        accept_unknown_storage=True,
        instruments=instruments,
    ) as server:
        yield
        await server.stop(grace=5)


async def _move(
    work: Work,
    client: Client,
    query: dimse.Query,
    destination: str,
    receiver: Receiver | None,
    format: Format,
) -> ExitCode:
    roots = [dimse.Model.STUDY_ROOT, dimse.Model.PATIENT_ROOT]
    models = roots if query.model is None else [query.model]
    contexts = [dimse.PresentationContext(model.value[1]) for model in models]
    results: list[tuple[dimse.RetrieveResult, str | None]] = []
    with bar("moving", format) as progress:
        async with (
            work.association(client.association(contexts)) as association,
            association.move(query, destination=destination, check=False) as pending,
        ):
            async for response in pending:
                done = sum(
                    count or 0 for count in (response.completed, response.failed, response.warning)
                )
                total = None if response.remaining is None else done + response.remaining
                progress.update(done, total)
            final = pending.final
            results.append((pending.result, None if final is None else final.error_comment))
    if not results:
        return ExitCode.DONE  # stopped, which Work reports
    result, comment = results[0]
    received = None if receiver is None else receiver.received
    columns = [name for name in _COLUMNS if name != "received" or receiver is not None]
    output = Output(work.output_closed, format, columns)
    row: dict[str, object] = {
        "status": int(result.status) if not output.is_table else f"{int(result.status):#06x}",
        "meaning": result.status.meaning,
        "completed": result.completed,
        "failed": result.failed,
        "warning": result.warning,
        "remaining": result.remaining,
    }
    if receiver is not None:
        row["received"] = received
    if format is Format.JSON:
        row["failed_sop_instance_uids"] = list(result.failed_sop_instance_uids)
    await output.row(row)
    await output.finish()
    return _judge(result, comment, destination, received)


def _judge(
    result: dimse.RetrieveResult, comment: str | None, destination: str, received: int | None
) -> ExitCode:
    """Whether all of it went, in the peer's words and by our own count."""
    if result.status == dimse.Status.MOVE_DESTINATION_UNKNOWN:
        report(
            f"the peer does not know the destination {destination}: have that AE title and its"
            f" address configured there ({result.status})"
        )
        return ExitCode.FAILED
    if result.status.is_failure:
        report(f"the peer answered C-MOVE with {dimse.StatusError(result.status, comment)}")
        return ExitCode.FAILED
    if result.failed:
        uids = ", ".join(result.failed_sop_instance_uids[:3])
        report(f"{counted(result.failed, 'instance')} failed" + (f": {uids}" if uids else ""))
        return ExitCode.FAILED
    counts = [count for count in (result.completed, result.warning, received) if count is not None]
    if result.status.category is dimse.StatusCategory.SUCCESS and counts and not any(counts):
        report("nothing was moved: the peer has no instance of these keys")
        return ExitCode.FAILED
    moved = (result.completed or 0) + (result.warning or 0)
    if received is not None and received < moved:
        report(f"the peer sent {counted(moved, 'instance')}, and {received} arrived here")
        return ExitCode.FAILED
    return ExitCode.DONE
