"""The acceptor: listeners, admission, and one task per association (PS3.8 §7.1).

Handshake, A-ASSOCIATE-RQ and everything after happen in the connection's own task under ARTIM, so
that one peer cannot hold up another.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, final

import attrs
import trio

from .association import Association
from .client import (
    DEFAULT_AE_TITLE,
    DEFAULT_MAX_PDU_LENGTH,
    Destination,
    check_ae_title,
    open_association,
    own_user_information,
    tls_failure,
)
from .config import Limits, Timeouts
from .contexts import acceptance_policy
from .errors import AssociationClosed, AssociationError, Reject, RejectReason, RejectResult, leaves
from .handlers import method_of, services_of
from .link import Link, closing
from .performance import Environment, OpenSubAssociation
from .protocol.negotiation import Policy, PresentationContext, answer
from .protocol.pdus import AssociateRJ, AssociateRQ
from .protocol.upper_layer import Role
from .requests import AssociationRequest

logger = logging.getLogger("dimse_trio")

PeerMap = Mapping[str, Destination | tuple[str, int]]


@attrs.frozen
class ServerStatistics:
    """What a server has done so far, and is doing."""

    associations_open: int
    associations_accepted: int
    associations_rejected: int


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Everything `serve` was told, checked."""

    handler: object
    ae_title: str | None
    accept_any_called_ae_title: bool
    ignore_ae_title_case: bool
    policy: Policy
    ssl_context: ssl.SSLContext | None
    peers: Mapping[str, Destination]
    max_associations: int
    max_pdu_length: int
    accept_invalid_uids: bool
    lenient_roles: bool
    strict: bool
    timeouts: Timeouts
    limits: Limits

    def same_title(self, one: str, other: str) -> bool:
        """Whether two AE titles, without their padding, are the same one."""
        return one == other or (self.ignore_ae_title_case and one.upper() == other.upper())


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
        with trio.move_on_after(grace):
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


class Acceptor:
    """What is done with a connection, wherever it comes from, and how many there have been."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._admitted = self._open = self._accepted = self._rejected = 0

    def statistics(self) -> ServerStatistics:
        return ServerStatistics(self._open, self._accepted, self._rejected)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection from its handshake to its end. Whatever goes wrong ends it alone."""
        settings = self._settings
        try:
            connection = await self._handshake(stream)
            if connection is None:
                return
            link = Link(
                connection,
                Role.ACCEPTOR,
                max_pdu_length=settings.max_pdu_length,
                timeouts=settings.timeouts,
                strict=settings.strict,
            )
            async with closing(link):
                await self._serve_link(link)
        except AssociationError as error:
            logger.info("connection ended: %s", error)
        except Exception as error:  # the listener outlives whatever one connection does
            logger.error("connection failed", exc_info=error)

    async def _handshake(self, stream: trio.abc.Stream) -> trio.abc.Stream | None:
        """The TLS connection over a stream, if TLS is asked for; `None` if it does not come up."""
        if self._settings.ssl_context is None:
            return stream
        tls = trio.SSLStream(
            stream, self._settings.ssl_context, server_side=True, https_compatible=True
        )
        with trio.move_on_after(self._settings.timeouts.connect) as scope:
            try:
                await tls.do_handshake()
            except (trio.BrokenResourceError, ssl.SSLError) as error:
                logger.warning("TLS handshake failed: %s", tls_failure(error))
                return None
        if scope.cancelled_caught:
            logger.warning("TLS handshake was not complete in time")
            return None
        return tls

    async def _serve_link(self, link: Link) -> None:
        """The association on a connection, from its request to its end."""
        settings = self._settings
        request = await link.await_request()
        async with AsyncExitStack() as stack:
            try:
                self._admit(request)
                self._admitted += 1
                stack.callback(self._leave)
                admit = method_of(settings.handler, "handle_association")
                if admit is not None:
                    await stack.enter_async_context(
                        admit(AssociationRequest.of(request, link.peer_address))
                    )
            except Reject as reject:
                self._rejected += 1
                logger.info("%s: association rejected: %s", link.peer_address, reject)
                source, reason = reject.reason.value
                await link.reject(AssociateRJ(reject.result, source, reason))
                return
            await link.accept(
                answer(
                    request,
                    settings.policy,
                    user_information=own_user_information(settings.max_pdu_length),
                ),
                implied_scp=settings.policy.role_scu if settings.lenient_roles else (),
            )
            self._open += 1
            self._accepted += 1
            try:
                environment = self._environment(request)
                association = Association(link, environment=environment, limits=settings.limits)
                async with association.run():
                    await association.wait_over()
                if not isinstance(association.end, AssociationClosed):
                    logger.info("%r: ended without release: %s", association, association.end)
            finally:
                self._open -= 1

    def _admit(self, request: AssociateRQ) -> None:
        """Refuse what the settings refuse (PS3.8 Table 9-21)."""
        settings = self._settings
        if self._admitted >= settings.max_associations:
            raise Reject(RejectReason.LOCAL_LIMIT_EXCEEDED, RejectResult.TRANSIENT)
        if settings.ae_title is None or settings.accept_any_called_ae_title:
            return
        if not settings.same_title(request.called_ae_title, settings.ae_title):
            raise Reject(RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED)

    def _leave(self) -> None:
        self._admitted -= 1

    def _environment(self, request: AssociateRQ) -> Environment:
        settings = self._settings
        resolve = method_of(settings.handler, "resolve_destination")

        async def from_peers(ae_title: str) -> Destination | None:
            same = (p for t, p in settings.peers.items() if settings.same_title(t, ae_title))
            return next(same, None)

        return Environment(
            handler=settings.handler,
            accept_invalid_uids=settings.accept_invalid_uids,
            resolve_destination=resolve or from_peers,
            open_sub_association=self._sub_association_opener(
                settings.ae_title or request.called_ae_title or DEFAULT_AE_TITLE
            ),
        )

    def _sub_association_opener(self, calling_ae_title: str) -> OpenSubAssociation:
        settings = self._settings

        def open_sub_association(
            destination: Destination, ae_title: str, contexts: list[PresentationContext]
        ) -> AbstractAsyncContextManager[Association]:
            return open_association(
                destination.host,
                destination.port,
                called_ae_title=destination.ae_title or ae_title,
                calling_ae_title=calling_ae_title,
                contexts=contexts,
                ssl_context=destination.ssl_context,
                timeouts=settings.timeouts,
                limits=settings.limits,
            )

        return open_sub_association


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
    settings = _settings(
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
        acceptor = Acceptor(_settings(handler, **options))
        task_status.started()
        await acceptor.serve(stream)
    finally:
        await trio.aclose_forcefully(stream)


def _settings(
    handler: object,
    *,
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
) -> ServerSettings:
    """The options of `open_server`, checked."""
    own_user_information(max_pdu_length)  # refuses what cannot be announced
    return ServerSettings(
        handler=handler,
        ae_title=None if ae_title is None else check_ae_title(ae_title),
        accept_any_called_ae_title=accept_any_called_ae_title,
        ignore_ae_title_case=ignore_ae_title_case,
        policy=acceptance_policy(
            services_of(handler), contexts, unknown_storage=accept_unknown_storage
        ),
        ssl_context=ssl_context,
        peers={
            check_ae_title(title): peer if isinstance(peer, Destination) else Destination(*peer)
            for title, peer in (peers or {}).items()
        },
        max_associations=max_associations,
        max_pdu_length=max_pdu_length,
        accept_invalid_uids=accept_invalid_uids,
        lenient_roles=lenient_roles,
        strict=strict,
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
    )
