"""Storage commitment as its SCU has it: asked for by N-ACTION, answered by an event (PS3.4 §J).

The report may come before the N-ACTION's response, after it, while the association is being
released, or on another association; the Transaction UID says what it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

import attrs
import trio

from .blocks import Entered
from .errors import (
    AssociationAborted,
    AssociationClosed,
    AssociationError,
    LocalProtocolError,
    StatusError,
)
from .handlers import EchoSCP
from .protocol.negotiation import PresentationContext
from .protocol.status import Status
from .protocol.uids import new_uid
from .references import (
    ALL_COMMITTED,
    REQUEST,
    SOME_FAILED,
    STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    FailedReference,
    InvalidReferences,
    Referable,
    SOPReference,
    aside,
    count_in,
    failure_in,
    items_of,
    reference_items,
    referenced_in,
    references_of,
)
from .requests import is_uid

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association
    from .exchange import Exchange
    from .normalized_requests import NEventReportRequest

REMEMBERED = 1000
"""Transactions that a listener has settled and would recognize if they were reported again."""


def commitment_contexts() -> list[PresentationContext]:
    """What to propose to a peer that is to commit to instances."""
    return [PresentationContext(STORAGE_COMMITMENT)]


@attrs.frozen
class CommitmentResult:
    """What a peer has committed to.

    An instance that the report does not name, or names with another SOP class, is `unreported`:
    it must not be taken for safe.

    Attributes:
        transaction_uid: The transaction.
        committed: The instances that are now the peer's to keep, of those that were asked about.
        failed: Those that are not, with reasons.
        unreported: Those that the peer said nothing about.
        retrieve_ae_title: Where the committed ones can be retrieved from, if the peer said so.
    """

    transaction_uid: str
    committed: tuple[SOPReference, ...]
    failed: tuple[FailedReference, ...]
    unreported: tuple[SOPReference, ...]
    retrieve_ae_title: str | None

    @property
    def complete(self) -> bool:
        """Whether the peer has committed to everything."""
        return not self.failed and not self.unreported


def _result(
    transaction_uid: str, asked: Sequence[SOPReference], information: Dataset
) -> CommitmentResult:
    """What a report says about the instances that were asked about.

    Raises:
        InvalidReferences: It does not say it as it should.
    """
    kept = set(map(referenced_in, items_of(information, "ReferencedSOPSequence")))
    failures = {
        failure.reference: failure
        for failure in map(failure_in, items_of(information, "FailedSOPSequence"))
    }
    kept.difference_update(failures)
    return CommitmentResult(
        transaction_uid,
        tuple(each for each in asked if each in kept),
        tuple(failures[each] for each in asked if each in failures),
        tuple(each for each in asked if each not in kept and each not in failures),
        str(information.get("RetrieveAETitle") or "").strip() or None,
    )


class CommitmentListener(EchoSCP):
    """A handler, or a part of one, for reports that come on associations of their own.

    Give it to `open_server`, under the AE title, host and port that the peer has for us, and as
    `listener` to `Association.commit`. One can serve any number of transactions. A report about a
    transaction that nobody awaits is answered 0x0115, Invalid argument value; one that comes again,
    as after a response that got lost, with success.

    C-ECHO is answered too. As a base class of a handler, it passes the events of other SOP classes
    on to the next base; `Handlers` needs no such care.
    """

    normalized_sop_classes = frozenset((STORAGE_COMMITMENT,))

    async def handle_n_event_report(self, request: NEventReportRequest, /) -> Any:
        """Take a report."""
        if request.sop_class_uid != STORAGE_COMMITMENT:
            other = getattr(super(), "handle_n_event_report", None)
            if other is None:
                raise StatusError(Status.NO_SUCH_SOP_CLASS)
            return await other(request)
        uid = str(request.information.get("TransactionUID") or "")
        if (commitment := self._awaited.get(uid)) is not None:
            return await commitment.take(request)
        if uid in self._settled:
            return Status.SUCCESS
        raise StatusError(Status.INVALID_ARGUMENT_VALUE, "no such transaction")

    # in __dict__, as the __init__ of a base class need not be called

    @property
    def _awaited(self) -> dict[str, Commitment]:
        awaited: dict[str, Commitment] = self.__dict__.setdefault("_commitments_awaited", {})
        return awaited

    @property
    def _settled(self) -> dict[str, None]:
        settled: dict[str, None] = self.__dict__.setdefault("_commitments_settled", {})
        return settled

    def expect(self, commitment: Commitment) -> None:
        """Await the report of a transaction; done by `Association.commit`.

        Raises:
            LocalProtocolError: It is awaited already.
        """
        if commitment.transaction_uid in self._awaited:
            raise _awaited_already(commitment)
        self._awaited[commitment.transaction_uid] = commitment

    def forget(self, commitment: Commitment) -> None:
        """Await it no more."""
        del self._awaited[commitment.transaction_uid]
        if commitment.settled:
            self._settled[commitment.transaction_uid] = None
            while len(self._settled) > REMEMBERED:
                del self._settled[next(iter(self._settled))]


def _awaited_already(commitment: Commitment) -> LocalProtocolError:
    return LocalProtocolError(
        f"transaction {commitment.transaction_uid} is awaited already: wait for that, or leave"
        " transaction_uid out"
    )


@final
class Commitment(Entered):
    """A transaction of storage commitment, while its block lasts. Made by `Association.commit`.

    Leaving the block stops waiting; the peer is not told, as there is no way to. The block may
    outlast the association's, in an `AsyncExitStack` that was opened around both.

    Attributes:
        transaction_uid: What the report is known by.
        references: The instances that are asked about, once the block is entered.
    """

    _usage = "async with association.commit(…) as commitment"

    def __init__(
        self,
        association: Association,
        exchange: Exchange,
        references: Iterable[Referable],
        transaction_uid: str | None,
        listener: CommitmentListener | None,
    ) -> None:
        if transaction_uid is not None and not is_uid(transaction_uid):
            raise LocalProtocolError(f"{transaction_uid!r} is no Transaction UID")
        if listener is not None and not isinstance(listener, CommitmentListener):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise LocalProtocolError(
                f"listener is a CommitmentListener(), which a server has, not {listener!r}"
            )
        self.transaction_uid = transaction_uid or new_uid()
        self.references: tuple[SOPReference, ...] = ()
        self._given = references
        self._association = association
        self._exchange = exchange
        self._listener = listener
        self._result: CommitmentResult | None = None
        self._changed = trio.Event()
        self._awaited = False

    def __repr__(self) -> str:
        state = "settled" if self.settled else "awaited"
        return f"<Commitment {self.transaction_uid} of {len(self.references)}, {state}>"

    @property
    def settled(self) -> bool:
        """Whether the report has come."""
        return self._result is not None

    async def __aenter__(self) -> Self:
        from pydicom import Dataset

        if self.references:
            raise LocalProtocolError("a Commitment is used once: call commit again")
        self.references = await references_of(self._given)
        information = Dataset()
        information.TransactionUID = self.transaction_uid
        information.ReferencedSOPSequence = await aside(
            lambda: reference_items(self.references), len(self.references)
        )
        exchange = self._exchange
        for taker in exchange.event_takers:
            other = getattr(taker, "__self__", None)
            if isinstance(other, Commitment) and other.transaction_uid == self.transaction_uid:
                raise _awaited_already(self)
        if self._listener is not None:
            self._listener.expect(self)
        exchange.event_takers.append(self._take_own)  # the report may overtake the response
        exchange.outlasting.append(self._tell)  # and the end of the association, too
        self._awaited = True
        try:
            await self._association.n_action(
                STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE, REQUEST, information
            )
        except BaseException as error:
            if self.settled and isinstance(error, AssociationError):
                return self  # who reports has taken the request, though it never said so
            self._stop()
            raise
        self._give_way()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._awaited = False
        self._changed.set()
        self._exchange.event_takers.remove(self._take_own)
        if self._listener is not None:
            self._listener.forget(self)
        self._give_way()

    def _give_way(self) -> None:
        """Let the end of the association cancel its block."""
        outlasting = self._exchange.outlasting
        outlasting[:] = [tell for tell in outlasting if tell != self._tell]
        self._exchange.on_outlasted()

    def _tell(self) -> None:
        self._changed.set()

    async def _take_own(self, request: NEventReportRequest) -> Status | None:
        """A report on the association itself, if it is this one's."""
        if request.sop_class_uid != STORAGE_COMMITMENT:
            return None
        uid = str(request.information.get("TransactionUID") or "")
        return await self.take(request) if uid == self.transaction_uid else None

    async def take(self, request: NEventReportRequest) -> Status:
        """Take the report; done by the listener, or on the association itself.

        Raises:
            StatusError: It is none; the wait goes on.
        """
        if request.event_type_id not in (ALL_COMMITTED, SOME_FAILED):
            raise StatusError(Status.NO_SUCH_EVENT_TYPE)
        try:
            result = await aside(
                lambda: _result(self.transaction_uid, self.references, request.information),
                len(self.references) + count_in(request.information),
            )
        except InvalidReferences as error:
            raise StatusError(Status.INVALID_ARGUMENT_VALUE, str(error)) from error
        if self._result is None:
            self._result = result
            self._changed.set()
        return Status.SUCCESS

    async def wait(self) -> CommitmentResult:
        """Wait for the report. How long is the caller's to say, with a cancel scope.

        With a listener, it waits on when the association ends. The association's block is then
        cancelled only when the wait is, or, once the report has come, when the commitment's block
        has been left. Cancelled, it may be called again.

        Raises:
            LocalProtocolError: The commitment's block has not been entered, or has been left
                without a report having come.
            AssociationAborted, AssociationClosed: There is no listener, and the association is over
                without a report having come.
        """
        exchange = self._exchange
        result: CommitmentResult | None = self._result
        if result is None:
            exchange.outlasting.append(self._tell)
            try:
                result = await self._wait()
            finally:
                early = result is None or exchange.end is None
                if early and self._tell in exchange.outlasting:
                    exchange.outlasting.remove(self._tell)
                    exchange.on_outlasted()
        if exchange.end is not None:
            exchange.told = True  # the end took nothing away
        return result  # pyright: ignore[reportReturnType] - there is one, or an exception

    async def _wait(self) -> CommitmentResult:
        exchange = self._exchange
        while self._result is None:
            if not self._awaited:
                raise LocalProtocolError("a commitment is waited for inside its block")
            if self._listener is None and exchange.end is not None:
                exchange.told = True
                aborted = isinstance(exchange.end, AssociationAborted)
                kind = AssociationAborted if aborted else AssociationClosed
                why = str(exchange.end).removesuffix("; open another one")
                raise kind(
                    f"{why}, and the report of storage commitment has not come; it may come on"
                    " another association, for which commit takes a listener"
                ) from exchange.end
            if self._changed.is_set():
                self._changed = trio.Event()
            await self._changed.wait()
        return self._result
