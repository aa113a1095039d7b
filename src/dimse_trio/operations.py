"""C-FIND, C-GET and C-MOVE as this side asks for them: objects to await, or to enter and iterate.

Leaving the block before the final response, for whatever reason, is C-CANCEL (PS3.7 §9.3.2.3):
`Association.cancel_invocation` sends it and drops what still comes. No generator is involved, so
nothing holds a cancel scope over a `yield`.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, final

import attrs
import trio

from . import datasets
from .blocks import Entered
from .character_sets import set_character_set
from .contexts import context_for
from .errors import AssociationError, LocalProtocolError, StatusError
from .invocations import Invocation
from .protocol.messages import (
    CFindRQ,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    Request,
    Response,
)
from .protocol.status import Status
from .queries import Model, Query
from .requests import StoreRequest
from .sources import BytesSource

if TYPE_CHECKING:
    from pydicom import Dataset

    from .exchange import Exchange

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

FIND_ADVICE = "write: for match in await association.find(…)"
FIND_USAGE = "async with association.find(…) as matches: async for match in matches"


class Awaited(Entered):
    """What does nothing until it is awaited or entered, and says so if that never happens.

    As with coroutines, the warning comes when the object is collected.
    """

    _method = _advice = ""
    _used = True  # until there is something to use

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                f"C-{self._method.upper()} was never awaited: nothing was sent; {self._advice}",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )

    def _refuse(self) -> NoReturn:
        self._used = True
        super()._refuse()

    if not TYPE_CHECKING:  # type checkers know that it is no iterable

        def __iter__(self):
            self._used = True
            raise TypeError(f"C-{self._method.upper()} is asynchronous; {self._advice}")


class Operation(Awaited, Generic[ItemT, ResultT]):
    """Common part of `FindOperation`, `GetOperation` and `MoveOperation`.

    `await operation` is the whole result; `async with operation as items: async for item in items:`
    is one item at a time. Leaving the block early, by `break`, exception or cancellation, cancels
    the operation: C-CANCEL, then `Timeouts.cancel_grace` for the peer to end it, then A-ABORT.

    Attributes:
        final: The final response, once it has come.
    """

    _service_index = 0

    def __init__(
        self, exchange: Exchange, what: Query | Dataset, model: str | None, *, check: bool
    ) -> None:
        if not isinstance(what, Query) and not hasattr(what, "iterall"):
            raise TypeError(
                f"{self._method} takes a query(…) or an identifier as a pydicom Dataset, not"
                f" {type(what).__name__}"
            )
        self._exchange = exchange
        self._identifier = what.identifier if isinstance(what, Query) else what
        self._context = context_for(exchange.link.negotiated, *self._models(what, model))
        self._check = check
        self._invocation: Invocation | None = None
        self._left = False
        self._used = False

    @property
    def final(self) -> Response | None:
        return None if self._invocation is None else self._invocation.final

    def _models(self, what: Query | Dataset, model: str | None) -> tuple[str, ...]:
        """The SOP classes that would do, best first."""
        if model is not None:
            return (model,)
        chosen = what.model if isinstance(what, Query) else None
        level = str(self._identifier.get("QueryRetrieveLevel", ""))
        if chosen is None:
            roots = [Model.STUDY_ROOT, Model.PATIENT_ROOT]
            if level == "PATIENT":
                roots.reverse()
        else:
            roots = [chosen]
        return tuple(root.value[self._service_index] for root in roots)

    def _make(self, message_id: int) -> Request:
        raise NotImplementedError

    async def _next(self, invocation: Invocation) -> ItemT | None:
        raise NotImplementedError

    async def _result(self) -> ResultT:
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, ResultT]:
        self._used = True
        return self._run().__await__()

    async def _run(self) -> ResultT:
        async with self:
            return await self._result()

    async def __aenter__(self) -> Self:
        self._used = True
        if self._invocation is not None:
            raise LocalProtocolError(
                "an operation can be used once; ask the association for another"
            )
        set_character_set(self._identifier)
        identifier = datasets.encode(self._identifier, self._context.transfer_syntax)
        try:
            await self._exchange.invoke(
                self._context, self._make, BytesSource(identifier), self._begin
            )
        except BaseException:
            self._invocation = None
            raise
        return self

    def _begin(self, invocation: Invocation) -> None:
        self._invocation = invocation

    @property
    def begun(self) -> bool:
        """Whether it has, or is just about to be, requested."""
        return self._invocation is not None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._invocation is not None
        self._left = True
        await self._exchange.cancel_invocation(self._invocation)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        self._used = True
        if self._invocation is None or self._left:
            raise LocalProtocolError(f"iterate inside the operation's block: {self._usage}: …")
        item = await self._next(self._invocation)
        if item is None:
            self._check_final()
            raise StopAsyncIteration
        return item

    def _check_final(self) -> None:
        made = self._invocation
        if self._check and made and made.final and made.final.status.is_failure:
            raise StatusError.of(made.final, made.request)


@final
class FindOperation(Operation["Dataset", "list[Dataset]"]):
    """A C-FIND: its items are the matching data sets (PS3.7 §9.1.2)."""

    _service_index = 0
    _method = "find"
    _advice = FIND_ADVICE
    _usage = FIND_USAGE

    def __init__(
        self,
        exchange: Exchange,
        what: Query | Dataset,
        model: str | None,
        *,
        character_set: str | None,
        check: bool,
    ) -> None:
        super().__init__(exchange, what, model, check=check)
        self._character_set = character_set

    def _make(self, message_id: int) -> Request:
        return CFindRQ(message_id=message_id, affected_sop_class_uid=self._context.abstract_syntax)

    async def _next(self, invocation: Invocation) -> Dataset | None:
        data = await invocation.inbox.get()
        if data is None:
            return None
        return datasets.decode(
            data, self._context.transfer_syntax, character_set=self._character_set
        )

    async def _result(self) -> list[Dataset]:
        matches: list[Dataset] = []
        try:
            async for match in self:
                matches.append(match)  # noqa: PERF401 - they are wanted if it fails, too
        except AssociationError as error:
            raise error.with_partial(matches) from error.__cause__
        return matches


@attrs.frozen
class RetrieveResult:
    """How a C-GET or C-MOVE ended.

    The counts are those of the final response, `None` where the peer left one out; `files` are the
    files that a C-GET with `save_to` wrote.
    """

    status: Status
    completed: int | None
    failed: int | None
    warning: int | None
    remaining: int | None
    failed_sop_instance_uids: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


class _Retrieve(Operation[ItemT, RetrieveResult]):
    _files: tuple[Path, ...] = ()

    async def _result(self) -> RetrieveResult:
        async for _ in self:
            pass
        return self.result

    @property
    def result(self) -> RetrieveResult:
        """The counts and failed UIDs.

        Raises:
            LocalProtocolError: The final response has not come.
        """
        final = self.final
        if not isinstance(final, CGetRSP | CMoveRSP) or self._invocation is None:
            raise LocalProtocolError("the final response has not come yet")
        data = self._invocation.final_data
        failed = datasets.failed_uids(data, self._context.transfer_syntax) if data else ()
        return RetrieveResult(
            final.status,
            final.completed,
            final.failed,
            final.warning,
            final.remaining,
            failed,
            self._files,
        )


@final
class MoveOperation(_Retrieve[CMoveRSP]):
    """A C-MOVE: its items are the pending responses; a slow reader sees the latest."""

    _service_index = 1
    _method = "move"
    _advice = "write: result = await association.move(…)"
    _usage = "async with association.move(…) as responses: async for response in responses"

    def __init__(
        self,
        exchange: Exchange,
        what: Query | Dataset,
        model: str | None,
        *,
        destination: str,
        check: bool,
    ) -> None:
        if not isinstance(destination, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"move's destination is an AE title, not {type(destination).__name__}")
        super().__init__(exchange, what, model, check=check)
        self._destination = destination

    def _make(self, message_id: int) -> Request:
        return CMoveRQ(
            message_id=message_id,
            affected_sop_class_uid=self._context.abstract_syntax,
            move_destination=self._destination,
        )

    async def _next(self, invocation: Invocation) -> CMoveRSP | None:
        if await invocation.inbox.get() is None:
            return None
        assert isinstance(invocation.pending, CMoveRSP)
        return invocation.pending


@final
class GetOperation(_Retrieve[StoreRequest]):
    """A C-GET: its items are the instances, as they arrive (PS3.7 §9.1.3).

    An instance is acknowledged when the loop comes back for the next one or the block is left in
    peace; by an exception or cancellation it is refused. With `save_to` the instances are written
    to `<SOP Instance UID>.dcm` in that folder instead, and there are no items.
    """

    _service_index = 2
    _method = "get"
    _usage = "async with association.get(…) as instances: async for instance in instances"
    _advice = f"write: await association.get(…, save_to=…), or {_usage}: …"

    def __init__(
        self,
        exchange: Exchange,
        what: Query | Dataset,
        model: str | None,
        *,
        save_to: Path | None,
        check: bool,
    ) -> None:
        super().__init__(exchange, what, model, check=check)
        self._folder = save_to
        self._unsaved: list[OSError] = []
        self._offered: list[_Offer] = []
        self._current: _Offer | None = None
        self._task: trio.lowlevel.Task | None = None

    def _make(self, message_id: int) -> Request:
        return CGetRQ(message_id=message_id, affected_sop_class_uid=self._context.abstract_syntax)

    async def __aenter__(self) -> Self:
        self._used = True
        self._exchange.retrieving(self, True)
        try:
            return await super().__aenter__()
        except BaseException:
            self._exchange.retrieving(self, False)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._settle(Status.SUCCESS if error is None else Status.OUT_OF_RESOURCES)
        self._left = True
        for offer in self._offered:
            offer.settle(Status.OUT_OF_RESOURCES)
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            self._exchange.retrieving(self, False)

    def holds(self, task: trio.lowlevel.Task) -> bool:
        """Whether the C-GET can only go on when that task comes back for the next instance."""
        return self._current is not None and self._task is task

    async def _result(self) -> RetrieveResult:
        if self._folder is None:
            raise LocalProtocolError(
                f"awaiting a C-GET needs save_to=…; to take the instances: {self._usage}: …"
            )
        try:
            async for _ in self:
                pass
        except AssociationError as error:
            raise error.with_partial(self._files) from error.__cause__
        return self.result

    def _check_final(self) -> None:
        if self._unsaved and self._check:
            raise self._unsaved[0]
        super()._check_final()

    async def _next(self, invocation: Invocation) -> StoreRequest | None:
        self._settle(Status.SUCCESS)
        while await invocation.inbox.get() is not None:
            if self._offered:
                self._current = self._offered.pop(0)
                self._task = trio.lowlevel.current_task()
                return self._current.request
        return None

    def _settle(self, status: Status) -> None:
        if self._current is not None:
            self._current.settle(status)
            self._current = None

    async def receive(self, request: StoreRequest) -> Status:
        """Take a sub-operation's instance, for its performance; the status is for the peer."""
        assert self._invocation is not None
        self._invocation.last_activity = trio.current_time()
        if self._left:
            return Status.OUT_OF_RESOURCES
        if self._folder is not None:
            path = self._folder / request.file_name
            try:
                await request.save_as(path)
            except OSError as error:
                self._unsaved.append(error)
                raise StatusError(Status.OUT_OF_RESOURCES, "cannot be saved") from error
            self._files += (path,)
            return Status.SUCCESS
        offer = _Offer(request)
        self._offered.append(offer)
        self._invocation.inbox.put(b"")
        await offer.settled.wait()
        return offer.status


class _Offer:
    """An instance of a C-GET between its performance and the task that iterates."""

    def __init__(self, request: StoreRequest) -> None:
        self.request = request
        self.settled = trio.Event()
        self.status = Status.SUCCESS

    def settle(self, status: Status) -> None:
        if not self.settled.is_set():
            self.status = status
            self.settled.set()
