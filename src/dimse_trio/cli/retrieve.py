"""`dimse-trio retrieve`: whatever matches into a folder, by C-GET or by C-MOVE to a listener."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any, Literal, cast

import click
import trio

import dimse_trio as dimse

from .arrivals import Arrivals
from .errors import EPILOG, ExitCode
from .jobs import OwnListener, jobs_option, listen_options
from .keys import LEVELS, make_query, parse_keys
from .options import CONTEXT_SETTINGS, Client, client_options, output_options, peer_argument
from .output import Format
from .progress import bar
from .query_options import keys_option, level_option, model_option
from .running import Work, run

Method = Literal["C-GET", "C-MOVE"]


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Fetch what matches, by C-GET or C-MOVE, and check that it came.",
)
@peer_argument
@level_option(*LEVELS)
@keys_option
@model_option("patient", "study")
@click.option(
    "--output",
    "folder",
    type=click.Path(file_okay=False),
    default=".",
    metavar="FOLDER",
    help="Where to write <SOP Instance UID>.dcm.  [default: the current folder]",
)
@click.option(
    "--method",
    type=click.Choice(["get", "move"], case_sensitive=False),
    help="C-GET or C-MOVE.  [default: C-GET if the peer has it, else C-MOVE to --listen-port]",
)
@jobs_option
@output_options()
@client_options
@listen_options(
    "Be the destination of a C-MOVE: listen here, under --aet, where PEER has that title's address."
)
def retrieve(
    client: Client,
    level: str,
    keys: tuple[str, ...],
    model: str | None,
    folder: str,
    method: str | None,
    listening: OwnListener | None,
    jobs: int,
    output: Format,
) -> ExitCode:
    """Fetch all that the -k keys match from PEER into a folder, and see whether all of it came.

    The keys are as for dimse-trio find: what they match is found first, and each entity of the
    --level is fetched. What has not come is asked for once more, and an association that breaks is
    opened again. With --jobs, series are fetched over several associations at a time.

    \b
    Examples:
      dimse-trio retrieve ARCHIVE -k PatientID=4711 -k StudyDate=20260101- --output FOLDER
      dimse-trio retrieve ARCHIVE -k StudyInstanceUID=1.2.3 --jobs 4 --json
      dimse-trio retrieve PACS -k AccessionNumber=99 --aet US --listen-port 11113
    """  # noqa: D301 - \b is for click
    parsed = parse_keys(keys)
    if not any((key.value or "").strip("*\\ ") for key in parsed):
        raise click.UsageError("say what to retrieve: -k KEY=VALUE, with at least one value")
    if method == "move" and listening is None:
        raise click.UsageError("--method move needs --listen-port, where PEER sends to")
    query = make_query(level, parsed, model=model, return_keys=False)[0]
    wanted = None if method is None else cast("Method", f"C-{method.upper()}")

    async def command(work: Work) -> ExitCode:
        fetching = _Fetching(work, client, query, Path(folder), output)
        return await fetching.run(wanted, listening, jobs)

    return run(command, timeout=client.timeout)


class _Fetching:
    """One run of `retrieve`."""

    def __init__(
        self, work: Work, client: Client, query: dimse.Query, folder: Path, format: Format
    ) -> None:
        self._work = work
        self._client = client
        self._query = query
        self._folder = folder
        self._arrivals = Arrivals(work, folder, format)
        self._result: dimse.Retrieved | None = None

    async def run(
        self, method: Method | None, listening: OwnListener | None, jobs: int
    ) -> ExitCode:
        options: dict[str, Any] = {"max_associations": jobs}
        if listening is not None:
            options |= {
                "listen_port": listening.port,
                "listen_host": listening.host,
                "listen_ssl_context": listening.ssl_context,
            }
        peer = self._client.remote(**options)
        failure: Exception | None = None
        arrived, arrivals = trio.open_memory_channel[Path](inf)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._print, arrivals)
            try:
                with arrived, self._client.hinted(), self._work.interruptible():
                    await self._fetch(peer, method, jobs, arrived)
            except dimse.ContextNotAccepted as error:
                failure = error if listening is not None else _without_listener(error)
            except (dimse.DimseError, OSError) as error:
                failure = error  # once what has arrived has been said
        result = self._result
        if result is not None:
            for uid in result.missing:
                await self._arrivals.lacks(uid, None, "not received")
            for uid in result.failed:
                if uid not in result.missing:
                    await self._arrivals.lacks(uid, None, "the peer could not send it")
        await self._arrivals.sum_up()
        if failure is not None:
            raise failure
        return ExitCode.DONE if result is None else self._judge(result)

    async def _fetch(
        self,
        remote: dimse.RemoteAE,
        method: Method | None,
        jobs: int,
        arrived: trio.MemorySendChannel[Path],
    ) -> None:
        with bar("retrieving", self._arrivals.format) as progress:

            def update(path: Path, count: int, total: int | None) -> None:
                progress.update(count, total)
                arrived.send_nowait(path)

            async with remote as peer:
                self._result = await peer.retrieve(
                    self._query, self._folder, method=method, jobs=jobs, progress=update
                )

    async def _print(self, paths: trio.MemoryReceiveChannel[Path]) -> None:
        """Say what has arrived as it does; the library says so where nothing can be awaited."""
        async for path in paths:
            await self._arrivals.add(path, dimse.Instance.from_file(path))

    def _judge(self, result: dimse.Retrieved) -> ExitCode:
        nothing = not result.files and result.status == dimse.Status.SUCCESS
        return self._arrivals.judge(
            result.method,
            dimse.Status(dimse.Status.SUCCESS) if result.complete else result.status,
            missing=result.missing,
            known=len(result.files) + len(result.missing),
            failed=len(result.failed) or (result.complete is False and not nothing),
            failed_uids=result.failed,
        )


def _without_listener(error: dimse.ContextNotAccepted) -> dimse.ContextNotAccepted:
    advice = "for C-MOVE instead, give --listen-port, where the peer has the address of --aet"
    return dimse.ContextNotAccepted(f"{error}; {advice}")
