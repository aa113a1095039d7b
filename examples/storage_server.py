"""A storage and query server: what it is sent goes to a folder, and can be searched there.

python storage_server.py PORT FOLDER
"""

import sys
from collections.abc import AsyncIterator

import attrs
import pydicom
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.matching import compile_query


@attrs.define
class Archive:
    folder: trio.Path

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        await request.save_as(self.folder / request.file_name)  # streamed, never decoded
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        query = compile_query(request.identifier)
        for path in await self.folder.glob("*.dcm"):
            record = await trio.to_thread.run_sync(read_header, path)  # C-CANCEL arrives here,
            if query.matches(record):  # as trio.Cancelled
                yield query.response(record)


def read_header(path: trio.Path) -> Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)


async def main() -> None:
    port, folder = sys.argv[1:]
    await dimse.serve(Archive(trio.Path(folder)), int(port), ae_title="ARCHIVE")


if __name__ == "__main__":
    trio.run(main)
