"""Hours of associations of every kind and end, and then: what is left that should not be?

`python tests/soak/soak.py --minutes 30 --associations 100` keeps that many associations going at
once against a server in another process. Each is used (echo, store small and large, find, get), and
released, cancelled, aborted, or dropped by a closed socket or RST, at a random moment. After a
warm-up and again at the end everything pauses, and both processes say what they hold: tasks, file
descriptors and threads must be the same, and resident memory must not have grown by more than
`--growth`. Exit status 1 if they do, or if anything failed that should not.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import socket
import struct
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import trio
from measuring import MIB, Holdings, holdings, serve_and_report, server_process, table
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

import dimse_trio as dimse

CT = dimse.uid_of("CTImageStorage")
EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")
CONTEXTS = [
    dimse.PresentationContext(dimse.uid_of("Verification")),
    dimse.PresentationContext(dimse.uid_of("StudyRootQueryRetrieveInformationModelFind")),
    dimse.PresentationContext(dimse.uid_of("StudyRootQueryRetrieveInformationModelGet")),
    dimse.PresentationContext(CT, (EXPLICIT,), scp=True),
]
SERVER_TIMEOUTS = dimse.Timeouts(idle=120, response=120, linger=1)
CLIENT_TIMEOUTS = dimse.Timeouts(associate=120, release=60, response=120, linger=1)
"""Long, as a machine with little to spare takes its time: what is not ours to find out here."""
QUIET = 13.0
"""Seconds of a pause: threads without work end after 10."""
SMALL, LARGE = 4 << 10, 6 << 20


def write_instance(path: Path, uid: str, size: int) -> Path:
    """A DICOM file with that many bytes of pixel data."""
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = UID(CT), UID(uid)
    data_set.PatientID, data_set.StudyInstanceUID = "SOAK", "1.2.3"
    data_set.SeriesInstanceUID = "1.2.3.1"
    data_set.add_new("PixelData", "OW", os.urandom(size))
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    data_set.file_meta.MediaStorageSOPClassUID = UID(CT)
    data_set.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    data_set.save_as(path, enforce_file_format=True)
    return path


@attrs.define
class Busy:
    """The server's handler: quick and slow, to disk and to nowhere, now and then broken."""

    folder: Path
    pick: random.Random = attrs.field(factory=random.Random)

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        match self.pick.randrange(4):
            case 0:
                return dimse.Status.OUT_OF_RESOURCES
            case 1:
                async for _ in request.chunks():
                    await trio.lowlevel.checkpoint()
            case 2:
                await trio.sleep(self.pick.random() / 10)
                await request.data_set()
            case _:
                await request.save_as(self.folder / f"{self.pick.randrange(50)}.dcm")
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        for index in range(self.pick.choice([0, 3, 300])):
            match = Dataset()
            match.StudyInstanceUID = f"1.2.{index}"
            match.PatientName = "Soak^Test"
            yield match
            if self.pick.random() < 0.01:
                await trio.sleep(0.2)

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        for index in range(self.pick.randrange(4)):
            yield self.folder / f"get-{index}.dcm"


async def run_server(folder: Path) -> None:
    """The other process."""
    for index in range(4):
        size = LARGE if index == 3 else SMALL
        write_instance(folder / f"get-{index}.dcm", f"1.2.4.{index}", size)
    await serve_and_report(
        Busy(folder),
        timeouts=SERVER_TIMEOUTS,
        max_associations=150,
        max_associations_per_peer=150,
        ae_title="SOAK",
    )


@attrs.define
class Load:
    """The client's side: scenarios, and what came of them."""

    port: int
    folder: Path
    small: Path
    large: Path
    pick: random.Random
    counts: Counter[str] = attrs.field(factory=Counter[str])
    unexpected: list[str] = attrs.field(factory=list[str])

    async def use(self, association: dimse.Association) -> None:
        """A few operations, some at once."""
        for _ in range(self.pick.randrange(1, 5)):
            await self.operation(association)

    async def operation(self, association: dimse.Association) -> None:
        kind = self.pick.randrange(8)
        query = dimse.query("STUDY", StudyInstanceUID="1.2.3")
        if kind < 2:
            await association.echo()
        elif kind < 4:
            await association.store(self.small, check=False)
        elif kind == 4:
            await association.store(self.large, check=False)
        elif kind == 5:
            await association.find(query)
        elif kind == 6:
            async with association.find(query) as matches:
                async for _ in matches:
                    if self.pick.random() < 0.05:
                        break
        else:
            async with association.get(query) as instances:
                async for instance in instances:
                    if self.pick.random() < 0.2:
                        break
                    async for _ in instance.chunks():
                        pass
        self.counts["operations"] += 1

    def soon(self) -> float:
        """A moment at which something happens: mostly while something else does."""
        return self.pick.choice([0.0, self.pick.random() / 50, self.pick.random()])

    async def well_behaved(self) -> None:
        async with self.associated() as association:
            await self.use(association)

    async def impatient(self) -> None:
        """Operations are cancelled; the association lives on, or is aborted for it."""
        async with self.associated() as association:
            for _ in range(3):
                with trio.move_on_after(self.soon()):
                    await self.use(association)

    async def parallel(self) -> None:
        async with self.associated() as association:
            for _ in range(3):
                association.start_soon(self.operation, association)

    async def cancelled(self) -> None:
        with trio.move_on_after(self.soon()):
            async with self.associated() as association:
                await self.use(association)

    async def aborting(self) -> None:
        async with self.associated() as association:
            association.start_soon(self.use, association)
            await trio.sleep(self.soon())
            await association.abort()

    async def raising(self) -> None:
        class Own(Exception):
            pass

        try:
            async with self.associated() as association:
                with trio.move_on_after(self.soon()):
                    await self.use(association)
                raise Own
        except Own:
            pass

    async def dropped(self, *, reset: bool) -> None:
        """The connection goes without a word: FIN in the middle of something, or RST."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with trio.open_nursery() as nursery:

            async def drop() -> None:
                await trio.sleep(self.soon())
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                stream.socket.close()

            nursery.start_soon(drop)
            async with dimse.associate_over(
                stream, contexts=CONTEXTS, called_ae_title="SOAK", timeouts=CLIENT_TIMEOUTS
            ) as association:
                await self.use(association)

    async def rejected(self) -> None:
        async with dimse.open_association(
            "127.0.0.1", self.port, contexts=CONTEXTS, called_ae_title="OTHER"
        ):
            raise AssertionError("the server took a wrong AE title")

    async def noisy(self) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            await stream.send_all(self.pick.randbytes(self.pick.randrange(200)))
            with trio.move_on_after(self.soon()):
                await stream.receive_some(100)

    def associated(self) -> AbstractAsyncContextManager[dimse.Association]:
        """An association with the server."""
        return dimse.open_association(
            "127.0.0.1",
            self.port,
            contexts=CONTEXTS,
            called_ae_title="SOAK",
            timeouts=CLIENT_TIMEOUTS,
        )

    async def one(self) -> None:
        """One association's life, whatever becomes of it."""
        scenarios: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("released", self.well_behaved),
            ("operations cancelled", self.impatient),
            ("parallel", self.parallel),
            ("cancelled", self.cancelled),
            ("aborted", self.aborting),
            ("body raised", self.raising),
            ("closed", lambda: self.dropped(reset=False)),
            ("reset", lambda: self.dropped(reset=True)),
            ("rejected", self.rejected),
            ("noise", self.noisy),
        ]
        name, scenario = self.pick.choice(scenarios)
        try:
            await scenario()
        except* (dimse.AssociationError, OSError, trio.BrokenResourceError) as group:
            for error in leaves(group):
                late = f": {error}" if isinstance(error, dimse.AssociationTimeout) else ""
                self.counts[type(error).__name__ + late] += 1
                if name in ("released", "parallel"):
                    self.unexpected.append(f"{name}: {error!r}")
        except* trio.ClosedResourceError:
            self.counts["ClosedResourceError"] += 1
        except* dimse.StatusError:
            self.counts["StatusError"] += 1
        except* Exception as group:
            self.unexpected.append(f"{name}: " + "".join(traceback.format_exception(group)))
        self.counts[name] += 1

    async def run(self, seconds: float, associations: int) -> None:
        """Keep that many going until the time is over, then let them end."""
        deadline = trio.current_time() + seconds

        async def keep_on() -> None:
            while trio.current_time() < deadline:
                await self.one()

        async with trio.open_nursery() as nursery:
            for _ in range(associations):
                nursery.start_soon(keep_on)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def soak(minutes: float, associations: int, growth: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "server").mkdir()
        small = write_instance(folder / "small.dcm", "1.2.3.4", SMALL)
        large = write_instance(folder / "large.dcm", "1.2.3.5", LARGE)
        async with server_process(__file__, "--serve", str(folder / "server")) as server:
            load = Load(server.port, folder, small, large, random.Random(seed))
            warm_up = min(60.0, 60 * minutes / 3)

            async def measured(seconds: float) -> tuple[Holdings, Holdings]:
                await load.run(seconds, associations)
                await trio.sleep(QUIET)
                while (await server.report())["associations_open"]:  # noqa: ASYNC110 - afar
                    await trio.sleep(1)
                return holdings(), await server.holdings()

            before = await measured(warm_up)
            after = await measured(60 * minutes - warm_up)
            statistics = await server.report()
    return conclude(load, before, after, growth, statistics)


def conclude(
    load: Load,
    before: tuple[Holdings, Holdings],
    after: tuple[Holdings, Holdings],
    growth: int,
    statistics: dict[str, int],
) -> int:
    """Print figures and verdict; the exit status."""
    failed = bool(load.unexpected)
    rows: list[tuple[str, ...]] = [("", "after warm-up", "at the end", "verdict")]
    for process, one, other in zip(("client", "server"), before, after, strict=True):
        for field in ("tasks", "fds", "threads", "rss"):
            old, new = getattr(one, field), getattr(other, field)
            ok = new <= old + growth if field == "rss" else new == old
            failed = failed or not ok
            shown = [f"{v / MIB:.1f} MiB" if field == "rss" else str(v) for v in (old, new)]
            rows.append((f"{process} {field}", *shown, "ok" if ok else "NOT OK"))
    print(table(rows))
    for name, count in sorted(load.counts.items()):
        print(f"{count:8} {name}")
    for text in load.unexpected[:10]:
        print("UNEXPECTED", text)
    report = {
        "before": {"client": attrs.asdict(before[0]), "server": attrs.asdict(before[1])},
        "after": {"client": attrs.asdict(after[0]), "server": attrs.asdict(after[1])},
        "counts": load.counts,
        "server": statistics,
        "unexpected": len(load.unexpected),
        "rss_bound": growth,
        "ok": not failed,
    }
    print(json.dumps(report))
    return int(failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="in all, warm-up included")
    parser.add_argument("--associations", type=int, default=100, help="how many at once")
    parser.add_argument("--growth", type=int, default=32, help="MiB that memory may grow by")
    parser.add_argument("--seed", type=int, default=1, help="of the client's choices")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    if arguments.serve:
        trio.run(run_server, arguments.serve)
        return 0
    return trio.run(
        soak,
        arguments.minutes,
        arguments.associations,
        arguments.growth * MIB,
        arguments.seed,
    )


if __name__ == "__main__":
    sys.exit(main())
