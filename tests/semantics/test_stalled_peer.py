"""A peer that has stopped reading: every write is bounded, and nobody waits for it for long."""

from __future__ import annotations

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

    async def play() -> None:
        peer = ScriptedPeer(await listeners[0].accept())
        await peer.accept()
        stalled.append(peer)

    async with unwrapped_nursery() as nursery:
        nursery.start_soon(play)
        with trio.fail_after(20):
            async with dimse.open_association("127.0.0.1", port, timeouts=timeouts) as association:
                with trio.move_on_after(0.2) as scope:
                    await association.store(instance(SIZE))
                assert scope.cancelled_caught
                assert not association.is_open
                await association.wait_over()
                with pytest.raises(dimse.AssociationAborted, match="does not read"):
                    await association.echo()
    for stream in (stalled[0].stream, listeners[0]):
        await stream.aclose()


async def test_who_cuts_an_instance_goes_on_and_the_next_operation_says_what_became_of_it(
    autojump_clock: object,
) -> None:
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
            with trio.move_on_after(1) as scope:
                await association.store(instance(SIZE))
            assert scope.cancelled_caught
            await association.wait_over()
            await trio.sleep(100)  # the block is not ended: this side knows what it has done
            with pytest.raises(dimse.AssociationAborted, match="not all sent"):
                await association.echo()
