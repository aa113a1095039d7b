"""pynetdicom as requestor, a server of ours as acceptor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom import Dataset
from pynetdicom import build_role, evt
from pynetdicom.association import Association

import dimse_trio as dimse

from .pynetdicom_peer import FIND, GET, MOVE, request
from .samples import SAMPLES, STUDY_UID, Sample
from .shelf import Shelf

pytestmark = pytest.mark.interop

VERIFICATION = dimse.uid_of("Verification")
EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")


def identifier(level: str, **keys: Any) -> Dataset:
    return dimse.query(level, **keys).identifier


def statuses(responses: Any) -> list[int]:
    return [status.Status for status, _ in responses]


def paths(study: dict[str, Sample]) -> list[Path]:
    return [sample.path for sample in study.values()]


def storage_contexts(study: dict[str, Sample]) -> list[tuple[str, str]]:
    return sorted({(sample.sop_class_uid, sample.transfer_syntax) for sample in study.values()})


async def test_echo() -> None:
    async with dimse.open_server(Shelf()) as server:
        status = await request(server.port, Association.send_c_echo, [(VERIFICATION, EXPLICIT)])
    assert status.Status == 0x0000


async def test_store_in_each_transfer_syntax(study: dict[str, Sample]) -> None:
    def send(association: Association) -> list[int]:
        return [association.send_c_store(path).Status for path in paths(study)]

    shelf = Shelf()
    async with dimse.open_server(shelf) as server:
        assert await request(server.port, send, storage_contexts(study)) == [0] * len(study)
    for sample, received in zip(study.values(), shelf.received, strict=True):
        assert received.transfer_syntax == sample.transfer_syntax
        assert received.sop_instance_uid == sample.sop_instance_uid
        assert received.data_set == sample.data_set


async def test_store_what_is_big(big: Sample) -> None:
    shelf = Shelf()
    async with dimse.open_server(shelf) as server:
        status = await request(
            server.port,
            lambda association: association.send_c_store(big.path),
            [(big.sop_class_uid, big.transfer_syntax)],
        )
    assert status.Status == 0x0000
    assert shelf.received[0].data_set == big.data_set


@pytest.mark.parametrize(
    ("level", "count"), [("PATIENT", 1), ("STUDY", 1), ("SERIES", 3), ("IMAGE", len(SAMPLES))]
)
async def test_find(study: dict[str, Sample], level: str, count: int) -> None:
    def find(association: Association) -> list[tuple[int, Dataset | None]]:
        wanted = identifier(level, PatientName="Interop*", StudyInstanceUID=STUDY_UID)
        return [(s.Status, d) for s, d in association.send_c_find(wanted, FIND)]

    async with dimse.open_server(Shelf(paths(study))) as server:
        *matches, (final, nothing) = await request(server.port, find, [(FIND, EXPLICIT)])
    assert (final, nothing) == (0x0000, None)
    assert [status for status, _ in matches] == [0xFF00] * count
    assert {str(match.PatientName) for _, match in matches if match} == {"Interop^Study"}


async def test_get_each_transfer_syntax(study: dict[str, Sample]) -> None:
    got: dict[str, tuple[str, bytes]] = {}

    def store(event: evt.Event) -> int:
        got[event.request.AffectedSOPInstanceUID] = (
            event.context.transfer_syntax,
            event.request.DataSet.getvalue(),
        )
        return 0x0000

    def get(association: Association) -> Any:
        wanted = identifier("STUDY", StudyInstanceUID=STUDY_UID)
        return [status for status, _ in association.send_c_get(wanted, GET)]

    contexts = storage_contexts(study)
    async with dimse.open_server(Shelf(paths(study))) as server:
        responses = await request(
            server.port,
            get,
            [(GET, EXPLICIT), *contexts],
            ext_neg=[build_role(uid, scp_role=True) for uid in {uid for uid, _ in contexts}],
            evt_handlers=[(evt.EVT_C_STORE, store)],
        )
    assert [status.Status for status in responses] == [0xFF00] * (len(study) - 1) + [0x0000]
    assert responses[-1].NumberOfCompletedSuboperations == len(study)
    for sample in study.values():
        assert got[sample.sop_instance_uid] == (sample.transfer_syntax, sample.data_set)


async def test_move(study: dict[str, Sample]) -> None:
    def move(association: Association) -> list[int]:
        wanted = identifier("STUDY", StudyInstanceUID=STUDY_UID)
        return statuses(association.send_c_move(wanted, "STATION", MOVE))

    def nowhere(association: Association) -> list[int]:
        wanted = identifier("STUDY", StudyInstanceUID=STUDY_UID)
        return statuses(association.send_c_move(wanted, "NOWHERE", MOVE))

    station = Shelf()
    async with (
        dimse.open_server(station) as destination,
        dimse.open_server(
            Shelf(paths(study)), peers={"STATION": ("127.0.0.1", destination.port)}
        ) as server,
    ):
        responses = await request(server.port, move, [(MOVE, EXPLICIT)])
        assert await request(server.port, nowhere, [(MOVE, EXPLICIT)]) == [0xA801]
    assert responses == [0xFF00] * (len(study) - 1) + [0x0000]
    assert {(r.sop_instance_uid, r.data_set) for r in station.received} == {
        (sample.sop_instance_uid, sample.data_set) for sample in study.values()
    }
    assert {r.move_originator for r in station.received} == {dimse.MoveOriginator("PYNETDICOM", 1)}


async def test_find_cancelled(study: dict[str, Sample]) -> None:
    def find(association: Association) -> tuple[list[int], int]:
        seen = []
        for status, _ in association.send_c_find(identifier("IMAGE"), FIND, msg_id=7):
            seen.append(status.Status)
            if len(seen) == 2:
                association.send_c_cancel(7, query_model=FIND)
        return seen, association.send_c_echo().Status

    shelf = Shelf(paths(study), stuck_after=2)
    async with dimse.open_server(shelf) as server:
        seen, echo = await request(server.port, find, [(FIND, EXPLICIT), (VERIFICATION, EXPLICIT)])
    assert shelf.cancelled.is_set()
    assert seen == [0xFF00, 0xFF00, 0xFE00]
    assert echo == 0x0000


async def test_get_cancelled(crowd: list[Path]) -> None:
    """Between two sub-operations; what has been sent is counted."""
    got: list[str] = []

    def store(event: evt.Event) -> int:
        got.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    def get(association: Association) -> Any:
        wanted = identifier("STUDY", StudyInstanceUID=STUDY_UID)
        seen = []
        for status, _ in association.send_c_get(wanted, GET, msg_id=7):
            seen.append(status)
            if len(seen) == 1:
                association.send_c_cancel(7, query_model=GET)
        return seen[-1], association.send_c_echo().Status

    ct = dimse.uid_of("CTImageStorage")
    async with dimse.open_server(Shelf(crowd)) as server:
        final, echo = await request(
            server.port,
            get,
            [(GET, EXPLICIT), (ct, EXPLICIT), (VERIFICATION, EXPLICIT)],
            ext_neg=[build_role(ct, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, store)],
        )
    assert final.Status == 0xFE00
    assert final.NumberOfCompletedSuboperations == len(got)
    assert final.NumberOfRemainingSuboperations == len(crowd) - len(got)
    assert 0 < len(got) < len(crowd)
    assert echo == 0x0000


async def test_move_cancelled(study: dict[str, Sample]) -> None:
    def move(association: Association) -> Any:
        wanted = identifier("STUDY", StudyInstanceUID=STUDY_UID)
        seen = []
        for status, _ in association.send_c_move(wanted, "STATION", MOVE, msg_id=7):
            seen.append(status)
            if len(seen) == 1:
                association.send_c_cancel(7, query_model=MOVE)
        return seen, association.send_c_echo().Status

    station = Shelf(stuck_after=1)
    async with (
        dimse.open_server(station) as destination,
        dimse.open_server(
            Shelf(paths(study)), peers={"STATION": ("127.0.0.1", destination.port)}
        ) as server,
    ):
        seen, echo = await request(server.port, move, [(MOVE, EXPLICIT), (VERIFICATION, EXPLICIT)])
        await station.cancelled.wait()
    assert [status.Status for status in seen] == [0xFF00, 0xFE00]
    assert seen[-1].NumberOfCompletedSuboperations == 1
    assert seen[-1].NumberOfRemainingSuboperations == len(study) - 1
    assert echo == 0x0000


async def test_aborted_by_the_peer(study: dict[str, Sample]) -> None:
    """The handler at work for it is cancelled."""
    shelf = Shelf(paths(study), stuck_after=0)

    def find(association: Association) -> None:
        association.dimse_timeout = None
        responses = association.send_c_find(identifier("IMAGE"), FIND)
        trio.from_thread.run(shelf.stuck.wait)
        association.abort()
        del responses

    async with dimse.open_server(shelf) as server:
        await request(server.port, find, [(FIND, EXPLICIT)])
        await shelf.cancelled.wait()
