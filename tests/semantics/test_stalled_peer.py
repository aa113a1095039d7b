"""A peer that has stopped reading: every write is bounded, and nobody waits for it for long."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio.protocol.pdus import PDataTF
from dimse_trio.testing.scripted import ScriptedPeer

from .script import TIMEOUTS, instance, unwrapped_nursery

SIZE = 30_000_000
"""More than any socket buffer of a system under test takes."""


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_a_cancelled_write_to_a_peer_that_does_not_read_is_given_up_in_time(
    autojump_clock: object, how: str
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def play() -> None:
        peer = ScriptedPeer(theirs)
        await peer.accept()
        await peer.expect(PDataTF)
        await trio.sleep(1000)
        await theirs.aclose()

    start = trio.current_time()
    async with unwrapped_nursery() as nursery:
        nursery.start_soon(play)
        with pytest.raises(dimse.AssociationAborted):
            async with dimse.associate_over(ours, timeouts=TIMEOUTS) as association:
                with trio.CancelScope() as scope:
                    if how == "deadline":
                        scope.deadline = start + 1
                    else:

                        async def cancel() -> None:
                            await trio.sleep(1)
                            scope.cancel()

                        association.start_soon(cancel)
                    await association.store(instance(SIZE))
                assert trio.current_time() - start <= 1 + TIMEOUTS.cancel_grace + 1
                await association.echo()
        waited = trio.current_time() - start
        nursery.cancel_scope.cancel()
    assert waited <= 1 + TIMEOUTS.cancel_grace + 4 * TIMEOUTS.linger


async def test_a_write_that_nobody_cancels_is_given_up_after_the_network_timeout(
    autojump_clock: object,
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def play() -> None:
        peer = ScriptedPeer(theirs)
        await peer.accept()
        await peer.expect(PDataTF)
        await trio.sleep(1000)

    async with unwrapped_nursery() as nursery:
        nursery.start_soon(play)
        with pytest.raises(dimse.AssociationAborted, match="does not read"):
            async with dimse.associate_over(ours, timeouts=TIMEOUTS) as association:
                await association.store(instance(SIZE))
        assert trio.current_time() == pytest.approx(TIMEOUTS.network, abs=5)
        nursery.cancel_scope.cancel()


async def test_over_tcp_an_abort_to_a_peer_that_does_not_read_is_bounded() -> None:
    timeouts = dimse.Timeouts(cancel_grace=0.3, linger=0.3)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    stalled: list[ScriptedPeer] = []
    left: list[bool] = []

    async def play() -> None:
        peer = ScriptedPeer(await listeners[0].accept())
        await peer.accept()
        stalled.append(peer)

    async with unwrapped_nursery() as nursery:
        nursery.start_soon(play)
        with trio.fail_after(20), pytest.raises(dimse.AssociationAborted, match="does not read"):
            async with dimse.open_association("127.0.0.1", port, timeouts=timeouts) as association:
                with trio.move_on_after(0.2) as scope:
                    await association.store(instance(SIZE))
                assert scope.cancelled_caught
                assert not association.is_open
                left.append(True)
                await trio.sleep_forever()
    assert left
    for stream in (stalled[0].stream, listeners[0]):
        await stream.aclose()


@asynccontextmanager
async def slow_reader() -> AsyncGenerator[dimse.Association]:
    """An association whose peer takes what it is sent in small pieces, and knows no C-CANCEL."""
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def play() -> None:
        peer = ScriptedPeer(theirs)
        await peer.accept()
        await peer.expect(PDataTF)
        async for _ in theirs:
            await trio.sleep(0.1)
        await theirs.aclose()

    async with unwrapped_nursery() as nursery:
        nursery.start_soon(play)
        async with dimse.associate_over(ours, timeouts=TIMEOUTS) as association:
            yield association


async def store(association: dimse.Association) -> None:
    await association.store(instance(SIZE))


async def find(association: dimse.Association) -> None:
    await association.find_studies(PatientName="*")


async def find_by_block(association: dimse.Association) -> None:
    async with association.find_studies(PatientName="*") as matches:
        async for _ in matches:
            pytest.fail("there is none")


LEFT = pytest.mark.parametrize("operation", [store, find, find_by_block])
Operation = Callable[[dimse.Association], Awaitable[None]]


@LEFT
@pytest.mark.parametrize("then", ["ask", "leave"])
async def test_who_leaves_what_ends_the_association_is_caught_by_their_own_scope(
    operation: Operation, then: str, autojump_clock: object
) -> None:
    async with slow_reader() as association:
        with trio.move_on_after(1) as scope:
            await operation(association)
        assert scope.cancelled_caught
        if then == "ask":
            with pytest.raises(dimse.AssociationAborted, match=r"not all sent|C-CANCEL"):
                await association.echo()


@LEFT
@pytest.mark.parametrize("who", ["body", "child", "both"])
async def test_nobody_else_is_kept_in_the_block_of_an_association_that_was_ended_by_leaving(
    operation: Operation, who: str, autojump_clock: object
) -> None:
    caught: list[bool] = []

    async def leave(association: dimse.Association) -> None:
        with trio.move_on_after(1) as scope:
            await operation(association)
        caught.append(scope.cancelled_caught)

    with trio.fail_after(60), pytest.raises(dimse.AssociationAborted):
        async with slow_reader() as association:
            if who != "body":
                association.start_soon(leave, association)
            else:
                association.start_soon(trio.sleep_forever)
                await leave(association)
            if who != "child":
                await trio.sleep_forever()
            association.start_soon(trio.sleep_forever)
    assert caught == [True]
