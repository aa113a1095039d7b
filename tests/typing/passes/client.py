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
    result = await assoc.store("image.dcm", on_mismatch="transcode")
    assert_type(result.transfer_syntax_uid, str)
    assert_type(result.transcoded, bool)


def uid_or_nothing(mismatch: dimse.Mismatch) -> str | None:
    return next((uid for uid in mismatch.accepted if uid != "1.2.840.10008.1.2"), None)


async def another_file(mismatch: dimse.Mismatch) -> Path | dimse.Instance:
    assert_type(mismatch.accepted, tuple[str, ...])
    return Path(mismatch.sop_instance_uid)


async def has_policies(assoc: dimse.Association, pacs: dimse.RemoteAE) -> None:
    await assoc.store("image.dcm", on_mismatch=uid_or_nothing)
    await assoc.store("image.dcm", on_mismatch=another_file)
    await assoc.store("image.dcm", on_mismatch=lambda mismatch: mismatch.accepted[0])
    outcomes = await pacs.store("folder", on_mismatch=another_file)
    assert_type(outcomes[0].transfer_syntax_uid, str | None)
    async with dimse.open_server(dimse.EchoSCP(), on_mismatch=uid_or_nothing):
        pass


async def opens() -> None:
    async with dimse.open_association("127.0.0.1") as assoc:
        assert_type(assoc, dimse.Association)
    async with dimse.open_server(dimse.EchoSCP()) as server:
        assert_type(server, dimse.Server)
        assert_type(server.port, int)
