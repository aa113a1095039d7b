"""`dimse-trio forward`: a storage SCP that sends on what it is sent, before it answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import click

import dimse_trio as dimse

from .errors import LISTENER_EPILOG, ExitCode, report
from .forwarder import Forwarded, Forwarder, is_spooled
from .jobs import MismatchChoice, on_mismatch_option
from .listening import Listening, listen
from .options import (
    CONTEXT_SETTINGS,
    SECONDS,
    Listener,
    listener_options,
    output_options,
    peers_file_option,
)
from .output import Format, Output, counted
from .peers import find_titled_peer
from .tls import client_ssl_context


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=LISTENER_EPILOG,
    short_help="Receive instances and send each on to other AEs (C-STORE SCP and SCU).",
)
@click.argument("peers", metavar="PEER...", nargs=-1, required=True)
@click.option(
    "--calling-aet",
    metavar="TITLE",
    help="What to call ourselves towards PEERs.  [default: as the peers file says, else --aet]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="N",
    help="Most associations with each PEER at a time.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    metavar="N",
    help="How often to try again where an association breaks or cannot be opened.",
)
@click.option(
    "--connect-timeout",
    type=SECONDS,
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="For a connection to a PEER.",
)
@click.option(
    "--response-timeout",
    type=SECONDS,
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="For a PEER to answer an instance.",
)
@click.option(
    "--spool",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Where instances lie until they are answered.  [default: a temporary folder]",
)
@on_mismatch_option
@peers_file_option
@output_options(csv=False)
@listener_options
def forward(
    listener: Listener,
    peers: tuple[str, ...],
    calling_aet: str | None,
    jobs: int,
    retries: int,
    connect_timeout: float,
    response_timeout: float,
    spool: str | None,
    on_mismatch: MismatchChoice,
    peers_file: str | None,
    output: Format,
    verbose: int,
) -> ExitCode:
    """Send every instance that is sent here on to each PEER: TITLE=HOST:PORT, or one of peers.toml.

    The sender is answered once every PEER has answered, with the worst of their statuses: a success
    says that all of them have the instance. A PEER that cannot be reached, or does not take the
    instance, is a failure (0xA700, 0x0122), after which the sender still has it and may try again.
    Instances are sent as they come, in their transfer syntax; associations with PEERs are used
    again. TLS towards a PEER is as the peers file says; the TLS options below are for senders.

    It prints `listening on HOST:PORT as TITLE` once it listens, with -v a line for each instance,
    and with --json an object for either. C-ECHO is answered too.

    \b
    Examples:
      dimse-trio forward PACS=127.0.0.1:11112 --port 11113 --aet ROUTER
      dimse-trio forward ARCHIVE RESEARCH --port 11113 --aet ROUTER --json
    """  # noqa: D301 - \b is for click
    timeouts = attrs.evolve(dimse.Timeouts(), connect=connect_timeout, response=response_timeout)
    destinations: dict[str, dimse.RemoteAE] = {}
    titles: dict[str, str] = {}
    for text in peers:
        title, peer = find_titled_peer(text, peers_file, "PEER")
        name = text.partition("=")[0].strip()  # several peers may have the same title
        if name in destinations:
            raise click.UsageError(f"PEER {name} is there twice")
        titles[name] = title
        destinations[name] = dimse.RemoteAE(
            peer.ae_title or title,
            peer.host,
            peer.port,
            calling_ae_title=calling_aet or peer.calling_ae_title or listener.ae_title,
            ssl_context=client_ssl_context(peer.tls),
            tls_server_name=peer.tls.server_name,
            timeouts=timeouts,
            max_associations=jobs,
            retries=retries,
            instruments=listener.instruments,
        )
    if spool is not None:
        Path(spool).mkdir(parents=True, exist_ok=True)
        if left := sum(map(is_spooled, Path(spool).iterdir())):
            report(
                f"{spool} has {counted(left, 'file')} of a forward that was killed, if no other"
                " uses it: their senders have had no answer, so delete them"
            )

    @asynccontextmanager
    async def make_handler(listening: Listening) -> AsyncGenerator[Forwarder]:
        printed = Output(listening.output_closed, output)

        async def on_forwarded(
            request: dimse.StoreRequest, status: dimse.Status, forwarded: list[Forwarded]
        ) -> None:
            if output is Format.JSON:
                await printed.json(_row(request, status, forwarded, titles))
            elif verbose:
                name = dimse.uid_name(request.sop_class_uid)
                await printed.line(f"{request.sop_instance_uid} {name} {status}")

        async with AsyncExitStack() as stack:
            folder = spool or stack.enter_context(TemporaryDirectory(prefix="dimse-trio-"))
            for peer in destinations.values():
                await stack.enter_async_context(peer)
            yield Forwarder(destinations, Path(folder), on_mismatch, on_forwarded)

    return listen(listener, make_handler, output=output)


def _row(
    request: dimse.StoreRequest,
    status: dimse.Status,
    forwarded: list[Forwarded],
    titles: Mapping[str, str],
) -> dict[str, object]:
    return {
        "sop_class_uid": request.sop_class_uid,
        "sop_instance_uid": request.sop_instance_uid,
        "transfer_syntax_uid": request.transfer_syntax_uid,
        "calling_ae_title": request.association.calling_ae_title,
        "status": int(status),
        "destinations": [
            {
                "name": each.destination,
                "ae_title": titles[each.destination],
                "status": int(each.status),
                "transfer_syntax_uid": each.outcome.transfer_syntax_uid,
                "transcoded": each.outcome.transcoded,
                "error": each.reason,
            }
            for each in forwarded
        ],
    }
