"""Random walks over the sans-I/O core: one against chaos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dimse_trio.protocol.decode import decode_pdu_untrusted
from dimse_trio.protocol.dimse import DimseConnection
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import AbortReason, LocalProtocolError, RemoteProtocolError
from dimse_trio.protocol.events import DimseEvent, UpperLayerEvent
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CEchoRQ,
    CFindRQ,
    CStoreRQ,
    Message,
    encode_command,
)
from dimse_trio.protocol.pdus import PDU, PDV, Abort, AssociateRJ, PDataTF, ReleaseRP, ReleaseRQ
from dimse_trio.protocol.state import State
from dimse_trio.protocol.status import Status
from dimse_trio.protocol.upper_layer import MIN_PDATA_LIMIT, Role, UpperLayer
from protocol import strategies
from protocol.pair import ACCEPT, REQUEST

from .walks import ARTIM_RUNS, WALKS

HEADER = 6


context_ids = st.sampled_from([1, 3, 5]) | strategies.byte
small_messages = st.sampled_from(
    [
        CEchoRQ(message_id=1),
        CFindRQ(message_id=2),
        CStoreRQ(message_id=3),
        CCancelRQ(message_id_being_responded_to=2),
        CEchoRQ.response(message_id_being_responded_to=1, status=Status.SUCCESS),
        CFindRQ.response(message_id_being_responded_to=2, status=Status.PENDING),
    ]
)
messages = small_messages | strategies.messages


def pdata(context_id: int, message: Message, data: bytes | None, *, together: bool) -> list[PDU]:
    """A message's PDUs: a PDV each, or all in one."""
    pdvs = [PDV(context_id, True, True, encode_command(message, has_data_set=data is not None))]
    if data is not None:
        pdvs += [
            PDV(context_id, False, False, data[:3]),
            PDV(context_id, False, True, data[3:]),
        ]
    return [PDataTF(tuple(pdvs))] if together else [PDataTF((pdv,)) for pdv in pdvs]


message_pdus = st.builds(
    pdata, context_ids, messages, st.none() | st.binary(max_size=20), together=st.booleans()
)
wire_pdus = st.one_of(
    message_pdus,
    st.lists(strategies.pdus, max_size=2),
    st.sampled_from(
        [[REQUEST], [ACCEPT], [ReleaseRQ()], [ReleaseRP()], [Abort(0, 0)], [AssociateRJ(1, 1, 1)]]
    ),
)
headers = st.builds(
    lambda kind, length, rest: bytes((kind, 0)) + length.to_bytes(4, "big") + rest,
    st.integers(0, 8),
    st.sampled_from([0, 1, 4, 68, 128, 129, 16384, 1 << 20, (1 << 20) + 1, 0xFFFFFFFF]),
    st.binary(max_size=30),
)


def decode_all(data: bytes) -> list[PDU]:
    """The PDUs in what a core has emitted, which must be whole ones and nothing else."""
    pdus: list[PDU] = []
    while data:
        end = HEADER + int.from_bytes(data[2:HEADER], "big")
        assert end <= len(data)
        pdus.append(decode_pdu_untrusted(data[0], data[HEADER:end]))
        data = data[end:]
    return pdus


class CoreAgainstChaos(RuleBasedStateMachine):
    """Whatever a peer sends and a driver calls, in whatever order."""

    core: UpperLayer
    dimse: DimseConnection | None

    @initialize(
        role=st.sampled_from(Role),
        whole=st.booleans(),
        max_pdu_length=st.sampled_from([128, 16384, 1 << 21]),
        established=st.booleans(),
    )
    def begin(self, role: Role, whole: bool, max_pdu_length: int, established: bool) -> None:
        self.limit = max(max_pdu_length, MIN_PDATA_LIMIT) + HEADER
        self.waiting = 0
        self.left = False
        self.saw_eof = False
        self.dimse = None
        if whole:
            self.dimse = DimseConnection(role, max_pdu_length=max_pdu_length)
            self.core = self.dimse.upper_layer
        else:
            self.core = UpperLayer(role, max_pdu_length=max_pdu_length)
        if established:
            target = self.dimse or self.core
            if role is Role.REQUESTOR:
                target.associate(REQUEST)
                self.take(encode_pdu(ACCEPT))
            else:
                self.core.transport_connected()
                self.take(encode_pdu(REQUEST))
                target.accept(ACCEPT)
            assert self.core.state is State.ESTABLISHED

    # -- the peer --------------------------------------------------------------------------------

    def take(self, *blocks: bytes, drain: bool = True) -> list[Any]:
        """Bytes from the peer: no exception leaves, whatever they are."""
        events: list[Any] = []
        for block in blocks:
            self.core.receive_data(block)
            self.waiting += len(block)
            if drain:
                events += self.drain()
        return events

    @rule()
    def take_events(self) -> None:
        self.drain()

    def drain(self) -> list[Any]:
        next_event = self.core.next_event if self.dimse is None else self.dimse.next_event
        events: list[UpperLayerEvent | DimseEvent] = []
        while (event := next_event()) is not None:
            events.append(event)
        self.waiting = 0
        return events

    @rule(data=st.binary(max_size=60), drain=st.booleans())
    def receive_noise(self, data: bytes, drain: bool) -> None:
        self.take(data, drain=drain)

    @rule(data=headers, drain=st.booleans())
    def receive_claim(self, data: bytes, drain: bool) -> None:
        self.take(data, drain=drain)

    @rule(pdus=wire_pdus, cut=st.integers(0, 200), drain=st.booleans())
    def receive_pdus(self, pdus: list[PDU], cut: int, drain: bool) -> None:
        data = b"".join(map(encode_pdu, pdus))
        self.take(data[:cut], data[cut:], drain=drain)

    @rule(size=st.sampled_from([1 << 12, 1 << 18]))
    def receive_much(self, size: int) -> None:
        self.take(bytes(size))

    @rule()
    def receive_eof(self) -> None:
        self.core.receive_eof()
        self.saw_eof = True
        self.drain()
        assert self.core.state is State.IDLE

    # -- the driver ------------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """A local primitive: it works, or it is the caller's mistake and nothing has happened."""
        before = self.core.state, self.core.has_data_to_send, self.core.artim_starts
        try:
            function(*args, **kwargs)
        except LocalProtocolError:
            after = self.core.state, self.core.has_data_to_send, self.core.artim_starts
            assert before == after

    @rule()
    def associate(self) -> None:
        self.call((self.dimse or self.core).associate, REQUEST)

    @rule()
    def transport_connected(self) -> None:
        self.call(self.core.transport_connected)

    @rule()
    def accept(self) -> None:
        self.call((self.dimse or self.core).accept, ACCEPT)

    @rule(reason=strategies.byte)
    def reject(self, reason: int) -> None:
        self.call((self.dimse or self.core).reject, AssociateRJ(1, 1, reason))

    @rule()
    def release(self) -> None:
        self.call(self.core.release)

    @rule()
    def respond_to_release(self) -> None:
        self.call(self.core.respond_to_release)

    @rule()
    def abort(self) -> None:
        self.call(self.core.abort)

    @rule(reason=st.sampled_from(AbortReason))
    def violated(self, reason: AbortReason) -> None:
        self.call(self.core.violated, RemoteProtocolError("found above", reason))

    @rule()
    def artim_expired(self) -> None:
        self.call(self.core.artim_expired)
        if not self.core.artim_running:
            return
        raise AssertionError("ARTIM expired and still runs")

    @rule(context_id=context_ids, message=messages, has_data_set=st.booleans())
    def send_command(self, context_id: int, message: Message, has_data_set: bool) -> None:
        def send(dimse: DimseConnection) -> None:
            decode_all(dimse.command_pdus(context_id, message, has_data_set=has_data_set))

        if self.dimse is not None:
            self.call(send, self.dimse)

    @rule(context_id=context_ids, data=st.binary(max_size=300), is_last=st.booleans())
    def send_data_set(self, context_id: int, data: bytes, is_last: bool) -> None:
        def send(dimse: DimseConnection) -> None:
            pdus = dimse.data_set_pdus(context_id, data, is_last=is_last)
            decode_all(b"".join(header + fragment for header, fragment in pdus))

        if self.dimse is not None:
            self.call(send, self.dimse)

    # -- what holds ------------------------------------------------------------------------------

    @invariant()
    def artim_runs_where_it_should(self) -> None:
        assert self.core.artim_running == (self.core.state in ARTIM_RUNS)

    @invariant()
    def what_is_emitted_is_pdus(self) -> None:
        decode_all(self.core.data_to_send())

    @invariant()
    def memory_is_bounded(self) -> None:
        # what has not been looked at yet is the driver's to bound; of the rest, one PDU is kept
        assert len(self.core._buffer) <= self.limit + self.waiting

    @invariant()
    def an_end_closes_the_connection(self) -> None:
        if self.core.state is not State.IDLE:
            self.left = True
        elif self.left:
            assert self.core.close_transport or self.saw_eof

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        self.core.receive_eof()
        self.drain()
        assert self.core.state is State.IDLE
        assert not self.core.artim_running
        self.core.data_to_send()
        assert self.take(encode_pdu(REQUEST), bytes(5000)) == []
        assert not self.core.has_data_to_send
        assert len(self.core._buffer) == 0


CoreAgainstChaos.TestCase.settings = WALKS
TestCoreAgainstChaos = CoreAgainstChaos.TestCase
