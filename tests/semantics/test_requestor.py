"""The requestor's association: how it is opened, ends, and what is on the wire in between."""

from __future__ import annotations

from math import inf

import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio.protocol.messages import (
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CGetRQ,
    CGetRSP,
    CStoreRQ,
    CStoreRSP,
)
from dimse_trio.protocol.pdus import Abort, AssociateRQ, ReleaseRP, ReleaseRQ
from dimse_trio.testing.scripted import ScriptedPeer

from .script import (
    ECHO,
    GET,
    STORE,
    TIMEOUTS,
    answer_echo,
    encoded,
    final,
    instance,
    matches,
    scripted,
)


async def test_leaving_the_block_releases(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer_echo(peer)
        await peer.respond_to_release()
        await peer.expect_end()

    async with scripted(script) as association:
        assert (await association.echo()).status == 0
    assert not association.is_open


async def test_children_end_before_the_release(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer_echo(peer)
        await peer.respond_to_release()

    async def child(association: dimse.Association) -> None:
        await trio.sleep(5)
        await association.echo()

    async with scripted(script) as association:
        association.start_soon(child, association)


async def test_an_unanswered_release_is_aborted_in_time(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(ReleaseRQ)
        await peer.expect(Abort)

    start = trio.current_time()
    async with scripted(script):
        pass
    assert trio.current_time() - start <= TIMEOUTS.release + 2 * TIMEOUTS.linger


async def test_release_collision_is_answered_by_the_requestor_first(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(ReleaseRQ)
        await peer.send(ReleaseRQ())
        await peer.expect(ReleaseRP)
        await peer.send(ReleaseRP())
        await peer.expect_end()

    async with scripted(script):
        pass


async def test_an_exception_in_the_body_aborts_and_comes_out_bare(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        assert await peer.expect(Abort) == Abort(0, 0)

    with pytest.raises(KeyError):
        async with scripted(script):
            raise KeyError


async def test_an_exception_in_a_child_aborts_and_comes_out_in_a_group(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(Abort)

    async def child() -> None:
        raise KeyError

    with pytest.raises(BaseExceptionGroup) as raised:
        async with scripted(script) as association:
            association.start_soon(child)
            await trio.sleep_forever()
    assert raised.group_contains(KeyError)


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_an_operation_under_way_raises_bare_when_the_peer_goes(
    autojump_clock: object, how: str
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CEchoRQ)
        if how == "abort":
            await peer.abort(2, 6)

    async with scripted(script) as association:
        with pytest.raises(dimse.AssociationAborted) as raised:
            await association.echo()
        assert isinstance(raised.value, trio.BrokenResourceError)
        assert raised.value.reason == (6 if how == "abort" else None)


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_a_sleeping_body_is_cancelled_and_the_block_raises(
    autojump_clock: object, how: str
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await trio.sleep(1)
        if how == "abort":
            await peer.abort()

    woken = False
    with pytest.raises(dimse.AssociationAborted):
        async with scripted(script):
            try:
                await trio.sleep(inf)
            except trio.Cancelled:
                woken = True
                raise
    assert woken
    assert trio.current_time() == pytest.approx(1, abs=0.1)


async def test_an_abort_in_place_of_the_release_response_is_a_normal_end(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(ReleaseRQ)
        await peer.abort()

    async with scripted(script):
        pass


async def test_a_close_in_place_of_the_release_response_is_a_normal_end(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(ReleaseRQ)

    async with scripted(script):
        pass


async def test_nothing_for_too_long_aborts_with_a_time_out(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CEchoRQ)
        await peer.expect(Abort)

    async with scripted(script) as association:
        with pytest.raises(dimse.AssociationTimeout) as raised:
            await association.echo()
        assert isinstance(raised.value, trio.TooSlowError)
        assert trio.current_time() == pytest.approx(TIMEOUTS.response, abs=1)


async def test_pending_responses_keep_an_operation_alive(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CFindRQ)
        for index in range(1, 5):
            await trio.sleep(TIMEOUTS.response * 0.9)
            await peer.send(*matches(request.message_id, 1, index))
        await peer.send(*final(request.message_id, 0))
        await peer.respond_to_release()

    async with scripted(script) as association:
        assert len(await association.find_studies()) == 4


async def test_no_answer_to_the_request_is_a_time_out_that_aborts(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(AssociateRQ)
        await peer.expect(Abort)

    with pytest.raises(dimse.AssociationTimeout, match="A-ASSOCIATE-RQ"):
        async with scripted(script, accept=False):
            pass
    assert trio.current_time() == pytest.approx(TIMEOUTS.associate, abs=2)


async def test_a_rejection_says_who_and_why(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.reject(1, 1, 7)
        await peer.expect_end()

    with pytest.raises(dimse.AssociationRejected) as raised:
        async with scripted(script, accept=False):
            pass
    assert raised.value.result is dimse.RejectResult.PERMANENT
    assert raised.value.source is dimse.RejectSource.SERVICE_USER
    assert raised.value.reason is dimse.RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED
    assert "called ae title not recognized" in str(raised.value)


async def test_an_operation_nested_in_a_find_gets_its_turn(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CFindRQ)
        await peer.send(*matches(request.message_id, 50), *final(request.message_id, 0))
        await answer_echo(peer)
        await peer.respond_to_release()

    limits = dimse.Limits(memory_per_message=100)  # so that the matches fill it at once
    async with scripted(script, limits=limits) as association:
        async with association.find(dimse.query("STUDY")) as found:
            async for _ in found:
                await association.echo()
                break
            assert len([match async for match in found]) == 49


async def test_an_operation_nested_in_a_streaming_get_is_refused(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CGetRQ)
        store = CStoreRQ(message_id=7, affected_sop_instance_uid="1.2.3.4")
        await peer.send_message(STORE, store, encoded(instance()))
        await peer.expect_message(CStoreRSP)
        response = CGetRSP(message_id_being_responded_to=request.message_id, status=0)
        await peer.send_message(GET, response)
        await peer.respond_to_release()

    async with (
        scripted(script) as association,
        association.get(dimse.query("STUDY", StudyInstanceUID="1.2")) as instances,
    ):
        async for _ in instances:
            with pytest.raises(dimse.LocalProtocolError, match="C-GET"):
                await association.echo()


async def test_iterating_outside_of_the_block_says_so(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.respond_to_release()

    async with scripted(script) as association:
        with pytest.raises(dimse.LocalProtocolError, match="async with"):
            async for _ in association.find(dimse.query("STUDY")):
                pass


async def test_a_slow_reader_holds_the_peer_back_while_it_is_alone(autojump_clock: object) -> None:
    sent = 0

    async def script(peer: ScriptedPeer) -> None:
        nonlocal sent
        request = await peer.expect_message(CFindRQ)
        for index in range(1, 101):
            await peer.send(*matches(request.message_id, 1, index))
            sent = index
            await trio.testing.wait_all_tasks_blocked()
        await peer.send(*final(request.message_id, 0))
        await peer.respond_to_release()

    limits = dimse.Limits(memory_per_message=1000, stall=5)
    async with scripted(script, limits=limits) as association:
        count = 0
        async with association.find(dimse.query("STUDY")) as found:
            async for match in found:
                count += 1
                assert match.StudyInstanceUID == f"1.2.{count}"
                if count == 10:
                    await trio.sleep(60)  # the rest goes to the spool; nothing is lost
        assert count == 100


async def test_a_failure_status_raises_and_check_false_returns_it(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for _ in range(2):
            request = await peer.expect_message(CEchoRQ)
            response = CEchoRSP(
                message_id_being_responded_to=request.message_id,
                status=0x0122,
                error_comment="not here",
            )
            await peer.send_message(ECHO, response)
        await peer.respond_to_release()

    async with scripted(script) as association:
        with pytest.raises(dimse.StatusError, match="not here") as raised:
            await association.echo()
        assert raised.value.status == dimse.Status.SOP_CLASS_NOT_SUPPORTED
        assert (await association.echo(check=False)).status == 0x0122


async def test_a_nursery_of_the_users_own_gets_no_cancellation_beside_the_end(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def abort(peer: ScriptedPeer) -> None:
        await peer.expect_message(CFindRQ)
        await peer.abort()

    went_on = False
    with pytest.RaisesGroup(dimse.AssociationAborted):
        async with scripted(abort) as association, trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await association.find_studies()
    try:
        async with scripted(abort) as association, trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await association.find_studies()
    except* dimse.AssociationAborted:
        went_on = True
    assert went_on
