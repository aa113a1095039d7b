"""Storage commitment as its SCP gives it: asked for, looked into, reported (PS3.4 Annex J)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

import attrs
import trio

from .attributes import check_value
from .errors import AssociationError, DimseError, HandlerError, StatusError
from .handlers import EchoSCP
from .protocol.negotiation import PresentationContext
from .protocol.status import Status
from .references import (
    ALL_COMMITTED,
    REQUEST,
    SOME_FAILED,
    STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    FailedReference,
    FailureReason,
    InvalidReferences,
    SOPReference,
    aside,
    count_in,
    items_of,
    reference_items,
    referenced_in,
    uid_in,
)

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association
    from .normalized_requests import NActionRequest

logger = logging.getLogger("dimse_trio")


@attrs.frozen
class _Transaction:
    """A request that is being looked into."""

    uid: str
    references: tuple[SOPReference, ...]
    request: NActionRequest = attrs.field(repr=False)


class StorageCommitmentProvider(EchoSCP):
    """A handler, or a part of one, that takes responsibility for instances.

    A subclass says in `committed` whether an instance is safe here. The rest is done: the N-ACTION
    is answered, each instance is asked about once, and the report goes out on the same association
    while that is open, else on a new one to the AE that asked, whose address is in the listener's
    `peers` or found by the handler's `resolve_destination`. A report that cannot be delivered is
    logged and lost, as is one that is due when the listener stops: the SCU then asks again.

    C-ECHO is answered too. As a base class of a handler, it passes the actions of other SOP classes
    on to the next base, and the handler sets `normalized_sop_classes` to all that it is for;
    `Handlers` needs no such care.

    Attributes:
        report_retries: How often a report is tried again on a new association.
        report_pause: Seconds before the first of these tries; twice as long before each next.
        report_on_same_association: Whether the association of the request is used at all.
        max_transactions: How many may be looked into or wait to be reported; a request beyond them
            is answered 0x0213, Resource limitation.
    """

    normalized_sop_classes = frozenset((STORAGE_COMMITMENT,))
    report_retries: int = 3
    report_pause: float = 5.0
    report_on_same_association: bool = True
    max_transactions: int = 1000

    def check_ready(self) -> None:
        """Refuse a provider that would commit to nothing."""
        own = type(self).committed
        if own is StorageCommitmentProvider.committed or not iscoroutinefunction(own):
            raise HandlerError(
                f"{type(self).__name__} has to say in `async def committed(self, reference)` what"
                " is safe"
            )

    async def committed(self, reference: SOPReference, /) -> FailureReason | None:
        """Whether an instance is this side's to keep: `None`, or why it is not."""
        raise NotImplementedError

    def retrieve_ae_title(self, request: NActionRequest, /) -> str | None:
        """The AE title to retrieve committed instances from; `None` says nothing of it."""
        return None

    async def handle_n_action(self, request: NActionRequest, /) -> Any:
        """Take a request; what comes of it is reported later."""
        if request.sop_class_uid != STORAGE_COMMITMENT:
            other = getattr(super(), "handle_n_action", None)
            if other is None:
                raise StatusError(Status.NO_SUCH_SOP_CLASS)
            return await other(request)
        transaction = await aside(lambda: _transaction(request), count_in(request.information))
        if sum(self._in_use.values()) >= self.max_transactions:
            raise StatusError(Status.RESOURCE_LIMITATION, "too many transactions are waiting")
        request.start_beyond(self._settle, transaction)
        return Status.SUCCESS

    @property
    def _in_use(self) -> dict[str, int]:
        """Transactions that have not been reported; here, as __init__ need not be called."""
        in_use: dict[str, int] = self.__dict__.setdefault("_commitments_in_use", {})
        return in_use

    def _turn(self, peer: str) -> trio.Lock:
        """What is held while there is an association for a report to that AE: one at a time."""
        turns: WeakValueDictionary[str, trio.Lock]
        turns = self.__dict__.setdefault("_commitment_reporters", WeakValueDictionary())
        return turns.setdefault(peer, trio.Lock())

    async def _settle(self, transaction: _Transaction) -> None:
        """Look into a request and report, whatever becomes of either."""
        uid = transaction.uid
        duplicate = uid in self._in_use
        self._in_use[uid] = self._in_use.get(uid, 0) + 1
        try:
            await transaction.request.responded.wait()
            failed: list[FailedReference] = []
            for reference in transaction.references:
                reason: FailureReason | None = FailureReason.DUPLICATE_TRANSACTION_UID
                if not duplicate:
                    reason = await self._judge(reference)
                if reason is not None:
                    failed.append(FailedReference(reference, reason))
            await self._report(transaction, failed)
        except Exception as error:
            logger.error("storage commitment was not reported", exc_info=error)
        finally:
            self._in_use[uid] -= 1
            if not self._in_use[uid]:
                del self._in_use[uid]

    async def _judge(self, reference: SOPReference) -> FailureReason | None:
        try:
            reason: Any = await self.committed(reference)
            if reason is None or (type(reason) is not bool and reason in range(1, 1 << 16)):
                return cast("FailureReason | None", reason)
            raise HandlerError(f"it returned {reason!r}, neither None nor a FailureReason")
        except Exception as error:  # the subclass's: its other instances can still be judged
            logger.error("%s.committed failed", type(self).__name__, exc_info=error)
            return FailureReason.PROCESSING_FAILURE

    def _title_for(self, request: NActionRequest) -> str | None:
        """What `retrieve_ae_title` says; nothing if that fails, or is nothing to be sent."""
        try:
            if (title := self.retrieve_ae_title(request)) is not None:
                check_value("RetrieveAETitle", "AE", title)
            return title
        except Exception as error:  # the subclass's: what is committed is so in any case
            logger.error("%s.retrieve_ae_title failed", type(self).__name__, exc_info=error)
            return None

    async def _report(self, transaction: _Transaction, failed: Sequence[FailedReference]) -> None:
        """Send the report, on the association of the request or on one of its own."""
        request = transaction.request
        title = self._title_for(request)
        information = await aside(
            lambda: _information(transaction, failed, title), len(transaction.references)
        )
        event_type = SOME_FAILED if failed else ALL_COMMITTED
        peer = request.association.peer_ae_title
        if self.report_on_same_association and request.association.is_open:
            try:
                if await _send(request.association, event_type, information):
                    return
            except AssociationError as error:
                logger.info("%r: no report of storage commitment: %s", request.association, error)
        contexts = [PresentationContext(STORAGE_COMMITMENT, scp=True, scu=False)]
        turn = self._turn(peer)
        pause = self.report_pause
        for attempt in range(self.report_retries + 1):
            if attempt:
                await trio.sleep(pause)
                pause *= 2
            delivered: bool | None = None
            try:
                async with turn, request.associate_back(contexts) as association:
                    delivered = await _send(association, event_type, information)
            except DimseError as error:  # after the answer, it takes nothing back
                logger.info("reporting storage commitment to %s: %s", peer, error)
            except Exception as error:  # of resolve_destination, which may do better the next time
                logger.error("reporting storage commitment to %s failed", peer, exc_info=error)
            if delivered:
                return
            if delivered is False:
                break
        logger.warning("a report of storage commitment to %s could not be delivered", peer)


def _information(
    transaction: _Transaction, failed: Sequence[FailedReference], title: str | None
) -> Dataset:
    """What the report says."""
    from pydicom import Dataset

    failures = {failure.reference for failure in failed}
    committed = [each for each in transaction.references if each not in failures]
    information = Dataset()
    information.TransactionUID = transaction.uid
    if committed:
        information.ReferencedSOPSequence = reference_items(committed)
        if title is not None:
            information.RetrieveAETitle = title
    if failed:
        information.FailedSOPSequence = reference_items(failed)
    return information


async def _send(association: Association, event_type: int, information: Dataset) -> bool:
    """Whether the peer has taken the report."""
    result = await association.n_event_report(
        STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE, event_type, information, check=False
    )
    if result.status.is_failure:
        logger.info("%r: report of storage commitment answered %s", association, result.status)
    return not result.status.is_failure


def _transaction(request: NActionRequest) -> _Transaction:
    """What is asked for.

    Raises:
        StatusError: It is not asked for as it should be.
    """
    if request.sop_instance_uid != WELL_KNOWN_INSTANCE:
        raise StatusError(Status.NO_SUCH_SOP_INSTANCE)
    if request.action_type_id != REQUEST:
        raise StatusError(Status.NO_SUCH_ACTION)
    try:
        uid = uid_in(request.information, "TransactionUID")
        items = items_of(request.information, "ReferencedSOPSequence")
        references = dict.fromkeys(map(referenced_in, items))
    except InvalidReferences as error:
        raise StatusError(Status.INVALID_ARGUMENT_VALUE, str(error)) from error
    if not references:
        raise StatusError(Status.INVALID_ARGUMENT_VALUE, "no Referenced SOP Sequence")
    return _Transaction(uid, tuple(references), request)
