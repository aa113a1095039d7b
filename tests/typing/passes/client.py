"""What the client's operations give, as type checkers see it."""

from pathlib import Path
from typing import assert_type

from pydicom import Dataset

import dimse_trio as dimse


async def uses(assoc: dimse.Association, query: dimse.Query) -> None:
    assert_type((await assoc.echo()).status, dimse.Status)
    assert_type((await assoc.store("image.dcm")).status, dimse.Status)
    await assoc.store(Path("image.dcm"), check=False)
    await assoc.store(Dataset())
    assert_type(await assoc.find(query), list[Dataset])
    assert_type(await assoc.find_studies(PatientName="DOE*"), list[Dataset])
    assert_type(await assoc.move(query, destination="WORKSTATION"), dimse.RetrieveResult)
    assert_type(await assoc.get(query, save_to="incoming"), dimse.RetrieveResult)
    async with assoc.find(query) as matches:
        async for match in matches:
            assert_type(match, Dataset)
    async with assoc.get(query) as instances:
        async for instance in instances:
            assert_type(instance, dimse.StoreRequest)
            async for chunk in instance.chunks():
                assert_type(chunk, bytes)
    assoc.start_soon(assoc.store, "image.dcm")


async def opens() -> None:
    async with dimse.open_association("127.0.0.1") as assoc:
        assert_type(assoc, dimse.Association)
    async with dimse.open_server(object()) as server:
        assert_type(server, dimse.Server)
        assert_type(server.port, int)
