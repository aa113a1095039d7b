"""The life of an association on the upper layer, both sides, and how it ends."""

from __future__ import annotations

import attrs
import pytest

from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import AbortReason, LocalProtocolError, MalformedPDU
from dimse_trio.protocol.events import (
    Aborted,
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    PDataReceived,
    ProviderAborted,
    Refused,
    ReleaseConfirmed,
    ReleaseRequested,
)
from dimse_trio.protocol.pdus import (
    PDV,
    Abort,
    AssociateRJ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
    UserInformation,
)
from dimse_trio.protocol.state import State
from dimse_trio.protocol.upper_layer import Role

from .pair import ACCEPT, REACHABLE, REQUEST, drain, feed, reach

P_DATA = PDataTF((PDV(1, True, True, b"abcd"),))
BOTH_ROLES = pytest.mark.parametrize("role", Role, ids=lambda role: role.value)


# Establishment


def test_an_association_is_requested_indicated_accepted_and_confirmed() -> None:
    requestor = reach(State.IDLE, Role.REQUESTOR)
    acceptor = reach(State.AWAITING_REQUEST)

    requestor.associate(REQUEST)
    acceptor.receive_data(requestor.data_to_send())
    assert drain(acceptor) == [AssociateRequested(REQUEST)]
    assert acceptor.state is State.AWAITING_LOCAL_RESPONSE
    assert not acceptor.artim_running

    acceptor.accept(ACCEPT)
    requestor.receive_data(acceptor.data_to_send())
    assert drain(requestor) == [AssociateAccepted(ACCEPT)]
    assert requestor.state is acceptor.state is State.ESTABLISHED
    assert not requestor.has_data_to_send
    assert not acceptor.has_data_to_send


def test_after_a_rejection_the_requestor_closes_and_the_acceptor_awaits_that() -> None:
    requestor = reach(State.AWAITING_ACCEPT)
    acceptor = reach(State.AWAITING_LOCAL_RESPONSE)
    reject = AssociateRJ(result=2, source=3, reason=2)

    acceptor.reject(reject)
    assert acceptor.state is State.AWAITING_CLOSE
    assert acceptor.artim_running
    requestor.receive_data(acceptor.data_to_send())
    assert drain(requestor) == [AssociateRejected(reject)]
    assert requestor.state is State.IDLE
    assert requestor.close_transport

    acceptor.receive_eof()
    assert drain(acceptor) == []
    assert acceptor.state is State.IDLE
    assert not acceptor.artim_running


@pytest.mark.parametrize(
    ("change", "reject"),
    [
        ({"protocol_version": 0}, AssociateRJ(1, 2, 2)),
        ({"protocol_version": 2}, AssociateRJ(1, 2, 2)),
        ({"application_context": "1.2.840.10008.3.1.1.2"}, AssociateRJ(1, 1, 2)),
        ({"application_context": ""}, AssociateRJ(1, 1, 2)),
        ({"application_context": "1.2", "protocol_version": 0}, AssociateRJ(1, 2, 2)),
    ],
)
def test_a_request_that_the_provider_cannot_serve_is_rejected_by_it(
    change: dict[str, object], reject: AssociateRJ
) -> None:
    acceptor = reach(State.AWAITING_REQUEST)
    [refused] = feed(acceptor, attrs.evolve(REQUEST, **change))
    assert isinstance(refused, Refused)
    assert acceptor.data_to_send() == encode_pdu(reject)
    assert acceptor.state is State.AWAITING_CLOSE
    assert acceptor.artim_running


@pytest.mark.parametrize("version", [1, 3, 0xFFFF])
def test_of_the_protocol_version_only_bit_0_counts(version: int) -> None:
    request = attrs.evolve(REQUEST, protocol_version=version)
    assert feed(reach(State.AWAITING_REQUEST), request) == [AssociateRequested(request)]


def test_the_titles_of_an_acceptance_are_not_tested() -> None:
    accept = attrs.evolve(ACCEPT, called_ae_title="OTHER", calling_ae_title="")
    assert feed(reach(State.AWAITING_ACCEPT), accept) == [AssociateAccepted(accept)]


def test_a_peer_that_does_not_ask_in_time_is_left_alone() -> None:
    acceptor = reach(State.AWAITING_REQUEST)
    acceptor.artim_expired()
    assert acceptor.state is State.IDLE
    assert acceptor.close_transport
    assert not acceptor.artim_running
    assert drain(acceptor) == []
    assert not acceptor.has_data_to_send


TOO_LONG = UserInformation(implementation_class_uid="1" * 65536)


def test_a_request_that_cannot_be_encoded_leaves_the_core_where_it_was() -> None:
    core = reach(State.IDLE, Role.REQUESTOR)
    with pytest.raises(LocalProtocolError):
        core.associate(attrs.evolve(REQUEST, user_information=TOO_LONG))
    assert core.state is State.IDLE
    assert not core.has_data_to_send
    core.associate(REQUEST)
    assert core.data_to_send() == encode_pdu(REQUEST)


def test_an_answer_that_cannot_be_encoded_leaves_the_core_where_it_was() -> None:
    core = reach(State.AWAITING_LOCAL_RESPONSE)
    with pytest.raises(LocalProtocolError):
        core.accept(attrs.evolve(ACCEPT, user_information=TOO_LONG))
    with pytest.raises(LocalProtocolError):
        core.reject(AssociateRJ(1, 1, 256))
    assert core.state is State.AWAITING_LOCAL_RESPONSE
    assert not core.has_data_to_send
    assert not core.artim_running
    core.reject(AssociateRJ(1, 1, 1))
    assert core.state is State.AWAITING_CLOSE


# Data


@BOTH_ROLES
def test_p_data_is_indicated_fragment_by_fragment(role: Role) -> None:
    pdvs = (PDV(1, True, True, b"ab"), PDV(1, False, False, b""), PDV(3, False, True, b"c"))
    assert feed(reach(State.ESTABLISHED, role), PDataTF(pdvs)) == [PDataReceived(pdvs)]


def test_pdus_are_decoded_one_at_a_time_as_events_are_taken() -> None:
    core = reach(State.ESTABLISHED)
    core.receive_data(encode_pdu(P_DATA) + encode_pdu(ReleaseRQ()) + b"\x04")
    assert core.next_event() == PDataReceived(P_DATA.pdvs)
    assert core.state is State.ESTABLISHED
    assert core.next_event() == ReleaseRequested(collision=False)
    assert core.state is State.AWAITING_LOCAL_RELEASE
    assert core.next_event() is None
    assert core.receiving


def test_a_core_is_receiving_while_a_pdu_is_incomplete() -> None:
    core = reach(State.ESTABLISHED)
    assert not core.receiving
    data = encode_pdu(P_DATA)
    core.receive_data(data[:-1])
    assert drain(core) == []
    assert core.receiving
    core.receive_data(data[-1:])
    assert drain(core) == [PDataReceived(P_DATA.pdvs)]
    assert not core.receiving


def test_data_is_sent_while_the_peer_awaits_the_release_response() -> None:
    core = reach(State.AWAITING_LOCAL_RELEASE)
    header = core.pdata_header(3, 4, is_command=False, is_last=True)
    assert header == bytes.fromhex("04 00 0000000A 00000006 03 02")
    assert core.state is State.AWAITING_LOCAL_RELEASE


# Release


@BOTH_ROLES
def test_after_a_release_the_asking_side_closes_and_the_other_awaits_that(role: Role) -> None:
    asking = reach(State.ESTABLISHED, role)
    other = reach(State.ESTABLISHED, next(r for r in Role if r is not role))

    asking.release()
    other.receive_data(asking.data_to_send())
    assert drain(other) == [ReleaseRequested(collision=False)]
    other.respond_to_release()
    assert other.state is State.AWAITING_CLOSE
    assert other.artim_running

    asking.receive_data(other.data_to_send())
    assert drain(asking) == [ReleaseConfirmed()]
    assert asking.state is State.IDLE
    assert asking.close_transport
    other.receive_eof()
    assert other.state is State.IDLE


@BOTH_ROLES
def test_p_data_after_a_release_request_is_still_delivered(role: Role) -> None:
    core = reach(State.AWAITING_RELEASE_RP, role)
    assert feed(core, P_DATA, P_DATA) == [PDataReceived(P_DATA.pdvs)] * 2
    assert core.state is State.AWAITING_RELEASE_RP
    assert feed(core, ReleaseRP()) == [ReleaseConfirmed()]
    assert core.state is State.IDLE


def test_when_releases_collide_the_acceptor_is_answered_first() -> None:
    requestor = reach(State.ESTABLISHED, Role.REQUESTOR)
    acceptor = reach(State.ESTABLISHED, Role.ACCEPTOR)
    requestor.release()
    acceptor.release()
    from_requestor, from_acceptor = requestor.data_to_send(), acceptor.data_to_send()
    requestor.receive_data(from_acceptor)
    acceptor.receive_data(from_requestor)
    assert drain(requestor) == drain(acceptor) == [ReleaseRequested(collision=True)]
    assert requestor.state is State.COLLISION_REQUESTOR_LOCAL
    assert acceptor.state is State.COLLISION_ACCEPTOR_PEER

    with pytest.raises(LocalProtocolError):
        acceptor.respond_to_release()
    requestor.respond_to_release()
    assert requestor.state is State.COLLISION_REQUESTOR_PEER
    acceptor.receive_data(requestor.data_to_send())
    assert drain(acceptor) == [ReleaseConfirmed()]
    assert acceptor.state is State.COLLISION_ACCEPTOR_LOCAL

    acceptor.respond_to_release()
    assert acceptor.state is State.AWAITING_CLOSE
    assert acceptor.artim_running
    requestor.receive_data(acceptor.data_to_send())
    assert drain(requestor) == [ReleaseConfirmed()]
    assert requestor.state is State.IDLE
    assert requestor.close_transport

    acceptor.receive_eof()
    assert acceptor.state is State.IDLE


# Abort


CONNECTED = [
    state
    for state in REACHABLE
    if state not in (State.IDLE, State.AWAITING_REQUEST, State.AWAITING_CLOSE)
]
EACH_CONNECTED = pytest.mark.parametrize("state", CONNECTED, ids=lambda state: state.value)


@EACH_CONNECTED
def test_a_local_abort_is_sent_and_the_close_awaited(state: State) -> None:
    core = reach(state)
    core.abort()
    assert core.data_to_send() == encode_pdu(Abort(0, 0))
    assert core.state is State.AWAITING_CLOSE
    assert core.artim_running
    core.artim_expired()
    assert core.state is State.IDLE
    assert core.close_transport
    assert drain(core) == []


@EACH_CONNECTED
@pytest.mark.parametrize(("source", "reason"), [(0, 0), (2, 6), (1, 77)])
def test_the_peers_abort_is_indicated_with_its_numbers(
    state: State, source: int, reason: int
) -> None:
    core = reach(state)
    assert feed(core, Abort(source, reason)) == [Aborted(source, reason)]
    assert core.state is State.IDLE
    assert core.close_transport
    assert not core.has_data_to_send


@pytest.mark.parametrize("state", REACHABLE, ids=lambda state: state.value)
def test_the_end_of_the_stream_is_an_abort_exactly_where_an_association_was(state: State) -> None:
    core = reach(state)
    core.receive_eof()
    assert drain(core) == ([ProviderAborted(None)] if state in CONNECTED else [])
    assert core.state is State.IDLE
    assert not core.artim_running
    assert not core.has_data_to_send


def test_the_end_of_the_stream_inside_a_pdu_is_an_abort() -> None:
    core = reach(State.ESTABLISHED)
    core.receive_data(encode_pdu(P_DATA)[:-1])
    assert drain(core) == []
    core.receive_eof()
    assert drain(core) == [ProviderAborted(None)]


def test_an_unexpected_pdu_is_answered_by_an_abort_that_says_so() -> None:
    core = reach(State.ESTABLISHED)
    [event] = feed(core, ACCEPT)
    assert isinstance(event, ProviderAborted)
    assert str(event.error) == "ASSOCIATE_AC_PDU in Sta6 (ESTABLISHED)"
    assert core.data_to_send() == encode_pdu(Abort(2, AbortReason.UNEXPECTED_PDU))


def test_the_first_pdu_of_a_peer_must_be_a_request() -> None:
    core = reach(State.AWAITING_REQUEST)
    [event] = feed(core, P_DATA)
    assert isinstance(event, Refused)
    assert "P_DATA_TF_PDU" in str(event.error)
    assert core.data_to_send() == encode_pdu(Abort(0, 0))
    assert core.state is State.AWAITING_CLOSE


def test_a_fault_found_by_a_layer_above_is_an_abort_with_its_reason() -> None:
    core = reach(State.ESTABLISHED)
    error = MalformedPDU("bad", AbortReason.UNEXPECTED_PDU_PARAMETER)
    core.violated(error)
    assert drain(core) == [ProviderAborted(error)]
    assert core.data_to_send() == encode_pdu(Abort(2, 5))
    assert core.state is State.AWAITING_CLOSE


def test_while_awaiting_the_close_pdus_are_read_and_ignored() -> None:
    core = reach(State.AWAITING_CLOSE)
    assert feed(core, P_DATA, ReleaseRQ(), ReleaseRP(), ACCEPT, AssociateRJ(1, 1, 1)) == []
    assert core.state is State.AWAITING_CLOSE
    assert not core.has_data_to_send
    assert feed(core, REQUEST) == []
    assert core.data_to_send() == encode_pdu(Abort(2, AbortReason.UNEXPECTED_PDU))
    assert feed(core, Abort(0, 0)) == []
    assert core.state is State.IDLE
    assert core.close_transport
