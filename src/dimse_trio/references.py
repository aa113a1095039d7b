"""References to instances, as DIMSE-N carries them: what is asked about, and what came of it."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import attrs
import trio

from .datasets import sop_uids
from .errors import LocalProtocolError
from .part10 import Instance, path_of
from .protocol.status import Status
from .protocol.uids import uid_of
from .requests import is_uid

if TYPE_CHECKING:
    from pydicom import Dataset

Referable: TypeAlias = (
    "str | os.PathLike[str] | Instance | Dataset | tuple[str, str] | SOPReference"
)
"""What names an instance: the path of a DICOM file, an `Instance`, a data set, a SOP Class UID and
SOP Instance UID, or a `SOPReference`."""


STORAGE_COMMITMENT = uid_of("StorageCommitmentPushModel")
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model SOP Instance (PS3.4 §J.3.5)."""
REQUEST = 1
"""The Action Type ID of a request for commitment (PS3.4 §J.3.2.1)."""
ALL_COMMITTED, SOME_FAILED = 1, 2
"""The Event Type IDs of its reports (PS3.4 §J.3.3.1)."""


T = TypeVar("T")
FEW = 500
"""So many references are gone through in the event loop."""


class InvalidReferences(ValueError):
    """A data set of a peer that does not refer to instances as it should.

    Attributes:
        status: What says so as the status of a response (PS3.4 §5.4.2.1).
    """

    def __init__(self, why: str, status: Status = Status.INVALID_ATTRIBUTE_VALUE) -> None:
        super().__init__(why)
        self.status = status


def not_given(data_set: Dataset, keyword: str) -> InvalidReferences:
    """What to raise for an attribute that is not there, or has no value."""
    if keyword in data_set:
        return InvalidReferences(f"{keyword} has no value", Status.MISSING_ATTRIBUTE_VALUE)
    return InvalidReferences(f"{keyword} is missing", Status.MISSING_ATTRIBUTE)


@attrs.frozen
class SOPReference:
    """A reference to an instance (PS3.3 §10.8)."""

    sop_class_uid: str
    sop_instance_uid: str


class FailureReason(enum.IntEnum):
    """Why a peer has not committed to an instance (PS3.3 §C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131
    RESOURCE_LIMITATION = 0x0213

    @property
    def meaning(self) -> str:
        """What the standard calls it, in lower case."""
        return self.name.lower().replace("_", " ").replace("sop", "SOP").replace("uid", "UID")


@attrs.frozen
class FailedReference:
    """An instance that a peer has not committed to.

    Attributes:
        reference: Which.
        reason: Why; a plain `int` where the peer sent a number that is no `FailureReason`, 0 where
            it sent none.
    """

    reference: SOPReference
    reason: FailureReason | int

    @property
    def meaning(self) -> str:
        """The reason in words."""
        known = isinstance(self.reason, FailureReason)
        words = cast("FailureReason", self.reason).meaning if known else "unknown reason"
        return f"{words} ({int(self.reason):#06x})"


async def references_of(items: Iterable[Referable]) -> tuple[SOPReference, ...]:
    """References to instances, each once; files are looked into in a thread.

    Raises:
        LocalProtocolError: There are none, or one is none of what can be referred to.
        OSError, InvalidFile: A file cannot be read.
        DataSetError: A data set is no instance.
    """
    if isinstance(items, str | os.PathLike | Instance) or hasattr(items, "iterall"):
        items = [cast("Referable", items)]
    given = list(items)
    if not given:
        raise LocalProtocolError("there is no instance to refer to")
    if any(path_of(item) is not None for item in given):
        references = await trio.to_thread.run_sync(lambda: [*map(_reference, given)])
    else:
        references = [*map(_reference, given)]
    return tuple(dict.fromkeys(references))


def _reference(item: Any) -> SOPReference:
    if isinstance(item, SOPReference):
        return item
    if (path := path_of(item)) is not None:
        item = Instance.from_file(path)
    if isinstance(item, Instance):
        return SOPReference(item.sop_class_uid, item.sop_instance_uid)
    if hasattr(item, "iterall"):
        return SOPReference(*sop_uids(item))
    match item:
        case (str(sop_class), str(sop_instance)) if is_uid(sop_class) and is_uid(sop_instance):
            return SOPReference(sop_class, sop_instance)
        case _:
            raise LocalProtocolError(
                f"{type(item).__name__} is no reference to an instance: give the path of a file, an"
                " Instance, a data set, or (SOP Class UID, SOP Instance UID)"
            )


# -- in data sets ----------------------------------------------------------------------------------


async def aside(work: Callable[[], T], references: int) -> T:
    """Call `work`, which goes through so many references: through many in a worker thread."""
    if references <= FEW:
        return work()
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def count_in(data_set: Dataset) -> int:
    """How many references there are, about, in what a request or a report says."""
    values: Any = map(data_set.get, ("ReferencedSOPSequence", "FailedSOPSequence"))
    return sum(len(value) for value in values if hasattr(value, "__len__"))


def reference_items(
    references: Iterable[SOPReference | FailedReference],
) -> list[Dataset]:
    """The items of a Referenced SOP Sequence, or of a Failed SOP Sequence."""
    from pydicom import Dataset

    items: list[Dataset] = []
    for each in references:
        item = Dataset()
        reference = each if isinstance(each, SOPReference) else each.reference
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        if isinstance(each, FailedReference):
            item.FailureReason = int(each.reason)
        items.append(item)
    return items


def items_of(data_set: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none if it is not there.

    Raises:
        InvalidReferences: It is no sequence.
    """
    value: Any = data_set.get(keyword)
    if value is None:
        return []
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidReferences(f"{keyword} is no sequence")
    items: list[Any] = [*value]  # pyright: ignore[reportUnknownVariableType]
    if not all(hasattr(item, "iterall") for item in items):
        raise InvalidReferences(f"{keyword} is no sequence")
    return items


def uid_in(data_set: Dataset, keyword: str) -> str:
    """A UID that has to be there.

    Raises:
        InvalidReferences: It is not, or is none.
    """
    value = str(data_set.get(keyword) or "")
    if not value:
        raise not_given(data_set, keyword)
    if not is_uid(value):
        raise InvalidReferences(f"{keyword} is no UID")
    return value


def referenced_in(item: Dataset) -> SOPReference:
    """What an item refers to.

    Raises:
        InvalidReferences: A UID is missing, or is none.
    """
    return SOPReference(
        uid_in(item, "ReferencedSOPClassUID"), uid_in(item, "ReferencedSOPInstanceUID")
    )


def failure_in(item: Dataset) -> FailedReference:
    """What an item of a Failed SOP Sequence refers to, and why.

    Raises:
        InvalidReferences: A UID is missing, or is none.
    """
    value = item.get("FailureReason")
    reason = value if isinstance(value, int) else 0
    known = reason in FailureReason.__members__.values()
    return FailedReference(referenced_in(item), FailureReason(reason) if known else reason)
