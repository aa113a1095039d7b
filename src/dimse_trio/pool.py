"""Associations with one peer, opened as they are needed and kept for a while once they are idle.

Each lives in a keeper task, which holds its block open; who needs one leases it. An idle one may
have been closed by the peer in the meantime, which shows only when it is used: `Lease.fresh` says
whether that may be why it failed.

A peer may take fewer associations than the pool would have. Some reject what is one too many;
others leave the request unanswered until an association has ended. So an idle one that may be in
the way of a request is released, and how many the peer takes is remembered: from then on an idle
one is released before the request. If the peer does take more after all, that is noticed too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from enum import Enum, auto
from functools import partial
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

PATIENCE = 1.0
"""Seconds without an answer to a request after which an idle association may be in its way."""
MAX_PATIENCE = 5.0
"""The same, for a peer that is always slow to answer: twice what its quickest answer took, at most
this."""
SETTLING = 2.0
"""Seconds for which a peer may still count an association that has ended. dcmqrscp looks once a
second which of its processes have."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 0.5
"""Seconds until the first try to open another meanwhile; twice as long before each next."""

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


class _State(Enum):
    LEASED = auto()
    IDLE = auto()
    ENDING = auto()


@attrs.define(eq=False)
class _Kept:
    """An association with its keeper task."""

    association: Association
    contexts: frozenset[PresentationContext]
    stay: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Its block is left, with A-RELEASE, when this is cancelled; its deadline is the idle one's."""
    state: _State = _State.LEASED
    idle_until: float = inf
    ended: trio.Event = attrs.field(factory=trio.Event)
    """Set when its block has been left."""


class Pool:
    """See the module.

    Args:
        opener: Opens an association with these contexts.
        keepers: Where the keeper tasks run.
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
        self._users = 0
        """Leases that have begun: there is an association for them, or will be."""
        self._unused = trio.Event()
        """Set when it is closed and there are none left."""
        self._closed = self._broken_off = False
        self._getting: set[trio.CancelScope] = set()
        """Those of the leases that there is no association for yet."""
        self._idle_time = idle
        self._kept: list[_Kept] = []
        """What there is, in the order of their last use."""
        self._requested: list[float] = []
        """When those that are being opened were asked for."""
        self._limit = inf
        """As many as the peer takes, where that is known."""
        self._patience = MAX_PATIENCE
        self._turn = trio.Lock()
        """Held by who was rejected for now, until it is through: who comes later would else take
        each place that becomes free before."""
        self._last_end = -inf
        """When an association was last let go, or its end was complete."""

    @asynccontextmanager
    async def lease(self, contexts: Sequence[PresentationContext]) -> AsyncGenerator[Lease]:
        """An association whose contexts were proposed among others, for the time of the block.

        It is kept afterwards, unless the block is cancelled: then it is aborted, as what is still
        under way on it is not the next one's business.

        Raises:
            AssociationError: None can be opened, or the pool is broken off.
            LocalProtocolError: Every task that holds one waits for another, this one too.
        """
        self._users += 1
        try:
            async with AsyncExitStack() as place:
                kept, fresh = await self._get(place, contexts)
                usable = False
                try:
                    yield Lease(kept.association, fresh)
                    usable = True
                except Exception:  # an operation of it has failed, and so is over
                    usable = True
                    raise
                finally:
                    if usable and kept.association.is_open:
                        self._give_back(kept)
                    else:
                        kept.state = _State.ENDING
                        await kept.association.abort()
        finally:
            self._users -= 1
            if self._closed and not self._users:
                self._unused.set()

    async def _get(
        self, place: AsyncExitStack, contexts: Sequence[PresentationContext]
    ) -> tuple[_Kept, bool]:
        """An association for one of the places, and whether it was opened for it."""
        wanted = frozenset(contexts)
        with trio.CancelScope() as getting:
            self._getting.add(getting)
            if self._broken_off:
                getting.cancel()
            try:
                await place.enter_async_context(self._place())
                kept = self._take(wanted)
                return kept or await self._opened(wanted, contexts), kept is None
            finally:
                self._getting.remove(getting)
        raise AssociationAborted(
            "the block of associations was left by an exception or cancelled before this had one"
        )

    def _give_back(self, kept: _Kept) -> None:
        """It is idle, for as long as somebody may want it."""
        if self._closed and not self._waiting:
            self._let_go(kept)
            return
        self._kept.remove(kept)
        self._kept.append(kept)
        kept.state = _State.IDLE
        kept.idle_until = trio.current_time() + self._idle_time
        self._set_deadlines()

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
                # a place that has been handed on is held by nobody until its task runs
                all_held = self._holding.total() == self._size
                if all_held and self._holding.keys() <= self._waiting:
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

    def _take(self, wanted: frozenset[PresentationContext]) -> _Kept | None:
        """The idle association that was used last and has these contexts."""
        for kept in reversed(self._in(_State.IDLE)):
            expired = kept.stay.cancel_called
            if wanted <= kept.contexts and kept.association.is_open and not expired:
                kept.state = _State.LEASED
                kept.idle_until = kept.stay.deadline = inf
                self._set_deadlines()
                return kept
        return None

    def _in(self, *states: _State) -> list[_Kept]:
        return [kept for kept in self._kept if kept.state in states]

    # -- opening ---------------------------------------------------------------------------------

    async def _opened(
        self, wanted: frozenset[PresentationContext], contexts: Sequence[PresentationContext]
    ) -> _Kept:
        """A new association; where there are enough already, in the place of an idle one."""
        while self._is_full() and await self._one_has_ended():
            pass
        return await self.make_way(partial(self._keepers.start, self._keep, wanted, contexts))

    async def make_way(self, open_one: Callable[[], Awaitable[T]]) -> T:
        """Open an association, for the pool or not, while idle ones go if they may be in its way.

        Cancelled, it leaves nothing but what is being released.

        Raises:
            AssociationError: As `open_one`, with no idle association left to make way.
        """
        requested = trio.current_time()
        self._requested.append(requested)
        self._set_deadlines()
        pause = FIRST_PAUSE
        made_way = False
        turn = AsyncExitStack()
        try:
            if self._turn.locked():
                async with self._turn:  # after who was rejected, and beside all others
                    pass
            while True:
                try:
                    opened = await open_one()
                except (AssociationRejected, AssociationTimeout) as error:
                    if isinstance(error, AssociationRejected) and not error.is_transient:
                        raise
                    if self._turn.statistics().owner is not trio.lowlevel.current_task():
                        await turn.enter_async_context(self._turn)
                    made_way = True
                    if await self._one_has_ended():
                        continue
                    settled = trio.current_time() >= self._last_end + SETTLING
                    if settled or isinstance(error, AssociationTimeout):
                        raise
                    await trio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    self._learn(trio.current_time() - requested, made_way)
                    return opened
        finally:
            await turn.aclose()
            self._requested.remove(requested)
            self._set_deadlines()

    def _learn(self, took: float, made_way: bool) -> None:
        """What an association that has just been opened says about the peer.

        If it was overdue, and came as soon as an idle one had made way, there was no room for both.
        """
        since_end = trio.current_time() - self._last_end
        if made_way or (self._patience <= took - since_end and since_end < PATIENCE):
            self._limit = 1
        self._limit = max(self._limit, self._number_of_usable())
        self._patience = max(PATIENCE, min(self._patience, 2 * took))

    def _is_full(self) -> bool:
        """Whether another would be more than the peer takes, or than there may be."""
        number = len(self._kept)
        return number >= self._limit or number + len(self._requested) >= self._size

    async def _one_has_ended(self) -> bool:
        """Wait for the end of one that nobody uses, an idle one if need be; whether there is one.

        That takes no longer than an A-RELEASE may.
        """
        unused = self._in(_State.ENDING) or self._in(_State.IDLE)
        if not unused:
            return False
        if unused[0].state is _State.IDLE:
            self._let_go(unused[0])
        await unused[0].ended.wait()
        return True

    def _let_go(self, kept: _Kept) -> None:
        kept.state = _State.ENDING
        kept.stay.cancel()

    def _set_deadlines(self) -> None:
        """Say until when the idle ones stay; the first one less long if a request is overdue."""
        idle = self._in(_State.IDLE)
        for kept in idle:
            kept.stay.deadline = kept.idle_until
        if idle and self._requested:
            patience = 0 if self._number_of_usable() >= self._limit else self._patience
            overdue = max(min(self._requested), self._last_end) + patience
            idle[0].stay.deadline = min(idle[0].idle_until, overdue)

    def _number_of_usable(self) -> int:
        return sum(each.association.is_open for each in self._in(_State.LEASED, _State.IDLE))

    async def _keep(
        self,
        wanted: frozenset[PresentationContext],
        contexts: Sequence[PresentationContext],
        task_status: trio.TaskStatus[_Kept],
    ) -> None:
        """Open an association, and hold it open until it is idle for too long or not wanted."""
        kept: _Kept | None = None
        try:
            async with self._opener(contexts) as association:
                kept = _Kept(association, wanted)
                self._kept.append(kept)
                with kept.stay:
                    task_status.started(kept)
                    await trio.sleep_forever()
                kept.state = _State.ENDING
                self._note_an_end()
        except AssociationError:
            if kept is None:  # whoever wants it is told
                raise
        finally:
            if kept is not None:
                self._kept.remove(kept)
                self._note_an_end()
                kept.ended.set()

    def _note_an_end(self) -> None:
        self._last_end = trio.current_time()
        self._set_deadlines()

    # -- the end ---------------------------------------------------------------------------------

    async def close(self) -> None:
        """Wait for all leases, with those that wait for a place, and release what is idle.

        Raises:
            LocalProtocolError: One of the leases is this task's own.
        """
        if trio.lowlevel.current_task() in self._holding:
            raise LocalProtocolError(
                "this task is inside the block of an operation of the RemoteAE: leave it first"
            )
        self._closed = True
        if not self._waiting:
            self._let_go_idle()
        if self._users:
            await self._unused.wait()
        self._let_go_idle()

    def _let_go_idle(self) -> None:
        for kept in self._in(_State.IDLE):
            self._let_go(kept)

    def break_off(self) -> None:
        """Abort all associations; who waits for one is told that there will be none."""
        self._broken_off = True
        for getting in self._getting:
            getting.cancel()
        self._keepers.cancel_scope.cancel()


@asynccontextmanager
async def open_pool(opener: Opener, *, size: int, idle: float) -> AsyncGenerator[Pool]:
    """A `Pool` for the time of a block, whose end waits for the leases that were begun in it.

    Left by an exception or cancelled, then too, it breaks them off.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as keepers:
        pool = Pool(opener, keepers, size=size, idle=idle)
        try:
            yield pool
            await pool.close()
        except BaseException as error:  # raised again below, not wrapped in a group
            failure = error
            pool.break_off()
    if failure is not None:
        raise failure
