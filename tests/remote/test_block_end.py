"""The end of a `RemoteAE`'s block while other tasks use it: what is under way, and who waits."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

import attrs
import pytest
import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.association import Association
from dimse_trio.client import associate_over
from dimse_trio.pool import open_pool

from .peers import CT, Taker, instance, remote, until


@attrs.define
class Gated(Taker):
    """Answers echoes, finds and stores when it is let."""

    gate: trio.Event = attrs.field(factory=trio.Event)
    inside: int = 0
    most_inside: int = 0

    async def passage(self) -> None:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        await self.passage()
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncGenerator[Dataset]:
        await self.passage()
        yield request.identifier

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        await self.passage()
        return await super().handle_store(request)


@attrs.define
class Calls:
    """Calls in tasks of their own, and how they ended."""

    peer: dimse.RemoteAE
    results: list[object] = attrs.field(factory=list)
    begun: int = 0

    async def echo(self) -> None:
        await self._call(self.peer.echo)

    async def find(self) -> None:
        await self._call(self.peer.find_studies)

    async def store(self) -> None:
        async def store() -> object:
            [outcome] = await self.peer.store(instance("1.2.3"))
            return outcome

        await self._call(store)

    async def _call(self, call: object) -> None:
        self.begun += 1
        assert callable(call)
        try:
            self.results.append(await call())
        except dimse.DimseError as error:
            self.results.append(error)

    @property
    def failures(self) -> list[object]:
        return [result for result in self.results if isinstance(result, Exception)]


class LeftBy(Exception):
    pass


@pytest.mark.parametrize("size", [1, 2])
async def test_calls_under_way_or_waiting_when_the_block_ends_are_done_within_the_limit(
    size: int,
) -> None:
    handler = Gated()
    with trio.fail_after(20):
        async with dimse.open_server(handler) as server, trio.open_nursery() as nursery:
            calls = Calls(remote(server.port, max_associations=size))

            async def let_in() -> None:
                await trio.testing.wait_all_tasks_blocked(0.05)  # the block is being left
                assert calls.results == []
                handler.gate.set()

            async with calls.peer:
                for call in (calls.echo, calls.find, calls.store, calls.echo):
                    nursery.start_soon(call)
                await until(lambda: handler.inside == size and calls.begun == 4)
                nursery.start_soon(let_in)
            assert len(calls.results) == 4
            assert calls.failures == []
            assert handler.most_inside <= size
            await until(lambda: server.statistics().associations_open == 0)


async def test_the_block_does_not_wait_for_calls_that_are_made_after_it() -> None:
    handler = Gated()
    with trio.fail_after(20):
        async with dimse.open_server(handler) as server, trio.open_nursery() as nursery:
            peer = remote(server.port, max_associations=1)
            calls = Calls(peer)
            left = trio.Event()

            async def use() -> None:
                async with peer:
                    nursery.start_soon(calls.echo)
                    await until(lambda: handler.inside == 1)
                left.set()

            nursery.start_soon(use)
            await until(lambda: handler.inside == 1)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.start_soon(calls.echo)  # on an association of its own
            await until(lambda: handler.inside == 2)
            assert not left.is_set()
            handler.gate.set()
            await left.wait()
            assert calls.failures == []


@pytest.mark.parametrize("how", ["exception", "cancellation", "cancellation as it ends"])
async def test_a_block_that_is_broken_off_ends_calls_under_way_and_waiting_with_our_error(
    how: str,
) -> None:
    handler = Gated()
    with trio.fail_after(20):
        async with dimse.open_server(handler) as server, trio.open_nursery() as nursery:
            peer = remote(server.port, max_associations=2)
            calls = Calls(peer)
            scope = trio.CancelScope()

            async def break_off() -> None:
                await trio.testing.wait_all_tasks_blocked(0.05)
                scope.cancel()

            with scope:
                with pytest.raises(LeftBy) if how == "exception" else nullcontext():
                    async with peer:
                        for _ in range(2):
                            nursery.start_soon(calls.echo)
                        await until(lambda: handler.inside == 2)
                        for _ in range(3):
                            nursery.start_soon(calls.find)
                        await until(lambda: calls.begun == 5)
                        if how == "exception":
                            raise LeftBy
                        nursery.start_soon(break_off)
                        if how == "cancellation":
                            await trio.sleep_forever()
            await until(lambda: len(calls.results) == 5)
            assert all(isinstance(each, dimse.AssociationAborted) for each in calls.results)
            assert handler.most_inside == 2
            await until(lambda: server.statistics().associations_open == 0)
            handler.gate.set()
            assert (await peer.echo()).status == dimse.Status.SUCCESS
            async with peer:
                assert (await peer.echo()).status == dimse.Status.SUCCESS


async def test_a_store_whose_block_is_broken_off_goes_on_with_an_association_of_its_own() -> None:
    handler = Gated()
    with trio.fail_after(20):
        async with dimse.open_server(handler) as server, trio.open_nursery() as nursery:
            calls = Calls(remote(server.port, max_associations=1))
            with pytest.raises(LeftBy):
                async with calls.peer:
                    nursery.start_soon(calls.store)
                    await until(lambda: handler.inside == 1)
                    nursery.start_soon(calls.store)
                    await until(lambda: calls.begun == 2)
                    raise LeftBy
            handler.gate.set()
            await until(lambda: len(calls.results) == 2)
            for outcome in calls.results:
                assert isinstance(outcome, dimse.StoreOutcome)
                assert outcome.status == dimse.Status.SUCCESS


async def test_a_block_that_is_broken_off_does_not_wait_for_one_that_is_being_opened(
    autojump_clock: object,
) -> None:
    """The peer has taken the connection, and answers nothing."""
    async with trio.open_nursery() as nursery:
        ours, _theirs = trio.testing.memory_stream_pair()

        @asynccontextmanager
        async def opener(contexts: object) -> AsyncGenerator[Association]:
            async with associate_over(ours) as association:
                yield association

        async def call() -> None:
            with pytest.raises(dimse.AssociationAborted, match="was left"):
                async with pool.lease([dimse.PresentationContext(CT)]):
                    pytest.fail("there is none")
            ended.set()

        ended = trio.Event()
        started = trio.current_time()
        with pytest.raises(LeftBy):
            async with open_pool(opener, size=1, idle=10) as pool:
                nursery.start_soon(call)
                nursery.start_soon(call)
                await trio.sleep(1)
                raise LeftBy
        assert trio.current_time() - started < 10
        await ended.wait()


async def test_a_task_that_leaves_the_block_before_its_own_call_is_told_so() -> None:
    handler = Gated()
    handler.gate.set()
    with trio.fail_after(20):
        async with dimse.open_server(handler) as server, AsyncExitStack() as stack:
            with pytest.raises(dimse.LocalProtocolError, match="leave it first"):
                async with remote(server.port) as peer:
                    await stack.enter_async_context(peer.find_studies())
            await until(lambda: server.statistics().associations_open == 0)
