"""C-FIND: Patient Root and Study Root at every level (PS3.4 §C.4.1, §C.6.1, §C.6.2)."""

from __future__ import annotations

import sqlite3
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import Status, StatusError, datasets
from dimse_trio.archive import Archive, open_archive, search
from dimse_trio.matching import MatchingOptions
from dimse_trio.protocol.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MODALITY_WORKLIST_FIND,
    NATIVE_TRANSFER_SYNTAXES,
    uid_of,
)

from .instances import find, find_request, found, identifier, instance, store

MR = uid_of("MRImageStorage")
PATIENT_STUDY_ONLY = uid_of("PatientStudyOnlyQueryRetrieveInformationModelFind")


@pytest.fixture
async def filled(archive: Archive) -> Archive:
    """Two patients; three studies; CT, MR; five series; nine instances."""
    await store(
        archive,
        *(instance(uid=f"1.2.1.1.{n}", InstanceNumber=str(n), Rows=512) for n in (1, 2, 3)),
        instance(series="1.2.1.2", uid="1.2.1.2.1", Modality="MR", SOPClassUID="1.2.3"),
        instance("1.2.2", "1.2.2.1", "1.2.2.1.1", StudyDate="20260201", AccessionNumber="A2"),
        instance("1.2.2", "1.2.2.2", "1.2.2.2.1", StudyDate="20260201", AccessionNumber="A2"),
        *(
            instance(
                "1.2.3",
                "1.2.3.1",
                f"1.2.3.1.{n}",
                SpecificCharacterSet="ISO_IR 100",
                PatientID="P2",
                PatientName="Müller^Ute",
                StudyDate="20251231",
                StudyTime=None,
                Modality="US",
            )
            for n in (1, 2, 3)
        ),
    )
    return archive


# -- levels ----------------------------------------------------------------------------------------


async def test_every_level_answers_with_its_entities(filled: Archive) -> None:
    assert await found(filled, "PATIENT", "PatientID", model="PATIENT") == ["P1", "P2"]
    for model in ("PATIENT", "STUDY"):
        studies = await found(filled, "STUDY", "StudyInstanceUID", model=model)
        assert studies == ["1.2.1", "1.2.2", "1.2.3"]
        series = await found(filled, "SERIES", "SeriesInstanceUID", model=model)
        assert series == ["1.2.1.1", "1.2.1.2", "1.2.2.1", "1.2.2.2", "1.2.3.1"]
        assert len(await found(filled, "IMAGE", "SOPInstanceUID", model=model)) == 9
    assert await found(filled, "STUDY", "StudyInstanceUID", model=PATIENT_STUDY_ONLY) == studies


async def test_upper_keys_narrow(filled: Archive) -> None:
    uids = await found(filled, "SERIES", "SeriesInstanceUID", StudyInstanceUID="1.2.1")
    assert uids == ["1.2.1.1", "1.2.1.2"]
    keys = {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.2"}
    assert await found(filled, "IMAGE", "SOPInstanceUID", **keys) == ["1.2.1.2.1"]
    assert await found(filled, "IMAGE", "SOPInstanceUID", PatientID="P2", StudyInstanceUID="") == [
        "1.2.3.1.1",
        "1.2.3.1.2",
        "1.2.3.1.3",
    ]
    keys = {"PatientID": "P1", "StudyInstanceUID": "1.2.3"}
    assert await found(filled, "IMAGE", "SOPInstanceUID", **keys) == []


@pytest.mark.parametrize("level", ["image", "INSTANCE", " Image ", "instance"])
async def test_levels_as_peers_write_them(filled: Archive, level: str) -> None:
    (response,) = await find(filled, level, SOPInstanceUID="1.2.1.1.1")
    assert response.QueryRetrieveLevel == "IMAGE"


@pytest.mark.parametrize(
    ("level", "model", "status"),
    [
        (None, "STUDY", Status.DATA_SET_MISMATCH),
        ("", "STUDY", Status.DATA_SET_MISMATCH),
        ("FRAME", "STUDY", Status.DATA_SET_MISMATCH),
        ("PATIENT", "STUDY", Status.DATA_SET_MISMATCH),
        ("IMAGE", PATIENT_STUDY_ONLY, Status.DATA_SET_MISMATCH),
        ("STUDY", MODALITY_WORKLIST_FIND, Status.SOP_CLASS_NOT_SUPPORTED),
    ],
)
async def test_levels_that_there_are_not(
    filled: Archive, level: str | None, model: str, status: Status
) -> None:
    with pytest.raises(StatusError) as caught:
        await find(filled, level, model=model)
    assert caught.value.status == status
    assert len(caught.value.comment or "") <= 64


# -- responses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", NATIVE_TRANSFER_SYNTAXES)
async def test_what_a_response_has(filled: Archive, syntax: str) -> None:
    keys = {
        "PatientName": "",
        "StudyInstanceUID": "1.2.3",
        "StudyTime": "",
        "StudyDescription": "",
        "ModalitiesInStudy": "",
        "NumberOfStudyRelatedSeries": None,
        "NumberOfStudyRelatedInstances": None,
        "NumberOfPatientRelatedStudies": None,
        "InstanceAvailability": "",
        "SOPClassesInStudy": "",
        "SeriesDescription": "",  # of a lower level
        "EchoTime": None,  # not indexed
        "ProcedureCodeSequence": [],
        "Rows": None,
    }
    (response,) = await find(filled, "STUDY", syntax=syntax, **keys)
    assert response.QueryRetrieveLevel == "STUDY"
    assert response.RetrieveAETitle == "ARCHIVE"
    assert response.SpecificCharacterSet == "ISO_IR 192"
    assert response.PatientName == "Müller^Ute"
    assert response.ModalitiesInStudy == "US"
    assert response.SOPClassesInStudy == uid_of("CTImageStorage")
    assert response.NumberOfStudyRelatedSeries == 1
    assert response.NumberOfStudyRelatedInstances == 3
    assert response.NumberOfPatientRelatedStudies == 1
    assert response.InstanceAvailability == "ONLINE"
    empty = ("StudyTime", "StudyDescription", "SeriesDescription", "EchoTime", "Rows")
    for keyword in (*empty, "ProcedureCodeSequence"):
        assert response[keyword].is_empty, keyword
    asked = {element.keyword for element in identifier("STUDY", **keys)}
    assert {e.keyword for e in response} == asked | {"RetrieveAETitle", "SpecificCharacterSet"}


@pytest.mark.parametrize("syntax", NATIVE_TRANSFER_SYNTAXES)
async def test_a_response_as_the_handler_yields_it(filled: Archive, syntax: str) -> None:
    query = identifier("IMAGE", SOPInstanceUID="1.2.1.1.1", PatientName="", Rows=None, Columns=None)
    (response,) = [r async for r in filled.handle_find(find_request(query, syntax=syntax))]
    assert response.PatientName == "Doe^John"
    assert response.Rows == 512
    assert response["Columns"].is_empty
    assert "SpecificCharacterSet" not in response
    assert response.RetrieveAETitle == "ARCHIVE"
    # the same in another transfer syntax than it was made for
    for other in NATIVE_TRANSFER_SYNTAXES:
        again = datasets.decode(datasets.encode(response, other), other)
        assert (again.PatientName, again.Rows) == ("Doe^John", 512)


async def test_values_that_are_none_of_their_vr(archive: Archive) -> None:
    await store(archive, instance(InstanceNumber="", ImageType=["A", "B"]))
    row: Any = archive._index._writer  # pyright: ignore[reportPrivateUsage]
    row.execute("UPDATE instances SET Rows = 'many', Columns = '70000'")
    (response,) = await find(archive, "IMAGE", Rows=None, Columns=None, ImageType="")
    assert response["Rows"].is_empty
    assert response["Columns"].is_empty
    assert list(response.ImageType) == ["A", "B"]


async def test_elements_that_are_no_keys(filled: Archive) -> None:
    query = identifier("STUDY", StudyInstanceUID="1.2.1", SpecificCharacterSet="ISO_IR 100")
    query.add_new(0x00100000, "UL", 8)
    query.private_block(0x0009, "ACME", create=True).add_new(0x01, "LO", "x")
    syntax = IMPLICIT_VR_LITTLE_ENDIAN
    (response,) = [
        datasets.decode(datasets.encode(r, syntax), syntax)
        async for r in filled.handle_find(find_request(query))
    ]
    assert response.StudyInstanceUID == "1.2.1"
    assert response.get_private_item(0x0009, 0x01, "ACME").is_empty


async def test_counts_at_every_level(filled: Archive) -> None:
    (series,) = await find(
        filled,
        "SERIES",
        SeriesInstanceUID="1.2.1.1",
        NumberOfSeriesRelatedInstances=None,
        ModalitiesInStudy="",
        NumberOfPatientRelatedInstances=None,
        NumberOfPatientRelatedSeries=None,
    )
    assert series.NumberOfSeriesRelatedInstances == 3
    assert sorted(series.ModalitiesInStudy) == ["CT", "MR"]
    assert series.NumberOfPatientRelatedInstances == 6
    assert series.NumberOfPatientRelatedSeries == 4
    (image,) = await find(
        filled, "IMAGE", SOPInstanceUID="1.2.1.1.1", AvailableTransferSyntaxUID=""
    )
    assert image.AvailableTransferSyntaxUID == "1.2.840.10008.1.2.1"


# -- matching --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "studies"),
    [
        ({}, "123"),
        ({"PatientName": "doe*"}, "12"),
        ({"PatientName": "DOE"}, ""),
        ({"PatientName": "MÜLL*"}, "3"),
        ({"PatientName": "*"}, "123"),
        ({"PatientID": "P1"}, "12"),
        ({"PatientID": "P?"}, "123"),
        ({"PatientID": "p1"}, ""),
        ({"StudyDate": "20260131"}, "1"),
        ({"StudyDate": "20260101-"}, "12"),
        ({"StudyDate": "-20260131"}, "13"),
        ({"StudyDate": "20260131-20260201"}, "12"),
        ({"StudyDate": "20260202-"}, ""),
        ({"StudyDate": "*"}, "123"),
        ({"StudyTime": "10-11"}, "12"),
        ({"StudyTime": "1015"}, "12"),
        ({"StudyTime": "11-"}, ""),
        ({"StudyInstanceUID": ["1.2.1", "1.2.3", "1.2.9"]}, "13"),
        ({"StudyInstanceUID": "*"}, "123"),
        ({"AccessionNumber": "A2"}, "2"),
        ({"AccessionNumber": "A*"}, "2"),
        ({"ModalitiesInStudy": "CT"}, "12"),
        ({"ModalitiesInStudy": "MR"}, "1"),
        ({"ModalitiesInStudy": ["MR", "US"]}, "13"),
        ({"ModalitiesInStudy": "M*"}, "1"),
        ({"SOPClassesInStudy": "1.2.3"}, "1"),
        ({"NumberOfStudyRelatedInstances": "3"}, "3"),
        ({"NumberOfPatientRelatedStudies": "2"}, "12"),
        ({"InstanceAvailability": "OFFLINE"}, ""),
        ({"RetrieveAETitle": "SOMEWHERE"}, "123"),
        # not kept at this level: asks for nothing
        ({"EchoTime": "5"}, "123"),
        ({"SeriesDescription": "x"}, "123"),
        ({"PatientName": "doe*", "StudyDate": "-20260131", "ModalitiesInStudy": "MR"}, "1"),
    ],
)
async def test_matching(filled: Archive, keys: dict[str, Any], studies: str) -> None:
    uids = await found(filled, "STUDY", "StudyInstanceUID", **keys)
    assert uids == [f"1.2.{number}" for number in studies]


async def test_dates_of_all_forms(archive: Archive) -> None:
    for number, date in enumerate(["20260131", "2026.01.31", "", "unknown!", "2026"]):
        data_set = instance(f"1.{number}", f"1.{number}.1", f"1.{number}.1.1")
        data_set.add_new(0x00080020, "LO", date)  # another VR, as pydicom would refuse this one
        data_set["StudyDate"].VR = "DA"
        await store(archive, data_set)
    for key in ("20260131", "20260101-", "-20261231", "20260131-20260131"):
        assert await found(archive, "STUDY", "StudyInstanceUID", StudyDate=key) == ["1.0", "1.1"]


async def test_texts_may_have_backslashes(archive: Archive) -> None:
    await store(archive, instance(PatientComments="one\\two", OtherPatientIDs=["one", "two"]))
    for key, count in (("one*", 1), ("*two", 1), ("two", 0), ("one", 0)):
        assert len(await find(archive, "STUDY", PatientComments=key)) == count
    assert len(await find(archive, "STUDY", OtherPatientIDs="two")) == 1


async def test_many_uids(filled: Archive) -> None:
    uids = [f"1.2.{number}" for number in range(40_000)]
    assert len(await find(filled, "STUDY", StudyInstanceUID=uids)) == 3


async def test_matching_as_it_is_told(tmp_path: Path) -> None:
    options = MatchingOptions(pn_ignore_case=False, missing_matches=True, combined_datetime=True)
    async with open_archive(tmp_path, matching=options) as archive:
        await store(archive, instance())
        assert await find(archive, "STUDY", PatientName="DOE*") == []
        assert len(await find(archive, "STUDY", PatientName="Doe*", AccessionNumber="A")) == 1
        keys = {"StudyDate": "20260130-20260201", "StudyTime": "2300-0100"}
        assert len(await find(archive, "STUDY", **keys)) == 1


async def test_patients_without_id(archive: Archive) -> None:
    for number, name in enumerate(("Doe^A", "Doe^B", "")):
        await store(
            archive,
            instance(
                f"1.{number}", f"1.{number}.1", f"1.{number}.1.1", PatientID="", PatientName=name
            ),
        )
    patients = await find(archive, "PATIENT", model="PATIENT", PatientID="", PatientName="")
    assert sorted(str(p.PatientName) for p in patients) == ["", "Doe^A", "Doe^B"]
    keys = {"PatientName": "Doe^B", "PatientID": ""}
    assert await found(archive, "STUDY", "StudyInstanceUID", model="PATIENT", **keys) == ["1.1"]


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 299, 300, 301, 800])
async def test_all_are_found_whatever_their_number(archive: Archive, count: int) -> None:
    uids = sorted(f"1.2.1.1.{number}" for number in range(count))
    await store(archive, *(instance(uid=uid) for uid in uids))
    assert await found(archive, "IMAGE", "SOPInstanceUID") == uids


async def test_nothing_is_open_between_batches(
    filled: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FIRST_BATCH", 1)
    monkeypatch.setattr(search, "LAST_BATCH", 2)
    responses = cast(
        "Any", filled.handle_find(find_request(identifier("IMAGE", SOPInstanceUID="")))
    )
    uids: list[str] = []
    async with aclosing(responses) as batch:
        async for response in batch:
            uids.append(response.SOPInstanceUID)
            pool: Any = filled._index.engine.pool  # pyright: ignore[reportPrivateUsage]
            assert pool.checkedout() == 1  # the one that writes
            if len(uids) == 1:  # what is stored meanwhile is found or not, and does no harm
                await store(filled, instance(uid="1.2.1.1.1"), instance(uid="1.2.1.1.9"))
    assert len(uids) == len(set(uids)) == 10


async def test_left_early_it_stops(filled: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FIRST_BATCH", 1)
    responses = cast(
        "Any", filled.handle_find(find_request(identifier("IMAGE", SOPInstanceUID="")))
    )
    async with aclosing(responses) as batch:
        async for _ in batch:
            break
    assert len(await find(filled, "IMAGE", SOPInstanceUID="")) == 9


# -- failures --------------------------------------------------------------------------------------


async def test_a_damaged_index_is_said_to_be_one(filled: Archive) -> None:
    with closing(sqlite3.connect(filled.folder / "index.sqlite")) as other:
        other.execute("DROP TABLE patients")
        other.commit()
    with pytest.raises(StatusError, match="damaged") as caught:
        await find(filled, "STUDY", PatientName="")
    assert caught.value.status == Status.CANNOT_UNDERSTAND
    with pytest.raises(dimse.DimseError, match="rebuild"):
        await filled.statistics()


def test_big_endian_values() -> None:
    response = Dataset()
    response.Rows = 512
    data = datasets.encode(response, EXPLICIT_VR_BIG_ENDIAN)
    assert datasets.decode(data, EXPLICIT_VR_BIG_ENDIAN).Rows == 512
