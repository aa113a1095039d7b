"""The peers: each kind's SCU and SCP, as processes that are started when first needed.

What an SCU's time is:

* Python's: measured inside, from the first operation on an open association to the last response.
* DCMTK's: the wall time of one program with N operations, less that of one with a single operation,
  which is its start, its association and that operation, over N - 1. The latter is measured three
  times, and its median taken. Of a single file,
  the time of a small one is subtracted, with Nagle's algorithm off.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Literal, Protocol

import attrs

from dimse_trio.testing.dcmtk import ProgramMissing, find_program

from .data import FIND_KEYS, STUDY
from .measuring import CPU, MIB, Sample
from .processes import (
    HOST,
    START_TIMEOUT,
    PeerFailed,
    Process,
    Run,
    cpu_seconds,
    environment,
    free_port,
    memory,
    python,
    reset_peak,
    run,
    running,
    wait_for_port,
)

Kind = Literal["ours", "delayed", "stock", "nodelay", "pynetdicom", "bare", "descriptor"]
NAMES: dict[Kind, str] = {
    "ours": "ours",
    "delayed": "ours, delayed ack",
    "stock": "DCMTK stock",
    "nodelay": "DCMTK nodelay",
    "pynetdicom": "pynetdicom",
    "bare": "bare trio stream",
    "descriptor": "bare descriptor in trio",
}
STARTS = 3
"""How often a program of DCMTK is run with one operation, for what is subtracted."""
ENOUGH_CPU = 0.05
"""Seconds below which it is not shown, as Linux counts it in steps of 10 ms."""
BARE: dict[Kind, tuple[str, ...]] = {"bare": (), "descriptor": ("--descriptors",)}
"""The limits, and their options: two sides of one program."""
OURS: dict[Kind, tuple[str, ...]] = {"ours": (), "delayed": ("--delayed-ack",)}
"""Ourselves, and our options: the latter without `quick_ack`, which shows what that is worth."""
DCMTK_PROGRAMS = ("echoscu", "findscu", "getscu", "storescp", "storescu")


def pair_name(scu: Kind, scp: Kind) -> str:
    """What a pair is called in tables."""
    if scu == scp:
        return NAMES[scu] if scu in BARE else f"{NAMES[scu]} both"
    return f"{NAMES[scu]} to {NAMES[scp]}"


def missing(kind: Kind) -> str | None:
    """Why there is no peer of that kind; `None` if there is."""
    if kind == "pynetdicom" and find_spec("pynetdicom") is None:
        return "pynetdicom is not installed"
    if kind in ("stock", "nodelay"):
        try:
            for name in DCMTK_PROGRAMS:
                find_program(name)
        except ProgramMissing as error:
            return str(error)
    return None


@attrs.frozen
class Scp:
    """An SCP that listens; `sink` is where it saves to, `None` if it discards."""

    kind: Kind
    port: int
    process: Process
    sink: Path | None

    def empty_sink(self) -> None:
        """Remove what it has saved."""
        if self.sink is not None:
            for file in self.sink.iterdir():
                file.unlink()


class Scu(Protocol):
    """An SCU: each operation done so many times with the SCP at a port."""

    def echo(self, port: int, count: int) -> Sample: ...
    def store(self, port: int, files: list[Path]) -> Sample: ...
    def find(self, port: int, count: int) -> Sample: ...
    def get(self, port: int, count: int) -> Sample: ...


Operation = Callable[[Scu, Scp, int], Sample]


@attrs.frozen
class DriverScu:
    """An SCU in Python: ours, pynetdicom's, or the bare stream."""

    process: Process

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        return self.process.ask(command, arguments)

    def echo(self, port: int, count: int) -> Sample:
        return self._each(self.ask("echo", port=port, count=count), count)

    def store(self, port: int, files: list[Path]) -> Sample:
        return self._each(self.ask("store", port=port, files=[*map(str, files)]), len(files))

    def find(self, port: int, count: int) -> Sample:
        return self._counted(self.ask("find", port=port, count=count), count)

    def get(self, port: int, count: int) -> Sample:
        return self._counted(self.ask("get", port=port, count=count), count)

    def _counted(self, answer: dict[str, Any], count: int) -> Sample:
        if answer["count"] != count:
            raise PeerFailed(f"{self.process.name}: {answer['count']} of {count} arrived")
        return self._each(answer, count)

    def _each(self, answer: dict[str, Any], count: int) -> Sample:
        return Sample(answer["seconds"] / count)


@attrs.frozen
class DcmtkScu:
    """DCMTK's programs, one process for each measurement."""

    env: dict[str, str]
    start: Callable[[], Run]
    """Sends a small file, Nagle's algorithm off on both sides: what starting takes."""

    def echo(self, port: int, count: int) -> Sample:
        return self._each(
            count,
            lambda: self._run("echoscu", port, "--repeat", str(count)),
            lambda: self._run("echoscu", port),
        )

    def store(self, port: int, files: list[Path]) -> Sample:
        if len(files) == 1:
            return self._single(files[0], port)
        return self._each(
            len(files),
            lambda: self._run("storescu", port, files=files),
            lambda: self._run("storescu", port, files=files[:1]),
        )

    def find(self, port: int, count: int) -> Sample:
        keys = key_options("QueryRetrieveLevel=STUDY", *(f"{keyword}=" for keyword in FIND_KEYS))

        def ask(matches: int) -> Run:
            return self._run("findscu", port, "-S", "-sr", *keys, "-k", f"PatientID={matches}")

        return self._each(count, lambda: ask(count), lambda: ask(1))

    def get(self, port: int, count: int) -> Sample:
        def ask(instances: int) -> Run:
            study = f"StudyInstanceUID={STUDY}.{instances}"
            keys = key_options("QueryRetrieveLevel=STUDY", study)
            return self._run("getscu", port, "-S", "--ignore", *keys)

        return self._each(count, lambda: ask(count), lambda: ask(1))

    def _single(self, file: Path, port: int) -> Sample:
        done = self._run("storescu", port, files=[file])
        starts = [self.start() for _ in range(STARTS)]
        return self._less(done, starts, 1, 1)

    def _run(self, name: str, port: int, *options: str, files: list[Path] | None = None) -> Run:
        command = [find_program(name), "-q", *options, HOST, str(port), *map(str, files or ())]
        return run(command, env=self.env)

    def _each(self, count: int, many: Callable[[], Run], one: Callable[[], Run]) -> Sample:
        starts = [one() for _ in range(STARTS)]
        return self._less(many(), starts, max(count - 1, 1), count + STARTS)

    def _less(self, done: Run, starts: list[Run], count: int, performed: int) -> Sample:
        figures = {} if done.peak is None else {"SCU MiB": done.peak / MIB}
        figures[CPU] = done.cpu - median(start.cpu for start in starts)
        seconds = done.seconds - median(start.seconds for start in starts)
        return Sample(seconds / count, figures, performed)


def key_options(*keys: str) -> list[str]:
    """Query keys as DCMTK's programs take them."""
    return [word for key in keys for word in ("-k", key)]


@attrs.define
class Peers:
    """Peers of one or several works; they end with the block that `stack` belongs to."""

    stack: ExitStack
    folder: Path
    small: Path
    _scus: dict[Kind, Scu] = attrs.field(factory=dict)
    _scps: dict[tuple[Kind, bool, tuple[str, ...]], Scp] = attrs.field(factory=dict)

    def scu(self, kind: Kind) -> Scu:
        scu = self._scus.get(kind)
        if scu is None or (isinstance(scu, DriverScu) and not scu.process.alive):
            scu = self._scus[kind] = self._start_scu(kind)
        return scu

    def driver(self, kind: Kind) -> DriverScu:
        scu = self.scu(kind)
        assert isinstance(scu, DriverScu)
        return scu

    def scp(self, kind: Kind, *options: str, saving: bool = False) -> Scp:
        key = (kind, saving, options)
        scp = self._scps.get(key)
        if scp is None or not scp.process.alive:
            scp = self._scps[key] = self._start_scp(kind, options, saving)
        return scp

    def enter(self, block: AbstractContextManager[Process]) -> Process:
        return self.stack.enter_context(block)

    def _start_scu(self, kind: Kind) -> Scu:
        match kind:
            case "stock":
                return DcmtkScu(environment(), self._start_dcmtk)
            case "nodelay":
                return DcmtkScu(environment(TCP_NODELAY="1"), self._start_dcmtk)
            case _:
                if kind in BARE:
                    command = python("bare", *BARE[kind])
                elif kind in OURS:
                    command = python("ours_scu", *OURS[kind])
                else:
                    command = python(f"{kind}_scu")
                process = self.enter(running(command, name=f"{NAMES[kind]} SCU"))
                process.line(START_TIMEOUT)
                return DriverScu(process)

    def _start_dcmtk(self) -> Run:
        command = [find_program("storescu"), "-q", HOST, str(self.scp("nodelay").port)]
        return run([*command, str(self.small)], env=environment(TCP_NODELAY="1"))

    def _start_scp(self, kind: Kind, options: tuple[str, ...], saving: bool) -> Scp:
        name = f"{NAMES[kind]} SCP"
        sink = self.folder / f"sink-{kind}" if saving else None
        if sink is not None:
            shutil.rmtree(sink, ignore_errors=True)
            sink.mkdir(parents=True)
        if kind in ("stock", "nodelay"):
            port = free_port()
            env = environment(**({"TCP_NODELAY": "1"} if kind == "nodelay" else {}))
            where = ["--ignore"] if sink is None else ["-od", str(sink)]
            command = [find_program("storescp"), "-q", *where, str(port)]
            process = self.enter(running(command, name=name, env=env))
            wait_for_port(process, port)
            return Scp(kind, port, process, sink)
        if kind in BARE:
            command = python("bare", "--serve", *BARE[kind])
        else:
            where = [] if sink is None else ["--sink", str(sink)]
            program = "ours_scp" if kind in OURS else f"{kind}_scp"
            command = python(program, *where, *OURS.get(kind, ()), *options)
        process = self.enter(running(command, name=name))
        return Scp(kind, process.line(START_TIMEOUT)["port"], process, sink)


def measured(scu: Scu, scp: Scp, operation: Operation, count: int) -> Sample:
    """Do it, and look at what both sides take for it: processor time each, and their peaks."""
    pids = {"SCP": scp.process.pid}
    if isinstance(scu, DriverScu):
        pids["SCU"] = scu.process.pid
    for pid in pids.values():
        reset_peak(pid)
    before = {side: cpu_seconds(pid) for side, pid in pids.items()}
    sample = operation(scu, scp, count)
    figures = dict(sample.figures)
    with suppress(OSError):
        used = {side: cpu_seconds(pid) - before[side] for side, pid in pids.items()}
        each = used.get("SCU", figures.pop(CPU, 0)) / count
        each += used["SCP"] / (sample.performed or count)
        if sum(used.values()) >= ENOUGH_CPU:
            figures[CPU] = each * 1e6
        figures |= {f"{side} MiB": memory(pid).peak / MIB for side, pid in sorted(pids.items())}
    return attrs.evolve(sample, figures=dict(sorted(figures.items(), reverse=True)))
