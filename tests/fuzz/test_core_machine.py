"""Random walks over the sans-I/O core: one against chaos, and two joined that never quarrel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dimse_trio.protocol.acceptance import Policy, answer
from dimse_trio.protocol.decode import decode_pdu_untrusted
from dimse_trio.protocol.dimse import DimseConnection
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import AbortReason, LocalProtocolError, RemoteProtocolError
from dimse_trio.protocol.events import (
    Aborted,
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    DataSetFragment,
    DimseEvent,
    MessageReceived,
    ProviderAborted,
    Refused,
    ReleaseConfirmed,
    ReleaseRequested,
    UpperLayerEvent,
)
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CEchoRQ,
    CFindRQ,
    CStoreRQ,
    Message,
    encode_command,
)
from dimse_trio.protocol.pdus import (
    PDU,
    PDV,
    Abort,
    AssociateRJ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
    UserInformation,
)
from dimse_trio.protocol.state import State
from dimse_trio.protocol.status import Status
from dimse_trio.protocol.upper_layer import MIN_PDATA_LIMIT, Role, UpperLayer
from protocol import strategies
from protocol.pair import (
    ACCEPT,
    CT_IMAGE_STORAGE,
    EXPLICIT,
    IMPLICIT,
    REQUEST,
    STUDY_ROOT_FIND,
    UNLIMITED,
    VERIFICATION,
)

HEADER = 6
ARTIM_RUNS = (State.AWAITING_REQUEST, State.AWAITING_CLOSE)
WALKS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

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


@attrs.define
class Side:
    """One of two joined cores: what it has sent, what it has seen, and its wire to the other."""

    core: DimseConnection
    sent: list[tuple[int, Message, bytes | None]] = attrs.field(factory=list)
    seen: list[tuple[int, Message, bytes | None]] = attrs.field(factory=list)
    open_data_set: bytes | None = None
    events: list[DimseEvent] = attrs.field(factory=list)
    wire: bytearray = attrs.field(factory=bytearray)
    closed: bool = False

    @property
    def state(self) -> State:
        return self.core.upper_layer.state


class TwoJoinedCores(RuleBasedStateMachine):
    """Two of our own, driven by the rules, over a wire that cuts: neither accuses the other."""

    @initialize(
        unlimited=st.booleans(),
        max_pdu_length=st.sampled_from([128, 1000, 16384]),
    )
    def begin(self, unlimited: bool, max_pdu_length: int) -> None:
        self.unlimited = unlimited
        self.user_information = UserInformation(
            maximum_length=max_pdu_length,
            implementation_class_uid="1.2.3",
            asynchronous_operations=UNLIMITED if unlimited else None,
        )
        self.requestor = Side(DimseConnection(Role.REQUESTOR, max_pdu_length=max_pdu_length))
        self.acceptor = Side(DimseConnection(Role.ACCEPTOR, max_pdu_length=max_pdu_length))
        self.acceptor.core.upper_layer.transport_connected()
        self.requestor.core.associate(attrs.evolve(REQUEST, user_information=self.user_information))
        self.flush()

    def side(self, first: bool) -> tuple[Side, Side]:
        pair = self.requestor, self.acceptor
        return pair if first else pair[::-1]

    def flush(self) -> None:
        """What the cores have to say by themselves goes on their wires; closes are closes."""
        for one in (self.requestor, self.acceptor):
            one.wire += one.core.upper_layer.data_to_send()
            one.closed = one.closed or one.core.upper_layer.close_transport

    def on_event(self, side: Side, event: DimseEvent) -> None:
        """No accusation; messages arrive as they were sent."""
        match event:
            case MessageReceived(context_id, message, has_data_set):
                side.open_data_set = b"" if has_data_set else None
                if not has_data_set:
                    side.seen.append((context_id, message, None))
                else:
                    side.seen.append((context_id, message, b""))
            case DataSetFragment(data, is_last):
                assert side.open_data_set is not None
                side.open_data_set += bytes(data)
                if is_last:
                    context_id, message, _ = side.seen.pop()
                    side.seen.append((context_id, message, side.open_data_set))
                    side.open_data_set = None
            case ProviderAborted(error):
                assert error is None, error
            case Refused(error):
                raise AssertionError(error)
            case AssociateRequested() | AssociateAccepted() | AssociateRejected():
                side.events.append(event)
            case ReleaseRequested() | ReleaseConfirmed() | Aborted():
                side.events.append(event)
            case _:
                raise AssertionError(event)

    @rule(first=st.booleans(), size=st.integers(1, 400))
    def deliver(self, first: bool, size: int) -> None:
        source, target = self.side(first)
        block = bytes(source.wire[:size])
        del source.wire[:size]
        if target.closed or target.state is State.IDLE:
            return
        if block:
            target.core.upper_layer.receive_data(block)
        elif source.closed:
            target.core.upper_layer.receive_eof()
        while (event := target.core.next_event()) is not None:
            self.on_event(target, event)
        self.flush()

    @rule()
    def deliver_all(self) -> None:
        while self.requestor.wire or self.acceptor.wire:
            self.deliver(True, 100_000)
            self.deliver(False, 100_000)

    @precondition(lambda self: self.acceptor.state is State.AWAITING_LOCAL_RESPONSE)
    @rule(yes=st.sampled_from([True, True, True, False]))
    def answer(self, yes: bool) -> None:
        request = self.acceptor.events[0]
        assert isinstance(request, AssociateRequested)
        if yes:
            window = 0 if self.unlimited else 1
            policy = Policy(
                {
                    VERIFICATION: (IMPLICIT,),
                    CT_IMAGE_STORAGE: (EXPLICIT,),
                    STUDY_ROOT_FIND: (IMPLICIT,),
                },
                max_invoked=window,
                max_performed=window,
            )
            own = attrs.evolve(self.user_information, asynchronous_operations=None)
            self.acceptor.core.accept(answer(request.request, policy, user_information=own))
        else:
            self.acceptor.core.reject(AssociateRJ(1, 1, 1))
        self.flush()

    def send(self, side: Side, context_id: int, message: Message, data: bytes | None) -> None:
        side.wire += side.core.command_pdus(context_id, message, has_data_set=data is not None)
        if data is not None:
            for header, fragment in side.core.data_set_pdus(context_id, data, is_last=True):
                side.wire += header + fragment
            data += b"\0" * (len(data) % 2)
        side.sent.append((context_id, message, data))

    @rule(
        first=st.booleans(),
        kind=st.sampled_from([CEchoRQ, CFindRQ, CStoreRQ]),
        context_id=st.sampled_from([1, 3, 5]),
        data=st.none() | st.binary(max_size=2000),
    )
    def request(
        self,
        first: bool,
        kind: type[CEchoRQ | CFindRQ | CStoreRQ],
        context_id: int,
        data: bytes | None,
    ) -> None:
        side, _ = self.side(first)
        if side.state is not State.ESTABLISHED:
            return
        window = side.core.negotiated.max_invoked
        if window and len(side.core.invoked) >= window:
            return
        self.send(side, context_id, kind(message_id=side.core.next_message_id()), data)

    @rule(first=st.booleans(), final=st.booleans(), data=st.none() | st.binary(max_size=300))
    def respond(self, first: bool, final: bool, data: bytes | None) -> None:
        side, _ = self.side(first)
        if side.state not in (State.ESTABLISHED, State.AWAITING_LOCAL_RELEASE):
            return
        if not side.core.performing:
            return
        message_id, request = next(iter(side.core.performing.items()))
        status = Status.SUCCESS if final else Status.PENDING
        self.send(
            side, 1, request.response(message_id_being_responded_to=message_id, status=status), data
        )

    @rule(first=st.booleans())
    def cancel(self, first: bool) -> None:
        side, _ = self.side(first)
        if side.state is State.ESTABLISHED and side.core.invoked:
            message_id = next(iter(side.core.invoked))
            self.send(side, 5, CCancelRQ(message_id_being_responded_to=message_id), None)

    @rule(first=st.booleans())
    def release(self, first: bool) -> None:
        side, _ = self.side(first)
        if side.state is State.ESTABLISHED:
            side.core.upper_layer.release()
            self.flush()

    @rule(first=st.booleans())
    def respond_to_release(self, first: bool) -> None:
        side, _ = self.side(first)
        if side.state in (
            State.AWAITING_LOCAL_RELEASE,
            State.COLLISION_REQUESTOR_LOCAL,
            State.COLLISION_ACCEPTOR_LOCAL,
        ):
            side.core.upper_layer.respond_to_release()
            self.flush()

    @precondition(lambda self: len(self.requestor.sent) + len(self.acceptor.sent) > 4)
    @rule(first=st.booleans())
    def abort(self, first: bool) -> None:
        side, _ = self.side(first)
        if side.state in (State.ESTABLISHED, State.AWAITING_RELEASE_RP):
            side.core.upper_layer.abort()
            self.flush()

    @precondition(lambda self: len(self.requestor.sent) + len(self.acceptor.sent) > 8)
    @rule(first=st.booleans())
    def lose(self, first: bool) -> None:
        """The connection breaks for one side; the other sees the end after what is on the way."""
        side, _ = self.side(first)
        side.core.upper_layer.receive_eof()
        while (event := side.core.next_event()) is not None:
            self.on_event(side, event)
        side.closed = True

    @invariant()
    def artim_runs_where_it_should(self) -> None:
        for side in (self.requestor, self.acceptor):
            assert side.core.upper_layer.artim_running == (side.state in ARTIM_RUNS)

    @invariant()
    def messages_arrive_as_they_were_sent(self) -> None:
        for source, target in (self.side(True), self.side(False)):
            seen = target.seen
            if target.open_data_set is not None:
                seen = seen[:-1]
            assert seen == source.sent[: len(seen)]

    def teardown(self) -> None:
        if not hasattr(self, "requestor"):
            return
        for _ in range(3):
            self.deliver_all()
            for first in (True, False):
                self.respond_to_release(first)
        self.deliver_all()
        for side in (self.requestor, self.acceptor):
            if side.core.upper_layer.artim_running:
                side.core.upper_layer.artim_expired()
            side.core.upper_layer.receive_eof()
            while (event := side.core.next_event()) is not None:
                self.on_event(side, event)
            assert side.state is State.IDLE


TwoJoinedCores.TestCase.settings = WALKS
TestTwoJoinedCores = TwoJoinedCores.TestCase
