"""What the programs' command lines have in common."""

from __future__ import annotations

import os
from pathlib import Path

from dimse_trio.protocol.uids import uid_of

TIMEOUT = 30
"""Seconds that a program waits for a connection, for ACSE and for DIMSE messages."""

Folder = str | os.PathLike[str]

_LETTERS = {
    uid_of(keyword): letter
    for keyword, letter in {
        "ExplicitVRLittleEndian": "e",
        "ExplicitVRBigEndian": "b",
        "ImplicitVRLittleEndian": "i",
        "DeflatedExplicitVRLittleEndian": "d",
        "JPEGLosslessSV1": "s",
        "JPEGBaseline8Bit": "y",
        "JPEGExtended12Bit": "x",
        "JPEG2000Lossless": "v",
        "JPEG2000": "w",
        "JPEGLSLossless": "t",
        "JPEGLSNearLossless": "u",
        "RLELossless": "r",
    }.items()
}
"""How the programs' options -x? (propose) and +x? (prefer) call the transfer syntaxes."""

TRANSFER_SYNTAXES = tuple(_LETTERS)
"""The transfer syntaxes that the runners' argument `transfer_syntax` takes."""


def syntax_option(sign: str, transfer_syntax: str | None) -> list[str]:
    """The option that proposes (`-`) or prefers (`+`) a transfer syntax; none for `None`."""
    if transfer_syntax is None:
        return []
    if transfer_syntax not in _LETTERS:
        raise ValueError(f"DCMTK's programs have no option for transfer syntax {transfer_syntax}")
    return [f"{sign}x{_LETTERS[transfer_syntax]}"]


def made(folder: Folder) -> Path:
    """The folder, made if need be, as an absolute path."""
    path = Path(folder).absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path
