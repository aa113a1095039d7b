"""What to change when a peer cannot be associated with, in terms of the command line."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import attrs
import trio

import dimse_trio as dimse

from .errors import leaves
from .options import Client

SECOND_LOOK = 5.0
"""Seconds for what is tried only to say why something else has failed."""

_REJECTED: dict[dimse.RejectReason, str] = {
    dimse.RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED: (
        "--aec TITLE: give the AE title from the peer's own configuration, letter for letter; it is"
        " not {called!r}"
    ),
    dimse.RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED: (
        "--aet TITLE: call with an AE title that the peer knows, or have {calling!r} and this"
        " machine's address added to its list of peers"
    ),
    dimse.RejectReason.NO_REASON_GIVEN: (
        "the peer gives no reason: AE titles (--aec, --aet) or this machine's address may be"
        " unknown to it, or it wants a --user; its log should say"
    ),
    dimse.RejectReason.PROVIDER_NO_REASON_GIVEN: (
        "the peer gives no reason, and that is how one refuses who asks: it may want a --user, or"
        " another; its log should say"
    ),
    dimse.RejectReason.TEMPORARY_CONGESTION: "the peer is busy: try again later",
    dimse.RejectReason.LOCAL_LIMIT_EXCEEDED: (
        "the peer has as many associations as it takes: try again later, and have its limit raised"
    ),
    dimse.RejectReason.APPLICATION_CONTEXT_NOT_SUPPORTED: (
        "the peer does not take the application context of DICOM: is it a DICOM application?"
    ),
    dimse.RejectReason.PROTOCOL_VERSION_NOT_SUPPORTED: (
        "the peer does not speak this version of the upper layer: is it a DICOM application?"
    ),
}

_NO_LISTENER = (
    "nothing listens at {host}:{port}: check that the peer's listener runs, that it listens on this"
    " address and not on its own localhost alone, and the port (often 104, 11112, 4242; 2762 for"
    " TLS)"
)
_UNTRUSTED = (
    "--tls-ca FILE: give the CA of the peer's certificate; --tls-server-name NAME: the name in it,"
    " if that is another than {host}"
)
_HANDSHAKE = (
    "TLS cannot be agreed on: the peer may want other versions or ciphers (--tls-profile), or a"
    " certificate of this side that it trusts (--tls-cert FILE, --tls-key FILE)"
)
_UNREACHABLE = "{host}:{port} cannot be reached: check the address, routes and firewalls"
_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, _NO_LISTENER),
    (socket.gaierror, "the name {host} is not known here: check it, or give an address"),
    (ssl.SSLCertVerificationError, _UNTRUSTED),
    (ssl.SSLError, _HANDSHAKE),
    (trio.BrokenResourceError, _HANDSHAKE),
    (OSError, _UNREACHABLE),
)
"""By what is behind an error: the first row of which there is one."""

_PLAIN = "the port speaks DICOM without TLS: leave the TLS options out"
_TLS = "the port speaks TLS: give --tls, and --tls-ca for a CA that this machine does not know"
_MUTUAL = (
    "--tls-cert FILE --tls-key FILE: the peer may demand a certificate of this side that it trusts"
)
_SILENT = (
    "{host}:{port} takes connections and does not answer as a DICOM application: check the port,"
    " and whether the peer hangs"
)
_BROKE_OFF = (
    "the peer broke off: it may not be a DICOM application, or drop callers that it does not know"
    " (--aet, this machine's address); its log should say"
)


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """All that has led to an error."""
    while error is not None and (error := error.__cause__) is not None:
        for leaf in leaves(error):
            yield leaf
            if leaf is not error:
                yield from _behind(leaf)


async def advise(error: dimse.AssociationError, client: Client, *, connected: bool) -> str | None:
    """What to try after an association has failed, having looked a second time where that tells.

    Args:
        error: How.
        client: With whom.
        connected: Whether there had been a connection, with TLS where that is used.
    """
    hint = await (_after_connecting if connected else _before_connecting)(error, client)
    return hint and hint.format(
        host=client.peer.host,
        port=client.peer.port,
        called=client.called_ae_title,
        calling=client.calling_ae_title,
    )


async def _before_connecting(error: dimse.AssociationError, client: Client) -> str | None:
    causes = list(_behind(error))
    known = (hint for kind, hint in _CAUSES if any(isinstance(cause, kind) for cause in causes))
    hint = next(known, _UNREACHABLE)  # after a time-out there is no cause
    in_handshake = hint is _HANDSHAKE or isinstance(error, dimse.AssociationTimeout)
    if in_handshake and client.ssl_context is not None and await speaks_plainly(client):
        return _PLAIN
    return hint


async def _after_connecting(error: dimse.AssociationError, client: Client) -> str | None:
    if isinstance(error, dimse.AssociationRejected):
        return next((hint for why, hint in _REJECTED.items() if why is error.reason), None)
    if client.ssl_context is None and await look_at_tls(client) is not None:
        return _TLS
    if isinstance(error, dimse.ConnectionFailed):
        return _MUTUAL  # with TLS 1.3 that shows only after the handshake
    return _SILENT if isinstance(error, dimse.AssociationTimeout) else _BROKE_OFF


def _hurried(client: Client) -> dimse.Timeouts:
    soon = min(SECOND_LOOK, client.timeouts.connect)
    return attrs.evolve(client.timeouts, connect=soon, associate=SECOND_LOOK)


async def look_at_tls(client: Client) -> trio.abc.Stream | None:
    """A TLS connection that trusts whoever answers, closed already; `None` if nobody does."""
    unverified = dimse.tls_profile("bcp195", verify=False)
    try:
        stream = await dimse.connect(
            client.peer.host,
            client.peer.port,
            ssl_context=unverified,
            timeouts=_hurried(client),
        )
    except dimse.AssociationError:
        return None
    await trio.aclose_forcefully(stream)
    return stream


async def speaks_plainly(client: Client) -> bool:
    """Whether the peer answers an association without TLS, in whatever way."""
    timeouts = _hurried(client)
    try:
        stream = await dimse.connect(client.peer.host, client.peer.port, timeouts=timeouts)
        async with dimse.associate_over(
            stream,
            called_ae_title=client.called_ae_title,
            calling_ae_title=client.calling_ae_title,
            contexts=[dimse.PresentationContext(dimse.uid_of("Verification"))],
            timeouts=timeouts,
        ):
            return True
    except (dimse.AssociationRejected, dimse.ContextNotAccepted):
        return True
    except dimse.DimseError:
        return False
