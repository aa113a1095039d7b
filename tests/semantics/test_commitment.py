"""Storage commitment, both roles, over memory streams (PS3.4 Annex J)."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import FailureReason, SOPReference, commitment, commitment_provider, normalized
from dimse_trio.protocol.messages import (
    NActionRQ,
    NActionRSP,
    NEventReportRQ,
    NEventReportRSP,
)
from dimse_trio.protocol.pdus import ReleaseRP, ReleaseRQ
from dimse_trio.testing import ScriptedPeer, associated_pair

from .script import LE, encoded, scripted, served

COMMITMENT = dimse.uid_of("StorageCommitmentPushModel")
LOGGING = dimse.uid_of("ProceduralEventLogging")
INSTANCE = "1.2.840.10008.1.20.1.1"
CT = dimse.uid_of("CTImageStorage")
MR = dimse.uid_of("MRImageStorage")
CONTEXTS = [dimse.PresentationContext(COMMITMENT)]
AS_SCP = [dimse.PresentationContext(COMMITMENT, scp=True, scu=False)]

GOOD, BAD, UGLY = (SOPReference(CT, f"1.2.{n}") for n in (1, 2, 3))


def items(*references: SOPReference, reason: int | None = None) -> list[Dataset]:
    made: list[Dataset] = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        if reason is not None:
            item.FailureReason = reason
        made.append(item)
    return made


def information(uid: str | None, **sequences: object) -> Dataset:
    data_set = Dataset()
    if uid is not None:
        data_set.TransactionUID = uid
    for keyword, value in sequences.items():
        setattr(data_set, keyword, value)
    return data_set


def asked(uid: str | None, *references: SOPReference) -> Dataset:
    return information(uid, ReferencedSOPSequence=items(*references))


@attrs.define
class Keeper(dimse.StorageCommitmentProvider):
    """Commits to everything but what it was told."""

    failing: dict[str, FailureReason] = attrs.field(factory=dict)
    looked_at: list[SOPReference] = attrs.field(factory=list)
    looking: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint

    async def committed(self, reference: SOPReference, /) -> FailureReason | None:
        self.looked_at.append(reference)
        await self.looking()
        return self.failing.get(reference.sop_instance_uid)

    def retrieve_ae_title(self, request: dimse.NActionRequest, /) -> str | None:
        return "KEEPER"


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


async def answer(peer: ScriptedPeer, status: int = 0) -> None:
    context_id, message, _ = await peer.receive_message()
    assert isinstance(message, NActionRQ)
    assert message.requested_sop_instance_uid == INSTANCE
    assert message.action_type_id == 1
    response = NActionRSP(
        message_id_being_responded_to=message.message_id,
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=INSTANCE,
        status=dimse.Status(status),
        action_type_id=1,
    )
    await peer.send_message(context_id, response)


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


# -- reports on associations of their own ----------------------------------------------------------


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


# -- the SCP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action_type", "instance", "said", "status"),
    [
        (2, INSTANCE, asked("1.2.3", GOOD), dimse.Status.NO_SUCH_ACTION),
        (1, "1.2.3", asked("1.2.3", GOOD), dimse.Status.NO_SUCH_SOP_INSTANCE),
        (1, INSTANCE, asked(None, GOOD), dimse.Status.INVALID_ARGUMENT_VALUE),
        (1, INSTANCE, asked("one", GOOD), dimse.Status.INVALID_ARGUMENT_VALUE),
        (1, INSTANCE, information("1.2.3"), dimse.Status.INVALID_ARGUMENT_VALUE),
        (1, INSTANCE, asked("1.2.3"), dimse.Status.INVALID_ARGUMENT_VALUE),
        (1, INSTANCE, asked("1.2.3", SOPReference("", "1")), dimse.Status.INVALID_ARGUMENT_VALUE),
        (1, INSTANCE, asked("1.2.3", SOPReference(CT, "")), dimse.Status.INVALID_ARGUMENT_VALUE),
        (1, INSTANCE, None, dimse.Status.INVALID_ARGUMENT_VALUE),
    ],
)
async def test_a_malformed_request_is_refused_and_nothing_is_reported(
    action_type: int,
    instance: str,
    said: Dataset | None,
    status: dimse.Status,
    autojump_clock: trio.abc.Clock,
) -> None:
    keeper = Keeper()
    async with served(keeper) as peer:
        await peer.associate(CONTEXTS)
        message = NActionRQ(
            message_id=1,
            requested_sop_class_uid=COMMITMENT,
            requested_sop_instance_uid=instance,
            action_type_id=action_type,
        )
        await peer.send_message(1, message, None if said is None else encoded(said))
        assert (await peer.expect_message(NActionRSP)).status == status
        await trio.sleep(1)
        await peer.release()
    assert keeper.looked_at == []


async def test_the_listener_ends_with_a_report_under_way(autojump_clock: trio.abc.Clock) -> None:
    keeper = Keeper(looking=trio.sleep_forever)
    with trio.move_on_after(10) as scope:
        async with served(keeper) as peer:
            await peer.associate(CONTEXTS)
            message = NActionRQ(
                message_id=1,
                requested_sop_class_uid=COMMITMENT,
                requested_sop_instance_uid=INSTANCE,
                action_type_id=1,
            )
            await peer.send_message(1, message, encoded(asked("1.2.3", GOOD)))
            assert (await peer.expect_message(NActionRSP)).status == 0
            await peer.release()
    assert scope.cancelled_caught
    assert keeper.looked_at == [GOOD]


async def test_a_listener_outlives_a_task_that_fails_after_its_association(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Careless(Keeper):
        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            request.start_beyond(self.fail, request)
            return dimse.Status.SUCCESS

        async def fail(self, request: dimse.NActionRequest) -> None:
            await request.association.wait_over()
            raise ZeroDivisionError

    with trio.fail_after(30):
        async with dimse.open_server(Careless()) as server:
            for _ in range(2):
                async with (
                    dimse.open_association(
                        "127.0.0.1", server.port, contexts=CONTEXTS
                    ) as association,
                    association.commit([GOOD]),
                ):
                    pass
            await server.stop(grace=5)
    assert caplog.text.count("a task that a handler had started failed") == 2


async def asked_for(peer: ScriptedPeer, number: int) -> int:
    message = NActionRQ(
        message_id=number,
        requested_sop_class_uid=COMMITMENT,
        requested_sop_instance_uid=INSTANCE,
        action_type_id=1,
    )
    await peer.send_message(1, message, encoded(asked(f"1.2.{number}", GOOD)))
    return int((await peer.expect_message(NActionRSP)).status)


async def test_transactions_beyond_what_may_wait_are_refused(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Small(Keeper):
        max_transactions = 2
        report_on_same_association = False
        report_retries = 0

    async with served(Small(looking=partial(trio.sleep, 10))) as peer:
        await peer.associate(CONTEXTS)
        assert [await asked_for(peer, n) for n in (1, 2, 3)] == [0, 0, 0x0213]
        await trio.sleep(20)
        assert await asked_for(peer, 4) == 0
        await trio.sleep(20)
        await peer.release()


async def test_an_ae_is_reported_to_on_one_association_at_a_time() -> None:
    class Alone(Keeper):
        report_on_same_association = False

    open_now, most, reported = 0, 0, 0
    done = trio.Event()

    class Counting(dimse.CommitmentListener):
        async def handle_n_event_report(self, request: dimse.NEventReportRequest, /) -> Any:
            nonlocal open_now, most, reported
            open_now += 1
            most = max(most, open_now)
            await trio.testing.wait_all_tasks_blocked(0.01)
            open_now -= 1
            reported += 1
            if reported == 5:
                done.set()
            return dimse.Status.SUCCESS

    with trio.fail_after(30):
        async with (
            dimse.open_server(Counting()) as ours,
            dimse.open_server(Alone(), peers={"STATION": ("127.0.0.1", ours.port)}) as theirs,
            dimse.open_association(
                "127.0.0.1", theirs.port, calling_ae_title="STATION", contexts=CONTEXTS
            ) as association,
        ):
            for _ in range(5):
                async with association.commit([GOOD]):
                    pass
            await done.wait()
    assert most == 1
