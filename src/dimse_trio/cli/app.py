"""The program as a whole: its commands, each imported when it is asked for, and its end."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from dimse_trio import __version__

from .errors import EPILOG, ExitCode, report, report_failure
from .options import CONTEXT_SETTINGS

COMMANDS = (
    "echo",
    "probe",
    "find",
    "get",
    "retrieve",
    "move",
    "store",
    "commit",
    "archive",
    "receive",
    "forward",
    "worklist",
    "mpps",
    "ups",
    "dump",
    "create",
    "modify",
    "proxy",
)
"""Each is a function of that name in a module of that name."""


class Program(click.Group):
    """A group of commands that imports only the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = difflib.get_close_matches(args[0], COMMANDS, 1)
        if args[0] not in COMMANDS and near and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(
    cls=Program,
    name="dimse-trio",
    invoke_without_command=True,
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="dimse-trio", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> ExitCode:
    """DICOM networking: verify, query, retrieve, send and receive.

    PEER is HOST:PORT ([::1]:PORT for IPv6; port 104 if there is none), or a peer that is named in
    a peers file:

    \b
      [ARCHIVE]                  # dimse-trio echo ARCHIVE
      host = "127.0.0.1"
      port = 11112               # 104 if left out
      ae_title = "ARCHIVE"       # the name if left out
      calling_ae_title = "US"
      tls = true                 # and tls_ca, tls_cert, tls_key, tls_insecure

    The file is --peers-file, else $DIMSE_TRIO_PEERS, ./peers.toml, or dimse-trio/peers.toml in the
    user's configuration.

    \b
    Examples:
      dimse-trio echo 127.0.0.1:11112 --aec ARCHIVE
      dimse-trio probe 127.0.0.1:11112 --aec ARCHIVE
      dimse-trio store 127.0.0.1:11112 --aec ARCHIVE FOLDER FILE
      dimse-trio find ARCHIVE --level study -k PatientName=DOE* --json
      dimse-trio get ARCHIVE --level study -k StudyInstanceUID=1.2.3 --output FOLDER
      dimse-trio retrieve ARCHIVE -k PatientID=4711 --output FOLDER
      dimse-trio move ARCHIVE -k StudyInstanceUID=1.2.3 --destination WORKSTATION
      dimse-trio commit ARCHIVE FOLDER FILE
      dimse-trio archive FOLDER --port 11112 --aet ARCHIVE --peer WORKSTATION=127.0.0.1:11113
      dimse-trio receive FOLDER --port 11113 --aet WORKSTATION
      dimse-trio forward ARCHIVE=127.0.0.1:11112 --port 11115 --aet ROUTER
      dimse-trio ups find 127.0.0.1:11112 --aec WORKLIST -k ProcedureStepState=SCHEDULED
      dimse-trio worklist FOLDER --port 11114 --aet RIS
      dimse-trio dump FILE -k PatientID
      dimse-trio create query.dcm QueryRetrieveLevel=STUDY PatientName=DOE*
      dimse-trio modify FOLDER -k PatientName=Doe^Jane --new-study-uid --output COPY
      dimse-trio proxy 127.0.0.1:11112 --listen 11115 --capture session.pcapng
    """  # noqa: D301 - \b is for click
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return ExitCode.DONE


def run(arguments: Sequence[str] | None) -> int:
    """Run the program on a command line and give its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _check_encoding(arguments)
        code = cli.main(
            arguments,
            prog_name="dimse-trio",
            standalone_mode=False,
        )
        return _finish(int(code or 0))
    except click.Abort:  # what click makes of KeyboardInterrupt
        report("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _finish(ExitCode.CLOSED_OUTPUT)
    except Exception as error:
        return report_failure(error)


def _check_encoding(arguments: Sequence[str]) -> None:
    """Refuse text of which it is not known what its bytes mean; names of files may be any bytes."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            if not os.path.lexists(argument):
                raise click.UsageError(
                    f"argument {argument} is not UTF-8: give it in UTF-8, or set the locale"
                ) from None


def _finish(code: int) -> int:
    """Flush standard output here, where nobody reading it any more is no traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
