"""Performed procedure steps: what becomes of a step when its block or association ends."""

from __future__ import annotations

import pytest
import trio

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.protocol.messages import NCreateRQ, NCreateRSP, NSetRQ, NSetRSP
from dimse_trio.testing import ScriptedPeer

from .performed_steps import MPPS, SERIES, UNSCHEDULED, pair, state
from .script import scripted
from .worklists import item, step


async def test_an_exception_discontinues_the_step() -> None:
    async with pair(dimse.PerformedProcedureSteps()) as association:
        with pytest.raises(KeyError):
            async with association.performed_procedure_step(**UNSCHEDULED) as performed:
                raise KeyError
        left = await state(association, performed.uid)
    assert left.PerformedProcedureStepStatus == performed.status == "DISCONTINUED"


async def test_cancellation_discontinues_the_step(autojump_clock: trio.abc.Clock) -> None:
    async with pair(dimse.PerformedProcedureSteps()) as association:
        with trio.move_on_after(1):
            async with association.performed_procedure_step(**UNSCHEDULED) as performed:
                await trio.sleep_forever()
        left = await state(association, performed.uid)
    assert left.PerformedProcedureStepStatus == "DISCONTINUED"


async def test_a_cancelled_block_waits_for_a_silent_peer_no_longer_than_five_seconds(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Silent(dimse.PerformedProcedureSteps):
        async def handle_n_set(self, request: dimse.NSetRequest) -> dimse.Reply:
            await trio.sleep(60)
            return dimse.Reply()

    async with pair(Silent()) as association:
        start = trio.current_time()
        with trio.move_on_after(1):
            async with association.performed_procedure_step(**UNSCHEDULED):
                await trio.sleep_forever()
        assert trio.current_time() - start == pytest.approx(6)


async def test_a_step_outlives_its_block_and_its_association() -> None:
    handler = dimse.PerformedProcedureSteps()
    async with pair(handler) as association:
        async with association.performed_procedure_step(**UNSCHEDULED) as performed:
            pass
    async with pair(handler) as association:
        assert (await state(association, performed.uid)).get("PerformedProcedureStepStatus") == (
            "IN PROGRESS"
        )
        resumed = association.resume_performed_step(performed.uid)
        await resumed.discontinue(("110514", "DCM", "Incorrect worklist entry selected"))
        ended = await state(association, performed.uid)
    (reason,) = ended.PerformedProcedureStepDiscontinuationReasonCodeSequence
    assert reason.CodeValue == "110514"


class _Slow(dimse.PerformedProcedureSteps):
    """Answers a second after it has done what was asked for."""

    async def handle_n_create(self, request: dimse.NCreateRequest) -> dimse.Reply:
        reply = await super().handle_n_create(request)
        await trio.sleep(1)
        return reply

    async def handle_n_set(self, request: dimse.NSetRequest) -> dimse.Reply:
        reply = await super().handle_n_set(request)
        await trio.sleep(1)
        return reply

    @property
    def status(self) -> str:
        assert isinstance(self.store, dimse.PerformedStepMemory)
        [kept] = self.store.steps.values()
        return str(kept.PerformedProcedureStepStatus)


async def test_a_step_whose_creation_was_cancelled_too_late_is_discontinued(
    autojump_clock: trio.abc.Clock,
) -> None:
    slow = _Slow()
    async with pair(slow) as association:
        with trio.move_on_after(0.5):
            async with association.performed_procedure_step(item("A", step())):
                pytest.fail("the block is not entered")
        assert slow.status == "DISCONTINUED"
        assert association.is_open


async def test_a_completion_that_was_cancelled_too_late_counts(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    slow = _Slow()
    async with pair(slow) as association:
        with trio.move_on_after(1.5):
            async with association.performed_procedure_step(item("A", step())) as performed:
                await performed.complete(SERIES)
        assert slow.status == performed.status == "COMPLETED"
    assert caplog.records == []


async def test_the_end_of_the_association_discontinues_the_step_first(
    autojump_clock: trio.abc.Clock,
) -> None:
    slow = _Slow()
    with trio.move_on_after(3):
        async with pair(slow) as association:
            async with association.performed_procedure_step(item("A", step())):
                await trio.sleep_forever()
    assert slow.status == "DISCONTINUED"


class _Refusing(dimse.PerformedProcedureSteps):
    async def handle_n_set(self, request: dimse.NSetRequest) -> dimse.Reply:
        return dimse.Reply(dimse.Status.PROCESSING_FAILURE)


class _Down(dimse.PerformedProcedureSteps):
    """Changes nothing: says so, or that the step has ended, or first takes its time."""

    def __init__(self, status: int, error_id: int | None = None, *, seconds: float = 0) -> None:
        super().__init__()
        self.reply = dimse.Reply(dimse.Status(status), comment="no", error_id=error_id)
        self.seconds = seconds

    async def handle_n_set(self, request: dimse.NSetRequest) -> dimse.Reply:
        await trio.sleep(self.seconds)
        self.seconds = 0
        return self.reply


@pytest.mark.parametrize(
    ("status", "error_id"), [(0x0110, None), (0x0110, 0xA710), (0x0112, None), (0x0110, 7)]
)
async def test_a_step_whose_completion_was_refused_is_not_taken_for_completed(
    status: int,
    error_id: int | None,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair(_Down(status, error_id)) as association:
        with pytest.raises(dimse.StatusError) as refused:
            async with association.performed_procedure_step(**UNSCHEDULED) as performed:
                await performed.complete(SERIES)
    assert performed.status == "IN PROGRESS"
    assert f"{status:#06x}" in refused.value.__notes__[0]
    assert "could not be discontinued" in caplog.text


@pytest.mark.parametrize(
    ("error_id", "ends"), [(0xA710, "COMPLETED"), (None, "IN PROGRESS"), (7, "IN PROGRESS")]
)
async def test_a_step_whose_completion_was_cancelled_has_ended_if_the_peer_says_so(
    error_id: int | None,
    ends: str,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair(_Down(0x0110, error_id, seconds=2)) as association:
        with trio.move_on_after(1):
            async with association.performed_procedure_step(**UNSCHEDULED) as performed:
                await performed.complete(SERIES)
    assert performed.status == ends
    assert ("could not be discontinued" in caplog.text) is (ends == "IN PROGRESS")


async def test_a_completion_that_was_tried_again_counts(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    slow = _Slow()
    async with pair(slow) as association:
        with pytest.raises(dimse.StatusError, match="0x0110"):
            async with association.performed_procedure_step(**UNSCHEDULED) as performed:
                with trio.move_on_after(0.5):
                    await performed.complete(SERIES)
                await performed.complete(SERIES)
        assert slow.status == performed.status == "COMPLETED"
    assert caplog.records == []


async def test_a_completion_that_was_never_sent_does_not_count(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with pair(_Down(0x0110, 0xA710)) as association:
        with trio.CancelScope() as scope:
            async with association.performed_procedure_step(**UNSCHEDULED) as performed:
                scope.cancel()
                await performed.complete(SERIES)
    assert performed.status == "IN PROGRESS"


async def test_a_step_whose_creation_was_never_sent_is_not_discontinued(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Counting(dimse.PerformedProcedureSteps):
        changed = 0

        async def handle_n_set(self, request: dimse.NSetRequest) -> dimse.Reply:
            self.changed += 1
            return await super().handle_n_set(request)

    counting = Counting()
    async with pair(counting) as association:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with association.performed_procedure_step(**UNSCHEDULED):
                pytest.fail("the block is not entered")
    assert counting.changed == 0


@pytest.mark.parametrize("gone", [False, True])
async def test_a_step_that_could_not_be_discontinued_is_logged_and_noted(
    gone: bool, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError, match="tube") as caught:
        async with pair(_Refusing()) as association:
            async with association.performed_procedure_step(item("Ada", step())) as performed:
                if gone:
                    await association.abort()
                raise RuntimeError("the tube broke")
    [note] = caught.value.__notes__
    assert performed.uid in note
    assert ("is over" if gone else "0x0110") in note
    assert "could not be discontinued" in caplog.text
    assert "Ada" not in caplog.text + note


async def test_a_step_whose_beginning_cannot_be_read_is_discontinued(
    autojump_clock: trio.abc.Clock,
) -> None:
    told: list[str] = []

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(NCreateRQ)
        made = NCreateRSP(
            message_id_being_responded_to=request.message_id,
            status=dimse.Status.SUCCESS,
            affected_sop_instance_uid=request.affected_sop_instance_uid,
        )
        await peer.send_message(1, made, b"\x08\x00\x18\x00ZZ\x04\x001.2\0")
        _, change, data = await peer.receive_message()
        assert isinstance(change, NSetRQ)
        changes = datasets.decode(data or b"", "1.2.840.10008.1.2.1")
        told.append(changes.PerformedProcedureStepStatus)
        changed = NSetRSP(
            message_id_being_responded_to=change.message_id, status=dimse.Status.SUCCESS
        )
        await peer.send_message(1, changed)
        await peer.respond_to_release()

    contexts = [dimse.PresentationContext(MPPS, "1.2.840.10008.1.2.1")]
    async with scripted(script, contexts=contexts) as association:
        with pytest.raises(dimse.DataSetError):
            async with association.performed_procedure_step(**UNSCHEDULED):
                pass
    assert told == ["DISCONTINUED"]
