"""Options of commands that do whole jobs: several associations, transcoding, a listener of ours."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import attrs
import click

from .options import Client, all_of
from .peers import TLSOptions
from .tls import server_ssl_context

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
MismatchChoice = Literal["error", "transcode"]

jobs_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Associations at a time.",
)
on_mismatch_option = click.option(
    "--on-mismatch",
    type=click.Choice(["error", "transcode"]),
    default="error",
    show_default=True,
    help="What to do about a compressed instance whose transfer syntax the peer does not take:"
    " report it, or decompress it.",
)


@attrs.frozen
class OwnListener:
    """Where a client command listens meanwhile: `None` for all of this machine's addresses."""

    host: str | None
    port: int
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False)


def listen_options(what_for: str) -> Callable[[CommandT], CommandT]:
    """`--listen-port` and its like; the command gets `listening`, perhaps `None`.

    Below `client_options`, as TLS there is with the client's own certificate.
    """

    def decorate(command: CommandT) -> CommandT:
        @functools.wraps(command)
        def with_listener(
            client: Client,
            listen_port: int | None,
            listen_host: str | None,
            listen_tls: bool,
            **others: Any,
        ) -> Any:
            listening = None
            if listen_port is not None:
                tls = attrs.evolve(client.tls, enabled=True) if listen_tls else TLSOptions()
                listening = OwnListener(listen_host, listen_port, server_ssl_context(tls))
            elif listen_tls:
                raise click.UsageError("--listen-tls needs --listen-port")
            return command(client, listening=listening, **others)

        options = all_of(
            click.option(
                "--listen-port", type=click.IntRange(1, 65535), metavar="PORT", help=what_for
            ),
            click.option(
                "--listen-host",
                metavar="HOST",
                help="With --listen-port, the address to listen on."
                "  [default: all of this machine's]",
            ),
            click.option(
                "--listen-tls",
                is_flag=True,
                help="With --listen-port, TLS there too, with --tls-cert and --tls-key; the peer"
                " has to show a certificate that --tls-ca vouches for, if that is given.",
            ),
        )
        return options(with_listener)  # type: ignore[return-value]

    return decorate
