"""The errors that users see: what the peer said, in the standard's words, and what to try.

The lifecycle errors are also the trio error that a user of streams would catch: aborted is broken,
closed is closed, too late is too slow.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Iterable, Iterator
from typing import Self

import trio

from .protocol.errors import (
    AbortReason,
    AbortSource,
    DimseError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
)
from .protocol.events import Aborted, ProviderAborted, Refused
from .protocol.messages import CGetRSP, CMoveRSP, NGetRQ, Request, Response
from .protocol.negotiation import Negotiated
from .protocol.pdus import AssociateRJ, AssociateRQ
from .protocol.status import Status
from .protocol.uids import uid_of

__all__ = [
    "AssociationAborted",
    "AssociationClosed",
    "AssociationError",
    "AssociationRejected",
    "AssociationTimeout",
    "CharacterSetError",
    "ConnectionFailed",
    "ContextNotAccepted",
    "DataSetError",
    "DataSetTooLarge",
    "DimseError",
    "HandlerError",
    "InvalidFile",
    "LocalProtocolError",
    "ProtocolError",
    "QueryError",
    "Reject",
    "RejectReason",
    "RejectResult",
    "RejectSource",
    "RemoteProtocolError",
    "StatusError",
]


class RejectResult(enum.IntEnum):
    """Whether a rejection is for good (PS3.8 Table 9-21)."""

    PERMANENT = 1
    TRANSIENT = 2


class RejectSource(enum.IntEnum):
    """Which part of the peer rejected (PS3.8 Table 9-21)."""

    SERVICE_USER = 1
    SERVICE_PROVIDER_ACSE = 2
    SERVICE_PROVIDER_PRESENTATION = 3


class RejectReason(enum.Enum):
    """Why an association was rejected, as (source, reason): PS3.8 Table 9-21."""

    NO_REASON_GIVEN = (1, 1)
    APPLICATION_CONTEXT_NOT_SUPPORTED = (1, 2)
    CALLING_AE_TITLE_NOT_RECOGNIZED = (1, 3)
    CALLED_AE_TITLE_NOT_RECOGNIZED = (1, 7)
    PROVIDER_NO_REASON_GIVEN = (2, 1)
    PROTOCOL_VERSION_NOT_SUPPORTED = (2, 2)
    TEMPORARY_CONGESTION = (3, 1)
    LOCAL_LIMIT_EXCEEDED = (3, 2)

    @property
    def source(self) -> RejectSource:
        return RejectSource(self.value[0])

    @property
    def code(self) -> int:
        return self.value[1]


_ADVICE: dict[RejectReason, str] = {
    RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED: (
        "the peer does not know us as {calling!r}: have that AE title configured there, or call"
        " with one that it knows"
    ),
    RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED: (
        "the peer is not called {called!r}: check its AE title, which is case-sensitive"
    ),
    RejectReason.TEMPORARY_CONGESTION: "the peer is busy: try again later",
    RejectReason.LOCAL_LIMIT_EXCEEDED: (
        "the peer has as many associations as it takes: try again later, or with fewer at once"
    ),
}
_PERMANENT_LIMIT = (
    "the request, or the number of associations, is beyond what the peer takes: propose fewer"
    " presentation contexts, or have its limits looked at"
)
"""Advice where LOCAL_LIMIT_EXCEEDED is permanent."""


class AssociationError(DimseError):
    """An association could not be made, or is over.

    Attributes:
        partial: Where a C-FIND or C-GET was awaited and the association ended before its final
            response: the matches, or the files, that had come until then.
    """

    partial: tuple[object, ...] = ()

    def with_partial(self, partial: Iterable[object]) -> Self:
        """The same error for one operation, with what that had brought."""
        error = copy.copy(self)
        error.partial = tuple(partial)
        return error


class ConnectionFailed(AssociationError, OSError):
    """No transport connection: the name was not found, or nobody answered at the address."""


class AssociationRejected(AssociationError):
    """The peer answered A-ASSOCIATE-RJ (PS3.8 §9.3.4).

    Attributes:
        result: Permanent or transient; a plain `int` where the peer sent a number that is neither.
        source: Which part of the peer rejected, likewise.
        reason: The reason as `RejectReason`, or the `int` that the peer sent.
        is_transient: Whether trying again may help.
    """

    def __init__(self, result: int, source: int, reason: int, *, called: str, calling: str) -> None:
        self.result: RejectResult | int = result
        self.source: RejectSource | int = source
        self.reason: RejectReason | int = reason
        if result in _members(RejectResult):
            self.result = RejectResult(result)
        if source in _members(RejectSource):
            self.source = RejectSource(source)
        advice = ""
        for known in RejectReason:
            if known.value == (source, reason):
                self.reason = known
                advice = _ADVICE.get(known, "").format(called=called, calling=calling)
                if known is RejectReason.LOCAL_LIMIT_EXCEEDED and result == RejectResult.PERMANENT:
                    advice = _PERMANENT_LIMIT
        self.is_transient = result == RejectResult.TRANSIENT
        said = ", ".join(_words(part) for part in (self.result, self.source, self.reason))
        super().__init__(f"association rejected ({said})" + (f"; {advice}" if advice else ""))

    @classmethod
    def of(cls, reject: AssociateRJ, request: AssociateRQ) -> Self:
        """The error for the answer to a request."""
        called, calling = request.called_ae_title, request.calling_ae_title
        return cls(reject.result, reject.source, reject.reason, called=called, calling=calling)


class AssociationAborted(AssociationError, trio.BrokenResourceError):
    """The association was aborted by the peer, by this side, or with the connection.

    `source` and `reason` are those of the peer's A-ABORT, `None` where there was none.
    """

    def __init__(
        self, message: str, *, source: int | None = None, reason: int | None = None
    ) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason

    @classmethod
    def by_peer(cls, source: int, reason: int) -> AssociationAborted:
        """For an A-ABORT PDU that was received."""
        who = "the peer's application (service-user)"
        why = ""
        if source != AbortSource.SERVICE_USER:
            who = "the peer's protocol layer (service-provider)"
            known = {int(r): r.name.lower().replace("_", " ") for r in AbortReason}
            why = f": {known.get(reason, f'unknown reason {reason}')}"
        return cls(f"association aborted by {who}{why}", source=source, reason=reason)


class AssociationClosed(AssociationError, trio.ClosedResourceError):
    """The association has been released or closed; open another one."""

    def __str__(self) -> str:
        return f"{super().__str__()}; open another one"


class AssociationTimeout(AssociationError, trio.TooSlowError):
    """The peer took longer than `Timeouts` allows; the association was aborted."""


TRY_AGAIN = "the peer's log may say why; try again on another association"


def ended_by(event: object) -> AssociationError:
    """The error for an event that ends an association (or for one that has no place)."""
    match event:
        case Aborted(source=source, reason=reason):
            return AssociationAborted.by_peer(source, reason)
        case ProviderAborted(error=None) | None:
            return AssociationAborted(f"the connection was lost; {TRY_AGAIN}")
        case ProviderAborted(error=error) | Refused(error=error):
            aborted = AssociationAborted(f"aborted, because the peer broke the protocol: {error}")
            aborted.__cause__ = error
            return aborted
        case _:
            return AssociationClosed("the peer released the association")


class ContextNotAccepted(AssociationError):
    """No accepted presentation context fits what was asked for.

    The message says what was proposed, what the peer answered, and what to try.

    Attributes:
        negotiated: All that the peer answered, where it accepted none of the contexts at all, and
            so there is no association; else `None`.
    """

    def __init__(self, message: str, *, negotiated: Negotiated | None = None) -> None:
        super().__init__(message)
        self.negotiated = negotiated


class StatusError(DimseError):
    """A DIMSE failure status: received from a peer, or raised by a handler to send one.

    A handler raises `StatusError(Status.OUT_OF_RESOURCES, "disk full")`; the comment travels as
    Error Comment, of which the first 64 characters reach the peer (PS3.7 §C). The message of one
    that came from a peer has the counts of a C-GET or C-MOVE besides, and what to try.

    Attributes:
        status: The status.
        comment: The error comment, if there is one.
        response: The response message that carried it, when it came from a peer.
    """

    def __init__(
        self,
        status: int,
        comment: str | None = None,
        *,
        response: Response | None = None,
        request: Request | None = None,
    ) -> None:
        self.status = Status(status)
        self.comment = comment
        self.response = response
        said = ", ".join(filter(None, [comment, *_counts(response)]))
        meaning, advice = self.status.explained(_sop_class_of(request))
        if response is None:
            advice = ""
        elif isinstance(request, NGetRQ) and self.status in _NOT_OF_THE_CLASS:
            advice = _GOT_ELSEWHERE.get(request.requested_sop_class_uid or "", advice)
        message = f"{meaning} ({int(self.status):#06x})" + (f": {said}" if said else "")
        super().__init__(message + (f"; {advice}" if advice else ""))

    @classmethod
    def of(cls, response: Response, request: Request | None = None) -> StatusError:
        """For a final response with a failure status, and what it responds to."""
        return cls(response.status, response.error_comment, response=response, request=request)


class Reject(DimseError):
    """Raised by `handle_association` to reject an association (PS3.8 §9.3.4).

    A user identity is refused with `RejectReason.PROVIDER_NO_REASON_GIVEN` (PS3.7 §D.3.3.7.3).

    Raises:
        LocalProtocolError: `reason` or `result` is something else.
    """

    def __init__(
        self,
        reason: RejectReason = RejectReason.NO_REASON_GIVEN,
        result: RejectResult = RejectResult.PERMANENT,
    ) -> None:
        for given, kind in ((reason, RejectReason), (result, RejectResult)):
            if not isinstance(given, kind):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise LocalProtocolError(
                    f"Reject takes a {kind.__name__}, not {given!r}: {', '.join(kind.__members__)}"
                )
        super().__init__(f"{_words(result)}: {_words(reason)}")
        self.reason = reason
        self.result = result


class InvalidFile(DimseError, ValueError):
    """A file that cannot be sent: it is not DICOM, or lacks its File Meta Information."""


class DataSetError(DimseError, ValueError):
    """Bytes that are no data set of their transfer syntax, or a data set that cannot be encoded."""


class CharacterSetError(DataSetError):
    """A data set has text that its Specific Character Set has no characters for."""


class DataSetTooLarge(DimseError):
    """A peer's data set is longer than the limit for it."""


class QueryError(DimseError, ValueError):
    """A query that cannot be: an unknown keyword, level or model, or a value of no such form."""


class HandlerError(DimseError, TypeError):
    """A handler whose methods are not what their names say; found before serving begins."""


def _words(value: enum.Enum | int) -> str:
    if isinstance(value, enum.Enum):
        return value.name.lower().replace("_", " ")
    return f"unknown value {value}"


def _counts(response: Response | None) -> list[str]:
    """How far a C-GET or C-MOVE came, as far as the peer says."""
    if not isinstance(response, CGetRSP | CMoveRSP):
        return []
    counts = [(response.completed, "completed"), (response.failed, "failed")]
    if response.warning:
        counts.append((response.warning, "with warnings"))
    return [f"{count} {what}" for count, what in counts if count is not None]


def _sop_class_of(request: Request | None) -> str | None:
    """The SOP class that a request is of."""
    affected: str | None = getattr(request, "affected_sop_class_uid", None)
    requested: str | None = getattr(request, "requested_sop_class_uid", None)
    return affected or requested


_NOT_OF_THE_CLASS = (
    Status.NO_SUCH_SOP_CLASS,
    Status.SOP_CLASS_NOT_SUPPORTED,
    Status.UNRECOGNIZED_OPERATION,
)
_GOT_ELSEWHERE = {
    uid_of("ModalityPerformedProcedureStep"): (
        "it is ModalityPerformedProcedureStepRetrieve that has N-GET of performed procedure steps:"
        " n_get(uid_of('ModalityPerformedProcedureStepRetrieve'), …)"
    )
}
"""Advice for N-GET of a class that has none, by class (PS3.4 §F.7, §F.8)."""


def _members(kind: type[enum.IntEnum]) -> frozenset[int]:
    return frozenset(int(member) for member in kind)


def is_failure(error: BaseException) -> bool:
    """Whether an exception is somebody's failure, and not what ends a scope or the program.

    Some libraries derive theirs from `BaseException`.
    """
    ends = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)
    return not any(isinstance(leaf, ends) for leaf in leaves(error))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in an exception group, at any depth; of another exception, itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
            yield from leaves(inner)  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield error
