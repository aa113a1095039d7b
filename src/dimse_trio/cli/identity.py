"""The user identity of a command line: one of five forms (PS3.7 §D.3.3.7)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click

import dimse_trio as dimse

PASSCODE_VARIABLE = "DIMSE_TRIO_PASSCODE"
MAX_CONTENT = 0xFFFF
"""Most that is read of a file, in bytes: no user identity is longer (PS3.7 §D.3.3.7.1)."""


@attrs.frozen
class IdentityOptions:
    """What the command line says of the user."""

    user: str | None
    passcode_file: str | None
    kerberos: str | None
    saml: str | None
    jwt: str | None

    def identity(self) -> dimse.UserIdentity | None:
        """The identity to present; `None` if nothing is said.

        The passcode is the first line of a file, or in the environment; never in argv.

        Raises:
            click.UsageError: More than one is said, or a file cannot be read.
        """
        named = {
            "--user": self.user,
            "--kerberos": self.kerberos,
            "--saml": self.saml,
            "--jwt": self.jwt,
        }
        given = [name for name, value in named.items() if value is not None]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)}: a user has one identity")
        if self.user is None and self.passcode_file is not None:
            raise click.UsageError("--passcode-file needs --user")
        if self.kerberos is not None:
            return dimse.UserIdentity.kerberos(_content("--kerberos", self.kerberos))
        if self.saml is not None:
            return dimse.UserIdentity.saml(text_of_file("--saml", self.saml))
        if self.jwt is not None:
            return dimse.UserIdentity.jwt(text_of_file("--jwt", self.jwt).strip())
        if self.user is None:
            return None
        passcode = os.environ.get(PASSCODE_VARIABLE)
        if self.passcode_file is not None:
            passcode = (text_of_file("--passcode-file", self.passcode_file).splitlines() or [""])[0]
        if passcode is None:
            return dimse.UserIdentity.username(self.user)
        return dimse.UserIdentity.username_and_passcode(self.user, passcode)


def _content(option: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_CONTENT + 1)  # what is named by mistake may have no end
    except OSError as error:
        raise click.UsageError(f"{option} {path}: {error.strerror or error}") from error
    if len(content) > MAX_CONTENT:
        raise click.UsageError(f"{option} {path}: longer than {MAX_CONTENT} bytes")
    return content


def text_of_file(option: str, path: str) -> str:
    """The small file that an option names, as text.

    Raises:
        click.UsageError: It cannot be read, is too long, or is no text.
    """
    try:
        return _content(option, path).decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{option} {path}: not text in UTF-8") from error


identity_options: tuple[Callable[[Any], Any], ...] = (
    click.option("--user", metavar="NAME", help="User name to present to the peer."),
    click.option(
        "--passcode-file",
        metavar="FILE",
        help=f"Its first line is the passcode of --user; else ${PASSCODE_VARIABLE}.",
    ),
    click.option("--kerberos", metavar="FILE", help="A Kerberos ticket to present, in a file."),
    click.option("--saml", metavar="FILE", help="A SAML assertion to present, in a file."),
    click.option("--jwt", metavar="FILE", help="A JSON web token to present, in a file."),
)
