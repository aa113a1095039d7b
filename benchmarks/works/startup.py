"""What it takes to start: imports, and the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measuring import Contender, Report, Sample, interleave
from benchmarks.peers import missing
from benchmarks.processes import HOST, run
from dimse_trio.testing.dcmtk import find_program

TRIO, OURS, COMMAND = "import trio", "import dimse_trio", "dimse-trio echo"


def command_line() -> list[str]:
    """The installed command, or else the module behind it."""
    script = Path(sys.executable).with_name("dimse-trio")
    return [str(script)] if script.exists() else [sys.executable, "-m", "dimse_trio"]


def timed(*command: str) -> Callable[[int], Sample]:
    def measure(count: int) -> Sample:
        ran = run(command)
        return Sample(ran.seconds, {"CPU ms": ran.cpu * 1e3})

    return measure


def startup(bench: Bench) -> Generator[Report]:
    """Wall time of whole processes."""
    how = "one process from start to end: a program, or python -c of what is said"
    report = Report("startup", "imports and the command line", how)
    peers = bench.common
    port = str(peers.scp("ours").port)
    python = sys.executable
    contenders = [
        Contender(TRIO, timed(python, "-c", "import trio")),
        Contender(OURS, timed(python, "-c", "import dimse_trio")),
        Contender(COMMAND, timed(*command_line(), "echo", f"{HOST}:{port}")),
        Contender("pass", timed(python, "-c", "pass")),
        Contender("import pydicom", timed(python, "-c", "import pydicom")),
    ]
    if missing("pynetdicom") is None:
        echoscu = (python, "-m", "pynetdicom", "echoscu", HOST, port)
        contenders += [
            Contender("import pynetdicom", timed(python, "-c", "import pynetdicom")),
            Contender("pynetdicom echoscu", timed(*echoscu)),
        ]
    if missing("stock") is None:
        program = find_program("echoscu")
        contenders.append(Contender("DCMTK echoscu", timed(program, HOST, port)))
    interleave(report, contenders, repeats=bench.pick(15, 3))
    report.within(OURS, TRIO, 1.3)
    report.within(COMMAND, TRIO, 2.5)
    yield report
