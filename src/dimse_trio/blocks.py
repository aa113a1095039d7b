"""What is used by `async with`, and says so to whoever writes something else.

Without this, who forgets the `async` or the block is told about generators, which is no help.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar, final

P = ParamSpec("P")
T = TypeVar("T")


class Entered:
    """What does nothing until it is entered: awaiting it, or a plain `with`, says what to write."""

    _usage = ""
    """The statement that it is for, such as "async with open_server(…) as server"."""

    def _refuse(self) -> NoReturn:
        raise TypeError(f"this is for async with; write: {self._usage}: …")

    if not TYPE_CHECKING:  # type checkers know that it can do nothing of this

        def __await__(self):
            self._refuse()

        def __enter__(self):
            self._refuse()

        def __exit__(self, *exception):
            """Without it, `with` would not get as far as `__enter__`."""


@final
class Block(Entered, AbstractAsyncContextManager[T]):
    """What a function that `block` decorates returns."""

    def __init__(self, manager: AbstractAsyncContextManager[T], usage: str) -> None:
        self._manager = manager
        self._usage = usage

    async def __aenter__(self) -> T:
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            raise AttributeError(
                f"{name} is there once the block is entered; write: {self._usage}: …"
            )


def block(
    usage: str,
) -> Callable[[Callable[P, AsyncGenerator[T]]], Callable[P, AbstractAsyncContextManager[T]]]:
    """As `contextlib.asynccontextmanager`, for what users call.

    Args:
        usage: What to write after "async with", such as "open_server(…) as server".
    """

    def decorate(
        function: Callable[P, AsyncGenerator[T]],
    ) -> Callable[P, AbstractAsyncContextManager[T]]:
        manager = asynccontextmanager(function)

        @wraps(manager)  # which the documentation tools know
        def make(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
            return Block(manager(*args, **kwargs), f"async with {usage}")

        return make

    return decorate
