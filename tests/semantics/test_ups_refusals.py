"""Unified Procedure Steps: what peers get wrong, and a step that stays as it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import StepState

from .procedure_steps import EVERY, IMAGING, PUSH, Clock, a_step, managed, status_of
from .script import attributes


async def test_wrong_and_missing_transaction_uids_change_nothing(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        act = ups.association.n_action
        no_uid = attributes(ProcedureStepState="IN PROGRESS")
        bad_uid = attributes(ProcedureStepState="IN PROGRESS")
        bad_uid.add_new("TransactionUID", "LO", "nonsense")
        for information in (no_uid, bad_uid):
            assert await status_of(act(PUSH, uid, 1, information)) == 0xC301
        assert steps.states[uid] is StepState.SCHEDULED
        async with ups.claim(uid) as work:
            changes = attributes(ProcedureStepLabel="Mine")
            for transaction_uid in (None, "1.2.3"):
                assert await status_of(ups.update(uid, changes, transaction_uid)) == 0xC301
                for state in ("IN PROGRESS", "COMPLETED", "CANCELED"):
                    information = attributes(ProcedureStepState=state)
                    if transaction_uid:
                        information.TransactionUID = transaction_uid
                    assert await status_of(act(PUSH, uid, 1, information)) == 0xC301
            assert steps.step(uid).ProcedureStepLabel == "Step"
            await work.complete()
        assert await status_of(ups.update(uid, changes, work.transaction_uid)) == 0xC300


async def test_a_scheduled_step_is_changed_without_a_transaction_uid(
    autojump_clock: Clock,
) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step")
        await ups.update(uid, attributes(ProcedureStepLabel="Other"))
        await ups.update(uid, WorklistLabel="W")
        assert (await ups.get(uid)).WorklistLabel == "W"
        assert steps.step(uid).ProcedureStepLabel == "Other"
        assert await status_of(ups.update(uid, attributes(ProcedureStepLabel="X"), "1.2")) == 0xC310


async def test_a_step_that_is_unknown_is_c307_to_everything(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        for asked in (
            ups.change_state("1.2.9", StepState.IN_PROGRESS, "1.2"),
            ups.change_state("1.2.9", StepState.CANCELED, "1.2"),
            ups.request_cancel("1.2.9"),
            ups.subscribe("1.2.9"),
            ups.unsubscribe("1.2.9"),
            ups.update("1.2.9", attributes(ProcedureStepLabel="X")),
            ups.association.n_get(PUSH, "1.2.9"),
        ):
            assert await status_of(asked) == 0xC307


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, 0xC309),
        ({"ProcedureStepState": None}, 0x0121),
        ({"ProcedureStepLabel": ""}, 0x0121),
        ({"ScheduledProcedureStepPriority": "SOON"}, 0x0106),
        ({"InputReadinessState": "MAYBE"}, 0x0106),
        ({"WorklistLabel": "W", "ScheduledProcedureStepPriority": "LOW"}, 0),
        ({"TransactionUID": "1.2.3"}, 0xB300),
        ({}, 0xB300),
    ],
)
async def test_what_a_step_is_created_with_is_checked(
    changes: dict[str, Any], status: int, autojump_clock: Clock
) -> None:
    async with managed() as (steps, ups):
        made = ups.association.n_create(PUSH, "1.2.3", a_step(**changes))
        assert await status_of(made) == status
        if status in (0, 0xB300):
            assert "TransactionUID" not in steps.step("1.2.3")
            assert await status_of(ups.association.n_create(PUSH, "1.2.3", a_step())) == 0x0111


async def test_a_step_without_a_label_or_state_is_missing_an_attribute(
    autojump_clock: Clock,
) -> None:
    async with managed() as (_, ups):
        for keyword in ("ProcedureStepLabel", "ProcedureStepState"):
            step = a_step()
            del step[keyword]
            assert await status_of(ups.association.n_create(PUSH, "1.2.3", step)) == 0x0120


async def test_n_get_gives_neither_class_nor_uid_of_the_step(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step")
        for step in (await ups.get(uid), await ups.get(uid, ["SOPInstanceUID", "WorklistLabel"])):
            assert "SOPClassUID" not in step
            assert "SOPInstanceUID" not in step
            assert step.WorklistLabel == "DEFAULT"
        assert [found.SOPInstanceUID for found in await ups.find()] == [uid]


async def test_what_a_step_must_have_is_not_emptied(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step", workitem=IMAGING)
        for keyword in (
            "ProcedureStepLabel",
            "WorklistLabel",
            "ScheduledProcedureStepStartDateTime",
            "ScheduledWorkitemCodeSequence",
        ):
            assert await status_of(ups.update(uid, **{keyword: None})) == 0x0121
        assert steps.step(uid).ProcedureStepLabel == "Step"


async def test_sequences_that_are_none_are_refused(autojump_clock: Clock) -> None:
    async with managed() as (steps, ups):
        uid = await ups.create("Step")
        for keyword in (
            "ProcedureStepProgressInformationSequence",
            "UnifiedProcedureStepPerformedProcedureSequence",
            "ScheduledStationNameCodeSequence",
        ):
            broken = Dataset()
            broken.add_new(keyword, "LO", "text")
            assert await status_of(ups.update(uid, broken)) == 0x0106
            created = a_step()
            created.add_new(keyword, "LO", "text")
            assert await status_of(ups.association.n_create(PUSH, None, created)) == 0x0106
        text = Dataset()
        text.add_new("ProcedureStepLabel", "SQ", [Dataset()])
        assert await status_of(ups.update(uid, text)) == 0x0106
        assert steps.step(uid).ProcedureStepLabel == "Step"
        reasons = Dataset()
        reasons.add_new("ProcedureStepDiscontinuationReasonCodeSequence", "LO", "text")
        assert await status_of(ups.association.n_action(PUSH, uid, 2, reasons)) == 0x0106
        assert steps.states[uid] is StepState.SCHEDULED


async def test_what_n_set_may_not_change_stays(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step", PatientName="Ä^B", ScheduledWorkitemCodeSequence=[])
        code = dimse.Code("1", "L").item()
        for fixed in (
            {"ProcedureStepState": "COMPLETED"},
            {"SOPInstanceUID": "1.2"},
            {"SOPClassUID": "1.2"},
            {"PatientName": "C^D"},
            {"PatientID": "2"},
            {"IssuerOfPatientID": "X"},
            {"PatientBirthDate": "20000101"},
            {"PatientSex": "O"},
            {"AdmissionID": "2"},
            {"AdmittingDiagnosesCodeSequence": [code]},
            {"ReferencedRequestSequence": [code]},
            {"ReplacedProcedureStepSequence": [code]},
        ):
            assert await status_of(ups.update(uid, **fixed)) == 0x0106
        same = attributes(PatientName="Ä^B", PatientSex="", WorklistLabel="W")
        await ups.update(uid, same)  # nothing else than it is
        assert (await ups.get(uid)).WorklistLabel == "W"


async def test_actions_that_make_no_sense_are_refused(autojump_clock: Clock) -> None:
    async with managed() as (_, ups):
        uid = await ups.create("Step")
        act = ups.association.n_action
        for instance, action, information, status in (
            (uid, 9, {}, 0x0123),
            (uid, 1, {"ProcedureStepState": "PAUSED"}, 0x0115),
            (uid, 1, {"ProcedureStepState": "SCHEDULED", "TransactionUID": "1.2"}, 0xC303),
            (uid, 3, {"ReceivingAE": "STATION"}, 0x0115),
            (uid, 3, {"DeletionLock": "TRUE"}, 0x0115),
            (uid, 3, {"ReceivingAE": "STATION", "DeletionLock": "MAYBE"}, 0x0115),
            (uid, 3, {"ReceivingAE": "NOBODY", "DeletionLock": "TRUE"}, 0xC308),
            (EVERY, 3, {"ReceivingAE": "NOBODY", "DeletionLock": "TRUE"}, 0xC308),
            (uid, 5, {"ReceivingAE": "STATION"}, 0xC314),
            (EVERY, 4, {"ReceivingAE": "NOBODY"}, 0),
        ):
            assert await status_of(act(PUSH, instance, action, attributes(**information))) == status


async def test_a_storage_that_fails_leaves_the_step_as_it_was(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        broken = False

        async def load(self) -> Iterable[Dataset]:
            return []

        async def save(self, step: Dataset) -> None:
            if self.broken:
                raise OSError("disk is full")

        async def remove(self, sop_instance_uid: str) -> None:
            pass

    storage = Failing()
    async with managed(storage=storage) as (steps, ups):
        uid = await ups.create("Step")
        storage.broken = True
        assert await status_of(ups.change_state(uid, StepState.IN_PROGRESS, "1.2")) == 0x0110
        assert steps.states[uid] is StepState.SCHEDULED


@pytest.mark.parametrize("tag", [0x00741202, 0x00741200, 0x00404010, 0x00080018])
async def test_a_value_of_a_wrong_vr_is_refused_and_spoils_nothing(
    tag: int, autojump_clock: Clock
) -> None:
    bad = Dataset()
    bad.add_new(tag, "FL", None)
    async with managed() as (_, ups):
        uid = await ups.create("Step")
        with pytest.raises(dimse.StatusError) as caught:
            await ups.create("Bad", bad)
        assert caught.value.status == dimse.Status.INVALID_ATTRIBUTE_VALUE
        with pytest.raises(dimse.StatusError) as caught:
            await ups.update(uid, bad)
        assert caught.value.status == dimse.Status.INVALID_ATTRIBUTE_VALUE
        assert len(await ups.find()) == 1
        await ups.get(uid)
