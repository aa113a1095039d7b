"""DCMTK's service class users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .options import TIMEOUT, Folder, made, syntax_option
from .programs import HOST, Completed, run_program

Keys = Mapping[str, str]
"""Query keys: keyword, tag or path to value, `""` to have the attribute returned."""


async def echoscu(
    port: int,
    *,
    host: str = HOST,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "ECHOSCU",
    timeout: int = TIMEOUT,
    options: Sequence[str] = (),
    check: bool = True,
) -> Completed:
    """C-ECHO.

    Args:
        port: The peer's port.
        host: Its name or address.
        called_ae_title: Its AE title.
        calling_ae_title: The program's own.
        timeout: Seconds that it waits for the connection, for ACSE and for DIMSE messages.
        options: More options, such as `--repeat 100`, each word by itself.
        check: Whether a return code other than 0 is an error.

    Raises:
        ProgramMissing: It is not installed.
        ProgramFailed: See `check`.
    """
    common = _common(called_ae_title, calling_ae_title, timeout)
    return await run_program("echoscu", [*common, *options, host, str(port)], check=check)


async def storescu(
    port: int,
    *files: Folder,
    host: str = HOST,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "STORESCU",
    transfer_syntax: str | None = None,
    timeout: int = TIMEOUT,
    options: Sequence[str] = ("-R",),
    check: bool = True,
) -> Completed:
    """C-STORE of files. It encodes data sets anew: what arrives has other bytes than the file.

    Beside what `echoscu` takes:

    * `files`: what to send; those in a transfer syntax that it did not propose are not sent;
    * `transfer_syntax`: what it proposes beside the uncompressed ones;
    * `options`: by default, to propose no more contexts than the files need.

    Raises:
        ProgramMissing, ProgramFailed: As for `echoscu`.
        ValueError: The options have no name for the transfer syntax.
    """
    common = _common(called_ae_title, calling_ae_title, timeout)
    common += [*syntax_option("-", transfer_syntax), *options]
    return await run_program("storescu", [*common, host, str(port), *map(str, files)], check=check)


async def findscu(
    port: int,
    keys: Keys,
    *,
    model: str = "-S",
    folder: Folder | None = None,
    host: str = HOST,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "FINDSCU",
    transfer_syntax: str | None = None,
    cancel_after: int | None = None,
    timeout: int = TIMEOUT,
    options: Sequence[str] = (),
    check: bool = True,
) -> Completed:
    """C-FIND.

    Beside what `echoscu` takes:

    * `keys`: the identifier;
    * `model`: `-S` Study Root, `-P` Patient Root, `-W` worklist;
    * `folder`: where the matches are written to, one DICOM file each; made if need be;
    * `transfer_syntax`: which one it proposes first;
    * `cancel_after`: the number of matches after which it sends C-CANCEL.

    Raises:
        ProgramMissing, ProgramFailed, ValueError: As for `storescu`.
    """
    common = _common(called_ae_title, calling_ae_title, timeout)
    path = None if folder is None else made(folder)
    common += [] if path is None else ["-X", "-od", str(path)]
    common += [model, *syntax_option("-", transfer_syntax), *_cancel(cancel_after), *_keys(keys)]
    return await run_program(
        "findscu", [*common, *options, host, str(port)], folder=path, check=check
    )


async def getscu(
    port: int,
    keys: Keys,
    folder: Folder,
    *,
    model: str = "-S",
    host: str = HOST,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "GETSCU",
    transfer_syntax: str | None = None,
    timeout: int = TIMEOUT,
    options: Sequence[str] = ("+B",),
    check: bool = True,
) -> Completed:
    """C-GET; `files` of the result are the instances.

    Beside what `echoscu` takes:

    * `keys`: the identifier;
    * `folder`: where the instances are written to; made if need be;
    * `model`: `-S` Study Root, `-P` Patient Root;
    * `transfer_syntax`: which one it proposes first for storage; for Implicit VR Little Endian it
      proposes Explicit;
    * `options`: by default, to write data sets as they arrive.

    Raises:
        ProgramMissing, ProgramFailed, ValueError: As for `storescu`.
    """
    common = _common(called_ae_title, calling_ae_title, timeout)
    path = made(folder)
    common += [
        "-od",
        str(path),
        model,
        *syntax_option("+", transfer_syntax),
        *_keys(keys),
        *options,
    ]
    return await run_program("getscu", [*common, host, str(port)], folder=path, check=check)


async def movescu(
    port: int,
    keys: Keys,
    *,
    destination: str,
    model: str = "-S",
    folder: Folder | None = None,
    receive_on: int | None = None,
    host: str = HOST,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "MOVESCU",
    cancel_after: int | None = None,
    timeout: int = TIMEOUT,
    options: Sequence[str] = (),
    check: bool = True,
) -> Completed:
    """C-MOVE, to a third party or to the program itself.

    Beside what `echoscu` takes:

    * `keys`: the identifier;
    * `destination`: AE title of the move destination;
    * `model`: `-S` Study Root, `-P` Patient Root;
    * `folder`: where instances are written to that it receives itself; made if need be;
    * `receive_on`: the port that it receives on itself, in all transfer syntaxes that it knows;
    * `cancel_after`: the number of pending responses after which it sends C-CANCEL.

    Raises:
        ProgramMissing, ProgramFailed: As for `echoscu`.
    """
    common = _common(called_ae_title, calling_ae_title, timeout)
    path = None if folder is None else made(folder)
    common += [] if path is None else ["-od", str(path)]
    common += [] if receive_on is None else ["+B", "+xa", "+P", str(receive_on)]
    common += ["-aem", destination, model, *_cancel(cancel_after), *_keys(keys), *options]
    return await run_program("movescu", [*common, host, str(port)], folder=path, check=check)


def _common(called_ae_title: str, calling_ae_title: str, timeout: int) -> list[str]:
    seconds = str(timeout)
    titles = ["-aec", called_ae_title, "-aet", calling_ae_title]
    return ["-v", *titles, "-to", seconds, "-ta", seconds, "-td", seconds]


def _cancel(after: int | None) -> list[str]:
    return [] if after is None else ["--cancel", str(after)]


def _keys(keys: Keys) -> list[str]:
    return [part for key, value in keys.items() for part in ("-k", f"{key}={value}")]
