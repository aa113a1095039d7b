"""Performed procedure steps, both roles, over memory streams (PS3.4 Annex F)."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.protocol.messages import NCreateRQ, NCreateRSP, NSetRQ, NSetRSP
from dimse_trio.testing import ScriptedPeer

from .performed_steps import MPPS, SERIES, UNSCHEDULED, pair, state
from .script import attributes, encoded, scripted
from .worklists import item, step


@pytest.fixture(params=["memory", "folder"])
def handler(request: pytest.FixtureRequest, tmp_path: Path) -> dimse.PerformedProcedureSteps:
    store = dimse.PerformedStepFolder(tmp_path / "steps") if request.param == "folder" else None
    return dimse.PerformedProcedureSteps(store)


async def test_a_scheduled_step_is_begun_changed_and_completed(
    handler: dimse.PerformedProcedureSteps,
) -> None:
    async with pair(handler) as association:
        scheduled = item("Ä", step(), AccessionNumber="ACC")
        async with association.performed_procedure_step(scheduled) as performed:
            begun = await state(association, performed.uid)
            await performed.update(PerformedProcedureStepDescription="Kopf, größer")
            await performed.complete(SERIES)
        ended = await state(association, performed.uid)
        with pytest.raises(dimse.LocalProtocolError):
            await performed.update()
    assert begun.PerformedProcedureStepStatus == "IN PROGRESS"
    assert (begun.PatientName, begun.Modality, begun.PerformedStationAETitle) == (
        *("Ä^X", "CT", "SCANNER"),
    )
    (order,) = begun.ScheduledStepAttributesSequence
    assert (order.StudyInstanceUID, order.AccessionNumber) == ("2.25.7", "ACC")
    assert order.ScheduledProcedureStepID == "S1"
    assert ended.PerformedProcedureStepStatus == "COMPLETED"
    assert ended.PatientName == "Ä^X"
    assert ended.PerformedProcedureStepDescription == "Kopf, größer"
    (series,) = ended.PerformedSeriesSequence
    assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.5"


async def test_a_step_that_has_ended_may_no_longer_be_updated() -> None:
    async with pair(dimse.PerformedProcedureSteps()) as association:
        performed = await association.create_performed_step(**UNSCHEDULED)
        await performed.complete(SERIES)
        with pytest.raises(dimse.StatusError) as caught:
            await association.resume_performed_step(performed.uid).discontinue()
    assert caught.value.status == 0x0110
    assert caught.value.comment == "Performed Procedure Step Object may no longer be updated"
    assert caught.value.response is not None
    assert caught.value.response.error_id == 0xA710


async def test_a_uid_is_used_once_and_an_unknown_one_is_no_step() -> None:
    async with pair(dimse.PerformedProcedureSteps()) as association:
        await association.create_performed_step(sop_instance_uid="1.2.3", **UNSCHEDULED)
        with pytest.raises(dimse.StatusError) as caught:
            await association.create_performed_step(sop_instance_uid="1.2.3", **UNSCHEDULED)
        assert caught.value.status == dimse.Status.DUPLICATE_SOP_INSTANCE
        with pytest.raises(dimse.StatusError) as caught:
            await association.resume_performed_step("1.2.9").discontinue()
        assert caught.value.status == dimse.Status.NO_SUCH_SOP_INSTANCE


@pytest.mark.parametrize(
    ("keyword", "value", "status"),
    [
        ("Modality", ..., 0x0120),
        ("Modality", "", 0x0121),
        ("StudyID", ..., 0x0120),
        ("ScheduledStepAttributesSequence", [], 0x0121),
        ("ScheduledStepAttributesSequence", [Dataset()], 0x0120),
        ("PerformedProcedureStepStatus", "COMPLETED", 0x0106),
        ("PerformedProcedureStepStatus", "in progress", 0x0106),
    ],
)
async def test_what_breaks_the_table_is_not_made(keyword: str, value: Any, status: int) -> None:
    store = dimse.PerformedStepMemory()
    made = dimse.performed_step_attributes(**UNSCHEDULED)
    if value is ...:
        delattr(made, keyword)
    else:
        setattr(made, keyword, value)
    async with pair(dimse.PerformedProcedureSteps(store, strict=True)) as association:
        with pytest.raises(dimse.StatusError) as caught:
            await association.n_create(MPPS, "1.2.3", made)
    assert caught.value.status == status
    assert not store.steps


async def test_what_many_modalities_leave_out_is_let_pass_unless_it_is_strict() -> None:
    made = dimse.performed_step_attributes(**UNSCHEDULED)
    del made.StudyID
    async with pair(dimse.PerformedProcedureSteps()) as association:
        assert (await association.n_create(MPPS, "1.2.3", made)).status == 0


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"PerformedProcedureStepStatus": "COMPLETED"}, 0x0121),
        ({"PerformedProcedureStepStatus": "DONE"}, 0x0106),
        ({"PerformedProcedureStepStatus": ""}, 0x0106),
        ({"PerformedSeriesSequence": [Dataset()]}, 0x0120),
        ({"PerformedSeriesSequence": [attributes(ProtocolName="")]}, 0x0121),
    ],
)
async def test_a_change_that_breaks_the_table_leaves_the_step_as_it_was(
    values: dict[str, Any], status: int
) -> None:
    async with pair(dimse.PerformedProcedureSteps()) as association:
        performed = await association.create_performed_step(**UNSCHEDULED)
        before = await state(association, performed.uid)
        with pytest.raises(dimse.StatusError) as caught:
            await association.n_set(MPPS, performed.uid, attributes(**values))
        assert caught.value.status == status
        assert await state(association, performed.uid) == before


async def test_what_may_not_change_stays_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with pair(dimse.PerformedProcedureSteps()) as association:
        performed = await association.create_performed_step(**UNSCHEDULED)
        same = await performed.update(Modality="CT")
        other = await performed.update(Modality="MR", PerformedProcedureStepDescription="x")
        after = await state(association, performed.uid)
    assert same.status == dimse.Status.SUCCESS
    assert other.status == dimse.Status.ATTRIBUTE_LIST_ERROR
    assert same.not_taken == ()
    assert other.not_taken == ("Modality",)
    assert "N-SET-RQ answered Attribute list error (0x0107): Modality" in caplog.text
    assert (after.Modality, after.PerformedProcedureStepDescription) == ("CT", "x")


async def test_what_says_whose_step_it_is_may_not_change() -> None:
    late = {"IssuerOfPatientID": "A", "AdmissionID": "1", "ServiceEpisodeID": "2"}
    async with pair(dimse.PerformedProcedureSteps()) as association:
        performed = await association.create_performed_step(**UNSCHEDULED)
        assert set((await performed.update(**late)).not_taken) == set(late)


async def test_only_a_strict_scp_wants_a_series_of_a_discontinued_step() -> None:
    for strict in (False, True):
        async with pair(dimse.PerformedProcedureSteps(strict=strict)) as association:
            performed = await association.create_performed_step(**UNSCHEDULED)
            if strict:
                with pytest.raises(dimse.StatusError) as refused:
                    await performed.discontinue()
                assert refused.value.status == dimse.Status.MISSING_ATTRIBUTE_VALUE
                await performed.discontinue(None, SERIES)
            else:
                await performed.discontinue()


def test_a_series_refers_to_instances_in_two_ways() -> None:
    [uids] = SERIES.images
    assert isinstance(uids, tuple)
    named = dimse.PerformedSeries("1.2.4", "HEAD", [dimse.SOPReference(*uids)])
    assert named.item() == SERIES.item()


def test_the_reason_why_a_step_is_discontinued_is_made_with_it() -> None:
    made = dimse.performed_step_attributes(**UNSCHEDULED)
    assert made.PerformedProcedureStepDiscontinuationReasonCodeSequence == []


def test_steps_of_one_second_have_ids_of_their_own() -> None:
    made = [dimse.performed_step_attributes(**UNSCHEDULED) for _ in range(50)]
    ids = {step.PerformedProcedureStepID for step in made}
    assert len(ids) == 50
    assert all(len(each) == 16 for each in ids)


@pytest.mark.parametrize(
    "reason",
    [
        dimse.Code("110514", "DCM", "Incorrect worklist entry selected"),
        ("110514", "DCM", "Incorrect worklist entry selected"),
    ],
)
async def test_the_reason_of_a_discontinued_step_is_a_code(
    reason: dimse.Code | tuple[str, str, str],
) -> None:
    async with pair(dimse.PerformedProcedureSteps()) as association:
        performed = await association.create_performed_step(**UNSCHEDULED)
        for wrong in ("x", ("110514", "DCM"), 5):
            with pytest.raises(dimse.LocalProtocolError, match=r'reason is a code.*Code\("110514"'):
                await performed.discontinue(wrong)  # type: ignore[arg-type]
        await performed.discontinue(reason)
        ended = await state(association, performed.uid)
    (code,) = ended.PerformedProcedureStepDiscontinuationReasonCodeSequence
    assert code == dimse.Code("110514", "DCM", "Incorrect worklist entry selected").item()


def test_what_a_step_needs_is_said_before_anything_is_sent() -> None:
    with pytest.raises(dimse.LocalProtocolError, match="Modality"):
        dimse.performed_step_attributes(PerformedStationAETitle="X")
    with pytest.raises(dimse.LocalProtocolError, match="no DICOM keyword; did you mean Modality"):
        dimse.performed_step_attributes(Modalty="CT", **UNSCHEDULED)


async def test_a_step_is_not_completed_without_a_series() -> None:
    async with pair(dimse.PerformedProcedureSteps()) as association:
        performed = await association.create_performed_step(**UNSCHEDULED)
        with pytest.raises(dimse.LocalProtocolError, match="PerformedSeriesSequence"):
            await performed.complete()
        assert performed.status == "IN PROGRESS"


async def test_a_worklist_items_character_set_does_not_limit_what_is_reported() -> None:
    handler = dimse.PerformedProcedureSteps()
    protocol = Dataset()
    protocol.CodeMeaning = "Schädel"
    scheduled = item("Ä", step(ScheduledProtocolCodeSequence=[protocol]))
    scheduled.SpecificCharacterSet = "ISO_IR 100"
    received = datasets.decode(encoded(scheduled), "1.2.840.10008.1.2.1")
    async with pair(handler) as association:
        begun = await association.create_performed_step(received, PerformedLocation="東京")
        kept = await state(association, begun.uid)
    [order] = kept.ScheduledStepAttributesSequence
    assert order.ScheduledProtocolCodeSequence[0].CodeMeaning == "Schädel"
    assert (kept.PatientName, kept.PerformedLocation) == ("Ä^X", "東京")


async def test_the_uids_of_a_step_are_the_messages_and_no_attributes(tmp_path: Path) -> None:
    handler = dimse.PerformedProcedureSteps(dimse.PerformedStepFolder(tmp_path))
    async with pair(handler) as association:
        made = await association.create_performed_step(**UNSCHEDULED)
        wrong = Dataset()
        wrong.add_new(0x00080016, "SS", 1)
        result = await association.n_set(MPPS, made.uid, wrong)
        assert result.status == dimse.Status.ATTRIBUTE_LIST_ERROR
        assert (await state(association, made.uid)).PerformedProcedureStepStatus == "IN PROGRESS"


@pytest.mark.parametrize("answered", ["not a uid", "9.9.9", None])
async def test_a_step_has_the_uid_that_it_was_begun_with_whatever_the_answer_names(
    answered: str | None, autojump_clock: trio.abc.Clock
) -> None:
    asked: list[str | None] = []

    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(NCreateRQ)
        made = NCreateRSP(
            message_id_being_responded_to=request.message_id,
            status=dimse.Status.SUCCESS,
            affected_sop_instance_uid=answered,
        )
        await peer.send_message(1, made)
        change = await peer.expect_message(NSetRQ)
        asked.extend((request.affected_sop_instance_uid, change.requested_sop_instance_uid))
        changed = NSetRSP(
            message_id_being_responded_to=change.message_id, status=dimse.Status.SUCCESS
        )
        await peer.send_message(1, changed)
        await peer.respond_to_release()

    contexts = [dimse.PresentationContext(MPPS, "1.2.840.10008.1.2.1")]
    async with scripted(script, contexts=contexts) as association:
        async with association.performed_procedure_step(**UNSCHEDULED) as performed:
            await performed.complete(SERIES)
    assert asked == [performed.uid, performed.uid]


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ({"PatientID": "1"}, {"PatientID": "2"}, True),
        ({"PatientID": "1"}, {"PatientID": "1", "PatientName": "Spelt^Otherwise"}, False),
        ({"PatientID": "1"}, {"PatientID": "", "PatientName": "Somebody^Else"}, True),
        (
            {"PatientID": "1", "IssuerOfPatientID": "A"},
            {"PatientID": "1", "IssuerOfPatientID": "B"},
            True,
        ),
        ({"PatientID": ""}, {"PatientID": "", "PatientName": "Somebody^Else"}, True),
        ({"PatientID": ""}, {"PatientID": ""}, False),
    ],
)
def test_a_step_is_of_one_patient(
    one: dict[str, str], other: dict[str, str], refused: bool
) -> None:
    items = [item("A", step(), **one), item("A", step(), **other)]
    with pytest.raises(dimse.LocalProtocolError, match="one patient") if refused else nullcontext():
        made = dimse.performed_step_attributes(items)
        assert len(made.ScheduledStepAttributesSequence) == 2


async def test_a_step_that_names_no_station_is_performed_by_us() -> None:
    steps = dimse.PerformedProcedureSteps()
    bare = step()
    del bare.ScheduledStationAETitle
    async with pair(steps) as association:
        for scheduled, values in ((item("A", bare), {}), ((), {"Modality": "CT"})):
            performed = await association.create_performed_step(scheduled, **values)
            kept = await state(association, performed.uid)
            assert kept.PerformedStationAETitle == "STATION"
        performed = await association.create_performed_step([item("A", step())])
        assert (await state(association, performed.uid)).PerformedStationAETitle == "SCANNER"
