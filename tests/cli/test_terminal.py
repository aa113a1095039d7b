"""What somebody at a terminal sees: tables, progress bars, and nothing that peers could inject."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse

from .program import COMMAND, Keeper, environment, served

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


async def at_a_terminal(*arguments: object) -> tuple[int, str]:
    """Run the program with a terminal for its output; the exit code, and what it showed."""
    master, slave = pty.openpty()
    shown = b""

    def read() -> bytes:
        try:
            return os.read(master, 65536)
        except OSError:  # how Linux says that the other end is closed
            return b""

    try:
        process = await trio.lowlevel.open_process(
            [*COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env=environment(TERM="xterm", COLUMNS="200", LINES="40"),
        )
        os.close(slave)
        with trio.fail_after(60):
            while data := await trio.to_thread.run_sync(read):
                shown += data
            code = await process.wait()
    finally:
        os.close(master)
    return code, shown.decode()


async def test_find_shows_a_table(keeper: Keeper, study_uid: str) -> None:
    async with served(keeper) as peer:
        code, shown = await at_a_terminal("find", *peer)
    assert code == 0
    text = ESCAPES.sub("", shown)
    assert "PatientName" in text
    assert study_uid in text
    assert "Traceback" not in text


async def test_other_commands_show_progress_and_a_summary(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    key = ("-k", f"StudyInstanceUID={study_uid}")
    async with served(keeper) as peer:
        code, shown = await at_a_terminal("get", *peer, *key, "--output", tmp_path / "got")
        assert (code, f"{len(files)} instances" in shown) == (0, True)
        code, shown = await at_a_terminal("store", *peer, *files, tmp_path / "missing")
        assert (code, f"{len(files)} sent, 1 failed" in shown) == (1, True)
        assert "missing: No such file" in shown
        code, shown = await at_a_terminal("move", *peer, *key, "--destination", "X")
        assert (code, "does not know the destination X" in shown) == (1, True)


@pytest.mark.parametrize("form", [(), ("--csv",)])
async def test_values_cannot_command_the_terminal(form: tuple[str, ...]) -> None:
    class Mischievous:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            match = Dataset()
            match.PatientID = "[red]\x1b[2J\x07"
            yield match

    async with served(Mischievous()) as peer:
        code, shown = await at_a_terminal("find", *peer, "-k", "PatientID", *form)
    assert code == 0
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "[red]" in ESCAPES.sub("", shown)
