"""`python -m benchmarks`: run works, print their tables, write JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .bench import Bench
from .measuring import Report
from .tables import as_json, as_text
from .works import WORKS, choose


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="WORKS", help=f"some of: {', '.join(WORKS)}; also store")
    parser.add_argument("--quick", action="store_true", help="small counts, two minutes in all")
    parser.add_argument("--repeats", type=int, help="measurements of each pair (5; quick: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--folder", type=Path, help="for files that are sent and received")
    return parser.parse_args()


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    versions: dict[str, str | None] = {}
    for name in ("dimse-trio", "trio", "pydicom", "pynetdicom"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        **versions,
    }


def allow_many_files() -> None:
    """A thousand associations are a thousand descriptors, in each of our processes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupted(number: int, frame: object) -> None:
    """End once, in peace: what comes in the meantime does not disturb it."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(arguments: argparse.Namespace) -> list[Report]:
    reports: list[Report] = []
    repeats = arguments.repeats or (2 if arguments.quick else 5)
    temporary = tempfile.TemporaryDirectory(prefix="benchmarks-", dir=arguments.folder)
    with temporary as name, ExitStack() as stack:
        bench = Bench(Path(name), arguments.quick, repeats, stack)
        for work in choose(arguments.only).values():
            start = time.perf_counter()
            for report in work(bench):
                report.seconds = time.perf_counter() - start
                print(as_text(report), flush=True)
                reports.append(report)
    return reports


def summary(reports: list[Report], seconds: float) -> str:
    verdicts = [target.verdict for report in reports for target in report.targets]
    counts = [f"{verdicts.count(v)} {v}" for v in ("met", "NOT MET", "not measured")]
    return f"Targets: {', '.join(counts)}. {seconds:.0f} s in all."


def main() -> int:
    arguments = options()
    try:
        choose(arguments.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for number in ENDING:
        signal.signal(number, interrupted)
    allow_many_files()
    setting = environment()
    print(", ".join(f"{name} {value}" for name, value in setting.items()) + "\n", flush=True)
    if setting["load"] > setting["processors"] / 2:
        print("Others keep this machine busy: take the figures with care.\n", flush=True)
    start = time.perf_counter()
    try:
        reports = run(arguments)
    except KeyboardInterrupt:
        print("\nInterrupted; everything has been stopped.", file=sys.stderr)
        return 130
    print(summary(reports, time.perf_counter() - start))
    if arguments.json:
        content = {"environment": setting, "quick": arguments.quick}
        content["works"] = [as_json(report) for report in reports]
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
