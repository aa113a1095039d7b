"""C-STORE of small, medium and large instances, to nowhere and to disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Work
from benchmarks.data import LARGE, LARGE_QUICK, MEDIUM, SMALL
from benchmarks.measuring import PEAKS, Contender, Report, Sample, interleave
from benchmarks.peers import Kind, Scp, Scu, pair_name
from benchmarks.processes import run

PAIRS: tuple[tuple[Kind, Kind], ...] = (
    ("ours", "ours"),
    ("ours", "stock"),
    ("ours", "nodelay"),
    ("stock", "ours"),
    ("nodelay", "ours"),
    ("delayed", "stock"),
    ("stock", "delayed"),
    ("stock", "stock"),
    ("nodelay", "nodelay"),
    ("pynetdicom", "pynetdicom"),
    ("bare", "bare"),
)
COPY, LIMIT = "cp", "cp + bare trio stream"
OURS, BARE = pair_name("ours", "ours"), pair_name("bare", "bare")
STOCK, NODELAY = pair_name("stock", "stock"), pair_name("nodelay", "nodelay")
PYNETDICOM = pair_name("pynetdicom", "pynetdicom")
SLOW = (STOCK, PYNETDICOM, pair_name("delayed", "stock"), pair_name("stock", "delayed"))
HOW = (
    "one instance; DCMTK: one storescu of N files less one of one file, over N - 1"
    " (N = 1: less a small one, nodelay)"
)


def counts_of(bench: Bench, which: str) -> tuple[tuple[int, int], int, dict[str, int]]:
    """Size, number of files, and fewer for those that would take minutes."""
    match which:
        case "small":
            slow = bench.pick(40, 8)
            few = dict.fromkeys(SLOW, slow)
            return SMALL, bench.pick(1000, 400), few
        case "medium":
            slow = bench.pick(40, 8)
            few = dict.fromkeys(SLOW, slow)
            return MEDIUM, bench.pick(400, 100), few
        case _:
            return (LARGE_QUICK if bench.quick else LARGE), 1, {}


def store(bench: Bench, which: str, saving: bool) -> Generator[Report]:
    """Instances of one size."""
    size, count, few = counts_of(bench, which)
    files = bench.files(size, count)
    length = files[0].stat().st_size
    what = f"{length / 1e6:.3g} MB" if length > 1e5 else f"{length / 1e3:.2g} KB"
    sink = "to disk" if saving else "discarded"
    name = f"store-{which}" + ("-disk" if saving else "")
    hidden = PEAKS if which == "small" else frozenset()
    report = Report(name, f"C-STORE of {what}, {sink}", HOW, length, hidden)

    def operation(scu: Scu, scp: Scp, count: int) -> Sample:
        return scu.store(scp.port, files[:count])

    peers = bench.common
    contenders: list[Contender] = []
    for scu, scp in PAIRS:
        number = few.get(pair_name(scu, scp), count)
        to_disk = saving and scp != "bare"
        contenders += bench.pair(peers, report, scu, scp, operation, number, saving=to_disk)
    if saving:
        target = bench.folder / "copies"
        contenders.append(Contender(COPY, partial(copy, files, target), count))
    interleave(report, contenders, repeats=bench.repeats)
    if saving:
        shutil.rmtree(target, ignore_errors=True)
        report.add_sum(LIMIT, [COPY, BARE])
    set_targets(report, which, saving)
    yield report


def copy(files: list[Path], target: Path, count: int) -> Sample:
    """What `cp` of the same files takes."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    os.sync()
    return Sample(run(["cp", *map(str, files[:count]), str(target)]).seconds / count)


def set_targets(report: Report, which: str, saving: bool) -> None:
    if saving:
        if which != "small":
            report.within(OURS, LIMIT, 1.3)
    elif which == "small":
        report.within(OURS, NODELAY, 1.5)
        report.faster(OURS, PYNETDICOM, 50)
        report.faster(pair_name("stock", "ours"), STOCK, 20)
        report.faster(pair_name("ours", "stock"), STOCK, 100)
    else:
        report.faster(OURS, NODELAY, 1.5)
        report.faster(OURS, PYNETDICOM, 10)


WORKS: dict[str, Work] = {
    f"store-{which}" + ("-disk" if saving else ""): partial(store, which=which, saving=saving)
    for which in ("small", "medium", "large")
    for saving in (False, True)
}
