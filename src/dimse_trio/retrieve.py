"""C-GET and C-MOVE performed: sub-operations, their counts, pending responses, the final status.

The handler says which instances; everything else is done here (PS3.4 §C.4.2, §C.4.3).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio

from . import datasets
from .contexts import contexts_for, split_instances
from .errors import (
    AssociationError,
    ContextNotAccepted,
    DataSetError,
    HandlerError,
    InvalidFile,
    StatusError,
)
from .part10 import Instance, path_of
from .performance import Final, OperationCancelled, Performance
from .protocol.messages import CGetRQ, CMoveRQ
from .protocol.status import Status, StatusCategory
from .requests import GetRequest, MoveOriginator, MoveRequest
from .storing import Mismatch, OnMismatch, Replacement
from .transcoding import TranscodingError

if TYPE_CHECKING:
    from .association import Association
    from .client import Destination

logger = logging.getLogger("dimse_trio")


@attrs.define
class SubOperations:
    """The counts of a C-GET or C-MOVE, and the instances that failed (PS3.4 §C.4.2, §C.4.3)."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = attrs.field(factory=list[str])
    why: str | None = None
    """The first reason of this side for a failure, as the response's error comment."""

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
        return {name: min(getattr(self, name), 0xFFFF) for name in names}  # 16 bits each

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
        return Final(Status.CANCEL if cancelled else self.final_status, fields, self.why)


async def _collect(
    performance: Performance, method: Callable[..., AsyncIterator[Any]], request: Any
) -> tuple[list[Any], SubOperations]:
    """What a handler yields, read as far as sending needs it, and the counts to begin with.

    What cannot be sent at all is a sub-operation that has failed already.
    """
    instances: list[Any] = []
    unsendable = 0

    async def take(item: Any) -> None:
        nonlocal unsendable
        if path_of(item) is None and not (isinstance(item, Instance) or hasattr(item, "iterall")):
            raise HandlerError(
                f"{method.__qualname__} yielded a {type(item).__name__}; instances are paths,"
                " Instances or pydicom data sets, one at a time"
            )
        try:
            path = path_of(item)
            instance = item if path is None else Instance.from_file(path)
            _uid_of(instance)
        except (InvalidFile, DataSetError, OSError) as error:
            _log_failure(performance, error)
            unsendable += 1
        else:
            instances.append(instance)

    await performance.each(method(request), take)
    return instances, SubOperations(len(instances), failed=unsendable)


def _uid_of(item: Any) -> str:
    return item.sop_instance_uid if isinstance(item, Instance) else datasets.sop_uids(item)[1]


def _log_failure(performance: Performance, error: Exception) -> None:
    """Log why an instance was not sent, without the name of its file, which may be a patient's."""
    why = str(error)
    if isinstance(error, InvalidFile):
        why = "the file is none that can be sent"
    elif isinstance(error, OSError):
        why = f"the file cannot be read: {error.strerror or type(error).__name__}"
    logger.warning(
        "%r: sub-operation of %s failed: %s",
        performance.association,
        performance.request.name,
        why,
    )


async def _store_one(
    performance: Performance,
    association: Association,
    item: Any,
    counts: SubOperations,
    on_mismatch: OnMismatch,
    originator: MoveOriginator | None = None,
) -> Status | None:
    """One C-STORE sub-operation; `None` if it could not be performed, which is logged."""
    try:
        result = await association.store(
            item,
            check=False,
            move_originator=originator,
            on_mismatch=on_mismatch,
        )
        return result.status
    except (ContextNotAccepted, InvalidFile, DataSetError, OSError) as error:
        _log_failure(performance, error)
        if isinstance(error, ContextNotAccepted):
            counts.why = counts.why or "no presentation context for an instance"
        elif isinstance(error, TranscodingError):
            counts.why = counts.why or "an instance cannot be transcoded"
        return None


def _interruptible(performance: Performance) -> OnMismatch:
    """The policy for mismatches, where C-CANCEL can reach it; a C-STORE under way is not cut."""
    policy = performance.environment.on_mismatch
    if not callable(policy):
        return policy

    async def ask(mismatch: Mismatch) -> Replacement:
        async def answer() -> Replacement:
            given: Any = policy(mismatch)
            if inspect.isawaitable(given):
                given = await given
            return cast("Replacement", given)

        return await performance.step(answer)

    return ask


async def perform_get(performance: Performance) -> Final:
    """C-GET: the sub-operations go to the peer on the same association (PS3.4 §C.4.3)."""
    message = performance.request
    assert isinstance(message, CGetRQ)
    request = GetRequest(
        performance.association, performance.context, performance.identifier, message=message
    )
    await performance.step(request.prepare)
    instances, counts = await _collect(performance, performance.method("handle_get"), request)
    policy = _interruptible(performance)
    for item in instances:
        status: Status | None = None
        if not performance.cancelled:
            status = await _store_one(performance, performance.association, item, counts, policy)
        if status is None and performance.cancelled:
            return counts.final(performance, cancelled=True)
        counts.count(_uid_of(item), status)
        if counts.remaining:
            await performance.respond(Status.PENDING, **counts.counts(with_remaining=True))
    return counts.final(performance, cancelled=False)


async def perform_move(performance: Performance) -> Final:
    """C-MOVE: the sub-operations go to the destination on associations of their own."""
    message = performance.request
    assert isinstance(message, CMoveRQ)
    request = MoveRequest(
        performance.association, performance.context, performance.identifier, message=message
    )
    await performance.step(request.prepare)
    method = performance.method("handle_move")
    resolve = performance.environment.resolve_destination
    destination = None if resolve is None else await performance.step(resolve, request.destination)
    if destination is None:
        raise StatusError(
            Status.MOVE_DESTINATION_UNKNOWN, f"unknown destination {request.destination}"
        )
    instances, counts = await _collect(performance, method, request)
    try:
        transcode = performance.environment.on_mismatch != "error"
        for group in split_instances(instances, transcode=transcode):
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
    originator = MoveOriginator(
        performance.association.peer_ae_title, performance.request.message_id
    )
    contexts = contexts_for(group, transcode=performance.environment.on_mismatch != "error")
    done = 0
    try:
        async with open_sub_association(destination, title, contexts) as association:
            for item in group:
                status = await _store_one(
                    performance,
                    association,
                    item,
                    counts,
                    performance.environment.on_mismatch,
                    originator,
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
        counts.why = counts.why or f"{'lost the' if done else 'no'} association with {title}"
        for item in group[done:]:
            counts.count(_uid_of(item), None)
