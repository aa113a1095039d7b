"""The SCP's side of the services: one table from message to the function that performs it.

A `Performance` is one request of the peer on its way to the final response. Handler code runs in
`Performance.step`, inside a cancel scope that C-CANCEL cancels; responses are sent outside of it,
so that no response is cut. What a handler raises becomes a status, and the association lives on.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from . import datasets
from .contexts import contexts_for, split_instances
from .datasets import DataSetError
from .errors import (
    AssociationError,
    ContextNotAccepted,
    DataSetTooLarge,
    HandlerError,
    InvalidFile,
    StatusError,
    leaves,
)
from .handlers import method_of
from .incoming import IncomingDataSet
from .link import BytesSource
from .part10 import Instance, path_of
from .protocol.messages import (
    CEchoRQ,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    CStoreRQ,
    Request,
    Response,
)
from .protocol.negotiation import AcceptedContext, PresentationContext
from .protocol.status import Status, StatusCategory
from .requests import EchoRequest, FindRequest, GetRequest, MoveRequest, StoreRequest, is_uid

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association
    from .client import Destination

logger = logging.getLogger("dimse_trio")

T = TypeVar("T")

OpenSubAssociation = Callable[
    ["Destination", str, list[PresentationContext]], AbstractAsyncContextManager["Association"]
]


@attrs.frozen
class Environment:
    """What performances need beside their association.

    `handler` is `None` for a requestor that was given none: it then performs only the C-STOREs of
    its own C-GET.
    """

    handler: object | None = None
    accept_invalid_uids: bool = False
    resolve_destination: Callable[[str], Awaitable[Destination | None]] | None = None
    open_sub_association: OpenSubAssociation | None = None


class OperationCancelled(Exception):
    """A C-CANCEL came for the operation; the performance ends with 0xFE00."""


class Performance:
    """One request of the peer until its final response."""

    def __init__(
        self,
        association: Association,
        environment: Environment,
        context: AcceptedContext,
        request: Request,
        data: bytes | IncomingDataSet,
    ) -> None:
        self.association = association
        self.environment = environment
        self.context = context
        self.request = request
        self._data = data
        self._scope: trio.CancelScope | None = None
        self._cancelled = False
        self._abandoned = False

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
        """The association is over: cancel the handler, there is nobody to answer."""
        self._abandoned = True
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

    # -- responses -------------------------------------------------------------------------------

    async def respond(
        self, status: int, *, comment: str | None = None, data: bytes | None = None, **fields: Any
    ) -> None:
        """Send a response; pending or final is said by its status."""
        response = self._response(status, comment, fields)
        if not response.status.is_pending:
            self.association.answered(self)
        await self.association.send(
            self.context.context_id, response, None if data is None else BytesSource(data)
        )

    def _response(self, status: int, comment: str | None, fields: dict[str, Any]) -> Response:
        """The response to the request, its affected UIDs echoed as they came (PS3.7 §9.3)."""
        kind = type(self.request).response
        names = {field.name for field in attrs.fields(kind)}
        for name in ("sop_class_uid", "sop_instance_uid"):
            if f"affected_{name}" in names:
                value = getattr(self.request, f"affected_{name}", None) or getattr(
                    self.request, f"requested_{name}", None
                )
                if value is None and name == "sop_class_uid":
                    value = self.context.abstract_syntax
                fields.setdefault(f"affected_{name}", value)
        return kind(
            message_id_being_responded_to=self.request.message_id,
            status=Status(status),
            error_comment=None if comment is None else comment[:64],
            **fields,
        )

    # -- the way to the final response -----------------------------------------------------------

    async def run(self) -> None:
        """Perform the request: its function, or the status for whatever went wrong."""
        try:
            status, comment, fields = await self._outcome()
        finally:
            if isinstance(self._data, IncomingDataSet):
                self._data.inbox.discard()
        if self._abandoned:
            return
        if isinstance(self._data, IncomingDataSet):
            await self._data.wait_complete()
        data = fields.pop("data", None)
        await self.respond(status, comment=comment, data=data, **fields)

    async def _outcome(self) -> tuple[int, str | None, dict[str, Any]]:
        try:
            perform = _PERFORMERS.get(type(self.request))
            if perform is None:
                raise StatusError(Status.UNRECOGNIZED_OPERATION)
            result = await perform(self)
        except OperationCancelled:
            return Status.CANCEL, None, {}
        except Exception as error:
            return *self._status_of(error), {}
        if isinstance(result, Final):
            return result.status, None, result.fields
        return result, None, {}

    def _status_of(self, error: Exception) -> tuple[int, str | None]:
        """What an exception of a handler, or in its place, says to the peer."""
        for leaf in leaves(error):
            match leaf:
                case StatusError(status=status, comment=comment):
                    return status, comment
                case DataSetTooLarge():
                    return Status.OUT_OF_RESOURCES, str(leaf)
                case DataSetError() if isinstance(self.request, CStoreRQ):
                    return Status.CANNOT_UNDERSTAND, "data set cannot be read"
                case DataSetError():
                    return Status.DATA_SET_MISMATCH, "identifier cannot be read"
                case AssociationError() if self._abandoned:
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
            raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED)
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
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()


@attrs.frozen
class Final:
    """A final status with the response's other fields, and `data` for its data set."""

    status: int
    fields: dict[str, Any]


# -- the services --------------------------------------------------------------------------------


async def _perform_echo(performance: Performance) -> int:
    request = performance.request
    assert isinstance(request, CEchoRQ)
    method = performance.method("handle_echo")
    return _status(
        method,
        await performance.step(
            method, EchoRequest(performance.association, performance.context, request)
        ),
    )


async def _perform_store(performance: Performance) -> int:
    message = performance.request
    assert isinstance(message, CStoreRQ)
    request = StoreRequest(
        performance.association, performance.context, message, performance.data_set
    )
    if not performance.environment.accept_invalid_uids and not is_uid(request.sop_instance_uid):
        raise StatusError(Status.INVALID_SOP_INSTANCE, "SOP Instance UID is not a UID")
    operation = performance.association.storing_operation
    method = performance.method("handle_store") if operation is None else operation.receive
    return _status(method, await performance.step(method, request))


def _status(method: Callable[..., Any], returned: object) -> int:
    if isinstance(returned, int):
        return returned
    raise HandlerError(f"{method.__qualname__} returned {returned!r}; it must return a Status")


async def _perform_find(performance: Performance) -> int:
    message = performance.request
    assert isinstance(message, CFindRQ)
    request = FindRequest(
        performance.association, performance.context, performance.identifier, message=message
    )
    _ = request.identifier  # so that bytes that are none are answered before the handler runs
    method = performance.method("handle_find")
    syntax = performance.context.transfer_syntax

    async def respond(match: Dataset) -> None:
        await performance.respond(Status.PENDING, data=datasets.encode(match, syntax))

    await performance.each(method(request), respond)
    return Status.SUCCESS


@attrs.define
class SubOperations:
    """The counts of a C-GET or C-MOVE, and the instances that failed (PS3.4 §C.4.2, §C.4.3)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = attrs.field(factory=list[str])

    def count(self, uid: str, status: Status | None) -> None:
        """One sub-operation is over, with that status or, if it could not be done, `None`."""
        self.remaining -= 1
        category = StatusCategory.FAILURE if status is None else status.category
        if category is StatusCategory.SUCCESS:
            self.completed += 1
        elif category is StatusCategory.WARNING:
            self.warning += 1
        else:
            self.failed += 1
            self.failed_uids.append(uid)

    def counts(self, *, with_remaining: bool) -> dict[str, Any]:
        names = ["completed", "failed", "warning"] + ["remaining"] * with_remaining
        return {name: getattr(self, name) for name in names}

    @property
    def final_status(self) -> Status:
        """Of an operation that was not cancelled (PS3.4 Tables C.4-2 and C.4-3)."""
        if self.failed and not self.completed and not self.warning:
            return Status.OUT_OF_RESOURCES_SUB_OPERATIONS
        if self.failed or self.warning:
            return Status.SUB_OPERATIONS_WARNING
        return Status.SUCCESS

    def final(self, performance: Performance, *, cancelled: bool) -> Final:
        fields: dict[str, Any] = self.counts(with_remaining=cancelled)
        if self.failed_uids:
            from pydicom import Dataset

            identifier = Dataset()
            identifier.FailedSOPInstanceUIDList = self.failed_uids
            fields["data"] = datasets.encode(identifier, performance.context.transfer_syntax)
        return Final(Status.CANCEL if cancelled else self.final_status, fields)


async def _collect(performance: Performance, items: AsyncIterator[Any]) -> list[Any]:
    """What a handler yields to be sent, read as far as sending needs it."""
    instances: list[Any] = []

    async def take(item: Any) -> None:
        path = path_of(item)
        instances.append(item if path is None else Instance.from_file(path))

    await performance.each(items, take)
    return instances


def _uid_of(item: Any) -> str:
    return item.sop_instance_uid if isinstance(item, Instance) else str(item.get("SOPInstanceUID"))


async def _store_one(
    performance: Performance, association: Association, item: Any, **originator: Any
) -> Status | None:
    """One C-STORE sub-operation; `None` if it could not be performed, which is logged."""
    try:
        return (await association.store_as(item, check=False, **originator)).status
    except (ContextNotAccepted, InvalidFile, DataSetError, OSError) as error:
        logger.warning(
            "%r: sub-operation of %s failed: %s",
            performance.association,
            performance.request.name,
            error,
        )
        return None


async def _perform_get(performance: Performance) -> Final:
    message = performance.request
    assert isinstance(message, CGetRQ)
    request = GetRequest(
        performance.association, performance.context, performance.identifier, message=message
    )
    _ = request.identifier
    instances = await _collect(performance, performance.method("handle_get")(request))
    counts = SubOperations(len(instances))
    for item in instances:
        if performance.cancelled:
            return counts.final(performance, cancelled=True)
        status = await _store_one(performance, performance.association, item)
        counts.count(_uid_of(item), status)
        if counts.remaining:
            await performance.respond(Status.PENDING, **counts.counts(with_remaining=True))
    return counts.final(performance, cancelled=False)


async def _perform_move(performance: Performance) -> Final:
    message = performance.request
    assert isinstance(message, CMoveRQ)
    request = MoveRequest(
        performance.association, performance.context, performance.identifier, message=message
    )
    _ = request.identifier
    method = performance.method("handle_move")
    resolve = performance.environment.resolve_destination
    destination = None if resolve is None else await performance.step(resolve, request.destination)
    if destination is None:
        raise StatusError(
            Status.MOVE_DESTINATION_UNKNOWN, f"unknown destination {request.destination}"
        )
    instances = await _collect(performance, method(request))
    counts = SubOperations(len(instances))
    try:
        for group in split_instances(instances):
            await performance.step(_move_group, performance, destination, group, counts)
    except OperationCancelled:
        return counts.final(performance, cancelled=True)
    return counts.final(performance, cancelled=False)


async def _move_group(
    performance: Performance, destination: Destination, group: list[Any], counts: SubOperations
) -> None:
    """The sub-operations of one sub-association; if that fails, those left of them fail."""
    open_sub_association = performance.environment.open_sub_association
    assert open_sub_association is not None
    assert isinstance(performance.request, CMoveRQ)
    title = performance.request.move_destination or ""
    done = 0
    try:
        async with open_sub_association(destination, title, contexts_for(group)) as association:
            for item in group:
                status = await _store_one(
                    performance,
                    association,
                    item,
                    move_originator_ae_title=performance.association.peer_ae_title,
                    move_originator_message_id=performance.request.message_id,
                )
                counts.count(_uid_of(item), status)
                done += 1
                if counts.remaining:
                    with trio.CancelScope(shield=True):
                        await performance.respond(
                            Status.PENDING, **counts.counts(with_remaining=True)
                        )
    except AssociationError as error:
        logger.warning("%r: C-MOVE to %s: %s", performance.association, destination, error)
        for item in group[done:]:
            counts.count(_uid_of(item), None)


_PERFORMERS: dict[type[Request], Callable[[Performance], Awaitable[int | Final]]] = {
    CEchoRQ: _perform_echo,
    CStoreRQ: _perform_store,
    CFindRQ: _perform_find,
    CGetRQ: _perform_get,
    CMoveRQ: _perform_move,
}
