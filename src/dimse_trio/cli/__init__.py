"""`dimse-trio`, the command line: one set of habits over the package's public API.

`main` is the entry point. It needs click and rich, the extra `cli`, and imports them only when it
runs; what a command alone needs (pydicom, the archive, tables) is imported by that command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `dimse-trio` and give its exit code; nothing but `SystemExit` leaves it.

    Args:
        arguments: The command line without the program's name; by default the process's own.
    """
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        print(
            f"dimse-trio: needs {' and '.join(missing)}, which come with the extra cli:"
            ' pip install "dimse-trio[cli]"',
            file=sys.stderr,
        )
        return 2
    try:
        from .app import run

        return run(arguments)
    except KeyboardInterrupt:  # before there is anything to stop in good order
        print("dimse-trio: interrupted", file=sys.stderr)
        return 130
