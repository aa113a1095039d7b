"""The options that commands share, and what they amount to."""

from __future__ import annotations

import functools
import math
import re
import ssl
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import attrs
import click

import dimse_trio as dimse

from . import log, watching
from .errors import ExitCode
from .identity import IdentityOptions, identity_options
from .output import Format
from .peers import Peer, TLSOptions, find_peer
from .tls import PASSWORD_VARIABLE, client_ssl_context, server_ssl_context

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

DEFAULT_AE_TITLE = "DIMSE-TRIO"
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_ADDRESS = re.compile(r"^(no TLS connection to )(?:\S+:\d+|the peer):")
PORT = click.IntRange(0, 65535)


class NumberRange(click.FloatRange):
    """A range of numbers; `nan`, which is none, is not told by comparing. `inf` is for ever."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


SECONDS = NumberRange(min=0, min_open=True)


def _pdu_length(
    context: click.Context, parameter: click.Parameter, value: int | None
) -> int | None:
    """Refuse a maximum length that no fragment fits in."""
    if value is not None and (value < 0 or 0 < value < 128):
        raise click.BadParameter("it must be 0 or at least 128 bytes", context, parameter)
    return value


@attrs.frozen
class Client:
    """What every client command was told: the peer, and how to speak with it."""

    peer: Peer
    called_ae_title: str
    calling_ae_title: str
    timeout: float | None
    timeouts: dimse.Timeouts
    max_pdu_length: int | None
    ssl_context: ssl.SSLContext | None = attrs.field(repr=False)
    tls: TLSOptions = attrs.field(repr=False)
    user_identity: dimse.UserIdentity | None
    instruments: tuple[dimse.Instrument, ...] = ()

    @asynccontextmanager
    async def association(
        self, contexts: Iterable[dimse.PresentationContext]
    ) -> AsyncGenerator[dimse.Association]:
        """An association with the peer; for `Work.association`."""
        with self.hinted():
            async with dimse.open_association(
                self.peer.host,
                self.peer.port,
                called_ae_title=self.called_ae_title,
                contexts=contexts,
                **self.settings,
            ) as association:
                yield association

    def remote(self, **options: Any) -> dimse.RemoteAE:
        """The peer for whole jobs; use it in a `hinted` block."""
        title = self.called_ae_title
        return dimse.RemoteAE(title, self.peer.host, self.peer.port, **self.settings, **options)

    @property
    def settings(self) -> dict[str, Any]:
        """How to speak with the peer, as `open_association` and `RemoteAE` want it."""
        settings: dict[str, Any] = {
            "calling_ae_title": self.calling_ae_title,
            "ssl_context": self.ssl_context,
            "tls_server_name": self.tls.server_name,
            "user_identity": self.user_identity,
            "timeouts": self.timeouts,
            "instruments": self.instruments,
        }
        if self.max_pdu_length is not None:
            settings["max_pdu_length"] = self.max_pdu_length
        return settings

    @contextmanager
    def hinted(self) -> Generator[None]:
        """A block in which a connection that fails is told with what the peers file lacks."""
        try:
            yield
        except dimse.ConnectionFailed as error:
            # of a connection that ends after the handshake, the library knows the address alone
            text = _ADDRESS.sub(lambda m: f"{m[1]}{self.peer.host}:{self.peer.port}:", str(error))
            hint = f"; {self.peer.hint}" if self.peer.hint else ""
            raise dimse.ConnectionFailed(text + hint) from error


def peer_argument(command: CommandT) -> CommandT:
    """`PEER`, the first argument of every client command."""
    return click.argument("peer", metavar="PEER")(command)


def all_of(*decorators: Callable[[Any], Any]) -> Callable[[CommandT], CommandT]:
    """Decorators as if they stood in this order above a function."""

    def decorate(command: CommandT) -> CommandT:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


peers_file_option = click.option(
    "--peers-file",
    metavar="FILE",
    help="Where peers are named; else $DIMSE_TRIO_PEERS, ./peers.toml, or the user's settings.",
)
_tls_cert = click.option(
    "--tls-cert", metavar="FILE", help="Certificate chain of this side, PEM; may hold the key too."
)
_tls_key = click.option("--tls-key", metavar="FILE", help="Private key of --tls-cert, PEM.")
_tls_password = click.option(
    "--tls-key-password-file",
    metavar="FILE",
    help=f"Its first line is the password of the key; else ${PASSWORD_VARIABLE}.",
)
_tls_profile = click.option(
    "--tls-profile",
    type=click.Choice(tuple(dimse.TLS_PROFILES)),
    help="Profile of PS3.15 Annex B.  [default: bcp195]",
)
tls_options = (
    click.option("--tls", is_flag=True, help="Use TLS; implied by the other TLS options."),
    click.option("--tls-ca", metavar="FILE", help="Certificates to trust, PEM; else the system's."),
    _tls_cert,
    _tls_key,
    _tls_password,
    _tls_profile,
    click.option(
        "--tls-server-name", metavar="NAME", help="Name in the peer's certificate, if not its host."
    ),
    click.option("--tls-insecure", is_flag=True, help="Do not check the peer's certificate."),
)
connect_timeout_option = click.option(
    "--connect-timeout",
    type=SECONDS,
    metavar="SECONDS",
    help="For the connection alone; --timeout is for all of it.  [default: 10]",
)
_client_options = all_of(
    click.option("--aec", metavar="TITLE", help="Called AE title: what the peer is called."),
    click.option(
        "--aet", metavar="TITLE", help=f"Calling AE title: ours.  [default: {DEFAULT_AE_TITLE}]"
    ),
    click.option(
        "--timeout", type=SECONDS, metavar="SECONDS", help="For all of it; then it is cancelled."
    ),
    connect_timeout_option,
    click.option(
        "--max-pdu",
        type=int,
        callback=_pdu_length,
        metavar="BYTES",
        help="Longest PDU that the peer may send; 0 without limit.  [default: 131072]",
    ),
    *tls_options,
    *identity_options,
    peers_file_option,
    watching.capture_option,
    watching.verbose_option,
)


def client_options(command: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    """The options of every client command, which gets them as one `Client`."""

    @functools.wraps(command)
    def with_client(
        peer: str,
        aec: str | None,
        aet: str | None,
        timeout: float | None,
        connect_timeout: float | None,
        max_pdu: int | None,
        tls: bool,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        tls_key_password_file: str | None,
        tls_profile: str | None,
        tls_server_name: str | None,
        tls_insecure: bool,
        user: str | None,
        passcode_file: str | None,
        kerberos: str | None,
        saml: str | None,
        jwt: str | None,
        peers_file: str | None,
        capture: dimse.PcapngWriter | None,
        verbose: int,
        **others: Any,
    ) -> ExitCode:
        log.set_up(verbose)
        known = find_peer(peer, peers_file)
        options = TLSOptions(
            enabled=tls,
            ca=tls_ca,
            certificate=tls_cert,
            key=tls_key,
            insecure=tls_insecure,
            password_file=tls_key_password_file,
            profile=tls_profile,
            server_name=tls_server_name,
        ).over(known.tls)
        timeouts = dimse.Timeouts()
        if connect_timeout is not None:
            timeouts = attrs.evolve(timeouts, connect=connect_timeout)
        client = Client(
            peer=known,
            called_ae_title=(known.ae_title or "ANY-SCP") if aec is None else aec,
            calling_ae_title=(known.calling_ae_title or DEFAULT_AE_TITLE) if aet is None else aet,
            timeout=timeout,
            timeouts=timeouts,
            max_pdu_length=max_pdu,
            ssl_context=client_ssl_context(options),
            tls=options,
            user_identity=IdentityOptions(user, passcode_file, kerberos, saml, jwt).identity(),
            instruments=watching.instruments(verbose, capture),
        )
        return command(client, **others)

    return _client_options(with_client)


def output_options(*, csv: bool = True) -> Callable[[CommandT], CommandT]:
    """`--json` and `--csv`; the command gets `output`, a `Format`."""
    json_option = click.option(
        "--json", "as_json", is_flag=True, help="One JSON object a line, as they come."
    )
    csv_option = click.option(
        "--csv", "as_csv", is_flag=True, help="Comma-separated values, with a header."
    )

    def decorate(command: CommandT) -> CommandT:
        @functools.wraps(command)
        def with_output(
            *arguments: Any, as_json: bool, as_csv: bool = False, **others: Any
        ) -> ExitCode:
            if as_json and as_csv:
                raise click.UsageError("--json or --csv: both is not possible")
            output = Format.JSON if as_json else Format.CSV if as_csv else Format.TABLE
            code: ExitCode = command(*arguments, output=output, **others)
            return code

        return all_of(json_option, *[csv_option] * csv)(cast("CommandT", with_output))

    return decorate


# -- listeners -----------------------------------------------------------------------------------


@attrs.frozen
class Listener:
    """What every listener was told."""

    host: str | None
    port: int
    ae_title: str
    accept_any_called_ae_title: bool
    accept_unknown_storage: bool
    max_associations: int
    max_associations_per_peer: int
    max_pdu_length: int
    timeouts: dimse.Timeouts
    grace: float
    port_file: str | None
    ssl_context: ssl.SSLContext | None = attrs.field(repr=False)
    instruments: tuple[dimse.Instrument, ...] = ()


grace_option = click.option(
    "--grace",
    type=NumberRange(min=0),
    metavar="SECONDS",
    default=5.0,
    show_default=True,
    help="For running associations to end, when it is stopped.",
)
port_file_option = click.option(
    "--port-file", metavar="FILE", help="Write the port there, once it listens; for scripts."
)
_listener_options = all_of(
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        help="Address to listen on; * for all of this machine's.",
    ),
    click.option(
        "--port", type=PORT, default=11112, show_default=True, help="Port; 0 for a free one."
    ),
    click.option(
        "--aet",
        metavar="TITLE",
        help="Our AE title, by which peers have to call.  [default: any; we call ourselves"
        f" {DEFAULT_AE_TITLE}]",
    ),
    click.option(
        "--accept-any-called-aet", is_flag=True, help="Answer to any called AE title despite --aet."
    ),
    click.option(
        "--accept-unknown-storage",
        is_flag=True,
        help="Take private and future SOP classes as storage classes.",
    ),
    click.option(
        "--artim",
        type=SECONDS,
        metavar="SECONDS",
        default=30.0,
        show_default=True,
        help="For a peer that has connected to ask for its association.",
    ),
    click.option(
        "--max-associations",
        type=click.IntRange(min=1),
        metavar="N",
        default=200,
        show_default=True,
        help="At once; others are rejected until one ends.",
    ),
    click.option(
        "--max-associations-per-peer",
        type=click.IntRange(min=1),
        metavar="N",
        default=100,
        show_default=True,
        help="The same for the associations from one address.",
    ),
    click.option(
        "--max-pdu",
        type=int,
        callback=_pdu_length,
        metavar="BYTES",
        default=1 << 17,
        show_default=True,
        help="Longest PDU that peers may send; 0 without limit.",
    ),
    grace_option,
    port_file_option,
    _tls_cert,
    _tls_key,
    _tls_password,
    _tls_profile,
    click.option(
        "--tls-ca",
        metavar="FILE",
        help="Demand of peers a certificate that these vouch for, PEM (mutual TLS).",
    ),
    click.option(
        "--tls-no-client-cert",
        is_flag=True,
        help="Do not demand one after all, whatever --tls-ca is there for.",
    ),
    watching.capture_option,
    watching.verbose_option,
)


def listener_options(command: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    """The options of every listener, which gets them as one `Listener`, and `verbose`."""

    @functools.wraps(command)
    def with_listener(
        host: str,
        port: int,
        aet: str | None,
        accept_any_called_aet: bool,
        accept_unknown_storage: bool,
        artim: float,
        max_associations: int,
        max_associations_per_peer: int,
        max_pdu: int,
        grace: float,
        port_file: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        tls_key_password_file: str | None,
        tls_profile: str | None,
        tls_ca: str | None,
        tls_no_client_cert: bool,
        capture: dimse.PcapngWriter | None,
        verbose: int,
        **others: Any,
    ) -> ExitCode:
        log.set_up(verbose, listener=True)
        listener = Listener(
            host=None if host in ("", "*") else host.strip("[]"),
            port=port,
            ae_title=DEFAULT_AE_TITLE if aet is None else aet,
            accept_any_called_ae_title=accept_any_called_aet or aet is None,
            accept_unknown_storage=accept_unknown_storage,
            max_associations=max_associations,
            max_associations_per_peer=max_associations_per_peer,
            max_pdu_length=max_pdu,
            timeouts=attrs.evolve(dimse.Timeouts(), associate=artim),
            grace=grace,
            port_file=port_file,
            ssl_context=server_ssl_context(
                TLSOptions(
                    ca=tls_ca,
                    certificate=tls_cert,
                    key=tls_key,
                    insecure=tls_no_client_cert,
                    password_file=tls_key_password_file,
                    profile=tls_profile,
                )
            ),
            instruments=watching.instruments(verbose, capture),
        )
        return command(listener, verbose=verbose, **others)

    return _listener_options(with_listener)
