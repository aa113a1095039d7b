"""Random walks over two sans-I/O cores that are joined, and never quarrel."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dimse_trio.protocol.acceptance import Policy, answer
from dimse_trio.protocol.dimse import DimseConnection
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
)
from dimse_trio.protocol.messages import CCancelRQ, CEchoRQ, CFindRQ, CStoreRQ, Message
from dimse_trio.protocol.pdus import AssociateRJ, UserInformation
from dimse_trio.protocol.state import State
from dimse_trio.protocol.status import Status
from dimse_trio.protocol.upper_layer import Role
from protocol.pair import (
    CT_IMAGE_STORAGE,
    EXPLICIT,
    IMPLICIT,
    REQUEST,
    STUDY_ROOT_FIND,
    UNLIMITED,
    VERIFICATION,
)

from .walks import ARTIM_RUNS, WALKS


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
