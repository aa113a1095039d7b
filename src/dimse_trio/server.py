"""Listeners: `serve` until cancelled, `open_server` for a block, `serve_stream` for one stream."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Unpack, final

import trio

from .acceptor import Acceptor, ServerStatistics
from .blocks import block
from .checks import check_grace, check_host, check_port
from .errors import leaves
from .offers import AnyHandler
from .settings import ServerOptions, ServerSettings, settings_of

logger = logging.getLogger("dimse_trio")

EXHAUSTION = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What accepting a connection fails with while the system has no room for it."""
EXHAUSTION_PAUSE = 0.1
"""Seconds before it is tried again."""
EXHAUSTION_SILENCE = 60.0
"""Seconds without exhaustion after which the log says it again."""


@final
class Server:
    """A listener and its associations. Made by `open_server`."""

    def __init__(self, settings: ServerSettings, listeners: list[trio.SocketListener]) -> None:
        self._acceptor = Acceptor(settings)
        self._listeners = listeners
        self._port: int = listeners[0].socket.getsockname()[1]
        self._accepting = trio.CancelScope()
        self._connections: trio.CancelScope | None = None
        self._stopped = trio.Event()

    @property
    def port(self) -> int:
        """The port that it listens on: the one asked for, or the one that port 0 became."""
        return self._port

    def statistics(self) -> ServerStatistics:
        """Counts of associations, now and since the start."""
        return self._acceptor.statistics()

    async def stop(self, grace: float = 0) -> None:
        """Accept no more, let running associations end within `grace` seconds, abort the rest.

        Cancelled while it waits, it leaves a server that accepts no more.
        """
        check_grace(grace)
        self._accepting.cancel()
        with trio.move_on_after(max(grace, 0)):
            await self._stopped.wait()
        if self._connections is not None:
            self._connections.cancel()
        await self._stopped.wait()

    async def wait_stopped(self) -> None:
        """Wait until `stop` has been called and the last association has ended."""
        await self._stopped.wait()

    async def run(self) -> None:
        """Accept connections until cancelled or stopped, then wait for the last one."""
        try:
            async with trio.open_nursery() as connections:
                self._connections = connections.cancel_scope
                with self._accepting:
                    async with trio.open_nursery() as listening:
                        for listener in self._listeners:
                            listening.start_soon(self._accept, listener, connections)
        finally:
            self._stopped.set()

    async def _accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        """Accept connections, and fewer while the system has no descriptor or memory for them."""
        silent_until = -inf
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in EXHAUSTION:
                        raise
                    if trio.current_time() >= silent_until:
                        logger.error("cannot accept connections: %s; trying again", error)
                    silent_until = trio.current_time() + EXHAUSTION_SILENCE
                    self._acceptor.drop_unassociated()
                    await trio.sleep(EXHAUSTION_PAUSE)
                else:
                    connections.start_soon(self._acceptor.serve, stream)


@block("open_server(…) as server")
async def open_server(
    handler: AnyHandler,
    port: int = 0,
    *,
    host: str | None = "127.0.0.1",
    **options: Unpack[ServerOptions],
) -> AsyncGenerator[Server]:
    """Listen for associations and perform what they ask for with `handler`, inside a block.

    Leaving the block aborts what is still running; `await server.stop(grace)` lets it end first.

    Args:
        handler: An object with `handle_*` methods; those that it has decide what is accepted.
        port: The port to listen on; 0 for a free one, see `Server.port`.
        host: The address to listen on; `None` for all of this machine's.
        options: What is accepted, from whom, and how much of it: `ServerOptions`.

    Raises:
        OSError: The port is taken, or not ours to take; it says which, and what to try.
        HandlerError: A handler's method does not have its protocol's signature.
        LocalProtocolError: An argument cannot be.
    """
    settings = settings_of(handler, options)
    server = Server(settings, await open_listeners(port, host))
    async with alongside(server.run):
        yield server


@asynccontextmanager
async def alongside(run: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    """Run a task for as long as a block takes; what the block raises is in no group."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            yield
        except BaseException as error:  # raised again below, not wrapped in a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise next(leaves(failure)) if _is_lone_cancelled(failure) else failure


async def open_listeners(
    port: int, host: str | None, *, prefix: str = ""
) -> list[trio.SocketListener]:
    """Listeners on one port at every address of the host; errors name both with the prefix."""
    check_port(port, name=f"{prefix}port", least=0)
    if host is not None:
        check_host(host, name=f"{prefix}host")
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
        if port == 0 and len(listeners) > 1:  # every address has got a port of its own
            port = listeners[0].socket.getsockname()[1]
            for listener in listeners:
                await listener.aclose()
            listeners = await trio.open_tcp_listeners(port, host=host)
    except (OSError, UnicodeError) as error:
        where = f"port {port}" if host is None else f"{host}, port {port}"
        if isinstance(error, UnicodeError):  # a label of the name is empty or too long
            error = socket.gaierror(socket.EAI_NONAME, "no such name")
        reason = f"cannot listen on {where}: {error.strerror or error}; {_advice(error)}"
        kind = socket.gaierror if isinstance(error, socket.gaierror) else OSError
        raise kind(error.errno, reason) from error
    return list(listeners)


def _advice(error: OSError) -> str:
    """What to try where a port cannot be listened on."""
    if isinstance(error, socket.gaierror):
        return "check how the host is spelt; None is for all addresses of this machine"
    return _LISTENING.get(error.errno or 0, "try another port")


_LISTENING = {
    errno.EADDRINUSE: "something listens there already: stop it, or take another port",
    errno.EACCES: "take a port from 1024 on, or have the system permit this one",
    errno.EADDRNOTAVAIL: "the host must be an address of this machine, or None for all of them",
}


def _is_lone_cancelled(error: BaseException) -> bool:
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


async def serve(
    handler: AnyHandler,
    port: int = 104,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    host: str | None = "127.0.0.1",
    **options: Unpack[ServerOptions],
) -> None:
    """Listen and serve until cancelled; then A-ABORT to every association.

    As `trio.serve_tcp`: `server = await nursery.start(serve, handler, port)` gives the `Server`
    once it listens.

    Args:
        handler: As for `open_server`.
        port: As for `open_server`.
        task_status: Told the `Server`.
        host: As for `open_server`.
        options: As for `open_server`.

    Raises:
        OSError, HandlerError, LocalProtocolError: As `open_server`.
    """
    async with open_server(handler, port, host=host, **options) as server:
        task_status.started(server)
        await server.wait_stopped()


async def serve_stream(
    handler: AnyHandler,
    stream: trio.abc.Stream,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerOptions],
) -> None:
    """Accept an association over any byte stream, and serve it to its end.

    The counterpart of `associate_over`. The stream is closed at the end. That an association is
    rejected, aborted or broken is logged, as by `serve`; cancelled, it is aborted.

    Args:
        handler: As for `open_server`.
        stream: The connection.
        task_status: Told when handler and options have been checked.
        options: As for `open_server`.

    Raises:
        HandlerError, LocalProtocolError: As `open_server`.
    """
    try:
        acceptor = Acceptor(settings_of(handler, options))
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    task_status.started()
    await acceptor.serve(stream)
