"""A C-FIND of a `RemoteAE`, with an association that is there for as long as the operation is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from .association import Association
from .errors import LocalProtocolError
from .operations import FIND_ADVICE, FIND_USAGE, Awaited, FindOperation
from .pool import Lessor, with_lease
from .protocol.negotiation import PresentationContext

if TYPE_CHECKING:
    from pydicom import Dataset


@final
class RemoteFind(Awaited):
    """A C-FIND of a `RemoteAE`: `await` it, or `async with` it and iterate over the matches.

    As `FindOperation`, with an association that is there for as long as the operation is.
    """

    _method = "find"
    _advice = FIND_ADVICE.replace("association", "pacs")
    _usage = FIND_USAGE.replace("association", "pacs")

    def __init__(
        self,
        lease: Lessor,
        contexts: Sequence[PresentationContext],
        ask: Callable[[Association], FindOperation],
    ) -> None:
        self._lease = lease
        self._contexts = contexts
        self._ask = ask
        self._block: AsyncExitStack | None = None
        self._used = False

    def __await__(self) -> Generator[Any, Any, list[Dataset]]:
        self._used = True
        return self._run().__await__()

    async def _run(self) -> list[Dataset]:
        async def use(association: Association) -> list[Dataset]:
            return await self._ask(association)

        return await with_lease(self._lease, self._contexts, use)

    async def __aenter__(self) -> FindOperation:
        self._used = True
        async with AsyncExitStack() as stack:
            lease = await stack.enter_async_context(self._lease(self._contexts))
            operation = await stack.enter_async_context(self._ask(lease.association))
            self._block = stack.pop_all()
        return operation

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._block is not None
        await self._block.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        self._used = True
        raise LocalProtocolError(f"iterate inside the operation's block: {self._usage}: …")
