"""Messages to PDVs and back, however they are cut on the way."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimse_trio.protocol.dimse import DimseConnection
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import AbortReason, MalformedCommand, RemoteProtocolError
from dimse_trio.protocol.events import DataSetFragment, MessageReceived, ProviderAborted
from dimse_trio.protocol.fragments import (
    DEFAULT_MAX_COMMAND_LENGTH,
    MAX_FRAGMENT,
    Assembler,
    fragment_length,
    split,
)
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CEchoRQ,
    CFindRQ,
    CStoreRQ,
    CStoreRSP,
    Message,
    Request,
    encode_command,
)
from dimse_trio.protocol.pdus import PDV, PDataTF
from dimse_trio.protocol.state import State

from . import strategies
from .pair import (
    ACCEPTED_CONTEXTS,
    UNLIMITED,
    ConnectionPair,
    WholeMessage,
    pieces,
    receive,
    whole_messages,
)


@pytest.mark.parametrize(
    ("peer_maximum", "length"),
    [
        (None, MAX_FRAGMENT),
        (0, MAX_FRAGMENT),
        (1, 2),
        (7, 2),
        (8, 2),
        (13, 2),
        (14, 2),
        (15, 2),
        (16, 4),
        (1024, 1012),
        (16383, 16370),
        (16384, 16372),
        (16385, 16372),
        (131072, 131060),
        (131078, MAX_FRAGMENT),
        (1 << 31, MAX_FRAGMENT),
        (0xFFFFFFFF, MAX_FRAGMENT),
    ],
)
def test_a_fragment_is_as_long_as_the_peer_takes_with_header_and_all(
    peer_maximum: int | None, length: int
) -> None:
    assert fragment_length(peer_maximum) == length


@given(st.integers(0, 0xFFFFFFFF))
def test_a_fragment_is_even_and_fits_any_maximum_that_can_hold_one(peer_maximum: int) -> None:
    length = fragment_length(peer_maximum)
    assert length % 2 == 0
    assert 2 <= length <= MAX_FRAGMENT <= 131072
    if peer_maximum >= 14:
        assert length + 6 + 6 <= peer_maximum


@given(st.binary(max_size=60), st.integers(1, 30).map(lambda n: 2 * n))
def test_fragments_join_to_what_was_split_and_only_one_is_last(data: bytes, length: int) -> None:
    fragments = list(split(data, length))
    assert b"".join(fragment for fragment, _ in fragments) == data
    assert [last for _, last in fragments] == [False] * (len(fragments) - 1) + [True]
    assert all(len(fragment) == length for fragment, _ in fragments[:-1])
    assert len(fragments[-1][0]) > 0 or not data


def pdvs_of(wire: bytes) -> list[PDV]:
    """The PDVs in these PDUs, of which each holds one."""
    pdvs = []
    while wire:
        assert wire[0] == 4
        length = int.from_bytes(wire[2:6], "big")
        assert int.from_bytes(wire[6:10], "big") == length - 4
        flags = wire[11]
        pdvs.append(PDV(wire[10], bool(flags & 1), bool(flags & 2), wire[12 : 6 + length]))
        wire = wire[6 + length :]
    return pdvs


def sent(core: DimseConnection, message: WholeMessage) -> bytes:
    """The PDUs of a message as the core writes them."""
    has_data_set = message.data_set is not None
    wire = core.command_pdus(message.context_id, message.message, has_data_set=has_data_set)
    if message.data_set is not None:
        wire += b"".join(
            header + bytes(fragment)
            for header, fragment in core.data_set_pdus(
                message.context_id, message.data_set, is_last=True
            )
        )
    return wire


@settings(max_examples=60, deadline=None)
@given(
    maximum=st.sampled_from([0, 1, 14, 30, 31, 64, 129, 16384, 1 << 31]),
    message=strategies.messages,
    data=st.binary(max_size=400),
)
def test_every_fragment_sent_is_even_and_within_the_peers_maximum(
    maximum: int, message: Message, data: bytes
) -> None:
    pair = ConnectionPair.established(max_pdu_length=maximum, window=UNLIMITED)
    wire = sent(pair.requestor, WholeMessage(3, message, data))
    pdvs = pdvs_of(wire)
    assert all(len(pdv.data) % 2 == 0 for pdv in pdvs)
    if maximum >= 14:
        assert all(12 + len(pdv.data) <= maximum for pdv in pdvs)
    command = b"".join(pdv.data for pdv in pdvs if pdv.is_command)
    assert command == encode_command(message, has_data_set=True)
    data_set = b"".join(pdv.data for pdv in pdvs if not pdv.is_command)
    assert data_set == data + b"\0" * (len(data) % 2)
    assert [pdv.is_command for pdv in pdvs] == sorted((p.is_command for p in pdvs), reverse=True)
    assert sum(pdv.is_last for pdv in pdvs) == 2


def test_a_data_set_may_be_given_in_parts() -> None:
    pair = ConnectionPair.established(max_pdu_length=30)
    core = pair.requestor
    assert core.fragment_length == 18
    data = bytes(range(40))
    parts = [*core.data_set_pdus(3, data[:36], is_last=False)]
    parts += core.data_set_pdus(3, data[36:], is_last=True)
    pdvs = pdvs_of(b"".join(header + bytes(fragment) for header, fragment in parts))
    assert [len(pdv.data) for pdv in pdvs] == [18, 18, 4]
    assert [pdv.is_last for pdv in pdvs] == [False, False, True]
    assert b"".join(bytes(pdv.data) for pdv in pdvs) == data


def test_an_empty_data_set_is_one_empty_last_fragment() -> None:
    pair = ConnectionPair.established()
    [(header, fragment)] = pair.requestor.data_set_pdus(3, b"", is_last=True)
    assert pdvs_of(header + bytes(fragment)) == [PDV(3, False, True, b"")]


# What arrives is what was sent.

data_sets = st.none() | st.binary(max_size=80)


@st.composite
def conversations(draw: st.DrawFn) -> list[WholeMessage]:
    """Messages of any kind, the requests with different Message IDs."""
    messages = draw(st.lists(strategies.messages, min_size=1, max_size=5))
    return [
        WholeMessage(
            draw(st.sampled_from(ACCEPTED_CONTEXTS)),
            attrs.evolve(message, message_id=number) if isinstance(message, Request) else message,
            draw(data_sets),
        )
        for number, message in enumerate(messages, 1)
    ]


cuts = st.lists(st.integers(0, 2000), max_size=12)


@settings(max_examples=60, deadline=None)
@given(conversation=conversations(), maximum=st.sampled_from([0, 8, 50, 131]), cuts=cuts)
def test_what_arrives_is_what_was_sent_however_the_stream_is_cut(
    conversation: list[WholeMessage], maximum: int, cuts: list[int]
) -> None:
    pair = ConnectionPair.established(max_pdu_length=maximum, window=UNLIMITED)
    wire = b"".join(sent(pair.requestor, message) for message in conversation)
    arrived = whole_messages(receive(pair.acceptor, pieces(wire, cuts)))
    assert arrived == [
        attrs.evolve(m, data_set=m.data_set and m.data_set + b"\0" * (len(m.data_set) % 2))
        for m in conversation
    ]
    assert pair.acceptor.upper_layer.state is State.ESTABLISHED


@st.composite
def arbitrary_pdus(draw: st.DrawFn) -> tuple[list[WholeMessage], bytes]:
    """A conversation, cut into PDVs and PDUs as no sane peer would, but some do."""
    conversation = draw(conversations())
    few_cuts = st.lists(st.integers(0, 120), max_size=3)
    pdvs: list[PDV] = []
    for whole in conversation:
        command = encode_command(whole.message, has_data_set=whole.data_set is not None)
        for is_command, data in ((True, command), (False, whole.data_set)):
            if data is None:
                continue
            fragments = list(pieces(data, draw(few_cuts)))
            pdvs += [
                PDV(whole.context_id, is_command, number == len(fragments), fragment)
                for number, fragment in enumerate(fragments, 1)
            ]
    pdus: list[PDataTF] = []
    while pdvs:
        count = draw(st.integers(0, 6))
        pdus.append(PDataTF(tuple(pdvs[:count])))
        pdvs = pdvs[count:]
        if count == 0 and len(pdus) > 40:
            pdus.append(PDataTF(tuple(pdvs)))
            break
    return conversation, b"".join(map(encode_pdu, pdus))


@settings(max_examples=80, deadline=None)
@given(arbitrary=arbitrary_pdus(), cuts=cuts)
def test_what_arrives_is_what_was_sent_however_pdvs_are_cut_and_gathered(
    arbitrary: tuple[list[WholeMessage], bytes], cuts: list[int]
) -> None:
    conversation, wire = arbitrary
    pair = ConnectionPair.established(max_pdu_length=0, window=UNLIMITED)
    assert whole_messages(receive(pair.acceptor, pieces(wire, cuts))) == conversation


def test_every_byte_of_a_conversation_may_come_alone() -> None:
    pair = ConnectionPair.established(window=UNLIMITED)
    conversation = [
        WholeMessage(1, CEchoRQ(message_id=1), None),
        WholeMessage(3, CStoreRQ(message_id=2), b"data set"),
        WholeMessage(5, CFindRQ(message_id=3), b""),
    ]
    wire = b"".join(sent(pair.requestor, message) for message in conversation)
    arrived = receive(pair.acceptor, (wire[i : i + 1] for i in range(len(wire))))
    assert whole_messages(arrived) == conversation


def test_several_messages_in_one_pdu_all_arrive() -> None:
    pair = ConnectionPair.established(window=UNLIMITED)
    pdvs = [
        PDV(1, True, True, encode_command(CEchoRQ(message_id=1), has_data_set=False)),
        PDV(3, True, True, encode_command(CStoreRQ(message_id=2), has_data_set=True)),
        PDV(3, False, True, b"ab"),
        PDV(1, True, True, encode_command(CEchoRQ(message_id=3), has_data_set=False)),
    ]
    events = receive(pair.acceptor, [encode_pdu(PDataTF(tuple(pdvs)))])
    assert [type(event) for event in events] == [
        MessageReceived,
        MessageReceived,
        DataSetFragment,
        MessageReceived,
    ]


# Sequences that are no message.

ECHO = encode_command(CEchoRQ(message_id=1), has_data_set=False)
STORE = encode_command(CStoreRQ(message_id=1), has_data_set=True)
RESPONSE = encode_command(CStoreRSP(message_id_being_responded_to=1, status=0), has_data_set=False)
CANCEL = encode_command(CCancelRQ(message_id_being_responded_to=1), has_data_set=False)
LONG = bytes(DEFAULT_MAX_COMMAND_LENGTH)

WRONG: dict[str, tuple[list[PDV], AbortReason, str]] = {
    "a data set first": (
        [PDV(3, False, True, b"ab")],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "a data set fragment without a command",
    ),
    "a data set after a message without one": (
        [PDV(1, True, True, ECHO), PDV(1, False, True, b"ab")],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "a data set fragment without a command",
    ),
    "a data set inside a command set": (
        [PDV(1, True, False, ECHO[:12]), PDV(1, False, True, b"ab")],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "a data set fragment without a command",
    ),
    "a command where a data set begins": (
        [PDV(3, True, True, STORE), PDV(3, True, True, ECHO)],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "a command fragment inside a data set",
    ),
    "a command inside a data set": (
        [PDV(3, True, True, STORE), PDV(3, False, False, b"ab"), PDV(3, True, True, ECHO)],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "a command fragment inside a data set",
    ),
    "another context inside a command set": (
        [PDV(1, True, False, ECHO[:12]), PDV(3, True, True, ECHO[12:])],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "context 3 inside a message on context 1",
    ),
    "another context for the data set": (
        [PDV(3, True, True, STORE), PDV(5, False, True, b"ab")],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "context 5 inside a message on context 3",
    ),
    "another context inside a data set": (
        [PDV(3, True, True, STORE), PDV(3, False, False, b"ab"), PDV(1, False, True, b"cd")],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "context 1 inside a message on context 3",
    ),
    "a refused context": (
        [PDV(7, True, True, ECHO)],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "C-ECHO-RQ on presentation context 7, which was not accepted",
    ),
    "a context never proposed": (
        [PDV(2, True, True, CANCEL)],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "C-CANCEL-RQ on presentation context 2, which was not accepted",
    ),
    "a response on a refused context": (
        [PDV(7, True, True, RESPONSE)],
        AbortReason.UNEXPECTED_PDU_PARAMETER,
        "C-STORE-RSP on presentation context 7",
    ),
    "a command set in one fragment too long": (
        [PDV(1, True, True, LONG + b"x")],
        AbortReason.INVALID_PDU_PARAMETER_VALUE,
        "a command set of more than 65536 bytes",
    ),
    "a command set in many fragments too long": (
        [PDV(1, True, False, LONG), PDV(1, True, False, b"x")],
        AbortReason.INVALID_PDU_PARAMETER_VALUE,
        "a command set of more than 65536 bytes",
    ),
    "a command set that is none": (
        [PDV(1, True, True, b"nonsense")],
        AbortReason.INVALID_PDU_PARAMETER_VALUE,
        "claims",
    ),
    "an empty command set": (
        [PDV(1, True, True, b"")],
        AbortReason.INVALID_PDU_PARAMETER_VALUE,
        "no DIMSE message",
    ),
}


@pytest.mark.parametrize("together", [True, False], ids=["one PDU", "PDU each"])
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_sequence_ends_the_association(what: str, together: bool) -> None:
    pdvs, reason, says = WRONG[what]
    pair = ConnectionPair.established()
    pdus = [PDataTF(tuple(pdvs))] if together else [PDataTF((pdv,)) for pdv in pdvs]
    events = receive(pair.acceptor, map(encode_pdu, pdus))
    last = events[-1]
    assert isinstance(last, ProviderAborted)
    assert last.error is not None
    assert says in str(last.error)
    assert last.error.abort_reason == reason
    core = pair.acceptor.upper_layer
    assert core.state is State.AWAITING_CLOSE
    assert core.artim_running
    assert core.data_to_send() == bytes.fromhex("07 00 00000004 00 00 02") + bytes((reason,))


def test_a_command_set_as_long_as_the_bound_is_taken() -> None:
    filler = DEFAULT_MAX_COMMAND_LENGTH - len(ECHO) - 8
    echo = CEchoRQ(message_id=1, unknown=((0x0009_0010, bytes(filler)),))
    command = encode_command(echo, has_data_set=False)
    assert len(command) == DEFAULT_MAX_COMMAND_LENGTH
    pair = ConnectionPair.established()
    [event] = receive(pair.acceptor, [encode_pdu(PDataTF((PDV(1, True, True, command),)))])
    assert event == MessageReceived(1, echo, has_data_set=False)


def test_an_assembler_is_idle_between_messages_only() -> None:
    assembler = Assembler()
    assert assembler.idle
    assert assembler.feed_untrusted(PDV(3, True, False, STORE[:10])) is None
    assert not assembler.idle
    assert assembler.feed_untrusted(PDV(3, True, True, STORE[10:])) is not None
    assert not assembler.idle
    assembler.feed_untrusted(PDV(3, False, False, b"ab"))
    assert not assembler.idle
    assembler.feed_untrusted(PDV(3, False, True, b""))
    assert assembler.idle


def error_of(pdvs: list[PDV]) -> RemoteProtocolError | None:
    assembler = Assembler()
    try:
        for pdv in pdvs:
            assembler.feed_untrusted(pdv)
    except RemoteProtocolError as error:
        return error
    return None


whole_commands = st.sampled_from([ECHO, STORE]).map(lambda data: PDV(1, True, True, data))


@settings(max_examples=200, deadline=None)
@given(st.lists(strategies.pdvs | whole_commands, max_size=6))
def test_random_pdvs_raise_only_remote_protocol_error(pdvs: list[PDV]) -> None:
    error = error_of(pdvs)
    if error is not None:
        assert (error.abort_reason == 6) is isinstance(error, MalformedCommand)
