"""What the tests of the command line have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import trustme

from dimse_trio.cli import main

from .program import Ended, Keeper


@pytest.fixture
def files(study: dict[str, Any]) -> list[Path]:
    """The files of one study, in several transfer syntaxes, SOP classes and series."""
    return [sample.path for sample in study.values()]


@pytest.fixture
def study_uid(files: list[Path]) -> str:
    """Their Study Instance UID."""
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


@pytest.fixture
def keeper(files: list[Path], tmp_path: Path) -> Keeper:
    """A handler that has these files."""
    return Keeper.of(tmp_path / "kept", files)


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """Run the program in this process: for what ends before it opens anything, and much faster."""
    logger = logging.getLogger("dimse_trio")
    before = (logger.handlers, logger.level, logger.propagate)

    def run(*arguments: object) -> Ended:
        code = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Ended(code, shown.out, shown.err)

    yield run
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, Path]:
    """A certificate authority, and certificates of it, as PEM files."""
    authority = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "server", "client", "bare", "key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(files["server"])
    )
    client = authority.issue_cert("client.example")
    client.private_key_and_cert_chain_pem.write_to_path(str(files["client"]))
    client.cert_chain_pems[0].write_to_path(str(files["bare"]))
    client.private_key_pem.write_to_path(str(files["key"]))
    return files
