"""`dimse-trio` as a real process, and a handler for it to talk to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import attrs
import pydicom
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.matching import compile_query

COMMAND = (sys.executable, "-m", "dimse_trio")
PATIENCE = 60.0
"""Seconds after which a program that should have ended is an error."""

UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what could reach into the program."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DIMSE_", "PYTHONWARN"))}
    return kept | {"PYTHONWARNINGS": "error", "XDG_CONFIG_HOME": "/nonexistent"} | changes


@attrs.frozen
class Ended:
    """How a run of the program ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def errors(self) -> list[str]:
        return self.stderr.splitlines()

    def check(self, code: int, *says: str) -> Ended:
        """It ended with this code, and said just one line about it, which has these words."""
        assert self.code == code, self
        assert "Traceback" not in self.stdout + self.stderr
        assert len(self.errors) == 1, self.stderr
        assert self.errors[0].startswith("dimse-trio: ")
        for words in says:
            assert words in self.errors[0]
        return self

    def check_done(self) -> Ended:
        """It did everything, and had nothing to say about it."""
        assert (self.code, self.stderr) == (0, ""), self
        return self


async def run(*arguments: object, cwd: Path | None = None, **env: str) -> Ended:
    """Run the program to its end."""
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            [*COMMAND, *map(str, arguments)],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(**env),
            cwd=cwd,
        )
    return Ended(result.returncode, result.stdout.decode(), result.stderr.decode())


def dcmdump(path: Path) -> str:
    """What DCMTK's dcmdump says, which it must not complain about."""
    done = subprocess.run(["dcmdump", "+U8", path], capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode()


class Running:
    """The program while it runs: its lines as they come, signals, and its end."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._buffer = b""

    @classmethod
    async def start(cls, *arguments: object, cwd: Path | None = None, **env: str) -> Running:
        process = await trio.lowlevel.open_process(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**env),
            cwd=cwd,
        )
        return cls(process)

    async def line(self) -> str:
        """The next line of standard output; empty at its end."""
        assert self.process.stdout is not None
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._buffer:
                data = await self.process.stdout.receive_some()
                if not data:
                    break
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    async def listening(self) -> int:
        """The port on which it says that it listens."""
        line = await self.line()
        if line.startswith("{"):
            said = json.loads(line)
            assert said["event"] == "listening", said
            return int(said["port"])
        assert line.startswith("listening on "), line
        return int(line.split()[2].rpartition(":")[2])

    async def ended(self) -> Ended:
        """Wait for its end; what was read as lines is not in the output again."""
        errors = b""

        async def read_errors() -> None:
            nonlocal errors
            assert self.process.stderr is not None
            async for data in self.process.stderr:
                errors += data

        assert self.process.stdout is not None
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_errors)
                async for data in self.process.stdout:
                    self._buffer += data
            code = await self.process.wait()
        return Ended(code, self._buffer.decode(), errors.decode())

    async def aclose(self) -> None:
        """Make sure that it is gone."""
        self.process.kill()
        with trio.CancelScope(shield=True):
            await self.process.wait()
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    await stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@asynccontextmanager
async def served(
    handler: object, *, ae_title: str = "KEEPER", **options: Any
) -> AsyncGenerator[tuple[str, str, str]]:
    """A listener of this process; what is given is the command line's way to name it."""
    async with dimse.open_server(handler, ae_title=ae_title, **options) as server:
        yield (f"127.0.0.1:{server.port}", "--aec", ae_title)


@attrs.define
class Keeper:
    """Keeps the files that it is given and sent, and answers every service about them.

    Attributes:
        files: What it has, by SOP Instance UID.
        answer: What it answers C-STORE with, by SOP Instance UID.
        hold: After so many matches a C-FIND waits until it is cancelled.
        cancelled: Set when a C-FIND is cancelled.
        identifiers: Those of all C-FINDs.
    """

    folder: Path
    files: dict[str, Path] = attrs.field(factory=dict)
    answer: Callable[[str], int] = lambda uid: dimse.Status.SUCCESS
    hold: int | None = None
    cancelled: trio.Event = attrs.field(factory=trio.Event)
    holding: trio.Event = attrs.field(factory=trio.Event)
    identifiers: list[Dataset] = attrs.field(factory=list)
    associations: int = 0

    @classmethod
    def of(cls, folder: Path, files: Iterable[Path], **options: Any) -> Keeper:
        found = {dimse.Instance.from_file(path).sop_instance_uid: path for path in files}
        return cls(folder, found, **options)

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        status = dimse.Status(self.answer(request.sop_instance_uid))
        if not status.is_failure:
            path = self.folder / request.file_name
            await request.save_as(path)
            self.files[request.sop_instance_uid] = path
        return status

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        self.identifiers.append(request.identifier)
        seen: set[str] = set()
        for _, record in self._matching(request.identifier):
            unique = str(record[UNIQUE_KEYS[request.level]].value)
            if unique in seen:
                continue
            if len(seen) == self.hold:
                await self._hold()
            seen.add(unique)
            yield compile_query(request.identifier).response(record)
        if len(seen) == self.hold:
            await self._hold()

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        for path, _ in self._matching(request.identifier):
            yield path

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Path]:
        for path, _ in self._matching(request.identifier):
            yield path

    async def _hold(self) -> None:
        self.holding.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    def _matching(self, identifier: Dataset) -> list[tuple[Path, Dataset]]:
        query = compile_query(identifier)
        records = [
            (path, pydicom.dcmread(path, stop_before_pixels=True)) for path in self.files.values()
        ]
        return [(path, record) for path, record in records if query.matches(record)]
