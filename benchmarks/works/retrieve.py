"""C-FIND with thousands of responses, C-GET of hundreds of instances."""

from __future__ import annotations

from collections.abc import Generator

from benchmarks.bench import Bench
from benchmarks.data import SMALL
from benchmarks.measuring import Contender, Report, Sample, interleave, progress
from benchmarks.peers import Kind, Operation, Scp, Scu, pair_name

OURS, PYNETDICOM = pair_name("ours", "ours"), pair_name("pynetdicom", "pynetdicom")
TIMES_MORE = 5


def find(bench: Bench) -> Generator[Report]:
    """Matches, one response each."""
    count = bench.pick(5000, 500)
    report = Report(
        "find",
        f"C-FIND with {count:,} responses of 15 attributes, each read",
        "one response; DCMTK: findscu of N matches less one of one match, over N - 1",
        hidden=frozenset(),
    )
    pairs: tuple[tuple[Kind, Kind], ...] = (
        ("ours", "ours"),
        ("pynetdicom", "pynetdicom"),
        ("stock", "ours"),
        ("nodelay", "ours"),
    )

    def operation(scu: Scu, scp: Scp, count: int) -> Sample:
        return scu.find(scp.port, count)

    peers = bench.common
    contenders: list[Contender] = []
    for scu, scp in pairs:
        contenders += bench.pair(peers, report, scu, scp, operation, count)
    interleave(report, contenders, repeats=bench.repeats)
    peaks = [peaks_of(bench, operation, number) for number in (count, TIMES_MORE * count)]
    for side in ("SCU", "SCP"):
        text = f"{side}: peak with {TIMES_MORE * count:,} responses over that with {count:,}"
        report.at_most(text, peaks[1][f"{side} MiB"] - peaks[0][f"{side} MiB"], 2, "MiB")
    report.faster(OURS, PYNETDICOM, 5)
    yield report


def peaks_of(bench: Bench, operation: Operation, count: int) -> dict[str, float]:
    """Both sides' peaks in fresh processes."""
    with bench.fresh() as peers:
        report = Report("find", "", "", hidden=frozenset())
        [contender] = bench.pair(peers, report, "ours", "ours", operation, count)
        contender.run(100)
        progress(f"find: peak with {count:,} responses")
        return contender.run(count).figures


def get(bench: Bench) -> Generator[Report]:
    """Instances of 9 KB on the association that asks for them."""
    count = bench.pick(500, 100)
    files = bench.files(SMALL, count)
    report = Report(
        "get",
        f"C-GET of {count} instances, discarded",
        "one instance; DCMTK: getscu --ignore of N less one of one, over N - 1",
        files[0].stat().st_size,
    )
    pairs: tuple[tuple[Kind, Kind, int], ...] = (
        ("ours", "ours", count),
        ("stock", "ours", count),
        ("nodelay", "ours", count),
        ("pynetdicom", "pynetdicom", bench.pick(50, 10)),
    )

    def operation(scu: Scu, scp: Scp, count: int) -> Sample:
        return scu.get(scp.port, count)

    options = ("--files", str(files[0].parent))
    peers = bench.common
    contenders: list[Contender] = []
    for scu, scp, number in pairs:
        contenders += bench.pair(peers, report, scu, scp, operation, number, options=options)
    interleave(report, contenders, repeats=bench.repeats)
    report.faster(OURS, PYNETDICOM, 5)
    yield report
