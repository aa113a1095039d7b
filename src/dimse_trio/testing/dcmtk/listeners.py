"""DCMTK's service class providers: storage, archive, worklist."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from shutil import copyfile
from typing import TYPE_CHECKING

from dimse_trio import datasets
from dimse_trio.blocks import block
from dimse_trio.part10 import file_header
from dimse_trio.protocol.uids import EXPLICIT_VR_LITTLE_ENDIAN, MODALITY_WORKLIST_FIND

from .options import TIMEOUT, Folder, made, syntax_option
from .programs import Listener, listening, run_program

if TYPE_CHECKING:
    from pydicom import Dataset


@block("storescp(…) as peer")
async def storescp(
    folder: Folder,
    *,
    ae_title: str = "STORESCP",
    accept: Sequence[str] = ("+xa",),
    fork: bool = True,
    bit_preserving: bool = True,
    timeout: int = TIMEOUT,
    options: Sequence[str] = (),
) -> AsyncGenerator[Listener]:
    """A storage SCP that writes what it is sent to `folder`. It takes any called AE title.

    Args:
        folder: Made if need be.
        ae_title: Its AE title.
        accept: Options for the transfer syntaxes that it accepts; by default all that it knows.
        fork: Serve several associations at a time; if not, the second waits for the first.
        bit_preserving: Write the data sets as they arrive.
        timeout: Seconds that it waits for ACSE and DIMSE messages.
        options: More options, such as `--refuse` or `--abort-after`.

    Raises:
        DcmtkError: It is not installed, does not start, or ended by itself.
    """
    path = made(folder)
    fixed = ["-v", "-aet", ae_title, "-od", str(path), "-ta", str(timeout), "-td", str(timeout)]
    fixed += [*accept, *["--fork"] * fork, *["+B"] * bit_preserving, *options]
    async with listening(
        "storescp", lambda port: [*fixed, str(port)], ae_title=ae_title, folder=path
    ) as listener:
        yield listener


@block("dcmqrscp(…) as peer")
async def dcmqrscp(
    folder: Folder,
    *files: Folder,
    ae_title: str = "DCMQRSCP",
    peers: Mapping[str, tuple[str, int]] | None = None,
    quota: tuple[int, str] = (1000, "1024mb"),
    access: str = "RW",
    transfer_syntax: str | None = None,
    max_associations: int = 64,
    fork: bool = True,
    timeout: int = TIMEOUT,
    options: Sequence[str] = (),
) -> AsyncGenerator[Listener]:
    """An archive: stores, finds, moves, gets. Its configuration and its store go to `folder`.

    Beside the uncompressed transfer syntaxes it takes and proposes at most one other. It sends a
    SOP class in the transfer syntax of the first context that was accepted for it: a compressed
    instance only arrives if that context is of its transfer syntax.

    Args:
        folder: Made if need be.
        files: DICOM files to begin with.
        ae_title: Its AE title. Another called AE title is rejected.
        peers: AE title to host and port: where a C-MOVE may go.
        quota: How many studies it keeps, and how much of each; beyond, it drops the oldest.
        access: `"RW"`, `"R"` or `"W"`.
        transfer_syntax: The one that it prefers when it is sent, and proposes when it sends.
        max_associations: How many it has at a time; it rejects more. One that has ended counts for
            a second more.
        fork: Serve several associations at a time; if not, the second waits for the first.
        timeout: Seconds that it waits for connections, for ACSE and for DIMSE messages.
        options: More options.

    Raises:
        DcmtkError: It is not installed, does not start, or ended by itself.
        ValueError: The options have no name for the transfer syntax.
    """
    path = made(folder)
    store = made(path / ae_title)
    known = peers or {}
    hosts = [f"peer{n} = ({title}, {h}, {p})" for n, (title, (h, p)) in enumerate(known.items())]
    config = path / "dcmqrscp.cfg"
    config.write_text(
        "\n".join(
            [
                "NetworkTCPPort = 104",
                "MaxPDUSize = 131072",
                f"MaxAssociations = {max_associations}",
                "HostTable BEGIN",
                *hosts,
                "HostTable END",
                "VendorTable BEGIN",
                "VendorTable END",
                "AETable BEGIN",
                f'{ae_title} "{store}" {access} ({quota[0]}, {quota[1]}) ANY',
                "AETable END",
                "",
            ]
        )
    )
    if files:
        copies = [store / f"{number:06d}.dcm" for number in range(len(files))]
        for file, copy in zip(files, copies, strict=True):
            copyfile(file, copy)
        await run_program("dcmqridx", [str(store), *map(str, copies)], check=True)
    seconds = str(timeout)
    fixed = ["-v", "-c", str(config), "-to", seconds, "-ta", seconds, "-td", seconds]
    fixed += [] if fork else ["--single-process"]
    fixed += [*syntax_option("+", transfer_syntax), *syntax_option("-", transfer_syntax), *options]
    async with listening(
        "dcmqrscp", lambda port: [*fixed, str(port)], ae_title=ae_title, folder=store
    ) as listener:
        yield listener


@block("wlmscpfs(…) as peer")
async def wlmscpfs(
    folder: Folder,
    worklist: Iterable[Dataset] = (),
    *,
    ae_title: str = "WLMSCPFS",
    fork: bool = True,
    timeout: int = TIMEOUT,
    options: Sequence[str] = (),
) -> AsyncGenerator[Listener]:
    """A modality worklist, of the given data sets and the `.wl` files in `folder`/`ae_title`.

    It leaves out items without what it takes for required (`-dfr` among the options lets them in),
    and returns no character set (`-csk` keeps that of the items).

    Args:
        folder: Made if need be.
        worklist: Items to begin with.
        ae_title: Its AE title. Another called AE title is rejected.
        fork: Serve several associations at a time; if not, the second waits for the first.
        timeout: Seconds that it waits for ACSE and DIMSE messages.
        options: More options.

    Raises:
        DcmtkError: It is not installed, does not start, or ended by itself.
    """
    path = made(folder)
    items = made(path / ae_title)
    (items / "lockfile").touch()
    for number, item in enumerate(worklist, start=1):
        header = file_header(
            sop_class_uid=MODALITY_WORKLIST_FIND,
            sop_instance_uid=f"2.25.{number}",
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        )
        data = datasets.encode(item, EXPLICIT_VR_LITTLE_ENDIAN)
        (items / f"{number:06d}.wl").write_bytes(header + data)
    fixed = ["-v", "-dfp", str(path), "-ta", str(timeout), "-td", str(timeout)]
    fixed += [*([] if fork else ["--single-process"]), *options]
    async with listening(
        "wlmscpfs", lambda port: [*fixed, str(port)], ae_title=ae_title, folder=items
    ) as listener:
        yield listener
