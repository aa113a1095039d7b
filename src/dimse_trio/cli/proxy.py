"""`dimse-trio proxy`: a relay between a client and a peer that says what goes by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import attrs
import click
import trio

import dimse_trio as dimse
from dimse_trio.instruments import Role
from dimse_trio.relay import (
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    ConnectionRelayed,
    MessageRelayed,
    NotUnderstood,
    Passage,
    PDURelayed,
    RelayEnd,
    ReleaseRQ,
    open_relay,
)

from . import log, watching
from .errors import LISTENER_EPILOG, ExitCode, printable
from .find import json_model
from .listening import Standing
from .options import (
    CONTEXT_SETTINGS,
    all_of,
    connect_timeout_option,
    grace_option,
    output_options,
    peer_argument,
    peers_file_option,
    port_file_option,
    tls_options,
)
from .output import Format, Output, counted, human_size
from .peers import TLSOptions, find_peer, parse_address
from .tls import client_ssl_context, server_ssl_context

DATA_SET_LIMIT = 1 << 16
"""Longest data set that is printed, in bytes: identifiers are shorter."""
_SIDES = {Role.REQUESTOR: "client", Role.ACCEPTOR: "peer"}
_ABOUT = ("affected_sop_class_uid", "requested_sop_class_uid")
_COUNTS = ("remaining", "completed", "failed", "warning")
"""Of sub-operations."""
_PRIVATE = ("affected_sop_instance_uid", "requested_sop_instance_uid", "error_comment")
"""Of a command set, what may lead to a patient."""


def _address(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[str | None, int]:
    """`PORT`, `HOST:PORT` or `*:PORT`."""
    host, port = ("127.0.0.1", value) if value.isdigit() else (None, value)
    if host is None and value.startswith("*:"):
        port = value[2:]
    elif host is None:
        host, number = parse_address(value)
        port = str(number or "")
    if not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value}: write PORT, HOST:PORT or *:PORT", context, parameter)
    return host, int(port)


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=LISTENER_EPILOG,
    short_help="Relay to a peer, and say what goes by.",
)
@peer_argument
@click.option(
    "--listen",
    metavar="[HOST:]PORT",
    required=True,
    callback=_address,
    help="Where clients connect; the host * is all of this machine's addresses, port 0 a free one.",
)
@click.option(
    "--data-sets",
    is_flag=True,
    help="Print data sets of up to 64 KiB, SOP Instance UIDs and comments, too: patient data.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    metavar="N",
    default=100,
    show_default=True,
    help="At once; others are closed.",
)
@output_options(csv=False)
@all_of(
    grace_option,
    port_file_option,
    connect_timeout_option,
    *tls_options,
    click.option(
        "--listen-tls-cert", metavar="FILE", help="For TLS with clients: our certificate."
    ),
    click.option("--listen-tls-key", metavar="FILE", help="Its private key."),
    click.option(
        "--listen-tls-key-password-file",
        metavar="FILE",
        help="Its first line is the password.",
    ),
    click.option(
        "--listen-tls-ca",
        metavar="FILE",
        help="Demand certificates that these vouch for.",
    ),
    peers_file_option,
    watching.capture_option,
    watching.verbose_option,
)
def proxy(
    peer: str,
    listen: tuple[str | None, int],
    data_sets: bool,
    max_connections: int,
    output: Format,
    grace: float,
    port_file: str | None,
    connect_timeout: float | None,
    tls: bool,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_key_password_file: str | None,
    tls_profile: str | None,
    tls_server_name: str | None,
    tls_insecure: bool,
    listen_tls_cert: str | None,
    listen_tls_key: str | None,
    listen_tls_key_password_file: str | None,
    listen_tls_ca: str | None,
    peers_file: str | None,
    capture: dimse.PcapngWriter | None,
    verbose: int,
) -> ExitCode:
    """Pass on to PEER whatever clients send, and back what it answers, byte for byte.

    Associations, messages and statuses are printed as they go by, with --json an object for each;
    who has sent it is `client` or `peer`. Command sets without SOP Instance UIDs, and no data sets,
    unless --data-sets asks for them. Bytes that are not DICOM are passed on, too. TLS may be on
    either side, or on both.

    \b
    Examples:
      dimse-trio proxy 127.0.0.1:11112 --listen 11115
      dimse-trio proxy ARCHIVE --listen 0.0.0.0:11115 --json --capture session.pcapng
      dimse-trio proxy ARCHIVE --listen 11115 --tls-ca ca.pem     # plain here, TLS there
    """  # noqa: D301 - \b is for click
    log.set_up(verbose, listener=True)
    known = find_peer(peer, peers_file)
    to_peer = TLSOptions(
        enabled=tls,
        ca=tls_ca,
        certificate=tls_cert,
        key=tls_key,
        insecure=tls_insecure,
        password_file=tls_key_password_file,
        profile=tls_profile,
        server_name=tls_server_name,
    ).over(known.tls)
    with_clients = TLSOptions(
        ca=listen_tls_ca,
        certificate=listen_tls_cert,
        key=listen_tls_key,
        password_file=listen_tls_key_password_file,
    )
    timeouts = dimse.Timeouts()
    options: dict[str, Any] = {
        "ssl_context": client_ssl_context(to_peer),
        "tls_server_name": to_peer.server_name,
        "server_ssl_context": server_ssl_context(with_clients),
        "data_set_limit": DATA_SET_LIMIT if data_sets else 0,
        "max_connections": max_connections,
        "timeouts": attrs.evolve(timeouts, connect=connect_timeout or timeouts.connect),
        "instruments": watching.instruments(verbose, capture),
    }
    standing = Standing()
    printed = Output(standing.output_closed, output)

    async def on_passage(passage: Passage) -> None:
        if output is Format.JSON:
            await printed.json(_json(passage, data_sets))
            return
        for line in _words(passage, data_sets):
            await printed.line(printable(f"[{passage.connection}] {line}"))

    async def serve() -> None:
        host, port = listen
        async with open_relay(
            known.host,
            known.port,
            listen_host=host,
            listen_port=port,
            on_passage=on_passage,
            **options,
        ) as relay:
            what = f"as a proxy of {known.host}:{known.port}"
            await standing.stand((host, relay.port), what, port_file, printed)
            await relay.stop(grace)

    return trio.run(standing.run, serve)


# -- in words ------------------------------------------------------------------------------------


def _words(passage: Passage, data_sets: bool) -> Iterator[str]:
    """A passage as lines."""
    match passage:
        case ConnectionRelayed(client=client):
            yield f"connection from {client}"
        case RelayEnd(error=error):
            yield (
                f"closed after {passage.duration:.3f} s:"
                f" {human_size(passage.bytes_from_client)} from the client,"
                f" {human_size(passage.bytes_from_peer)} from the peer"
                f"{'' if error is None else f'; {error}'}"
            )
        case PDURelayed():
            yield from _pdu_words(passage)
        case MessageRelayed():
            yield from _message_words(passage, data_sets)


def _pdu_words(passage: PDURelayed) -> Iterator[str]:
    side, pdu = _SIDES[passage.sender], passage.pdu
    match pdu:
        case AssociateRQ():
            information = pdu.user_information
            yield (
                f"{side}: A-ASSOCIATE-RQ, {pdu.calling_ae_title!r} to {pdu.called_ae_title!r},"
                f" {counted(len(pdu.contexts), 'presentation context')}, maximum length"
                f" {information.maximum_length}, {information.implementation_version_name or '-'}"
            )
        case AssociateAC():
            information, agreed = pdu.user_information, passage.negotiated
            known = f"maximum length {information.maximum_length}"
            known += f", {information.implementation_version_name or '-'}"
            if agreed is None:
                yield f"{side}: A-ASSOCIATE-AC that nobody has asked for, {known}"
                return
            accepted = counted(len(agreed.accepted), "presentation context")
            refused = len(agreed.refused)
            yield f"{side}: A-ASSOCIATE-AC, {accepted} accepted, {refused} refused, {known}"
            for accept in agreed.accepted.values():
                about = dimse.uid_name(accept.abstract_syntax)
                syntax = dimse.uid_name(accept.transfer_syntax)
                yield f"    {accept.context_id}: {about} in {syntax}"
            for refuse in agreed.refused:
                yield f"    {refuse.context_id}: {refuse}"
        case _:
            yield f"{side}: {_short(pdu)}"


def _short(pdu: object) -> str:
    match pdu:
        case AssociateRJ(result=result, source=source, reason=reason):
            why = dimse.AssociationRejected(result, source, reason, called="", calling="")
            return f"A-ASSOCIATE-RJ, {str(why).partition(';')[0]}"
        case Abort(source=source, reason=reason):
            return f"A-ABORT, {dimse.AssociationAborted.by_peer(source, reason)}"
        case NotUnderstood(error=error):
            return f"not DICOM from here on, and passed on unread: {error}"
        case _:
            return "A-RELEASE-RQ" if isinstance(pdu, ReleaseRQ) else "A-RELEASE-RP"


def _message_words(passage: MessageRelayed, data_sets: bool) -> Iterator[str]:
    facts = _message(passage, data_sets)
    about = [f"{_SIDES[passage.sender]}: {facts['message']}", f"Message ID {facts['message_id']}"]
    if "sop_class_uid" in facts:
        about.append(dimse.uid_name(facts["sop_class_uid"]))
    if "status" in facts:
        about.append(str(dimse.Status(facts["status"])))
    if facts.get("data_set_length") is not None:
        about.append(f"data set of {facts['data_set_length']} bytes")
    about += [str(facts[name]) for name in _PRIVATE if name in facts]
    yield ", ".join(about)
    if data_sets:
        for line in _data_set(passage, str).splitlines():
            yield f"    {line}"


# -- as JSON -------------------------------------------------------------------------------------


def _json(passage: Passage, data_sets: bool) -> dict[str, Any]:
    """A passage as an object."""
    shown: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "connection": passage.connection,
    }
    match passage:
        case ConnectionRelayed(client=client):
            return shown | {"event": "opened", "client": client}
        case RelayEnd():
            names = ("bytes_from_client", "bytes_from_peer", "duration", "error")
            return shown | {"event": "closed"} | {name: getattr(passage, name) for name in names}
        case PDURelayed(sender=sender):
            return shown | {"event": "pdu", "from": _SIDES[sender]} | _pdu_json(passage)
        case MessageRelayed(sender=sender):
            shown |= {"event": "message", "from": _SIDES[sender]} | _message(passage, data_sets)
            if data_sets:
                shown["data_set"] = _data_set(passage, json_model) or None
            return shown


def _pdu_json(passage: PDURelayed) -> dict[str, Any]:
    pdu = passage.pdu
    if isinstance(pdu, NotUnderstood):
        return {"pdu": None, "error": str(pdu.error)}
    if not isinstance(pdu, AssociateRQ | AssociateAC):
        name, _, meaning = _short(pdu).partition(", ")
        return {"pdu": name, **({"meaning": meaning} if meaning else {}), **attrs.asdict(pdu)}
    information = pdu.user_information
    shown: dict[str, Any] = {
        "pdu": "A-ASSOCIATE-RQ" if isinstance(pdu, AssociateRQ) else "A-ASSOCIATE-AC",
        "calling_ae_title": pdu.calling_ae_title,
        "called_ae_title": pdu.called_ae_title,
        "maximum_length": information.maximum_length,
        "implementation_class_uid": information.implementation_class_uid,
        "implementation_version_name": information.implementation_version_name,
    }
    if isinstance(pdu, AssociateRQ):
        identity = information.user_identity
        shown["user_identity_type"] = None if identity is None else identity.identity_type
        shown["contexts"] = [attrs.asdict(context) for context in pdu.contexts]
    else:
        shown["contexts"] = [attrs.asdict(result) for result in pdu.results]
    return shown


def _message(passage: MessageRelayed, data_sets: bool) -> dict[str, Any]:
    """What a command set says, as far as it may be shown."""
    message = passage.message
    values: dict[str, Any] = {
        name: value
        for name, value in attrs.asdict(message, recurse=False).items()
        if value is not None
    }
    message_id = values.get("message_id", values.get("message_id_being_responded_to"))
    shown: dict[str, Any] = {
        "message": message.name,
        "message_id": message_id,
        "context_id": passage.context_id,
    }
    for name in _ABOUT:
        if name in values:
            shown["sop_class_uid"] = values[name]
    if passage.context is not None:
        shown["transfer_syntax_uid"] = passage.context.transfer_syntax
    for name in ("status", "move_destination", *_COUNTS, "event_type_id", "action_type_id"):
        if name in values:
            shown[name] = int(values[name]) if name == "status" else values[name]
    if passage.data_set_length is not None:
        shown["data_set_length"] = passage.data_set_length
    if data_sets:
        shown |= {name: values[name] for name in _PRIVATE if name in values}
    return shown


def _data_set(passage: MessageRelayed, render: Callable[[Any], Any]) -> Any:
    """A data set as it is to be shown; empty where there is none, or it is none."""
    try:
        data_set = passage.decode()
        return "" if data_set is None else render(data_set)
    except Exception:  # what pydicom makes of a value that its VR forbids
        return "(a data set that cannot be read)"
