"""Quirks 47 to 50: responses of retrieves, and statuses (PS3.7 §9.1, §C)."""

from __future__ import annotations

import attrs
import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.protocol.dimse import REPOSITORY_QUERY
from dimse_trio.protocol.messages import (
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    CStoreRQ,
    CStoreRSP,
)
from dimse_trio.protocol.negotiation import PresentationContext
from dimse_trio.protocol.uids import VERIFICATION
from dimse_trio.testing.scripted import ScriptedPeer
from semantics.script import (
    CONTEXTS,
    GET,
    LE,
    MOVE,
    STORE,
    encoded,
    instance,
    scripted,
    served,
    study,
)

from .tools import Everything, proposing

STUDY = dimse.query("STUDY", StudyInstanceUID="1.2")


def failed_list(*uids: str) -> bytes:
    data_set = Dataset()
    data_set.FailedSOPInstanceUIDList = list(uids)
    return encoded(data_set)


async def moved(
    *responses: tuple[CMoveRSP, bytes | None], check: bool = True
) -> dimse.RetrieveResult:
    """The result of a C-MOVE that is answered by these."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CMoveRQ)
        for response, data in responses:
            await peer.send_message(MOVE, response, data)
        await peer.respond_to_release()

    async with scripted(script) as association:
        return await association.move(STUDY, destination="WS", check=check)


def response(status: int, **counts: int) -> CMoveRSP:
    return CMoveRSP(message_id_being_responded_to=1, status=status, **counts)  # type: ignore[arg-type]


async def test_quirk_47_a_pending_move_response_with_a_data_set(autojump_clock: object) -> None:
    pending = (response(0xFF00, remaining=1, completed=0), encoded(study()))
    result = await moved(pending, pending, (response(0, completed=1), None))
    assert (result.status, result.completed) == (0, 1)


async def test_quirk_47_a_pending_get_response_with_a_data_set(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CGetRQ)
        pending = CGetRSP(message_id_being_responded_to=1, status=0xFF00)
        await peer.send_message(GET, pending, b"not even a data set")
        store = CStoreRQ(message_id=8, affected_sop_instance_uid="1.2.3")
        await peer.send_message(STORE, store, encoded(instance()))
        assert (await peer.expect_message(CStoreRSP)).status == 0
        await peer.send_message(GET, pending, b"")
        final = CGetRSP(message_id_being_responded_to=1, status=0, completed=1)
        await peer.send_message(GET, final)
        await peer.respond_to_release()

    async with scripted(script) as association:
        async with association.get(STUDY) as instances:
            uids = [request.sop_instance_uid async for request in instances]
    assert uids == ["1.2.3"]


async def test_quirk_47_our_pending_get_responses_have_no_data_set(autojump_clock: object) -> None:
    handler = Everything(instances=[instance(uid=f"1.2.{index}") for index in range(3)])
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(GET, CGetRQ(message_id=1), encoded(study()))
        pending: list[bytes | None] = []
        while True:
            _, message, data = await peer.receive_message()
            if isinstance(message, CStoreRQ):
                stored = CStoreRSP(message_id_being_responded_to=message.message_id, status=0)
                await peer.send_message(STORE, stored)
                continue
            assert isinstance(message, CGetRSP)
            if not message.status.is_pending:
                break
            pending.append(data)
        assert (message.status, data, pending) == (0, None, [None, None])
        await peer.release()


async def test_quirk_48_a_final_response_without_counts(autojump_clock: object) -> None:
    result = await moved((response(0xFF00), None), (response(0), None))
    counts = (result.completed, result.failed, result.warning, result.remaining)
    assert counts == (None, None, None, None)
    assert result.failed_sop_instance_uids == ()


async def test_quirk_48_a_final_response_with_remaining(autojump_clock: object) -> None:
    result = await moved((response(0, completed=2, remaining=0), None))
    assert (result.completed, result.remaining) == (2, 0)


@pytest.mark.parametrize("status", [0xB000, 0xFE00])
@pytest.mark.parametrize("uids", [("1.2.3",), ("1.2.3", "1.2.4")])
async def test_quirk_48_failed_lists(
    autojump_clock: object, status: int, uids: tuple[str, ...]
) -> None:
    result = await moved((response(status, failed=len(uids)), failed_list(*uids)))
    assert (result.status, result.failed_sop_instance_uids) == (status, uids)


async def test_quirk_48_our_final_get_response_has_remaining_only_when_cancelled(
    autojump_clock: object,
) -> None:
    async with served(Everything()) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(GET, CGetRQ(message_id=1), encoded(study()))
        store = await peer.expect_message(CStoreRQ)
        refused = CStoreRSP(message_id_being_responded_to=store.message_id, status=0xA700)
        await peer.send_message(STORE, refused)
        _, final, data = await peer.receive_message()
        assert isinstance(final, CGetRSP)
        assert (final.completed, final.failed, final.warning) == (0, 1, 0)
        assert final.remaining is None
        assert data == failed_list("1.2.3.4")
        await peer.release()


@pytest.mark.parametrize(
    ("code", "category"),
    [
        (0xA702, "Failure"),
        (0xA7FF, "Failure"),
        (0xC001, "Failure"),
        (0xCFFF, "Failure"),
        (0xFF02, "Failure"),
        (0xFFFF, "Failure"),
        (0x1234, "Failure"),
        (0xB000, "Warning"),
        (0xB123, "Warning"),
        (0xFE00, "Cancel"),
    ],
)
async def test_quirk_49_statuses_by_range_with_all_that_came_with_them(
    autojump_clock: object, code: int, category: str
) -> None:
    final = CStoreRSP(
        message_id_being_responded_to=1,
        status=code,  # type: ignore[arg-type]
        error_comment="why",
        offending_element=(0x00100010,),
        error_id=77,
        unknown=((0x00000999, b"ab"),),
    )

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CStoreRQ)
        await peer.send_message(STORE, final)
        await peer.respond_to_release()

    async with scripted(script) as association:
        if category != "Warning":  # a C-STORE cannot be cancelled
            with pytest.raises(dimse.StatusError, match="why") as caught:
                await association.store(instance())
            assert caught.value.response == final
        else:
            stored = await association.store(instance())
            assert {name: getattr(stored, name) for name in attrs.asdict(final)} == attrs.asdict(
                final, recurse=False
            )
    assert final.status.category.value == category
    assert int(final.status) == code


async def test_quirk_49_a_move_that_failed_altogether_keeps_its_counts(
    autojump_clock: object,
) -> None:
    result = await moved((response(0xA702, failed=3), failed_list("1.2.3")), check=False)
    assert (result.status, result.failed) == (0xA702, 3)
    assert result.failed_sop_instance_uids == ("1.2.3",)


def find_response(status: int) -> CFindRSP:
    return CFindRSP(message_id_being_responded_to=1, status=status)  # type: ignore[arg-type]


@pytest.mark.parametrize("followed", [False, True])
async def test_quirk_50_a_repository_query_that_reached_its_limit(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, followed: bool
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(LE)
        await peer.expect_message(CFindRQ)
        for status, data in ((0xFF00, encoded(study())), (0xB001, None), (0x0000, None)):
            if status or followed:
                await peer.send_message(1, find_response(status), data)
        request = await peer.expect_message(CEchoRQ)
        assert request.message_id == 2
        echoed = CEchoRSP(message_id_being_responded_to=2, status=0)
        await peer.send_message(3, echoed)
        await peer.respond_to_release()

    contexts = [PresentationContext(REPOSITORY_QUERY, LE), PresentationContext(VERIFICATION, LE)]
    async with proposing(contexts, script, strict=True) as association:
        operation = association.find(STUDY, model=REPOSITORY_QUERY)
        assert len(await operation) == 1
        assert operation.final is not None
        assert operation.final.status == 0xB001  # so that the user can ask for the rest
        await association.echo()
    assert [r for r in caplog.records if r.name == "dimse_trio"] == []
