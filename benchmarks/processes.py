"""Other processes: kept running, asked for something, or run to their end; and their memory.

A *driver* is a Python program that reads commands from its standard input, a line of JSON each,
and answers with one, so that a measurement has no start of an interpreter in it.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import attrs

HOST = "127.0.0.1"
ROOT = Path(__file__).parent.parent
TIMEOUT = 900.0
"""Seconds for one answer or one program."""
START_TIMEOUT = 30.0


class PeerFailed(Exception):
    """A process did not do what it was asked for."""


def environment(**extra: str) -> dict[str, str]:
    """The environment of all processes; that Nagle's algorithm is off is only said by `extra`."""
    inherited = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    paths = [str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), **extra}


# -- memory and processor time ---------------------------------------------------------------------


@attrs.frozen
class Memory:
    """What a process has resident, in bytes, and its threads. Needs /proc."""

    now: int
    peak: int
    threads: int


def memory(pid: int | str = "self") -> Memory:
    """What a process has resident now, and had at most since `reset_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    kib = [int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")]
    return Memory(kib[0] << 10, kib[1] << 10, int(fields["Threads"]))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has had, all threads; in steps of 10 ms, as Linux counts it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def reset_peak(pid: int) -> None:
    """Let the peak begin anew at what is resident now (proc(5), clear_refs)."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


# -- processes that stay ---------------------------------------------------------------------------


@attrs.define
class Process:
    """A process that is kept running, and what it has said on stderr."""

    name: str
    popen: subprocess.Popen[str]
    log: IO[bytes]

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def last_words(self) -> str:
        size = os.fstat(self.log.fileno()).st_size
        start = max(size - 2000, 0)
        return os.pread(self.log.fileno(), size - start, start).decode(errors="replace").strip()

    def line(self, timeout: float) -> dict[str, Any]:
        """The next line of JSON that it writes."""
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], timeout)
        text = self.popen.stdout.readline() if ready else ""
        if not text:
            why = "ended" if ready else f"did not answer in {timeout:g} s"
            self.popen.kill()
            raise PeerFailed(f"{self.name} {why}\n{self.last_words()}".strip())
        answer: dict[str, Any] = json.loads(text)
        return answer

    def ask(self, command: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        """Have a driver do something."""
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps([command, arguments]) + "\n")
            self.popen.stdin.flush()
        except OSError as error:
            raise PeerFailed(f"{self.name} has ended\n{self.last_words()}") from error
        answer = self.line(TIMEOUT)
        if "error" in answer:
            raise PeerFailed(f"{self.name}: {answer['error']}")
        return answer


@contextmanager
def running(
    command: Sequence[str], *, name: str, env: dict[str, str] | None = None
) -> Generator[Process]:
    """Keep a process running until the block is left.

    It has a process group of its own, which Ctrl-C does not reach: it is ended from here.
    """
    with tempfile.TemporaryFile() as log:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=env or environment(),
            process_group=0,
        )
        try:
            yield Process(name, popen, log)
        finally:
            _end(popen)


def _end(popen: subprocess.Popen[str]) -> None:
    for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 10.0)):
        if popen.poll() is not None:
            break
        with suppress(ProcessLookupError):
            os.killpg(popen.pid, number)
        with suppress(subprocess.TimeoutExpired):
            popen.wait(patience)
    for pipe in (popen.stdin, popen.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def python(module: str, *arguments: str) -> list[str]:
    """The command for one of this package's programs."""
    return [sys.executable, "-m", f"benchmarks.programs.{module}", *arguments]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        port: int = holder.getsockname()[1]
        return port


def wait_for_port(process: Process, port: int) -> None:
    """Wait until a listener that does not say so answers."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.popen.poll() is None:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.01)
    raise PeerFailed(f"{process.name} does not listen\n{process.last_words()}".strip())


# -- processes that end ----------------------------------------------------------------------------


@attrs.frozen
class Run:
    """A program that ran to its end: wall time, processor time, and peak resident size.

    The peak is `None` where it is below our own, as a child begins with its parent's.
    """

    seconds: float
    cpu: float
    peak: int | None


def run(command: Sequence[str], *, env: dict[str, str] | None = None) -> Run:
    """Run a program to its end, and see that it says it went well."""
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env or environment(),
            process_group=0,
        )
        killer = threading.Timer(TIMEOUT, popen.kill)
        killer.daemon = True
        killer.start()
        try:
            _, status, usage = os.wait4(popen.pid, 0)
            seconds = time.perf_counter() - start
            popen.returncode = os.waitstatus_to_exitcode(status)
        finally:
            killer.cancel()
            if popen.returncode is None:
                popen.kill()
                popen.wait()
        if popen.returncode:
            log.seek(0)
            said = log.read()[-2000:].decode(errors="replace").strip()
            raise PeerFailed(f"{Path(command[0]).name} returned {popen.returncode}\n{said}")
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu = usage.ru_utime + usage.ru_stime
        return Run(seconds, cpu, usage.ru_maxrss << 10 if usage.ru_maxrss > own else None)


# -- inside a driver -------------------------------------------------------------------------------


def answer_commands(functions: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Do what the standard input says until it ends: the main loop of a driver."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = functions[name](**arguments)
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = {"error": f"{name}: {error!r}"}
        print(json.dumps(answer), flush=True)
