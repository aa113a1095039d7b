"""C-ECHO, one after another on one association."""

from __future__ import annotations

from collections.abc import Generator

import attrs

from benchmarks.bench import Bench
from benchmarks.measuring import Report, Sample, interleave
from benchmarks.peers import Kind, Scp, Scu, pair_name

PAIRS: tuple[tuple[Kind, Kind, int, int], ...] = (
    ("ours", "ours", 5000, 500),
    ("ours", "stock", 5000, 500),
    ("ours", "nodelay", 5000, 500),
    ("stock", "stock", 40, 15),
    ("nodelay", "nodelay", 5000, 2000),
    ("stock", "ours", 5000, 1000),
    ("nodelay", "ours", 5000, 1000),
    ("delayed", "stock", 40, 15),
    ("stock", "delayed", 40, 15),
    ("pynetdicom", "pynetdicom", 300, 60),
    ("bare", "bare", 5000, 1000),
    ("descriptor", "descriptor", 5000, 1000),
)


def echo(bench: Bench) -> Generator[Report]:
    """Round trips of C-ECHO."""
    report = Report(
        "echo",
        "C-ECHO",
        "one round trip; DCMTK: echoscu --repeat N less echoscu, over N - 1",
    )

    def operation(scu: Scu, scp: Scp, count: int) -> Sample:
        return scu.echo(scp.port, count)

    peers = bench.common
    contenders = [
        contender
        for scu, scp, full, quick in PAIRS
        for contender in bench.pair(peers, report, scu, scp, operation, bench.pick(full, quick))
    ]
    interleave(report, contenders, repeats=bench.repeats)
    ours = pair_name("ours", "ours")
    report.within(ours, pair_name("nodelay", "nodelay"), 1)
    report.faster(ours, pair_name("pynetdicom", "pynetdicom"), 20)
    report.faster(pair_name("ours", "stock"), pair_name("stock", "stock"), 100)
    yield report


def growth(bench: Bench) -> Generator[Report]:
    """The same cost for the hundred-thousandth as for the first."""
    report = Report(
        "growth",
        "C-ECHO on one association, 1 k, 10 k and 100 k of them",
        "one round trip, both sides ours",
    )

    def operation(scu: Scu, scp: Scp, count: int) -> Sample:
        return scu.echo(scp.port, count)

    counts = [1_000, 10_000] if bench.quick else [1_000, 10_000, 100_000]
    peers = bench.common
    contenders = [
        attrs.evolve(contender, name=f"{count:,} at a time")
        for count in counts
        for contender in bench.pair(peers, report, "ours", "ours", operation, count)
    ]
    interleave(report, contenders, repeats=min(bench.repeats, 2))
    for count in counts[1:]:
        report.within(f"{count:,} at a time", f"{counts[0]:,} at a time", 1.15)
    yield report
