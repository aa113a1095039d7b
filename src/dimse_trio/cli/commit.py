"""`dimse-trio commit`: ask a peer to commit itself to instances, and wait for what it says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import click

import dimse_trio as dimse

from .errors import EPILOG, ExitCode, describe, report
from .jobs import OwnListener, listen_options
from .options import CONTEXT_SETTINGS, Client, client_options, output_options, peer_argument
from .output import Format, Output, counted
from .progress import bar
from .running import Work, run

_PATIENCE = 3600.0
"""Seconds for all of it, where --timeout does not say; a peer may never report."""
_COLUMNS = ("path", "sop_instance_uid", "committed", "reason", "meaning", "retrieve_ae_title")


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Ask a peer to commit to instances (storage commitment).",
)
@peer_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@output_options()
@client_options
@listen_options("Listen here, under --aet, for a peer that reports on an association of its own.")
def commit(
    client: Client,
    paths: tuple[str, ...],
    listening: OwnListener | None,
    output: Format,
) -> ExitCode:
    """Ask PEER whether DICOM files, which it has been sent before, are safe with it.

    A PATH is a file, or a folder with all files in it. PEER reports on the same association, or on
    one that it opens to the address that it has for --aet: give that one's port as --listen-port.
    What PEER does not commit to is named on standard error, and may not be deleted here. There is a
    line for each file: whether it is committed, and else the reason. That there is no file to ask
    about is a failure. The wait ends with --timeout, and without it after an hour (3600 s).

    \b
    Examples:
      dimse-trio commit 127.0.0.1:11112 --aec ARCHIVE image.dcm
      dimse-trio commit ARCHIVE /data/studies --aet US --listen-port 11113 --timeout 600
    """  # noqa: D301 - \b is for click

    async def command(work: Work) -> ExitCode:
        return await _commit(work, client, paths, listening, output)

    return run(command, timeout=client.timeout or _PATIENCE)


async def _commit(
    work: Work,
    client: Client,
    paths: tuple[str, ...],
    listening: OwnListener | None,
    format: Format,
) -> ExitCode:
    instances: list[dimse.Instance] = []
    unreadable: list[dimse.UnreadableFile] = []
    with work.interruptible(), bar("reading headers", format) as progress:
        instances, unreadable = await dimse.scan_files(paths, progress=progress.update)
    if work.stopped is not None:
        return ExitCode.DONE  # which Work reports
    output = Output(work.output_closed, format, _COLUMNS)
    for file in unreadable:
        reason = describe(file.error).removeprefix(f"{file.path}: ")
        report(f"{file.path}: {reason}")
        no = "no" if output.is_table else False
        await output.row({"path": str(file.path), "committed": no, "meaning": reason})
    results: list[dimse.CommitmentResult] = []
    if instances:
        async with (
            _listener(client, listening) as listener,
            work.association(client.association(dimse.commitment_contexts())) as association,
            association.commit(instances, listener=listener) as commitment,
        ):
            work.awaits = _awaits(len(instances), listening)
            results.append(await commitment.wait())
    elif not unreadable:
        report("there is nothing to ask about")
        return ExitCode.FAILED
    if work.stopped is not None or (instances and not results):
        return ExitCode.DONE  # which Work reports
    uncommitted = 0
    for result in results:  # one, or none
        uncommitted = await _rows(output, instances, result)
    await output.finish(drop_empty=("reason", "meaning", "retrieve_ae_title"))
    return ExitCode.FAILED if uncommitted or unreadable else ExitCode.DONE


def _awaits(number: int, listening: OwnListener | None) -> str:
    """What has not come when the wait is over, and what may be the matter."""
    said = f"{counted(number, 'file')} not reported about, and not to be taken for safe"
    if listening is None:
        return f"{said}; if the peer reports on an association of its own, give --listen-port"
    return f"{said}; check the address that the peer has for --aet"


@asynccontextmanager
async def _listener(
    client: Client, listening: OwnListener | None
) -> AsyncGenerator[dimse.CommitmentListener | None]:
    """A listener for the report, if one is wanted; the peer's association to it may end."""
    if listening is None:
        yield None
        return
    listener = dimse.CommitmentListener()
    async with dimse.open_server(
        listener,
        listening.port,
        host=listening.host,
        ae_title=client.calling_ae_title,
        ssl_context=listening.ssl_context,
        instruments=client.instruments,
    ) as server:
        yield listener
        await server.stop(grace=5)


async def _rows(
    output: Output, instances: list[dimse.Instance], result: dimse.CommitmentResult
) -> int:
    """A row for each file, a line on standard error for each that is not safe; how many are not."""
    committed = set(result.committed)
    failed = {each.reference: each for each in result.failed}
    uncommitted = 0
    for instance in instances:
        reference = dimse.SOPReference(instance.sop_class_uid, instance.sop_instance_uid)
        row: dict[str, object] = {
            "path": str(instance.path),
            "sop_instance_uid": instance.sop_instance_uid,
            "committed": "yes" if output.is_table else True,
            "retrieve_ae_title": result.retrieve_ae_title,
        }
        if reference not in committed:
            failure = failed.get(reference)
            meaning = "not reported" if failure is None else failure.meaning
            row |= {
                "committed": "no" if output.is_table else False,
                "reason": None if failure is None else int(failure.reason),
                "meaning": meaning,
                "retrieve_ae_title": None,
            }
            uncommitted += 1
            report(f"{instance.path}: not committed: {meaning}")
        await output.row(row)
    return uncommitted
