"""Captures, as tshark reads them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CHECKED = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")


def tshark(path: Path, *options: str) -> list[str]:
    """The lines that tshark prints about a capture that it can read whole."""
    done = subprocess.run(
        ["tshark", "-r", path, *CHECKED, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"HOME": str(path.parent)},  # not the user's preferences
    )
    assert done.returncode == 0, done.stderr
    assert "cut short" not in done.stderr
    return done.stdout.splitlines()


def fields(path: Path, display_filter: str, *names: str) -> list[list[str]]:
    """The values of these fields in each packet that fits."""
    options = [word for name in names for word in ("-e", name)]
    return [
        line.split("\t") for line in tshark(path, "-Y", display_filter, "-T", "fields", *options)
    ]
