"""TLS contexts from the TLS options of a command line or a peers file."""

from __future__ import annotations

import ssl

import click

from .peers import TLSOptions


def client_ssl_context(options: TLSOptions) -> ssl.SSLContext | None:
    """The TLS context of a requestor; `None` without TLS.

    Raises:
        click.UsageError: A file is not there, or not what it should be.
    """
    if not options.wanted:
        return None
    context = ssl.create_default_context()
    if options.ca is not None:  # these, and not the system's besides
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authorities(context, options.ca)
    _load_certificate(context, options)
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def server_ssl_context(options: TLSOptions) -> ssl.SSLContext | None:
    """The TLS context of a listener; `None` without TLS. With `ca`, peers must have a certificate.

    Raises:
        click.UsageError: A file is not there, or not what it should be.
    """
    if not options.wanted:
        return None
    if options.certificate is None:
        raise click.UsageError("a listener with TLS needs --tls-cert")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_certificate(context, options)
    if options.ca is not None:
        _load_authorities(context, options.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(_readable(path, "--tls-ca"))
    except ssl.SSLError as error:
        raise click.UsageError(f"--tls-ca {path}: no certificates in PEM") from error


def _load_certificate(context: ssl.SSLContext, options: TLSOptions) -> None:
    if options.certificate is None:
        if options.key is not None:
            raise click.UsageError("--tls-key needs --tls-cert")
        return
    certificate = _readable(options.certificate, "--tls-cert")
    key = None if options.key is None else _readable(options.key, "--tls-key")
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        reason = error.reason or error.strerror or str(error)
        raise click.UsageError(
            f"--tls-cert {certificate}: no certificate with its key in PEM ({reason})"
        ) from error


def _readable(path: str, option: str) -> str:
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise click.UsageError(f"{option} {path}: {error.strerror or error}") from error
