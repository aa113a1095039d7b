"""Identifiers from keyword arguments."""

from __future__ import annotations

import datetime as dt

import pytest

import dimse_trio as dimse


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
        ({"level": "STUDY", "model": "study_tree"}, "no information model"),
        ({"level": "STUDY", "StudyDate": dt.time(1)}, "where a date is asked"),
        ({"level": "STUDY", "StudyTime": (dt.date(2026, 1, 1), None)}, "where a time is asked"),
        ({"level": "STUDY", "RequestAttributesSequence": "x"}, "is a sequence"),
    ],
)
def test_a_query_that_cannot_be_says_why(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(dimse.QueryError, match=message):
        dimse.query(**arguments)  # type: ignore[arg-type]
