"""The acceptor's rows of the cancellation table, and what handlers' exceptions become."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    CStoreRQ,
    CStoreRSP,
)
from dimse_trio.protocol.pdus import (
    PDV,
    Abort,
    AssociateRJ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
)
from dimse_trio.testing.scripted import ScriptedPeer

from .script import (
    CONTEXTS,
    CT,
    ECHO,
    FIND,
    GET,
    MOVE,
    STORE,
    TIMEOUTS,
    encoded,
    instance,
    served,
    study,
)


@attrs.define
class Recorder:
    """A handler that does what `finds` says and notes what it saw."""

    seen: list[str] = attrs.field(factory=list)
    received: list[bytes] = attrs.field(factory=list)
    echo_status: int | Exception = 0

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        if isinstance(self.echo_status, Exception):
            raise self.echo_status
        return dimse.Status(self.echo_status)

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        self.seen.append(f"store {request.sop_instance_uid}")
        try:
            self.received.append(b"".join([chunk async for chunk in request.chunks()]))
        except trio.Cancelled:
            self.seen.append("store cancelled")
            raise
        self.seen.append("stored")
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        try:
            for index in range(1, 4):
                yield study(index)
            if request.identifier.get("PatientName") == "FOREVER":
                await trio.sleep_forever()
        except trio.Cancelled:
            self.seen.append("find cancelled")
            raise

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Dataset]:
        for index in range(3):
            yield instance(uid=f"1.2.{index}")

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Dataset]:
        yield instance()


async def echo(peer: ScriptedPeer, message_id: int = 99) -> CEchoRSP:
    await peer.send_message(ECHO, CEchoRQ(message_id=message_id))
    return await peer.expect_message(CEchoRSP)


async def test_c_cancel_cancels_the_handler_and_is_answered(autojump_clock: object) -> None:
    handler = Recorder()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        identifier = encoded(study(PatientName="FOREVER"))
        await peer.send_message(FIND, CFindRQ(message_id=5), identifier)
        for _ in range(3):
            assert (await peer.expect_message(CFindRSP)).status == 0xFF00
        await peer.send_message(FIND, CCancelRQ(message_id_being_responded_to=5))
        final = await peer.expect_message(CFindRSP)
        assert (final.status, final.message_id_being_responded_to) == (0xFE00, 5)
        assert (await echo(peer)).status == 0
        await peer.release()
    assert handler.seen == ["find cancelled"]


@pytest.mark.parametrize("message_id", [5, 77])
async def test_c_cancel_of_a_finished_or_unknown_operation_is_ignored(
    autojump_clock: object, message_id: int
) -> None:
    async with served(Recorder()) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(FIND, CFindRQ(message_id=5), encoded(study()))
        for status in (0xFF00, 0xFF00, 0xFF00, 0x0000):
            assert (await peer.expect_message(CFindRSP)).status == status
        await peer.send_message(FIND, CCancelRQ(message_id_being_responded_to=message_id))
        assert (await echo(peer)).status == 0
        await peer.release()


async def test_c_cancel_on_another_context_counts_by_message_id(autojump_clock: object) -> None:
    async with served(Recorder()) as peer:
        await peer.associate(CONTEXTS)
        identifier = encoded(study(PatientName="FOREVER"))
        await peer.send_message(FIND, CFindRQ(message_id=5), identifier)
        await peer.send_message(ECHO, CCancelRQ(message_id_being_responded_to=5))
        while (status := (await peer.expect_message(CFindRSP)).status).is_pending:
            pass
        assert status == 0xFE00
        await peer.release()


async def test_c_cancel_of_a_get_ends_it_after_the_sub_operation_with_counts(
    autojump_clock: object,
) -> None:
    async with served(Recorder()) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(GET, CGetRQ(message_id=5), encoded(study()))
        store = await peer.expect_message(CStoreRQ)
        await peer.send_message(GET, CCancelRQ(message_id_being_responded_to=5))
        response = CStoreRSP(message_id_being_responded_to=store.message_id, status=0)
        await peer.send_message(STORE, response)
        pending, final = [await peer.expect_message(CGetRSP) for _ in range(2)]
        assert (pending.status, pending.remaining) == (0xFF00, 2)
        assert (final.status, final.completed, final.remaining) == (0xFE00, 1, 2)
        assert (await echo(peer)).status == 0
        await peer.release()


async def test_c_cancel_of_a_move_aborts_the_sub_association(autojump_clock: object) -> None:
    async with served(Recorder(), peers={"WS": dimse.Destination("127.0.0.1", 1)}) as peer:
        await peer.associate(CONTEXTS)
        move = CMoveRQ(message_id=5, move_destination="NOBODY")
        await peer.send_message(MOVE, move, encoded(study()))
        final = await peer.expect_message(CMoveRSP)
        assert final.status == dimse.Status.MOVE_DESTINATION_UNKNOWN
        await peer.release()


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_a_peer_that_goes_cancels_the_handler(autojump_clock: object, how: str) -> None:
    handler = Recorder()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        identifier = encoded(study(PatientName="FOREVER"))
        await peer.send_message(FIND, CFindRQ(message_id=5), identifier)
        for _ in range(3):
            await peer.expect_message(CFindRSP)
        if how == "abort":
            await peer.abort()
            await peer.expect_end()
    assert handler.seen == ["find cancelled"]


async def test_half_an_instance_never_counts(autojump_clock: object) -> None:
    handler = Recorder()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        store = CStoreRQ(message_id=1, affected_sop_instance_uid="1.2.3.4")
        pdus = peer.message_pdus(STORE, store, encoded(instance(100_000)))
        await peer.send(*pdus[:-1])
        await peer.abort()
        await peer.expect_end()
    assert "stored" not in handler.seen
    assert handler.received == []


@pytest.mark.parametrize(
    ("raised", "status", "logged"),
    [
        (dimse.StatusError(0xA700, "disk full"), 0xA700, False),
        (ValueError("secret^patient"), 0x0110, True),
        (ExceptionGroup("", [dimse.StatusError(0x0124)]), 0x0124, False),
    ],
)
async def test_what_a_handler_raises_is_a_status_and_the_association_lives(
    autojump_clock: object,
    caplog: pytest.LogCaptureFixture,
    raised: Exception,
    status: int,
    logged: bool,
) -> None:
    handler = Recorder(echo_status=raised)
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        assert (await echo(peer)).status == status
        handler.echo_status = 0
        assert (await echo(peer)).status == 0
        await peer.release()
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert bool(errors) is logged
    assert all(record.exc_info for record in errors)


async def test_a_status_that_is_none_is_a_processing_failure(autojump_clock: object) -> None:
    class Forgetful:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return None  # type: ignore[return-value]

    async with served(Forgetful()) as peer:
        await peer.associate(CONTEXTS)
        assert (await echo(peer)).status == dimse.Status.PROCESSING_FAILURE
        await peer.release()


@pytest.mark.parametrize("uid", ["../../etc/passwd", "", "1." * 33, "1.2.x", None])
async def test_a_sop_instance_uid_that_is_none_never_reaches_the_handler(
    autojump_clock: object, uid: str | None
) -> None:
    handler = Recorder()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        store = CStoreRQ(message_id=1, affected_sop_instance_uid=uid)
        await peer.send_message(STORE, store, encoded(instance()))
        response = await peer.expect_message(CStoreRSP)
        assert response.status == dimse.Status.INVALID_SOP_INSTANCE
        assert (await echo(peer)).status == 0
        await peer.release()
    assert handler.seen == []


async def test_affected_uids_are_echoed_byte_for_byte(autojump_clock: object) -> None:
    async with served(Recorder()) as peer:
        await peer.associate(CONTEXTS)
        store = CStoreRQ(message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2 ")
        await peer.send_message(STORE, store, encoded(instance()))
        pdu = await peer.expect(PDataTF)
        assert b"\x00\x10\x04\x00\x00\x001.2 " in bytes(pdu.pdvs[0].data)
        await peer.release()


async def test_release_waits_for_what_is_being_performed(autojump_clock: object) -> None:
    class Slow(Recorder):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            await trio.sleep(3)
            return dimse.Status.SUCCESS

    async with served(Slow()) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(ECHO, CEchoRQ(message_id=1))
        await peer.send(ReleaseRQ())
        assert (await peer.expect_message(CEchoRSP)).status == 0
        await peer.expect(ReleaseRP)


async def test_several_messages_in_one_pdu_are_all_answered(autojump_clock: object) -> None:
    async with served(Recorder()) as peer:
        await peer.associate(CONTEXTS)
        cancel = CCancelRQ(message_id_being_responded_to=70)
        pdvs: list[PDV] = []
        for message in (cancel, cancel, CEchoRQ(message_id=1)):
            for pdu in peer.message_pdus(ECHO, message):
                pdvs += pdu.pdvs
        await peer.send(PDataTF(tuple(pdvs)))
        assert (await peer.expect_message(CEchoRSP)).status == 0
        await peer.release()


async def test_a_service_that_the_handler_lacks_is_not_accepted(autojump_clock: object) -> None:
    class OnlyEcho:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    async with served(OnlyEcho()) as peer:
        accept = await peer.associate(CONTEXTS)
        assert [result.result for result in accept.results] == [0, 3, 3, 3, 3]
        assert all(result.transfer_syntax for result in accept.results)
        await peer.release()


async def test_a_message_on_a_refused_context_aborts(autojump_clock: object) -> None:
    class OnlyEcho:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    async with served(OnlyEcho()) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(FIND, CFindRQ(message_id=1), encoded(study()))
        assert await peer.expect(Abort) == Abort(2, 5)
        await peer.expect_end()


async def test_a_connection_that_says_nothing_is_closed_by_artim(autojump_clock: object) -> None:
    async with served(Recorder()) as peer:
        await peer.expect_end()
        assert trio.current_time() == pytest.approx(TIMEOUTS.associate, abs=1)


async def test_an_idle_association_is_aborted(autojump_clock: object) -> None:
    async with served(Recorder()) as peer:
        await peer.associate(CONTEXTS)
        await peer.expect(Abort)
        assert trio.current_time() == pytest.approx(TIMEOUTS.idle, abs=1)


async def test_a_reader_that_takes_nothing_holds_the_connection_up_once(
    autojump_clock: object,
) -> None:
    cancelled: list[float] = []

    class Deaf:
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append(trio.current_time())
            raise AssertionError

    limits = dimse.Limits(memory_per_message=1000, stall=5)
    async with served(Deaf(), limits=limits) as peer:
        await peer.associate(CONTEXTS)
        request = CStoreRQ(message_id=1, affected_sop_instance_uid="1.2.3")
        await peer.send(*peer.message_pdus(STORE, request, bytes(20_000), fragment=500)[:-1])
        await peer.abort()
        await peer.expect_end()
    assert cancelled == [pytest.approx(5)]


@pytest.mark.parametrize("response", [1, 300])
async def test_an_association_is_idle_from_its_last_response_on(
    autojump_clock: object, response: float
) -> None:
    class Slow:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            await trio.sleep(30)
            return dimse.Status.SUCCESS

    timeouts = dimse.Timeouts(idle=20, response=response)
    async with served(Slow(), timeouts=timeouts) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(ECHO, CEchoRQ(message_id=1))
        await peer.expect_message(CEchoRSP)
        assert trio.current_time() == pytest.approx(30)
        await peer.expect(Abort)
        assert trio.current_time() == pytest.approx(50)


async def test_a_wrong_called_ae_title_is_rejected_with_its_reason(autojump_clock: object) -> None:
    async with served(Recorder(), ae_title="RIGHT") as peer:
        await peer.send(await _request(peer))
        assert await peer.expect(AssociateRJ) == AssociateRJ(1, 1, 7)
        await peer.expect_end()


async def test_a_handler_may_reject_and_keeps_what_it_holds_until_the_end(
    autojump_clock: object,
) -> None:
    class Choosy(Recorder):
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            if request.calling_ae_title != "SCRIPT":
                raise dimse.Reject(
                    dimse.RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED, dimse.RejectResult.PERMANENT
                )
            self.seen.append("in")
            try:
                yield
            finally:
                self.seen.append("out")

    handler = Choosy()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        assert handler.seen == ["in"]
        await peer.release()
    assert handler.seen == ["in", "out"]
    async with served(handler) as peer:
        await peer.send(attrs.evolve(await _request(peer), calling_ae_title="OTHER"))
        assert await peer.expect(AssociateRJ) == AssociateRJ(1, 1, 3)


async def _request(peer: ScriptedPeer):
    from dimse_trio.protocol.negotiation import propose
    from dimse_trio.protocol.pdus import UserInformation

    return propose(
        CONTEXTS,
        called_ae_title="WRONG",
        calling_ae_title="SCRIPT",
        user_information=UserInformation(maximum_length=16384),
    )
