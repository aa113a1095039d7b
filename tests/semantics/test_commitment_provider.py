"""The SCP of storage commitment: what it refuses, and what it leaves behind."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import SOPReference
from dimse_trio.protocol.messages import NActionRQ, NActionRSP
from dimse_trio.testing import ScriptedPeer

from .commitments import COMMITMENT, CONTEXTS, CT, GOOD, INSTANCE, Keeper, asked, information
from .script import encoded, served


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
