"""C-STORE to a peer that is 50 ms away: windows of operations, and many associations."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from functools import partial

import dimse_trio as dimse
from benchmarks.bench import Bench
from benchmarks.data import SMALL
from benchmarks.measuring import Contender, Report, Sample, interleave
from benchmarks.peers import Peers, Scp
from benchmarks.processes import START_TIMEOUT, PeerFailed, Process, python, running

DELAY = 0.025
WINDOWS = (8, 32)
JOBS = 8


def available() -> bool:
    """Whether both sides of the library can be told a window."""
    return (
        "async_operations" in inspect.signature(dimse.open_association).parameters
        and "async_operations" in dimse.ServerOptions.__annotations__
    )


def proxied(peers: Peers, scp: Scp) -> int:
    """The port of a proxy that makes an SCP far away."""
    command = python("proxy", str(scp.port), str(DELAY))
    process: Process = peers.enter(running(command, name="proxy"))
    port: int = process.line(START_TIMEOUT)["port"]
    return port


def window(bench: Bench) -> Generator[Report]:
    """Many small C-STOREs, with opening and release of what carries them."""
    count = bench.pick(200, 100)
    files = [*map(str, bench.files(SMALL, count))]
    report = Report(
        "window",
        f"{count} C-STOREs of 9 KB to a peer 50 ms away there and back",
        "all of them, association and release included; both sides ours",
    )
    with bench.fresh() as peers:
        driver = peers.driver("ours")
        near = proxied(peers, peers.scp("ours"))

        def in_jobs(jobs: int, count: int) -> Sample:
            answer = driver.ask("store_in_jobs", port=near, files=files, jobs=jobs)
            return Sample(answer["seconds"])

        contenders = [
            Contender("window 1", partial(in_jobs, 1)),
            Contender(f"{JOBS} associations", partial(in_jobs, JOBS)),
        ]
        if available():
            wide = proxied(peers, peers.scp("ours", "--window", str(max(WINDOWS))))

            def in_window(size: int, count: int) -> Sample:
                answer = driver.ask("store_in_window", port=wide, files=files, window=size)
                if answer["window"] != size:
                    raise PeerFailed(f"negotiated {answer['window']} in place of {size}")
                return Sample(answer["seconds"])

            contenders += [
                Contender(f"window {size}", partial(in_window, size)) for size in WINDOWS
            ]
        else:
            report.notes.append(
                "windows of more than 1 are not available: open_association or open_server has no"
                " parameter async_operations"
            )
        interleave(report, contenders, repeats=bench.pick(3, 1), warm_up=False)
    report.faster(f"window {max(WINDOWS)}", "window 1", 10)
    report.faster(f"{JOBS} associations", "window 1", 6)
    yield report
