"""Instance availability notification, both roles, over memory streams (PS3.4 Annex R)."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import AvailabilityNotice, AvailableInstance, InstanceAvailability, SOPReference
from dimse_trio.testing import associated_pair

NOTIFICATION = dimse.uid_of("InstanceAvailabilityNotification")
MPPS = dimse.uid_of("ModalityPerformedProcedureStep")
CONTEXTS = [dimse.PresentationContext(NOTIFICATION)]
CT = dimse.uid_of("CTImageStorage")

NOTICE = AvailabilityNotice(
    "1.2.3",
    {
        f"1.2.3.{series}": tuple(
            AvailableInstance(SOPReference(CT, f"1.2.3.{series}.{n}"), availability, "ARCHIVE")
            for n, availability in enumerate(InstanceAvailability)
        )
        for series in (1, 2)
    },
    SOPReference(MPPS, "1.2.9"),
    (dimse.Code("110001", "DCM", "Image Processing"),),
)


@attrs.define
class Workstation(dimse.AvailabilityListener):
    notices: list[AvailabilityNotice] = attrs.field(factory=list)
    status: dimse.Status = dimse.Status.SUCCESS

    async def available(self, notice: AvailabilityNotice, /) -> None:
        if self.status:
            raise dimse.StatusError(self.status)
        self.notices.append(notice)


async def test_a_notice_arrives_as_it_was_sent(autojump_clock: trio.abc.Clock) -> None:
    workstation = Workstation()
    async with associated_pair(workstation, contexts=CONTEXTS) as association:
        first = await association.notify_availability(NOTICE)
        second = await association.notify_availability(NOTICE, sop_instance_uid="1.2.77")
    assert workstation.notices == [NOTICE, NOTICE]
    assert first.sop_instance_uid != second.sop_instance_uid == "1.2.77"


async def test_a_notice_can_be_refused(autojump_clock: trio.abc.Clock) -> None:
    workstation = Workstation(status=dimse.Status.DUPLICATE_SOP_INSTANCE)
    async with associated_pair(workstation, contexts=CONTEXTS) as association:
        with pytest.raises(dimse.StatusError, match="Duplicate"):
            await association.notify_availability(NOTICE)
        assert association.is_open


@pytest.mark.parametrize("series", [{}, {"1.2.3": ()}])
async def test_a_notice_is_about_instances(series: Any, autojump_clock: trio.abc.Clock) -> None:
    async with associated_pair(Workstation(), contexts=CONTEXTS) as association:
        with pytest.raises(dimse.LocalProtocolError):
            await association.notify_availability(AvailabilityNotice("1.2", series))


def without(*path: str) -> Dataset:
    """The notice's attributes, less the one that the path leads to."""
    whole = inner = NOTICE.to_data_set()
    for keyword in path[:-1]:
        inner = inner[keyword].value[0]
    del inner[path[-1]]
    return whole


@pytest.mark.parametrize(
    "path",
    [
        ("StudyInstanceUID",),
        ("ReferencedSeriesSequence",),
        ("ReferencedSeriesSequence", "SeriesInstanceUID"),
        ("ReferencedSeriesSequence", "ReferencedSOPSequence"),
        ("ReferencedSeriesSequence", "ReferencedSOPSequence", "ReferencedSOPInstanceUID"),
        ("ReferencedSeriesSequence", "ReferencedSOPSequence", "InstanceAvailability"),
        ("ReferencedSeriesSequence", "ReferencedSOPSequence", "RetrieveAETitle"),
    ],
)
async def test_what_is_no_notice_is_refused(
    path: tuple[str, ...], autojump_clock: trio.abc.Clock
) -> None:
    workstation = Workstation()
    async with associated_pair(workstation, contexts=CONTEXTS) as association:
        result = await association.n_create(NOTIFICATION, "1.2", without(*path), check=False)
    assert result.status == dimse.Status.MISSING_ATTRIBUTE
    assert workstation.notices == []


@pytest.mark.parametrize(
    ("keyword", "value", "status"),
    [
        ("StudyInstanceUID", "", dimse.Status.MISSING_ATTRIBUTE_VALUE),
        ("StudyInstanceUID", "a", dimse.Status.INVALID_ATTRIBUTE_VALUE),
        ("ReferencedSeriesSequence", [], dimse.Status.MISSING_ATTRIBUTE_VALUE),
        ("ReferencedPerformedProcedureStepSequence", [Dataset()], dimse.Status.MISSING_ATTRIBUTE),
        ("InstanceAvailability", "", dimse.Status.MISSING_ATTRIBUTE_VALUE),
        ("InstanceAvailability", "SOON", dimse.Status.INVALID_ATTRIBUTE_VALUE),
        ("InstanceAvailability", ["ONLINE", "NEARLINE"], dimse.Status.INVALID_ATTRIBUTE_VALUE),
    ],
)
async def test_what_has_no_value_or_none_that_can_be_is_refused(
    keyword: str, value: Any, status: int, autojump_clock: trio.abc.Clock
) -> None:
    workstation = Workstation()
    attributes = NOTICE.to_data_set()
    item = attributes
    if keyword not in attributes:
        [item, *_] = attributes.ReferencedSeriesSequence[0].ReferencedSOPSequence
    item[keyword].value = value
    async with associated_pair(workstation, contexts=CONTEXTS) as association:
        result = await association.n_create(NOTIFICATION, "1.2", attributes, check=False)
    assert result.status == status
    assert workstation.notices == []


async def test_a_notice_names_one_step_with_what_was_performed_in_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    unknown = attrs.evolve(NOTICE, performed_procedure_step=None, workitems=())
    [step] = NOTICE.to_data_set().ReferencedPerformedProcedureStepSequence
    assert step.PerformedWorkitemCodeSequence[0].CodeValue == "110001"
    assert unknown.to_data_set().ReferencedPerformedProcedureStepSequence == []
    with pytest.raises(dimse.LocalProtocolError, match="workitems"):
        attrs.evolve(NOTICE, performed_procedure_step=None).to_data_set()
    workstation = Workstation()
    attributes = NOTICE.to_data_set()
    attributes.ReferencedPerformedProcedureStepSequence.append(step)
    del step.PerformedWorkitemCodeSequence
    async with associated_pair(workstation, contexts=CONTEXTS) as association:
        await association.n_create(NOTIFICATION, "1.2", attributes)
        await association.notify_availability(unknown)
    assert workstation.notices == [NOTICE, unknown]


async def test_an_instance_that_can_be_had_from_nowhere_is_refused(
    autojump_clock: trio.abc.Clock,
) -> None:
    workstation = Workstation()
    attributes = NOTICE.to_data_set()
    attributes.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].RetrieveAETitle = ""
    async with associated_pair(workstation, contexts=CONTEXTS) as association:
        result = await association.n_create(NOTIFICATION, "1.2", attributes, check=False)
    assert result.status == dimse.Status.MISSING_ATTRIBUTE_VALUE
    assert workstation.notices == []


async def test_a_series_may_be_in_several_items(autojump_clock: trio.abc.Clock) -> None:
    workstation = Workstation()
    attributes = NOTICE.to_data_set()
    for item in attributes.ReferencedSeriesSequence:
        item.SeriesInstanceUID = "1.2.3.1"
    async with associated_pair(workstation, contexts=CONTEXTS) as association:
        await association.n_create(NOTIFICATION, "1.2", attributes)
    [notice] = workstation.notices
    assert notice.series == {"1.2.3.1": (*NOTICE.series["1.2.3.1"], *NOTICE.series["1.2.3.2"])}
