"""The UID tables against pydicom's transcription of PS3.6 Table A-1."""

from __future__ import annotations

import pytest
from pydicom._uid_dict import UID_dictionary

from dimse_trio.protocol import uids
from dimse_trio.protocol.errors import LocalProtocolError
from dimse_trio.protocol.uids import (
    NATIVE_TRANSFER_SYNTAXES,
    SOP_CLASSES,
    TRANSFER_SYNTAXES,
    Service,
    sop_classes,
    uid_name,
    uid_of,
)

STANDARD = {
    uid: {"name": name, "type": kind, "info": info, "retired": bool(retired), "keyword": keyword}
    for uid, (name, kind, info, retired, keyword) in UID_dictionary.items()
}

ROLELESS_STORAGE = {"MediaStorageDirectoryStorage"}
"""Storage by name, but never sent: a DICOMDIR (PS3.10)."""


@pytest.mark.parametrize("uid", SOP_CLASSES)
def test_a_sop_class_is_that_of_the_standard(uid: str) -> None:
    row = SOP_CLASSES[uid]
    assert row.uid == uid
    assert row.keyword == STANDARD[uid]["keyword"]
    assert STANDARD[uid]["type"] in ("SOP Class", "Meta SOP Class")


@pytest.mark.parametrize("uid", TRANSFER_SYNTAXES)
def test_a_transfer_syntax_is_that_of_the_standard(uid: str) -> None:
    row = TRANSFER_SYNTAXES[uid]
    assert row.uid == uid
    assert row.keyword == STANDARD[uid]["keyword"]
    assert STANDARD[uid]["type"] == "Transfer Syntax"
    assert row.native is (uid in NATIVE_TRANSFER_SYNTAXES)


def test_every_storage_class_that_is_not_retired_is_there() -> None:
    expected = {
        uid
        for uid, row in STANDARD.items()
        if row["type"] == "SOP Class"
        and str(row["keyword"]).endswith(
            ("Storage", "StorageForPresentation", "StorageForProcessing")
        )
        and not row["retired"]
        and not str(row["info"]).startswith(("DICOS", "DICONDE"))
        and row["keyword"] not in ROLELESS_STORAGE
    }
    assert len(expected) > 150
    assert expected <= set(sop_classes(Service.STORAGE))


def test_every_class_for_dimse_that_is_not_retired_is_there() -> None:
    expected = {
        uid
        for uid, row in STANDARD.items()
        if row["type"] in ("SOP Class", "Meta SOP Class")
        and not row["retired"]
        and not str(row["info"]).startswith(("DICOS", "DICONDE"))
        and not str(row["keyword"]).endswith("RealTimeCommunication")
        and row["keyword"] not in ROLELESS_STORAGE
    }
    assert expected <= SOP_CLASSES.keys()


QUERIES_BY_ANOTHER_NAME = {
    "BreastImagingRelevantPatientInformationQuery",
    "CardiacRelevantPatientInformationQuery",
    "GeneralRelevantPatientInformationQuery",
    "ProductCharacteristicsQuery",
    "RepositoryQuery",
    "SubstanceApprovalQuery",
    "UnifiedProcedureStepQuery",
}


@pytest.mark.parametrize("service", [Service.FIND, Service.MOVE, Service.GET])
def test_the_classes_of_a_query_retrieve_service_are_those_named_for_it(service: Service) -> None:
    suffix = service.name.capitalize()
    keywords = {SOP_CLASSES[uid].keyword for uid in sop_classes(service)}
    expected = {row.keyword for row in SOP_CLASSES.values() if row.keyword.endswith(suffix)}
    others = QUERIES_BY_ANOTHER_NAME if service is Service.FIND else set()
    assert keywords == expected | others


def test_only_storage_classes_are_of_the_storage_service() -> None:
    for uid in sop_classes(Service.STORAGE):
        assert "Storage" in SOP_CLASSES[uid].keyword
        assert "Commitment" not in SOP_CLASSES[uid].keyword


def test_the_common_storage_classes_leave_room_in_an_association() -> None:
    common = [row for row in SOP_CLASSES.values() if row.common]
    assert 0 < len(common) <= 115
    assert {row.service for row in common} == {Service.STORAGE}
    assert not [row for row in common if STANDARD[row.uid]["retired"]]


def test_every_service_has_classes_and_verification_is_the_one_for_echo() -> None:
    assert sop_classes(Service.ECHO) == (uids.VERIFICATION,)
    assert sum(len(sop_classes(service)) for service in Service) == len(SOP_CLASSES)


def test_a_keyword_and_its_uid_lead_to_each_other() -> None:
    tables = SOP_CLASSES | TRANSFER_SYNTAXES
    assert len({row.keyword for row in tables.values()}) == len(tables)
    for uid, row in tables.items():
        assert uid_of(row.keyword) == uid
        assert uid_name(uid) == row.keyword


def test_what_is_in_no_table_has_no_keyword_and_no_uid() -> None:
    assert uid_name("1.2.3") == "1.2.3"
    with pytest.raises(LocalProtocolError, match="'CTImage'"):
        uid_of("CTImage")


@pytest.mark.parametrize(
    ("uid", "keyword"),
    [
        (uids.IMPLICIT_VR_LITTLE_ENDIAN, "ImplicitVRLittleEndian"),
        (uids.EXPLICIT_VR_LITTLE_ENDIAN, "ExplicitVRLittleEndian"),
        (uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "DeflatedExplicitVRLittleEndian"),
        (uids.EXPLICIT_VR_BIG_ENDIAN, "ExplicitVRBigEndian"),
        (uids.VERIFICATION, "Verification"),
        (uids.PATIENT_ROOT_FIND, "PatientRootQueryRetrieveInformationModelFind"),
        (uids.PATIENT_ROOT_MOVE, "PatientRootQueryRetrieveInformationModelMove"),
        (uids.PATIENT_ROOT_GET, "PatientRootQueryRetrieveInformationModelGet"),
        (uids.STUDY_ROOT_FIND, "StudyRootQueryRetrieveInformationModelFind"),
        (uids.STUDY_ROOT_MOVE, "StudyRootQueryRetrieveInformationModelMove"),
        (uids.STUDY_ROOT_GET, "StudyRootQueryRetrieveInformationModelGet"),
        (uids.MODALITY_WORKLIST_FIND, "ModalityWorklistInformationModelFind"),
    ],
)
def test_a_named_uid_is_that_of_the_standard(uid: str, keyword: str) -> None:
    assert STANDARD[uid]["keyword"] == keyword


@pytest.mark.parametrize(
    ("keyword", "hint"),
    [("CTImage", "did you mean CTImageStorage"), ("Verificaton", "did you mean Verification")],
)
def test_a_keyword_that_is_none_names_the_near_ones(keyword: str, hint: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        uid_of(keyword)
    assert hint in str(caught.value)
