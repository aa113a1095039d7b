"""The DIMSE layer: Message IDs, operations under way, and the window."""

from __future__ import annotations

import pytest

from dimse_trio.protocol.dimse import DimseConnection
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import AbortReason, LocalProtocolError
from dimse_trio.protocol.events import (
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    DimseEvent,
    MessageReceived,
    ProviderAborted,
    ReleaseConfirmed,
    ReleaseRequested,
)
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CStoreRQ,
    Message,
    encode_command,
)
from dimse_trio.protocol.pdus import (
    PDV,
    AssociateRJ,
    AsynchronousOperations,
    PDataTF,
)
from dimse_trio.protocol.state import State
from dimse_trio.protocol.upper_layer import Role

from .pair import ACCEPT, REQUEST, UNLIMITED, ConnectionPair, receive

FIND = CFindRQ(message_id=9)


def give(
    sender: DimseConnection, receiver: DimseConnection, message: Message, context_id: int = 5
) -> list[DimseEvent]:
    """What the receiver sees of a message without data set."""
    return receive(receiver, [sender.command_pdus(context_id, message, has_data_set=False)])


def test_a_pair_is_established_and_released() -> None:
    pair = ConnectionPair()
    pair.requestor.associate(REQUEST)
    assert pair.transfer() == ([], [AssociateRequested(REQUEST)])
    pair.acceptor.accept(ACCEPT)
    assert pair.transfer() == ([AssociateAccepted(ACCEPT)], [])
    pair.requestor.upper_layer.release()
    assert pair.transfer() == ([], [ReleaseRequested(collision=False)])
    pair.acceptor.upper_layer.respond_to_release()
    assert pair.transfer() == ([ReleaseConfirmed()], [])
    assert pair.requestor.upper_layer.state is State.IDLE


def test_a_rejected_pair_has_negotiated_nothing() -> None:
    pair = ConnectionPair()
    pair.requestor.associate(REQUEST)
    pair.transfer()
    pair.acceptor.reject(AssociateRJ(1, 1, 7))
    assert pair.transfer() == ([AssociateRejected(AssociateRJ(1, 1, 7))], [])
    for core in (pair.requestor, pair.acceptor):
        with pytest.raises(LocalProtocolError, match="has not been accepted"):
            core.negotiated  # noqa: B018


def test_both_sides_agree_on_what_was_negotiated() -> None:
    pair = ConnectionPair.established(window=AsynchronousOperations(3, 2))
    one, other = pair.requestor.negotiated, pair.acceptor.negotiated
    assert one.accepted.keys() == other.accepted.keys() == {1, 3, 5}
    assert [refused.context_id for refused in one.refused] == [7]
    assert (one.max_invoked, one.max_performed) == (3, 2)
    assert (other.max_invoked, other.max_performed) == (2, 3)


@pytest.mark.parametrize("role", Role)
def test_before_a_request_nothing_can_be_answered_or_sent(role: Role) -> None:
    core = DimseConnection(role, max_pdu_length=0)
    with pytest.raises(LocalProtocolError):
        core.accept(ACCEPT)
    with pytest.raises(LocalProtocolError):
        core.reject(AssociateRJ(1, 1, 1))
    with pytest.raises(LocalProtocolError):
        core.command_pdus(1, FIND, has_data_set=True)
    with pytest.raises(LocalProtocolError):
        list(core.data_set_pdus(1, b"ab", is_last=True))
    assert core.invoked == {}


# Message IDs


def test_message_ids_count_up_from_1_and_wrap_around_to_it() -> None:
    core = DimseConnection(Role.REQUESTOR, max_pdu_length=0)
    ids = [core.next_message_id() for _ in range(65536)]
    assert ids == [*range(1, 65536), 1]


def test_a_message_id_in_use_is_not_handed_out() -> None:
    core = ConnectionPair.established().requestor
    for message_id in (1, 2, 4):
        core.command_pdus(1, CEchoRQ(message_id=message_id), has_data_set=False)
    assert [core.next_message_id() for _ in range(3)] == [3, 5, 6]


def test_with_every_message_id_in_use_there_is_no_other() -> None:
    core = ConnectionPair.established().requestor
    for message_id in range(1, 65536):
        core.command_pdus(1, CEchoRQ(message_id=message_id), has_data_set=False)
    with pytest.raises(LocalProtocolError, match="65535 operations"):
        core.next_message_id()
    receive(core, [p_data(CEchoRSP(message_id_being_responded_to=700, status=0))])
    assert core.next_message_id() == 700


# Operations


def p_data(message: Message, context_id: int = 5) -> bytes:
    """The peer's message without data set, in one PDU."""
    command = encode_command(message, has_data_set=False)
    return encode_pdu(PDataTF((PDV(context_id, True, True, command),)))


def answer_find(status: int) -> CFindRSP:
    return CFindRSP(message_id_being_responded_to=9, status=status)


def test_an_operation_is_outstanding_until_its_final_response() -> None:
    pair = ConnectionPair.established()
    assert give(pair.requestor, pair.acceptor, FIND) == [MessageReceived(5, FIND, False)]
    assert pair.requestor.invoked[9].request == FIND
    assert pair.requestor.invoked[9].context_id == 5
    assert pair.acceptor.performing == {9: FIND}

    for status in (0xFF00, 0xFF01):
        give(pair.acceptor, pair.requestor, answer_find(status))
        assert pair.requestor.invoked.keys() == pair.acceptor.performing.keys() == {9}

    give(pair.acceptor, pair.requestor, answer_find(0xA700))
    assert pair.requestor.invoked == {}
    assert pair.acceptor.performing == {}


def test_a_cancel_is_noted_and_the_operation_stays_outstanding() -> None:
    pair = ConnectionPair.established()
    give(pair.requestor, pair.acceptor, FIND)
    assert not pair.requestor.invoked[9].cancel_sent
    cancel = CCancelRQ(message_id_being_responded_to=9)
    assert give(pair.requestor, pair.acceptor, cancel) == [MessageReceived(5, cancel, False)]
    assert pair.requestor.invoked[9].cancel_sent
    assert pair.acceptor.performing == {9: FIND}
    give(pair.acceptor, pair.requestor, answer_find(0xFE00))
    assert pair.requestor.invoked == {}


def test_a_cancel_for_an_unknown_operation_or_on_another_context_is_delivered() -> None:
    pair = ConnectionPair.established()
    cancel = CCancelRQ(message_id_being_responded_to=77)
    assert give(pair.requestor, pair.acceptor, cancel, 1) == [MessageReceived(1, cancel, False)]
    assert pair.requestor.invoked == {}


def test_a_response_to_an_unknown_operation_is_delivered() -> None:
    pair = ConnectionPair.established()
    response = answer_find(0)
    assert give(pair.acceptor, pair.requestor, response) == [MessageReceived(5, response, False)]


def test_both_sides_may_use_the_same_message_id_at_once() -> None:
    pair = ConnectionPair.established()
    give(pair.requestor, pair.acceptor, FIND)
    store = CStoreRQ(message_id=9)
    assert give(pair.acceptor, pair.requestor, store, 3) == [MessageReceived(3, store, False)]
    for core in (pair.requestor, pair.acceptor):
        assert core.invoked.keys() == core.performing.keys() == {9}


def test_a_message_id_may_be_used_again_at_once_after_the_final_response() -> None:
    pair = ConnectionPair.established()
    for _ in range(3):
        assert give(pair.requestor, pair.acceptor, CEchoRQ(message_id=0), 1)
        done = CEchoRSP(message_id_being_responded_to=0, status=0)
        assert give(pair.acceptor, pair.requestor, done, 1) == [MessageReceived(1, done, False)]


def test_a_message_that_cannot_be_encoded_leaves_no_trace() -> None:
    pair = ConnectionPair.established()
    core = pair.requestor
    with pytest.raises(LocalProtocolError):
        core.command_pdus(5, CFindRQ(message_id=70000), has_data_set=True)
    with pytest.raises(LocalProtocolError):
        core.command_pdus(300, FIND, has_data_set=True)
    assert core.invoked == {}

    give(core, pair.acceptor, FIND)
    with pytest.raises(LocalProtocolError):
        pair.acceptor.command_pdus(300, answer_find(0), has_data_set=False)
    assert pair.acceptor.performing == {9: FIND}


def test_a_message_that_cannot_be_sent_any_more_leaves_no_trace() -> None:
    core = ConnectionPair.established().requestor
    core.upper_layer.abort()
    with pytest.raises(LocalProtocolError, match="P_DATA_REQUEST"):
        core.command_pdus(5, FIND, has_data_set=True)
    assert core.invoked == {}


# Faults of the peer


def abort_of(core: DimseConnection, wire: bytes) -> ProviderAborted:
    """The last event of these bytes, which must be the end."""
    event = receive(core, [wire])[-1]
    assert isinstance(event, ProviderAborted)
    assert event.error is not None
    assert event.error.abort_reason == AbortReason.UNEXPECTED_PDU_PARAMETER
    assert core.upper_layer.state is State.AWAITING_CLOSE
    return event


def test_a_message_id_that_is_still_in_use_ends_the_association() -> None:
    pair = ConnectionPair.established(window=UNLIMITED)
    wire = p_data(FIND) + p_data(CEchoRQ(message_id=9), 1)
    event = abort_of(pair.acceptor, wire)
    assert "C-ECHO-RQ with Message ID 9" in str(event.error)


@pytest.mark.parametrize(
    ("window", "allowed"), [(None, 1), (AsynchronousOperations(3, 1), 3), (UNLIMITED, 50)]
)
def test_more_requests_than_the_window_allows_end_the_association(
    window: AsynchronousOperations | None, allowed: int
) -> None:
    pair = ConnectionPair.established(window=window)
    wire = [p_data(CFindRQ(message_id=number)) for number in range(allowed)]
    events = receive(pair.acceptor, wire)
    assert len(events) == len(pair.acceptor.performing) == allowed
    if window != UNLIMITED:
        event = abort_of(pair.acceptor, p_data(CFindRQ(message_id=100)))
        assert f"operations window is {allowed}" in str(event.error)


def test_a_cancel_does_not_count_in_the_window() -> None:
    pair = ConnectionPair.established()
    cancel = CCancelRQ(message_id_being_responded_to=9)
    events = receive(pair.acceptor, [p_data(FIND), p_data(cancel), p_data(cancel)])
    assert all(isinstance(event, MessageReceived) for event in events)


def test_p_data_without_a_pdv_is_taken_with_a_warning() -> None:
    core = ConnectionPair.established().acceptor
    assert receive(core, [encode_pdu(PDataTF(())), p_data(FIND)]) == [
        MessageReceived(5, FIND, False)
    ]
    assert list(core.upper_layer.warnings) == ["P-DATA-TF without a PDV"]


def test_a_core_is_receiving_until_a_message_is_whole() -> None:
    core = ConnectionPair.established().acceptor
    command = encode_command(CStoreRQ(message_id=1), has_data_set=True)
    wire = [
        encode_pdu(PDataTF((pdv,)))
        for pdv in (
            PDV(3, True, False, command[:8]),
            PDV(3, True, True, command[8:]),
            PDV(3, False, False, b"ab"),
            PDV(3, False, True, b"cd"),
        )
    ]
    assert not core.receiving
    for pdu in wire[:-1]:
        receive(core, [pdu[:9]])
        assert core.receiving
        receive(core, [pdu[9:]])
        assert core.receiving
        assert not core.upper_layer.receiving
    receive(core, [wire[-1]])
    assert not core.receiving
