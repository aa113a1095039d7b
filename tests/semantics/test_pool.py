"""`Pool` with a peer in memory that takes few associations: what is released for what, and when."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import attrs
import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio.client import associate_over
from dimse_trio.pool import Pool, open_pool
from dimse_trio.protocol.pdus import Abort, ReleaseRP, ReleaseRQ
from dimse_trio.server import serve_stream
from dimse_trio.testing import ScriptedPeer
from remote.peers import CancelAfter

Contexts = Sequence[dimse.PresentationContext]

A, B, C = (
    [dimse.PresentationContext(dimse.uid_of(keyword))]
    for keyword in ("CTImageStorage", "MRImageStorage", "Verification")
)


@attrs.define(eq=False)
class Narrow:
    """Takes as many associations at a time as it has room for; the next ones wait.

    Or it rejects them, and counts those that have ended for some seconds more.
    """

    room: int
    rejects: bool = False
    counts_for: float = 0
    answers_after: float = 0
    accepted: int = 0
    rejected: int = 0
    present: int = 0
    waiting: trio.Condition = attrs.field(factory=trio.Condition)
    nursery: trio.Nursery = attrs.field(init=False)

    @asynccontextmanager
    async def handle_association(self, request: dimse.AssociationRequest) -> AsyncGenerator[None]:
        await trio.sleep(self.answers_after)
        if self.rejects and self.present >= self.room:
            self.rejected += 1
            raise dimse.Reject(
                dimse.RejectReason.LOCAL_LIMIT_EXCEEDED, dimse.RejectResult.TRANSIENT
            )
        async with self.waiting:
            while self.present >= self.room:
                await self.waiting.wait()
            self.present += 1
        self.accepted += 1
        try:
            yield
        finally:
            self.nursery.start_soon(self._forget)

    async def _forget(self) -> None:
        await trio.sleep(self.counts_for)
        async with self.waiting:
            self.present -= 1
            self.waiting.notify_all()

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    @asynccontextmanager
    async def opener(self, contexts: Contexts) -> AsyncGenerator[dimse.Association]:
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(serve_stream, self, theirs)
        async with associate_over(ours, contexts=contexts) as association:
            yield association

    @asynccontextmanager
    async def pool(self, size: int = 8, idle: float = 1000) -> AsyncGenerator[Pool]:
        """A pool of associations with it, of which nothing is left afterwards."""
        async with trio.open_nursery() as self.nursery:
            async with open_pool(self.opener, size=size, idle=idle) as pool:
                yield pool
        assert self.present == 0


async def seconds(pool: Pool, contexts: Contexts, use: float = 0) -> float:
    """How long it takes until there is an association, which is used for some more."""
    started = trio.current_time()
    async with pool.lease(contexts) as lease:
        took = trio.current_time() - started
        assert lease.association.is_open
        await trio.sleep(use)
    return round(took, 3)


async def test_an_unanswered_request_waits_a_second_for_an_idle_one_and_that_once_only(
    autojump_clock: object,
) -> None:
    peer = Narrow(room=1)
    async with peer.pool() as pool:
        assert [await seconds(pool, each) for each in (A, B, A, B, B)] == [0, 1, 0, 0, 0]
        assert peer.accepted == 4


async def test_the_one_that_was_used_least_recently_makes_way(autojump_clock: object) -> None:
    peer = Narrow(room=2)
    async with peer.pool() as pool:
        assert [await seconds(pool, each) for each in (A, B, A, C, A)] == [0, 0, 0, 1, 0]
        assert peer.accepted == 3


async def test_a_peer_that_is_always_slow_to_answer_keeps_its_associations(
    autojump_clock: object,
) -> None:
    peer = Narrow(room=8, answers_after=2)
    async with peer.pool() as pool:
        assert [await seconds(pool, each) for each in (A, B, A, B)] == [2, 2, 0, 0]
        assert peer.accepted == 2


async def test_one_in_use_makes_way_as_soon_as_it_is_idle(autojump_clock: object) -> None:
    took: list[float] = []
    peer = Narrow(room=1)
    async with peer.pool() as pool:

        async def wait_for(contexts: Contexts, use: float) -> None:
            took.append(await seconds(pool, contexts, use))

        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for, A, 3)
                await trio.sleep(0.5)
                nursery.start_soon(wait_for, B, 3)
        # the second time it is known at once that the first has to make way
        assert took == [0, 2.5, 0, 2.5]


async def test_a_request_that_is_answered_in_time_costs_no_idle_one(
    autojump_clock: object,
) -> None:
    peer = Narrow(room=8, answers_after=0.9)
    async with peer.pool() as pool, trio.open_nursery() as nursery:
        for each in (A, B, C, A):
            nursery.start_soon(seconds, pool, each)
        await trio.sleep(10)
        for each in (A, B, C, A):
            assert await seconds(pool, each) == 0
        assert peer.accepted == 4


async def test_that_a_peer_takes_more_after_all_is_noticed(autojump_clock: object) -> None:
    peer = Narrow(room=1)
    async with peer.pool() as pool:
        for each in (A, B):
            await seconds(pool, each)
        peer.room = 2
        async with pool.lease(A), pool.lease(B):
            pass
        accepted = peer.accepted
        for each in (A, B, A, B):
            assert await seconds(pool, each) == 0
        assert peer.accepted == accepted


async def test_a_rejection_has_an_idle_one_released_and_is_not_final(
    autojump_clock: object,
) -> None:
    peer = Narrow(room=1, rejects=True)
    async with peer.pool() as pool:
        assert [await seconds(pool, each) for each in (A, B, A, B)] == [0, 0, 0, 0]
        assert (peer.accepted, peer.rejected) == (4, 1)


@pytest.mark.parametrize("size", [1, 8])
async def test_a_peer_may_count_for_a_second_what_has_ended(
    autojump_clock: object, size: int
) -> None:
    peer = Narrow(room=1, rejects=True, counts_for=1)
    async with peer.pool(size) as pool:
        for each in (A, B, A):
            assert await seconds(pool, each) < 2


async def test_a_rejection_is_final_where_nothing_of_ours_is_in_the_way(
    autojump_clock: object,
) -> None:
    peer = Narrow(room=1, rejects=True)
    async with peer.pool() as pool, pool.lease(A):
        started = trio.current_time()
        with pytest.raises(dimse.AssociationRejected, match="local limit exceeded"):
            await seconds(pool, B)
        assert trio.current_time() == started
        assert peer.rejected == 1


async def test_with_all_that_may_be_one_has_ended_before_the_next_is_asked_for(
    autojump_clock: object,
) -> None:
    peer = Narrow(room=2, rejects=True)
    async with peer.pool(size=2) as pool:
        for each in (A, B, C, A, B, C):
            assert await seconds(pool, each) == 0
        assert (peer.accepted, peer.rejected) == (6, 0)


@pytest.mark.parametrize("size", [1, 2])
async def test_tasks_that_hold_one_at_a_time_wait_for_each_other(
    size: int, autojump_clock: object
) -> None:
    peer = Narrow(room=8)
    async with peer.pool(size=size) as pool:

        async def use() -> None:
            for _ in range(20):
                async with pool.lease(A) as lease:
                    await trio.lowlevel.checkpoint()
                    assert lease.association.is_open

        async with trio.open_nursery() as nursery:
            for _ in range(size + 4):
                nursery.start_soon(use)


async def test_who_was_rejected_first_is_served_before_who_comes_later(
    autojump_clock: object,
) -> None:
    peer = Narrow(room=1, rejects=True, counts_for=0.3)
    async with peer.pool() as pool, trio.open_nursery() as nursery:

        async def others() -> None:
            while True:
                with suppress(dimse.AssociationRejected):
                    await seconds(pool, A)
                await trio.sleep(0.05)

        for _ in range(4):
            nursery.start_soon(others)
        await trio.sleep(1)
        for _ in range(10):
            with trio.fail_after(5), suppress(dimse.AssociationRejected):
                await seconds(pool, B)
        nursery.cancel_scope.cancel()


async def test_who_was_not_rejected_does_not_wait_for_others_time_outs(
    autojump_clock: object,
) -> None:
    peer = Narrow(room=1)
    took: list[float] = []
    async with peer.pool() as pool:
        await seconds(pool, A)
        peer.room = 0  # from here on it answers nobody

        async def try_it(delay: float) -> None:
            await trio.sleep(delay)
            started = trio.current_time()
            with pytest.raises(dimse.AssociationTimeout):
                await seconds(pool, B)
            took.append(trio.current_time() - started)

        async with trio.open_nursery() as nursery:
            for delay in (0, 2, 2, 2, 2, 2):
                nursery.start_soon(try_it, delay)
        peer.room = 1
        async with peer.waiting:
            peer.waiting.notify_all()
    assert len(took) == 6
    assert max(took) <= 2 * dimse.Timeouts().associate + 5


@pytest.mark.parametrize(("rejects", "took"), [(False, 1), (True, 0)])
async def test_idle_ones_make_way_for_an_association_of_its_own_too(
    autojump_clock: object, rejects: bool, took: float
) -> None:
    peer = Narrow(room=1, rejects=rejects)
    async with peer.pool() as pool, AsyncExitStack() as stack:
        await seconds(pool, A)
        started = trio.current_time()
        own = await pool.make_way(lambda: stack.enter_async_context(peer.opener(B)))
        assert own.is_open
        assert trio.current_time() - started == took


@pytest.mark.parametrize("rejects", [False, True])
@pytest.mark.parametrize("size", [1, 8])
async def test_cancelled_at_any_step_a_lease_leaves_no_association(
    autojump_clock: object, size: int, rejects: bool
) -> None:
    steps = 0
    finished = False
    while not finished:
        steps += 1
        peer = Narrow(room=1, rejects=rejects, counts_for=0.5)
        async with peer.pool(size) as pool:
            await seconds(pool, A)
            with trio.CancelScope() as scope:
                instrument = CancelAfter(steps, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await seconds(pool, B)
                    await seconds(pool, A)
                    finished = True
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert await seconds(pool, C) < 3
    assert steps > 5


async def test_a_block_cancelled_at_any_step_of_its_end_leaves_nobody_waiting(
    autojump_clock: object,
) -> None:
    steps = 0
    finished = False
    while not finished:
        steps += 1
        peer = Narrow(room=8)
        ended: list[dimse.DimseError | None] = []

        async def call(
            pool: Pool, contexts: Contexts, ended: list[dimse.DimseError | None]
        ) -> None:
            try:
                await seconds(pool, contexts, use=1)
                ended.append(None)
            except dimse.DimseError as error:
                ended.append(error)

        async with trio.open_nursery() as peer.nursery:
            with trio.CancelScope() as scope:
                instrument = CancelAfter(steps, scope)
                try:
                    async with open_pool(peer.opener, size=2, idle=1000) as pool:
                        for each in (A, B, A, C, B):
                            peer.nursery.start_soon(call, pool, each, ended)
                        await trio.sleep(0.5)
                        trio.lowlevel.add_instrument(instrument)
                    finished = True
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert not finished or ended == [None] * 5
        assert len(ended) == 5
        assert peer.present == 0
    assert steps > 1


@pytest.mark.parametrize("used_for", [0, 5])
async def test_one_that_the_peer_has_released_while_it_was_used_is_in_nobodys_way(
    autojump_clock: object, used_for: float
) -> None:
    async with trio.open_nursery() as peers:

        @asynccontextmanager
        async def opener(contexts: Contexts) -> AsyncGenerator[dimse.Association]:
            ours, theirs = trio.testing.memory_stream_pair()
            peers.start_soon(accept_and_release, ScriptedPeer(theirs))
            async with associate_over(ours, contexts=contexts) as association:
                yield association

        async def accept_and_release(peer: ScriptedPeer) -> None:
            await peer.accept()
            await peer.send(ReleaseRQ())
            assert isinstance(await peer.receive(), ReleaseRP | Abort)
            await peer.expect_end()

        async with open_pool(opener, size=1, idle=1000) as pool:
            started = trio.current_time()
            for each in (A, B, C):
                async with pool.lease(each) as lease:
                    while lease.association.is_open:
                        await trio.lowlevel.checkpoint()
                    await trio.sleep(used_for)
            assert trio.current_time() - started <= 3 * (used_for + dimse.Timeouts().linger)
