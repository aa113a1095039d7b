"""Identifiers from keyword arguments."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.valuerep import PersonName

import dimse_trio as dimse
from dimse_trio.queries import unchecked_query


def test_a_level_brings_its_usual_return_keys() -> None:
    identifier = dimse.query("study", PatientName="DOE*").identifier
    assert identifier.QueryRetrieveLevel == "STUDY"
    assert identifier.PatientName == "DOE*"
    assert identifier["StudyInstanceUID"].is_empty
    assert "ModalitiesInStudy" in identifier


def test_return_keys_can_be_left_out() -> None:
    identifier = dimse.query("SERIES", return_keys=False, StudyInstanceUID="1.2").identifier
    assert [e.keyword for e in identifier] == ["QueryRetrieveLevel", "StudyInstanceUID"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (dt.date(2026, 1, 2), "20260102"),
        ((dt.date(2026, 1, 2), None), "20260102-"),
        ((None, dt.date(2026, 1, 2)), "-20260102"),
        ((dt.datetime(2026, 1, 2, 3, 4), "20260105"), "20260102-20260105"),
        ("20260101-", "20260101-"),
        (None, ""),
    ],
)
def test_dates_and_ranges_are_written_as_the_vr_wants(value: object, text: str) -> None:
    assert dimse.query("STUDY", StudyDate=value).identifier.StudyDate == text


def test_lists_of_uids_become_several_values() -> None:
    identifier = dimse.query("IMAGE", SOPInstanceUID=["1.2", "1.3"]).identifier
    assert list(identifier.SOPInstanceUID) == ["1.2", "1.3"]


def test_a_character_set_is_named_when_a_value_needs_one() -> None:
    assert "SpecificCharacterSet" not in dimse.query("STUDY", PatientName="DOE").identifier
    identifier = dimse.query("STUDY", PatientName="MÜLLER*").identifier
    assert identifier.SpecificCharacterSet == "ISO_IR 192"


def test_the_model_follows_the_level_unless_it_is_said() -> None:
    assert dimse.query("PATIENT").model is dimse.Model.PATIENT_ROOT
    assert dimse.query("STUDY").model is None
    assert dimse.query("STUDY", model="patient root").model is dimse.Model.PATIENT_ROOT
    assert dimse.query("INSTANCE").level == "IMAGE"


def test_worklist_keys_go_into_the_step() -> None:
    query = dimse.query("WORKLIST", Modality="CT", PatientName="DOE*")
    assert query.model is dimse.Model.WORKLIST
    assert query.identifier.ScheduledProcedureStepSequence[0].Modality == "CT"
    assert "QueryRetrieveLevel" not in query.identifier


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "STUDY", "PatientNam": "x"}, "PatientName"),
        ({"level": "STUDIES"}, "no level"),
        ({"level": None}, "no level None"),
        ({"level": "STUDY", "model": "study_tree"}, "no information model"),
        ({"level": "STUDY", "model": 5}, "no information model 5"),
        ({"level": "STUDY", "StudyDate": dt.time(1)}, "where a date is asked"),
        ({"level": "STUDY", "StudyTime": (dt.date(2026, 1, 1), None)}, "where a time is asked"),
        ({"level": "STUDY", "RequestAttributesSequence": "x"}, "is a sequence"),
    ],
)
def test_a_query_that_cannot_be_says_why(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(dimse.QueryError, match=message):
        dimse.query(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        (
            "StudyDate",
            "2026-01-01",
            "'2026-01-01' is no DICOM date; write '20260101' or datetime.date(2026, 1, 1)",
        ),
        (
            "StudyDate",
            20260101,
            "StudyDate 20260101 is no DICOM date; write '20260101' or datetime.date(2026, 1, 1)",
        ),
        ("StudyDate", b"20260101", "write '20260101' or datetime.date(2026, 1, 1)"),
        ("StudyDate", "20260230", "a range '20260101-20260131'"),
        (
            "PatientAge",
            "31",
            "is no DICOM age; write three digits and D, W, M or Y, as '031Y'",
        ),
        ("PatientAge", 31, "31 is no DICOM age"),
        ("StudyDate", "2026*", "is no DICOM date"),
        ("StudyDate", "-", "is no DICOM date"),
        ("StudyDate", "20260131-20260101", "write '20260101-20260131'"),
        ("StudyDate", (dt.date(2026, 2, 1), dt.date(2026, 1, 1)), "write '20260101-20260201'"),
        ("StudyDate", (20260101, None), "neither a date nor a time"),
        ("StudyTime", "9am", "StudyTime '9am' is no DICOM time; write HHMMSS as '093000'"),
        ("StudyTime", "09:30", "write '093000' or datetime.time(9, 30)"),
        ("StudyTime", "09:00-10:30", "a range '0930-1800'"),
        ("StudyTime", 930, "is no DICOM time"),
        ("StudyTime", "2200-0600", "write '0600-2200'"),
        ("AcquisitionDateTime", "2026-01-01T10:00", "write '20260101100000' or"),
        ("AcquisitionDateTime", "2026013", "is no DICOM date-time"),
        ("AcquisitionDateTime", "2026+1500", "is no DICOM date-time"),
        ("StudyInstanceUID", "abc", "StudyInstanceUID 'abc' is no UID; write up to 64 digits"),
        ("StudyInstanceUID", "1.2.*", "no wildcards"),
        ("StudyInstanceUID", "1." + "2" * 63, "up to 64"),
        ("StudyInstanceUID", ["1.2", "abc"], "is no UID"),
        ("StudyInstanceUID", 1.2, "write '1.2'"),
        ("PatientID", 12345, "PatientID 12345 is no text but int; write '12345'"),
        ("PatientName", b"DOE", "write 'DOE'"),
        ("PatientName", 5, "is no text but int"),
        ("PatientID", {"a": 1}, "is no text but dict"),
        ("SeriesNumber", "abc", "SeriesNumber 'abc' is no whole number; write 5 or '5'"),
        ("SeriesNumber", 1.5, "is no whole number"),
        ("SeriesNumber", float("inf"), "is no whole number"),
        ("SeriesNumber", b"5", "write '5'"),
        ("PatientWeight", "heavy", "is no number"),
        ("Rows", "64", "Rows '64' is no whole number but str"),
    ],
)
def test_a_value_that_its_vr_forbids_is_refused_with_what_to_write(
    keyword: str, value: object, message: str
) -> None:
    keys: dict[str, object] = {keyword: value}
    with pytest.raises(dimse.QueryError, match=re.escape(message)):
        dimse.query("IMAGE", **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyDate", "-20260131"),
        ("StudyDate", "20260101-20260131"),
        ("StudyDate", "20260101-20260101"),
        ("StudyDate", "20240229 "),
        ("StudyDate", "2026.01.31"),
        ("StudyDate", "20260101\\20260102"),
        ("StudyDate", ["20260101", dt.date(2026, 1, 2)]),
        ("StudyDate", (dt.date.min, dt.date.max)),
        ("StudyDate", "*"),
        ("StudyTime", "10"),
        ("StudyTime", "1030-10"),
        ("StudyTime", "093000.123456-"),
        ("StudyTime", "235960"),
        ("StudyTime", "*"),
        ("AcquisitionDateTime", "2026"),
        ("AcquisitionDateTime", "202601-202602"),
        ("AcquisitionDateTime", "20260101093000.5-0500"),
        ("AcquisitionDateTime", "20260101-0500-20260102-0500"),
        ("AcquisitionDateTime", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        ("AcquisitionDateTime", (dt.datetime(2026, 1, 1), None)),
        ("StudyInstanceUID", "1.2\\1.3"),
        ("StudyInstanceUID", "1.2.03.4"),
        ("StudyInstanceUID", "*"),
        ("StudyInstanceUID", UID("1.2.3")),
        ("StudyInstanceUID", MultiValue(str, ["1.2", "1.3"])),
        ("StudyInstanceUID", {"1.2"}),
        ("ModalitiesInStudy", ["CT", "MR"]),
        ("Modality", "C?"),
        ("PatientName", PersonName("DOE^JOHN")),
        ("PatientName", "*^JOHN"),
        ("PatientAge", "042Y"),
        ("SeriesNumber", 5),
        ("SeriesNumber", "*"),
        ("SeriesNumber", "5\\6"),
        ("PatientWeight", 70.5),
        ("Rows", 64),
        ("Rows", [64, 128]),
        ("Rows", ""),
        ("RescaleSlope", "-1.5E3"),
        ("PatientID", ""),
        ("StudyDate", None),
    ],
)
def test_what_the_standard_allows_of_keys_is_taken(keyword: str, value: object) -> None:
    keys: dict[str, object] = {keyword: value}
    assert keyword in dimse.query("IMAGE", **keys).identifier  # type: ignore[arg-type]


def test_times_may_run_over_midnight_with_a_range_of_dates() -> None:
    identifier = dimse.query(
        "STUDY", StudyDate=(dt.date(2026, 1, 1), dt.date(2026, 1, 2)), StudyTime="2200-0600"
    ).identifier
    assert identifier.StudyTime == "2200-0600"


def test_values_that_come_from_a_peer_are_not_checked() -> None:
    made = unchecked_query("STUDY", {"StudyInstanceUID": "1.2-odd"})
    assert made.identifier.StudyInstanceUID == "1.2-odd"
