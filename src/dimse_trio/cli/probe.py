"""`dimse-trio probe`: what a peer says of itself and accepts, and what to change if it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import click

import dimse_trio as dimse

from .errors import EPILOG, CommandFailed, ExitCode, describe, report
from .options import CONTEXT_SETTINGS, Client, client_options, output_options, peer_argument
from .output import Format
from .probe_report import print_findings
from .probing import Findings, Probing
from .progress import bar
from .running import Stopped, Work, run

_NATIVE = tuple(
    map(
        dimse.uid_of,
        (
            "ImplicitVRLittleEndian",
            "ExplicitVRLittleEndian",
            "DeflatedExplicitVRLittleEndian",
            "ExplicitVRBigEndian",
        ),
    )
)
_COMPRESSED = tuple(
    map(
        dimse.uid_of,
        (
            "JPEGBaseline8Bit",
            "JPEGExtended12Bit",
            "JPEGLossless",
            "JPEGLosslessSV1",
            "JPEGLSLossless",
            "JPEGLSNearLossless",
            "JPEG2000Lossless",
            "JPEG2000",
            "HTJ2KLossless",
            "HTJ2KLosslessRPCL",
            "HTJ2K",
            "RLELossless",
            "MPEG2MPML",
            "MPEG4HP41",
            "HEVCMP51",
        ),
    )
)
"""Those that are met with; `--transfer-syntax` asks about others."""


def _of(*services: dimse.Service) -> Callable[[], Iterator[str]]:
    return lambda: (uid for service in services for uid in dimse.sop_classes(service))


def _common_storage() -> Iterator[str]:
    return (context.abstract_syntax for context in dimse.default_contexts() if context.scp)


_SETS: dict[str, Callable[[], Iterable[str]]] = {
    "verification": _of(dimse.Service.ECHO),
    "query": _of(dimse.Service.FIND, dimse.Service.MOVE, dimse.Service.GET),
    "storage": _common_storage,
    "all-storage": _of(dimse.Service.STORAGE),
    "workflows": _of(dimse.Service.NORMALIZED),
}
_BY_DEFAULT = ("verification", "query", "storage", "workflows")
_SUFFIXES = ("ImageStorage", "Storage")


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Find out what a peer accepts, and why it does not.",
)
@peer_argument
@click.option(
    "--set",
    "sets",
    type=click.Choice(tuple(_SETS)),
    multiple=True,
    help="SOP classes to ask about; may be repeated.  [default: all but all-storage]",
)
@click.option(
    "--sop-class",
    "sop_classes",
    metavar="CLASS",
    multiple=True,
    help="One to ask about, by keyword (CTImageStorage, CT) or UID; may be repeated.",
)
@click.option(
    "--transfer-syntax",
    "transfer_syntaxes",
    metavar="SYNTAX",
    multiple=True,
    help="One to ask about, by keyword or UID; may be repeated.  [default: the usual ones]",
)
@click.option(
    "--max-contexts",
    type=click.IntRange(2, 128),
    default=128,
    show_default=True,
    metavar="N",
    help="Presentation contexts in one association.",
)
@output_options()
@client_options
def probe(
    client: Client,
    sets: tuple[str, ...],
    sop_classes: tuple[str, ...],
    transfer_syntaxes: tuple[str, ...],
    max_contexts: int,
    output: Format,
) -> ExitCode:
    """Say what PEER is, what it accepts, and what to change where an association fails.

    It looks at the connection, TLS and certificate, the implementation, the longest PDU, the window
    of asynchronous operations, the answer to a --user, how long C-ECHO takes, and at each SOP class
    in each transfer syntax: whether it is accepted, else why not, and whether we may be its SCP, as
    C-GET needs. That takes several associations, one after the other. Nothing is sent but C-ECHO.

    With --json it is one object, with --csv a line for each SOP class and transfer syntax. A
    --sop-class that is not accepted in any transfer syntax is a failure (exit code 1).

    \b
    Examples:
      dimse-trio probe 127.0.0.1:11112 --aec ARCHIVE
      dimse-trio probe ARCHIVE --sop-class CT --sop-class MR --json
      dimse-trio probe pacs.example.org:2762 --tls-ca ca.pem --set query
    """  # noqa: D301 - \b is for click
    named = [_sop_class(name) for name in sop_classes]
    asked = sets or (() if named else _BY_DEFAULT)
    classes = list(dict.fromkeys([*named, *(uid for each in asked for uid in _SETS[each]())]))
    syntaxes = tuple(map(_uid, transfer_syntaxes))
    others = {uid for service in dimse.Service for uid in dimse.sop_classes(service)}
    others -= set(dimse.sop_classes(dimse.Service.STORAGE))
    wanted = {
        uid: syntaxes or (_NATIVE if uid in others else (*_NATIVE, *_COMPRESSED)) for uid in classes
    }

    async def command(work: Work) -> ExitCode:
        failure: dimse.AssociationError | None = None
        with bar("probing", output) as progress:
            storage = [uid for uid in classes if uid not in others]
            probing = Probing(work, client, wanted, storage, max_contexts, progress)
            try:
                await probing.run()
            except dimse.AssociationError as error:
                failure = error  # once what was found out has been said
            except Stopped:
                pass
        if work.stopped is None or work.stopped.code is ExitCode.TIMED_OUT:
            await print_findings(work, output, client, probing.findings, failure)
        if work.stopped is None:
            if failure is not None:
                raise failure
            _judge(probing.findings, named)
        elif failure is not None:
            report(describe(failure))
        return ExitCode.DONE

    return run(command, timeout=client.timeout)


def _uid(text: str) -> str:
    """A UID, or that of a keyword."""
    return text if text[:1].isdigit() else dimse.uid_of(text)


def _sop_class(text: str) -> str:
    """The UID of a SOP class by its keyword, which may lack its end."""
    if not text[:1].isdigit():
        for suffix in _SUFFIXES:
            with suppress(dimse.LocalProtocolError):
                return dimse.uid_of(text + suffix)
    return _uid(text)


def _judge(findings: Findings, named: list[str]) -> None:
    """Fail if what was asked for by name, or C-ECHO, or anything at all, is not to be had."""
    accepted = {each.sop_class_uid for each in findings.contexts if each.accepted}
    refused = [dimse.uid_name(uid) for uid in named if uid not in accepted]
    if not accepted and findings.echo_status is None:
        why = "the peer accepts none of the presentation contexts"
        raise CommandFailed(why, ExitCode.NO_ASSOCIATION)
    if refused:
        raise CommandFailed(f"the peer does not accept {', '.join(refused)}")
    if findings.echo_status is not None and findings.echo_status.is_failure:
        raise CommandFailed(f"the peer answered C-ECHO with {findings.echo_status}")
