"""A far-away peer: forwards connections to a port, each way that many seconds later."""

from __future__ import annotations

import json
import sys
from math import inf

import trio

from benchmarks.processes import HOST


async def forward(
    source: trio.SocketStream, sink: trio.SocketStream, delay: float, both: trio.CancelScope
) -> None:
    """Pass on what comes, in order, `delay` after it came; so also the end."""
    send, receive = trio.open_memory_channel[tuple[float, bytes]](inf)

    async def later() -> None:
        async for due, data in receive:
            await trio.sleep_until(due)
            await sink.send_all(data)
        await sink.send_eof()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            async with send:
                async for data in source:
                    send.send_nowait((trio.current_time() + delay, bytes(data)))
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        both.cancel()


async def serve(port: int, delay: float) -> None:
    async def connect(near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream(HOST, port)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(forward, near, far, delay, nursery.cancel_scope)
            nursery.start_soon(forward, far, near, delay, nursery.cancel_scope)

    listeners = await trio.open_tcp_listeners(0, host=HOST)
    print(json.dumps({"port": listeners[0].socket.getsockname()[1]}), flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, connect, listeners)
        await trio.lowlevel.wait_readable(sys.stdin)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]), float(sys.argv[2]))
