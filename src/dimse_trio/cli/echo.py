"""`dimse-trio echo`: C-ECHO."""

from __future__ import annotations

from time import perf_counter

import click

import dimse_trio as dimse

from .errors import EPILOG, ExitCode
from .options import CONTEXT_SETTINGS, Client, client_options, output_options, peer_argument
from .output import Format, Output
from .running import Work, run

_COLUMNS = ("called_ae_title", "host", "port", "status", "meaning", "milliseconds")


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Verify that a peer answers (C-ECHO).",
)
@peer_argument
@output_options()
@client_options
def echo(client: Client, output: Format) -> ExitCode:
    """Verify that PEER answers (PS3.4 Annex A).

    \b
    Examples:
      dimse-trio echo 127.0.0.1:11112 --aec ARCHIVE
      dimse-trio echo pacs.example.org --aec PACS --tls --tls-ca ca.pem --json
    """  # noqa: D301 - \b is for click

    async def command(work: Work) -> ExitCode:
        return await _echo(work, client, output)

    return run(command, timeout=client.timeout)


async def _echo(work: Work, client: Client, format: Format) -> ExitCode:
    contexts = [dimse.PresentationContext(dimse.uid_of("Verification"))]
    async with work.association(client.association(contexts)) as association:
        start = perf_counter()
        response = await association.echo(check=False)
        milliseconds = round((perf_counter() - start) * 1000, 3)
        if response.status.is_failure:
            raise dimse.StatusError.of(response)
        peer = client.peer
        output = Output(work.output_closed, format, _COLUMNS)
        if output.is_table:
            await output.line(
                f"{response.status}: {client.called_ae_title} at {peer.host}:{peer.port}"
                f" answered in {milliseconds:.1f} ms"
            )
            return ExitCode.DONE
        values = (
            client.called_ae_title,
            peer.host,
            peer.port,
            int(response.status),
            response.status.meaning,
            milliseconds,
        )
        await output.row(dict(zip(_COLUMNS, values, strict=True)))
    return ExitCode.DONE
