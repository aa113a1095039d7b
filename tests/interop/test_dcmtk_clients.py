"""DCMTK's programs as requestors, a server of ours as acceptor."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
import trio

import dimse_trio as dimse

from .samples import PATIENT_ID, SAMPLES, STUDY_UID, Sample, data_set_of
from .shelf import Shelf

pytestmark = pytest.mark.interop

ONE_STUDY = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY_UID}


def paths(study: dict[str, Sample]) -> list[Path]:
    return [sample.path for sample in study.values()]


def one_image(sample: Sample) -> dict[str, str]:
    return {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": sample.sop_instance_uid}


# -- C-ECHO --------------------------------------------------------------------------------------


async def test_echo(dcmtk: Any) -> None:
    async with dimse.open_server(Shelf()) as server:
        result = await dcmtk.echoscu(server.port)
        assert server.statistics().associations_accepted == 1
    assert "Received Echo Response (Success)" in result.output


async def test_many_echoes_on_one_association(dcmtk: Any) -> None:
    async with dimse.open_server(Shelf()) as server:
        result = await dcmtk.echoscu(server.port, options=["--repeat", "100"])
        assert server.statistics().associations_accepted == 1
    assert result.output.count("Received Echo Response (Success)") == 100


async def test_a_big_negotiation(dcmtk: Any) -> None:
    """128 contexts of 38 transfer syntaxes each; every one is answered."""
    async with dimse.open_server(Shelf()) as server:
        result = await dcmtk.echoscu(server.port, options=["-ppc", "128", "-pts", "38", "--debug"])
    assert result.output.count("(Accepted)") == 128
    assert "Received Echo Response (Success)" in result.output


async def test_an_abort_ends_only_its_association(dcmtk: Any) -> None:
    async with dimse.open_server(Shelf()) as server:
        await dcmtk.echoscu(server.port, options=["--abort"])
        result = await dcmtk.echoscu(server.port)
    assert "Received Echo Response (Success)" in result.output


async def test_another_ae_title_is_rejected(dcmtk: Any) -> None:
    async with dimse.open_server(Shelf(), ae_title="OURS") as server:
        result = await dcmtk.echoscu(server.port, called_ae_title="THEIRS", check=False)
        assert server.statistics().associations_rejected == 1
    assert result.returncode != 0
    assert "Rejected Permanent" in result.output
    assert "Called AE Title Not Recognized" in result.output


async def test_one_association_too_many_is_rejected(dcmtk: Any) -> None:
    async with (
        dimse.open_server(Shelf(), max_associations=1) as server,
        dimse.open_association("127.0.0.1", server.port),
    ):
        result = await dcmtk.echoscu(server.port, check=False)
    assert "Rejected Transient" in result.output
    assert "Local Limit Exceeded" in result.output


async def test_no_common_context(dcmtk: Any) -> None:
    """An association without an accepted context comes about, and DCMTK gives it up."""
    contexts = [dimse.PresentationContext(dimse.uid_of("CTImageStorage"))]
    async with dimse.open_server(Shelf(), contexts=contexts) as server:
        result = await dcmtk.echoscu(server.port, check=False)
    assert "No Acceptable Presentation Contexts" in result.output


# -- C-STORE -------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", SAMPLES)
async def test_store_in_each_transfer_syntax(
    dcmtk: Any, study: dict[str, Sample], keyword: str
) -> None:
    sample = study[keyword]
    shelf = Shelf()
    async with dimse.open_server(shelf) as server:
        await dcmtk.storescu(server.port, sample.path, transfer_syntax=sample.transfer_syntax)
    (received,) = shelf.received
    assert received.transfer_syntax == sample.transfer_syntax
    assert received.sop_class_uid == sample.sop_class_uid
    assert received.sop_instance_uid == sample.sop_instance_uid
    assert received.data_set == sample.data_set


async def test_we_receive_what_storescp_receives(
    dcmtk: Any, samples: dict[str, Sample], tmp_path: Path
) -> None:
    """Files in other forms than DCMTK's own, which its storescu rewrites on the way."""
    shelf = Shelf()
    async with (
        dimse.open_server(shelf) as server,
        dcmtk.storescp(tmp_path / "theirs") as theirs,
    ):
        for keyword, sample in samples.items():
            shelf.received.clear()
            for port in (server.port, theirs.port):
                await dcmtk.storescu(port, sample.path, transfer_syntax=sample.transfer_syntax)
            (file,) = theirs.files()
            assert shelf.received[0].data_set == data_set_of(file), keyword
            file.unlink()


async def test_store_with_combined_contexts(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """All transfer syntaxes of a class in one context: we choose the first that was proposed."""
    sample = study["RLELossless"]
    shelf = Shelf()
    async with dimse.open_server(shelf) as server:
        await dcmtk.storescu(
            server.port,
            sample.path,
            transfer_syntax=sample.transfer_syntax,
            options=["-R", "+C"],
        )
    assert shelf.received[0].transfer_syntax == sample.transfer_syntax
    assert shelf.received[0].data_set == sample.data_set


@pytest.mark.parametrize("length", [4096, 131072])
async def test_store_in_short_and_long_pdus(
    dcmtk: Any, study: dict[str, Sample], length: int
) -> None:
    sample = study["ExplicitVRLittleEndian"]
    shelf = Shelf()
    async with dimse.open_server(shelf, max_pdu_length=length) as server:
        await dcmtk.storescu(
            server.port, sample.path, options=["-R", "--max-send-pdu", str(length)]
        )
    assert shelf.received[0].data_set == sample.data_set


async def test_store_what_is_big(dcmtk: Any, big: Sample) -> None:
    shelf = Shelf()
    async with dimse.open_server(shelf) as server:
        await dcmtk.storescu(server.port, big.path)
    assert shelf.received[0].data_set == big.data_set


async def test_many_instances_on_one_association(dcmtk: Any, study: dict[str, Sample]) -> None:
    """`+II` invents a SOP Instance UID for each."""
    shelf = Shelf()
    async with dimse.open_server(shelf) as server:
        await dcmtk.storescu(
            server.port,
            study["ExplicitVRLittleEndian"].path,
            options=["-R", "+II", "--repeat", "100"],
        )
        assert server.statistics().associations_accepted == 1
    assert len({received.sop_instance_uid for received in shelf.received}) == 100


async def test_storescus_in_parallel(dcmtk: Any, study: dict[str, Sample]) -> None:
    shelf = Shelf()
    native = study["ImplicitVRLittleEndian"]
    async with dimse.open_server(shelf) as server, trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(
                partial(
                    dcmtk.storescu,
                    server.port,
                    native.path,
                    calling_ae_title=f"SCU{number}",
                    options=["-R", "+II", "--repeat", "10"],
                )
            )
    titles = [received.calling_ae_title for received in shelf.received]
    assert sorted(titles) == sorted(f"SCU{number}" for number in range(8) for _ in range(10))


async def test_a_failure_status_reaches_storescu(dcmtk: Any, study: dict[str, Sample]) -> None:
    class Full:
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            raise dimse.StatusError(dimse.Status.OUT_OF_RESOURCES, "disk full")

    async with dimse.open_server(Full()) as server:
        result = await dcmtk.storescu(
            server.port,
            study["ExplicitVRLittleEndian"].path,
            options=["-R", "--debug"],
            check=False,
        )
    assert "0xa700: Refused: Out of resources" in result.output
    assert "disk full" in result.output


# -- C-FIND --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["-S", "-P"])
@pytest.mark.parametrize(
    ("level", "unique", "count"),
    [
        ("PATIENT", "PatientID", 1),
        ("STUDY", "StudyInstanceUID", 1),
        ("SERIES", "SeriesInstanceUID", 3),
        ("IMAGE", "SOPInstanceUID", len(SAMPLES)),
    ],
)
async def test_find_at_each_level(
    dcmtk: Any,
    study: dict[str, Sample],
    tmp_path: Path,
    model: str,
    level: str,
    unique: str,
    count: int,
) -> None:
    keys = {"QueryRetrieveLevel": level, "PatientName": "Interop*", "Modality": "", unique: ""}
    async with dimse.open_server(Shelf(paths(study))) as server:
        result = await dcmtk.findscu(server.port, keys, model=model, folder=tmp_path / "found")
    answers = [pydicom.dcmread(path, force=True) for path in result.files]
    records = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths(study)]
    assert len(answers) == count
    assert {a[unique].value for a in answers} == {r[unique].value for r in records}
    assert {str(a.PatientName) for a in answers} == {"Interop^Study"}
    assert {a.QueryRetrieveLevel for a in answers} == {level}


@pytest.mark.parametrize(
    "keyword",
    [
        "ImplicitVRLittleEndian",
        "ExplicitVRLittleEndian",
        "ExplicitVRBigEndian",
        "DeflatedExplicitVRLittleEndian",
    ],
)
async def test_find_in_each_native_transfer_syntax(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path, keyword: str
) -> None:
    keys = {"QueryRetrieveLevel": "PATIENT", "PatientName": "", "PatientID": PATIENT_ID}
    async with dimse.open_server(Shelf(paths(study))) as server:
        result = await dcmtk.findscu(
            server.port,
            keys,
            folder=tmp_path / "found",
            model="-P",
            transfer_syntax=dimse.uid_of(keyword),
        )
    (answer,) = result.files
    assert pydicom.dcmread(answer, force=True).PatientName == "Interop^Study"


async def test_find_without_a_match(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.3"}
    async with dimse.open_server(Shelf(paths(study))) as server:
        result = await dcmtk.findscu(server.port, keys, folder=tmp_path / "found")
    assert result.files == ()
    assert "Received Final Find Response (Success)" in result.output


async def test_find_cancelled(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    """The handler is cancelled where it waits, and the peer told so."""
    shelf = Shelf(paths(study), stuck_after=2)
    keys = {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": ""}
    async with dimse.open_server(shelf) as server:
        result = await dcmtk.findscu(server.port, keys, folder=tmp_path / "found", cancel_after=2)
    assert shelf.cancelled.is_set()
    assert len(result.files) == 2
    assert "Received Final Find Response (Cancel" in result.output


# -- C-GET ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", SAMPLES)
async def test_get_in_each_transfer_syntax(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path, keyword: str
) -> None:
    sample = study[keyword]
    async with dimse.open_server(Shelf(paths(study))) as server:
        result = await dcmtk.getscu(
            server.port,
            one_image(sample),
            tmp_path / "got",
            transfer_syntax=sample.transfer_syntax,
        )
    (file,) = result.files
    if keyword == "ImplicitVRLittleEndian":  # getscu proposes Explicit instead: we convert
        assert pydicom.dcmread(file) == pydicom.dcmread(sample.path)
    else:
        assert dimse.Instance.from_file(file).transfer_syntax_uid == sample.transfer_syntax
        assert data_set_of(file) == sample.data_set


async def test_get_what_the_peer_cannot_take(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """Native instances arrive, converted or not; encapsulated ones are counted as failed."""
    async with dimse.open_server(Shelf(paths(study))) as server:
        result = await dcmtk.getscu(server.port, ONE_STUDY, tmp_path / "got", check=False)
    assert len(result.files) == 4
    assert "Number of Completed Suboperations : 4" in result.output
    assert f"Number of Failed Suboperations    : {len(SAMPLES) - 4}" in result.output


# -- C-MOVE --------------------------------------------------------------------------------------


async def test_move_to_a_server_of_ours(dcmtk: Any, study: dict[str, Sample]) -> None:
    station = Shelf()
    async with (
        dimse.open_server(station, ae_title="STATION") as destination,
        dimse.open_server(
            Shelf(paths(study)),
            ae_title="ARCHIVE",
            peers={"STATION": ("127.0.0.1", destination.port)},
        ) as server,
    ):
        result = await dcmtk.movescu(
            server.port, ONE_STUDY, destination="STATION", called_ae_title="ARCHIVE"
        )
    assert "Received Final Move Response (Success)" in result.output
    arrived = {received.sop_instance_uid: received for received in station.received}
    for sample in study.values():
        received = arrived.pop(sample.sop_instance_uid)
        assert received.data_set == sample.data_set
        assert received.transfer_syntax == sample.transfer_syntax
        assert received.calling_ae_title == "ARCHIVE"
        assert received.move_originator == dimse.MoveOriginator("MOVESCU", 1)
    assert not arrived


async def test_move_to_storescp(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    async with (
        dcmtk.storescp(tmp_path / "moved") as destination,
        dimse.open_server(
            Shelf(paths(study)), peers={"STORESCP": (destination.host, destination.port)}
        ) as server,
    ):
        await dcmtk.movescu(server.port, ONE_STUDY, destination="STORESCP")
        assert sorted(map(data_set_of, destination.files())) == sorted(
            sample.data_set for sample in study.values()
        )


async def test_move_to_movescu_itself(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    port = dcmtk.free_port()
    async with dimse.open_server(
        Shelf(paths(study)), peers={"MOVESCU": ("127.0.0.1", port)}
    ) as server:
        result = await dcmtk.movescu(
            server.port,
            ONE_STUDY,
            destination="MOVESCU",
            receive_on=port,
            folder=tmp_path / "moved",
        )
    assert sorted(map(data_set_of, result.files)) == sorted(
        sample.data_set for sample in study.values()
    )


async def test_move_to_an_unknown_destination(dcmtk: Any, study: dict[str, Sample]) -> None:
    async with dimse.open_server(Shelf(paths(study))) as server:
        result = await dcmtk.movescu(server.port, ONE_STUDY, destination="NOWHERE", check=False)
    assert "Received Final Move Response (Refused: MoveDestinationUnknown)" in result.output


async def test_move_to_a_destination_that_does_not_answer(
    dcmtk: Any, study: dict[str, Sample]
) -> None:
    async with dimse.open_server(
        Shelf(paths(study)), peers={"DOWN": ("127.0.0.1", dcmtk.free_port())}
    ) as server:
        result = await dcmtk.movescu(
            server.port, ONE_STUDY, destination="DOWN", check=False, options=["--debug"]
        )
    assert "0xa702" in result.output
    assert f"Failed Suboperations          : {len(SAMPLES)}" in result.output


async def test_move_cancelled(dcmtk: Any, study: dict[str, Sample]) -> None:
    """C-CANCEL ends the sub-operation that is under way, and the rest are counted as remaining."""
    station = Shelf(stuck_after=1)
    async with (
        dimse.open_server(station) as destination,
        dimse.open_server(
            Shelf(paths(study)), peers={"STATION": ("127.0.0.1", destination.port)}
        ) as server,
    ):
        result = await dcmtk.movescu(
            server.port,
            ONE_STUDY,
            destination="STATION",
            cancel_after=1,
            check=False,
            options=["--debug"],
        )
        await station.cancelled.wait()
    assert len(station.received) == 1
    assert "0xfe00: Cancel" in result.output
    assert "Completed Suboperations       : 1" in result.output
    assert f"Remaining Suboperations       : {len(SAMPLES) - 1}" in result.output
