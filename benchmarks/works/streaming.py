"""One instance just under 4 GiB: how much memory each side takes for it."""

from __future__ import annotations

import shutil
from collections.abc import Generator

from benchmarks.bench import Bench
from benchmarks.data import LARGEST, SMALL, write_largest
from benchmarks.measuring import MIB, Report, Row, Sample, progress
from benchmarks.processes import PeerFailed, memory, reset_peak

BOUND = 32
ROOM = 6 << 30
"""Bytes that the disk must have for it to be kept."""


def streaming(bench: Bench) -> Generator[Report]:
    """Sent from a file that is mostly a hole; received to nowhere, and to disk if there is room."""
    report = Report(
        "streaming",
        f"C-STORE of one instance of {LARGEST / (1 << 30):.4g} GiB, both sides ours",
        "one instance, once; MiB are the peak less what was resident before",
        LARGEST,
    )
    if bench.quick:
        report.notes.append("skipped: --quick")
        yield report
        return
    file = write_largest(bench.folder / "largest.dcm")
    small = bench.files(SMALL, 1)[0]
    for saving in (False, True):
        name = "to disk" if saving else "discarded"
        if saving and shutil.disk_usage(bench.folder).free < ROOM:
            report.notes.append("not kept: the disk has no room")
            continue
        progress(f"streaming: {name}")
        row = Row(name, 1)
        report.rows.append(row)
        with bench.fresh() as peers:
            driver, scp = peers.driver("ours"), peers.scp("ours", saving=saving)
            try:
                driver.store(scp.port, [small])
                pids = {"SCU": driver.process.pid, "SCP": scp.process.pid}
                for pid in pids.values():
                    reset_peak(pid)
                before = {side: memory(pid).now for side, pid in pids.items()}
                sample = driver.store(scp.port, [file])
                added = {
                    f"{side} added MiB": (memory(pid).peak - before[side]) / MIB
                    for side, pid in pids.items()
                }
                row.samples.append(Sample(sample.each, added))
                for what, value in added.items():
                    report.at_most(f"{name}, {what.removesuffix(' MiB')}", value, BOUND, "MiB")
            except PeerFailed as error:
                row.problem = str(error).splitlines()[0]
                report.notes.append(str(error))
            finally:
                scp.empty_sink()
    file.unlink()
    progress("")
    yield report
