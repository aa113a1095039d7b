"""Our SCP: Verification, storage to nowhere or to disk, query, retrieve. Ends with its stdin."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncIterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import attrs
import trio
from pydicom import Dataset

import dimse_trio as dimse
from benchmarks.data import MATCHES, match


@attrs.define
class Discarding:
    """Receives instances and lets them go."""

    files: list[Path]
    matches: list[Dataset] = attrs.field(factory=lambda: [match(n) for n in range(1, MATCHES + 1)])

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        async for _ in request.chunks():
            pass
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        for found in islice(cycle(self.matches), int(request.identifier.PatientID)):
            yield found

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        for file in self.files[: int(request.identifier.StudyInstanceUID.rpartition(".")[2])]:
            yield file


@attrs.define
class Saving(Discarding):
    """Keeps instances."""

    folder: Path = attrs.field(kw_only=True)

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        await request.save_as(self.folder / request.file_name)
        return dimse.Status.SUCCESS


async def serve(arguments: argparse.Namespace) -> None:
    files = sorted(arguments.files.iterdir()) if arguments.files else []
    handler = Saving(files, folder=arguments.sink) if arguments.sink else Discarding(files)
    options: dict[str, Any] = {"quick_ack": not arguments.delayed_ack}
    if arguments.window:
        options["async_operations"] = (arguments.window, arguments.window)
    async with dimse.open_server(
        handler, max_associations=2000, max_associations_per_peer=2000, **options
    ) as server:
        print(json.dumps({"port": server.port}), flush=True)
        await trio.lowlevel.wait_readable(sys.stdin)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sink", type=Path)
    parser.add_argument("--files", type=Path)
    parser.add_argument("--window", type=int)
    parser.add_argument("--delayed-ack", action="store_true", help="quick_ack=False")
    trio.run(serve, parser.parse_args())


if __name__ == "__main__":
    main()
