"""Quirks 25 to 32: how associations end, or never begin (PS3.8 §7.2, §9.2)."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.protocol.events import ReleaseConfirmed, ReleaseRequested
from dimse_trio.protocol.messages import CEchoRQ, CEchoRSP, CFindRQ, CStoreRQ
from dimse_trio.protocol.pdus import (
    Abort,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
    UserInformation,
)
from dimse_trio.protocol.state import State
from dimse_trio.testing.scripted import ScriptedPeer
from protocol.pair import drain, feed, reach
from semantics.script import (
    CONTEXTS,
    ECHO,
    FIND,
    LE,
    STORE,
    TIMEOUTS,
    encoded,
    scripted,
    served,
    study,
    unwrapped_nursery,
)

from .tools import Everything, Unfinished, connected, listening, logged

FAST = attrs.evolve(TIMEOUTS, linger=0.2)
"""For tests over TCP, which wait in real time where a peer does not close."""


@attrs.define
class Hosting(Everything):
    """A handler that notes how its associations end."""

    association: dimse.Association | None = None
    endings: list[BaseException | None] = attrs.field(factory=list)

    @asynccontextmanager
    async def handle_association(self, request: dimse.AssociationRequest) -> AsyncGenerator[None]:
        try:
            yield
        except BaseException as error:
            self.endings.append(error)
            raise
        self.endings.append(None)

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        self.association = request.association
        return await Everything.handle_echo(self, request)


async def echo(peer: ScriptedPeer) -> None:
    await peer.send_message(ECHO, CEchoRQ(message_id=7))
    assert (await peer.expect_message(CEchoRSP)).status == 0


@pytest.mark.parametrize("source", [0, 2, None], ids=["user", "provider", "close"])
async def test_quirk_25_26_a_requestor_that_leaves_without_release(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, source: int | None
) -> None:
    handler = Hosting()
    with logged(caplog) as messages:
        async with served(handler) as peer:
            await peer.associate(CONTEXTS)
            await echo(peer)
            if source is not None:
                await peer.abort(source)
    assert handler.endings == [None]
    assert handler.association is not None
    assert isinstance(handler.association.end, dimse.AssociationAborted)
    assert handler.association.end.source == source
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert "ended without release" in messages[0]


async def test_quirk_25_an_abort_while_something_is_performed_is_no_normal_end(
    autojump_clock: object,
) -> None:
    unfinished = Unfinished()

    class Slow(Hosting):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            await unfinished()
            return dimse.Status.SUCCESS

    handler = Slow()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(ECHO, CEchoRQ(message_id=1))
        await trio.testing.wait_all_tasks_blocked()
        await peer.abort()
        await peer.expect_end()
    assert unfinished.cancelled
    assert [type(error) for error in handler.endings] == [dimse.AssociationAborted]


@pytest.mark.parametrize("answer", [Abort(0, 0), Abort(2, 2), None], ids=repr)
async def test_quirk_25_26_abort_or_close_in_answer_to_our_release(
    autojump_clock: object, answer: Abort | None
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CEchoRQ)
        response = CEchoRSP(message_id_being_responded_to=request.message_id, status=0)
        await peer.send_message(ECHO, response)
        await peer.expect(ReleaseRQ)
        if answer is not None:
            await peer.send(answer)

    async with scripted(script) as association:
        await association.echo()
    assert association.end is not None


async def test_quirk_26_a_reset_in_answer_to_our_release() -> None:
    async def accept(stream: trio.SocketStream) -> None:
        peer = ScriptedPeer(stream)
        await peer.accept(LE)
        await peer.expect(ReleaseRQ)
        stream.setsockopt(*RESET)
        await trio.aclose_forcefully(stream)

    async with listening(accept) as port:
        async with dimse.open_association("127.0.0.1", port, contexts=CONTEXTS) as association:
            pass
        assert association.end is not None


RESET = (trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
"""Closing then sends RST and drops what was not sent."""


async def test_quirk_27_a_requestor_that_waits_for_us_to_close() -> None:
    async with dimse.open_server(Everything(), timeouts=FAST) as server:
        async with connected(server) as peer:
            await peer.associate(CONTEXTS)
            await peer.release()
            with trio.fail_after(10):
                await peer.expect_end()


async def test_quirk_27_an_acceptor_that_waits_for_us_to_close() -> None:
    ended = trio.Event()

    async def accept(stream: trio.SocketStream) -> None:
        peer = ScriptedPeer(stream)
        await peer.accept(LE)
        await peer.respond_to_release()
        await peer.expect_end()
        ended.set()

    async with listening(accept) as port:
        async with dimse.open_association("127.0.0.1", port, contexts=CONTEXTS):
            pass
        with trio.fail_after(10):
            await ended.wait()


UNREAD = bytes(1 << 20)
"""More than is read at once: closing over it would be a reset."""
PATIENT = attrs.evolve(TIMEOUTS, linger=60)
"""So that the end of the stream that a peer sees is a half-close, not the close in the end."""


async def test_quirk_28_a_rejection_survives_what_was_not_read() -> None:
    request = AssociateRQ("YOURS", "ME", (), UserInformation(maximum_length=16384))
    early = ScriptedPeer.message_pdus(STORE, CStoreRQ(message_id=1), UNREAD)
    async with dimse.open_server(Everything(), ae_title="MINE", timeouts=PATIENT) as server:
        async with connected(server) as peer, unwrapped_nursery() as nursery:
            nursery.start_soon(peer.send, request, *early)
            assert await peer.expect(AssociateRJ) == AssociateRJ(1, 1, 7)
            with trio.fail_after(10):
                await peer.expect_end()


async def test_quirk_28_an_abort_survives_what_was_not_read() -> None:
    async with dimse.open_server(Everything(), timeouts=PATIENT) as server:
        async with connected(server) as peer, unwrapped_nursery() as nursery:
            await peer.associate(CONTEXTS)
            nursery.start_soon(peer.send_raw, b"\x99\0\0\0\0\0" + UNREAD)
            assert await peer.expect(Abort) == Abort(2, 1)
            with trio.fail_after(10):
                await peer.expect_end()


def test_quirk_29_release_collision_in_the_core() -> None:
    requestor, acceptor = (
        reach(State.COLLISION_REQUESTOR_LOCAL),
        reach(State.COLLISION_ACCEPTOR_PEER),
    )
    requestor.respond_to_release()
    assert requestor.state is State.COLLISION_REQUESTOR_PEER
    acceptor.receive_data(requestor.data_to_send())
    assert drain(acceptor) == [ReleaseConfirmed()]
    acceptor.respond_to_release()
    requestor.receive_data(acceptor.data_to_send())
    assert drain(requestor) == [ReleaseConfirmed()]
    assert (requestor.state, acceptor.state) == (State.IDLE, State.AWAITING_CLOSE)
    colliding = reach(State.AWAITING_RELEASE_RP)
    assert feed(colliding, ReleaseRQ()) == [ReleaseRequested(collision=True)]


async def test_quirk_29_release_collision_on_an_association(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(ReleaseRQ)
        await peer.send(ReleaseRQ())
        await peer.expect(ReleaseRP)
        await peer.send(ReleaseRP())
        await peer.expect_end()

    async with scripted(script):
        pass


@pytest.mark.parametrize("request_", [CEchoRQ(message_id=1), CFindRQ(message_id=1)], ids=type)
async def test_quirk_30_a_release_while_an_operation_runs(
    autojump_clock: object, request_: CEchoRQ | CFindRQ
) -> None:
    unfinished = Unfinished()

    class Slow(Everything):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            await unfinished()
            return dimse.Status.SUCCESS

        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            await unfinished()
            yield study()

    async with served(Slow()) as peer:
        await peer.associate(CONTEXTS)
        if isinstance(request_, CFindRQ):
            await peer.send_message(FIND, request_, encoded(study()))
        else:
            await peer.send_message(ECHO, request_)
        start = trio.current_time()
        await peer.send(ReleaseRQ())
        while not isinstance(pdu := await peer.receive(), ReleaseRP):
            assert isinstance(pdu, PDataTF)  # the final response of what could be cancelled
        assert trio.current_time() - start == pytest.approx(TIMEOUTS.release)
    assert unfinished.cancelled


async def test_quirk_30_a_release_waits_for_what_ends_by_itself(autojump_clock: object) -> None:
    class Slow(Everything):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            await trio.sleep(TIMEOUTS.release / 2)
            return dimse.Status.SUCCESS

    async with served(Slow()) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(ECHO, CEchoRQ(message_id=1))
        await peer.send(ReleaseRQ())
        assert (await peer.expect_message(CEchoRSP)).status == 0
        await peer.expect(ReleaseRP)


async def test_quirk_31_messages_that_come_after_our_release_request(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CEchoRQ)
        await peer.expect(ReleaseRQ)
        late = CEchoRSP(message_id_being_responded_to=request.message_id, status=0)
        await peer.send_message(ECHO, late)
        await peer.send_message(ECHO, CEchoRQ(message_id=1))
        await peer.send(ReleaseRP())
        await peer.expect_end()  # the standard has no P-DATA request in Sta7, so no answer

    handler = Everything()
    async with scripted(script, handler=handler) as association:
        with trio.move_on_after(1):
            await association.echo()
    assert handler.echoes == 1
    assert isinstance(association.end, dimse.AssociationClosed)


async def test_quirk_32_a_rejection_with_numbers_outside_the_standard(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.reject(9, 7, 200)

    with pytest.raises(dimse.AssociationRejected, match="unknown value 200") as caught:
        async with scripted(script, accept=False):
            raise AssertionError("there is no association")
    assert (caught.value.result, caught.value.source, caught.value.reason) == (9, 7, 200)


async def test_quirk_32_an_abort_with_numbers_outside_the_standard(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CEchoRQ)
        await peer.abort(5, 200)

    with pytest.raises(dimse.AssociationAborted, match="unknown reason 200") as caught:
        async with scripted(script) as association:
            await association.echo()
    assert (caught.value.source, caught.value.reason) == (5, 200)
