"""Associations opened, held, and each asked by C-ECHO."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

from benchmarks.bench import Bench
from benchmarks.measuring import MIB, Contender, Report, Sample, interleave
from benchmarks.peers import Kind, missing

OURS: Kind = "ours"
COLUMNS = ("open/s", "echo ms", "SCU KiB", "SCP KiB", "SCU threads", "SCP threads")


def name_of(kind: str, count: int, how: str) -> str:
    return f"{kind}, {count:,} {how}"


def figures(answer: dict[str, Any], count: int) -> dict[str, float]:
    values = (
        count / answer["seconds"],
        answer["echo"] * 1e3,
        answer["scu_added"] / count / 1024,
        answer["scp_added"] / count / 1024,
        answer["scu_threads"],
        answer["scp_threads"],
    )
    return dict(zip(COLUMNS, values, strict=True))


def associations(bench: Bench) -> Generator[Report]:
    """1, 10, 100, 1,000 at a time; pynetdicom up to 100."""
    report = Report(
        "associations",
        "associations opened and held, then asked one by one",
        "opening one; memory is what is resident more, over their number, in fresh processes",
    )
    counts = [1, 10, 100] if bench.quick else [1, 10, 100, 1000]
    kinds: list[tuple[Kind, str, str, int]] = [
        ("ours", "hold_at_once", "at once", counts[-1]),
        ("ours", "hold_in_turn", "in turn", counts[-1]),
        ("pynetdicom", "hold_in_turn", "in turn", bench.pick(100, 10)),
    ]
    contenders: list[Contender] = []
    for kind, command, how, limit in kinds:
        if reason := missing(kind):
            report.notes.append(f"skipped what needs it: {reason}")
            continue
        contenders += [
            Contender(name_of(kind, count, how), partial(hold, bench, kind, command), count)
            for count in counts
            if count <= limit
        ]
    interleave(report, contenders, repeats=bench.repeats, warm_up=False)
    set_targets(report, counts)
    yield report


def hold(bench: Bench, kind: Kind, command: str, count: int) -> Sample:
    """Fresh processes each time, as one does not give back all that it has had."""
    with bench.fresh() as peers:
        scp = peers.scp(kind)
        server = scp.process.pid
        answer = peers.driver(kind).ask(command, port=scp.port, count=count, server=server)
        return Sample(answer["seconds"] / count, figures(answer, count))


def added(report: Report, name: str, count: int) -> float | None:
    """Memory that both sides took, in MiB."""
    sides = [report.figure(name, f"{side} KiB") for side in ("SCU", "SCP")]
    return None if None in sides else sum(filter(None, sides)) * count * 1024 / MIB


def set_targets(report: Report, counts: list[int]) -> None:
    most = counts[-1]
    name = name_of(OURS, most, "at once")
    rate = report.figure(name, "open/s")
    report.at_least(f"associations a second, {most:,} at once", rate, 1000, "a second")
    bound = 64 * most / 1000
    total = added(report, name, most)
    report.at_most(f"memory that {most:,} associations add, both sides", total, bound, "MiB")
    for side in ("SCU", "SCP"):
        threads = report.figure(name, f"{side} threads")
        report.at_most(f"{side}'s threads with {most:,} associations", threads, 1, "threads")
    report.within(name, name_of(OURS, counts[-2], "at once"), 1.5)
    if most == 1000:
        report.within(name_of(OURS, 1000, "in turn"), name_of(OURS, 100, "in turn"), 1.5)
