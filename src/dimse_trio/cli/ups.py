"""`dimse-trio ups`: Unified Procedure Steps, as SCU, and as a worklist manager."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

import dimse_trio as dimse

from .archive import destination
from .errors import EPILOG, LISTENER_EPILOG, ExitCode, report
from .find import headings, json_model
from .keys import Attribute, make_query, parse_keys
from .listening import Listening, listen
from .options import (
    CONTEXT_SETTINGS,
    Client,
    Listener,
    NumberRange,
    client_options,
    listener_options,
    output_options,
    peer_argument,
    peers_file_option,
)
from .output import Format, Output
from .places import parse_settings
from .query_options import check_uid, keys_option
from .running import Work, run

if TYPE_CHECKING:
    from pydicom import Dataset

_COLUMNS = (
    "SOPInstanceUID",
    "ProcedureStepState",
    "ProcedureStepLabel",
    "ScheduledProcedureStepPriority",
    "ScheduledProcedureStepStartDateTime",
    "PatientName",
    "PatientID",
)
_EVENT_COLUMNS = ("event", "sop_instance_uid", "state", "progress", "requesting_ae", "reason")

Steps = dimse.UnifiedProcedureSteps


def _code(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> dimse.Code | None:
    """A code as VALUE^SCHEME^MEANING; all three are Type 1 (PS3.3 Table 8.8-1)."""
    if value is None:
        return None
    parts = [part.strip() for part in value.split("^", 2)]
    if len(parts) < 3 or not all(parts):
        raise click.BadParameter(
            "write VALUE^SCHEME^MEANING, as 110001^DCM^Image Processing", context, parameter
        )
    return dimse.Code(*parts)


def _start(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A date and time, which may be `today`."""
    if value is None:
        return None
    try:
        [setting] = parse_settings([f"{_START}={value}"], strict=True)
    except dimse.QueryError as error:
        raise dimse.QueryError(str(error).replace(_START, "--start")) from error
    return setting.value


_START = "ScheduledProcedureStepStartDateTime"
_uid_argument = click.argument("uid", metavar="UID", callback=check_uid)
_transaction_option = click.option(
    "--transaction-uid", metavar="UID", callback=check_uid, help="What the step was claimed with."
)
_workitem_option = click.option(
    "--workitem", callback=_code, metavar="CODE", help="Workitem code: VALUE^SCHEME^MEANING."
)


def _command(name: str, help: str) -> Callable[[Callable[..., ExitCode]], click.Command]:
    """A command of the group."""
    return ups.command(name, context_settings=CONTEXT_SETTINGS, epilog=EPILOG, short_help=help)


@click.group(
    context_settings=CONTEXT_SETTINGS, epilog=EPILOG, short_help="Unified Procedure Steps (UPS)."
)
def ups() -> None:
    """Schedule, find, perform and watch Unified Procedure Steps, or manage them for others.

    \b
    Examples:
      dimse-trio ups serve --port 11112 --aet WORKLIST --peer VIEWER=127.0.0.1:11113
      dimse-trio ups create WORKLIST "Segment the liver" -k PatientID=1 \\
          --workitem "110001^DCM^Image Processing"
      dimse-trio ups find WORKLIST -k ProcedureStepState=SCHEDULED
      dimse-trio ups claim WORKLIST UID             # prints the Transaction UID
      dimse-trio ups update WORKLIST UID --transaction-uid UID --progress 50
      dimse-trio ups complete WORKLIST UID --transaction-uid UID
      dimse-trio ups watch WORKLIST
    """  # noqa: D301 - \b is for click


def _run(client: Client, work_on: Callable[[Steps, Output], Awaitable[None]]) -> ExitCode:
    """Do something with the steps of a peer, by an association of its own."""

    async def command(work: Work) -> ExitCode:
        output = Output(work.output_closed, Format.TABLE)
        contexts = dimse.procedure_step_contexts()
        async with work.association(client.association(contexts)) as association:
            await work_on(Steps(association), output)
        return ExitCode.DONE

    return run(command, timeout=client.timeout)


def _attributes(
    keys: tuple[str, ...], wanted: tuple[str, ...] = ()
) -> tuple[Dataset, list[Attribute]]:
    """A data set of `-k` keys, and of others that are only wanted; and its attributes."""
    named = {key.attribute.name for key in parse_keys(keys)}
    others = [keyword for keyword in wanted if keyword not in named]
    query, attributes = make_query("study", parse_keys([*keys, *others]), return_keys=False)
    del query.identifier.QueryRetrieveLevel  # which make_query needs, and steps do not have
    return query.identifier, attributes


@_command("create", "Schedule a step (N-CREATE); prints its UID.")
@peer_argument
@click.argument("label")
@keys_option
@click.option(
    "--uid",
    metavar="UID",
    callback=check_uid,
    help="The step's SOP Instance UID.  [default: a new one]",
)
@click.option("--worklist", metavar="LABEL", default="DEFAULT", show_default=True)
@click.option(
    "--priority",
    type=click.Choice(("HIGH", "MEDIUM", "LOW"), case_sensitive=False),
    default="MEDIUM",
    show_default=True,
)
@click.option(
    "--start",
    metavar="DATETIME",
    callback=_start,
    help="YYYYMMDDHHMMSS, today or today+1.  [default: now]",
)
@_workitem_option
@click.option(
    "--station", callback=_code, metavar="CODE", help="Who is to do it: VALUE^SCHEME^MEANING."
)
@client_options
def create(
    client: Client,
    label: str,
    keys: tuple[str, ...],
    uid: str | None,
    worklist: str,
    priority: str,
    start: str | None,
    workitem: dimse.Code | None,
    station: dimse.Code | None,
) -> ExitCode:
    """Schedule a step at PEER; -k keys are more attributes of it. Prints its SOP Instance UID."""
    attributes, _ = _attributes(keys)

    async def work(steps: Steps, output: Output) -> None:
        made = await steps.create(
            label,
            attributes,
            sop_instance_uid=uid,
            worklist=worklist,
            priority=priority.upper(),
            start=start,
            workitem=workitem,
            station=station,
        )
        await output.line(made)

    return _run(client, work)


@_command("find", "Find steps (C-FIND).")
@peer_argument
@keys_option
@output_options()
@client_options
def find(client: Client, keys: tuple[str, ...], output: Format) -> ExitCode:
    """Find the steps at PEER that match the -k keys; all without any."""
    identifier, attributes = _attributes(keys, _COLUMNS)
    names = [attribute.name for attribute in attributes]

    async def command(work: Work) -> ExitCode:
        printed = Output(work.output_closed, output, names, headings=headings(names))
        count = 0
        contexts = dimse.procedure_step_contexts()
        async with (
            work.association(client.association(contexts)) as association,
            Steps(association).find(identifier) as matches,
        ):
            async for match in matches:
                count += 1
                if output is Format.JSON:
                    await printed.json(json_model(match))
                else:
                    await printed.row({a.name: a.text_in(match) for a in attributes})
        await printed.finish(drop_empty=names)
        if not count and printed.is_table and work.stopped is None:
            report("no matches")
        return ExitCode.DONE

    return run(command, timeout=client.timeout)


@_command("get", "Print a step's attributes (N-GET), as JSON.")
@peer_argument
@_uid_argument
@client_options
def get(client: Client, uid: str) -> ExitCode:
    """Print all attributes of the step UID at PEER as an object of the DICOM JSON Model."""

    async def work(steps: Steps, output: Output) -> None:
        await output.json(json_model(await steps.get(uid)))

    return _run(client, work)


@_command("claim", "Claim a step (N-ACTION); prints the Transaction UID.")
@peer_argument
@_uid_argument
@_transaction_option
@client_options
def claim(client: Client, uid: str, transaction_uid: str | None) -> ExitCode:
    """Claim the step UID at PEER, which is in progress then. Prints the Transaction UID.

    The other commands need it: keep it.
    """

    async def work(steps: Steps, output: Output) -> None:
        async with steps.claim(uid, transaction_uid=transaction_uid) as claimed:
            await output.line(claimed.keep())

    return _run(client, work)


@_command("update", "Change a step's attributes (N-SET).")
@peer_argument
@_uid_argument
@_transaction_option
@keys_option
@click.option("--progress", type=NumberRange(0, 100), metavar="PERCENT")
@click.option("--description", metavar="TEXT", help="What is being done.")
@client_options
def update(
    client: Client,
    uid: str,
    transaction_uid: str | None,
    keys: tuple[str, ...],
    progress: float | None,
    description: str | None,
) -> ExitCode:
    """Change attributes of the step UID at PEER: -k keys, its progress.

    One in progress needs the Transaction UID, one that is scheduled none.
    """
    changes, _ = _attributes(keys)
    reports = progress is not None or description is not None
    if not (keys or reports):
        raise click.UsageError("nothing to change: give -k KEY=VALUE, --progress or --description")
    if transaction_uid is None and reports:
        raise click.UsageError("progress is of a claimed step: --transaction-uid")

    async def work(steps: Steps, output: Output) -> None:
        if transaction_uid is None:
            await steps.update(uid, changes)
            return
        async with steps.resume(uid, transaction_uid) as claimed:
            claimed.keep()
            await claimed.update(changes, progress=progress, description=description)

    return _run(client, work)


@_command("complete", "Complete a claimed step (N-SET, N-ACTION).")
@peer_argument
@_uid_argument
@click.option(
    "--transaction-uid", metavar="UID", callback=check_uid, required=True, help="Of its claim."
)
@_workitem_option
@click.option(
    "--station", callback=_code, metavar="CODE", help="Who has done it.  [default: --aet]"
)
@click.option("--start", metavar="DATETIME", callback=_start, help="When it began.  [default: now]")
@client_options
def complete(
    client: Client,
    uid: str,
    transaction_uid: str,
    workitem: dimse.Code | None,
    station: dimse.Code | None,
    start: str | None,
) -> ExitCode:
    """Say what was performed of the step UID at PEER, and complete it.

    The workitem is the scheduled one by default.
    """

    async def work(steps: Steps, output: Output) -> None:
        async with steps.resume(uid, transaction_uid) as claimed:
            claimed.keep()
            await claimed.complete(workitem=workitem, station=station, start=start)

    return _run(client, work)


@_command("cancel", "Cancel a step, or ask for that (N-ACTION).")
@peer_argument
@_uid_argument
@_transaction_option
@click.option("--reason", metavar="TEXT", default="", help="Why.")
@client_options
def cancel(client: Client, uid: str, transaction_uid: str | None, reason: str) -> ExitCode:
    """Cancel the step UID at PEER: a claimed one with its Transaction UID, else by request.

    A scheduled step is canceled by the request; of one in progress the performer is told.
    """

    async def work(steps: Steps, output: Output) -> None:
        if transaction_uid is None:
            await steps.request_cancel(uid, reason)
            return
        async with steps.resume(uid, transaction_uid) as claimed:
            claimed.keep()
            await claimed.cancel(reason)

    return _run(client, work)


@_command("watch", "Print events as they come (N-EVENT-REPORT).")
@peer_argument
@click.argument("uid", required=False, callback=check_uid)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Leave after N events.")
@output_options(csv=False)
@client_options
def watch(client: Client, uid: str | None, limit: int | None, output: Format) -> ExitCode:
    """Print the events of the step UID at PEER, or of all steps, until interrupted.

    The events come on the association that asks for them, which PEER has to support.
    """

    async def command(work: Work) -> ExitCode:
        printed = Output(work.output_closed, output)
        contexts = dimse.procedure_step_contexts()
        count = 0
        async with (
            work.association(client.association(contexts)) as association,
            Steps(association).watch(uid) as events,
        ):
            async for event in events:
                values = dict(zip(_EVENT_COLUMNS, _cells(event), strict=True))
                if output is Format.JSON:
                    await printed.json({k: None if v == "" else v for k, v in values.items()})
                else:
                    await printed.line(" ".join(str(v) for v in values.values() if v != ""))
                count += 1
                if count == limit:
                    break
        return ExitCode.DONE

    return run(command, timeout=client.timeout)


def _cells(event: dimse.StepEvent) -> tuple[object, ...]:
    return (
        event.type.name,
        event.sop_instance_uid,
        "" if event.state is None else event.state.value,
        "" if event.progress is None else event.progress,
        event.requesting_ae_title,
        event.reason,
    )


@ups.command(
    "serve",
    context_settings=CONTEXT_SETTINGS,
    epilog=LISTENER_EPILOG,
    short_help="Manage steps for others (SCP).",
)
@click.option(
    "--peer",
    "peers",
    metavar="TITLE=PEER",
    multiple=True,
    help="Where event reports go: AE title and HOST:PORT, or a name in the peers file.",
)
@peers_file_option
@listener_options
def serve(
    listener: Listener, peers: tuple[str, ...], peers_file: str | None, verbose: int
) -> ExitCode:
    """Be a worklist manager: steps are kept in memory until it is stopped."""
    known = dict(destination(text, peers_file) for text in peers)

    @asynccontextmanager
    async def make_handler(listening: Listening) -> AsyncGenerator[dimse.ProcedureSteps]:
        async with dimse.ProcedureSteps(peers=known, ae_title=listener.ae_title) as steps:
            yield steps

    return listen(listener, make_handler)
