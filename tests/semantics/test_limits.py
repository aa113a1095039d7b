"""What a listener refuses so that no peer can fill it: associations, connections, sizes, files."""

from __future__ import annotations

import gc
import logging
import os
import resource
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import attrs
import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio.protocol.messages import CEchoRQ
from dimse_trio.protocol.negotiation import PresentationContext, propose
from dimse_trio.protocol.pdus import Abort, AssociateAC, AssociateRJ, AssociateRQ, UserInformation
from dimse_trio.protocol.uids import VERIFICATION
from dimse_trio.testing import ScriptedPeer

from .script import CONTEXTS, ECHO, served

LOCAL_LIMIT_EXCEEDED = (3, 2)
PERMANENT, TRANSIENT = 1, 2


class Echo:
    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


async def connect(port: int, source: str = "127.0.0.1") -> ScriptedPeer:
    return ScriptedPeer(await trio.open_tcp_stream("127.0.0.1", port, local_address=source))


@asynccontextmanager
async def closing(peer: ScriptedPeer) -> AsyncGenerator[ScriptedPeer]:
    try:
        yield peer
    finally:
        await trio.aclose_forcefully(peer.stream)


def request_of(contexts: list[PresentationContext]) -> AssociateRQ:
    return propose(
        contexts,
        called_ae_title="ANY",
        calling_ae_title="PEER",
        user_information=UserInformation(maximum_length=16384),
    )


async def asks(peer: ScriptedPeer) -> AssociateAC | AssociateRJ:
    """What a peer is answered that asks for an association."""
    await peer.send(request_of(CONTEXTS[:1]))
    answered = await peer.receive()
    assert isinstance(answered, AssociateAC | AssociateRJ)
    return answered


def local_limit(rejected: AssociateAC | AssociateRJ, result: int) -> bool:
    return (
        isinstance(rejected, AssociateRJ)
        and rejected.result == result
        and (rejected.source, rejected.reason) == LOCAL_LIMIT_EXCEEDED
    )


# -- associations --------------------------------------------------------------------------------


async def test_one_peer_cannot_have_all_associations() -> None:
    async with (
        dimse.open_server(Echo(), max_associations=4, max_associations_per_peer=2) as server,
        closing(await connect(server.port)) as first,
        closing(await connect(server.port)) as second,
        closing(await connect(server.port)) as third,
        closing(await connect(server.port, "127.0.0.2")) as other,
    ):
        assert isinstance(await asks(first), AssociateAC)
        assert isinstance(await asks(second), AssociateAC)
        assert local_limit(await asks(third), TRANSIENT)
        await third.expect_end()
        assert isinstance(await asks(other), AssociateAC)
        assert server.statistics() == dimse.ServerStatistics(3, 3, 1)

        await first.release()
        await first.expect_end()
        async with closing(await connect(server.port)) as again:
            assert isinstance(await asks(again), AssociateAC)


async def test_there_are_no_more_associations_than_in_all_whoever_asks() -> None:
    async with (
        dimse.open_server(Echo(), max_associations=2) as server,
        closing(await connect(server.port, "127.0.0.1")) as first,
        closing(await connect(server.port, "127.0.0.2")) as second,
        closing(await connect(server.port, "127.0.0.3")) as third,
    ):
        assert isinstance(await asks(first), AssociateAC)
        assert isinstance(await asks(second), AssociateAC)
        assert local_limit(await asks(third), TRANSIENT)


@pytest.mark.parametrize(
    "option", ["max_associations", "max_associations_per_peer", "max_unassociated"]
)
async def test_a_limit_of_nothing_is_refused(option: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=f"{option} must be at least 1"):
        async with dimse.open_server(Echo(), **{option: 0}):  # type: ignore[arg-type]
            raise AssertionError


async def test_too_many_contexts_are_rejected(autojump_clock: trio.abc.Clock) -> None:
    async with served(Echo(), limits=dimse.Limits(contexts=4)) as peer:
        await peer.send(request_of(CONTEXTS))
        assert local_limit(await peer.expect(AssociateRJ), PERMANENT)


async def test_a_request_with_one_context_id_thousands_of_times_is_rejected(
    autojump_clock: trio.abc.Clock,
) -> None:
    request = request_of(CONTEXTS[:1])
    async with served(Echo()) as peer:
        await peer.send(attrs.evolve(request, contexts=request.contexts * 4000))
        assert local_limit(await peer.expect(AssociateRJ), PERMANENT)


# -- sizes ---------------------------------------------------------------------------------------


async def test_a_command_set_longer_than_the_limit_aborts(autojump_clock: trio.abc.Clock) -> None:
    async with served(Echo(), limits=dimse.Limits(command_set=60)) as peer:
        await peer.associate([PresentationContext(VERIFICATION)])
        await peer.send_message(ECHO, CEchoRQ(message_id=1, affected_sop_class_uid=VERIFICATION))
        assert (await peer.expect(Abort)).source == 2


# -- connections that ask for nothing ------------------------------------------------------------


async def test_the_connection_that_has_waited_longest_makes_room() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(dimse.open_server(Echo(), max_unassociated=3))

        async def another() -> ScriptedPeer:
            peer = await stack.enter_async_context(closing(await connect(server.port)))
            return peer

        associated = await another()
        assert isinstance(await asks(associated), AssociateAC)  # waits for nothing any more
        idle = [await another() for _ in range(4)]
        await idle[0].expect_end()
        assert isinstance(await asks(idle[3]), AssociateAC)
        assert isinstance(await asks(idle[1]), AssociateAC)
        await associated.release()


async def test_a_peer_whose_admission_takes_long_is_not_dropped() -> None:
    entered, admitted = trio.Event(), trio.Event()

    class Slow(Echo):
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            entered.set()
            await admitted.wait()
            yield

    async with (
        dimse.open_server(Slow(), max_unassociated=1) as server,
        closing(await connect(server.port)) as patient,
    ):
        request = request_of(CONTEXTS[:1])
        await patient.send(request)
        await entered.wait()
        async with closing(await connect(server.port)), closing(await connect(server.port)):
            admitted.set()
            await patient.expect(AssociateAC)


# -- descriptors ---------------------------------------------------------------------------------


@contextmanager
def no_more_descriptors() -> Generator[None]:
    """No file or connection can be opened in the block; what is open stays open."""
    gc.collect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def exhaustion(log: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in log.records if "cannot accept connections" in r.message]


async def test_a_listener_without_descriptors_backs_off_says_so_once_and_recovers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="dimse_trio")
    async with dimse.open_server(Echo()) as server:
        async with dimse.open_association("127.0.0.1", server.port) as working:
            sockets = [trio.socket.socket() for _ in range(3)]
            with no_more_descriptors():
                for each in sockets:
                    await each.connect(("127.0.0.1", server.port))
                while not exhaustion(caplog):
                    await working.echo()
                for _ in range(300):  # it goes on trying
                    await working.echo()
            for each in sockets:
                async with closing(ScriptedPeer(trio.SocketStream(each))) as peer:
                    assert isinstance(await asks(peer), AssociateAC)
    assert len(exhaustion(caplog)) == 1
    assert "Too many open files" in exhaustion(caplog)[0]


async def test_idle_connections_give_their_descriptors_to_one_that_asks() -> None:
    async with dimse.open_server(Echo()) as server, AsyncExitStack() as stack:
        idle = [
            await stack.enter_async_context(closing(await connect(server.port))) for _ in range(3)
        ]
        async with dimse.open_association("127.0.0.1", server.port) as settled:
            await settled.echo()  # all have been accepted
            latecomer = trio.socket.socket()
            with no_more_descriptors():
                await latecomer.connect(("127.0.0.1", server.port))
                async with closing(ScriptedPeer(trio.SocketStream(latecomer))) as peer:
                    assert isinstance(await asks(peer), AssociateAC)
            await idle[0].expect_end()


# -- clocks --------------------------------------------------------------------------------------


async def test_a_clock_that_jumps_ends_what_was_waiting_and_nothing_else() -> None:
    """The monotonic clock leaps where a machine was suspended: every deadline is past at once."""
    clock = trio.testing.MockClock()

    async def suspended() -> None:
        async with dimse.open_server(Echo()) as server:
            with pytest.raises(dimse.AssociationAborted):
                async with dimse.open_association("127.0.0.1", server.port) as association:
                    await association.echo()
                    clock.jump(24 * 3600)
                    await trio.sleep_forever()
            async with dimse.open_association("127.0.0.1", server.port) as association:
                assert (await association.echo()).status == dimse.Status.SUCCESS

    await trio.to_thread.run_sync(lambda: trio.run(suspended, clock=clock))


async def test_the_wall_clock_is_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set back and forth by hours, it changes no time-out: they are of the monotonic clock."""
    times = iter([4e9, 0.0, 1e6] * 1000)
    monkeypatch.setattr("time.time", lambda: next(times))
    async with (
        dimse.open_server(Echo(), timeouts=dimse.Timeouts(idle=60, associate=60)) as server,
        dimse.open_association("127.0.0.1", server.port) as association,
    ):
        for _ in range(20):
            assert (await association.echo()).status == dimse.Status.SUCCESS
