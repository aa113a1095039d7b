"""Opening associations: `open_association` over TCP or TLS, `associate_over` any stream."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import attrs
import trio

from .association import Association
from .blocks import block
from .checks import (
    check_address,
    check_implementation,
    check_max_pdu_length,
    check_ssl_context,
    check_user_identity,
    check_window,
    checked_limits,
    checked_roles,
    checked_timeouts,
)
from .config import Limits, Timeouts
from .contexts import default_contexts, refusals
from .errors import (
    AssociationTimeout,
    ConnectionFailed,
    ContextNotAccepted,
    LocalProtocolError,
    leaves,
)
from .link import Link
from .offers import AnyHandler, check_ready, services_of
from .performance import Environment
from .protocol.negotiation import PresentationContext, propose
from .protocol.pdus import (
    AsynchronousOperations,
    Implementation,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from .protocol.upper_layer import Role
from .tls import TLSHandshakeError, handshake
from .version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

if TYPE_CHECKING:
    from .instruments import Instrument

DEFAULT_MAX_PDU_LENGTH = 1 << 17
"""Announced maximum length, in bytes: the most that DCMTK can send, and enough for any speed."""

DEFAULT_AE_TITLE = "DIMSE-TRIO"

OURS = Implementation(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)


@attrs.frozen
class Destination:
    """Where a C-MOVE's sub-operations go.

    `ae_title` is what the destination is called; by default the move destination's title itself.
    `ssl_context` is for TLS, and `tls_server_name` as for `open_association`.

    Raises:
        LocalProtocolError: The host has the port in it, or is none; the port is none; the context
            is none for a client.
    """

    host: str
    port: int = 104
    ae_title: str | None = None
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    tls_server_name: str | None = None

    def __attrs_post_init__(self) -> None:
        check_address(self.host, self.port)
        check_ssl_context(self.ssl_context)


def check_ae_title(title: str) -> str:
    """An AE title that can be sent, without the spaces around it (PS3.5 §6.2, VR AE).

    Raises:
        LocalProtocolError: It is no text, empty, longer than 16 characters, or has others than
            printable ASCII without backslash.
    """
    if not isinstance(cast("object", title), str):
        raise LocalProtocolError(f"an AE title is text, not {type(title).__name__}")
    bare = title.strip(" ")
    if not bare or len(bare) > 16:
        raise LocalProtocolError(f"AE title {title!r} must have 1 to 16 characters")
    if not bare.isascii() or not bare.isprintable() or "\\" in bare:
        raise LocalProtocolError(f"AE title {title!r} may have only printable ASCII, no backslash")
    return bare


def own_user_information(
    max_pdu_length: int,
    *,
    roles: Iterable[RoleSelection] = (),
    async_operations: tuple[int, int] | None = None,
    user_identity: UserIdentity | None = None,
    implementation: Implementation | None = None,
) -> UserInformation:
    """What this side says about itself when it negotiates.

    Raises:
        LocalProtocolError: Something of it cannot be.
    """
    check_user_identity(user_identity)
    check_window(async_operations)
    check_max_pdu_length(max_pdu_length)
    check_implementation(implementation)
    implementation = implementation or OURS
    window = None
    if async_operations is not None:
        window = AsynchronousOperations(*async_operations)
    return UserInformation(
        maximum_length=max_pdu_length,
        implementation_class_uid=implementation.class_uid,
        implementation_version_name=implementation.version_name,
        asynchronous_operations=window,
        roles=checked_roles(roles),
        user_identity=user_identity,
    )


@asynccontextmanager
async def closing(link: Link) -> AsyncGenerator[Link]:
    """The link, whose connection is closed at the end whatever happens."""
    try:
        yield link
    finally:
        with trio.CancelScope(shield=True):
            await link.aclose()
            if link.observer is not None:
                link.observer.closed(link.failure)


@block("open_association(…) as association")
async def open_association(
    host: str,
    port: int = 104,
    *,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = DEFAULT_AE_TITLE,
    contexts: Iterable[PresentationContext] | None = None,
    roles: Iterable[RoleSelection] = (),
    ssl_context: ssl.SSLContext | None = None,
    tls_server_name: str | None = None,
    user_identity: UserIdentity | None = None,
    implementation: Implementation | None = None,
    async_operations: tuple[int, int] | None = None,
    max_pdu_length: int = DEFAULT_MAX_PDU_LENGTH,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    quick_ack: bool = True,
    handler: AnyHandler | None = None,
    strict: bool = False,
    instruments: Iterable[Instrument] = (),
) -> AsyncGenerator[Association]:
    """Connect to a peer and open an association with it (PS3.8 §7.1).

    Leaving the block waits for the association's children and releases it; cancellation and
    exceptions abort it. Either is bounded in time, and the connection is closed afterwards.

    Args:
        host: Name or address of the peer, without the port.
        port: Its port.
        called_ae_title: The peer's AE title, 1 to 16 characters.
        calling_ae_title: Ours.
        contexts: What to propose; by default `default_contexts()`. See `contexts_for`.
        roles: Role selection beside that of `contexts` (PS3.7 §D.3.3.4).
        ssl_context: For TLS; see `tls_profile`. The certificate is checked against `host`.
        tls_server_name: The name to ask for by SNI and to check the certificate against, where that
            is another than `host`.
        user_identity: A user identity to present (PS3.7 §D.3.3.7).
        implementation: How we name our implementation; by default as this package.
        async_operations: The window to propose, operations invoked and performed, 0 without limit;
            not proposed by default, as some peers drop the connection at its sight.
        max_pdu_length: The longest P-DATA-TF that the peer may send, in bytes; 0 without limit.
        timeouts: How long the library itself waits.
        limits: How much of the peer's data is held.
        quick_ack: Acknowledge at once what is received, where the system can (Linux): many peers
            write in small pieces and wait for that, 40 ms at a time.
        handler: Performs what the peer requests on this association.
        strict: Abort where the peer breaks the protocol in a way that is otherwise put up with and
            logged: longer PDUs than announced, empty ones, responses to no request.
        instruments: Told what happens; see `Instrument`.

    Raises:
        ConnectionFailed: The name was not found, nobody answered, or TLS failed.
        AssociationRejected: The peer does not want the association.
        ContextNotAccepted: The peer accepts none of the contexts.
        AssociationTimeout: Connecting or the answer took too long.
        AssociationAborted: The peer aborted or broke the protocol, or the connection was lost; out
            of the block too, if that happened while its body did something else.
        LocalProtocolError: An argument cannot be.
    """
    check_address(host, port)
    timeouts = checked_timeouts(timeouts)
    checked_limits(limits)
    check_user_identity(user_identity)
    check_ssl_context(ssl_context)
    check_window(async_operations)
    check_max_pdu_length(max_pdu_length)
    check_implementation(implementation)
    roles = checked_roles(roles)
    for title in (called_ae_title, calling_ae_title):
        check_ae_title(title)  # before anything is opened
    instruments = _checked_instruments(instruments)
    stream = await connect(
        host,
        port,
        ssl_context=ssl_context,
        tls_server_name=tls_server_name,
        timeouts=timeouts,
    )
    async with associate_over(
        stream,
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        contexts=contexts,
        roles=roles,
        user_identity=user_identity,
        implementation=implementation,
        async_operations=async_operations,
        max_pdu_length=max_pdu_length,
        timeouts=timeouts,
        limits=limits,
        quick_ack=quick_ack,
        handler=handler,
        strict=strict,
        instruments=instruments,
    ) as association:
        yield association


@block("associate_over(…) as association")
async def associate_over(
    stream: trio.abc.Stream,
    *,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = DEFAULT_AE_TITLE,
    contexts: Iterable[PresentationContext] | None = None,
    roles: Iterable[RoleSelection] = (),
    user_identity: UserIdentity | None = None,
    implementation: Implementation | None = None,
    async_operations: tuple[int, int] | None = None,
    max_pdu_length: int = DEFAULT_MAX_PDU_LENGTH,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    quick_ack: bool = True,
    handler: AnyHandler | None = None,
    strict: bool = False,
    instruments: Iterable[Instrument] = (),
) -> AsyncGenerator[Association]:
    """`open_association` over any byte stream: memory streams, a proxy, an SSH tunnel.

    The stream is closed at the end, and also if no association comes about.
    """
    try:
        timeouts, limits = checked_timeouts(timeouts), checked_limits(limits)
        check_max_pdu_length(max_pdu_length)
        instruments = _checked_instruments(instruments)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    link = Link(
        stream,
        Role.REQUESTOR,
        max_pdu_length=max_pdu_length,
        timeouts=timeouts,
        limits=limits,
        quick_ack=quick_ack,
        strict=strict,
        instruments=instruments,
    )
    async with closing(link):
        if handler is not None:
            services_of(handler)
            check_ready(handler)
        request = propose(
            default_contexts() if contexts is None else contexts,
            called_ae_title=check_ae_title(called_ae_title),
            calling_ae_title=check_ae_title(calling_ae_title),
            user_information=own_user_information(
                max_pdu_length,
                roles=roles,
                async_operations=async_operations,
                user_identity=user_identity,
                implementation=implementation,
            ),
        )
        try:
            negotiated = await link.associate(request)
            if not negotiated.accepted:
                raise ContextNotAccepted(
                    "the peer accepted none of the presentation contexts:"
                    f" {refusals(negotiated.refused)}; check that the peer offers these services"
                    " to our AE title",
                    negotiated=negotiated,
                )
        except BaseException:
            await link.abort()
            raise
        association = Association(link, environment=Environment(handler))
        async with association.run():
            yield association


def _checked_instruments(instruments: Iterable[Instrument]) -> tuple[Instrument, ...]:
    """Those that there are; without any, nothing of them is imported."""
    if not instruments:
        return ()
    from .instruments import checked_instruments

    return checked_instruments(instruments)


async def connect(
    host: str,
    port: int = 104,
    *,
    ssl_context: ssl.SSLContext | None = None,
    tls_server_name: str | None = None,
    timeouts: Timeouts | None = None,
) -> trio.abc.Stream:
    """A transport connection for `associate_over`: what `open_association` begins with.

    It is for who wants to look at the connection itself: with TLS it is a `trio.SSLStream`, which
    has the version, the cipher and the peer's certificate. Cancelled, it leaves nothing open.

    Args:
        host: As for `open_association`, like all of them.
        port: The peer's port.
        ssl_context: For TLS.
        tls_server_name: The name in the peer's certificate, where that is another than `host`.
        timeouts: Of these, `connect`.

    Raises:
        ConnectionFailed: The name was not found, nobody answered, or TLS failed.
        AssociationTimeout: It took too long.
        LocalProtocolError: An argument cannot be.
    """
    check_address(host, port)
    timeouts = checked_timeouts(timeouts)
    late = "check the address, and that no firewall is between"
    with trio.move_on_after(timeouts.connect):
        try:
            stream = await trio.open_tcp_stream(host, port)
        except UnicodeError as error:
            raise ConnectionFailed(
                f"no connection to {host}:{port}: no such name; {_advice([error])}"
            ) from error
        except OSError as error:
            # trio says that all attempts failed, and in the causes "Error connecting to …: why"
            causes = list(leaves(error.__cause__ or error))
            said = (getattr(leaf, "strerror", None) for leaf in causes)
            reasons = dict.fromkeys(text.rpartition(": ")[2] for text in said if text)
            reason = ", ".join(reasons) or str(error)
            raise ConnectionFailed(
                f"no connection to {host}:{port}: {reason}; {_advice(causes)}"
            ) from error
        if ssl_context is None:
            return stream
        late = "the peer has not answered the TLS handshake; does its port speak TLS?"
        try:
            return await handshake(stream, ssl_context, server_hostname=tls_server_name or host)
        except TLSHandshakeError as error:
            await trio.aclose_forcefully(stream)
            raise ConnectionFailed(f"no TLS connection to {host}:{port}: {error}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    raise AssociationTimeout(
        f"no connection to {host}:{port} in {timeouts.connect:g} s (Timeouts.connect); {late}"
    )


def _advice(causes: list[BaseException]) -> str:
    """What to try when no address of a host could be connected to."""
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "check that the peer is running and that the port is right"
    if any(isinstance(cause, socket.gaierror | UnicodeError) for cause in causes):
        return "check how the host is spelt"
    return "check the address, and that no firewall is between"
