"""Storage commitment, both sides and the SCU, over memory streams (PS3.4 Annex J)."""

from __future__ import annotations

import threading
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio import FailureReason, SOPReference, commitment, commitment_provider, normalized
from dimse_trio.protocol.messages import NActionRQ, NActionRSP, NEventReportRQ, NEventReportRSP
from dimse_trio.protocol.pdus import ReleaseRP, ReleaseRQ
from dimse_trio.testing import ScriptedPeer, associated_pair

from .commitments import (
    BAD,
    COMMITMENT,
    CONTEXTS,
    CT,
    GOOD,
    INSTANCE,
    UGLY,
    Keeper,
    answer,
    asked,
    information,
    items,
)
from .script import encoded, scripted

LOGGING = dimse.uid_of("ProceduralEventLogging")


MR = dimse.uid_of("MRImageStorage")


# -- both sides ------------------------------------------------------------------------------------


async def test_what_is_committed_and_what_is_not_is_told(autojump_clock: trio.abc.Clock) -> None:
    keeper = Keeper({BAD.sop_instance_uid: FailureReason.NO_SUCH_OBJECT_INSTANCE})
    async with (
        associated_pair(keeper, contexts=CONTEXTS) as association,
        association.commit([GOOD, (CT, BAD.sop_instance_uid), GOOD]) as commitment,
    ):
        result = await commitment.wait()
        assert await commitment.wait() is result
    assert commitment.settled
    assert keeper.looked_at == [GOOD, BAD]
    assert result.transaction_uid == commitment.transaction_uid
    assert result.committed == (GOOD,)
    [failed] = result.failed
    assert (failed.reference, failed.reason) == (BAD, FailureReason.NO_SUCH_OBJECT_INSTANCE)
    assert failed.meaning == "no such object instance (0x0112)"
    assert result.unreported == ()
    assert not result.complete
    assert result.retrieve_ae_title == "KEEPER"


async def test_a_transaction_uid_can_be_chosen(autojump_clock: trio.abc.Clock) -> None:
    async with (
        associated_pair(Keeper(), contexts=CONTEXTS) as association,
        association.commit([GOOD], transaction_uid="1.2.3") as commitment,
    ):
        assert (await commitment.wait()).transaction_uid == "1.2.3"
        assert (await commitment.wait()).complete
        with pytest.raises(dimse.LocalProtocolError, match="no Transaction UID"):
            association.commit([GOOD], transaction_uid="yes")


@pytest.mark.parametrize("references", [[], [3], [("a", "b")], [(CT,)]])
async def test_what_refers_to_no_instance_is_refused(
    references: Any, autojump_clock: trio.abc.Clock
) -> None:
    async with associated_pair(Keeper(), contexts=CONTEXTS) as association:
        with pytest.raises(dimse.LocalProtocolError):
            async with association.commit(references):
                pass
        assert association.is_open


async def test_a_transaction_in_use_is_not_begun_again(autojump_clock: trio.abc.Clock) -> None:
    keeper = Keeper(looking=partial(trio.sleep, 10))
    async with (
        associated_pair(keeper, contexts=CONTEXTS) as one,
        associated_pair(keeper, contexts=CONTEXTS) as other,
        one.commit([GOOD], transaction_uid="1.2.3") as first,
        other.commit([GOOD], transaction_uid="1.2.3") as second,
    ):
        [failed] = (await second.wait()).failed
        assert failed.reason == FailureReason.DUPLICATE_TRANSACTION_UID
        assert (await first.wait()).complete
    async with (
        associated_pair(keeper, contexts=CONTEXTS) as one,
        one.commit([GOOD], transaction_uid="1.2.3") as again,
    ):
        assert (await again.wait()).complete


async def test_an_instance_that_cannot_be_looked_at_fails_alone(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(dimse.StorageCommitmentProvider):
        async def committed(self, reference: SOPReference, /) -> FailureReason | None:
            if reference == BAD:
                raise ZeroDivisionError
            return None

    async with (
        associated_pair(Clumsy(), contexts=CONTEXTS) as association,
        association.commit([GOOD, BAD]) as commitment,
    ):
        result = await commitment.wait()
    assert result.committed == (GOOD,)
    assert result.failed[0].reason == FailureReason.PROCESSING_FAILURE
    assert result.retrieve_ae_title is None
    assert "Clumsy.committed failed" in caplog.text


async def test_only_storage_commitment_is_offered(autojump_clock: trio.abc.Clock) -> None:
    contexts = [*CONTEXTS, dimse.PresentationContext(LOGGING)]
    async with associated_pair(Keeper(), contexts=contexts) as association:
        assert [c.abstract_syntax for c in association.negotiated.refused] == [LOGGING]


async def test_the_actions_of_other_classes_reach_the_next_base(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Log:
        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            return dimse.Status(0x0001)

    class Both(Keeper, Log):
        normalized_sop_classes = frozenset((COMMITMENT, LOGGING))

    contexts = [*CONTEXTS, dimse.PresentationContext(LOGGING)]
    async with associated_pair(Both(), contexts=contexts) as association:
        assert (await association.n_action(LOGGING, "1.2", 1)).status == 0x0001
        async with association.commit([GOOD]) as commitment:
            assert (await commitment.wait()).complete


async def test_long_lists_of_references_are_gone_through_in_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = threading.get_ident()

    def watch(module: Any, name: str) -> None:
        real = getattr(module, name)

        def elsewhere(*args: Any) -> Any:
            if threading.get_ident() == loop:
                in_loop.append(name)
            return real(*args)

        monkeypatch.setattr(module, name, elsewhere)

    watch(commitment, "reference_items")
    watch(commitment, "_result")
    watch(commitment_provider, "reference_items")
    watch(commitment_provider, "_transaction")
    watch(normalized, "_encoded")
    in_loop: list[str] = []
    references = [(CT, f"1.2.{n}") for n in range(2000)]
    with trio.fail_after(30):
        async with (
            associated_pair(Keeper(), contexts=CONTEXTS) as association,
            association.commit(references) as asking,
        ):
            assert len((await asking.wait()).committed) == 2000
    assert in_loop == []


# -- the SCU ---------------------------------------------------------------------------------------


def report(uid: str, event_type: int = 1, *, message_id: int = 7) -> tuple[NEventReportRQ, bytes]:
    message = NEventReportRQ(
        message_id=message_id,
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=INSTANCE,
        event_type_id=event_type,
    )
    return message, encoded(asked(uid, GOOD))


async def send_report(peer: ScriptedPeer, uid: str, event_type: int = 1) -> int:
    message, data = report(uid, event_type)
    await peer.send_message(1, message, data)
    return int((await peer.expect_message(NEventReportRSP)).status)


async def test_a_report_may_come_before_the_response(autojump_clock: trio.abc.Clock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        context_id, request, _ = await peer.receive_message()
        assert isinstance(request, NActionRQ)
        assert await send_report(peer, "1.2.3") == 0
        response = NActionRSP(
            message_id_being_responded_to=request.message_id, status=dimse.Status.SUCCESS
        )
        await peer.send_message(context_id, response)
        await peer.respond_to_release()

    async with (
        scripted(script, contexts=CONTEXTS) as association,
        association.commit([GOOD], transaction_uid="1.2.3") as commitment,
    ):
        assert commitment.settled
        assert (await commitment.wait()).complete


async def test_a_report_may_come_during_release(autojump_clock: trio.abc.Clock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer(peer)
        await peer.expect(ReleaseRQ)
        message, data = report("1.2.3")
        await peer.send_message(1, message, data)
        await peer.send(ReleaseRP())

    async with AsyncExitStack() as beyond:
        async with scripted(script, contexts=CONTEXTS) as association:
            commitment = await beyond.enter_async_context(
                association.commit([GOOD], transaction_uid="1.2.3")
            )
        assert (await commitment.wait()).complete


async def test_a_report_may_come_twice(autojump_clock: trio.abc.Clock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer(peer)
        assert await send_report(peer, "1.2.3") == 0
        assert await send_report(peer, "1.2.3", event_type=2) == 0
        twice.set()
        await peer.respond_to_release()

    twice = trio.Event()
    async with (
        scripted(script, contexts=CONTEXTS) as association,
        association.commit([GOOD], transaction_uid="1.2.3") as commitment,
    ):
        await twice.wait()
        assert (await commitment.wait()).complete


async def test_what_is_no_report_of_the_transaction_is_not_taken_for_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer(peer)
        assert await send_report(peer, "1.2.4") == dimse.Status.UNRECOGNIZED_OPERATION
        assert await send_report(peer, "1.2.3", 3) == dimse.Status.NO_SUCH_EVENT_TYPE
        for broken in (items(SOPReference("", "1.2")), items(SOPReference(CT, "one"))):
            message, _ = report("1.2.3")
            data = encoded(information("1.2.3", ReferencedSOPSequence=broken))
            await peer.send_message(1, message, data)
            answered = await peer.expect_message(NEventReportRSP)
            assert answered.status == dimse.Status.INVALID_ARGUMENT_VALUE
        assert await send_report(peer, "1.2.3") == 0
        await peer.respond_to_release()

    async with (
        scripted(script, contexts=CONTEXTS) as association,
        association.commit([GOOD], transaction_uid="1.2.3") as commitment,
    ):
        assert (await commitment.wait()).complete


async def test_what_a_report_does_not_name_is_not_taken_for_committed(
    autojump_clock: trio.abc.Clock,
) -> None:
    other_class = SOPReference(MR, UGLY.sop_instance_uid)
    stranger = SOPReference(CT, "1.2.99")

    async def script(peer: ScriptedPeer) -> None:
        await answer(peer)
        message, _ = report("1.2.3", 2)
        said = information(
            "1.2.3",
            ReferencedSOPSequence=items(GOOD, other_class, stranger, BAD),
            FailedSOPSequence=items(BAD, reason=0x7777),
        )
        await peer.send_message(1, message, encoded(said))
        await peer.expect_message(NEventReportRSP)
        await peer.respond_to_release()

    async with (
        scripted(script, contexts=CONTEXTS) as association,
        association.commit([GOOD, BAD, UGLY], transaction_uid="1.2.3") as commitment,
    ):
        result = await commitment.wait()
    assert result.committed == (GOOD,)
    assert [(each.reference, each.reason) for each in result.failed] == [(BAD, 0x7777)]
    assert result.failed[0].meaning == "unknown reason (0x7777)"
    assert result.unreported == (UGLY,)
    assert not result.complete


async def test_an_instance_uid_under_two_classes_is_two_answers(
    autojump_clock: trio.abc.Clock,
) -> None:
    class ByClass(dimse.StorageCommitmentProvider):
        async def committed(self, reference: SOPReference, /) -> FailureReason | None:
            other = reference.sop_class_uid != CT
            return FailureReason.CLASS_INSTANCE_CONFLICT if other else None

    as_mr = SOPReference(MR, GOOD.sop_instance_uid)
    async with (
        associated_pair(ByClass(), contexts=CONTEXTS) as association,
        association.commit([GOOD, as_mr]) as commitment,
    ):
        result = await commitment.wait()
    assert result.committed == (GOOD,)
    assert [each.reference for each in result.failed] == [as_mr]


async def test_a_request_that_is_refused_is_an_error(autojump_clock: trio.abc.Clock) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer(peer, 0x0213)
        await peer.respond_to_release()

    async with scripted(script, contexts=CONTEXTS) as association:
        with pytest.raises(dimse.StatusError, match="Resource limitation"):
            async with association.commit([GOOD]):
                raise AssertionError
        assert association.is_open


@pytest.mark.parametrize("end", ["release", "abort"])
async def test_the_end_of_the_association_ends_the_wait(
    end: str, autojump_clock: trio.abc.Clock
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer(peer)
        if end == "release":
            await peer.release()
        else:
            await peer.abort()

    kind = dimse.AssociationClosed if end == "release" else dimse.AssociationAborted
    with pytest.raises(kind, match="the report of storage commitment has not come"):
        async with (
            scripted(script, contexts=CONTEXTS) as association,
            association.commit([GOOD]) as commitment,
        ):
            await commitment.wait()


async def test_a_report_that_never_comes_is_waited_for_as_long_as_the_caller_says(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await answer(peer)
        await trio.sleep(7000)
        assert await send_report(peer, "1.2.3") == dimse.Status.UNRECOGNIZED_OPERATION
        await peer.respond_to_release()

    async with scripted(script, contexts=CONTEXTS) as association:
        async with association.commit([GOOD], transaction_uid="1.2.3") as commitment:
            for _ in range(2):
                with trio.move_on_after(3000) as scope:
                    await commitment.wait()
                assert scope.cancelled_caught
        assert association.is_open
        assert not commitment.settled
        await trio.sleep(3000)
