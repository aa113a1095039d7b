"""Both sides of the limit: trio's streams without a protocol, bytes over and a short answer back.

Without `--serve` it is a driver, the sending side. With `--descriptors` nothing but readiness is
asked of trio, and the descriptor is read and written directly: all that a protocol can save.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from functools import partial
from time import perf_counter
from typing import Any

import trio

from benchmarks.processes import HOST, answer_commands

ECHO = 80
"""Bytes of a C-ECHO request, and nearly those of its response."""
PIECE = 1 << 17
HEADER = struct.Struct("!QQ")


async def serve() -> None:
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    print(json.dumps({"port": listeners[0].socket.getsockname()[1]}), flush=True)
    async with trio.open_nursery() as nursery:
        other = answer_directly if "--descriptors" in sys.argv else receive
        nursery.start_soon(trio.serve_listeners, other, listeners)
        await trio.lowlevel.wait_readable(sys.stdin)
        nursery.cancel_scope.cancel()


async def receive(stream: trio.SocketStream) -> None:
    while header := await stream.receive_some(HEADER.size):
        size, count = HEADER.unpack(header)
        await stream.send_all(b"\0")
        for _ in range(count):
            missing = size
            while missing:
                missing -= len(await stream.receive_some(min(missing, 2 * PIECE)))
            await stream.send_all(bytes(ECHO))


async def send(port: int, size: int, count: int) -> dict[str, Any]:
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all(HEADER.pack(size, count))
        await stream.receive_some(1)
        piece = memoryview(bytes(PIECE))
        start = perf_counter()
        for _ in range(count):
            for sent in range(0, size, PIECE):
                await stream.send_all(piece[: min(PIECE, size - sent)])
            missing = ECHO
            while missing:
                missing -= len(await stream.receive_some(missing))
        return {"seconds": perf_counter() - start}


async def answer_directly(stream: trio.SocketStream) -> None:
    descriptor = stream.socket.fileno()
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        if not os.read(descriptor, 4096):
            return
        os.write(descriptor, bytes(ECHO))


async def ask_directly(port: int, count: int) -> dict[str, Any]:
    async with await trio.open_tcp_stream(HOST, port) as stream:
        descriptor = stream.socket.fileno()
        start = perf_counter()
        for _ in range(count):
            os.write(descriptor, bytes(ECHO))
            await trio.lowlevel.wait_readable(descriptor)
            os.read(descriptor, 4096)
        return {"seconds": perf_counter() - start}


def echo(port: int, count: int) -> dict[str, Any]:
    if "--descriptors" in sys.argv:
        return trio.run(ask_directly, port, count)
    return trio.run(send, port, ECHO, count)


def store(port: int, files: list[str]) -> dict[str, Any]:
    return trio.run(partial(send, port, os.path.getsize(files[0]), len(files)))


if __name__ == "__main__":
    if "--serve" in sys.argv:
        trio.run(serve)
    else:
        answer_commands({"echo": echo, "store": store})
