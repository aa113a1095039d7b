"""Processes for codecs to run in, which can be killed.

A codec in C that is given damaged pixel data may loop for ever and keep all other threads of its
process from running, or abort that process. Here either costs the instance that it was given.

A process is used for one instance after the other, but not once a codec has refused something in
it: nobody knows what that has left behind in its memory. `codec_main` is what it runs. Over its
standard streams go messages: a byte that says what follows, its length in eight bytes, and what
follows.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable

import attrs
import trio

HEAD = struct.Struct(">cQ")
JOB, DATA, PROGRESS, REFUSED = b"?", b"=", b".", b"!"

QUIET = 30.0
"""Longest time between two signs of progress, which come with each frame, in s of real time."""
KEPT = 60.0
"""How long, in s, a process is kept that nothing has been given to; twice that at most."""

_CHUNK = 1 << 16
_PROGRAM = "dimse_trio.codec_main"


class Impossible(Exception):
    """Why something cannot be transcoded, and the packages that are missing."""

    def __init__(self, why: str, missing: str = "") -> None:
        super().__init__(why)
        self.missing = missing


async def run_codec(job: dict[str, str], read: Callable[[], bytes]) -> bytearray:
    """What a process of its own makes of a data set. As many run at a time as there are processors.

    Cancelled, it kills the process, and returns when that is gone.

    Args:
        job: Keyword arguments for `transcoding.recode`.
        read: Reads the data set, in a worker thread, when it is its turn.

    Raises:
        Impossible: It cannot be done, or the process has come to no end, or to a bad one.
    """
    return await _processes().run(job, read)


@attrs.define(eq=False)
class _Process:
    """One process and its streams."""

    process: trio.Process
    used: bool = True

    @classmethod
    async def started(cls) -> _Process:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise Impossible(
                "codecs need a Python interpreter to run in, and this program has none"
            )
        try:
            # Not by multiprocessing, which would run a program's main module once more
            return cls(
                await trio.lowlevel.open_process(
                    [sys.executable, "-P", "-m", _PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                    },
                )
            )
        except OSError as error:
            why = f"no process can be started for its codec: {error.strerror}"
            raise Impossible(why) from error

    async def ask(self, job: dict[str, str], data: bytes) -> tuple[bytes, bytearray]:
        """The last message about a job: `DATA` or `REFUSED`."""
        assert self.process.stdin is not None
        try:
            await self._message()  # that it has begun; from then on it reads
            await self.process.stdin.send_all(message(JOB, json.dumps(job).encode()))
            await self.process.stdin.send_all(HEAD.pack(DATA, len(data)))
            await self.process.stdin.send_all(data)
            while True:
                kind, body = await self._message()
                if kind != PROGRESS:
                    return kind, body
        except (trio.BrokenResourceError, EOFError):
            self.process.kill()  # if it has only closed its streams
            with trio.CancelScope(shield=True):
                await self.process.wait()
            status = self.process.returncode
            raise Impossible(f"the process of its codec has died with status {status}") from None

    async def _message(self) -> tuple[bytes, bytearray]:
        kind, length = HEAD.unpack(await self._read(HEAD.size))
        return kind, await self._read(length)

    async def _read(self, size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            data += await self._receive(min(size - len(data), _CHUNK))
        return data

    async def _receive(self, size: int) -> bytes:
        assert self.process.stdout is not None
        began = time.monotonic()
        while True:
            with trio.move_on_after(QUIET):
                if chunk := await self.process.stdout.receive_some(size):
                    return bytes(chunk)
                raise EOFError
            if time.monotonic() - began >= QUIET:  # else a clock for tests has jumped
                raise Impossible(f"its codec has come to no end in {QUIET:g} s")

    async def end(self) -> None:
        self.process.kill()
        with trio.CancelScope(shield=True):
            await self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                assert stream is not None
                await stream.aclose()


@attrs.define(eq=False)
class _Processes:
    """The processes of one `trio.run`."""

    _limiter: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(os.cpu_count() or 1)
    )
    _idle: list[_Process] = attrs.field(factory=list[_Process])

    async def run(self, job: dict[str, str], read: Callable[[], bytes]) -> bytearray:
        async with self._limiter:
            data = await trio.to_thread.run_sync(read)
            process = await self._taken()
            fit = False
            try:
                kind, body = await process.ask(job, data)
                if kind == DATA:
                    fit = True
                    return body
                refusal = json.loads(body)
                fit = refusal["fit"]
                raise Impossible(refusal["why"], refusal["missing"])
            finally:
                if fit:
                    self._idle.append(process)
                else:
                    await process.end()

    async def _taken(self) -> _Process:
        while self._idle:
            process = self._idle.pop()
            if process.process.poll() is None:
                process.used = True
                return process
            await process.end()  # something else has killed it
        return await _Process.started()

    async def keep(self) -> None:
        """End processes that are not used, and all of them with the run."""
        try:
            while True:
                await trio.sleep(KEPT)
                unused = [process for process in self._idle if not process.used]
                self._idle = [process for process in self._idle if process.used]
                for process in self._idle:
                    process.used = False
                for process in unused:
                    await process.end()
        finally:
            for process in self._idle:
                await process.end()


_of_run: trio.lowlevel.RunVar[_Processes] = trio.lowlevel.RunVar("codec processes")


def _processes() -> _Processes:
    try:
        return _of_run.get()
    except LookupError:
        processes = _Processes()
        _of_run.set(processes)
        trio.lowlevel.spawn_system_task(processes.keep)
        return processes


def message(kind: bytes, body: bytes = b"") -> bytes:
    """A message as it goes over a stream."""
    return HEAD.pack(kind, len(body)) + body
