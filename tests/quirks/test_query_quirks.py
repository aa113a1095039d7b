"""Quirks 61 to 65: identifiers, and what comes back for them (PS3.4 §C.2.2, §C.4.1)."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.archive import Archive, open_archive
from dimse_trio.matching import matches, response
from dimse_trio.protocol.messages import CFindRQ, CFindRSP, CMoveRQ, CMoveRSP
from dimse_trio.protocol.negotiation import PresentationContext
from dimse_trio.protocol.uids import IMPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT_FIND, STUDY_ROOT_MOVE
from dimse_trio.testing.scripted import ScriptedPeer
from semantics.script import FIND, encoded, instance, scripted, served, study

from .tools import Everything

RECORD = study(PatientID="TRIO", StudyDate="20260131")
IMPLICIT = (IMPLICIT_VR_LITTLE_ENDIAN,)
STUDY_UID, SERIES_UID, INSTANCE_UID = "1.2.3", "1.2.3.1", "1.2.3.4"
"""Of `instance()`, which the archive has."""


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncGenerator[Archive]:
    """An archive with one instance."""
    data_set = instance()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.save_as(tmp_path / "instance.dcm", enforce_file_format=True)
    async with open_archive(tmp_path / "archive") as opened:
        await opened.add_file(tmp_path / "instance.dcm")
        yield opened


def key(tag: int, value: str | int) -> bytes:
    """One element as Implicit VR Little Endian."""
    raw = value.encode() if isinstance(value, str) else struct.pack("<L", value)
    raw += b"\0" * (len(raw) % 2)
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(raw)) + raw


async def answers(handler: object, identifier: bytes) -> tuple[dimse.Status, list[Dataset]]:
    """The final status and the matches that a C-FIND gets, whose identifier is implicit."""
    found: list[Dataset] = []
    async with served(handler) as peer:
        await peer.associate([PresentationContext(STUDY_ROOT_FIND, IMPLICIT)])
        await peer.send_message(1, CFindRQ(message_id=1), identifier)
        while True:
            _, message, data = await peer.receive_message()
            assert isinstance(message, CFindRSP)
            if not message.status.is_pending:
                break
            assert data is not None
            found.append(datasets.decode(data, *IMPLICIT))
        await peer.release()
    return message.status, found


STRANGE = (
    key(0x00020010, "1.2.840.10008.1.2"),
    key(0x00040000, 99),
    key(0x00041130, "NOTHING"),
    key(0x00080000, 1234),
    key(0x00080052, "STUDY "),
    key(0x00100000, 5678),
    key(0x00100020, "TRIO"),
)


def test_quirk_61_group_lengths_and_low_groups_are_no_keys() -> None:
    identifier = datasets.decode(b"".join(STRANGE), *IMPLICIT)
    assert matches(identifier, RECORD)
    assert 0x00100020 in response(identifier, RECORD)
    identifier.PatientID = "OTHER"
    assert not matches(identifier, RECORD)


async def test_quirk_61_group_lengths_reach_no_handler_as_a_fault(autojump_clock: object) -> None:
    handler = Everything(matches=[RECORD])
    status, found = await answers(handler, b"".join(STRANGE))
    assert (status, len(found)) == (0, 1)
    assert matches(handler.identifiers[0], RECORD)


async def test_quirk_61_group_lengths_sent_to_the_archive(archive: Archive) -> None:
    identifier = b"".join(STRANGE[:-1]) + key(0x0020000D, STUDY_UID)
    status, (found,) = await answers(archive, identifier)
    assert status == 0
    assert found.StudyInstanceUID == STUDY_UID
    assert not any(element.tag.element == 0 for element in found)


def test_quirk_62_keys_that_a_record_lacks_come_back_empty() -> None:
    identifier = dimse.query("STUDY", AccessionNumber=None, StudyDescription=None).identifier
    answer = response(identifier, RECORD)
    assert set(identifier.keys()) - set(answer.keys()) <= {0x00080005}
    assert answer["AccessionNumber"].is_empty
    assert answer["StudyDescription"].is_empty
    assert answer.PatientID == "TRIO"


async def test_quirk_62_keys_that_the_archive_does_not_know_come_back_empty(
    archive: Archive,
) -> None:
    asked = (0x00080050, 0x00080052, 0x0008103E, 0x0020000D, 0x00321032, 0x00400280)
    identifier = b"".join(key(tag, "STUDY" if tag == 0x00080052 else "") for tag in asked)
    _, (found,) = await answers(archive, identifier)
    assert set(asked) <= set(found.keys())
    assert all(found[tag].is_empty for tag in asked if tag not in (0x00080052, 0x0020000D))


@pytest.mark.parametrize("level", ["INSTANCE", "IMAGE", "instance", "Image", " IMAGE\0"])
async def test_quirk_63_the_lowest_level_by_any_name(archive: Archive, level: str) -> None:
    status, (found,) = await answers(archive, key(0x00080018, "") + key(0x00080052, level))
    assert (status, found.SOPInstanceUID) == (0, INSTANCE_UID)
    assert found.QueryRetrieveLevel == "IMAGE"
    assert dimse.query(level.strip(" \0")).level == "IMAGE"


@pytest.mark.parametrize("level", ["study", "Series", "image"])
async def test_quirk_63_upper_keys_that_are_missing(archive: Archive, level: str) -> None:
    identifier = key(0x00080052, level) + key(0x0020000D, "")
    status, (found,) = await answers(archive, identifier)
    assert (status, found.StudyInstanceUID) == (0, STUDY_UID)


async def test_quirk_63_a_missing_level_is_refused_and_the_association_lives(
    archive: Archive,
) -> None:
    async with served(archive) as peer:
        contexts = [
            PresentationContext(uid, IMPLICIT) for uid in (STUDY_ROOT_FIND, STUDY_ROOT_MOVE)
        ]
        await peer.associate(contexts)
        identifier = key(0x0020000D, STUDY_UID)
        await peer.send_message(1, CFindRQ(message_id=1), identifier)
        assert (await peer.expect_message(CFindRSP)).status == dimse.Status.DATA_SET_MISMATCH
        move = CMoveRQ(message_id=2, move_destination="NOBODY")
        await peer.send_message(3, move, identifier)
        assert (await peer.expect_message(CMoveRSP)).status.is_failure
        await peer.release()


@pytest.mark.parametrize(
    "keyword", ["StudyDate", "StudyTime", "AcquisitionDateTime", "StudyInstanceUID"]
)
def test_quirk_64_a_star_where_no_wildcard_may_be_is_an_empty_key(keyword: str) -> None:
    assert dimse.query("STUDY", **{keyword: "*"}).identifier[keyword].is_empty


@pytest.mark.parametrize("universal_wildcard", [True, False])
def test_quirk_64_a_lone_star_for_a_peer_that_refuses_it(universal_wildcard: bool) -> None:
    query = dimse.query(
        "STUDY",
        universal_wildcard=universal_wildcard,
        PatientName="*",
        PatientID="A*",
        StudyDate=(dt.date(2026, 1, 1), None),
    )
    assert query.identifier.PatientName == ("*" if universal_wildcard else "")
    assert query.identifier.PatientID == "A*"
    assert query.identifier.StudyDate == "20260101-"


def test_quirk_64_ours_takes_a_star_in_every_key() -> None:
    identifier = study(PatientName="*", StudyDate="*", StudyInstanceUID="*")
    assert matches(identifier, RECORD)


async def names(name: bytes, said: str | None, fallback: str | None = None) -> list[str]:
    """The names that a C-FIND gives for a reply with these bytes, in what it says they are."""
    name += b" " * (len(name) % 2)
    match = study(PatientName="?" * len(name))
    if said is not None:
        match.SpecificCharacterSet = said
    data = encoded(match).replace(b"?" * len(name), name)

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CFindRQ)
        pending = CFindRSP(message_id_being_responded_to=1, status=0xFF00)  # type: ignore[arg-type]
        final = CFindRSP(message_id_being_responded_to=1, status=0)  # type: ignore[arg-type]
        await peer.send(*peer.message_pdus(FIND, pending, data), *peer.message_pdus(FIND, final))
        await peer.respond_to_release()

    async with scripted(script) as association:
        found = await association.find(dimse.query("STUDY"), character_set=fallback)
    return [str(match.PatientName) for match in found]


UTF_8 = "Müller^Jörg 山田".encode()


@pytest.mark.parametrize("said", ["ISO_IR 192", "ISO-IR 192", "ISO IR 192", "UTF8"])
async def test_quirk_65_character_sets_in_other_spellings(
    autojump_clock: object, said: str
) -> None:
    assert await names(UTF_8, said) == [UTF_8.decode()]


@pytest.mark.parametrize("said", [None, ""])
async def test_quirk_65_a_reply_without_character_set(
    autojump_clock: object, said: str | None
) -> None:
    assert await names("Müller^Jörg".encode("latin-1"), said) == ["Müller^Jörg"]
    assert len(await names(UTF_8, said)) == 1  # wrongly read, but read


async def test_quirk_65_a_fallback_for_replies_without_character_set(
    autojump_clock: object,
) -> None:
    greek = "Διονυσιος"
    assert await names(UTF_8, None, "ISO_IR 192") == [UTF_8.decode()]
    assert await names(greek.encode("iso-8859-7"), None, "ISO_IR 126") == [greek]


async def test_quirk_65_what_a_reply_says_counts_more_than_the_fallback(
    autojump_clock: object,
) -> None:
    assert await names(UTF_8, "ISO_IR 192", "ISO_IR 126") == [UTF_8.decode()]


async def test_quirk_65_our_replies_name_their_character_set(autojump_clock: object) -> None:
    class Foreign:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            yield study(PatientName="Yamada^Tarou=山田^太郎")
            yield study(PatientName="Doe^John")

    _, (foreign, plain) = await answers(Foreign(), encoded(study()))
    assert foreign.SpecificCharacterSet == "ISO_IR 192"
    assert str(foreign.PatientName) == "Yamada^Tarou=山田^太郎"
    assert "SpecificCharacterSet" not in plain
