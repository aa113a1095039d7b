"""The embedded archive against DCMTK's programs and pynetdicom, and beside DCMTK's archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom.association import Association

import dimse_trio as dimse

from .pynetdicom_peer import FIND, request
from .samples import PATIENT_ID, SAMPLES, STUDY_UID, Sample, data_set_of

pytestmark = pytest.mark.interop

ONE_STUDY = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY_UID}
EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")


def paths(study: dict[str, Sample]) -> list[Path]:
    return [sample.path for sample in study.values()]


@pytest.mark.parametrize("keyword", SAMPLES)
async def test_stored_by_storescu_and_got_by_getscu(
    dcmtk: Any, dimse_archive: Any, study: dict[str, Sample], tmp_path: Path, keyword: str
) -> None:
    sample = study[keyword]
    keys = {
        "QueryRetrieveLevel": "IMAGE",
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": pydicom.dcmread(sample.path).SeriesInstanceUID,
        "SOPInstanceUID": sample.sop_instance_uid,
    }
    async with dimse_archive() as archive:
        await dcmtk.storescu(
            archive.port,
            sample.path,
            called_ae_title=archive.ae_title,
            transfer_syntax=sample.transfer_syntax,
        )
        result = await dcmtk.getscu(
            archive.port,
            keys,
            tmp_path,
            called_ae_title=archive.ae_title,
            transfer_syntax=sample.transfer_syntax,
        )
    (file,) = result.files
    if keyword == "ImplicitVRLittleEndian":  # getscu proposes Explicit instead: we convert
        assert pydicom.dcmread(file) == pydicom.dcmread(sample.path)
    else:
        assert data_set_of(file) == sample.data_set


async def test_moved_by_movescu(
    dcmtk: Any, dimse_archive: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    async with (
        dcmtk.storescp(tmp_path) as station,
        dimse_archive(*paths(study), peers={"STATION": (station.host, station.port)}) as archive,
    ):
        await dcmtk.movescu(
            archive.port, ONE_STUDY, destination="STATION", called_ae_title=archive.ae_title
        )
        assert sorted(map(data_set_of, station.files())) == sorted(
            sample.data_set for sample in study.values()
        )


async def test_a_query_is_cancelled(
    dcmtk: Any, dimse_archive: Any, crowd: list[Path], tmp_path: Path
) -> None:
    """How many matches arrive before the archive hears of it is not ours to say."""
    keys = {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": STUDY_UID, "SOPInstanceUID": ""}
    async with dimse_archive(*crowd) as archive:
        result = await dcmtk.findscu(
            archive.port,
            {**keys, "SeriesInstanceUID": f"{STUDY_UID}.1"},
            called_ae_title=archive.ae_title,
            folder=tmp_path,
            cancel_after=2,
        )
    assert "Sending Cancel Request" in result.output
    assert "Received Final Find Response" in result.output


QUERIES: dict[str, tuple[str, dict[str, str]]] = {
    "everything": ("STUDY", {"StudyInstanceUID": ""}),
    "a name that begins so": ("STUDY", {"PatientName": "Interop*"}),
    "a name with a gap": ("STUDY", {"PatientName": "Int?rop^*y"}),
    "another name": ("STUDY", {"PatientName": "Somebody*"}),
    "an ID": ("STUDY", {"PatientID": PATIENT_ID}),
    "a day": ("STUDY", {"StudyDate": "20260102"}),
    "from a day on": ("STUDY", {"StudyDate": "20260102-"}),
    "up to a day": ("STUDY", {"StudyDate": "-20260101"}),
    "between days": ("STUDY", {"StudyDate": "20251231-20260103"}),
    "one of these studies": ("STUDY", {"StudyInstanceUID": f"1.2.3\\{STUDY_UID}"}),
    "the series": ("SERIES", {"StudyInstanceUID": STUDY_UID}),
    "the MR series": ("SERIES", {"StudyInstanceUID": STUDY_UID, "Modality": "MR"}),
    "the images of a series": (
        "IMAGE",
        {"StudyInstanceUID": STUDY_UID, "SeriesInstanceUID": f"{STUDY_UID}.2"},
    ),
    "one image": (
        "IMAGE",
        {
            "StudyInstanceUID": STUDY_UID,
            "SeriesInstanceUID": f"{STUDY_UID}.2",
            "InstanceNumber": "3",
        },
    ),
}


async def test_it_finds_what_dcmqrscp_finds(
    dcmtk: Any, dimse_archive: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    unique = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
    files = paths(study)
    async with (
        dcmtk.dcmqrscp(tmp_path, *files, ae_title="ARCHIVE") as theirs,
        dimse_archive(*files) as ours,
        dimse.open_association(
            theirs.host, theirs.port, called_ae_title="ARCHIVE"
        ) as their_association,
        dimse.open_association(ours.host, ours.port, called_ae_title="ARCHIVE") as our_association,
    ):
        found = {}
        for name, (level, keys) in QUERIES.items():
            query = dimse.query(level, **{unique[level]: "", **keys})
            found[name] = [
                sorted(match[unique[level]].value for match in await association.find(query))
                for association in (our_association, their_association)
            ]
    assert {name: ours for name, (ours, _) in found.items()} == {
        name: theirs for name, (_, theirs) in found.items()
    }
    assert [name for name, (ours, _) in found.items() if not ours] == [
        "another name",
        "up to a day",
    ]


async def test_queried_by_pynetdicom(dimse_archive: Any, study: dict[str, Sample]) -> None:
    def find(association: Association) -> list[str]:
        identifier = dimse.query("IMAGE", StudyInstanceUID=STUDY_UID).identifier
        identifier.SeriesInstanceUID = f"{STUDY_UID}.2"
        answers = association.send_c_find(identifier, FIND)
        return [answer.SOPInstanceUID for _, answer in answers if answer is not None]

    async with dimse_archive(*paths(study)) as archive:
        found = await request(
            archive.port, find, [(FIND, EXPLICIT)], called_ae_title=archive.ae_title
        )
    assert sorted(found) == sorted(
        sample.sop_instance_uid
        for sample in study.values()
        if sample.sop_class_uid == dimse.uid_of("MRImageStorage")
    )


async def test_from_archive_to_dcmqrscp_and_back(
    dcmtk: Any, dimse_archive: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """A study goes by C-MOVE to DCMTK's archive, and from there to another of ours."""
    native = [study[keyword].path for keyword in SAMPLES if "VR" in keyword]
    query = dimse.query("STUDY", StudyInstanceUID=STUDY_UID)
    async with dimse_archive(ae_title="LAST") as last:
        async with (
            dcmtk.dcmqrscp(
                tmp_path, ae_title="MIDDLE", peers={"LAST": (last.host, last.port)}
            ) as middle,
            dimse_archive(*native, peers={"MIDDLE": (middle.host, middle.port)}) as first,
            dimse.open_association(
                first.host, first.port, called_ae_title=first.ae_title
            ) as to_first,
            dimse.open_association(middle.host, middle.port, called_ae_title="MIDDLE") as to_middle,
        ):
            assert (await to_first.move(query, destination="MIDDLE")).completed == len(native)
            assert (await to_middle.move(query, destination="LAST")).completed == len(native)
        async with dimse.open_association(last.host, last.port, called_ae_title="LAST") as to_last:
            (found,) = await to_last.find_studies(StudyInstanceUID=STUDY_UID)
    assert found.NumberOfStudyRelatedInstances == len(native)
