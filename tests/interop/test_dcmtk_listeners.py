"""Our requestor, DCMTK's storage SCP and archive as acceptors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

import dimse_trio as dimse

from .gate import GatedStream
from .samples import PATIENT_ID, SAMPLES, STUDY_UID, Sample, data_set_of
from .shelf import Shelf

pytestmark = pytest.mark.interop

QUERY_RETRIEVE = [
    dimse.PresentationContext(dimse.uid_of(f"{root}RootQueryRetrieveInformationModel{operation}"))
    for root in ("Study", "Patient")
    for operation in ("Find", "Get", "Move")
]
WHOLE_STUDY = dimse.query("STUDY", StudyInstanceUID=STUDY_UID)


def get_contexts(sample: Sample) -> list[dimse.PresentationContext]:
    """For queries and for what is got, that one in its own transfer syntax."""
    return QUERY_RETRIEVE + dimse.retrieve_contexts(
        [sample.sop_class_uid], models=(), transfer_syntaxes=[sample.transfer_syntax]
    )


# -- storescp ------------------------------------------------------------------------------------


async def test_echo_storescp(dcmtk: Any, tmp_path: Path) -> None:
    async with (
        dcmtk.storescp(tmp_path) as peer,
        dimse.open_association(peer.host, peer.port) as association,
    ):
        for _ in range(100):
            assert (await association.echo()).status == dimse.Status.SUCCESS


async def test_store_files_as_they_are(dcmtk: Any, sample: Sample, tmp_path: Path) -> None:
    async with dcmtk.storescp(tmp_path) as peer:
        async with dimse.open_association(
            peer.host, peer.port, contexts=dimse.contexts_for([sample.path])
        ) as association:
            response = await association.store(sample.path)
        (file,) = peer.files()
    assert response.status == dimse.Status.SUCCESS
    assert dimse.Instance.from_file(file).transfer_syntax_uid == sample.transfer_syntax
    assert data_set_of(file) == sample.data_set


async def test_store_all_transfer_syntaxes_on_one_association(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    files = [sample.path for sample in study.values()]
    async with dcmtk.storescp(tmp_path) as peer:
        async with dimse.open_association(
            peer.host, peer.port, contexts=dimse.contexts_for(files)
        ) as association:
            for file in files:
                await association.store(file)
        assert sorted(map(data_set_of, peer.files())) == sorted(
            sample.data_set for sample in study.values()
        )


async def test_storescp_can_read_what_it_is_sent(
    dcmtk: Any, samples: dict[str, Sample], tmp_path: Path
) -> None:
    """Without `+B` it parses every data set and writes it anew."""
    files = [sample.path for sample in samples.values()]
    async with dcmtk.storescp(tmp_path, bit_preserving=False) as peer:
        async with dimse.open_association(
            peer.host, peer.port, contexts=dimse.contexts_for(files)
        ) as association:
            for file in files:
                assert (await association.store(file)).status == dimse.Status.SUCCESS
        assert len(peer.files()) == len({sample.sop_instance_uid for sample in samples.values()})


async def test_store_what_has_to_be_converted(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """storescp takes Implicit VR Little Endian only; native files are re-encoded for it."""
    native = [
        study[keyword]
        for keyword in SAMPLES
        if "VR" in keyword and keyword != "ImplicitVRLittleEndian"
    ]
    async with dcmtk.storescp(tmp_path, accept=["+xi"]) as peer:
        async with dimse.open_association(
            peer.host,
            peer.port,
            contexts=dimse.contexts_for([sample.path for sample in native]),
        ) as association:
            for sample in native:
                await association.store(sample.path)
        received = {
            data_set.SOPInstanceUID: data_set for data_set in map(pydicom.dcmread, peer.files())
        }
    for sample in native:
        sent, came = pydicom.dcmread(sample.path), received[sample.sop_instance_uid]
        assert came.file_meta.TransferSyntaxUID.is_implicit_VR
        if not sent.file_meta.TransferSyntaxUID.is_little_endian:  # pydicom leaves pixels as read
            pixels = sent.PixelData
            sent.PixelData = bytes(pixels[index ^ 1] for index in range(len(pixels)))
        assert {e.tag: e.value for e in came} == {e.tag: e.value for e in sent}


async def test_default_contexts_leave_files_as_they_are(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """`+xa` would take Deflated before Explicit VR, if a context had both."""
    sample = study["ExplicitVRLittleEndian"]
    async with dcmtk.storescp(tmp_path, accept=["+xa"]) as peer:
        async with dimse.open_association(peer.host, peer.port) as association:
            await association.store(sample.path)
        (file,) = peer.files()
    assert dimse.Instance.from_file(file).transfer_syntax_uid == sample.transfer_syntax
    assert data_set_of(file) == sample.data_set


async def test_store_a_data_set(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    data_set = pydicom.dcmread(study["ExplicitVRLittleEndian"].path)
    data_set.PatientName = "Änderung^Später"
    data_set.SpecificCharacterSet = "ISO_IR 192"
    async with dcmtk.storescp(tmp_path) as peer:
        async with dimse.open_association(peer.host, peer.port) as association:
            await association.store(data_set)
        (file,) = peer.files()
        assert pydicom.dcmread(file) == data_set


@pytest.mark.parametrize("length", [4096, 131072])
async def test_store_in_short_and_long_pdus(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path, length: int
) -> None:
    sample = study["ExplicitVRLittleEndian"]
    async with dcmtk.storescp(tmp_path, options=["-pdu", str(length)]) as peer:
        async with dimse.open_association(
            peer.host, peer.port, contexts=dimse.contexts_for([sample.path])
        ) as association:
            assert association.negotiated.max_pdu_length == length
            await association.store(sample.path)
        (file,) = peer.files()
    assert data_set_of(file) == sample.data_set


async def test_store_what_is_big(dcmtk: Any, big: Sample, tmp_path: Path) -> None:
    async with dcmtk.storescp(tmp_path) as peer:
        async with dimse.open_association(
            peer.host, peer.port, contexts=dimse.contexts_for([big.path])
        ) as association:
            await association.store(big.path)
        (file,) = peer.files()
        assert data_set_of(file) == big.data_set


async def test_associations_in_parallel(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    sample = study["ImplicitVRLittleEndian"]

    async def send(number: int) -> None:
        data_set = pydicom.dcmread(sample.path)
        async with dimse.open_association(peer.host, peer.port) as association:
            for index in range(10):
                data_set.SOPInstanceUID = f"2.25.{number}.{index}"
                await association.store(data_set)

    async with dcmtk.storescp(tmp_path) as peer:
        async with dimse.open_association(peer.host, peer.port) as association:
            for number in range(8):
                association.start_soon(send, number)
        assert len(peer.files()) == 80


async def test_operations_of_several_tasks_wait_for_their_turn(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """DCMTK knows no asynchronous operations window: one operation at a time."""
    files = [sample.path for sample in study.values()]
    async with dcmtk.storescp(tmp_path) as peer:
        async with dimse.open_association(
            peer.host,
            peer.port,
            contexts=dimse.contexts_for(files),
            async_operations=(8, 8),
        ) as association:
            assert association.negotiated.max_invoked == 1
            for file in files:
                association.start_soon(association.store, file)
        assert len(peer.files()) == len(files)


# -- dcmqrscp ------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", SAMPLES)
async def test_store_find_get_move_in_each_transfer_syntax(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path, keyword: str
) -> None:
    sample = study[keyword]
    station = Shelf()
    async with (
        dimse.open_server(station, ae_title="STATION") as destination,
        dcmtk.dcmqrscp(
            tmp_path / "archive",
            transfer_syntax=sample.transfer_syntax,
            peers={"STATION": ("127.0.0.1", destination.port)},
        ) as peer,
    ):
        async with dimse.open_association(
            peer.host,
            peer.port,
            called_ae_title=peer.ae_title,
            contexts=[dimse.PresentationContext(sample.sop_class_uid, (sample.transfer_syntax,))],
        ) as association:
            await association.store(sample.path)
        async with dimse.open_association(
            peer.host,
            peer.port,
            called_ae_title=peer.ae_title,
            contexts=get_contexts(sample),
        ) as association:
            (match,) = await association.find_instances(StudyInstanceUID=STUDY_UID)
            got = await association.get(WHOLE_STUDY, save_to=tmp_path / "got")
            moved = await association.move(WHOLE_STUDY, destination="STATION")
    assert match.SOPInstanceUID == sample.sop_instance_uid
    assert (got.status, got.completed, got.failed) == (dimse.Status.SUCCESS, 1, 0)
    assert data_set_of(got.files[0]) == sample.data_set
    assert (moved.status, moved.completed, moved.failed) == (dimse.Status.SUCCESS, 1, 0)
    (received,) = station.received
    assert received.transfer_syntax == sample.transfer_syntax
    assert received.data_set == sample.data_set
    assert received.move_originator is not None
    assert received.move_originator.ae_title == "DIMSE-TRIO"


async def test_find_at_each_level(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    files = [sample.path for sample in study.values()]
    async with (
        dcmtk.dcmqrscp(tmp_path, *files) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        (patient,) = await association.find_patients(PatientName="Interop*")
        (one,) = await association.find_studies(StudyDate="20260101-", PatientID=PATIENT_ID)
        series = await association.find_series(StudyInstanceUID=STUDY_UID)
        images = [
            image
            for entry in series
            for image in await association.find_instances(
                StudyInstanceUID=STUDY_UID, SeriesInstanceUID=entry.SeriesInstanceUID
            )
        ]
        nothing = await association.find_studies(PatientID="NOBODY")
    assert patient.PatientID == PATIENT_ID
    assert one.StudyInstanceUID == STUDY_UID
    assert len(series) == 3
    assert {image.SOPInstanceUID for image in images} == {
        sample.sop_instance_uid for sample in study.values()
    }
    assert nothing == []


async def test_move_to_storescp(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    native = [study[keyword] for keyword in SAMPLES if "VR" in keyword]
    async with (
        dcmtk.storescp(tmp_path / "moved") as destination,
        dcmtk.dcmqrscp(
            tmp_path / "archive",
            *(sample.path for sample in native),
            peers={"STORESCP": (destination.host, destination.port)},
        ) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        result = await association.move(WHOLE_STUDY, destination="STORESCP")
        assert result.completed == len(native)
        assert len(destination.files()) == len(native)


async def test_move_counts_what_failed(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """dcmqrscp does not propose the compressed transfer syntaxes, and says which were left."""
    native = [study[keyword] for keyword in SAMPLES if "VR" in keyword]
    others = [study[keyword] for keyword in SAMPLES if "VR" not in keyword]
    station = Shelf()
    async with (
        dimse.open_server(station) as destination,
        dcmtk.dcmqrscp(
            tmp_path,
            *(sample.path for sample in study.values()),
            peers={"STATION": ("127.0.0.1", destination.port)},
        ) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        async with association.move(WHOLE_STUDY, destination="STATION") as responses:
            pending = [response async for response in responses]
        result = responses.result
    remaining = [response.remaining for response in pending]
    assert len(remaining) == len(study)
    assert remaining == sorted(remaining, reverse=True)
    assert remaining[-1] == 0
    assert result.status == dimse.Status.SUB_OPERATIONS_WARNING
    assert (result.completed, result.failed) == (len(native), len(others))
    assert set(result.failed_sop_instance_uids) == {sample.sop_instance_uid for sample in others}
    assert {r.sop_instance_uid for r in station.received} == {
        sample.sop_instance_uid for sample in native
    }


async def test_move_to_an_unknown_destination(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    async with (
        dcmtk.dcmqrscp(tmp_path, study["RLELossless"].path) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        with pytest.raises(dimse.StatusError) as caught:
            await association.move(WHOLE_STUDY, destination="NOWHERE")
        assert caught.value.status == dimse.Status.MOVE_DESTINATION_UNKNOWN
        await association.echo()


async def test_get_instances_one_by_one(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    native = [study[keyword] for keyword in SAMPLES if "VR" in keyword]
    async with (
        dcmtk.dcmqrscp(tmp_path, *(sample.path for sample in native)) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        async with association.get(WHOLE_STUDY) as instances:
            got = [await instance.data_set() async for instance in instances]
        assert instances.result.completed == len(native)
    assert {data_set.SOPInstanceUID for data_set in got} == {
        sample.sop_instance_uid for sample in native
    }
    assert {data_set.PatientID for data_set in got} == {PATIENT_ID}


# -- cancelling dcmqrscp -------------------------------------------------------------------------


async def test_find_left_early(
    dcmtk: Any, crowd: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While dcmqrscp cannot go on, as its responses are not taken."""
    monkeypatch.setenv("TCP_BUFFER_LENGTH", "4")  # KiB
    async with dcmtk.dcmqrscp(tmp_path, *crowd) as peer:
        stream = await GatedStream.connect(peer.host, peer.port)
        async with dimse.associate_over(stream, called_ae_title=peer.ae_title) as association:
            stream.allowance = 4000
            async with association.find(
                dimse.query("IMAGE", StudyInstanceUID=STUDY_UID)
            ) as matches:
                async for _ in matches:
                    break
            assert matches.final is not None
            assert matches.final.status == dimse.Status.CANCEL
            await association.echo()
            assert len(await association.find_studies()) == 1


async def test_get_left_early(dcmtk: Any, crowd: list[Path], tmp_path: Path) -> None:
    async with (
        dcmtk.dcmqrscp(tmp_path, *crowd) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        async with association.get(WHOLE_STUDY) as instances:
            async for instance in instances:
                await instance.data_set()
                break
        result = instances.result
        assert result.status == dimse.Status.CANCEL
        assert result.remaining is not None
        assert result.remaining > 0
        await association.echo()


async def test_move_left_early(dcmtk: Any, crowd: list[Path], tmp_path: Path) -> None:
    station = Shelf()
    async with (
        dimse.open_server(station) as destination,
        dcmtk.dcmqrscp(
            tmp_path, *crowd, peers={"STATION": ("127.0.0.1", destination.port)}
        ) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        async with association.move(WHOLE_STUDY, destination="STATION") as responses:
            async for _ in responses:
                break
        assert responses.result.status == dimse.Status.CANCEL
        assert 0 < len(station.received) < len(crowd)
        await association.echo()
