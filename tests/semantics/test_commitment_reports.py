"""Reports of storage commitment on associations of their own: who gets them, how often."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio import SOPReference
from dimse_trio.protocol.messages import NActionRQ, NEventReportRQ, NEventReportRSP
from dimse_trio.testing import ScriptedPeer, associated_pair

from .commitments import AS_SCP, BAD, COMMITMENT, CONTEXTS, GOOD, INSTANCE, Keeper, answer, asked
from .script import LE, encoded, scripted


async def test_a_listener_takes_the_report_though_the_association_has_ended(
    autojump_clock: trio.abc.Clock,
) -> None:
    listener = dimse.CommitmentListener()

    async def script(peer: ScriptedPeer) -> None:
        await answer(peer)
        await peer.release()

    async def report_later() -> None:
        await trio.sleep(60)
        async with associated_pair(listener, contexts=AS_SCP) as association:
            for _ in range(2):
                result = await association.n_event_report(
                    COMMITMENT, INSTANCE, 1, asked("1.2.3", GOOD)
                )
                assert result.status == 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report_later)
        async with (
            scripted(script, contexts=CONTEXTS) as association,
            association.commit([GOOD], transaction_uid="1.2.3", listener=listener) as commitment,
        ):
            assert (await commitment.wait()).complete
            assert not association.is_open


@pytest.mark.parametrize("within", [True, False])
async def test_the_end_of_the_association_reaches_other_tasks_once_a_wait_has_given_up(
    within: bool, autojump_clock: trio.abc.Clock
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer(peer)
        await trio.sleep(5)
        await peer.abort()

    async def ask(association: dimse.Association) -> None:
        async with association.commit([GOOD], listener=dimse.CommitmentListener()) as commitment:
            with trio.move_on_after(100):
                await commitment.wait()
            if within:
                await trio.sleep_forever()

    with pytest.raises(dimse.AssociationAborted):
        async with scripted(script, contexts=CONTEXTS) as association:
            association.start_soon(ask, association)
            await trio.sleep_forever()
    assert trio.current_time() < 110


async def test_the_result_can_be_dealt_with_though_the_association_has_ended(
    autojump_clock: trio.abc.Clock,
) -> None:
    listener = dimse.CommitmentListener()

    async def script(peer: ScriptedPeer) -> None:
        await answer(peer)
        await peer.abort()
        await trio.sleep(60)
        async with associated_pair(listener, contexts=AS_SCP) as reporting:
            await reporting.n_event_report(COMMITMENT, INSTANCE, 1, asked("1.2.3", GOOD))

    async def ask(association: dimse.Association) -> None:
        async with association.commit(
            [GOOD], transaction_uid="1.2.3", listener=listener
        ) as commitment:
            result = await commitment.wait()
            await trio.sleep(10)
            kept.append(result.complete)

    kept: list[bool] = []
    with pytest.raises(dimse.AssociationAborted):
        async with scripted(script, contexts=CONTEXTS) as association:
            association.start_soon(ask, association)
            await trio.sleep_forever()
    assert kept == [True]


async def test_a_commitment_is_waited_for_in_its_block(autojump_clock: trio.abc.Clock) -> None:
    class Silent(Keeper):
        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    async def wait(commitment: Any) -> None:
        with pytest.raises(dimse.LocalProtocolError, match="inside its block"):
            await commitment.wait()

    async with associated_pair(Silent(), contexts=CONTEXTS) as association:
        commitment = association.commit([GOOD], listener=dimse.CommitmentListener())
        await wait(commitment)
        async with trio.open_nursery() as nursery, commitment:
            nursery.start_soon(wait, commitment)
            await trio.sleep(1)
        await wait(commitment)
        assert association.is_open


async def test_a_listener_knows_its_transactions(autojump_clock: trio.abc.Clock) -> None:
    listener = dimse.CommitmentListener()

    class Silent(Keeper):
        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    async def reported(uid: str | None, *references: SOPReference) -> int:
        async with associated_pair(listener, contexts=AS_SCP) as association:
            result = await association.n_event_report(
                COMMITMENT, INSTANCE, 1, asked(uid, *references), check=False
            )
            return int(result.status)

    async with associated_pair(Silent(), contexts=CONTEXTS) as association:
        async with (
            association.commit([GOOD], listener=listener) as one,
            association.commit([BAD], listener=listener) as other,
        ):
            assert await reported("1.2.3", GOOD) == dimse.Status.INVALID_ARGUMENT_VALUE
            assert await reported(None, GOOD) == dimse.Status.INVALID_ARGUMENT_VALUE
            assert await reported(other.transaction_uid, BAD) == 0
            assert (await other.wait()).complete
            assert not one.settled
            with pytest.raises(dimse.LocalProtocolError, match="awaited already"):
                async with association.commit(
                    [GOOD], transaction_uid=one.transaction_uid, listener=listener
                ):
                    raise AssertionError
        # settled: heard of before; given up: unknown
        assert await reported(other.transaction_uid, BAD) == 0
        assert await reported(one.transaction_uid, GOOD) == dimse.Status.INVALID_ARGUMENT_VALUE


@pytest.mark.parametrize("listening", ["neither", "one", "both", "each"])
async def test_one_association_awaits_a_transaction_once(
    listening: str, autojump_clock: trio.abc.Clock
) -> None:
    one = None if listening == "neither" else dimse.CommitmentListener()
    other = {"both": one, "each": dimse.CommitmentListener()}.get(listening)
    async with (
        associated_pair(Keeper(), contexts=CONTEXTS) as association,
        association.commit([GOOD], transaction_uid="1.2.3", listener=one) as first,
    ):
        with pytest.raises(dimse.LocalProtocolError, match="awaited already"):
            async with association.commit([GOOD], transaction_uid="1.2.3", listener=other):
                pytest.fail("it is not entered")
        assert (await first.wait()).complete


async def test_a_listener_awaits_a_transaction_of_two_associations_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    listener = dimse.CommitmentListener()
    async with (
        associated_pair(Keeper(), contexts=CONTEXTS) as one,
        associated_pair(Keeper(), contexts=CONTEXTS) as other,
        one.commit([GOOD], transaction_uid="1.2.3", listener=listener) as first,
    ):
        with pytest.raises(dimse.LocalProtocolError, match="awaited already"):
            async with other.commit([GOOD], transaction_uid="1.2.3", listener=listener):
                pytest.fail("it is not entered")
        assert (await first.wait()).complete


@pytest.mark.parametrize("listener", [5, "listener", dimse.CommitmentListener])
async def test_a_listener_is_one(listener: Any) -> None:
    async with associated_pair(Keeper(), contexts=CONTEXTS) as association:
        with pytest.raises(dimse.LocalProtocolError, match="listener is a CommitmentListener"):
            association.commit([GOOD], listener=listener)


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("end", ["release", "abort"])
async def test_a_report_counts_though_the_request_was_never_answered(
    end: str, listening: bool, autojump_clock: trio.abc.Clock
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(NActionRQ)
        message = NEventReportRQ(
            message_id=7,
            affected_sop_class_uid=COMMITMENT,
            affected_sop_instance_uid=INSTANCE,
            event_type_id=1,
        )
        await peer.send_message(1, message, encoded(asked("1.2.3", GOOD)))
        assert (await peer.expect_message(NEventReportRSP)).status == 0
        await (peer.release() if end == "release" else peer.abort())

    listener = dimse.CommitmentListener() if listening else None
    async with (
        scripted(script, contexts=CONTEXTS) as association,
        association.commit([GOOD], transaction_uid="1.2.3", listener=listener) as commitment,
    ):
        result = await commitment.wait()
        await trio.sleep(10)  # there is time to deal with it
        assert result.complete
        assert not association.is_open


async def test_an_association_that_ends_with_neither_answer_nor_report_is_an_error(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(NActionRQ)
        await peer.release()

    with pytest.raises(dimse.AssociationClosed):
        async with scripted(script, contexts=CONTEXTS) as association:
            async with association.commit([GOOD], listener=dimse.CommitmentListener()):
                pytest.fail("it is not entered")


async def test_a_report_goes_to_the_ae_that_asked_when_its_association_is_over() -> None:
    released = trio.Event()
    keeper = Keeper(looking=released.wait)
    listener = dimse.CommitmentListener()
    with trio.fail_after(30):
        async with (
            dimse.open_server(listener, ae_title="STATION") as ours,
            dimse.open_server(keeper, peers={"STATION": ("127.0.0.1", ours.port)}) as theirs,
            AsyncExitStack() as beyond,
        ):
            async with dimse.open_association(
                "127.0.0.1", theirs.port, calling_ae_title="STATION", contexts=CONTEXTS
            ) as association:
                commitment = await beyond.enter_async_context(
                    association.commit([GOOD], listener=listener)
                )
            released.set()
            assert (await commitment.wait()).complete
            await theirs.stop(grace=5)
            await ours.stop(grace=5)


async def test_a_report_is_tried_again_until_the_ae_listens() -> None:
    class Patient(Keeper):
        report_retries = 20
        report_pause = 0.01
        report_on_same_association = False

    listener = dimse.CommitmentListener()
    places: dict[str, dimse.Destination] = {}

    class Reachable(Patient):
        tries = 0

        async def resolve_destination(self, ae_title: str) -> dimse.Destination | None:
            Reachable.tries += 1
            if Reachable.tries == 3:
                server = await beyond.enter_async_context(dimse.open_server(listener))
                places[ae_title] = dimse.Destination("127.0.0.1", server.port)
            return places.get(ae_title)

    with trio.fail_after(30):
        async with (
            AsyncExitStack() as beyond,
            dimse.open_server(Reachable()) as theirs,
            dimse.open_association("127.0.0.1", theirs.port, contexts=CONTEXTS) as association,
            association.commit([GOOD], listener=listener) as commitment,
        ):
            assert (await commitment.wait()).complete


async def test_a_report_that_nobody_takes_is_given_up(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper(looking=partial(trio.sleep, 1))
    async with associated_pair(keeper, contexts=CONTEXTS) as association:
        async with association.commit([GOOD]):
            pass
    assert trio.current_time() > 5 + 10 + 20
    assert "a report of storage commitment to STATION could not be delivered" in caplog.text
    assert GOOD.sop_instance_uid not in caplog.text


async def test_a_report_that_was_answered_is_not_sent_again_though_its_association_breaks() -> None:
    class Quick(Keeper):
        report_pause = 0.0
        report_on_same_association = False

    taken: list[int] = []

    async def take(stream: trio.SocketStream) -> None:
        peer = ScriptedPeer(stream)
        await peer.accept(LE)
        context_id, message, _ = await peer.receive_message()
        assert isinstance(message, NEventReportRQ)
        taken.append(message.message_id)
        response = NEventReportRSP(
            message_id_being_responded_to=message.message_id, status=dimse.Status.SUCCESS
        )
        await peer.send_message(context_id, response)
        await stream.aclose()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, take, [listener])
            port = listener.socket.getsockname()[1]
            async with dimse.open_server(Quick(), peers={"STATION": ("127.0.0.1", port)}) as server:
                async with (
                    dimse.open_association(
                        "127.0.0.1", server.port, calling_ae_title="STATION", contexts=CONTEXTS
                    ) as association,
                    association.commit([GOOD]),
                ):
                    pass
                await server.stop(grace=5)
            nursery.cancel_scope.cancel()
    assert len(taken) == 1
