"""`dimse-trio get`: C-GET into a folder, checked against what a C-FIND says there is."""

from __future__ import annotations

import logging
from pathlib import Path

import click

import dimse_trio as dimse

from .arrivals import Arrivals
from .errors import EPILOG, ExitCode
from .find import find_contexts
from .keys import LEVELS, retrieve_query
from .options import CONTEXT_SETTINGS, Client, client_options, output_options, peer_argument
from .output import Format
from .progress import bar
from .query_options import keys_option, level_option, model_option
from .running import Work, run

logger = logging.getLogger("dimse_trio.cli")


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Retrieve instances on the same association (C-GET).",
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
@output_options()
@client_options
def get(
    client: Client,
    level: str,
    keys: tuple[str, ...],
    model: str | None,
    folder: str,
    output: Format,
) -> ExitCode:
    """Retrieve what the -k keys name from PEER into a folder.

    The keys are the unique ones of the level and, if you like, of those above: PatientID,
    StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID; several UIDs are separated by backslashes.

    PEER is asked with C-FIND first what there is, so that just the right presentation contexts are
    proposed, and at the end that nothing is missing.

    \b
    Examples:
      dimse-trio get 127.0.0.1:11112 --aec ARCHIVE -k StudyInstanceUID=1.2.3 --output FOLDER
      dimse-trio get ARCHIVE --level series -k StudyInstanceUID=1.2.3 -k SeriesInstanceUID=1.2.3.1
    """  # noqa: D301 - \b is for click
    query = retrieve_query(level, keys, model)

    async def command(work: Work) -> ExitCode:
        return await _Getting(work, client, query, Path(folder), output).run()

    return run(command, timeout=client.timeout)


class _Getting:
    """One run of `get`."""

    def __init__(
        self, work: Work, client: Client, query: dimse.Query, folder: Path, format: Format
    ) -> None:
        self._work = work
        self._client = client
        self._query = query
        self._folder = folder
        self._arrivals = Arrivals(work, folder, format)

    async def run(self) -> ExitCode:
        inventory = await self._take_inventory()
        result: dimse.RetrieveResult | None = None
        failure: Exception | None = None
        try:
            if self._work.stopped is None:
                result = await self._get(inventory)
        except (dimse.DimseError, OSError) as error:
            failure = error  # once what has arrived has been said
        missing = inventory.without(self._arrivals.received)
        for uid in missing:
            sop_class = inventory.instances[uid].sop_class_uid
            await self._arrivals.lacks(uid, sop_class, "not received")
        await self._arrivals.sum_up()
        if failure is not None:
            raise failure
        if result is None:
            return ExitCode.DONE  # stopped, which Work reports
        return self._arrivals.judge(
            "C-GET",
            result.status,
            missing=missing,
            known=len(inventory.instances),
            failed=result.failed or 0,
            failed_uids=result.failed_sop_instance_uids,
        )

    async def _take_inventory(self) -> dimse.Inventory:
        """What the peer says there is; nothing if it cannot be asked."""
        contexts = find_contexts(self._query)
        try:
            with bar("finding", self._arrivals.format):
                async with self._work.association(self._client.association(contexts)) as peer:
                    return await dimse.take_inventory(peer, self._query)
        except (
            dimse.ContextNotAccepted,
            dimse.StatusError,
            dimse.DataSetError,
            dimse.QueryError,
        ) as error:
            logger.info("the peer cannot be asked what there is: %s", type(error).__name__)
        return dimse.Inventory(self._query.model)

    async def _get(self, inventory: dimse.Inventory) -> dimse.RetrieveResult | None:
        contexts = inventory.get_contexts()
        total = len(inventory.instances) or None
        result: dimse.RetrieveResult | None = None
        with bar("retrieving", self._arrivals.format, total) as progress:
            async with (
                self._work.association(self._client.association(contexts)) as association,
                association.get(self._query, check=False) as instances,
            ):
                async for instance in instances:
                    path = self._folder / instance.file_name
                    await instance.save_as(path)
                    await self._arrivals.add(path, instance)
                    progress.update(len(self._arrivals.received), total)
                result = instances.result
        return result
