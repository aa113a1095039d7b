"""Progress bars on standard error, if somebody looks at it; else nothing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import Format, stderr_is_terminal, stdout_is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """How far something has come. Without a terminal it forgets what it is told."""

    def __init__(self, progress: Progress | None = None, task: TaskID | None = None) -> None:
        self._progress = progress
        self._task = task

    def update(self, completed: int, total: int | None = None) -> None:
        """Show that so much is done, of so much if that is known."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=completed, total=total)


@contextmanager
def bar(what: str, output: Format, total: int | None = None) -> Generator[Bar]:
    """A progress bar for as long as the block takes.

    There is none where it would run into the results: a terminal that these are printed on, too.
    """
    mixed = output is not Format.TABLE and stdout_is_terminal()
    if mixed or not stderr_is_terminal():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield Bar(progress, progress.add_task(what, total=total))
