"""What the scripts of this folder share: a server in another process, and what processes hold.

The server reads commands from its standard input and answers each with one line of JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import trio

import dimse_trio as dimse

MIB = 1 << 20


@attrs.frozen
class Holdings:
    """What a process holds at one moment. Needs /proc."""

    tasks: int
    fds: int
    threads: int
    rss: int
    """Resident memory, in bytes."""


def holdings() -> Holdings:
    """What this process holds, after it has given back what it can."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return Holdings(
        tasks=trio.lowlevel.current_statistics().tasks_living,
        fds=len(os.listdir("/proc/self/fd")),
        threads=int(fields["Threads"]),
        rss=int(fields["VmRSS"].split()[0]) * 1024,
    )


async def lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[str]:
    """The lines of a stream."""
    buffer = b""
    async for data in stream:
        *whole, buffer = (buffer + data).split(b"\n")
        for line in whole:
            yield line.decode()


async def serve_and_report(handler: object, **options: Any) -> None:
    """In the server's process: serve, tell the port, then holdings whenever asked, until EOF."""
    stdin = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    async with stdin, dimse.open_server(handler, **options) as server:
        print(json.dumps({"port": server.port}), flush=True)
        async for _ in lines(stdin):
            report = attrs.asdict(holdings()) | attrs.asdict(server.statistics())
            print(json.dumps(report), flush=True)


@attrs.define
class ServerProcess:
    """A server in another process, from this side."""

    port: int
    process: trio.Process
    _lines: AsyncIterator[str]

    async def report(self) -> dict[str, int]:
        """Its holdings and statistics."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(b"\n")
        return cast("dict[str, int]", json.loads(await anext(self._lines)))

    async def holdings(self) -> Holdings:
        report = await self.report()
        return Holdings(*(report[field.name] for field in attrs.fields(Holdings)))


@asynccontextmanager
async def server_process(*arguments: str) -> AsyncGenerator[ServerProcess]:
    """Run a script as a server that calls `serve_and_report`; it ends with the block."""
    run = partial(
        trio.run_process,
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        check=False,
    )
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        answers = lines(process.stdout)
        yield ServerProcess(json.loads(await anext(answers))["port"], process, answers)
        nursery.cancel_scope.cancel()


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as columns; the first row is their head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
