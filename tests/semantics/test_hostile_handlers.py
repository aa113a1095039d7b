"""Handlers and peers that go wrong in ways of their own: one association suffers, at most."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pydicom.data
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.archive import open_archive
from dimse_trio.protocol.messages import CFindRQ, CMoveRQ, CMoveRSP
from dimse_trio.testing import associated_pair
from dimse_trio.testing.scripted import ScriptedPeer

from .script import CONTEXTS, CT, MOVE, instance, scripted, served, study

FILES = Path(pydicom.data.__file__).parent / "test_files"
QUERY = dimse.query("STUDY", StudyInstanceUID="1.2.3")


@pytest.mark.parametrize("status", [70000, -1, 0xFF00])
@pytest.mark.parametrize("how", ["returned", "raised"])
async def test_a_status_that_cannot_end_an_operation_is_a_processing_failure(
    autojump_clock: object, status: int, how: str
) -> None:
    class Odd:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            if how == "raised":
                raise dimse.StatusError(status)
            return dimse.Status(status)

    async with associated_pair(Odd()) as association:
        for _ in range(2):
            response = await association.echo(check=False)
            assert response.status == dimse.Status.PROCESSING_FAILURE


async def test_a_generator_that_keeps_its_cancellation_harms_nobody_else() -> None:
    class Keeper:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            try:
                yield study()
                await trio.sleep_forever()
            finally:
                with suppress(BaseException):
                    yield study()

    async with dimse.open_server(Keeper()) as server:
        for _ in range(2):
            async with dimse.open_association("127.0.0.1", server.port) as association:
                async with association.find(dimse.query("STUDY")) as matches:
                    async for _ in matches:
                        break
                assert (await association.echo()).status == 0


async def test_counts_beyond_sixteen_bits_stay_at_their_highest(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR", "dimse_trio")

    class Many:
        async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[str]:
            for _ in range(66_000):
                yield "/nonexistent/x"

    async with associated_pair(Many(), contexts=dimse.retrieve_contexts([CT])) as association:
        async with association.get(QUERY, check=False) as instances:
            async for _ in instances:
                raise AssertionError("there is none")
        assert instances.result.failed == 0xFFFF


async def test_an_instance_read_after_its_turn_says_so(
    autojump_clock: object, tmp_path: Path
) -> None:
    class Source:
        async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Dataset]:
            for number in range(3):
                yield instance(uid=f"1.2.{number}")

    async with associated_pair(Source(), contexts=dimse.retrieve_contexts([CT])) as association:
        async with association.get(QUERY) as instances:
            items = [item async for item in instances]
        with pytest.raises(dimse.DimseError, match="too late"):
            await items[0].data_set()
        with pytest.raises(dimse.DimseError, match="too late"):
            await items[1].save_as(tmp_path / "late.dcm")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("where", ["inside a find", "beside a child that was told"])
async def test_a_lost_association_wakes_the_block_whoever_else_was_told(
    autojump_clock: object, where: str
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.receive_message()
        await trio.sleep(1)
        await peer.abort()

    async def child(association: dimse.Association) -> None:
        with pytest.raises(dimse.AssociationAborted):
            await association.echo()

    with trio.fail_after(100), pytest.raises(dimse.AssociationAborted):
        async with scripted(script) as association:
            if where == "inside a find":
                async with association.find(QUERY):
                    await trio.sleep_forever()
            else:
                association.start_soon(child, association)
                await trio.sleep_forever()


async def test_a_handlers_child_ends_with_the_association(autojump_clock: object) -> None:
    ended = trio.Event()

    class Parent:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            async def child() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    ended.set()

            request.association.start_soon(child)
            yield study()
            await trio.sleep_forever()

    async with served(Parent()) as peer:
        await peer.associate(CONTEXTS)
        identifier = b"\x08\x00\x52\x00CS\x06\x00STUDY "
        await peer.send_message(3, CFindRQ(message_id=1), identifier)
        await peer.receive_message()
        await peer.abort()
    assert ended.is_set()


@pytest.mark.parametrize(
    ("vr", "raw"), [(b"US", b"\1\0"), (b"US", b"\1\0\2"), (b"ZZ", b"12"), (b"FL", b"123")]
)
async def test_a_failed_list_that_is_none_is_left_out(
    autojump_clock: object, vr: bytes, raw: bytes
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CMoveRQ)
        response = CMoveRSP(message_id_being_responded_to=request.message_id, status=0, completed=3)
        data = b"\x08\0\x58\0" + vr + len(raw).to_bytes(2, "little") + raw
        await peer.send_message(MOVE, response, data)
        await peer.respond_to_release()

    async with scripted(script) as association:
        result = await association.move(QUERY, destination="WS")
    assert result.completed == 3
    assert result.failed_sop_instance_uids in ((), ("1",))


async def test_no_room_for_what_arrives_refuses_the_instance(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> object:
        raise OSError("no space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", no_room)

    class Slow:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            await trio.sleep(100)
            await request.data_set()
            return dimse.Status.SUCCESS

    async with associated_pair(Slow()) as association:
        response = await association.store(instance(4_000_000), check=False)
        assert response.status == dimse.Status.OUT_OF_RESOURCES
        assert (await association.echo()).status == 0


async def test_a_peer_that_goes_during_admission_frees_its_place(autojump_clock: object) -> None:
    outcome: list[str] = []

    class Deliberate:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            try:
                await trio.sleep_forever()
            finally:
                outcome.append("ended")
            yield

    async with served(Deliberate()) as peer:
        with trio.move_on_after(5):
            await peer.associate(CONTEXTS)
        await peer.abort()
        await peer.expect_end()
    assert outcome == ["ended"]


async def test_an_instance_replaced_while_it_waits_to_be_sent_is_sent_whole(
    tmp_path: Path,
) -> None:
    contexts = dimse.retrieve_contexts([CT])
    async with open_archive(tmp_path) as archive, dimse.open_server(archive) as server:

        async def store(ae_title: str, *numbers: int) -> None:
            async with dimse.open_association(
                "127.0.0.1", server.port, calling_ae_title=ae_title
            ) as association:
                for number in numbers:
                    await association.store(instance(2000, uid=f"1.2.3.4.{number}"))

        await store("A", 0, 1, 2)
        async with (
            dimse.open_association("127.0.0.1", server.port, contexts=contexts) as association,
            association.get(QUERY) as instances,
        ):
            seen = 0
            async for received in instances:
                if not seen:
                    await store("LONGERTITLE", 1, 2)
                seen += 1
                data_set = await received.data_set()
                assert data_set.SOPInstanceUID == received.sop_instance_uid
                assert len(data_set.PixelData) == 2000
        assert seen == 3


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".com"])
async def test_a_host_name_that_cannot_be_is_a_failed_connection(host: str) -> None:
    with pytest.raises(dimse.ConnectionFailed):
        async with dimse.open_association(host, 104):
            pass


@pytest.mark.parametrize("what", [5, None, b"", []])
async def test_what_cannot_be_stored_is_a_type_error(autojump_clock: object, what: object) -> None:
    class Echo:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    async with associated_pair(Echo()) as association:
        with pytest.raises(TypeError, match="store takes"):
            await association.store(what)  # type: ignore[arg-type]


def not_encodable() -> Dataset:
    match = study()
    match.add_new("Rows", "US", "abc")
    return match


@pytest.mark.parametrize("match", [{"PatientName": "x"}, "1.2.3", not_encodable()])
async def test_a_match_that_is_none_is_the_handlers_fault_and_logged(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, match: object
) -> None:
    class Wrong:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[object]:
            yield match

    async with associated_pair(Wrong()) as association:
        with pytest.raises(dimse.StatusError) as caught:
            await association.find_studies()
        assert caught.value.status == dimse.Status.PROCESSING_FAILURE
    assert "handler failed in C-FIND" in caplog.text
    assert "handle_find yielded" in caplog.text


async def test_admission_that_fails_is_a_rejection_and_logged(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            raise KeyError("own mistake")
            yield

    with pytest.raises(dimse.AssociationRejected) as caught:
        async with associated_pair(Failing()):
            raise AssertionError
    assert caught.value.is_transient
    assert caught.value.reason is dimse.RejectReason.NO_REASON_GIVEN
    assert "own mistake" in caplog.text


async def test_the_client_of_a_c_move_hears_that_its_destination_was_not_reached() -> None:
    class Mover:
        async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Dataset]:
            yield instance()

    peers = {"NOBODY": ("127.0.0.1", 1)}
    async with (
        dimse.open_server(Mover(), peers=peers) as server,
        dimse.open_association("127.0.0.1", server.port) as association,
    ):
        with pytest.raises(dimse.StatusError) as caught:
            await association.move(QUERY, destination="NOBODY")
    assert caught.value.comment == "no association with NOBODY"


class Panic(BaseException):
    """As those that a plugin in Rust raises."""


@pytest.mark.parametrize("error", [Panic, asyncio.CancelledError])
@pytest.mark.parametrize("grouped", [False, True])
async def test_what_is_no_exception_and_ends_no_program_is_a_failed_handler(
    error: type[BaseException], grouped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Panicking:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            raise BaseExceptionGroup("several", [error(), ValueError()]) if grouped else error

        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            if request.calling_ae_title == "NOBODY":
                raise error
            yield

    async with dimse.open_server(Panicking()) as server:
        with pytest.raises(dimse.AssociationRejected):
            async with dimse.open_association("127.0.0.1", server.port, calling_ae_title="NOBODY"):
                pass
        async with dimse.open_association("127.0.0.1", server.port) as association:
            for _ in range(2):
                response = await association.echo(check=False)
                assert response.status == dimse.Status.PROCESSING_FAILURE
    assert caplog.text.count("failed") >= 3


async def test_a_handler_that_ends_the_program_does() -> None:
    class Ending:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as ended:
        async with associated_pair(Ending()) as association:
            await association.echo()
    assert ended.group_contains(KeyboardInterrupt)
