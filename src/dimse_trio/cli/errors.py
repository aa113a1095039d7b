"""Exit codes, and an error as one line on standard error.

Every error that a user can meet is one line that begins with `dimse-trio: `. What a peer or a file
put into a message cannot break that line: control characters are shown as `?`.
"""

from __future__ import annotations

import enum
import logging
import re
import sys
import traceback
from collections.abc import Iterator

import click

import dimse_trio as dimse


class ExitCode(enum.IntEnum):
    """What the program ends with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_CONNECTION = 3
    NO_ASSOCIATION = 4
    TIMED_OUT = 5
    INTERRUPTED = 130
    CLOSED_OUTPUT = 141
    TERMINATED = 143


EPILOG = """\b
Exit codes:
  0    all of it was done
  1    some of it failed, or the peer answered a failure status
  2    the command line, a query or a setting is wrong
  3    no connection: name not found, refused, TLS failed
  4    association rejected, aborted, or without the context that it takes
  5    timed out
  130  interrupted (143: terminated; 141: nobody reads the output)
"""

LISTENER_EPILOG = """\b
Exit codes:
  0    stopped by SIGINT or SIGTERM
  1    it could not listen, or a file or folder could not be used
  2    the command line or a setting is wrong
"""


class CommandFailed(Exception):
    """Something that one command found out by itself; the message is the line to print."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (dimse.ConnectionFailed, ExitCode.NO_CONNECTION),
    (dimse.AssociationTimeout, ExitCode.TIMED_OUT),
    (dimse.AssociationError, ExitCode.NO_ASSOCIATION),
    (dimse.RemoteProtocolError, ExitCode.NO_ASSOCIATION),
    (dimse.QueryError, ExitCode.USAGE),
    (dimse.LocalProtocolError, ExitCode.USAGE),
    (dimse.DimseError, ExitCode.FAILED),
    (OSError, ExitCode.FAILED),
    (click.UsageError, ExitCode.USAGE),
)
"""The first row that fits; a connection that failed is an `AssociationError` too."""


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code for an error that ended a command."""
    if isinstance(error, CommandFailed):
        return error.code
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED


def is_expected(error: BaseException) -> bool:
    """Whether an error is the user's, a peer's or the machine's, and no mistake of ours."""
    kinds = (dimse.DimseError, OSError, click.ClickException, CommandFailed)
    return isinstance(error, kinds)


_OPTIONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(said), option)
    for said, option in (
        (r"\badd it to ca\b", "add it to --tls-ca"),
        (r"\bas tls_server_name\b", "with --tls-server-name"),
        (r"\b(?<!-)ca (?=\S+: )", "--tls-ca "),
        (r"\b(?<!-)certificate (?=\S+(?:: |, key|; if))", "--tls-cert "),
        (r"\b(?<!-)key (?=\S+: )", "--tls-key "),
        (r"; give its password$", "; give its password with --tls-key-password-file"),
        (r"give the file that has it as key$", "give the file that has it with --tls-key"),
        (r"\ba server needs ca$", "a listener needs --tls-ca"),
        (
            r"\(mutual TLS\): give one that it trusts",
            "(mutual TLS): give --tls-cert, and --tls-key",
        ),
        (r" \(Timeouts\.connect\)", " (--connect-timeout)"),
        (r" \(Timeouts\.\w+\)", ""),
        (r"contexts_for\(paths, transcode=True\), (?=on_mismatch)", ""),
        (r'on_mismatch="transcode"', "--on-mismatch transcode"),
        (r"for which commit takes a listener$", "for which commit has --listen-port"),
        (r": give a value by keyword, or a PerformedSeries$", ": give that with -k KEY=VALUE"),
        (r"complete\(workitem=Code\(…\)\)$", "give --workitem VALUE^SCHEME^MEANING"),
        (r" or (?:a )?datetime\.\w+(?:\([^)]*\))?", ""),
    )
)
"""What the library says of its arguments, and what that is on the command line."""


_EXTRA_PORT = re.compile(r"unexpected extra argument \(\d{1,5}\)$")


def describe(error: BaseException) -> str:
    """An error in words, without its type where the words suffice."""
    text = _in_words(error)
    if isinstance(error, OSError):
        text = re.sub(r"\bNone (is )?for all\b", r"* \1for all", text)
    if isinstance(error, dimse.DimseError):
        for said, option in _OPTIONS:
            text = said.sub(option, text)
    return text


def _in_words(error: BaseException) -> str:
    if isinstance(error, click.ClickException):
        return _EXTRA_PORT.sub(r"\g<0>; a peer is HOST:PORT, in one", error.format_message())
    if isinstance(error, OSError) and not isinstance(error, dimse.DimseError):
        reason = error.strerror or str(error) or type(error).__name__
        return reason if error.filename is None else f"{error.filename}: {reason}"
    if is_expected(error):
        return str(error) or type(error).__name__
    return f"internal error, please report it: {type(error).__name__} (-vv shows where)"


def printable(text: str) -> str:
    """A text with nothing in it that a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def one_line(text: str) -> str:
    """The same, and with its line breaks and tabs made spaces."""
    return printable(" ".join(text.split()))


def report(message: str) -> None:
    """Print one line on standard error."""
    print(f"dimse-trio: {one_line(message)}", file=sys.stderr, flush=True)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in an exception group, at any depth; of another exception, itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
            yield from leaves(inner)  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield error


def report_failure(error: BaseException) -> ExitCode:
    """Print what ended a command, once for each different error, and give the exit code."""
    code: ExitCode | None = None
    for line, leaf in {describe(leaf): leaf for leaf in leaves(error)}.items():
        if not is_expected(leaf):
            _explain_bug(leaf)
        report(line)
        code = code or exit_code_of(leaf)
    return code or ExitCode.FAILED


def _explain_bug(error: BaseException) -> None:
    """With `-vv`, where an exception came from that nobody foresaw, without its message."""
    if logging.getLogger("dimse_trio").isEnabledFor(logging.DEBUG):
        print("".join(traceback.format_tb(error.__traceback__)), file=sys.stderr, end="")
