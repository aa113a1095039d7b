"""TLS: the secure transport connection profiles by name, handshakes, and what their failures mean.

A profile is a plain `ssl.SSLContext` (PS3.15 Annex B). The handshake is trio's, except that what
TLS says of a failed one reaches the peer, which otherwise sees a connection that just ends.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any, cast

import attrs
import trio

from .protocol.errors import LocalProtocolError

ALERT_TIMEOUT = 1.0
"""Seconds for telling the peer why a handshake failed, and for the peer to read that."""

StrPath = str | os.PathLike[str]
Password = str | bytes | Callable[[], str | bytes]


@attrs.frozen
class TLSProfile:
    """One row of the table of profiles.

    Attributes:
        clause: Where PS3.15 has it.
        ciphers: The TLS 1.2 cipher suites in OpenSSL's words. Those of TLS 1.3 are OpenSSL's
            own choice, which Python cannot change before 3.15.
    """

    clause: str
    ciphers: str


TLS_PROFILES = {
    "bcp195": TLSProfile("PS3.15 §B.12", "ECDHE+AESGCM:ECDHE+CHACHA20"),
    "bcp195-modified": TLSProfile(
        "PS3.15 §B.13", "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:ECDHE+AESCCM8"
    ),
    "bcp195-non-downgrading": TLSProfile(
        "PS3.15 §B.10, of editions until 2022", "ECDHE+AESGCM:DHE+AESGCM:!aDSS"
    ),
    "bcp195-extended": TLSProfile(
        "PS3.15 §B.11, of editions until 2022", "ECDHE+AESGCM:DHE+AESGCM:!aDSS"
    ),
}
"""The profiles by name. All are TLS 1.2 and 1.3, with forward secrecy and AEAD ciphers."""


def tls_profile(
    name: str = "bcp195",
    *,
    server: bool = False,
    certificate: StrPath | None = None,
    key: StrPath | None = None,
    password: Password | None = None,
    ca: StrPath | None = None,
    verify: bool | None = None,
) -> ssl.SSLContext:
    """An `ssl.SSLContext` for one of the secure transport connection profiles (PS3.15 Annex B).

    A client writes `tls_profile(ca="hospital.pem")`, with `certificate` and `key` where the peer
    demands them; a server `tls_profile(server=True, certificate="ours.pem", key="ours.key",
    ca="hospital.pem")`, which demands a certificate from its peers, as is usual in DICOM (mutual
    authentication). What is returned can be adjusted, and used for any number of connections.

    Args:
        name: `"bcp195"`, the current BCP 195 profile; `"bcp195-modified"`, which also has
            AES-CCM; `"bcp195-non-downgrading"` and `"bcp195-extended"`, of earlier editions.
            `TLS_PROFILES` has them with their clauses.
        server: Whether it is for a listener; else for a requestor.
        certificate: This side's certificate and those between it and the root, PEM; it may hold the
            key too. A server must have one.
        key: The private key of `certificate`, PEM.
        password: Of the key, or what gives it; nobody is ever prompted.
        ca: Certificates to trust, PEM. For a client, else the system's.
        verify: Whether the peer must show a certificate that is trusted and, as a server, is for
            the host's name. By default a client wants that, and a server with `ca`.

    Raises:
        LocalProtocolError: There is no such profile, a file is not there or not what it should be,
            the key is of another certificate, or its password is wrong or missing.
    """
    profile = TLS_PROFILES.get(name)
    if profile is None:
        raise LocalProtocolError(
            f"there is no TLS profile {name!r}; there are {', '.join(TLS_PROFILES)}"
        )
    if server and certificate is None:
        raise LocalProtocolError("a server with TLS needs certificate, and key if that is apart")
    if server and verify and ca is None:
        raise LocalProtocolError("to demand certificates of its peers, a server needs ca")
    if key is not None and certificate is None:
        raise LocalProtocolError("key needs certificate: the key alone proves nothing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(profile.ciphers)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= getattr(ssl, "OP_NO_RENEGOTIATION", 0)  # not in every build
    if ca is not None:
        _load_authorities(context, ca)
    elif not server:
        context.load_default_certs()
    if certificate is not None:
        _load_certificate(context, certificate, key, password)
    if verify is None:
        verify = not server or ca is not None
    context.check_hostname = verify and not server
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    return context


def _load_authorities(context: ssl.SSLContext, ca: StrPath) -> None:
    _check_readable("ca", ca)
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, ValueError) as error:
        raise LocalProtocolError(f"ca {os.fspath(ca)}: no certificates in PEM in it") from error


def _load_certificate(
    context: ssl.SSLContext, certificate: StrPath, key: StrPath | None, password: Password | None
) -> None:
    asked: list[bool] = []

    def answer() -> str | bytes:
        """The password; without one OpenSSL would prompt for it at the terminal."""
        asked.append(True)
        if callable(password):
            return password()
        return password or b""

    _check_readable("certificate", certificate, b"-----BEGIN CERTIFICATE-----")
    if key is not None:
        _check_readable("key", key, b"PRIVATE KEY-----")
    try:
        context.load_cert_chain(certificate, key, answer)
    except (ValueError, TypeError) as error:
        raise LocalProtocolError(f"the password of the key cannot be: {error}") from None
    except ssl.SSLError as error:
        where = f"certificate {os.fspath(certificate)}"
        of = f"key {os.fspath(key)}" if key is not None else where
        if error.reason == "KEY_VALUES_MISMATCH":
            raise LocalProtocolError(
                f"{of}: not the key of certificate {os.fspath(certificate)}; if that is a chain,"
                " this side's certificate comes first"
            ) from error
        if asked:
            raise LocalProtocolError(
                f"{of}: the password of the key is wrong"
                if password
                else f"{of}: the key is encrypted; give its password"
            ) from error
        if key is None:
            raise LocalProtocolError(
                f"{where}: no private key in PEM in it; give the file that has it as key"
            ) from error
        raise LocalProtocolError(
            f"{where}, {of}: no certificate with its key in PEM ({error.reason or error})"
        ) from error


def _check_readable(what: str, path: StrPath, mark: bytes = b"-----BEGIN ") -> None:
    if not isinstance(path, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LocalProtocolError(f"{what} is the path of a PEM file, not {type(path).__name__}")
    try:
        with open(path, "rb") as file:
            content = file.read(1 << 20)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise LocalProtocolError(f"{what} {os.fspath(path)}: {why}; name a PEM file") from error
    if mark not in content:
        missing = "private key" if mark.startswith(b"PRIV") else "certificate"
        raise LocalProtocolError(
            f"{what} {os.fspath(path)}: no {missing} in PEM in it; for DER, convert it:"
            " openssl x509 or openssl pkey, with -inform DER"
        )


# -- handshakes ----------------------------------------------------------------------------------


class TLSHandshakeError(Exception):
    """A handshake failed; the message says why and what to try."""


class _Outgoing:
    """A context for trio that keeps hold of what TLS has to say."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.bio: ssl.MemoryBIO | None = None

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any) -> Any:
        self.bio = outgoing
        return self._context.wrap_bio(incoming, outgoing, **options)


async def handshake(
    stream: trio.abc.Stream,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
) -> trio.abc.Stream:
    """TLS over a stream, which is left open. Bounded by the caller.

    Raises:
        TLSHandshakeError: It failed, and the peer has been told.
    """
    outgoing = _Outgoing(context)
    try:
        tls = trio.SSLStream(
            stream,
            cast("ssl.SSLContext", outgoing),
            server_side=server_side,
            server_hostname=server_hostname,
            https_compatible=True,
        )
        await tls.do_handshake()
    except (trio.BrokenResourceError, ssl.SSLError, ValueError) as error:
        await _tell(stream, outgoing.bio)
        raise TLSHandshakeError(tls_failure(error, server_side=server_side)) from error
    return tls


async def _tell(stream: trio.abc.Stream, outgoing: ssl.MemoryBIO | None) -> None:
    """Send the alert that trio leaves behind, and let the peer read it.

    A socket that is closed with bytes unread is reset, which may overtake the alert.
    """
    alert = b"" if outgoing is None else outgoing.read()
    if not alert:
        return
    with trio.move_on_after(ALERT_TIMEOUT):
        try:
            await stream.send_all(alert)
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
                while await stream.receive_some(1 << 16):
                    pass
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return


_CERTIFICATE_NEEDED = (
    "the peer demands a certificate of this side (mutual TLS): give one that it trusts"
)
_VERSIONS = (
    "no version of TLS in common: BCP 195 has TLS 1.2 and 1.3, and one side speaks only older ones"
)
_CIPHERS = "no cipher suite in common: BCP 195 has only ECDHE with AEAD ciphers; check the profiles"

_REASONS = {
    "HTTP_REQUEST": "the other side speaks HTTP",
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS; is it plain DICOM?",
    "RECORD_LAYER_FAILURE": "the other side does not speak TLS; is it plain DICOM?",
    "PACKET_LENGTH_TOO_LONG": "the other side does not speak TLS; is it plain DICOM?",
    "UNSUPPORTED_PROTOCOL": _VERSIONS,
    "TLSV1_ALERT_PROTOCOL_VERSION": f"the peer says: {_VERSIONS}",
    "NO_PROTOCOLS_AVAILABLE": _VERSIONS,
    "NO_SHARED_CIPHER": _CIPHERS,
    "NO_CIPHERS_AVAILABLE": _CIPHERS,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": _CIPHERS,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "the peer refused the handshake: it has no cipher suite in common with this side, or"
        " demands a certificate of this side (mutual TLS); its log may say which"
    ),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _CERTIFICATE_NEEDED,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "the peer has shown no certificate, and this side demands one (mutual TLS)"
    ),
    "TLSV1_ALERT_UNKNOWN_CA": (
        "the peer does not trust this side's certificate (unknown CA): have its CA added there"
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": (
        "the peer refused this side's certificate: it may be for another name than the peer"
        " connects to"
    ),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": (
        "the peer refused this side's certificate; have its CA added there"
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this side's certificate has expired, says the peer",
    "TLSV1_UNRECOGNIZED_NAME": "the peer has no certificate for this name: check the server name",
    "TLSV1_ALERT_UNRECOGNIZED_NAME": (
        "the peer has no certificate for this name: check the server name"
    ),
}
"""What OpenSSL's reasons mean for whoever connects or listens."""

_EXPIRED = "it has expired, or a clock is wrong: renew it"
_UNTRUSTED = "its CA is not known here: add it to ca"
_NOT_FOR_HOST = "it is for another name: connect by the name in it, or give that as tls_server_name"
_VERIFICATION = {
    9: "it is not valid yet, or a clock is wrong",
    10: _EXPIRED,
    18: f"it is self-signed and not known here: add it to ca, if it is the peer's; {_UNTRUSTED}",
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: f"{_UNTRUSTED}, or have the peer send its whole chain",
    62: _NOT_FOR_HOST,
    64: _NOT_FOR_HOST,
}
"""OpenSSL's verification codes (`X509_V_ERR_…`)."""

_ENDED = (
    "the connection ended in the handshake; does the other side speak TLS, in the same versions,"
    " and is its port right?"
)


def tls_failure(error: BaseException, *, server_side: bool = False) -> str:
    """Why TLS failed, in one line, and what to try. Names and subjects stay out of it."""
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = _VERIFICATION.get(cause.verify_code, cause.verify_message)
        return f"certificate verify failed: of the peer's certificate, {why}"
    if isinstance(cause, ssl.SSLError):
        reason: str = getattr(cause, "reason", None) or ""  # which only OpenSSL's own have
        ended = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        if ended or reason == "UNEXPECTED_EOF_WHILE_READING":
            if server_side:
                return f"{_ENDED} It may not trust this side's certificate"
            return _ENDED
        return _REASONS.get(reason) or reason.replace("_", " ").lower() or str(cause)
    if isinstance(cause, OSError | trio.BrokenResourceError):
        return _ENDED
    return str(cause)


def why_tls_ended(stream: object, error: Exception | None = None) -> str | None:
    """What may have ended a TLS connection after its handshake; `None` for other streams."""
    if not isinstance(stream, trio.SSLStream):
        return None
    if error is not None and isinstance(error.__cause__, ssl.SSLError):
        return tls_failure(error)
    return (
        "the peer closed right after the handshake; it may demand a certificate of this side"
        " (mutual TLS), or not trust the one it was shown"
    )
