"""Our requestor, pynetdicom's archive as acceptor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

import dimse_trio as dimse

from .pynetdicom_peer import Archive, archive
from .samples import PATIENT_ID, SAMPLES, STUDY_UID, Sample, data_set_of
from .shelf import Shelf

pytestmark = pytest.mark.interop

WHOLE_STUDY = dimse.query("STUDY", StudyInstanceUID=STUDY_UID)


@pytest.fixture(scope="module")
def server(study: dict[str, Sample]) -> Iterator[Archive]:
    samples = list(study.values())
    with archive([sample.path for sample in samples], samples) as served:
        yield served


@pytest.fixture
def peer(server: Archive) -> Archive:
    server.received.clear()
    server.destinations.clear()
    server.endless = False
    server.cancelled = 0
    return server


async def test_echo(peer: Archive) -> None:
    async with dimse.open_association(
        peer.host, peer.port, called_ae_title=peer.ae_title
    ) as association:
        assert (await association.echo()).status == dimse.Status.SUCCESS


async def test_rejected(peer: Archive) -> None:
    with pytest.raises(dimse.AssociationRejected) as caught:
        async with dimse.open_association(peer.host, peer.port, called_ae_title="WRONG"):
            pass
    assert caught.value.reason is dimse.RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED


async def test_store_in_each_transfer_syntax(peer: Archive, samples: dict[str, Sample]) -> None:
    files = [sample.path for sample in samples.values()]
    async with dimse.open_association(
        peer.host,
        peer.port,
        called_ae_title=peer.ae_title,
        contexts=dimse.contexts_for(files),
    ) as association:
        for file in files:
            await association.store(file)
    for sample, received in zip(samples.values(), peer.received, strict=True):
        assert received.transfer_syntax == sample.transfer_syntax
        assert received.sop_instance_uid == sample.sop_instance_uid
        assert received.data_set == sample.data_set


async def test_store_what_is_big(peer: Archive, big: Sample) -> None:
    async with dimse.open_association(
        peer.host,
        peer.port,
        called_ae_title=peer.ae_title,
        contexts=dimse.contexts_for([big.path]),
    ) as association:
        await association.store(big.path)
    assert peer.received[0].data_set == big.data_set


async def test_find_at_each_level(peer: Archive) -> None:
    async with dimse.open_association(
        peer.host, peer.port, called_ae_title=peer.ae_title
    ) as association:
        (patient,) = await association.find_patients(PatientName="Interop*")
        (one,) = await association.find_studies(PatientID=PATIENT_ID)
        series = await association.find_series(StudyInstanceUID=STUDY_UID)
        images = await association.find_instances(StudyInstanceUID=STUDY_UID)
        assert await association.find_studies(PatientID="NOBODY") == []
    assert patient.PatientID == PATIENT_ID
    assert one.StudyInstanceUID == STUDY_UID
    assert (len(series), len(images)) == (3, len(SAMPLES))


async def test_get_each_transfer_syntax(
    peer: Archive, study: dict[str, Sample], tmp_path: Path
) -> None:
    """One context for each pair of class and transfer syntax: all instances come as they are."""
    contexts = [
        dimse.PresentationContext(sample.sop_class_uid, (sample.transfer_syntax,), scp=True)
        for sample in study.values()
    ]
    async with dimse.open_association(
        peer.host,
        peer.port,
        called_ae_title=peer.ae_title,
        contexts=[*dimse.retrieve_contexts([]), *contexts],
    ) as association:
        result = await association.get(WHOLE_STUDY, save_to=tmp_path)
    assert result.completed == len(study)
    got = {instance.sop_instance_uid: instance.path for instance in map(of, result.files)}
    for sample in study.values():
        assert data_set_of(got[sample.sop_instance_uid]) == sample.data_set


def of(path: Path) -> dimse.Instance:
    return dimse.Instance.from_file(path)


async def test_move(peer: Archive, study: dict[str, Sample]) -> None:
    station = Shelf()
    async with (
        dimse.open_server(station, ae_title="STATION") as destination,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        peer.destinations["STATION"] = ("127.0.0.1", destination.port)
        result = await association.move(WHOLE_STUDY, destination="STATION")
        with pytest.raises(dimse.StatusError) as caught:
            await association.move(WHOLE_STUDY, destination="NOWHERE")
    assert caught.value.status == dimse.Status.MOVE_DESTINATION_UNKNOWN
    assert (result.status, result.completed) == (dimse.Status.SUCCESS, len(study))
    arrived = {received.sop_instance_uid: received for received in station.received}
    for sample in study.values():
        received = arrived[sample.sop_instance_uid]
        assert received.transfer_syntax == sample.transfer_syntax
        assert received.data_set == sample.data_set


async def test_find_left_early(peer: Archive) -> None:
    peer.endless = True
    async with dimse.open_association(
        peer.host, peer.port, called_ae_title=peer.ae_title
    ) as association:
        async with association.find(dimse.query("IMAGE", StudyInstanceUID=STUDY_UID)) as matches:
            async for match in matches:
                assert match.SOPInstanceUID
                break
        assert matches.final is not None
        assert matches.final.status == dimse.Status.CANCEL
        assert (await association.echo()).status == dimse.Status.SUCCESS
    assert peer.cancelled == 1


async def test_get_left_early(peer: Archive) -> None:
    peer.endless = True
    async with dimse.open_association(
        peer.host, peer.port, called_ae_title=peer.ae_title
    ) as association:
        async with association.get(WHOLE_STUDY) as instances:
            async for instance in instances:
                assert (await instance.data_set()).PatientID == PATIENT_ID
                break
        assert instances.result.status == dimse.Status.CANCEL
        assert instances.result.remaining
        assert (await association.echo()).status == dimse.Status.SUCCESS
    assert peer.cancelled == 1


async def test_move_left_early(peer: Archive) -> None:
    peer.endless = True
    station = Shelf()
    async with (
        dimse.open_server(station) as destination,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        peer.destinations["STATION"] = ("127.0.0.1", destination.port)
        async with association.move(WHOLE_STUDY, destination="STATION") as responses:
            async for _ in responses:
                break
        assert responses.result.status == dimse.Status.CANCEL
        assert responses.result.remaining
        assert (await association.echo()).status == dimse.Status.SUCCESS
    assert peer.cancelled == 1
    assert station.received


async def test_associations_at_the_same_time(peer: Archive, study: dict[str, Sample]) -> None:
    sample = study["ExplicitVRLittleEndian"]

    async def send(number: int) -> None:
        data_set = pydicom.dcmread(sample.path)
        async with dimse.open_association(
            peer.host, peer.port, called_ae_title=peer.ae_title
        ) as association:
            for index in range(5):
                data_set.SOPInstanceUID = f"2.25.{number}.{index}"
                await association.store(data_set)

    async with dimse.open_association(
        peer.host, peer.port, called_ae_title=peer.ae_title
    ) as association:
        for number in range(8):
            association.start_soon(send, number)
    assert len({received.sop_instance_uid for received in peer.received}) == 40
