"""Associations opened, held, and each asked by C-ECHO."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs

from benchmarks.bench import Bench
from benchmarks.measuring import CPU, MIB, PEAKS, Contender, Report, Sample, interleave
from benchmarks.peers import Kind, Scp, Scu

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
        "opening one; memory is what is resident more, over the number of associations",
        hidden=PEAKS | {CPU},
    )
    counts = [1, 10, 100] if bench.quick else [1, 10, 100, 1000]
    kinds: list[tuple[Kind, str, str]] = [
        ("ours", "hold_at_once", "at once"),
        ("ours", "hold_in_turn", "in turn"),
        ("pynetdicom", "hold_in_turn", "in turn"),
    ]
    for count in counts:
        # fresh processes for each number: what one has had is not given back
        with bench.fresh() as peers:
            contenders: list[Contender] = []
            for kind, command, how in kinds:
                limit = 10 if bench.quick else 100
                if kind == "pynetdicom" and count > limit:
                    continue

                def operation(
                    scu: Scu, scp: Scp, count: int, kind: Kind = kind, command: str = command
                ) -> Sample:
                    answer = peers.driver(kind).ask(
                        command, port=scp.port, count=count, server=scp.process.pid
                    )
                    return Sample(answer["seconds"] / count, figures(answer, count))

                contenders += [
                    attrs.evolve(contender, name=name_of(kind, count, how))
                    for contender in bench.pair(peers, report, kind, kind, operation, count)
                ]
            interleave(report, contenders, repeats=bench.repeats, warm_up=False)
    set_targets(report, counts)
    yield report


def first_added(report: Report, name: str) -> float | None:
    """Memory that both sides took, in MiB, in the first round, when nothing was there to reuse."""
    for row in report.rows:
        if row.name == name and row.samples:
            values = row.samples[0].figures
            return (values["SCU KiB"] + values["SCP KiB"]) * row.count * 1024 / MIB
    return None


def set_targets(report: Report, counts: list[int]) -> None:
    most = counts[-1]
    name = name_of(OURS, most, "at once")
    rate = report.figure(name, "open/s")
    report.at_least(f"associations a second, {most:,} at once", rate, 1000, "a second")
    added = first_added(report, name)
    bound = 64 * most / 1000
    report.at_most(f"memory that {most:,} associations add, both sides", added, bound, "MiB")
    for side in ("SCU", "SCP"):
        threads = report.figure(name, f"{side} threads")
        report.at_most(f"{side}'s threads with {most:,} associations", threads, 1, "threads")
    report.within(name, name_of(OURS, counts[-2], "at once"), 1.5)
    if most == 1000:
        report.within(name_of(OURS, 1000, "in turn"), name_of(OURS, 100, "in turn"), 1.5)
