"""What `LoggingInstrument` writes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import dimse_trio as dimse
from dimse_trio.testing import associated_pair

from .hospital import INSTANCE_UIDS, PATIENT_ID, PATIENT_NAME, Hospital, all_operations


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What has been logged, without the connection's number and figures that vary."""
    return [r.getMessage().partition("] ")[2] for r in caplog.records if r.name == "dimse_trio.log"]


async def test_info_has_a_line_for_each_association_and_operation(
    files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with associated_pair(
        Hospital(files), requestor_instruments=[dimse.LoggingInstrument()]
    ) as association:
        await all_operations(association, files, tmp_path / "got")
    assert [line.partition(":")[0] for line in lines(caplog)] == [
        "association opened",
        "C-ECHO, Message ID 1, Verification",
        "C-FIND, Message ID 2, StudyRootQueryRetrieveInformationModelFind",
        "C-STORE, Message ID 3, CTImageStorage",
        "C-STORE, Message ID 4, CTImageStorage",
        "C-GET, Message ID 5, StudyRootQueryRetrieveInformationModelGet",
        "C-MOVE, Message ID 6, StudyRootQueryRetrieveInformationModelMove",
        lines(caplog)[-1],
    ]
    assert lines(caplog)[-1].startswith("association released after ")
    assert "Success (0x0000)" in lines(caplog)[1]


async def test_debug_adds_pdus_messages_states_and_sub_operations(
    files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with associated_pair(
        Hospital(files), instruments=[dimse.LoggingInstrument()]
    ) as association:
        await all_operations(association, files, tmp_path / "got")
    text = "\n".join(lines(caplog))
    for part in (
        "connection from a stream without address, no TLS",
        "PDU received: ASSOCIATE_RQ, ",
        "Sta3 -> Sta6 (ESTABLISHED)",
        "C-FIND-RSP sent: Message ID 2 on context ",
        "sub-operation C-STORE, Message ID 1, CTImageStorage: Success (0x0000)",
        "connection closed after ",
    ):
        assert part in text
    assert PATIENT_ID not in text
    assert INSTANCE_UIDS[0] not in text


async def test_data_sets_are_logged_where_they_are_asked_for(
    files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("somewhere.else")
    instrument = dimse.LoggingInstrument(logger, data_sets=True)
    async with associated_pair(Hospital(files), requestor_instruments=[instrument]) as association:
        await association.find_studies(PatientID=PATIENT_ID)
        await association.store(files[0])
    assert lines(caplog) == []
    text = "\n".join(r.getMessage() for r in caplog.records if r.name == "somewhere.else")
    for part in (PATIENT_NAME, PATIENT_ID, INSTANCE_UIDS[0]):
        assert part in text


async def test_a_peer_cannot_write_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    contexts = [
        dimse.PresentationContext(dimse.uid_of("Verification")),
        dimse.PresentationContext("1.2\n[1] association accepted"),
    ]
    async with associated_pair(
        Hospital([]), contexts=contexts, instruments=[dimse.LoggingInstrument()]
    ):
        pass
    assert all("\n" not in record.getMessage() for record in caplog.records)


async def test_a_rejection_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(dimse.AssociationRejected):
        async with associated_pair(
            Hospital([]), ae_title="ELSEWHERE", requestor_instruments=[dimse.LoggingInstrument()]
        ):
            raise AssertionError
    (line,) = lines(caplog)
    assert line.startswith("'STATION' to 'ARCHIVE': association rejected (")
