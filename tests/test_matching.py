"""Attribute matching (PS3.4 §C.2.2.2), rule by rule."""

from __future__ import annotations

import datetime as dt
import fnmatch
import re
import time
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from dimse_trio.datasets import encode
from dimse_trio.matching import (
    MatchingOptions,
    compile_query,
    matches,
    response,
    values_of,
    wildcard,
)
from dimse_trio.protocol.uids import EXPLICIT_VR_LITTLE_ENDIAN


def data_set(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def key_matches(keyword: str, key: Any, value: Any, **options: Any) -> bool:
    return matches(
        data_set(**{keyword: key}),
        data_set(**{keyword: value}),
        options=MatchingOptions(**options),
    )


@pytest.mark.parametrize(
    ("keyword", "key", "value", "expected"),
    [
        # single value (C.2.2.2.1): case-sensitive but for person names
        ("PatientID", "A1", "A1", True),
        ("PatientID", "A1", "a1", False),
        ("PatientID", "A1", "A12", False),
        ("PatientID", "A1 ", " A1", True),
        ("AccessionNumber", "[x]", "[x]", True),
        ("Rows", 512, 512, True),
        ("Rows", 512, 256, False),
        ("InstanceNumber", "7", "007", True),
        ("InstanceNumber", "+7", "7", True),
        ("SliceLocation", "1.50", "1.5", True),
        ("SliceLocation", "1.5", "-1.5", False),
        ("PatientAge", "034Y", "034Y", True),
        ("StudyComments", " x", "x", False),  # LT: leading spaces are significant
        ("StudyComments", "x ", "x", True),
        # lists of UIDs (C.2.2.2.2)
        ("StudyInstanceUID", "1.2.3", "1.2.3", True),
        ("StudyInstanceUID", ["1.2.3", "1.2.4"], "1.2.4", True),
        ("StudyInstanceUID", ["1.2.3", "1.2.4"], "1.2.5", False),
        ("StudyInstanceUID", "1.2.*", "1.2.3", False),  # UIDs know no wildcards
        # universal matching (C.2.2.2.3), a lone * included
        ("PatientID", "", "A1", True),
        ("PatientID", None, "", True),
        ("PatientID", "*", "", True),
        ("PatientID", "**", "A1", True),
        ("StudyDate", "*", "20260131", True),
        ("StudyInstanceUID", "*", "1.2.3", True),
        ("Rows", None, 512, True),
        # wildcards (C.2.2.2.4)
        ("PatientID", "A*", "A1", True),
        ("PatientID", "A*", "A", True),
        ("PatientID", "A*", "BA", False),
        ("PatientID", "*A*", "BAB", True),
        ("PatientID", "A?", "A1", True),
        ("PatientID", "A?", "A", False),
        ("PatientID", "?*1", "A1", True),
        ("PatientID", "a*", "A1", False),
        ("PatientID", "A.*", "AX", False),
        ("PatientID", "A*B*C", "AxBxBxC", True),
        ("PatientID", "A*B*C", "AxCxB", False),
        ("PatientComments", "line*two", "line one\r\nline two", True),
        ("Modality", "C?", "CT", True),
        ("PatientAge", "0*", "034Y", False),
        # several values: any is enough; a key's too
        ("ModalitiesInStudy", "MR", ["CT", "MR"], True),
        ("ModalitiesInStudy", "US", ["CT", "MR"], False),
        ("ModalitiesInStudy", ["US", "CT"], ["CT", "MR"], True),
        ("ImageType", "PRIM*", ["ORIGINAL", "PRIMARY"], True),
        ("ModalitiesInStudy", "MR", ["", "MR"], True),
        # dates (C.2.2.2.5.1)
        ("StudyDate", "20260131", "20260131", True),
        ("StudyDate", "20260131", "20260130", False),
        ("StudyDate", "20260131", "2026.01.31", True),
        ("StudyDate", "20260101-20260131", "20260131", True),
        ("StudyDate", "20260101-20260131", "20260101", True),
        ("StudyDate", "20260101-20260131", "20260201", False),
        ("StudyDate", "20260101-", "20260201", True),
        ("StudyDate", "20260101-", "20251231", False),
        ("StudyDate", "-20260131", "19000101", True),
        ("StudyDate", "-20260131", "20260201", False),
        ("StudyDate", "20260101 - 20260131", "20260115", True),
        ("StudyDate", "nonsense", "20260115", False),
        ("StudyDate", "-", "20260115", False),
        ("StudyDate", "20260101-", "unknown", False),
        # times (C.2.2.2.5.2), of any precision
        ("StudyTime", "101530", "101530", True),
        ("StudyTime", "10", "101530.25", True),
        ("StudyTime", "10", "110000", False),
        ("StudyTime", "1015", "10:15:30", True),
        ("StudyTime", "101530", "1015", False),
        ("StudyTime", "10-11", "115959.999999", True),
        ("StudyTime", "10-11", "12", False),
        ("StudyTime", "1000-1030", "103059", True),
        ("StudyTime", "101530.5-", "101530.6", True),
        ("StudyTime", "101530.5-", "101530.4", False),
        ("StudyTime", "-0930", "093001", True),
        ("StudyTime", "230000-010000", "233000", False),  # midnight is not crossed
        # dates with times (C.2.2.2.5.3)
        ("AcquisitionDateTime", "2026", "20260131101530", True),
        ("AcquisitionDateTime", "202601", "20260201", False),
        ("AcquisitionDateTime", "2026-2027", "20271231235959.999999", True),
        ("AcquisitionDateTime", "20260131-", "20260131", True),
        ("AcquisitionDateTime", "-20260131", "20260131235959", True),
        ("AcquisitionDateTime", "20260131101530.5", "20260131101530.512345", True),
        ("AcquisitionDateTime", "202601311200+0100", "202601311100+0000", True),
        ("AcquisitionDateTime", "202601311200+0100", "202601311200+0000", False),
        ("AcquisitionDateTime", "202601311200+0100", "202601311200", True),
        ("AcquisitionDateTime", "202601310100-0500", "202601310600+0000", True),
        ("AcquisitionDateTime", "20260131-0500", "202601310600+0000", True),
        ("AcquisitionDateTime", "20260131-0500", "202601310400+0000", False),
        ("AcquisitionDateTime", "202601-202602", "20260210", True),
        ("AcquisitionDateTime", "202601311200-0500-202601311300-0500", "202601311730+0000", True),
        ("AcquisitionDateTime", "202601311200-0500-202601311300-0500", "202601311830+0000", False),
        ("AcquisitionDateTime", "202601311200-0500-", "202601311659+0000", False),
        ("AcquisitionDateTime", "-202601311200-0500", "202601311659+0000", True),
        ("AcquisitionDateTime", "2026+0000-2026+0100", "202512312330+0000", False),
        ("AcquisitionDateTime", "0001-0100", "0001+0100", True),  # out of any calendar
        ("AcquisitionDateTime", "20269999", "20269999", True),
        # person names: case, padding, component groups
        ("PatientName", "DOE^JOHN", "Doe^John", True),
        ("PatientName", "doe*", "DOE^JOHN", True),
        ("PatientName", "DOE", "DOE^JOHN", False),
        ("PatientName", "DOE^JOHN", "DOE^JOHN^^^", True),
        ("PatientName", "DOE^JOHN^^^ ", "DOE^JOHN", True),
        ("PatientName", "DOE ^JOHN", "DOE^JOHN ", True),
        ("PatientName", "DOE^*", "DOE", True),
        ("PatientName", "DOE^J*", "DOE", False),
        ("PatientName", "*^JOHN", "DOE^JOHN", True),
        ("PatientName", "DO?^J?HN", "DOE^JOHN", True),
        ("PatientName", "MÜLLER*", "müller^ute", True),
        ("PatientName", "山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PatientName", "yamada*", "Yamada^Tarou=山田^太郎", True),
        ("PatientName", "=山田*", "Yamada^Tarou=山田^太郎", True),
        ("PatientName", "=Yamada*", "Yamada^Tarou=山田^太郎", False),
        ("PatientName", "Yamada*=鈴木*", "Yamada^Tarou=山田^太郎", False),
        ("PatientName", "Yamada*=山田*", "Yamada^Tarou", False),
        ("PatientName", "Yamada*=", "Yamada^Tarou", True),
        ("PatientName", "^", "Yamada^Tarou", True),
        ("OperatorsName", "B*", ["Able^A", "Baker^B"], True),
    ],
)
def test_single_attribute(keyword: str, key: Any, value: Any, expected: bool) -> None:
    assert key_matches(keyword, key, value) is expected


def test_person_names_with_case_when_told_so() -> None:
    assert not key_matches("PatientName", "DOE*", "Doe^John", pn_ignore_case=False)
    assert key_matches("PatientName", "Doe*", "Doe^John", pn_ignore_case=False)


@pytest.mark.parametrize("key", ["A1", "A?", "?*"])
@pytest.mark.parametrize("record", [data_set(), data_set(PatientID="")])
def test_an_attribute_without_value_matches_no_key_unless_told_so(
    key: str, record: Dataset
) -> None:
    identifier = data_set(PatientID=key)
    assert not matches(identifier, record)
    assert matches(identifier, record, options=MatchingOptions(missing_matches=True))


def test_every_key_must_match() -> None:
    identifier = data_set(PatientID="A*", StudyDate="20260101-", Modality="")
    assert matches(identifier, data_set(PatientID="A1", StudyDate="20260102"))
    assert not matches(identifier, data_set(PatientID="B1", StudyDate="20260102"))
    assert not matches(identifier, data_set(PatientID="A1", StudyDate="20250102"))


def test_elements_that_are_no_keys_are_not_matched_and_not_returned() -> None:
    identifier = data_set(QueryRetrieveLevel="STUDY", SpecificCharacterSet="ISO_IR 100")
    identifier.add_new(0x00080001, "UL", 7)
    identifier.add_new(0x00100000, "UL", 4)  # group length
    identifier.add_new(0x00041200, "UL", 4)  # group below 8
    identifier.add_new(0x00080053, "CS", "CLASSIC")
    identifier.PatientID = ""
    record = data_set(PatientID="A1", SpecificCharacterSet="ISO_IR 13")
    assert matches(identifier, record)
    answer = response(identifier, record)
    assert [element.keyword for element in answer] == ["QueryRetrieveLevel", "PatientID"]


def test_the_response_has_every_key_asked_for_and_nothing_else() -> None:
    identifier = data_set(QueryRetrieveLevel="STUDY", PatientName="", StudyDate="", StudyID="")
    record = data_set(PatientName="Doe^John", StudyDate="20260131", Modality="CT")
    answer = response(identifier, record)
    assert answer.QueryRetrieveLevel == "STUDY"
    assert answer.PatientName == "Doe^John"
    assert answer.StudyDate == "20260131"
    assert "StudyID" in answer
    assert answer["StudyID"].is_empty
    assert "Modality" not in answer
    assert "SpecificCharacterSet" not in answer


def test_the_response_names_utf_8_when_it_needs_it() -> None:
    identifier = data_set(PatientName="", RequestAttributesSequence=[])
    record = data_set(PatientName="Müller^Ute")
    assert response(identifier, record).SpecificCharacterSet == "ISO_IR 192"
    inside = data_set(PatientName="x")
    inside.RequestAttributesSequence = [data_set(RequestedProcedureDescription="Schädel")]
    assert response(identifier, inside).SpecificCharacterSet == "ISO_IR 192"


def test_a_response_can_be_encoded_whatever_was_asked_for() -> None:
    identifier = data_set(PatientName="", Rows=None, StudyDate="", RequestAttributesSequence=[])
    identifier.add(DataElement(0x00280106, "US or SS", None))
    identifier.add(DataElement(0x00281201, "OB or OW", None))
    for implicit in (True, False):
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
        write_dataset(buffer, response(identifier, Dataset()))
        read = read_dataset(BytesIO(buffer.getvalue()), implicit, True)
        assert [element.tag for element in read] == [element.tag for element in identifier]


def test_private_keys_keep_their_creator() -> None:
    identifier, record = Dataset(), Dataset()
    identifier.private_block(0x0009, "ACME", create=True).add_new(0x01, "LO", "x*")
    record.private_block(0x0009, "ACME", create=True).add_new(0x01, "LO", "xyz")
    assert matches(identifier, record)
    assert response(identifier, record).get_private_item(0x0009, 0x01, "ACME").value == "xyz"
    identifier[0x00091001].value = ""
    assert response(identifier, Dataset()).get_private_item(0x0009, 0x01, "ACME").is_empty


@pytest.mark.parametrize("vr", ["UN", "OB", "US", "LO"])
def test_a_private_creator_of_another_vr_is_answered_as_the_text_that_it_is(vr: str) -> None:
    value = 0x4143 if vr == "US" else "ACME" if vr == "LO" else b"ACME"
    identifier = Dataset()
    identifier.add_new(0x00090010, vr, value)
    answer = response(identifier, Dataset())
    assert answer[0x00090010].VR == "LO"
    encode(answer, EXPLICIT_VR_LITTLE_ENDIAN)


# -- sequences (C.2.2.2.6) -------------------------------------------------------------------------


def steps(*items: dict[str, Any]) -> Dataset:
    return data_set(ScheduledProcedureStepSequence=[data_set(**item) for item in items])


def test_a_sequence_matches_when_one_of_its_items_does_and_only_that_comes_back() -> None:
    record = steps(
        {"Modality": "CT", "ScheduledStationAETitle": "A", "ScheduledProcedureStepID": "1"},
        {"Modality": "MR", "ScheduledStationAETitle": "B", "ScheduledProcedureStepID": "2"},
    )
    identifier = steps({"Modality": "MR", "ScheduledStationAETitle": ""})
    assert matches(identifier, record)
    (item,) = response(identifier, record).ScheduledProcedureStepSequence
    assert item == data_set(Modality="MR", ScheduledStationAETitle="B")
    # keys of one item must match in one item
    assert not matches(steps({"Modality": "MR", "ScheduledStationAETitle": "A"}), record)


def test_a_sequence_without_keys_is_universal() -> None:
    record = steps({"Modality": "CT", "ScheduledStationAETitle": "A"})
    empty = data_set(ScheduledProcedureStepSequence=[])
    assert compile_query(empty).is_universal
    assert matches(empty, record)
    assert matches(empty, Dataset())
    assert response(empty, record) == record
    assert matches(steps({"Modality": ""}), Dataset())
    assert len(response(steps({"Modality": ""}), Dataset()).ScheduledProcedureStepSequence) == 0


def test_a_sequence_that_is_missing() -> None:
    identifier = steps({"Modality": "CT"})
    assert not compile_query(identifier).is_universal
    assert not matches(identifier, Dataset())
    assert matches(identifier, Dataset(), options=MatchingOptions(missing_matches=True))


# -- combined date and time (C.2.2.2.5.4) ----------------------------------------------------------


@pytest.mark.parametrize(
    ("dates", "times", "date", "time_", "each_day", "combined"),
    [
        ("20260705-20260707", "1000-1800", "20260706", "2300", False, True),
        ("20260705-20260707", "1000-1800", "20260705", "0959", False, False),
        ("20260705-20260707", "1000-1800", "20260705", "10", True, True),
        ("20260705-20260707", "1000-1800", "20260707", "180030", True, True),
        ("20260705-20260707", "1000-1800", "20260707", "1801", False, False),
        ("20260705-", "1000-", "20260706", "0100", False, True),
        ("-20260705", "-1000", "20260704", "2300", False, True),
        ("20260705-", "-1000", "20260706", "0100", True, True),  # forms differ: apart
        ("20260705-", "-1000", "20260706", "1100", False, False),
        ("20260705", "1000-", "20260705", "1100", True, True),  # no range of dates: apart
        ("20260705-20260707", "1000-1800", "20260706", None, False, True),
        ("20260705-20260707", "1000-1800", None, "1200", False, False),
        ("20260705-20260707", "1000-1800", "bad", "1200", False, False),
    ],
)
def test_dates_and_times_together(
    dates: str, times: str, date: str | None, time_: str | None, each_day: bool, combined: bool
) -> None:
    identifier = data_set(StudyDate=dates, StudyTime=times)
    record = data_set(StudyDate=date, StudyTime=time_)
    assert matches(identifier, record) is each_day
    together = MatchingOptions(combined_datetime=True)
    assert matches(identifier, record, options=together) is combined
    assert not compile_query(identifier, options=together).is_universal


# -- identifiers as they come ----------------------------------------------------------------------


def decoded(*elements: tuple[int, str, bytes]) -> Dataset:
    """A data set read from bytes, values that its VRs do not allow included."""
    raw = b"".join(
        tag.to_bytes(4, "big")[1::-1]
        + tag.to_bytes(4, "big")[:1:-1]
        + vr.encode()
        + len(value).to_bytes(2, "little")
        + value
        for tag, vr, value in elements
    )
    return read_dataset(BytesIO(raw), is_implicit_VR=False, is_little_endian=True)


def test_a_value_that_its_vr_does_not_allow_is_compared_as_written() -> None:
    identifier = decoded((0x00200013, "IS", b"1*"))
    assert values_of(identifier, 0x00200013) == ("1*",)
    assert not matches(identifier, data_set(InstanceNumber="1"))
    assert matches(identifier, decoded((0x00200013, "IS", b"1*")))
    assert matches(decoded((0x00200013, "IS", b"* ")), Dataset())


def test_a_value_that_cannot_be_read_is_no_value() -> None:
    record = decoded((0x00280010, "US", b"\x00\x02\x00"))
    assert response(data_set(Rows=None), record)["Rows"].is_empty
    assert not matches(data_set(Rows=512), record)
    assert not matches(record, data_set(Rows=512))


def test_values_in_their_character_set() -> None:
    identifier = decoded((0x00080005, "CS", b"ISO_IR 100"), (0x00100010, "PN", b"M\xfcl* "))
    assert matches(identifier, data_set(PatientName="Müller^Ute"))


def test_padding_is_not_significant() -> None:
    identifier = decoded((0x0020000D, "UI", b"1.2.3\0"), (0x00100020, "LO", b"A1  "))
    assert matches(identifier, data_set(StudyInstanceUID="1.2.3", PatientID="A1"))


# -- properties ------------------------------------------------------------------------------------


@given(st.text("ab?*[", max_size=12), st.text("ab[", max_size=12))
def test_wildcards_mean_what_fnmatch_says(pattern: str, value: str) -> None:
    plain = pattern.replace("[", "[[]")
    expected = re.fullmatch(fnmatch.translate(plain).removesuffix(r"\Z"), value) is not None
    assert (wildcard(pattern).fullmatch(value) is not None) is expected


def test_no_pattern_takes_exponential_time() -> None:
    began = time.perf_counter()
    assert not wildcard("*a" * 30 + "b").fullmatch("a" * 5000)
    assert not wildcard("*?a" * 30 + "b").fullmatch("a" * 5000)
    assert time.perf_counter() - began < 5


dates = st.dates(min_value=dt.date(1, 1, 1))


@given(st.none() | dates, st.none() | dates, dates)
def test_date_ranges_are_ranges_of_dates(
    first: dt.date | None, last: dt.date | None, day: dt.date
) -> None:
    if first is last is None:
        return
    written = [f"{d.year:04}{d.month:02}{d.day:02}" if d else "" for d in (first, last, day)]
    expected = (first is None or first <= day) and (last is None or day <= last)
    assert key_matches("StudyDate", f"{written[0]}-{written[1]}", written[2]) is expected


moments = st.datetimes(min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9998, 1, 1))
zones = st.integers(-12 * 60, 14 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))


@given(moments, zones, moments, zones)
def test_date_time_ranges_compare_in_utc(
    first: dt.datetime, zone: dt.timezone, moment: dt.datetime, other: dt.timezone
) -> None:
    first, moment = first.replace(tzinfo=zone), moment.replace(tzinfo=other)

    def written(value: dt.datetime) -> str:
        return f"{value.year:04}{value:%m%d%H%M%S.%f%z}"

    key = f"{written(first)}-"
    assert key_matches("AcquisitionDateTime", key, written(moment)) is (first <= moment)


text = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="\\*?^=-"), max_size=9
)


@given(st.fixed_dictionaries({"PatientID": text, "PatientName": text, "StudyDescription": text}))
def test_a_record_matches_what_it_says_of_itself(values: dict[str, str]) -> None:
    record = data_set(**values)
    assert matches(record, record)
    answer = response(record, record)
    assert {keyword: str(answer[keyword].value or "") for keyword in values} == values


def test_five_thousand_records_in_a_moment() -> None:
    records = [
        data_set(PatientName=f"Doe^{i}", StudyDate="20260131", StudyInstanceUID=f"1.2.{i}")
        for i in range(5000)
    ]
    query = compile_query(data_set(PatientName="doe^*9", StudyDate="2026-", StudyInstanceUID=""))
    began = time.perf_counter()
    assert sum(map(query.matches, records)) == 0  # 2026- is no range of dates
    query = compile_query(data_set(PatientName="doe^*9", StudyDate="20260101-"))
    assert sum(map(query.matches, records)) == 500
    assert time.perf_counter() - began < 10
