"""What the program logs, to standard error: nothing about patients, and no values of data sets.

Without `-v` a client says only what a peer has answered with a warning, and a listener what went
wrong; `-v` is INFO, `-vv` DEBUG. An exception is logged by its type: its message may quote a data
set. `-vv` adds where it was raised.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings

from .errors import one_line


class _StandardError(logging.Handler):
    """Prints records as lines; asks for `sys.stderr` each time, as a progress bar replaces it."""

    def __init__(self, verbosity: int) -> None:
        super().__init__()
        self._verbosity = verbosity
        self.formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        line = f"dimse-trio: {record.levelname.lower()}: {one_line(record.getMessage())}"
        if self._verbosity:
            assert self.formatter is not None
            line = f"{self.formatter.formatTime(record)} {line}"
        if record.exc_info and record.exc_info[0] is not None:
            line += f" ({record.exc_info[0].__name__})"
            if self._verbosity > 1:
                line += "\n" + "".join(traceback.format_tb(record.exc_info[2])).rstrip()
        print(line, file=sys.stderr, flush=True)


def set_up(verbosity: int, *, listener: bool = False) -> None:
    """Direct the package's log to standard error."""
    quiet = logging.WARNING if listener else logging.CRITICAL
    logger = logging.getLogger("dimse_trio")
    logger.handlers = [_StandardError(verbosity)]
    logger.setLevel({0: quiet, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    logger.propagate = False
    # a peer that has not taken all it was sent is news to whoever has sent it
    logging.getLogger("dimse_trio.normalized").setLevel(min(logger.level, logging.WARNING))
    # pydicom warns about values, and quotes them
    warnings.filterwarnings("ignore", module=r"pydicom\b")
