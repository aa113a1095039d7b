"""What `get` and `retrieve` bring: a row for each instance, a line about all, and a judgement."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import dimse_trio as dimse

from .errors import ExitCode, report
from .output import Format, Output, counted, human_size, stderr_is_terminal
from .running import Work

_COLUMNS = ("path", "sop_class_uid", "sop_instance_uid", "transfer_syntax_uid", "error")


class Arrivals:
    """Instances as they come into a folder."""

    def __init__(self, work: Work, folder: Path, format: Format) -> None:
        self.format = format
        self.received: dict[str, Path] = {}
        self._folder = folder
        self._output = Output(work.output_closed, format, _COLUMNS)
        self._bytes = 0

    async def add(self, path: Path, instance: dimse.StoreRequest | dimse.Instance) -> None:
        """One is in its place."""
        self._count(path, instance.sop_instance_uid)
        syntax = instance.transfer_syntax_uid
        await self._row(str(path), instance.sop_class_uid, instance.sop_instance_uid, syntax, None)

    def _count(self, path: Path, uid: str) -> None:
        self.received[uid] = path
        self._bytes += path.stat().st_size

    async def lacks(self, uid: str, sop_class_uid: str | None, error: str) -> None:
        """One has not come."""
        await self._row(None, sop_class_uid or None, uid, None, error)

    async def _row(self, *values: str | None) -> None:
        if not self._output.is_table:
            await self._output.row(dict(zip(_COLUMNS, values, strict=True)))

    async def sum_up(self) -> None:
        """Say how much has come."""
        received = counted(len(self.received), "instance")
        summary = f"{received}, {human_size(self._bytes)}, in {self._folder}"
        if self._output.is_table:
            await self._output.line(summary)
        else:
            await self._output.finish()
            if stderr_is_terminal():
                report(summary)

    def judge(
        self,
        method: str,
        status: dimse.Status,
        *,
        missing: Collection[str],
        known: int,
        failed: int,
        failed_uids: Collection[str],
    ) -> ExitCode:
        """Whether all of it came, in the peer's words and by our count.

        Args:
            method: What the peer was asked for.
            status: What it answered.
            missing: What it has and what did not come.
            known: How many it has.
            failed: How many it says it could not send.
            failed_uids: Those of them that it names.
        """
        if status.is_failure:
            report(f"the peer answered {method} with {status}")
        elif missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            first = next(iter(missing))
            report(f"{len(missing)} of {counted(known, 'instance')} did not arrive: {first}{more}")
        elif failed:
            uids = ", ".join(list(failed_uids)[:3])
            report(
                f"the peer could not send {counted(failed, 'instance')}" + f": {uids}" * bool(uids)
            )
        elif not self.received:
            report("nothing was retrieved: the peer has no instance of these keys")
        else:
            return ExitCode.DONE
        return ExitCode.FAILED
