"""Instance Availability Notification, both roles: what can be had from where (PS3.4 Annex R)."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, cast

import attrs

from .attributes import check_value
from .codes import Code, code_of
from .datasets import text_of
from .errors import HandlerError, LocalProtocolError, StatusError
from .handlers import EchoSCP
from .matching import values_of
from .protocol.negotiation import PresentationContext
from .protocol.status import Status
from .protocol.uids import new_uid, uid_of
from .references import (
    InvalidReferences,
    SOPReference,
    items_of,
    not_given,
    reference_items,
    referenced_in,
    uid_in,
)
from .requests import is_uid

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association
    from .normalized import NormalizedResult
    from .normalized_requests import NCreateRequest

INSTANCE_AVAILABILITY = uid_of("InstanceAvailabilityNotification")
_WORKITEMS = "PerformedWorkitemCodeSequence"
_RETRIEVE_AE_TITLE, _INSTANCE_AVAILABILITY = 0x00080054, 0x00080056


def availability_contexts() -> list[PresentationContext]:
    """What to propose to a peer that is notified of the availability of instances."""
    return [PresentationContext(INSTANCE_AVAILABILITY)]


class InstanceAvailability(enum.Enum):
    """How soon an instance can be had (PS3.3 §C.4.23.1.1)."""

    ONLINE = "ONLINE"
    NEARLINE = "NEARLINE"
    OFFLINE = "OFFLINE"
    UNAVAILABLE = "UNAVAILABLE"


def _is_uid(value: object) -> bool:
    return isinstance(value, str) and is_uid(value)


def _check_reference(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, SOPReference):
        raise LocalProtocolError(
            f"{attribute.name} is {value!r}: write SOPReference(sop_class_uid, sop_instance_uid)"
        )
    if not (_is_uid(value.sop_class_uid) and _is_uid(value.sop_instance_uid)):
        raise LocalProtocolError(f"{attribute.name} refers to something by no UIDs")


def _check_text(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str):
        raise LocalProtocolError(f"{attribute.name} is text, not {type(value).__name__}")


def _check_availability(_: object, __: object, value: Any) -> None:
    if not isinstance(value, InstanceAvailability):
        names = ", ".join(f"InstanceAvailability.{each.name}" for each in InstanceAvailability)
        raise LocalProtocolError(f"availability is one of {names}, not {value!r}")


@attrs.frozen
class AvailableInstance:
    """An instance, how soon it can be had, and from where.

    Raises:
        LocalProtocolError: `reference` or `availability` is something else, or the title no text.
    """

    reference: SOPReference = attrs.field(validator=_check_reference)
    availability: InstanceAvailability = attrs.field(validator=_check_availability)
    retrieve_ae_title: str = attrs.field(validator=_check_text)


def _check_study(_: object, __: object, value: Any) -> None:
    if not _is_uid(value):
        raise LocalProtocolError("study_instance_uid is a UID, such as '1.2.3'")


def _check_series(_: object, __: object, value: Any) -> None:
    listed = isinstance(value, Mapping) and all(
        _is_uid(uid)
        and isinstance(instances, list | tuple)
        and all(isinstance(each, AvailableInstance) for each in cast("list[object]", instances))
        for uid, instances in cast("Mapping[object, object]", value).items()
    )
    if not listed:
        raise LocalProtocolError("series are lists of AvailableInstance by Series Instance UID")


def _check_workitems(_: object, __: object, value: Any) -> None:
    if not isinstance(value, list | tuple):
        raise LocalProtocolError("workitems are a list of codes")
    for each in cast("list[object]", value):
        code_of("workitem", each)


@attrs.frozen
class AvailabilityNotice:
    """What a notification says about a study (PS3.4 Table R.3.2-1).

    Attributes:
        study_instance_uid: The study.
        series: Its instances by Series Instance UID; at least one series, of at least one instance.
        performed_procedure_step: The step that they came from, if it is known.
        workitems: What was performed in it, as codes.

    Raises:
        LocalProtocolError: One of these is something else.
    """

    study_instance_uid: str = attrs.field(validator=_check_study)
    series: Mapping[str, Sequence[AvailableInstance]] = attrs.field(validator=_check_series)
    performed_procedure_step: SOPReference | None = attrs.field(
        default=None, validator=attrs.validators.optional(_check_reference)
    )
    workitems: Sequence[Code] = attrs.field(default=(), validator=_check_workitems)

    def to_data_set(self) -> Dataset:
        """The attributes of the N-CREATE.

        Raises:
            LocalProtocolError: There is no instance, none that can be an AE title to retrieve one
                from, or there are workitems of no step.
        """
        from pydicom import Dataset

        made = Dataset()
        step = self.performed_procedure_step
        if step is None and self.workitems:
            raise LocalProtocolError("workitems are those of a performed_procedure_step")
        steps = reference_items([] if step is None else [step])
        for item in steps:
            item.PerformedWorkitemCodeSequence = [
                code_of("workitem", each).item() for each in self.workitems
            ]
        made.ReferencedPerformedProcedureStepSequence = steps
        made.StudyInstanceUID = self.study_instance_uid
        made.ReferencedSeriesSequence = [
            _series_item(uid, instances) for uid, instances in self.series.items()
        ]
        if not self.series:
            raise LocalProtocolError("a notice of availability is about at least one instance")
        return made

    @classmethod
    def from_data_set(cls, data_set: Dataset) -> AvailabilityNotice:
        """What the attributes of an N-CREATE say; of several steps, the first.

        Raises:
            StatusError: One that has to be there is not, or is not what it should be.
        """
        try:
            steps = items_of(data_set, "ReferencedPerformedProcedureStepSequence")[:1]
            workitems = [code for step in steps for code in items_of(step, _WORKITEMS)]
            series: dict[str, tuple[AvailableInstance, ...]] = {}
            for item in items_of(data_set, "ReferencedSeriesSequence"):
                uid = uid_in(item, "SeriesInstanceUID")
                series[uid] = (*series.get(uid, ()), *_instances(item))
            if not series:
                raise not_given(data_set, "ReferencedSeriesSequence")
            return cls(
                uid_in(data_set, "StudyInstanceUID"),
                series,
                referenced_in(steps[0]) if steps else None,
                tuple(map(_code_in, workitems)),
            )
        except InvalidReferences as error:
            raise StatusError(error.status, str(error)) from error


def _code_in(item: Dataset) -> Code:
    """The code of an item; a long one, or a URN, has an attribute of its own (PS3.3 §8.8)."""
    keywords = ("CodeValue", "LongCodeValue", "URNCodeValue")
    values = [value for keyword in keywords if (value := text_of(item, keyword))]
    return Code(
        values[0] if values else "",
        text_of(item, "CodingSchemeDesignator"),
        text_of(item, "CodeMeaning"),
    )


def _series_item(uid: str, instances: Sequence[AvailableInstance]) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.SeriesInstanceUID = uid
    item.ReferencedSOPSequence = reference_items(each.reference for each in instances)
    if not instances or not all(each.retrieve_ae_title for each in instances):
        raise LocalProtocolError(f"series {uid} needs instances, each with a Retrieve AE Title")
    for each in instances:
        if "\\" in each.retrieve_ae_title:
            raise LocalProtocolError("a Retrieve AE Title is one, without a backslash")
        check_value("RetrieveAETitle", "AE", each.retrieve_ae_title)
    for inner, each in zip(item.ReferencedSOPSequence, instances, strict=True):
        inner.InstanceAvailability = each.availability.value
        inner.RetrieveAETitle = each.retrieve_ae_title
    return item


def _instances(series: Dataset) -> tuple[AvailableInstance, ...]:
    found: list[AvailableInstance] = []
    for item in items_of(series, "ReferencedSOPSequence"):
        if not (terms := [each for each in values_of(item, _INSTANCE_AVAILABILITY) if each]):
            raise not_given(item, "InstanceAvailability")
        if len(terms) > 1 or terms[0] not in InstanceAvailability.__members__:
            raise InvalidReferences("InstanceAvailability is none of its terms")
        if not (titles := [each for each in values_of(item, _RETRIEVE_AE_TITLE) if each]):
            raise not_given(item, "RetrieveAETitle")
        found.append(
            AvailableInstance(referenced_in(item), InstanceAvailability(terms[0]), titles[0])
        )
    if not found:
        raise not_given(series, "ReferencedSOPSequence")
    return tuple(found)


async def send_notice(
    association: Association, notice: AvailabilityNotice, sop_instance_uid: str | None
) -> NormalizedResult:
    """As `Association.notify_availability`."""
    if not isinstance(notice, AvailabilityNotice):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LocalProtocolError(f"a notice is an AvailabilityNotice, not {type(notice).__name__}")
    return await association.n_create(
        INSTANCE_AVAILABILITY, sop_instance_uid or new_uid(), notice.to_data_set()
    )


class AvailabilityListener(EchoSCP):
    """A handler, or a part of one, that is told what can be retrieved from where.

    A subclass takes the notices in `available`. C-ECHO is answered too. As a base class of a
    handler, it passes the N-CREATEs of other SOP classes on to the next base, and the handler sets
    `normalized_sop_classes` to all that it is for; `Handlers` needs no such care.
    """

    normalized_sop_classes = frozenset((INSTANCE_AVAILABILITY,))

    def check_ready(self) -> None:
        """Refuse a listener that would take no notice."""
        own = type(self).available
        if own is AvailabilityListener.available or not iscoroutinefunction(own):
            raise HandlerError(
                f"{type(self).__name__} has to take what it is told in `async def available(self,"
                " notice)`"
            )

    async def available(self, notice: AvailabilityNotice, /) -> None:
        """Take a notice; `StatusError` refuses it."""
        raise NotImplementedError

    async def handle_n_create(self, request: NCreateRequest, /) -> Any:
        """Read a notification, and hand it on."""
        if request.sop_class_uid != INSTANCE_AVAILABILITY:
            other = getattr(super(), "handle_n_create", None)
            if other is None:
                raise StatusError(Status.NO_SUCH_SOP_CLASS)
            return await other(request)
        await self.available(AvailabilityNotice.from_data_set(request.attributes))
        return Status.SUCCESS
