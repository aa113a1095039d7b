"""Listeners: `serve` until cancelled, `open_server` for a block, `serve_stream` for one stream."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, final

import trio

from .acceptor import Acceptor, PeerMap, ServerSettings, ServerStatistics, settings_for
from .client import DEFAULT_MAX_PDU_LENGTH
from .config import Limits, Timeouts
from .errors import leaves
from .protocol.negotiation import PresentationContext


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
                    await trio.serve_listeners(
                        self._acceptor.serve, self._listeners, handler_nursery=connections
                    )
        finally:
            self._stopped.set()


@asynccontextmanager
async def open_server(
    handler: object,
    port: int = 0,
    *,
    host: str | None = "127.0.0.1",
    ae_title: str | None = None,
    accept_any_called_ae_title: bool = False,
    ignore_ae_title_case: bool = False,
    contexts: Iterable[PresentationContext] | None = None,
    accept_unknown_storage: bool = False,
    accept_invalid_uids: bool = False,
    lenient_roles: bool = False,
    strict: bool = False,
    ssl_context: ssl.SSLContext | None = None,
    peers: PeerMap | None = None,
    max_associations: int = 200,
    max_pdu_length: int = DEFAULT_MAX_PDU_LENGTH,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
) -> AsyncGenerator[Server]:
    """Listen for associations and perform what they ask for with `handler`, inside a block.

    Leaving the block aborts what is still running; `await server.stop(grace)` lets it end first.

    Args:
        handler: An object with `handle_*` methods; those that it has decide what is accepted.
        port: The port to listen on; 0 for a free one, see `Server.port`.
        host: The address to listen on; `None` for all of this machine's.
        ae_title: Our AE title. An association that calls another is rejected; `None` takes all.
        accept_any_called_ae_title: Take all, though there is an `ae_title`.
        ignore_ae_title_case: Compare AE titles, move destinations too, whatever their case.
        contexts: What is accepted, in place of every SOP class of the handler's services in every
            transfer syntax that fits.
        accept_unknown_storage: Take SOP classes that are in no table as storage classes.
        accept_invalid_uids: Let SOP Instance UIDs that are none reach the handler's `handle_store`.
        lenient_roles: Send the instances of a C-GET also to requestors that have not asked for the
            SCP role by role selection.
        strict: As for `open_association`.
        ssl_context: For TLS.
        peers: AE title to `Destination` or `(host, port)`: where a C-MOVE may go. A handler with
            `resolve_destination` is asked instead.
        max_associations: Beyond these, an association is rejected as transient, local limit
            exceeded. 200: enough for a department, and for its memory.
        max_pdu_length: The longest P-DATA-TF that peers may send, in bytes; 0 without limit.
        timeouts: How long the library itself waits.
        limits: How much of the peers' data is held.

    Raises:
        OSError: The port is taken, or not ours to take.
        HandlerError: A handler's method does not have its protocol's signature.
        LocalProtocolError: An argument cannot be.
    """
    settings = settings_for(
        handler,
        ae_title=ae_title,
        accept_any_called_ae_title=accept_any_called_ae_title,
        ignore_ae_title_case=ignore_ae_title_case,
        contexts=contexts,
        accept_unknown_storage=accept_unknown_storage,
        accept_invalid_uids=accept_invalid_uids,
        lenient_roles=lenient_roles,
        strict=strict,
        ssl_context=ssl_context,
        peers=peers,
        max_associations=max_associations,
        max_pdu_length=max_pdu_length,
        timeouts=timeouts,
        limits=limits,
    )
    listeners = await trio.open_tcp_listeners(port, host=host)
    server = Server(settings, list(listeners))
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        try:
            yield server
        except BaseException as error:  # raised again below, not wrapped in a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise next(leaves(failure)) if _is_lone_cancelled(failure) else failure


def _is_lone_cancelled(error: BaseException) -> bool:
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


async def serve(
    handler: object,
    port: int = 104,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Listen and serve until cancelled; then A-ABORT to every association.

    As `trio.serve_tcp`: `server = await nursery.start(serve, handler, port)` gives the `Server`
    once it listens.

    Args:
        handler: As for `open_server`.
        port: As for `open_server`.
        task_status: Told the `Server`.
        options: Everything else that `open_server` takes.

    Raises:
        OSError, HandlerError, LocalProtocolError: As `open_server`.
    """
    async with open_server(handler, port, **options) as server:
        task_status.started(server)
        await server.wait_stopped()


async def serve_stream(
    handler: object,
    stream: trio.abc.Stream,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Accept an association over any byte stream, and serve it to its end.

    The counterpart of `associate_over`. The stream is closed at the end. That an association is
    rejected, aborted or broken is logged, as by `serve`; cancelled, it is aborted.

    Args:
        handler: As for `open_server`.
        stream: The connection.
        task_status: Told when handler and options have been checked.
        options: What `open_server` takes, beside `host` and `port`.

    Raises:
        HandlerError, LocalProtocolError: As `open_server`.
    """
    try:
        acceptor = Acceptor(settings_for(handler, **options))
        task_status.started()
        await acceptor.serve(stream)
    finally:
        await trio.aclose_forcefully(stream)
