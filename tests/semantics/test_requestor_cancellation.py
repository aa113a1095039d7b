"""The requestor's rows of the cancellation table: what is on the wire, what is left afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    CStoreRQ,
    CStoreRSP,
)
from dimse_trio.protocol.pdus import Abort, AssociateRQ, PDataTF
from dimse_trio.testing import associated_pair
from dimse_trio.testing.scripted import ScriptedPeer

from .script import (
    ECHO,
    FIND,
    GET,
    MOVE,
    STORE,
    TIMEOUTS,
    answer_echo,
    encoded,
    final,
    instance,
    matches,
    scripted,
)


async def test_cancelled_awaiting_a_response_leaves_the_association_usable(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        first = await peer.expect_message(CEchoRQ)
        await trio.sleep(3)
        late = CEchoRSP(message_id_being_responded_to=first.message_id, status=0x0110)
        await peer.send_message(ECHO, late)
        await answer_echo(peer)
        await peer.respond_to_release()

    async with scripted(script) as association:
        with trio.move_on_after(1) as scope:
            await association.echo()
        assert scope.cancelled_caught
        assert (await association.echo()).status == 0
        assert trio.current_time() >= 3  # the window of 1 waits for the late response


async def test_a_late_store_response_is_dropped_while_another_waits(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        first = await peer.expect_message(CStoreRQ)
        await trio.sleep(2)
        for uid, message_id, status in (("1.1", first.message_id, 0xA700), ("1.2", 2, 0)):
            if message_id == 2:
                await peer.expect_message(CStoreRQ)
            response = CStoreRSP(
                message_id_being_responded_to=message_id,
                status=status,
                affected_sop_instance_uid=uid,
            )
            await peer.send_message(STORE, response)
        await peer.respond_to_release()

    async with scripted(script) as association:
        with trio.move_on_after(1):
            await association.store(instance(uid="1.1"))
        assert (await association.store(instance(uid="1.2"))).affected_sop_instance_uid == "1.2"


async def test_cancelled_before_the_first_pdu_sends_nothing(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer_echo(peer)
        await peer.respond_to_release()

    async with scripted(script) as association:
        with trio.CancelScope() as scope:
            scope.cancel()
            await association.store(instance())
        assert scope.cancelled_caught
        await association.echo()


async def test_cancelled_between_pdus_aborts(autojump_clock: object) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    received: list[object] = []

    async def play() -> None:
        peer = ScriptedPeer(theirs)
        await peer.accept()
        received.append(await peer.expect(PDataTF))
        await trio.sleep(5)
        while (pdu := await peer.receive()) is not None:
            received.append(pdu)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        with pytest.raises(dimse.AssociationAborted):
            async with dimse.associate_over(ours, timeouts=TIMEOUTS) as association:
                with trio.move_on_after(1) as scope:
                    await association.store(instance(1 << 21))
                assert scope.cancelled_caught
                assert not association.is_open
                await association.echo()
    assert isinstance(received[-1], Abort)
    assert received[-1].source == 0
    pdvs = [pdv for pdu in received if isinstance(pdu, PDataTF) for pdv in pdu.pdvs]
    assert not any(pdv.is_last for pdv in pdvs if not pdv.is_command)


@pytest.mark.parametrize("status", [0x0000, 0xFE00])
async def test_leaving_a_find_early_cancels_it(autojump_clock: object, status: int) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CFindRQ)
        await peer.send(*matches(request.message_id, 2))
        context_id, cancel, _ = await peer.receive_message()
        assert context_id == FIND
        assert cancel == CCancelRQ(message_id_being_responded_to=request.message_id)
        await peer.send(*matches(request.message_id, 2), *final(request.message_id, status))
        await answer_echo(peer)
        await peer.respond_to_release()

    async with scripted(script) as association:
        async with association.find(dimse.query("STUDY")) as found:
            async for match in found:
                assert match.StudyInstanceUID == "1.2.1"
                break
        assert found.final is not None
        assert found.final.status == status
        assert (await association.echo()).status == 0


async def test_a_time_out_around_a_find_is_a_c_cancel(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CFindRQ)
        await peer.expect_message(CCancelRQ)
        await peer.send(*final(request.message_id, 0xFE00))
        await answer_echo(peer)
        await peer.respond_to_release()

    async with scripted(script) as association:
        with trio.move_on_after(10) as scope:
            await association.find_studies(PatientName="*")
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(10, abs=0.1)
        await association.echo()


async def test_an_ignored_c_cancel_becomes_an_abort(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CFindRQ)
        await peer.expect_message(CCancelRQ)
        for index in range(1, 100):
            await trio.sleep(0.5)
            try:
                await peer.send(*matches(request.message_id, 1, index))
            except trio.BrokenResourceError:
                break
        await peer.expect(Abort)

    async with scripted(script) as association:
        with trio.move_on_after(1):
            await association.find_studies()
        assert not association.is_open
        assert trio.current_time() <= 1 + TIMEOUTS.cancel_grace + 2 * TIMEOUTS.linger
        with pytest.raises(dimse.AssociationAborted, match="C-CANCEL"):
            await association.echo()


async def test_cancelled_get_refuses_the_instance_in_hand_and_takes_the_cancel(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CGetRQ)
        store = CStoreRQ(
            message_id=7,
            affected_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            affected_sop_instance_uid="1.2.3.4",
        )
        await peer.send_message(STORE, store, encoded(instance()))
        seen = [(await peer.receive_message())[1] for _ in range(2)]
        assert CCancelRQ(message_id_being_responded_to=request.message_id) in seen
        (response,) = [m for m in seen if isinstance(m, CStoreRSP)]
        assert response.status == dimse.Status.OUT_OF_RESOURCES
        cancelled = CGetRSP(
            message_id_being_responded_to=request.message_id, status=0xFE00, remaining=3
        )
        await peer.send_message(GET, cancelled)
        await answer_echo(peer)
        await peer.respond_to_release()

    async with scripted(script) as association:
        with trio.move_on_after(2):
            async with association.get(dimse.query("STUDY", StudyInstanceUID="1.2")) as instances:
                async for _ in instances:
                    await trio.sleep_forever()
        assert instances.result.remaining == 3
        await association.echo()


async def test_cancelled_move_is_c_cancel_and_the_counts_are_kept(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CMoveRQ)
        assert request.move_destination == "WS"
        pending = CMoveRSP(
            message_id_being_responded_to=request.message_id,
            status=0xFF00,
            remaining=5,
            completed=1,
            failed=0,
            warning=0,
        )
        await peer.send_message(MOVE, pending)
        await peer.expect_message(CCancelRQ)
        await peer.send_message(
            MOVE,
            CMoveRSP(
                message_id_being_responded_to=request.message_id,
                status=0xFE00,
                remaining=4,
                completed=2,
            ),
        )
        await peer.respond_to_release()

    async with scripted(script) as association:
        query = dimse.query("STUDY", StudyInstanceUID="1.2")
        async with association.move(query, destination="WS") as progress:
            async for response in progress:
                assert response.remaining == 5
                break
        assert (progress.result.completed, progress.result.remaining) == (2, 4)


async def test_cancelling_the_association_aborts_and_leaves_quietly(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        assert await peer.expect(Abort) == Abort(0, 0)

    async with scripted(script) as association:
        association.cancel_scope.cancel()
        await trio.sleep_forever()


async def test_a_surrounding_time_out_aborts(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        assert await peer.expect(Abort) == Abort(0, 0)

    with trio.move_on_after(1) as scope:
        async with scripted(script):
            with trio.CancelScope(shield=False):
                await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("step", ["no answer", "half an answer"])
async def test_cancelled_while_opening_aborts_and_closes(autojump_clock: object, step: str) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(AssociateRQ)
        if step == "half an answer":
            await peer.send_raw(b"\x02\x00\x00\x00\x01\x00abc")
        await peer.expect(Abort)
        await peer.expect_end()

    with trio.move_on_after(1) as scope:
        async with scripted(script, accept=False):
            raise AssertionError("there is no association")
    assert scope.cancelled_caught


async def test_an_association_cancelled_with_its_c_get_does_not_wait_for_what_cannot_come(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Many:
        async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Dataset]:
            for number in range(20):
                yield instance(uid=f"1.2.3.{number}")

    query = dimse.query("STUDY", StudyInstanceUID="1.2.3")
    with trio.move_on_after(3):
        async with (
            associated_pair(Many(), timeouts=TIMEOUTS) as association,
            association.get(query) as instances,
        ):
            async for _ in instances:
                await trio.sleep_forever()
    assert trio.current_time() < 3 + TIMEOUTS.linger + 1
