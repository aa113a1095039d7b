"""One request of the peer on its way to its final response.

Handler code runs in `Performance.step`, inside a cancel scope that C-CANCEL cancels; responses are
sent outside of it, so that no response is cut. What a handler raises becomes a status, and the
association lives on. Which code performs which message is said in `services.py`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from math import inf
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import attrs
import trio

from .errors import (
    AssociationClosed,
    AssociationError,
    DataSetError,
    DataSetTooLarge,
    LocalProtocolError,
    StatusError,
    is_failure,
    leaves,
)
from .handlers import method_of
from .incoming import IncomingDataSet
from .invocations import Retrieval
from .protocol.messages import (
    MESSAGES,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    CStoreRQ,
    NEventReportRQ,
    Request,
    Response,
    encode_command,
)
from .protocol.negotiation import AcceptedContext, PresentationContext
from .protocol.status import Status
from .sources import BytesSource
from .storing import OnMismatch

if TYPE_CHECKING:
    from .association import Association
    from .client import Destination
    from .exchange import Exchange
    from .normalized_requests import NEventReportRequest

logger = logging.getLogger("dimse_trio")

T = TypeVar("T")

OpenSubAssociation = Callable[
    ["Destination", str, list[PresentationContext]], AbstractAsyncContextManager["Association"]
]


EventTaker = Callable[["NEventReportRequest"], Awaitable["Status | None"]]
"""Takes an event that something awaits, with the status for it; `None` if it is not the one."""


@attrs.frozen
class Environment:
    """What performances need beside their association.

    `handler` is `None` for a requestor that was given none: it then performs only the C-STOREs of
    its own C-GET. `nursery` is for tasks that may outlive the association; a requestor has none.
    """

    handler: object | None = None
    accept_invalid_uids: bool = False
    resolve_destination: Callable[[str], Awaitable[Destination | None]] | None = None
    open_sub_association: OpenSubAssociation | None = None
    on_mismatch: OnMismatch = "error"
    nursery: trio.Nursery | None = None


@attrs.frozen
class Final:
    """A final status with the response's other fields, and `data` for its data set."""

    status: int
    fields: dict[str, Any]
    comment: str | None = None


def is_final(status: object) -> TypeGuard[int]:
    """Whether a handler may end an operation with this: a status of 16 bits, and not pending.

    Nor `False`, which would be Success, or `True`.
    """
    if not isinstance(status, int) or isinstance(status, bool):
        return False
    return 0 <= status <= 0xFFFF and not Status(status).is_pending


_ECHOED = {
    kind: [
        (f"affected_{name}", f"requested_{name}")
        for name in ("sop_class_uid", "sop_instance_uid")
        if f"affected_{name}" in attrs.fields_dict(kind)
    ]
    for kind in MESSAGES.values()
    if issubclass(kind, Response)
}
"""Which attributes of a response repeat the request's, and what they are called there."""


class OperationCancelled(Exception):
    """A C-CANCEL came for the operation; the performance ends with 0xFE00."""


class Performance:
    """One request of the peer until its final response."""

    def __init__(
        self,
        exchange: Exchange,
        association: Association,
        environment: Environment,
        context: AcceptedContext,
        request: Request,
        data: bytes | IncomingDataSet,
        retrieval: Retrieval | None = None,
    ) -> None:
        self.exchange = exchange
        self.association = association
        self.environment = environment
        self.context = context
        self.request = request
        self.retrieval = retrieval
        """The C-GET of this side that was under way when the request came."""
        self._data = data
        self._scope: trio.CancelScope | None = None
        self._cancelled = False
        self._abandoned = False
        self._answered = False
        self._responded: trio.Event | None = None

    # -- cancellation ----------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """C-CANCEL: cancel the handler at work, now or in its next step."""
        if isinstance(self.request, CFindRQ | CGetRQ | CMoveRQ):
            self._cancelled = True
            if self._scope is not None:
                self._scope.cancel()

    def abandon(self, error: BaseException) -> None:
        """The association is over: cancel the handler, there is nobody to answer.

        An event that came while the association was being released is still seen to its end.
        """
        self._abandoned = True
        if isinstance(self.request, NEventReportRQ) and isinstance(error, AssociationClosed):
            return
        if isinstance(self._data, IncomingDataSet):
            self._data.inbox.fail(error)
        if self._scope is not None:
            self._scope.cancel()

    async def step(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await a piece of handler code that C-CANCEL and the end of the association cancel.

        Raises:
            OperationCancelled: One of them did.
        """
        with trio.CancelScope() as scope:
            self._scope = scope
            if self._cancelled or self._abandoned:
                scope.cancel()
            try:
                return await function(*args)
            finally:
                self._scope = None
        raise OperationCancelled

    @property
    def responded(self) -> trio.Event:
        """Set when the final response has been sent, or cannot be."""
        if self._responded is None:
            self._responded = trio.Event()
        return self._responded

    # -- responses -------------------------------------------------------------------------------

    async def respond(
        self, status: int, *, comment: str | None = None, data: bytes | None = None, **fields: Any
    ) -> None:
        """Send a response; pending or final is said by its status."""
        response = self._response(status, comment, fields)
        if not response.status.is_pending:
            self._answered = True
            self.exchange.answered(self)
        await self.exchange.send(
            self.context.context_id, response, None if data is None else BytesSource(data)
        )

    def _response(self, status: int, comment: str | None, fields: dict[str, Any]) -> Response:
        """The response to the request, its affected UIDs echoed as they came (PS3.7 §9.3)."""
        request = self.request
        kind = type(request).response
        for affected, requested in _ECHOED[kind]:
            if affected not in fields:
                value = getattr(request, affected, None) or getattr(request, requested, None)
                if value is None and affected == "affected_sop_class_uid":
                    value = self.context.abstract_syntax
                fields[affected] = value
        return kind(
            message_id_being_responded_to=self.request.message_id,
            status=Status(status),
            error_comment=None if comment is None else comment.replace("\\", "/")[:64],
            **fields,
        )

    # -- the way to the final response -----------------------------------------------------------

    async def run(self, perform: Performer | None) -> None:
        """Perform the request: its function, or the status for whatever went wrong."""
        if (observer := self.exchange.link.observer) is not None:
            observer.performing(self.request.message_id)
        try:
            status, comment, fields = await self._outcome(perform)
            if self._abandoned:
                return
            if isinstance(self._data, IncomingDataSet):
                self._data.inbox.discard()
                await self._data.wait_complete()
            data = fields.pop("data", None)
            await self.respond(status, comment=comment, data=data, **fields)
        finally:
            if isinstance(self._data, IncomingDataSet):
                self._data.inbox.discard()
            if self._responded is not None:
                self._responded.set()

    async def give_up(self) -> None:
        """End what was cancelled with the whole association, which leaves it without an answer.

        The peer might wait for that before it answers what is undone in shielded blocks, so it is
        aborted; an event is answered, as taking none does not keep it from anything.
        """
        if not isinstance(self.request, NEventReportRQ):
            await self.exchange.abort()
        elif not self._answered:
            linger = self.exchange.link.timeouts.linger
            with trio.move_on_after(linger, shield=True), suppress(AssociationError):
                await self.respond(Status.PROCESSING_FAILURE)

    async def _outcome(self, perform: Performer | None) -> tuple[int, str | None, dict[str, Any]]:
        try:
            if perform is None:
                raise StatusError(Status.UNRECOGNIZED_OPERATION)
            result = await perform(self)
        except OperationCancelled:
            return Status.CANCEL, None, self._no_counts()
        except trio.Cancelled as error:
            if trio.current_effective_deadline() == -inf:
                raise
            return *self._status_of(error), {}  # an old one, which the handler had kept
        except BaseException as error:
            if not is_failure(error):
                raise
            return *self._status_of(error), {}
        if not isinstance(result, Final):
            return result, None, {}
        try:
            fields = {name: value for name, value in result.fields.items() if name != "data"}
            encode_command(self._response(result.status, result.comment, fields), has_data_set=True)
        except Exception as error:  # what the handler gave has no place in the message
            return *self._status_of(error), {}
        return result.status, result.comment, result.fields

    def _no_counts(self) -> dict[str, Any]:
        """The counts of a retrieve that was cancelled before its first sub-operation."""
        if not isinstance(self.request, CGetRQ | CMoveRQ):
            return {}
        return dict.fromkeys(("remaining", "completed", "failed", "warning"), 0)

    def _status_of(self, error: BaseException) -> tuple[int, str | None]:
        """What an exception of a handler, or in its place, says to the peer."""
        for leaf in leaves(error):
            match leaf:
                case StatusError(status=status, comment=comment) if is_final(status):
                    return status, comment
                case DataSetTooLarge():
                    return Status.OUT_OF_RESOURCES, str(leaf)
                case DataSetError() if isinstance(self.request, CStoreRQ):
                    return Status.CANNOT_UNDERSTAND, "data set cannot be read"
                case DataSetError() if self.request.normalized:
                    return Status.PROCESSING_FAILURE, "data set cannot be read"
                case DataSetError():
                    return Status.DATA_SET_MISMATCH, "identifier cannot be read"
                case AssociationError() | LocalProtocolError() if (
                    self._abandoned or not self.association.is_open
                ):
                    return Status.CANCEL, None
                case _:
                    pass
        logger.error(
            "%r: handler failed in %s", self.association, self.request.name, exc_info=error
        )
        return Status.PROCESSING_FAILURE, None

    def method(self, name: str) -> Callable[..., Any]:
        """The handler's method of that name, or the status that says that there is none."""
        handler = self.environment.handler
        method = None if handler is None else method_of(handler, name)
        if method is None:
            normalized = self.request.normalized
            raise StatusError(
                Status.UNRECOGNIZED_OPERATION if normalized else Status.SOP_CLASS_NOT_SUPPORTED
            )
        return method

    @property
    def identifier(self) -> bytes:
        assert isinstance(self._data, bytes)
        return self._data

    @property
    def data_set(self) -> IncomingDataSet:
        assert isinstance(self._data, IncomingDataSet)
        return self._data

    async def each(self, items: AsyncIterator[T], then: Callable[[T], Awaitable[None]]) -> None:
        """Take a handler's items one by one; the handler is cancelled only where it works."""
        try:
            while True:
                try:
                    item = await self.step(anext, items)
                except StopAsyncIteration:
                    return
                if self._cancelled:  # the handler did not come by a checkpoint
                    raise OperationCancelled
                await then(item)
                # a handler that has its items at hand and a peer that reads as fast never wait
                await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()


Performer = Callable[[Performance], Awaitable["int | Final"]]
"""Performs one kind of request: handler code in, final status out."""
