"""The acceptor's side of one connection: handshake, admission, negotiation, service (PS3.8 §7.1).

Handshake, A-ASSOCIATE-RQ and everything after happen in the connection's own task under ARTIM, so
that one peer cannot hold up another.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import attrs
import trio

from .association import Association
from .client import (
    DEFAULT_AE_TITLE,
    Destination,
    closing,
    open_association,
    own_user_information,
)
from .errors import (
    AssociationClosed,
    AssociationError,
    HandlerError,
    Reject,
    RejectReason,
    RejectResult,
    is_failure,
    leaves,
)
from .handlers import method_of
from .link import Link
from .performance import Environment, OpenSubAssociation
from .protocol.acceptance import answer
from .protocol.errors import ProtocolError
from .protocol.events import AssociateRequested
from .protocol.negotiation import (
    PresentationContext,
)
from .protocol.pdus import AssociateRJ, AssociateRQ
from .protocol.state import State
from .protocol.upper_layer import Role
from .requests import Admission, AssociationRequest
from .settings import ServerSettings, destination_of
from .tls import TLSHandshakeError, handshake
from .transport import peer_address_of

logger = logging.getLogger("dimse_trio")


@attrs.frozen
class ServerStatistics:
    """What a server has done so far, and is doing."""

    associations_open: int
    associations_accepted: int
    associations_rejected: int


class Acceptor:
    """What is done with a connection, wherever it comes from, and how many there have been."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._unassociated: dict[trio.CancelScope, None] = {}
        self._admitted: Counter[str] = Counter()
        self._open = self._accepted = self._rejected = 0

    def statistics(self) -> ServerStatistics:
        return ServerStatistics(self._open, self._accepted, self._rejected)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection from its handshake to its end, which closes it; then what it left to do.

        Whatever goes wrong ends this connection alone.
        """
        try:
            async with trio.open_nursery() as beyond:
                await self._serve_to_its_end(stream, beyond)
        except* Exception as errors:
            logger.error("a task that a handler had started failed", exc_info=errors)

    async def _serve_to_its_end(self, stream: trio.abc.Stream, beyond: trio.Nursery) -> None:
        if len(self._unassociated) >= self._settings.max_unassociated:
            self.drop_unassociated()
        peer = peer_address_of(stream) or "a stream"
        with trio.CancelScope() as newcomer:
            self._unassociated[newcomer] = None
            try:
                await self._serve(stream, newcomer, beyond)
            except AssociationError as error:
                self._log_end(peer, error)
            except BaseException as error:  # the listener outlives whatever one connection does
                if not is_failure(error):
                    raise
                if all(isinstance(leaf, AssociationError) for leaf in leaves(error)):
                    self._log_end(peer, next(leaves(error)))
                else:
                    logger.error("%s: connection failed", peer, exc_info=error)
            finally:
                self._associating(newcomer)
                await trio.aclose_forcefully(stream)

    @staticmethod
    def _log_end(peer: str, error: BaseException) -> None:
        """Say how a connection ended that was not released; louder if DICOM was not spoken."""
        level = logging.WARNING if isinstance(error.__cause__, ProtocolError) else logging.INFO
        logger.log(level, "%s: connection ended: %s", peer, error)

    def drop_unassociated(self) -> None:
        """Close the connection that has waited longest without asking for an association."""
        if self._unassociated:
            longest = next(iter(self._unassociated))
            self._associating(longest)
            longest.cancel()
            logger.info("too many connections: closed one that asked for no association")

    def _associating(self, newcomer: trio.CancelScope) -> None:
        """From here on, the connection is not closed in favour of others."""
        self._unassociated.pop(newcomer, None)

    async def _serve(
        self, stream: trio.abc.Stream, newcomer: trio.CancelScope, beyond: trio.Nursery
    ) -> None:
        settings = self._settings
        connection = await self._handshake(stream)
        if connection is None:
            return
        link = Link(
            connection,
            Role.ACCEPTOR,
            max_pdu_length=settings.max_pdu_length,
            timeouts=settings.timeouts,
            limits=settings.limits,
            quick_ack=settings.quick_ack,
            strict=settings.strict,
            instruments=settings.instruments,
        )
        async with closing(link):
            request = await link.await_request()
            self._associating(newcomer)
            await self._serve_request(link, request, beyond)

    async def _handshake(self, stream: trio.abc.Stream) -> trio.abc.Stream | None:
        """The TLS connection over a stream, if TLS is asked for; `None` if it does not come up."""
        if self._settings.ssl_context is None:
            return stream
        peer = peer_address_of(stream)
        seconds = self._settings.timeouts.connect
        with trio.move_on_after(seconds):
            try:
                return await handshake(stream, self._settings.ssl_context, server_side=True)
            except TLSHandshakeError as error:
                logger.warning("%s: TLS handshake failed: %s", peer, error)
                return None
        logger.warning(
            "%s: TLS handshake was not complete in %g s (Timeouts.connect)", peer, seconds
        )
        return None

    async def _serve_request(self, link: Link, request: AssociateRQ, beyond: trio.Nursery) -> None:
        """The association on a connection, from its request to its end."""
        peer = link.peer_address.rpartition(":")[0]
        try:
            async with AsyncExitStack() as stack:
                self._admit(request, peer)
                self._admitted[peer] += 1
                stack.callback(self._leave, peer)
                admission = Admission()
                admit = method_of(self._settings.handler, "handle_association")
                if admit is not None:
                    # the outermost scope of all that the handler opens, so that it can end it
                    present = stack.enter_context(trio.CancelScope())
                    watching = await stack.enter_async_context(_watch(link, present))
                    asked = AssociationRequest.of(request, link.peer_address, link.peer_certificate)
                    admission = _checked(await stack.enter_async_context(admit(asked)), admission)
                    await watching()
                await self._serve_association(link, request, admission, beyond)
        except BaseException as error:
            # else it was the admission
            if link.state is not State.AWAITING_LOCAL_RESPONSE or not is_failure(error):
                raise
            await self._reject(link, error)
        else:
            if link.state is State.AWAITING_LOCAL_RESPONSE:  # the handler's own scope was cancelled
                await self._reject(link, HandlerError("handle_association was cancelled"))

    async def _reject(self, link: Link, error: BaseException) -> None:
        """Answer A-ASSOCIATE-RJ: as the handler says, or as transient if it has failed."""
        self._rejected += 1
        rejects = [leaf for leaf in leaves(error) if isinstance(leaf, Reject)]
        reject = next(iter(rejects), Reject(RejectReason.NO_REASON_GIVEN, RejectResult.TRANSIENT))
        if not rejects:
            logger.error("%s: handle_association failed", link.peer_address, exc_info=error)
        logger.info("%s: association rejected: %s", link.peer_address, reject)
        source, reason = reject.reason.value
        await link.reject(AssociateRJ(reject.result, source, reason))

    async def _serve_association(
        self, link: Link, request: AssociateRQ, admission: Admission, beyond: trio.Nursery
    ) -> None:
        """Accept what has been admitted, and serve it to its end."""
        settings = self._settings
        identity = request.user_information.user_identity
        said = None
        if identity is not None and identity.response_requested:
            said = admission.user_identity_response
        policy = settings.policy
        if admission.abstract_syntaxes is not None:
            policy = policy.narrowed(admission.abstract_syntaxes)
        await link.accept(
            answer(
                request,
                policy,
                user_information=attrs.evolve(
                    own_user_information(
                        settings.max_pdu_length, implementation=settings.implementation
                    ),
                    user_identity_response=said,
                ),
            ),
            implied_scp=settings.policy.role_scu if settings.lenient_roles else (),
        )
        self._open += 1
        self._accepted += 1
        try:
            environment = self._environment(request, beyond)
            association = Association(link, environment=environment)
            async with association.run():
                await association.wait_over()
            if not isinstance(association.end, AssociationClosed):
                logger.info("%r: ended without release: %s", association, association.end)
        finally:
            self._open -= 1

    def _admit(self, request: AssociateRQ, peer: str) -> None:
        """Refuse what the settings refuse (PS3.8 Table 9-21)."""
        settings = self._settings
        if self._admitted.total() >= settings.max_associations or (
            peer and self._admitted[peer] >= settings.max_associations_per_peer
        ):
            raise Reject(RejectReason.LOCAL_LIMIT_EXCEEDED, RejectResult.TRANSIENT)
        if len(request.contexts) > settings.limits.contexts:
            raise Reject(RejectReason.LOCAL_LIMIT_EXCEEDED)
        called, calling = request.called_ae_title, request.calling_ae_title
        if (
            settings.ae_title is not None
            and not settings.accept_any_called_ae_title
            and not settings.same_title(called, settings.ae_title)
        ):
            raise Reject(RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED)
        known = settings.calling_ae_titles
        if known is not None and not any(settings.same_title(calling, t) for t in known):
            raise Reject(RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED)

    def _leave(self, peer: str) -> None:
        self._admitted[peer] -= 1
        if not self._admitted[peer]:
            del self._admitted[peer]

    def _environment(self, request: AssociateRQ, beyond: trio.Nursery) -> Environment:
        settings = self._settings
        resolve = method_of(settings.handler, "resolve_destination")

        async def resolved(ae_title: str) -> Destination | None:
            if resolve is None:
                same = (p for t, p in settings.peers.items() if settings.same_title(t, ae_title))
                return next(same, None)
            found = await resolve(ae_title)
            return None if found is None else destination_of(found, resolve.__qualname__)

        return Environment(
            handler=settings.handler,
            accept_invalid_uids=settings.accept_invalid_uids,
            resolve_destination=resolved,
            open_sub_association=self._sub_association_opener(
                settings.ae_title or request.called_ae_title or DEFAULT_AE_TITLE
            ),
            on_mismatch=settings.on_mismatch,
            nursery=beyond,
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
                tls_server_name=destination.tls_server_name,
                timeouts=settings.timeouts,
                limits=settings.limits,
                instruments=settings.instruments,
            )

        return open_sub_association


def _checked(admitted: object, default: Admission) -> Admission:
    """What `handle_association` has yielded, if it is something."""
    if admitted is None:
        return default
    if not isinstance(admitted, Admission):
        raise HandlerError(
            f"handle_association yielded {admitted!r}; it yields an Admission(…) or nothing"
        )
    return admitted


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
