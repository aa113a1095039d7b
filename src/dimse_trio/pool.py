"""Associations with one peer, opened as they are needed and kept for a while once they are idle.

Each lives in a keeper task, which holds its block open; who needs one leases it. An idle one may
have been closed by the peer in the meantime, which shows only when it is used: `Lease.fresh` says
whether that may be why it failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import TypeVar

import attrs
import trio

from .association import Association
from .errors import (
    AssociationAborted,
    AssociationClosed,
    AssociationError,
    AssociationRejected,
    AssociationTimeout,
    ConnectionFailed,
    LocalProtocolError,
)
from .protocol.negotiation import PresentationContext

T = TypeVar("T")

Opener = Callable[[Sequence[PresentationContext]], AbstractAsyncContextManager[Association]]
"""Opens an association with these contexts."""


@attrs.frozen
class Lease:
    """An association for the time of a block, and whether it was opened for it."""

    association: Association
    fresh: bool


Lessor = Callable[[Sequence[PresentationContext]], AbstractAsyncContextManager[Lease]]
"""Gives an association whose contexts these are among."""


def worth_retrying(error: AssociationError) -> bool:
    """Whether it may go better the next time: a connection lost or refused, a peer that is busy.

    A peer that did not answer in time was given its time already.
    """
    if isinstance(error, AssociationRejected):
        return error.is_transient
    return isinstance(error, AssociationAborted | AssociationClosed | ConnectionFailed)


async def with_lease(
    lessor: Lessor,
    contexts: Sequence[PresentationContext],
    use: Callable[[Association], Awaitable[T]],
    *,
    retries: int = 0,
    pause: float = 0,
) -> T:
    """Do what may be done twice: again at once if an idle association turns out to be over.

    Beyond that, up to `retries` times if the association breaks or none can be opened, `pause`
    seconds later at first and after twice as long each next time.

    Raises:
        AssociationError: That of the last try.
    """
    tries = 0
    while True:
        lease: Lease | None = None
        try:
            async with lessor(contexts) as lease:
                return await use(lease.association)
        except AssociationError as error:
            stale = lease is not None and not lease.fresh
            if not worth_retrying(error) or (tries == retries and not stale):
                raise
        if not stale:
            await trio.sleep(pause * 2**tries)
            tries += 1


@attrs.define(eq=False)
class _Kept:
    """An association with its keeper task."""

    association: Association
    contexts: frozenset[PresentationContext]
    stay: trio.CancelScope
    """Its block is left, with A-RELEASE, when this is cancelled; its deadline is the idle one's."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    """Set when that is done."""


class Pool:
    """See the module.

    Args:
        opener: Opens an association with these contexts.
        keepers: Where the keeper tasks run; cancelling it aborts what is left.
        size: Most associations at a time.
        idle: Seconds after which an idle one is released.
    """

    def __init__(self, opener: Opener, keepers: trio.Nursery, *, size: int, idle: float) -> None:
        self._opener = opener
        self._keepers = keepers
        self._places = trio.Semaphore(size)
        self._size = size
        self._holding: Counter[trio.lowlevel.Task] = Counter()
        self._waiting: set[trio.lowlevel.Task] = set()
        self._closed = False
        self._idle_time = idle
        self._idle: list[_Kept] = []
        self._open = 0

    @asynccontextmanager
    async def lease(self, contexts: Sequence[PresentationContext]) -> AsyncGenerator[Lease]:
        """An association whose contexts were proposed among others, for the time of the block.

        It is kept afterwards, unless the block is cancelled: then it is aborted, as what is still
        under way on it is not the next one's business.

        Raises:
            AssociationError: None can be opened.
            LocalProtocolError: Every task that holds one waits for another, this one too.
        """
        wanted = frozenset(contexts)
        async with self._place():
            kept = self._take(wanted)
            fresh = kept is None
            if kept is None:
                kept = await self._opened(wanted, contexts)
            usable = False
            try:
                yield Lease(kept.association, fresh)
                usable = True
            except Exception:  # an operation of it has failed, and so is over
                usable = True
                raise
            finally:
                if usable and kept.association.is_open and self._closed:
                    kept.stay.cancel()
                elif usable and kept.association.is_open:
                    kept.stay.deadline = trio.current_time() + self._idle_time
                    self._idle.append(kept)
                else:
                    await kept.association.abort()

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[None]:
        """One of the places for an association, first come, first served."""
        await trio.lowlevel.checkpoint()
        task = trio.lowlevel.current_task()
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            self._waiting.add(task)
            try:
                if self._holding.keys() <= self._waiting:
                    raise LocalProtocolError(
                        f"all {self._size} associations are held by tasks that wait for another,"
                        " this one too: leave a block before the next operation, or give RemoteAE"
                        " more max_associations"
                    ) from None
                await self._places.acquire()
            finally:
                self._waiting.discard(task)
        self._holding[task] += 1
        try:
            yield
        finally:
            self._holding[task] -= 1
            if not self._holding[task]:
                del self._holding[task]
            self._places.release()

    async def _opened(
        self, wanted: frozenset[PresentationContext], contexts: Sequence[PresentationContext]
    ) -> _Kept:
        """A new association; if the peer has no room for one, in the place of an idle one."""
        if self._open >= self._size and self._idle:
            self._idle.pop(0).stay.cancel()
        while True:
            try:
                kept: _Kept = await self._keepers.start(self._keep, wanted, contexts)
            except (AssociationRejected, AssociationTimeout) as error:
                if not self._idle or not getattr(error, "is_transient", True):
                    raise
                given_up = self._idle.pop(0)
                given_up.stay.cancel()
                await given_up.ended.wait()
            else:
                return kept

    def _take(self, wanted: frozenset[PresentationContext]) -> _Kept | None:
        """The idle association that was used last and has these contexts."""
        for kept in reversed(self._idle):
            if wanted <= kept.contexts and kept.association.is_open:
                self._idle.remove(kept)
                kept.stay.deadline = inf
                return kept
        return None

    async def _keep(
        self,
        wanted: frozenset[PresentationContext],
        contexts: Sequence[PresentationContext],
        task_status: trio.TaskStatus[_Kept],
    ) -> None:
        """Open an association, and hold it open until it is idle for too long or not wanted."""
        kept: _Kept | None = None
        self._open += 1
        try:
            async with self._opener(contexts) as association:
                with trio.CancelScope() as stay:
                    kept = _Kept(association, wanted, stay)
                    task_status.started(kept)
                    await trio.sleep_forever()
        except AssociationError:
            if kept is None:  # whoever wants it is told
                raise
        finally:
            self._open -= 1
            if kept in self._idle:
                self._idle.remove(kept)
            if kept is not None:
                kept.ended.set()

    def close(self) -> None:
        """Release all that is idle, and what is leased as soon as it is not any more."""
        self._closed = True
        for kept in self._idle:
            kept.stay.cancel()
        self._idle.clear()
