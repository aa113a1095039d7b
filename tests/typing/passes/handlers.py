"""Handlers as users write them, which type checkers must let pass."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
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


class OnlyAdmission:
    @asynccontextmanager
    async def handle_association(
        self, request: dimse.AssociationRequest
    ) -> AsyncGenerator[dimse.Admission]:
        yield dimse.Admission()


class OnlyEvents:
    async def handle_n_event_report(self, request: dimse.NEventReportRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class Untyped:
    async def handle_store(self, request):  # type: ignore[no-untyped-def]
        return dimse.Status.SUCCESS


class RightAndWrong:
    """One right method is enough: what the others are, a checker does not look at here."""

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    def handle_store(self, request: dimse.FindRequest) -> None:
        return None


async def serves(handler: dimse.AnyHandler, stream: trio.abc.Stream) -> None:
    await dimse.serve(handler)
    await dimse.serve(Archive())
    await dimse.serve(OnlyStore())
    await dimse.serve(Derived())
    await dimse.serve(OnlyAdmission())
    await dimse.serve(OnlyEvents())
    await dimse.serve(Untyped())
    await dimse.serve(RightAndWrong())
    await dimse.serve(dimse.WorklistFolder("orders"))
    await dimse.serve(dimse.Handlers(OnlyStore(), dimse.PerformedProcedureSteps()))
    await dimse.serve_stream(OnlyStore(), stream)
    async with dimse.ProcedureSteps() as steps, dimse.open_server(steps, 0):
        pass
    async with dimse.open_association("127.0.0.1", handler=OnlyEvents()):
        pass
    async with trio.open_nursery() as nursery:
        await nursery.start(dimse.serve, OnlyStore(), 104)


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
