"""C-FIND as this side asks for it, and what C-GET and C-MOVE have in common with it.

They are objects to await, or to enter and iterate. Leaving the block before the final response, for
whatever reason, is C-CANCEL (PS3.7 §9.3.2.3):
`Association.cancel_invocation` sends it and drops what still comes. No generator is involved, so
nothing holds a cancel scope over a `yield`.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, final

from . import datasets
from .blocks import Entered
from .character_sets import set_character_set
from .contexts import context_for
from .errors import AssociationError, LocalProtocolError, StatusError
from .invocations import Invocation
from .protocol.messages import (
    CFindRQ,
    Request,
    Response,
)
from .queries import Model, Query
from .sources import BytesSource, DataSource

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
            await self._invoke(BytesSource(identifier))
        except BaseException:
            self._invocation = None
            raise
        return self

    async def _invoke(self, identifier: DataSource) -> None:
        await self._exchange.invoke(self._context, self._make, identifier, self._begin)

    def _begin(self, invocation: Invocation) -> None:
        self._invocation = invocation

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
