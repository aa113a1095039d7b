"""DIMSE statuses: integers with a category and a meaning (PS3.7 §C, PS3.4 Annexes B and C).

`Status` is an `int` and no enum, because whole ranges are values: A7xxH, A9xxH, Cxxx.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class StatusCategory(enum.Enum):
    """The five types of a status (PS3.7 §C.1 to C.5)."""

    SUCCESS = "Success"
    PENDING = "Pending"
    CANCEL = "Cancel"
    WARNING = "Warning"
    FAILURE = "Failure"


class Status(int):
    """A status code; `repr` and `str` say what it means."""

    SUCCESS: ClassVar[Status]
    PENDING: ClassVar[Status]
    PENDING_WARNING: ClassVar[Status]
    CANCEL: ClassVar[Status]
    PROCESSING_FAILURE: ClassVar[Status]
    INVALID_SOP_INSTANCE: ClassVar[Status]
    SOP_CLASS_NOT_SUPPORTED: ClassVar[Status]
    NOT_AUTHORIZED: ClassVar[Status]
    UNRECOGNIZED_OPERATION: ClassVar[Status]
    INVALID_ATTRIBUTE_VALUE: ClassVar[Status]
    ATTRIBUTE_LIST_ERROR: ClassVar[Status]
    DUPLICATE_SOP_INSTANCE: ClassVar[Status]
    NO_SUCH_SOP_INSTANCE: ClassVar[Status]
    NO_SUCH_EVENT_TYPE: ClassVar[Status]
    INVALID_ARGUMENT_VALUE: ClassVar[Status]
    NO_SUCH_SOP_CLASS: ClassVar[Status]
    MISSING_ATTRIBUTE: ClassVar[Status]
    MISSING_ATTRIBUTE_VALUE: ClassVar[Status]
    NO_SUCH_ACTION: ClassVar[Status]
    RESOURCE_LIMITATION: ClassVar[Status]
    OUT_OF_RESOURCES: ClassVar[Status]
    OUT_OF_RESOURCES_MATCHES: ClassVar[Status]
    OUT_OF_RESOURCES_SUB_OPERATIONS: ClassVar[Status]
    MOVE_DESTINATION_UNKNOWN: ClassVar[Status]
    DATA_SET_MISMATCH: ClassVar[Status]
    SUB_OPERATIONS_WARNING: ClassVar[Status]
    CANNOT_UNDERSTAND: ClassVar[Status]

    @property
    def category(self) -> StatusCategory:
        """The category by the standard's ranges; a code in none of them is a failure."""
        if self == 0x0000:
            return StatusCategory.SUCCESS
        if self.is_pending:
            return StatusCategory.PENDING
        if self == 0xFE00:
            return StatusCategory.CANCEL
        if self in (0x0001, 0x0107, 0x0116) or 0xB000 <= self <= 0xBFFF:
            return StatusCategory.WARNING
        return StatusCategory.FAILURE

    @property
    def meaning(self) -> str:
        """What the standard calls this code."""
        if (meaning := _MEANINGS.get(int(self))) is not None:
            return meaning
        return _of_range(self, _RANGES) or self.category.value

    @property
    def advice(self) -> str:
        """What to try when a peer answers this; empty where the code does not tell."""
        if (advice := _ADVICE.get(int(self))) is not None:
            return advice
        return _of_range(self, _RANGES_OF_ADVICE)

    def explained(self, sop_class_uid: str | None) -> tuple[str, str]:
        """Meaning and advice in answer to a request of this SOP class; `None` if it is unknown."""
        for classes, subject, failures in _OF_SERVICES:
            for code, meaning, advice in failures:
                if self == code and sop_class_uid is not None:
                    if sop_class_uid.startswith(classes):
                        return f"{subject.capitalize()}: {meaning}", advice
                    return _of_range(self, _RANGES), _of_range(self, _RANGES_OF_ADVICE)
        return self.meaning, self.advice

    @property
    def is_pending(self) -> bool:
        return self in (0xFF00, 0xFF01)

    @property
    def is_failure(self) -> bool:
        return self.category is StatusCategory.FAILURE

    def __str__(self) -> str:
        return f"{self.meaning} ({int(self):#06x})"

    def __repr__(self) -> str:
        return f"<Status {int(self):#06x} {self.meaning}>"


def _of_range(status: int, ranges: tuple[tuple[int, int, str], ...]) -> str:
    return next((text for low, high, text in ranges if low <= status <= high), "")


_MEANINGS: dict[int, str] = {
    0x0000: "Success",
    0x0001: "Requested optional attributes are not supported",
    0x0105: "No such attribute",
    0x0106: "Invalid attribute value",
    0x0107: "Attribute list error",
    0x0110: "Processing failure",
    0x0111: "Duplicate SOP instance",
    0x0112: "No such SOP instance",
    0x0113: "No such event type",
    0x0114: "No such argument",
    0x0115: "Invalid argument value",
    0x0116: "Attribute value out of range",
    0x0117: "Invalid SOP instance",
    0x0118: "No such SOP class",
    0x0119: "Class-instance conflict",
    0x0120: "Missing attribute",
    0x0121: "Missing attribute value",
    0x0122: "SOP class not supported",
    0x0123: "No such action",
    0x0124: "Refused: not authorized",
    0x0210: "Duplicate invocation",
    0x0211: "Unrecognized operation",
    0x0212: "Mistyped argument",
    0x0213: "Resource limitation",
    0xA700: "Refused: out of resources",
    0xA701: "Refused: out of resources, unable to calculate number of matches",
    0xA702: "Refused: out of resources, unable to perform sub-operations",
    0xA801: "Refused: move destination unknown",
    0xA900: "Data set or identifier does not match SOP class",
    0xB000: "Warning: coercion of data elements, or sub-operations with failures or warnings",
    0xB006: "Warning: elements discarded",
    0xB007: "Warning: data set does not match SOP class",
    0xB300: "Warning: the procedure step was created with modifications",
    0xB301: "Warning: deletion lock not granted",
    0xB304: "Warning: the procedure step is CANCELED already",
    0xB305: "Warning: invalid values were coerced to valid ones",
    0xB306: "Warning: the procedure step is COMPLETED already",
    0xFE00: "Cancel",
    0xFF00: "Pending",
    0xFF01: "Pending, optional keys not supported",
}
_RANGES: tuple[tuple[int, int, str], ...] = (
    (0xA700, 0xA7FF, "Refused: out of resources"),
    (0xA900, 0xA9FF, "Data set or identifier does not match SOP class"),
    (0xC000, 0xCFFF, "Cannot understand, or unable to process"),
)

_ADVICE: dict[int, str] = {
    0x0110: "see the peer's log",
    0x0117: "check the SOP Instance UID",
    0x0122: "use a peer that supports the SOP class, or for a query another information model",
    0x0124: "have this AE title or user permitted at the peer",
    0x0211: "use a peer that performs this service",
    0xA701: "narrow the query",
    0xA702: (
        "for C-GET, compressed instances need contexts=retrieve_contexts(...); for C-MOVE, check"
        " that the destination runs and takes these SOP classes"
    ),
    0xA801: "have that AE title configured at the peer, with its host and port",
}
_RANGES_OF_ADVICE: tuple[tuple[int, int, str], ...] = (
    (0xA700, 0xA7FF, "have the peer's memory and disk looked at, or try again later"),
    (
        0xA900,
        0xA9FF,
        "check the level, keys and values of a query, or the SOP Class UID of an instance",
    ),
    (0xC000, 0xCFFF, "see the peer's log; try fewer keys in a query, or check the data set"),
)

_UPS_FAILURES: tuple[tuple[int, str, str], ...] = (
    (0xC300, "it may no longer be updated", "schedule another one"),
    (
        0xC301,
        "the correct Transaction UID was not provided",
        "somebody else has claimed it, or give the Transaction UID that it was claimed with",
    ),
    (0xC302, "it is IN PROGRESS already", "go on with it, by this Transaction UID"),
    (0xC303, "it becomes SCHEDULED only by N-CREATE", "schedule another one"),
    (
        0xC304,
        "it does not meet the final state requirements",
        "set first what was performed, for COMPLETED, or a discontinuation reason, for CANCELED",
    ),
    (0xC307, "there is no such one here", "find it; the peer may have deleted it after its end"),
    (0xC308, "the Receiving AE is unknown", "have that AE title configured at the peer"),
    (0xC309, "it is created as SCHEDULED", "create it with Procedure Step State SCHEDULED"),
    (0xC310, "it is not IN PROGRESS yet", "claim it first"),
    (0xC311, "it is COMPLETED already", "schedule another one"),
    (0xC312, "its performer cannot be contacted", "have somebody look for the performer"),
    (0xC313, "its performer chooses not to cancel it", "talk to the performer"),
    (0xC314, "the action is not for this instance", "use the UID of the global subscription"),
    (0xC315, "event reports are not supported", "ask by C-FIND or N-GET instead"),
)
"""Failures of a Unified Procedure Step: meaning and advice (PS3.4 §CC.2)."""
_RELEVANT_PATIENT_FAILURES: tuple[tuple[int, str, str], ...] = (
    (0xC100, "there is more than one match", "ask with the Issuer of Patient ID as well"),
    (0xC200, "the template is not supported", "ask the peer for one that it has"),
)
"""Failures of a query for relevant patient information (PS3.4 Table Q.2-1)."""
_OF_SERVICES = (
    ("1.2.840.10008.5.1.4.34.6.", "procedure step", _UPS_FAILURES),
    ("1.2.840.10008.5.1.4.37.", "relevant patient", _RELEVANT_PATIENT_FAILURES),
)
"""What a service's SOP classes begin with, its name, and its failures. Other services have these
codes for whatever they like, so that both are said where the SOP class is not known."""
for _, _subject, _failures in _OF_SERVICES:
    for _code, _meaning, _advice in _failures:
        _MEANINGS[_code] = f"Unable to process, or of a {_subject}: {_meaning}"
        _ADVICE[_code] = f"see the peer's log; of a {_subject}: {_advice}"

Status.SUCCESS = Status(0x0000)
Status.PENDING = Status(0xFF00)
Status.PENDING_WARNING = Status(0xFF01)
Status.CANCEL = Status(0xFE00)
Status.PROCESSING_FAILURE = Status(0x0110)
Status.INVALID_SOP_INSTANCE = Status(0x0117)
Status.SOP_CLASS_NOT_SUPPORTED = Status(0x0122)
Status.NOT_AUTHORIZED = Status(0x0124)
Status.UNRECOGNIZED_OPERATION = Status(0x0211)
Status.INVALID_ATTRIBUTE_VALUE = Status(0x0106)
Status.ATTRIBUTE_LIST_ERROR = Status(0x0107)
Status.DUPLICATE_SOP_INSTANCE = Status(0x0111)
Status.NO_SUCH_SOP_INSTANCE = Status(0x0112)
Status.NO_SUCH_EVENT_TYPE = Status(0x0113)
Status.INVALID_ARGUMENT_VALUE = Status(0x0115)
Status.NO_SUCH_SOP_CLASS = Status(0x0118)
Status.MISSING_ATTRIBUTE = Status(0x0120)
Status.MISSING_ATTRIBUTE_VALUE = Status(0x0121)
Status.NO_SUCH_ACTION = Status(0x0123)
Status.RESOURCE_LIMITATION = Status(0x0213)
Status.OUT_OF_RESOURCES = Status(0xA700)
Status.OUT_OF_RESOURCES_MATCHES = Status(0xA701)
Status.OUT_OF_RESOURCES_SUB_OPERATIONS = Status(0xA702)
Status.MOVE_DESTINATION_UNKNOWN = Status(0xA801)
Status.DATA_SET_MISMATCH = Status(0xA900)
Status.SUB_OPERATIONS_WARNING = Status(0xB000)
Status.CANNOT_UNDERSTAND = Status(0xC000)
