"""Our SCU, as a driver. What is timed is what a user would write."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter
from typing import Any

import pydicom  # noqa: F401 - its import is no part of what is measured
import trio

import dimse_trio as dimse
from benchmarks.data import STUDY
from benchmarks.processes import HOST, Memory, answer_commands, memory

Answer = dict[str, Any]
QUICK_ACK = "--delayed-ack" not in sys.argv
VERIFICATION = [dimse.PresentationContext(dimse.uid_of("Verification"))]


async def echo(port: int, count: int) -> Answer:
    async with dimse.open_association(HOST, port, quick_ack=QUICK_ACK) as association:
        start = perf_counter()
        for _ in range(count):
            await association.echo()
        return {"seconds": perf_counter() - start}


async def store(port: int, files: list[str]) -> Answer:
    async with dimse.open_association(HOST, port, quick_ack=QUICK_ACK) as association:
        start = perf_counter()
        for file in files:
            await association.store(file)
        return {"seconds": perf_counter() - start}


async def find(port: int, count: int) -> Answer:
    found = 0
    async with dimse.open_association(HOST, port) as association:
        start = perf_counter()
        async with association.find(dimse.query("STUDY", PatientID=str(count))) as matches:
            async for match in matches:
                found += bool(match.StudyInstanceUID)
        return {"seconds": perf_counter() - start, "count": found}


async def get(port: int, count: int) -> Answer:
    got = 0
    async with dimse.open_association(HOST, port) as association:
        start = perf_counter()
        what = dimse.query("STUDY", StudyInstanceUID=f"{STUDY}.{count}")
        async with association.get(what) as instances:
            async for instance in instances:
                async for _ in instance.chunks():
                    pass
                got += 1
        return {"seconds": perf_counter() - start, "count": got}


async def store_in_window(port: int, files: list[str], window: int) -> Answer:
    """All files on one association, as many at a time as the window lets through."""
    options: dict[str, Any] = {"async_operations": (window, window)} if window > 1 else {}
    start = perf_counter()
    async with dimse.open_association(HOST, port, **options) as association:
        invoked = association.negotiated.max_invoked
        for file in files:
            association.start_soon(association.store, file)
    return {"seconds": perf_counter() - start, "window": invoked}


async def store_in_jobs(port: int, files: list[str], jobs: int) -> Answer:
    """The files on so many associations, one at a time on each."""

    async def job(files: list[str]) -> None:
        async with dimse.open_association(HOST, port) as association:
            for file in files:
                await association.store(file)

    start = perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(jobs):
            nursery.start_soon(job, files[number::jobs])
    return {"seconds": perf_counter() - start}


async def hold_at_once(port: int, count: int, server: int) -> Answer:
    """Open so many associations at once, hold them, and ask each."""
    associations: list[dimse.Association] = []
    all_open, leave = trio.Event(), trio.Event()

    async def one() -> None:
        async with dimse.open_association(HOST, port, contexts=VERIFICATION) as association:
            associations.append(association)
            if len(associations) == count:
                all_open.set()
            await leave.wait()

    await echo(port, 1)
    before = memory(), memory(server)
    async with trio.open_nursery() as nursery:
        start = perf_counter()
        for _ in range(count):
            nursery.start_soon(one)
        await all_open.wait()
        opened = perf_counter() - start
        answer = await ask_each(associations, opened, before, server)
        leave.set()
    return answer


async def hold_in_turn(port: int, count: int, server: int) -> Answer:
    """The same, opened one after another."""
    await echo(port, 1)
    before = memory(), memory(server)
    async with AsyncExitStack() as stack:
        start = perf_counter()
        associations = [
            await stack.enter_async_context(
                dimse.open_association(HOST, port, contexts=VERIFICATION)
            )
            for _ in range(count)
        ]
        return await ask_each(associations, perf_counter() - start, before, server)


async def ask_each(
    associations: list[dimse.Association],
    opened: float,
    before: tuple[Memory, Memory],
    server: int,
) -> Answer:
    start = perf_counter()
    for association in associations:
        await association.echo()
    asked = perf_counter() - start
    scu, scp = memory(), memory(server)
    return {
        "seconds": opened,
        "echo": asked / len(associations),
        "scu_added": scu.now - before[0].now,
        "scp_added": scp.now - before[1].now,
        "scu_threads": scu.threads,
        "scp_threads": scp.threads,
    }


def in_trio(function: Callable[..., Awaitable[Answer]]) -> Callable[..., Answer]:
    def run(**arguments: Any) -> Answer:
        return trio.run(partial(function, **arguments))

    return run


if __name__ == "__main__":
    works = (echo, store, find, get, store_in_window, store_in_jobs, hold_at_once, hold_in_turn)
    answer_commands({work.__name__: in_trio(work) for work in works})
