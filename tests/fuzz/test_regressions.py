"""What fuzzing, random walks and soaking have found, one test each, so that it stays found."""

from __future__ import annotations

import gc
import logging
import struct
import warnings
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.incoming import IncomingDataSet, Spool
from dimse_trio.protocol.acceptance import Policy, answer
from dimse_trio.protocol.decode import decode_pdu_untrusted
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import MalformedPDU
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CStoreRQ,
    CStoreRSP,
    decode_command_untrusted,
    encode_command,
)
from dimse_trio.protocol.negotiation import (
    outcome,
    propose,
)
from dimse_trio.protocol.pdus import (
    Abort,
    AssociateAC,
    PDataTF,
    ProposedContext,
    RoleSelection,
    UserInformation,
)
from dimse_trio.protocol.state import State
from dimse_trio.protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STUDY_ROOT_FIND,
)
from dimse_trio.protocol.upper_layer import Role, UpperLayer
from dimse_trio.testing.scripted import ScriptedPeer
from dimse_trio.transport import Transport, TransportError
from protocol.pair import IMPLICIT, REQUEST, VERIFICATION, ConnectionPair, drain, feed, reach
from protocol.pair import receive as receive_events
from semantics.script import (
    CONTEXTS,
    FIND,
    GET,
    STORE,
    TIMEOUTS,
    encoded,
    instance,
    scripted,
    served,
    study,
)

SERVER = UserInformation(maximum_length=16384, implementation_class_uid="1.2.3")


class Echo:
    """The smallest handler."""

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


# The core


def test_bytes_after_the_end_are_not_kept() -> None:
    core = reach(State.ESTABLISHED)
    core.receive_data(b"\x04")
    feed(core, Abort(0, 0))
    core = reach(State.ESTABLISHED)
    core.receive_data(encode_pdu(Abort(0, 0)) + b"\x04" * 100)
    drain(core)
    assert core.state is State.IDLE
    for _ in range(3):
        core.receive_data(bytes(1000))
        assert drain(core) == []
    assert not core.receiving


def test_half_a_pdu_is_dropped_with_the_connection() -> None:
    core = reach(State.ESTABLISHED)
    core.receive_data(b"\x04\x00\x00\x00")
    core.receive_eof()
    drain(core)
    assert not core.receiving


def test_a_flood_of_p_data_without_pdv_is_no_flood_of_warnings() -> None:
    core = ConnectionPair.established().acceptor
    assert receive_events(core, [encode_pdu(PDataTF(())) * 1000]) == []
    assert 0 < len(core.upper_layer.warnings) <= 100


def test_an_empty_priority_is_no_priority() -> None:
    command = encode_command(
        dimse_find := decode_command_untrusted(
            element(0x0100, b"\x20\0") + element(0x0110, b"\1\0") + element(0x0700, b"")
        )[0],
        has_data_set=True,
    )
    assert decode_command_untrusted(command) == (dimse_find, True)


def element(number: int, raw: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(raw)) + raw


@pytest.mark.parametrize(
    ("pdu_type", "body"),
    [
        (0x04, b"\0\0\0\x02\x01\0" * 170_000),
        (0x01, bytes(68) + b"\x99\0\0\0" * 250_000),
        (0x02, bytes(68) + b"\x99\0\0\0" * 250_000),
        (0x01, bytes(68) + b"\x20\0\0\x04\x01\0\0\0" * 120_000),
        (0x01, bytes(68) + (b"\x20\0\xfa\x04\x01\0\0\0" + b"\x40\0\0\0" * 16_000) * 16),
    ],
    ids=["PDVs", "RQ items", "AC items", "contexts", "transfer syntaxes"],
)
def test_a_pdu_of_nothing_but_headers_is_refused_early(pdu_type: int, body: bytes) -> None:
    # 1 MiB of these took seconds of the event loop and 50 times its size in memory
    with pytest.raises(MalformedPDU, match="more than"):
        decode_pdu_untrusted(pdu_type, body)


def test_as_many_items_as_a_negotiation_can_have_are_taken() -> None:
    contexts = tuple(
        ProposedContext(2 * n + 1, f"1.2.{n}", tuple(f"1.2.840.10008.1.2.{m}" for m in range(60)))
        for n in range(128)
    )
    roles = tuple(RoleSelection(f"1.2.{n}", True, True) for n in range(128))
    request = attrs.evolve(
        REQUEST, contexts=contexts, user_information=attrs.evolve(SERVER, roles=roles)
    )
    data = encode_pdu(request)
    assert decode_pdu_untrusted(data[0], data[6:]) == request


def test_a_context_id_proposed_twice_does_not_let_a_refused_class_in() -> None:
    request = attrs.evolve(
        REQUEST,
        contexts=(
            ProposedContext(1, VERIFICATION, (IMPLICIT,)),
            ProposedContext(1, "1.2.3.4", (IMPLICIT,)),
        ),
    )
    accept = answer(request, Policy({VERIFICATION: (IMPLICIT,)}), user_information=SERVER)
    assert [result.result for result in accept.results] == [0, 2]
    for requestor in (False, True):
        negotiated = outcome(request, accept, requestor=requestor)
        assert negotiated.accepted[1].abstract_syntax == VERIFICATION
        assert [refused.abstract_syntax for refused in negotiated.refused] == ["1.2.3.4"]


# The server


async def test_more_roles_than_an_answer_can_hold_are_not_answered(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    request = propose(
        CONTEXTS[:1],
        called_ae_title="ANY",
        calling_ae_title="FUZZ",
        user_information=UserInformation(
            roles=tuple(RoleSelection(VERIFICATION, True, True) for _ in range(2621))
        ),
    )
    with caplog.at_level(logging.WARNING):
        async with served(Echo()) as peer:
            await peer.send(request)
            accept = await peer.expect(AssociateAC)
            assert len(accept.user_information.roles) == 1
            await peer.release()
    assert not caplog.records


async def test_associations_beyond_the_maximum_are_rejected_even_if_they_come_at_once(
    autojump_clock: object,
) -> None:
    async with dimse.open_server(Echo(), max_associations=3) as server:
        outcomes: list[str] = []

        async def one() -> None:
            try:
                async with dimse.open_association(
                    "127.0.0.1", server.port, contexts=CONTEXTS[:1]
                ) as association:
                    outcomes.append("open")
                    await association.echo()
                    await trio.sleep(1)
            except dimse.AssociationRejected as error:
                outcomes.append("rejected" if error.is_transient else "rejected for good")

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
    assert sorted(outcomes) == ["open"] * 3 + ["rejected"] * 17


def test_a_deflated_data_set_does_not_burst() -> None:
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()
    assert len(bomb) < 70_000
    with pytest.raises(dimse.DataSetError, match="more than"):
        datasets.decode(bomb, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, limit=1 << 24)


def endless_identifier(count: int) -> bytes:
    """Elements that no dictionary knows, in Implicit VR Little Endian."""
    return b"".join(
        struct.pack("<HHL", 0x0012 + 2 * (n >> 15), n & 0x7FFF | 0x8000, 0) for n in range(count)
    )


def test_an_identifier_of_nothing_but_elements_is_none() -> None:
    # each cost a warning, which Python keeps for ever, and in all 1.6 MB took 12 s
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(dimse.DataSetError, match="more than"):
            datasets.decode(
                endless_identifier(20_000),
                IMPLICIT_VR_LITTLE_ENDIAN,
                max_values=datasets.MAX_VALUES,
            )


async def test_a_long_identifier_does_not_hold_up_the_others() -> None:
    class Finder(Echo):
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            return
            yield

    contexts = [dimse.PresentationContext(STUDY_ROOT_FIND, IMPLICIT_VR_LITTLE_ENDIAN)]
    async with dimse.open_server(Finder()) as server:
        peer = await ScriptedPeer.connect("127.0.0.1", server.port)
        await peer.associate(contexts)
        longest, done = 0.0, trio.Event()

        async def ask() -> None:
            data = endless_identifier(150_000)
            await peer.send_message(1, CFindRQ(message_id=1), data)
            assert (await peer.expect_message(CFindRSP)).status == dimse.Status.DATA_SET_MISMATCH
            await peer.release()
            await peer.stream.aclose()
            done.set()

        async with dimse.open_association("127.0.0.1", server.port) as association:
            association.start_soon(ask)
            while not done.is_set():
                start = trio.current_time()
                await association.echo()
                longest = max(longest, trio.current_time() - start)
                await trio.sleep(0.01)
        assert longest < 1


async def test_a_peer_that_takes_two_bytes_at_a_time_is_not_written_to_in_great_heaps(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a header and a view for every two bytes: 256 KiB of a data set were 30 MB of those
    class Finder(Echo):
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            yield study(PatientComments="x" * 20_000)

    heaps: list[int] = []
    write = Transport.write

    async def counting(
        self: Transport, buffers: Sequence[bytes | memoryview], **options: Any
    ) -> None:
        heaps.append(len(buffers))
        await write(self, buffers, **options)

    monkeypatch.setattr(Transport, "write", counting)
    async with served(Finder()) as peer:
        await peer.associate(CONTEXTS, user_information=UserInformation(maximum_length=1))
        await peer.send_message(FIND, CFindRQ(message_id=1), encoded(study()))
        _, response, data = await peer.receive_message()
        assert isinstance(response, CFindRSP)
        assert data is not None
        assert len(data) > 20_000
        assert (await peer.expect_message(CFindRSP)).status == 0
        await peer.release()
    assert max(heaps) <= 1024


async def test_a_closed_connection_has_ended_however_often_that_happens() -> None:
    # trio's epoll remembers who waits for the descriptor -1, which every closed socket has
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    core = UpperLayer(Role.REQUESTOR, max_pdu_length=16384)
    for _ in range(3):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        transport = Transport(stream, timeout=1, grace=1, quick_ack=True)
        await transport.aclose()
        assert not await transport.receive(core)
        with pytest.raises(TransportError):
            await transport.write([b"abcd"])
    await listeners[0].aclose()


async def test_a_c_get_that_waits_for_its_turn_does_not_take_the_instances_of_another(
    autojump_clock: object, tmp_path: Path
) -> None:
    statuses: list[int] = []

    async def script(peer: ScriptedPeer) -> None:
        first = await peer.expect_message(CGetRQ)
        await peer.expect_message(CCancelRQ)
        store = CStoreRQ(message_id=7, affected_sop_instance_uid="1.2.3")
        await peer.send_message(STORE, store, encoded(instance()))
        statuses.append((await peer.expect_message(CStoreRSP)).status)
        for request, status in ((first, 0xFE00), (None, 0)):
            request = request or await peer.expect_message(CGetRQ)
            message_id = request.message_id
            answer = CGetRSP(message_id_being_responded_to=message_id, status=dimse.Status(status))
            await peer.send_message(GET, answer)
        await peer.respond_to_release()

    async with scripted(script) as association:

        async def other() -> None:
            await association.get(study(), save_to=tmp_path)

        async with association.get(study()):
            association.start_soon(other)
            await trio.testing.wait_all_tasks_blocked()
    assert statuses == [dimse.Status.OUT_OF_RESOURCES]


async def test_a_peer_that_aborts_inside_a_c_get_is_no_failure_of_the_handler(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    class Giver(Echo):
        async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Dataset]:
            while request.association.is_open:
                await trio.lowlevel.checkpoint()
            yield instance()  # between the A-ABORT and the news of it

    with caplog.at_level(logging.WARNING):
        async with served(Giver()) as peer:
            await peer.associate(CONTEXTS)
            await peer.send_message(GET, CGetRQ(message_id=1), encoded(study()))
            await peer.abort()
    assert not caplog.records


async def test_the_time_for_a_response_begins_when_the_request_has_been_sent(
    autojump_clock: object,
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def take_slowly() -> None:
        peer = ScriptedPeer(theirs)
        await peer.accept()
        message, pdv = None, None
        while pdv is None or pdv.is_command or not pdv.is_last:
            [pdv] = (await peer.expect(PDataTF)).pdvs
            if pdv.is_command:
                message, _ = decode_command_untrusted(bytes(pdv.data))
            await trio.sleep(1)
        assert isinstance(message, CStoreRQ)
        await trio.sleep(20)
        answer = CStoreRSP(
            message_id_being_responded_to=message.message_id, status=dimse.Status.SUCCESS
        )
        await peer.send_message(pdv.context_id, answer)
        await peer.respond_to_release()

    timeouts = attrs.evolve(TIMEOUTS, response=50)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_slowly)
        async with dimse.associate_over(ours, timeouts=timeouts) as association:
            await association.store(instance(1_000_000))
            assert trio.current_time() > 80


async def test_a_data_set_that_is_not_read_to_its_end_leaves_no_generator_behind() -> None:
    # Python warns of an asynchronous generator that is collected before its end, and so would this
    data_set = IncomingDataSet(memory_limit=100, size_limit=100)
    data_set.feed(b"ab", False)
    async for chunk in data_set.chunks():
        assert chunk == b"ab"
        break
    gc.collect()


def test_tiny_fragments_count_for_what_they_cost_in_memory() -> None:
    # 1 MiB of one-byte fragments was 40 MiB of objects
    spool = Spool(1 << 20)
    count = 0
    while not spool.full:
        spool.append(b"ab")
        count += 1
    assert count < 30_000
    spool.close()
