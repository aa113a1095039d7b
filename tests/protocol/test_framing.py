"""Frames on the upper layer: bounds seen at the header, and bytes that are no PDU at all."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import AbortReason, MalformedPDU
from dimse_trio.protocol.events import (
    AssociateAccepted,
    AssociateRequested,
    PDataReceived,
    ProviderAborted,
    Refused,
)
from dimse_trio.protocol.pdus import (
    PDV,
    Abort,
    AssociateAC,
    AssociateRQ,
    PDataTF,
    UserInformation,
)
from dimse_trio.protocol.state import State
from dimse_trio.protocol.upper_layer import Role, UpperLayer

from .pair import ACCEPT, REQUEST, drain, feed, reach

P_DATA = PDataTF((PDV(1, True, True, b"abcd"),))


def aborted_with(core: UpperLayer, data: bytes) -> MalformedPDU:
    """The error with which an established association ends on these bytes."""
    core.receive_data(data)
    [event] = drain(core)
    assert isinstance(event, ProviderAborted)
    assert isinstance(event.error, MalformedPDU)
    assert core.state is State.AWAITING_CLOSE
    assert core.data_to_send() == encode_pdu(Abort(2, event.error.abort_reason))
    return event.error


@pytest.mark.parametrize("pdu_type", [0, 8, 0x47, 0xFF])
def test_an_unknown_pdu_type_is_refused_at_its_header(pdu_type: int) -> None:
    error = aborted_with(reach(State.ESTABLISHED), bytes((pdu_type, 0)) + b"\xff\xff\xff\xff")
    assert error.abort_reason == AbortReason.UNRECOGNIZED_PDU


@pytest.mark.parametrize("pdu_type", range(1, 8))
@pytest.mark.parametrize("role", Role)
def test_a_claim_of_4_gib_is_refused_at_the_header(pdu_type: int, role: Role) -> None:
    for maximum in (0, 16384):
        core = UpperLayer(role, max_pdu_length=maximum)
        core.state = State.ESTABLISHED
        error = aborted_with(core, bytes((pdu_type, 0)) + b"\xff\xff\xff\xff")
        assert "claims 4294967295 bytes" in str(error)
        assert error.abort_reason == AbortReason.INVALID_PDU_PARAMETER_VALUE


@pytest.mark.parametrize(
    ("pdu_type", "longest"),
    [(1, 1 << 20), (2, 1 << 20), (3, 128), (4, 1 << 20), (5, 128), (6, 128), (7, 128)],
)
def test_a_pdu_is_awaited_up_to_its_bound_and_no_further(pdu_type: int, longest: int) -> None:
    core = reach(State.ESTABLISHED)
    core.receive_data(bytes((pdu_type, 0)) + longest.to_bytes(4, "big"))
    assert drain(core) == []
    assert core.receiving
    beyond = bytes((pdu_type, 0)) + (longest + 1).to_bytes(4, "big")
    aborted_with(reach(State.ESTABLISHED), beyond)


@pytest.mark.parametrize(("announced", "taken"), [(1 << 21, 1 << 21), (0, 1 << 31)])
def test_p_data_is_awaited_as_long_as_announced(announced: int, taken: int) -> None:
    for length, is_taken in ((taken, True), (taken + 1, False)):
        core = UpperLayer(Role.REQUESTOR, max_pdu_length=announced)
        core.state = State.ESTABLISHED
        core.receive_data(b"\x04\x00" + length.to_bytes(4, "big"))
        assert (drain(core) == []) is is_taken
        assert not core.warnings


@pytest.mark.parametrize(
    ("first_bytes", "says"),
    [
        (bytes.fromhex("16 03 01 02 00 01"), "TLS handshake"),
        (bytes.fromhex("15 03 03 00 02 02"), "TLS alert"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"POST /dicom-web HTTP/1.1\r\n", "HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (b"OPTIONS * HTTP/1.1\r\n", "HTTP"),
        (b"\x0bMSH|^~\\&|", "HL7"),
    ],
)
def test_a_peer_that_speaks_something_else_is_told_apart(first_bytes: bytes, says: str) -> None:
    acceptor = reach(State.AWAITING_REQUEST)
    acceptor.receive_data(first_bytes)
    [event] = drain(acceptor)
    assert isinstance(event, Refused)
    assert says in str(event.error)
    assert acceptor.state is State.AWAITING_CLOSE

    error = aborted_with(reach(State.AWAITING_ACCEPT), first_bytes)
    assert says in str(error)


def test_other_first_bytes_are_not_given_a_name() -> None:
    error = aborted_with(reach(State.AWAITING_ACCEPT), b"SSH-2.0-OpenSSH\r\n")
    assert str(error) == "unrecognized PDU type 0x53"


def test_p_data_longer_than_announced_is_taken_with_one_warning() -> None:
    core = reach(State.ESTABLISHED)
    long = PDataTF((PDV(1, False, False, bytes(20000)),))
    for _ in range(3):
        assert feed(core, long) == [PDataReceived(long.pdvs)]
    [warning] = core.warnings
    assert "20006 bytes is longer than the announced 16384" in warning
    assert core.state is State.ESTABLISHED


@settings(max_examples=60, deadline=None)
@given(
    lost_by=st.sampled_from([b"\x04\x00\x00\x00\x00\x04\x00\x00\x00\x00", b"GET / HTTP/1.1"]),
    garbage=st.binary(max_size=40),
    cut=st.integers(0, 40),
)
def test_after_the_frame_is_lost_nothing_is_parsed_or_kept(
    lost_by: bytes, garbage: bytes, cut: int
) -> None:
    core = reach(State.ESTABLISHED)
    aborted_with(core, lost_by)
    assert not core.receiving
    for data in (garbage[:cut], garbage[cut:], encode_pdu(Abort(0, 0)), encode_pdu(REQUEST)):
        core.receive_data(data)
        assert drain(core) == []
    assert core.state is State.AWAITING_CLOSE
    assert not core.receiving
    assert not core.has_data_to_send
    core.receive_eof()
    assert core.state is State.IDLE


def test_what_came_before_the_frame_was_lost_is_delivered() -> None:
    core = reach(State.ESTABLISHED)
    core.receive_data(encode_pdu(P_DATA) + b"\xff" * 6 + encode_pdu(P_DATA))
    first, second = drain(core)
    assert first == PDataReceived(P_DATA.pdvs)
    assert isinstance(second, ProviderAborted)


def test_garbage_while_awaiting_the_close_is_answered_by_an_abort_at_most_once() -> None:
    core = reach(State.AWAITING_CLOSE)
    core.receive_data(b"\xff" * 60)
    assert drain(core) == []
    assert core.data_to_send() == encode_pdu(Abort(2, AbortReason.UNRECOGNIZED_PDU))
    core.receive_data(b"\xff" * 60)
    assert drain(core) == []
    assert not core.has_data_to_send


def test_after_the_end_bytes_are_not_looked_at() -> None:
    core = reach(State.ESTABLISHED)
    feed(core, Abort(0, 0))
    assert feed(core, P_DATA, REQUEST) == []
    assert core.state is State.IDLE


@pytest.mark.parametrize("pdu", [REQUEST, ACCEPT])
def test_a_large_negotiation_is_taken(pdu: AssociateRQ | AssociateAC) -> None:
    core = reach(State.AWAITING_REQUEST if pdu is REQUEST else State.AWAITING_ACCEPT)
    information = UserInformation(user_identity_response=bytes(60000))
    [event] = feed(core, attrs.evolve(pdu, user_information=information))
    assert isinstance(event, AssociateRequested | AssociateAccepted)
