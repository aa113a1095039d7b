"""`dimse-trio store`: C-STORE of files and folders, over one association or several."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import trio

import dimse_trio as dimse

from .errors import EPILOG, ExitCode, describe, exit_code_of, report
from .jobs import MismatchChoice, jobs_option, on_mismatch_option
from .options import CONTEXT_SETTINGS, Client, client_options, output_options, peer_argument
from .output import Format, Output, counted, human_size, stderr_is_terminal
from .progress import Bar, bar
from .running import Work, run

_TRANSFER_SYNTAXES_NOT_SUPPORTED = 4
"""A presentation context's result (PS3.8 Table 9-18)."""
_MAX_UNANSWERED = 2
"""Instances on end, without an answer in time, after which a peer is taken to give none at all."""
_COLUMNS = ("path", "sop_instance_uid", "status", "transfer_syntax_uid", "transcoded", "error")


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Send files and folders to a peer (C-STORE).",
)
@peer_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@jobs_option
@on_mismatch_option
@output_options()
@client_options
def store(
    client: Client,
    paths: tuple[str, ...],
    jobs: int,
    on_mismatch: MismatchChoice,
    output: Format,
) -> ExitCode:
    """Send DICOM files to PEER: every PATH that is a file, and all files in those that are folders.

    Hidden files and DICOMDIRs in folders are left out; that nothing is left to send is a failure.
    One at which the peer ends the association is tried once more, after the others, over a new one.
    Files are sent as they are where the peer accepts their transfer syntax. What is not sent is
    named on standard error, as is a file that is cut off, and the rest is sent; and what the peer
    has stored with a warning, which is no failure. With --json and --csv there is a line for each
    file: path, SOP Instance UID, status, the transfer syntax that it was sent in, whether it was
    transcoded for that, and error.

    \b
    Examples:
      dimse-trio store 127.0.0.1:11112 --aec ARCHIVE image.dcm
      dimse-trio store ARCHIVE /data/studies --jobs 4
      dimse-trio store ARCHIVE /data/studies --json > sent.jsonl
      dimse-trio store ARCHIVE /data/studies --on-mismatch transcode
    """  # noqa: D301 - \b is for click

    async def command(work: Work) -> ExitCode:
        return await _Sending(work, client, jobs, on_mismatch, output).run(paths)

    return run(command, timeout=client.timeout)


class _Sending:
    """One run of `store`."""

    def __init__(
        self,
        work: Work,
        client: Client,
        jobs: int,
        on_mismatch: MismatchChoice,
        format: Format,
    ) -> None:
        self._work = work
        self._client = client
        self._jobs = jobs
        self._on_mismatch: MismatchChoice = on_mismatch
        self._transcode = on_mismatch == "transcode"
        self._output = Output(work.output_closed, format, _COLUMNS)
        self._progress = Bar()
        self._queue: deque[dimse.Instance] = deque()
        self._lost: list[dimse.AssociationError] = []
        self._over: dimse.AssociationError | None = None
        self._suspects: set[Path] = set()
        """Over which an association has ended."""
        self._unanswered = 0
        """Instances on end that were not answered in time."""
        self._refused: dimse.AssociationError | None = None
        """Why one was not sent where that says nothing about the others."""
        self._unsent: list[dimse.Instance] = []
        self._sent = self._transcoded = self._warned = self._failed = self._bytes = 0

    async def run(self, paths: tuple[str, ...]) -> ExitCode:
        work, format = self._work, self._output.format
        instances: list[dimse.Instance] = []
        start = perf_counter()
        with work.interruptible():
            with bar("reading headers", format) as progress:
                instances, bad = await dimse.scan_files(paths, progress=progress.update)
            for file in bad:
                reason = describe(file.error).removeprefix(f"{file.path}: ")
                await self._fail(file.path, "", reason)
            if not instances and not bad:
                report("there is nothing to send")
                return ExitCode.FAILED
        with bar("sending", format, total=len(instances)) as self._progress:
            for group in dimse.split_instances(instances, transcode=self._transcode):
                await self._send_group(group)
        await self._report_unsent(len(instances))
        if format is not Format.TABLE:
            await self._output.finish()
        await self._sum_up(perf_counter() - start)
        if self._over is not None:
            return exit_code_of(self._over)
        if self._refused is not None and not self._sent:
            return exit_code_of(self._refused)
        return ExitCode.FAILED if self._failed else ExitCode.DONE

    async def _send_group(self, group: list[dimse.Instance]) -> None:
        """Send what fits the contexts of one association, over as many as there are jobs.

        A peer that takes fewer associations is no failure as long as one of them sends the rest.
        """
        if self._over is not None or self._work.stopped is not None:
            self._unsent += group
            return
        self._queue.extend(group)
        contexts = dimse.contexts_for(group, transcode=self._transcode)
        async with trio.open_nursery() as nursery:
            for _ in range(min(self._jobs, len(group))):
                nursery.start_soon(self._job, contexts)
        errors, self._lost = self._lost, []
        if self._unanswered >= _MAX_UNANSWERED:
            self._over = self._refused
        if self._queue and errors and self._over is None and self._work.stopped is None:
            if isinstance(errors[0], dimse.ContextNotAccepted):
                self._refused = errors[0]
                for instance in self._queue:
                    why = self._why_refused(instance, errors[0].negotiated, errors[0])
                    await self._fail(instance.path, instance.sop_instance_uid, why)
                self._queue.clear()
            else:
                self._over = errors[0]
        self._unsent += self._queue
        self._queue.clear()

    def _why_refused(
        self, instance: dimse.Instance, negotiated: dimse.Negotiated | None, error: Exception
    ) -> str:
        """What the peer has said to an instance's context; that is in `error` in other words."""
        for context in negotiated.refused if negotiated is not None else ():
            if (
                context.abstract_syntax == instance.sop_class_uid
                and instance.transfer_syntax_uid in context.transfer_syntaxes
            ):
                advice = "check that the peer offers this SOP class to our AE title"
                if context.result == _TRANSFER_SYNTAXES_NOT_SUPPORTED:
                    advice = "convert the file"
                    if not self._transcode:
                        advice += ", or let store do it (--on-mismatch transcode)"
                return f"not sent: {context}; {advice}"
        return f"not sent: {describe(error)}"

    async def _job(self, contexts: list[dimse.PresentationContext]) -> None:
        """Send from the queue over one association after the other until it is empty."""
        while self._queue and self._work.stopped is None and self._unanswered < _MAX_UNANSWERED:
            current: dimse.Instance | None = None
            try:
                opening = self._client.association(contexts)
                async with self._work.association(opening) as association:
                    while self._queue:
                        current = self._queue.popleft()
                        await self._send(association, current)
                        current, self._unanswered = None, 0
            except dimse.AssociationError as error:
                if current is None:
                    self._lost.append(error)
                    return
                await self._broke(current, error)
                current = None
            finally:
                if current is not None:  # stopped; it counts as not sent
                    self._queue.appendleft(current)

    async def _broke(self, instance: dimse.Instance, error: dimse.AssociationError) -> None:
        """An association has ended over an instance, which is tried once more behind the others.

        Not if it was waited for in vain: after two of these on end the peer answers nothing.
        """
        timed_out = isinstance(error, dimse.AssociationTimeout)
        if not timed_out and instance.path not in self._suspects:
            self._suspects.add(instance.path)
            self._queue.append(instance)
            return
        self._refused = error
        await self._fail(instance.path, instance.sop_instance_uid, f"not sent: {describe(error)}")
        self._unanswered += timed_out

    async def _report_unsent(self, total: int) -> None:
        """Say what ended the sending before its end, and from where on nothing was sent."""
        unsent = self._unsent
        why = "not sent"
        if self._over is not None and unsent:
            why = describe(self._over)
            if self._sent:
                more = f" and {len(unsent) - 1} more" if unsent[1:] else ""
                why += f"; {self._sent} of {counted(total, 'instance')} were sent,"
                why += f" not {unsent[0].path}{more}"
            report(why)
            why = f"not sent: {describe(self._over)}"
        self._failed += len(unsent)
        for instance in unsent:
            await self._row(instance.path, instance.sop_instance_uid, None, why)

    async def _send(self, association: dimse.Association, instance: dimse.Instance) -> None:
        try:
            response = await association.store(instance, check=False, on_mismatch=self._on_mismatch)
        except dimse.ContextNotAccepted as error:
            reason = self._why_refused(instance, association.negotiated, error)
        except (dimse.DataSetError, dimse.InvalidFile) as error:
            reason = describe(error)
        except dimse.AssociationError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            if response.stored:
                self._sent += 1
                self._transcoded += response.transcoded
                self._bytes += instance.length
                if response.status.category is dimse.StatusCategory.WARNING:
                    self._warned += 1
                    said = f": {response.error_comment}" if response.error_comment else ""
                    report(f"{instance.path}: stored; {response.status}{said}")
                await self._row(instance.path, instance.sop_instance_uid, response, None)
                return
            reason = str(dimse.StatusError.of(response))
            await self._fail(instance.path, instance.sop_instance_uid, reason, response)
            return
        await self._fail(instance.path, instance.sop_instance_uid, reason)

    async def _fail(
        self, path: Path, uid: str, reason: str, response: dimse.StoreResult | None = None
    ) -> None:
        self._failed += 1
        report(f"{path}: {reason}")
        await self._row(path, uid, response, reason)

    async def _row(
        self, path: Path, uid: str, response: dimse.StoreResult | None, error: str | None
    ) -> None:
        self._progress.update(self._sent + self._failed)
        answer: tuple[Any, ...] = (None, None, None)
        if response is not None:
            answer = int(response.status), response.transfer_syntax_uid, response.transcoded
        values = (str(path), uid or None, *answer, error)
        if not self._output.is_table:
            await self._output.row(dict(zip(_COLUMNS, values, strict=True)))

    async def _sum_up(self, seconds: float) -> None:
        more = [f"{self._transcoded} transcoded"] if self._transcoded else []
        if self._warned:
            more.append(f"{self._warned} with a warning")
        of_these = f" ({', '.join(more)})" if more else ""
        summary = (
            f"{self._sent} sent{of_these}, {self._failed} failed,"
            f" {human_size(self._bytes)} in {seconds:.1f} s"
        )
        if self._output.is_table:
            await self._output.line(summary)
        elif stderr_is_terminal():
            report(summary)
