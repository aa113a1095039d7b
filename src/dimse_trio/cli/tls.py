"""TLS contexts from the TLS options of a command line or a peers file."""

from __future__ import annotations

import os
import ssl

import click

import dimse_trio as dimse

from .errors import describe
from .identity import text_of_file
from .peers import TLSOptions

PASSWORD_VARIABLE = "DIMSE_TRIO_TLS_KEY_PASSWORD"


def client_ssl_context(options: TLSOptions) -> ssl.SSLContext | None:
    """The TLS context of a requestor; `None` without TLS.

    Raises:
        click.UsageError: A file is not there, or not what it should be.
    """
    return _context(options, server=False)


def server_ssl_context(options: TLSOptions) -> ssl.SSLContext | None:
    """The TLS context of a listener; `None` without TLS.

    With `ca`, peers must have a certificate, unless it is `insecure`.

    Raises:
        click.UsageError: A file is not there, or not what it should be.
    """
    if options.wanted and options.certificate is None:
        raise click.UsageError("a listener with TLS needs --tls-cert")
    return _context(options, server=True)


def _context(options: TLSOptions, *, server: bool) -> ssl.SSLContext | None:
    if not options.wanted:
        return None
    if options.key is not None and options.certificate is None:
        raise click.UsageError("--tls-key needs --tls-cert")
    try:
        return dimse.tls_profile(
            options.profile or "bcp195",
            server=server,
            certificate=options.certificate,
            key=options.key,
            password=_password(options),
            ca=options.ca,
            verify=False if options.insecure else None,
        )
    except dimse.LocalProtocolError as error:
        raise click.UsageError(f"TLS: {describe(error)}") from error


def _password(options: TLSOptions) -> str | None:
    """The key's password from a file's first line, or from the environment; never from argv."""
    if options.password_file is None:
        return os.environ.get(PASSWORD_VARIABLE)
    lines = text_of_file("--tls-key-password-file", options.password_file).splitlines()
    return lines[0] if lines else ""
