"""DCMTK's programs as processes: found, run to their end, or kept running on a free port.

Each runs with `TCP_NODELAY=1`. DCMTK leaves Nagle's algorithm on and writes a PDU's header and body
separately, so that every PDU waits for the peer's delayed acknowledgement: 40 ms a message, which
makes tests slow and their timing the kernel's.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, final

import attrs
import trio

HOST = "127.0.0.1"
HOW_TO_INSTALL = "apt-get install dcmtk (Debian, Ubuntu), brew install dcmtk (macOS)"
START_TIMEOUT = 10.0
"""Seconds for a listener to answer on its port; DCMTK's take some 10 ms."""
END_TIMEOUT = 5.0
"""Seconds between the request to end and the kill."""
PORTS = range(20000, 32768)
"""Below what systems hand out to outgoing connections, which so cannot take a port that is free."""


class DcmtkError(Exception):
    """A program of DCMTK is missing, does not start, or fails."""


class ProgramMissing(DcmtkError, FileNotFoundError):
    """A program of DCMTK is not installed."""


@attrs.frozen
class Completed:
    """A program that ran to its end.

    `files` are those that it wrote, sorted by name, where it was given a folder to write to.
    """

    command: tuple[str, ...]
    returncode: int
    stdout: str = attrs.field(repr=False)
    stderr: str = attrs.field(repr=False)
    files: tuple[Path, ...] = ()

    @property
    def output(self) -> str:
        """What it said: stdout, then stderr. DCMTK uses now one and now the other."""
        return self.stdout + self.stderr


class ProgramFailed(DcmtkError):
    """A program of DCMTK ended with a return code other than 0; `completed` has what it said."""

    def __init__(self, completed: Completed) -> None:
        self.completed = completed
        super().__init__(
            f"{' '.join(completed.command)}: return code {completed.returncode}"
            f"\n{completed.output.rstrip()}"
        )


def find_program(name: str) -> str:
    """The path of a program of DCMTK.

    Programs of the same name that are not DCMTK's, as pynetdicom installs them, are passed over.

    Raises:
        ProgramMissing: There is none.
    """
    path = _find_program(name, os.environ.get("PATH", os.defpath))
    if path is None:
        raise ProgramMissing(f"{name} of DCMTK is not on the PATH: {HOW_TO_INSTALL}")
    return path


@cache
def _find_program(name: str, search_path: str) -> str | None:
    for folder in search_path.split(os.pathsep):
        path = shutil.which(name, path=folder) if folder else None
        if path is not None and _is_dcmtk(path):
            return path
    return None


def _is_dcmtk(path: str) -> bool:
    with Path(path).open("rb") as file:
        first = file.readline(256)
    if first.startswith(b"#!") and b"python" in first:
        return False
    with suppress(OSError, subprocess.TimeoutExpired):
        version = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10
        )
        return version.stdout.startswith(b"$dcmtk:")
    return False


def environment() -> dict[str, str]:
    """The environment of DCMTK's programs; the module says why."""
    return {**os.environ, "TCP_NODELAY": "1"}


# -- programs that end ---------------------------------------------------------------------------


async def run_program(
    name: str,
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    check: bool,
) -> Completed:
    """Run a program of DCMTK to its end; cancelled, it is ended first.

    Args:
        name: The program.
        arguments: Its arguments.
        folder: Where it writes files, which are looked for afterwards. It runs there: not all
            that it writes goes where its options say.
        check: Whether a return code other than 0 is an error.

    Raises:
        ProgramMissing: It is not installed.
        ProgramFailed: See `check`.
    """
    command = (find_program(name), *arguments)
    before = files_in(folder)
    process = await trio.run_process(
        command,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environment(),
        cwd=folder,
    )
    completed = Completed(
        (name, *arguments),
        process.returncode,
        process.stdout.decode(errors="replace"),
        process.stderr.decode(errors="replace"),
        tuple(sorted(files_in(folder) - before)),
    )
    if check and completed.returncode != 0:
        raise ProgramFailed(completed)
    return completed


def files_in(folder: Path | None) -> set[Path]:
    """The files in a folder and below; none if there is no folder."""
    if folder is None:
        return set()
    return {path for path in folder.rglob("*") if path.is_file()}


# -- programs that listen ------------------------------------------------------------------------


@final
class Listener:
    """A program of DCMTK that listens on a port of this machine, until its block is left.

    Attributes:
        host: Where it listens.
        port: On which port.
        ae_title: What it is called.
        folder: Where it keeps what it is sent.
    """

    def __init__(
        self,
        name: str,
        process: trio.Process,
        log: IO[bytes],
        *,
        port: int,
        ae_title: str,
        folder: Path,
    ) -> None:
        self.host = HOST
        self.port = port
        self.ae_title = ae_title
        self.folder = folder
        self._name = name
        self._process = process
        self._log = log
        self._last_words = ""

    def __repr__(self) -> str:
        return f"<{self._name} {self.ae_title} on {self.host}:{self.port}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    async def wait(self) -> None:
        """Wait until it has ended, which outside of its block it has."""
        await self._process.wait()

    @property
    def log(self) -> str:
        """What it has said so far; after the block, all that it said."""
        return self._last_words if self._log.closed else _text_of(self._log)

    def keep_log(self) -> None:
        """Keep what it has said for when its log file is gone."""
        self._last_words = _text_of(self._log)

    def files(self) -> list[Path]:
        """The instances that it has kept, sorted by name; while it is at work, perhaps half of one.

        A store is acknowledged when its file is complete.
        """
        return sorted(path for path in files_in(self.folder) if _is_part10(path))


def _text_of(file: IO[bytes]) -> str:
    """All of a file that a process is writing to, whose position is thereby not moved."""
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")


def _is_part10(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def free_port() -> int:
    """A port of this machine that nobody listens on at the moment.

    Raises:
        DcmtkError: None was found.
    """
    with _reserved_port() as port:
        return port


@contextmanager
def _reserved_port() -> Generator[int]:
    """A free port that nobody else who asks here is given within the block.

    A socket is bound to it, which lets those listen that share addresses, as DCMTK's programs do.
    """
    for port in random.sample(PORTS, 100):
        with socket.socket() as holder:
            try:
                holder.bind((HOST, port))
            except OSError:
                continue
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            yield port
            return
    raise DcmtkError(f"no free port found between {PORTS.start} and {PORTS.stop}")


@asynccontextmanager
async def listening(
    name: str,
    arguments: Callable[[int], Iterable[str]],
    *,
    ae_title: str,
    folder: Path,
) -> AsyncGenerator[Listener]:
    """Keep a program of DCMTK running, from when its port answers until the block is left.

    It is ended together with the processes that it has forked, and awaited.

    Args:
        name: The program.
        arguments: Its arguments, given the port.
        ae_title: For `Listener`.
        folder: For `Listener`.

    Raises:
        ProgramMissing: It is not installed.
        DcmtkError: It does not start, or ended by itself; the message has what it said.
    """
    program = find_program(name)
    with _reserved_port() as port, tempfile.TemporaryFile() as log:
        process = await trio.lowlevel.open_process(
            [program, *arguments(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            start_new_session=True,
        )
        listener = Listener(name, process, log, port=port, ae_title=ae_title, folder=folder)
        try:
            await _wait_until_it_answers(process, port, name, log)
            if process.poll() is None:
                yield listener
            if process.poll() is not None:
                raise DcmtkError(
                    f"{name} ended by itself ({process.returncode}):\n{_text_of(log).rstrip()}"
                )
        finally:
            await _end(process)
            listener.keep_log()


async def _wait_until_it_answers(
    process: trio.Process, port: int, name: str, log: IO[bytes]
) -> None:
    """Wait until the port can be connected to, or the process has ended."""
    pause = 0.005
    with trio.move_on_after(START_TIMEOUT):
        while process.poll() is None:
            try:
                stream = await trio.open_tcp_stream(HOST, port)
            except OSError:
                await trio.sleep(pause)
                pause = min(2 * pause, 0.1)
            else:
                await stream.aclose()
                return
        return
    raise DcmtkError(
        f"{name} does not answer on port {port} after {START_TIMEOUT:g} s:\n{_text_of(log)}"
    )


async def _end(process: trio.Process) -> None:
    """End a process and those that it has forked, politely and then not; shielded, bounded."""
    with trio.CancelScope(shield=True):
        _signal(process, signal.SIGTERM)
        with trio.move_on_after(END_TIMEOUT):
            await process.wait()
        if sys.platform != "win32" and process.returncode is None:
            _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: trio.Process, number: signal.Signals) -> None:
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.terminate()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
