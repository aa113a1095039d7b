"""Handlers as users write them, which type checkers must let pass."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydicom import Dataset

import dimse_trio as dimse


class Archive:
    """One object with every method, named and typed as in the documentation."""

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        await request.save_as(Path("incoming") / request.file_name)
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        yield request.identifier

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        yield Path("image.dcm")

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[dimse.Instance]:
        yield dimse.Instance.from_file("image.dcm")

    async def resolve_destination(self, ae_title: str) -> dimse.Destination | None:
        return None

    @asynccontextmanager
    async def handle_association(self, request: dimse.AssociationRequest) -> AsyncGenerator[None]:
        yield


class OnlyStore:
    async def handle_store(self, r: dimse.StoreRequest) -> dimse.Status:
        return dimse.Status(0xB000)


class Derived(dimse.Handler):
    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        yield Dataset()


archive = Archive()
echo: dimse.SupportsEcho = archive
store: dimse.SupportsStore = archive
find: dimse.SupportsFind = archive
get: dimse.SupportsGet = archive
move: dimse.SupportsMove = archive
destinations: dimse.SupportsDestinations = archive
association: dimse.SupportsAssociation = archive
only_store: dimse.SupportsStore = OnlyStore()
derived: dimse.SupportsFind = Derived()
