"""Statuses: every code has the category of its range, and says what it means."""

from __future__ import annotations

import pytest
from pynetdicom import status as theirs

from dimse_trio.protocol.status import Status, StatusCategory

SUCCESS, PENDING, CANCEL, WARNING, FAILURE = (
    StatusCategory.SUCCESS,
    StatusCategory.PENDING,
    StatusCategory.CANCEL,
    StatusCategory.WARNING,
    StatusCategory.FAILURE,
)


@pytest.mark.parametrize(
    ("code", "category"),
    [
        (0x0000, SUCCESS),
        (0xFF00, PENDING),
        (0xFF01, PENDING),
        (0xFF02, FAILURE),
        (0xFE00, CANCEL),
        (0xFE01, FAILURE),
        (0x0001, WARNING),
        (0x0107, WARNING),
        (0x0116, WARNING),
        (0xB000, WARNING),
        (0xB006, WARNING),
        (0xBFFF, WARNING),
        (0xC000, FAILURE),
        (0xAFFF, FAILURE),
        (0xA700, FAILURE),
        (0xA801, FAILURE),
        (0xA900, FAILURE),
        (0x0105, FAILURE),
        (0x0122, FAILURE),
        (0x0211, FAILURE),
        (0xD000, FAILURE),
        (0xFFFF, FAILURE),
        (0x0002, FAILURE),
    ],
)
def test_a_code_has_the_category_of_the_standard(code: int, category: StatusCategory) -> None:
    status = Status(code)
    assert status.category is category
    assert status.is_pending is (category is PENDING)
    assert status.is_failure is (category is FAILURE)


@pytest.mark.parametrize("code", sorted(theirs.GENERAL_STATUS))
def test_pynetdicom_has_every_general_status_in_the_same_category(code: int) -> None:
    assert Status(code).category.value == theirs.GENERAL_STATUS[code][0]


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (0x0000, "Success"),
        (0x0122, "SOP class not supported"),
        (0xA700, "Refused: out of resources"),
        (0xA7AB, "Refused: out of resources"),
        (0xA702, "Refused: out of resources, unable to perform sub-operations"),
        (0xA801, "Refused: move destination unknown"),
        (0xA9FF, "Data set or identifier does not match SOP class"),
        (0xC123, "Cannot understand, or unable to process"),
        (0xB123, "Warning"),
        (0xD000, "Failure"),
    ],
)
def test_a_code_means_what_the_standard_says(code: int, meaning: str) -> None:
    assert Status(code).meaning == meaning
    assert str(Status(code)) == f"{meaning} ({code:#06x})"
    assert repr(Status(code)) == f"<Status {code:#06x} {meaning}>"


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (0x0110, "log"),
        (0x0122, "SOP class"),
        (0xA700, "disk"),
        (0xA7AB, "disk"),
        (0xA701, "narrow"),
        (0xA702, "retrieve_contexts"),
        (0xA801, "AE title"),
        (0xA900, "level"),
        (0xA9FF, "level"),
        (0xC000, "log"),
        (0xC123, "log"),
    ],
)
def test_what_peers_refuse_with_says_what_to_try(code: int, advice: str) -> None:
    assert advice in Status(code).advice


def test_advice_is_one_line_and_only_for_failures() -> None:
    for status in map(Status, range(0x10000)):
        assert "\n" not in status.advice
        assert status.is_failure or not status.advice


def test_a_status_is_its_number() -> None:
    assert Status(0xA700) == 0xA700 == Status.OUT_OF_RESOURCES
    assert {0xA700: 1}[Status(0xA700)] == 1
    assert f"{Status(0xA700):#06x}" == "0xa700"
    assert not Status.SUCCESS


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.SUCCESS, 0x0000),
        (Status.PENDING, 0xFF00),
        (Status.PENDING_WARNING, 0xFF01),
        (Status.CANCEL, 0xFE00),
        (Status.PROCESSING_FAILURE, 0x0110),
        (Status.INVALID_SOP_INSTANCE, 0x0117),
        (Status.SOP_CLASS_NOT_SUPPORTED, 0x0122),
        (Status.NOT_AUTHORIZED, 0x0124),
        (Status.UNRECOGNIZED_OPERATION, 0x0211),
        (Status.OUT_OF_RESOURCES, 0xA700),
        (Status.OUT_OF_RESOURCES_MATCHES, 0xA701),
        (Status.OUT_OF_RESOURCES_SUB_OPERATIONS, 0xA702),
        (Status.MOVE_DESTINATION_UNKNOWN, 0xA801),
        (Status.DATA_SET_MISMATCH, 0xA900),
        (Status.SUB_OPERATIONS_WARNING, 0xB000),
        (Status.CANNOT_UNDERSTAND, 0xC000),
    ],
)
def test_a_named_status_has_the_code_of_the_standard(status: Status, code: int) -> None:
    assert isinstance(status, Status)
    assert status == code


def test_every_code_of_16_bits_has_a_category_and_a_meaning() -> None:
    for code in range(0x10000):
        status = Status(code)
        assert status.meaning
        assert status.category in StatusCategory
