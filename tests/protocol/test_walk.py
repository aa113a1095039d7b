"""A random walk over the upper layer: whatever both sides and the network do, rules hold."""

from __future__ import annotations

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import LocalProtocolError
from dimse_trio.protocol.events import PDataReceived, UpperLayerEvent
from dimse_trio.protocol.pdus import (
    PDU,
    PDV,
    Abort,
    AssociateRJ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
)
from dimse_trio.protocol.state import TRANSITIONS, Event, State
from dimse_trio.protocol.upper_layer import UpperLayer

from .pair import ACCEPT, REACHABLE, REQUEST, drain, pieces, reach

PEER_PDUS: tuple[PDU, ...] = (
    REQUEST,
    attrs.evolve(REQUEST, protocol_version=0),
    attrs.evolve(REQUEST, application_context="1.2.3"),
    ACCEPT,
    AssociateRJ(1, 1, 1),
    PDataTF(()),
    PDataTF((PDV(1, True, True, b"abcd"), PDV(1, False, False, b""))),
    ReleaseRQ(),
    ReleaseRP(),
    Abort(0, 0),
    Abort(2, 99),
)

PRIMITIVES = {
    Event.ASSOCIATE_REQUEST: lambda core: core.associate(REQUEST),
    Event.TRANSPORT_INDICATION: UpperLayer.transport_connected,
    Event.ASSOCIATE_RESPONSE_ACCEPT: lambda core: core.accept(ACCEPT),
    Event.ASSOCIATE_RESPONSE_REJECT: lambda core: core.reject(AssociateRJ(1, 1, 1)),
    Event.P_DATA_REQUEST: lambda core: core.pdata_header(1, 4, is_command=True, is_last=True),
    Event.RELEASE_REQUEST: UpperLayer.release,
    Event.RELEASE_RESPONSE: UpperLayer.respond_to_release,
    Event.ABORT_REQUEST: UpperLayer.abort,
    Event.ARTIM_EXPIRED: UpperLayer.artim_expired,
}


class Walk(RuleBasedStateMachine):
    """One association, from any state that it can be in."""

    core: UpperLayer
    outstanding: bytes
    events: list[UpperLayerEvent]

    @initialize(state=st.sampled_from([s for s in REACHABLE if s is not State.IDLE]))
    def begin(self, state: State) -> None:
        self.core = reach(state)
        self.outstanding = b""  # of the peer's last PDU, on its way
        self.sent = b""
        self.eof = False
        self.in_frame = True  # no garbage yet

    def _after(self) -> None:
        self.events = drain(self.core)
        assert all(isinstance(event, UpperLayerEvent) for event in self.events)
        self.sent += self.core.data_to_send()
        assert not self.core.has_data_to_send

    @precondition(lambda self: self.core.state is not State.IDLE)
    @rule(event=st.sampled_from(list(PRIMITIVES)))
    def local_primitive(self, event: Event) -> None:
        before = self.core.state
        try:
            PRIMITIVES[event](self.core)
        except LocalProtocolError:
            assert (event, before) not in TRANSITIONS
            assert self.core.state is before
        else:
            assert self.core.state is TRANSITIONS[event, before][1]
        self._after()

    @precondition(lambda self: not self.outstanding)
    @rule(pdu=st.sampled_from(PEER_PDUS), cuts=st.lists(st.integers(0, 400), max_size=3))
    def the_peer_sends(self, pdu: PDU, cuts: list[int]) -> None:
        for piece in pieces(encode_pdu(pdu), cuts):
            self.core.receive_data(piece)
            self._after()
            if any(isinstance(event, PDataReceived) for event in self.events):
                assert self.core.state in (State.ESTABLISHED, State.AWAITING_RELEASE_RP)

    @precondition(lambda self: not self.outstanding)
    @rule(pdu=st.sampled_from(PEER_PDUS), cut=st.integers(1, 9))
    def the_peer_begins_a_pdu(self, pdu: PDU, cut: int) -> None:
        data = encode_pdu(pdu)
        before = self.core.state
        self.core.receive_data(data[:cut])
        self._after()
        self.outstanding = data[cut:]
        if self.outstanding and self.in_frame:
            assert self.core.state is before

    @precondition(lambda self: self.outstanding)
    @rule()
    def the_peer_ends_a_pdu(self) -> None:
        self.core.receive_data(self.outstanding)
        self.outstanding = b""
        self._after()

    @rule(data=st.binary(max_size=20))
    def the_peer_sends_garbage(self, data: bytes) -> None:
        self.core.receive_data(data)
        self.outstanding = b""
        self.in_frame = False
        self._after()

    @rule()
    def the_peer_closes(self) -> None:
        self.core.receive_eof()
        self._after()
        self.eof = True
        assert self.core.state is State.IDLE

    @invariant()
    def artim_runs_in_sta2_and_sta13_and_nowhere_else(self) -> None:
        waiting = self.core.state in (State.AWAITING_REQUEST, State.AWAITING_CLOSE)
        assert self.core.artim_running is waiting

    @invariant()
    def the_transport_is_closed_when_the_association_is_over(self) -> None:
        if self.core.close_transport:
            assert self.core.state is State.IDLE
        if self.core.state is State.IDLE:
            assert self.core.close_transport or self.eof

    @invariant()
    def what_is_sent_is_whole_pdus(self) -> None:
        rest = self.sent
        while rest:
            assert rest[0] in range(1, 8)
            rest = rest[6 + int.from_bytes(rest[2:6], "big") :]


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
