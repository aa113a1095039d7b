"""What goes to standard output: tables, comma-separated values, JSON objects a line each.

Standard output is written without holding up the event loop, where the platform can tell that it is
ready: whoever reads slowly slows the peer down through the association, and signals are still seen.
"""

from __future__ import annotations

import csv
import enum
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import trio

from .errors import one_line, printable

_BLOCK = 4096
"""What a pipe that is ready takes without blocking, at least (PIPE_BUF)."""
_REST_WITHIN = 1.0
"""Seconds for the rest of a line that has been begun, once the program is being stopped."""


class Format(enum.Enum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def stdout_is_terminal() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def stderr_is_terminal() -> bool:
    """Whether somebody looks at standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


class Output:
    """Standard output for one command.

    When nobody reads it any more, `on_closed` is called, and what is printed goes nowhere.

    Args:
        on_closed: What to do then: stop.
        format: How rows are printed.
        columns: Their names; of a table and of comma-separated values only these are printed.
        headings: What a table calls them, where that is not their name.
    """

    def __init__(
        self,
        on_closed: Callable[[], None],
        format: Format,
        columns: Sequence[str] = (),
        *,
        headings: Mapping[str, str] | None = None,
    ) -> None:
        self._on_closed = on_closed
        self._closed = False
        self.format = format
        self._columns = list(columns)
        self._headings = headings or {}
        self._rows: list[list[str]] = []
        self._lock = trio.Lock()
        self._header_written = False

    @property
    def is_table(self) -> bool:
        return self.format is Format.TABLE

    async def json(self, value: object) -> None:
        """Print an object as one line of JSON."""
        await self.line(_json(value))

    async def row(self, values: Mapping[str, object]) -> None:
        """Print a row, or keep it for the table at the end."""
        if self.format is Format.JSON:
            await self.json(values)
            return
        cells = [_cell(values.get(column)) for column in self._columns]
        if self.format is Format.TABLE:
            self._rows.append(cells)
            return
        await self._csv_header()
        await self.line(_csv_line(cells))

    async def finish(self, *, drop_empty: Iterable[str] = ()) -> None:
        """Print what is left: the table, or at least the header of comma-separated values.

        Args:
            drop_empty: Columns of the table that may be left out if they have no value at all.
        """
        if self.format is Format.CSV:
            await self._csv_header()
        if self.format is not Format.TABLE or not self._rows:
            return
        optional = set(drop_empty)
        shown = [
            index
            for index, name in enumerate(self._columns)
            if name not in optional or any(row[index] for row in self._rows)
        ]
        names = [self._columns[index] for index in shown]
        header = [self._headings.get(name, name) for name in names]
        rows = [[one_line(row[index]) for index in shown] for row in self._rows]
        if stdout_is_terminal():
            _rich_table(header, rows)
        else:
            for line in _plain_table(header, rows):
                await self.line(line)

    async def _csv_header(self) -> None:
        if not self._header_written:
            self._header_written = True
            await self.line(_csv_line(self._columns))

    async def line(self, text: str) -> None:
        """Print one line, at once. What has been begun is finished if it is read."""
        async with self._lock:
            if self._closed:
                return
            if stdout_is_terminal():
                text = printable(text)
            try:
                await _write((text + "\n").encode("utf-8", "replace"))
            except BrokenPipeError:
                self._closed = True
                self._on_closed()


async def _write(data: bytes) -> None:
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # replaced by something that is no file
        sys.stdout.write(data.decode("utf-8"))
        return
    sys.stdout.flush()
    left = memoryview(data)
    await _wait_writable(descriptor)
    try:
        left = left[os.write(descriptor, left[:_BLOCK]) :]
        while left:
            await _wait_writable(descriptor)
            left = left[os.write(descriptor, left[:_BLOCK]) :]
    except trio.Cancelled:
        with trio.move_on_after(_REST_WITHIN, shield=True):
            while left:
                await _wait_writable(descriptor)
                left = left[os.write(descriptor, left[:_BLOCK]) :]
        raise


async def _wait_writable(descriptor: int) -> None:
    """Wait until a pipe or terminal takes bytes. Files always do, and elsewhere nobody can tell."""
    await trio.lowlevel.checkpoint()
    if sys.platform != "win32":
        with suppress(OSError):
            await trio.lowlevel.wait_writable(descriptor)


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:  # there is a number that JSON has no way to write
        return json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False)


def _without_nan(value: Any) -> Any:
    """The same with "NaN", "Infinity" and "-Infinity" as strings.

    PS3.18 Table F.2.3-1 has only numbers for FL and FD; others write these too.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {key: _without_nan(inner) for key, inner in items}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in cast("Iterable[Any]", value)]
    return value


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "\\".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    return str(value)


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _plain_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Columns padded to their widest value: for a pipe, so nothing is cut off."""
    table = [header, *rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _rich_table(header: list[str], rows: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in header:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(highlight=False)
    console.print(table)


def human_size(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 instance`, `2 instances`, `2 studies`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"
