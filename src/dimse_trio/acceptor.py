"""The acceptor's side of one connection: handshake, admission, negotiation, service (PS3.8 §7.1).

Handshake, A-ASSOCIATE-RQ and everything after happen in the connection's own task under ARTIM, so
that one peer cannot hold up another.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

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
from .errors import AssociationClosed, AssociationError, Reject, RejectReason, RejectResult
from .handlers import method_of, services_of
from .link import Link, closing
from .performance import Environment, OpenSubAssociation
from .protocol.events import AssociateRequested
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
        request = await link.await_request()
        try:
            async with AsyncExitStack() as stack:
                self._admit(request)
                self._admitted += 1
                stack.callback(self._leave)
                admit = method_of(self._settings.handler, "handle_association")
                if admit is not None:
                    # the outermost scope of all that the handler opens, so that it can end it
                    present = stack.enter_context(trio.CancelScope())
                    watching = await stack.enter_async_context(_watch(link, present))
                    asked = AssociationRequest.of(request, link.peer_address)
                    await stack.enter_async_context(admit(asked))
                    await watching()
                await self._serve_association(link, request)
        except Reject as reject:
            self._rejected += 1
            logger.info("%s: association rejected: %s", link.peer_address, reject)
            source, reason = reject.reason.value
            await link.reject(AssociateRJ(reject.result, source, reason))

    async def _serve_association(self, link: Link, request: AssociateRQ) -> None:
        """Accept what has been admitted, and serve it to its end."""
        settings = self._settings
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
async def _watch(
    link: Link, present: trio.CancelScope
) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """While an association is being admitted, cancel `present` if the peer goes.

    Yields what ends the watch, so that the association can receive.
    """
    ended = trio.Event()
    with_peer = trio.CancelScope()

    async def watch() -> None:
        gone = False
        with with_peer:
            gone = not isinstance(await link.next_event(), AssociateRequested)
        ended.set()
        if gone:
            present.cancel()

    async def end() -> None:
        with_peer.cancel()
        await ended.wait()

    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            yield end
        except BaseException as error:  # raised again below, not wrapped in a group
            failure = error
        with_peer.cancel()
    if failure is not None:
        raise failure


def settings_for(
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
