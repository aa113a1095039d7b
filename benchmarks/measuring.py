"""What is measured of whom, in which order, and what has to come of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from statistics import median

import attrs

from .processes import PeerFailed

MIB = 1 << 20
CPU = "CPU µs"
"""Processor time of both sides for one operation."""
PEAKS = frozenset(("SCU MiB", "SCP MiB"))
"""Peak resident sizes of the two sides."""


@attrs.frozen
class Sample:
    """One measurement: seconds for each operation, and other figures by name.

    `performed` is how many operations the SCP has had for it, where they are more than measured.
    """

    each: float
    figures: dict[str, float] = attrs.field(factory=dict)
    performed: int | None = None


@attrs.frozen
class Contender:
    """One who does the work: `run` does `count` operations and returns seconds for each."""

    name: str
    run: Callable[[int], Sample]
    count: int = 1


@attrs.define
class Row:
    """What a contender's samples are, or why there are none."""

    name: str
    count: int
    samples: list[Sample] = attrs.field(factory=list)
    problem: str = ""

    @property
    def each(self) -> list[float]:
        return [sample.each for sample in self.samples]

    @property
    def median(self) -> float | None:
        return median(self.each) if self.samples else None

    def figures(self) -> dict[str, float]:
        """The median of each figure."""
        names = dict.fromkeys(name for sample in self.samples for name in sample.figures)
        return {
            name: median(s.figures[name] for s in self.samples if name in s.figures)
            for name in names
        }


@attrs.frozen
class Target:
    """A comparison that has to hold: `value` is `None` where it could not be made."""

    text: str
    value: float | None
    bound: float
    at_least: bool
    unit: str = "x"

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        met = self.value >= self.bound if self.at_least else self.value <= self.bound
        return "met" if met else "NOT MET"

    @property
    def shown(self) -> str:
        sign = "≥" if self.at_least else "≤"
        value = "-" if self.value is None else f"{self.value:.3g} {self.unit}"
        return f"{value} ({sign} {self.bound:g} {self.unit})"


@attrs.define
class Report:
    """One work's table: the first row is what the others are compared with.

    Attributes:
        name: What `--only` calls it.
        title: What is done.
        how: What one operation is, and what is counted in.
        size: Bytes of one operation, where throughput says more.
        hidden: Figures that are only in the JSON; peak memory is shown where it matters.
        seconds: How long all of it took.
    """

    name: str
    title: str
    how: str
    size: int | None = None
    hidden: frozenset[str] = PEAKS
    rows: list[Row] = attrs.field(factory=list)
    targets: list[Target] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    seconds: float = 0

    def median(self, name: str) -> float | None:
        return next((row.median for row in self.rows if row.name == name), None)

    def figure(self, name: str, figure: str) -> float | None:
        return next((row.figures().get(figure) for row in self.rows if row.name == name), None)

    def ratio(self, slow: str, fast: str) -> float | None:
        """How often the time of `fast` goes into that of `slow`."""
        one, other = self.median(slow), self.median(fast)
        return one / other if one is not None and other else None

    def faster(self, fast: str, slow: str, times: float) -> None:
        """Target: at least so many times as fast."""
        value = self.ratio(slow, fast)
        self.targets.append(Target(f"{fast}: times as fast as {slow}", value, times, True))

    def within(self, ours: str, theirs: str, times: float) -> None:
        """Target: at most so many times the time."""
        value = self.ratio(ours, theirs)
        self.targets.append(Target(f"{ours}: time over that of {theirs}", value, times, False))

    def at_most(self, text: str, value: float | None, bound: float, unit: str) -> None:
        self.targets.append(Target(text, value, bound, False, unit))

    def at_least(self, text: str, value: float | None, bound: float, unit: str) -> None:
        self.targets.append(Target(text, value, bound, True, unit))

    def add_sum(self, name: str, parts: Sequence[str]) -> None:
        """A row that is the sum of others, round by round; none if one is missing."""
        rows = [row for part in parts for row in self.rows if row.name == part and row.samples]
        if len(rows) == len(parts):
            sums = [Sample(sum(each)) for each in zip(*(row.each for row in rows), strict=False)]
            self.rows.append(Row(name, rows[0].count, sums))


def interleave(
    report: Report, contenders: Iterable[Contender], *, repeats: int, warm_up: bool = True
) -> None:
    """Have them do the work in turn, again and again, A B C A B C.

    So whatever else the machine does meets all of them. One that fails is left out from then on,
    and the report says so.
    """
    turns = [(contender, Row(contender.name, contender.count)) for contender in contenders]
    report.rows += [row for _, row in turns]
    for number in range(-int(warm_up), repeats):
        for contender, row in turns:
            if row.problem:
                continue
            what = "warm-up" if number < 0 else f"{number + 1}/{repeats}"
            progress(f"{report.name}: {what}: {contender.name}")
            try:
                if number < 0:
                    contender.run(max(contender.count // 10, 1))
                else:
                    row.samples.append(contender.run(contender.count))
            except (PeerFailed, OSError) as error:
                row.problem = str(error).splitlines()[0]
                report.notes.append(f"{contender.name} failed: {error}")
    progress("")


def progress(text: str) -> None:
    """What is going on, for those who wait."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)
