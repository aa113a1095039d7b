"""Steps, claims and notices of what they cannot be made of: refused before they are sent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.testing import associated_pair
from dimse_trio.ups_attributes import date_time

from .script import CT


def test_an_available_instance_is_of_its_kinds() -> None:
    reference = dimse.SOPReference(CT, "1.2.3")
    with pytest.raises(dimse.LocalProtocolError, match=r"InstanceAvailability\.ONLINE.*'ONLINE'"):
        dimse.AvailableInstance(reference, "ONLINE", "PACS")  # type: ignore[arg-type]
    with pytest.raises(dimse.LocalProtocolError, match=r"write SOPReference\("):
        dimse.AvailableInstance(
            (CT, "1.2.3"),  # type: ignore[arg-type]
            dimse.InstanceAvailability.ONLINE,
            "PACS",
        )


WHO = {"Modality": "CT", "PerformedStationAETitle": "SCANNER"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: dimse.performed_step_attributes(PerformedProcedureStepStartDate="gestern"),
            "PerformedProcedureStepStartDate is none of its VR DA, such as",
        ),
        (lambda: dimse.performed_step_attributes(Modality="lower case"), "Modality .* VR CS"),
        (lambda: dimse.performed_step_attributes("item"), "scheduled is a pydicom Dataset"),
        (lambda: dimse.performed_step_attributes([{}]), "scheduled is a pydicom Dataset"),
        (lambda: dimse.performed_step_attributes([None]), "scheduled is a pydicom Dataset"),  # type: ignore[list-item]
        (lambda: dimse.performed_step_attributes(None), "scheduled is a pydicom Dataset"),  # type: ignore[arg-type]
        (lambda: dimse.performed_step_attributes(5), "scheduled is a pydicom Dataset"),  # type: ignore[arg-type]
        (lambda: dimse.PerformedSeries("abc", "HEAD").item(), "SeriesInstanceUID .* UI"),
        (lambda: dimse.PerformedSeries("1.2", "HEAD", ["1.2.3"]).item(), "refers to an instance"),
        (
            lambda: dimse.PerformedSeries("1.2", "HEAD", attributes=None).item(),  # type: ignore[arg-type]
            "values by keyword",
        ),
        (
            lambda: dimse.PerformedSeries("1.2", "H", [("1.2.3", CT)]).item(),
            "other way round",
        ),
        (
            lambda: dimse.PerformedSeries("1.2", "H", [("CT", "1.2")]).item(),
            "refers to an instance",
        ),
    ],
)
def test_a_performed_step_of_what_is_none_is_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message) as refused:
        make()
    assert "gestern" not in str(refused.value)


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("SeriesDescription", 4711, "SeriesDescription is text, not int"),
        ("StudyDate", 4711, r"AttributeError at StudyDate \(0008,0020\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
async def test_what_cannot_be_encoded_is_named_without_its_value(
    keyword: str, value: Any, message: str
) -> None:
    nested, data_set = Dataset(), Dataset()
    setattr(nested, keyword, value)
    data_set.ReferencedSeriesSequence = [nested]
    contexts = dimse.performed_step_contexts()
    async with associated_pair(dimse.PerformedProcedureSteps(), contexts=contexts) as association:
        with pytest.raises(dimse.DataSetError, match=message) as refused:
            await association.n_set(dimse.uid_of("ModalityPerformedProcedureStep"), "1", data_set)
    assert "4711" not in str(refused.value)


WORKITEM = dimse.Code("110001", "DCM", "Image Processing")


async def test_a_procedure_step_of_what_is_none_is_refused() -> None:
    async with dimse.ProcedureSteps() as steps:
        contexts = dimse.procedure_step_contexts()
        async with associated_pair(steps, contexts=contexts) as association:
            ups: Any = dimse.UnifiedProcedureSteps(association)
            for call, message in (
                (ups.create("Step", workitem="110001"), "workitem is a code"),
                (ups.create("Step", start="tomorrow"), "VR DT, such as"),
                (ups.create("Step" * 20), "ProcedureStepLabel .* VR LO"),
                (ups.create("Step", {"PatientName": "X"}), "attributes is a pydicom Dataset"),
                (ups.update("1.2", {"PatientName": "X"}), "modifications is a pydicom Dataset"),
                (ups.update("1.2"), "an update changes something"),
                (ups.update("1.2", PatientNam="X"), "PatientNam"),
                (
                    ups.subscribe(matching="PatientName"),
                    "matching, if it is no mapping, is a pydicom",
                ),
                (ups.create("Step", AdmissionID=dimse.Code("1", "L")), "AdmissionID .* VR LO"),
                (ups.create("Step", SliceThickness=object()), "SliceThickness .* VR DS"),
                (ups.create("Step", InstanceNumber=1.5), "InstanceNumber .* VR IS"),
                (ups.create("Step", Rows="7"), "Rows .* VR US"),
                (ups.create("Step", PatientNam="X"), "PatientNam"),
                (ups.create("Step", ScheduledProcedureStepPriority="so so"), "VR CS"),
                (ups.change_state("1.2", "DONE", "1.3"), "SCHEDULED, IN PROGRESS, .*, not 'DONE'"),
                (ups.change_state("1.2", None, "1.3"), "not None"),
                (ups.create("Step", priority="URGENT"), "HIGH, MEDIUM, LOW, not 'URGENT'"),
                (ups.create("Step", ready="INCOMPLETE"), "ready is True or False"),  # type: ignore[arg-type]
                (ups.subscribe(deletion_lock="no"), "deletion_lock is True or False"),  # type: ignore[arg-type]
                (ups.subscribe(matching=["x"]), "matching, if it is no mapping"),  # type: ignore[arg-type]
                (ups.update("1.2", ["x"]), "modifications is a pydicom Dataset, not list"),  # type: ignore[arg-type]
                (association.notify_availability("x"), "AvailabilityNotice"),  # type: ignore[arg-type]
            ):
                with pytest.raises(dimse.LocalProtocolError, match=message):
                    await call
            with pytest.raises(dimse.QueryError, match="PatientNam"):
                await ups.subscribe(matching={"PatientNam": "X"})
            uid = await ups.create("Step")
            await ups.change_state(uid, "IN PROGRESS", "1.3")
            assert steps.states[uid] is dimse.StepState.IN_PROGRESS
            uid = await ups.create("Step")
            async with ups.claim(uid) as work:
                with pytest.raises(dimse.LocalProtocolError, match="ReasonForCancellation"):
                    await work.cancel(dimse.Code("110514", "DCM"))
                await work.cancel(code=("110514", "DCM", "Incorrect worklist entry selected"))
            assert steps.states[uid] is dimse.StepState.CANCELED
            for wrong in (
                lambda work: work.update(progress=50, description=5),
                lambda work: work.update(progress="half"),
                lambda work: work.complete(workitem="110001"),
                lambda work: work.complete(workitem=WORKITEM, station="here"),
                lambda work: work.complete(performed="x"),
                lambda work: work.complete(workitem=WORKITEM, outputs=["x"]),
                lambda work: work.complete(workitem=WORKITEM, outputs=5),
                lambda work: work.cancel(5),
                lambda work: work.update(ContactURI=5),
            ):
                uid = await ups.create("Step")
                with pytest.raises(dimse.LocalProtocolError):
                    async with ups.claim(uid) as work:
                        await wrong(work)
                assert steps.states[uid] is dimse.StepState.CANCELED
            uid = await ups.create("Step", workitem=WORKITEM)
            async with ups.claim(uid) as work:
                with pytest.raises(dimse.LocalProtocolError):
                    await work.update(progress=50, description=5)
                await work.update(progress=60)
                await work.complete()
            with pytest.raises(dimse.LocalProtocolError, match="ReasonForCancellation"):
                await ups.request_cancel(uid, reason=5)
    for wrong in ("127.0.0.1", None):
        with pytest.raises(dimse.LocalProtocolError, match="procedure_step_contexts"):
            dimse.UnifiedProcedureSteps(wrong)  # type: ignore[arg-type]


async def test_a_step_is_completed_with_series_and_with_nothing_else() -> None:
    steps = dimse.PerformedProcedureSteps()
    contexts = dimse.performed_step_contexts()
    async with associated_pair(steps, contexts=contexts) as association:
        step: Any = await association.create_performed_step(**WHO)
        with pytest.raises(dimse.LocalProtocolError, match="series are PerformedSeries"):
            await step.complete("1.2.3")
        assert step.status == "IN PROGRESS"
        nothing: Any
        for nothing in (None, [None]):
            with pytest.raises(dimse.LocalProtocolError, match="scheduled is a pydicom Dataset"):
                async with association.performed_procedure_step(nothing):
                    pytest.fail("the block is not entered")


async def test_values_of_another_data_set_are_taken_as_they_are() -> None:
    source = Dataset()
    source.OtherPatientIDs = ["a", "b"]
    source.OperatorsName = ["A^B", "Ä^Ö"]
    source.ImagerPixelSpacing = [0.1, 0.2]
    given = {each.keyword: each.value for each in source}
    contexts = [*dimse.performed_step_contexts(), *dimse.procedure_step_contexts()]
    async with dimse.ProcedureSteps() as steps:
        handler = dimse.Handlers(dimse.PerformedProcedureSteps(), steps)
        async with associated_pair(handler, contexts=contexts) as association:
            step = await association.create_performed_step(**{**WHO, **given})
            kept = (await association.n_get(MPPS_RETRIEVE, step.uid)).data_set
            uid = await dimse.UnifiedProcedureSteps(association).create("Step", **given)
    assert all(kept[each.tag] == each == steps.step(uid)[each.tag] for each in source)
    assert dimse.PerformedSeries("1.2", "HEAD", attributes=given).item().OtherPatientIDs[1] == "b"


@pytest.mark.parametrize("uid", [5, "x", "1..2"])
async def test_a_step_is_of_a_study_whose_uid_is_one(uid: Any) -> None:
    with pytest.raises(dimse.LocalProtocolError, match="StudyInstanceUID"):
        dimse.performed_step_attributes(StudyInstanceUID=uid, **WHO)
    with pytest.raises(dimse.LocalProtocolError, match="ProtocolName"):
        dimse.PerformedSeries("1.2", "x" * 70).item()


MPPS_RETRIEVE = dimse.uid_of("ModalityPerformedProcedureStepRetrieve")


@pytest.mark.parametrize(
    "wrong",
    [
        {"ExposureTime": [1, None]},
        {"OperatorsName": ["A", None]},
        {"AffectedSOPInstanceUID": "1.2"},
        {"TransferSyntaxUID": "1.2"},
        {"": 1},
    ],
)
async def test_what_would_be_sent_as_something_else_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(dimse.LocalProtocolError):
        dimse.performed_step_attributes(**{**WHO, **wrong})


async def test_a_number_is_sent_in_the_sixteen_bytes_that_it_may_have() -> None:
    made = dimse.performed_step_attributes(PatientWeight=1 / 3, PatientSize=1.5, **WHO)
    assert str(made.PatientWeight) == "0.33333333333333"
    assert str(made.PatientSize) == "1.5"
    with pytest.raises(dimse.LocalProtocolError, match=r"datetime.datetime or a DT, not date"):
        date_time(dt.date(2026, 1, 1))  # type: ignore[arg-type]


FOUND = dimse.AvailableInstance(
    dimse.SOPReference("1.2", "1.3"), dimse.InstanceAvailability.ONLINE, "ARCHIVE"
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((lambda uid=uid: dimse.AvailabilityNotice(uid, {"1.2": [FOUND]}), "study_instance_uid")
          for uid in (5, "x", "", None)),
        *((lambda uid=uid: dimse.AvailabilityNotice("1.2", {uid: [FOUND]}), "series are lists")
          for uid in (5, "x", "", None)),
        *((lambda given=given: dimse.AvailabilityNotice("1.2", given), "series are lists")
          for given in ([], None, {"1.3": FOUND}, {"1.3": None}, {"1.3": "abc"}, {"1.3": [None]})),
        *((lambda step=step: dimse.AvailabilityNotice("1.2", {}, step), "performed_procedure_step")
          for step in (5, ("1.2", "1.3"), dimse.SOPReference("1.2", ""))),
        *((lambda given=given: dimse.AvailabilityNotice("1.2", {}, None, given), "workitem")
          for given in (None, dimse.Code("1", "L"), [5])),
        (lambda: attrs.evolve(FOUND, reference=dimse.SOPReference(5, "1.2")), "no UIDs"),
        (lambda: attrs.evolve(FOUND, retrieve_ae_title=5), "retrieve_ae_title is text"),
    ],
)  # fmt: skip
def test_a_notice_is_made_of_what_it_says(make: Any, message: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        make()


@pytest.mark.parametrize("title", ["A\\B", "longer than sixteen", ""])
def test_a_notice_is_sent_with_what_can_be_an_ae_title(title: str) -> None:
    notice = dimse.AvailabilityNotice(
        "1.2", {"1.3": [attrs.evolve(FOUND, retrieve_ae_title=title)]}
    )
    with pytest.raises(dimse.LocalProtocolError):
        notice.to_data_set()


def test_steps_are_kept_in_a_folder_and_in_no_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(dimse.HandlerError, match="no folder"):
        dimse.PerformedStepFolder(file)


async def test_what_a_base_class_needs_is_a_coroutine_function() -> None:
    class Listener(dimse.AvailabilityListener):
        def available(self, notice: Any) -> None:  # type: ignore[override]
            pass

    class Provider(dimse.StorageCommitmentProvider):
        def committed(self, reference: Any) -> None:  # type: ignore[override]
            pass

    for handler in (Listener(), Provider()):
        with pytest.raises(dimse.HandlerError, match="async def"):
            async with dimse.open_server(handler):
                pass


def test_what_keeps_steps_has_methods_that_are_awaited() -> None:
    class Plain:
        def load(self, *_: object) -> list[Dataset]:
            return []

        async def save(self, *_: object) -> None: ...
        async def remove(self, *_: object) -> None: ...

    @attrs.frozen
    class Whole:
        async def load(self, *_: object) -> list[Dataset]:
            return []

        async def save(self, *_: object) -> None: ...
        async def remove(self, *_: object) -> None: ...

    class Called:
        async def __call__(self, *_: object) -> None: ...

    wrong: Any
    for wrong in (Plain(), Whole, "steps", mock.Mock()):
        with pytest.raises(dimse.LocalProtocolError, match="load, save and remove are `async def`"):
            dimse.ProcedureSteps(wrong)
    for wrong in (Plain(), Whole, 5, mock.Mock()):
        with pytest.raises(dimse.HandlerError, match="load and save are `async def`"):
            dimse.PerformedProcedureSteps(wrong)
    awaited = {name: mock.AsyncMock() for name in ("load", "save", "remove")}
    called = dict.fromkeys(awaited, Called())
    fitting: Any
    for fitting in (Whole(), mock.Mock(**awaited), mock.Mock(**called)):
        dimse.ProcedureSteps(storage=fitting)
        dimse.PerformedProcedureSteps(fitting)


@pytest.mark.parametrize("option", ["max_steps", "max_subscribers", "retries"])
def test_the_numbers_of_procedure_steps_are_such(option: str) -> None:
    for wrong in (None, -1, 1.5):
        options: dict[str, Any] = {option: wrong}
        with pytest.raises(dimse.LocalProtocolError, match=option):
            dimse.ProcedureSteps(**options)
