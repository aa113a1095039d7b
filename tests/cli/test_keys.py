"""`-k` and what becomes of it: identifiers, and values shown as text."""

from __future__ import annotations

import datetime as dt

import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.cli.keys import Attribute, make_query, parse_keys


def asked(*keys: str, level: str = "image", model: str | None = None) -> Dataset:
    return make_query(level, parse_keys(keys), model=model, return_keys=False)[0].identifier


@pytest.mark.parametrize(
    ("key", "keyword", "value"),
    [
        ("PatientName=DOE*", "PatientName", "DOE*"),
        ("PatientName=", "PatientName", None),
        ("StudyDescription=a=b", "StudyDescription", "a=b"),
        ("StudyDate=20260101-", "StudyDate", "20260101-"),
        ("Rows=0x40", "Rows", 64),
        ("Rows=64\\128", "Rows", [64, 128]),
        ("ExaminedBodyThickness=1.5", "ExaminedBodyThickness", 1.5),
        ("OffendingElement", "OffendingElement", None),
        ("FrameIncrementPointer=(0018,1063)", "FrameIncrementPointer", 0x00181063),
        ("PixelData", "PixelData", None),
    ],
)
def test_values_have_the_form_of_their_attribute(key: str, keyword: str, value: object) -> None:
    assert asked(key)[keyword].value == value


@pytest.mark.parametrize(
    "key",
    [
        "ScheduledProcedureStepSequence.Modality=CT",
        "0040,0100.0008,0060=CT",
        "(0040,0100)[0].(0008,0060)=CT",
        "ScheduledProcedureStepSequence.00080060=CT",
        "Modality=CT",
        "(0008,0060)=CT",
    ],
)
def test_keys_of_a_worklist_are_in_its_scheduled_procedure_step(key: str) -> None:
    identifier = asked(key, level="worklist")
    (step,) = identifier.ScheduledProcedureStepSequence
    assert (step.Modality, "Modality" in identifier) == ("CT", False)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("StudyDate=2026-01-01", r"write '20260101' or datetime.date\(2026, 1, 1\)"),
        ("(0008,0030)=9am", "StudyTime '9am' is no DICOM time"),
        ("StudyInstanceUID=1.2\\abc", "is no UID"),
        ("SeriesNumber=abc", "SeriesNumber 'abc' is no whole number"),
        ("ScheduledProcedureStepSequence.ScheduledProcedureStepStartDate=todays", "no DICOM date"),
        ("Rows=many", "Rows=many: no value"),
        ("PatientAge=31", "PatientAge '31' is no DICOM age; write .* '031Y'"),
    ],
)
def test_values_are_checked_as_those_of_a_query(key: str, message: str) -> None:
    with pytest.raises(dimse.QueryError, match=message):
        asked(key)


@pytest.mark.parametrize(
    ("value", "days"),
    [
        ("today", "{0}"),
        ("today-7", "{-7}"),
        ("today+1", "{1}"),
        ("today-7..today", "{-7}-{0}"),
        ("today-7-today", "{-7}-{0}"),
        ("today-", "{0}-"),
        ("-today", "-{0}"),
        ("20000101-today", "20000101-{0}"),
        ("today-30000101", "{0}-30000101"),
        ("20000101..20000102", "20000101-20000102"),
    ],
)
def test_a_date_may_be_today_and_days_from_it(value: str, days: str) -> None:
    today = dt.date.today()
    for number in (-7, 0, 1):
        day = today + dt.timedelta(days=number)
        days = days.replace(f"{{{number}}}", day.strftime("%Y%m%d"))
    assert asked(f"StudyDate={value}").StudyDate == days


def test_today_is_a_word_where_no_date_is_meant() -> None:
    assert asked("StudyDescription=today..").StudyDescription == "today.."


def test_times_may_run_over_midnight_with_a_range_of_dates() -> None:
    keys = ("StudyTime=2200-0600", "StudyDate=20260101-20260102")
    assert asked(*keys).StudyTime == "2200-0600"
    with pytest.raises(dimse.QueryError, match="ends before it begins"):
        asked(keys[0])


def test_a_lone_star_is_an_empty_value_where_there_are_no_wildcards() -> None:
    identifier = asked("StudyDate=*", "SeriesNumber=*", "PatientName=*")
    assert identifier["StudyDate"].is_empty
    assert identifier["SeriesNumber"].is_empty
    assert identifier.PatientName == "*"


def test_paths_of_one_sequence_share_its_item() -> None:
    identifier = asked(
        "RequestAttributesSequence",
        "RequestAttributesSequence.RequestedProcedureID=1",
        "RequestAttributesSequence.00400009=2",
    )
    (item,) = identifier.RequestAttributesSequence
    assert (item.RequestedProcedureID, item.ScheduledProcedureStepID) == ("1", "2")


def test_a_sequence_alone_is_asked_for_as_a_whole() -> None:
    assert len(asked("RequestAttributesSequence").RequestAttributesSequence) == 0


def test_the_worklist_model_is_its_level_too() -> None:
    identifier = asked("Modality=CT", level="study", model="worklist")
    assert identifier.ScheduledProcedureStepSequence[0].Modality == "CT"


def test_names_of_paths_are_keywords() -> None:
    (key,) = parse_keys(["0040,0275.0040,1001"])
    assert key.attribute.name == "RequestAttributesSequence.RequestedProcedureID"


def test_values_are_shown_as_text() -> None:
    data_set, first, second = Dataset(), Dataset(), Dataset()
    data_set.PatientName = "DOE^JOHN"
    data_set.ImageType = ["ORIGINAL", "PRIMARY"]
    data_set.StudyDate = None
    data_set.ReferencedImageSequence = []
    data_set.add_new(0x7FE00010, "OB", bytes(16))
    first.Modality, second.Modality = "CT", "MR"
    data_set.ScheduledProcedureStepSequence = [first, second]
    texts = {
        (0x00100010,): "DOE^JOHN",
        (0x00080008,): "ORIGINAL\\PRIMARY",
        (0x00080020,): "",
        (0x00080030,): "",
        (0x7FE00010,): "16 bytes",
        (0x00081140,): "",
        (0x00400100,): "2 items",
        (0x00400100, 0x00080060): "CT; MR",
        (0x00400100, 0x00080020): "",
    }
    assert {tags: Attribute(tags).text_in(data_set) for tags in texts} == texts


def test_a_value_that_cannot_be_read_is_said_to_be_invalid() -> None:
    class Unreadable:
        def __str__(self) -> str:
            raise ValueError

    data_set = Dataset()
    data_set.add_new("PatientID", "LO", "1")
    data_set["PatientID"]._value = Unreadable()
    assert Attribute((0x00100020,)).text_in(data_set) == "(invalid)"
