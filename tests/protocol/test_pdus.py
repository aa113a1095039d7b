"""PDUs to bytes and back: identity, and nothing but `MalformedPDU` for a peer's bytes."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimse_trio.protocol.decode import decode_pdu_untrusted
from dimse_trio.protocol.encode import encode_pdu, pdata_header
from dimse_trio.protocol.errors import AbortReason, LocalProtocolError, MalformedPDU
from dimse_trio.protocol.pdus import (
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    AsynchronousOperations,
    ContextResult,
    PDataTF,
    ProposedContext,
    ReleaseRP,
    ReleaseRQ,
    RoleSelection,
    SOPClassExtended,
    UnknownItem,
    UserIdentity,
    UserInformation,
)

from . import strategies
from .pair import ACCEPT, REQUEST

BY_CLASS = {
    AssociateRQ: strategies.associate_rqs,
    AssociateAC: strategies.associate_acs,
    AssociateRJ: strategies.associate_rjs,
    PDataTF: strategies.p_data_tfs,
    ReleaseRQ: st.just(ReleaseRQ()),
    ReleaseRP: st.just(ReleaseRP()),
    Abort: strategies.aborts,
}


def decoded(data: bytes) -> PDU:
    """The PDU in these bytes, which are one whole PDU."""
    assert int.from_bytes(data[2:6], "big") == len(data) - 6
    return decode_pdu_untrusted(data[0], data[6:])


@pytest.mark.parametrize("pdu_class", BY_CLASS, ids=lambda c: c.__name__)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_pdu_is_what_it_was_after_encoding_and_decoding(
    pdu_class: type, data: st.DataObject
) -> None:
    pdu = data.draw(BY_CLASS[pdu_class])
    encoded = encode_pdu(pdu)
    assert decoded(encoded) == pdu
    assert encode_pdu(decoded(encoded)) == encoded


@settings(max_examples=60, deadline=None)
@given(
    pdv=strategies.pdvs.filter(lambda pdv: len(pdv.data) > 0),
)
def test_the_header_before_a_lone_fragment_is_that_of_the_whole_pdu(pdv: PDV) -> None:
    header = pdata_header(
        pdv.context_id, len(pdv.data), is_command=pdv.is_command, is_last=pdv.is_last
    )
    assert header + pdv.data == encode_pdu(PDataTF((pdv,)))


def decoded_or_error(pdu_type: int, body: bytes) -> PDU | MalformedPDU:
    try:
        return decode_pdu_untrusted(pdu_type, body)
    except MalformedPDU as error:
        return error


@settings(max_examples=300, deadline=None)
@given(pdu_type=st.integers(0, 9), body=st.binary(max_size=200))
def test_random_bytes_raise_only_malformed_pdu(pdu_type: int, body: bytes) -> None:
    match decoded_or_error(pdu_type, body):
        case MalformedPDU() as error:
            known = pdu_type in range(1, 8)
            assert error.abort_reason == (6 if known else AbortReason.UNRECOGNIZED_PDU)
        case pdu:
            assert decoded(encode_pdu(pdu)) == pdu


@st.composite
def damaged_pdus(draw: st.DrawFn) -> tuple[int, bytes]:
    """A valid PDU with some bytes overwritten, inserted or removed."""
    data = bytearray(encode_pdu(draw(strategies.pdus)))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(6, len(data)))
        removed = draw(st.integers(0, 3))
        data[position : position + removed] = draw(st.binary(max_size=3))
    return data[0], bytes(data[6:])


@settings(max_examples=400, deadline=None)
@given(damaged_pdus())
def test_damaged_pdus_raise_only_malformed_pdu(damaged: tuple[int, bytes]) -> None:
    match decoded_or_error(*damaged):
        case MalformedPDU() as error:
            assert error.abort_reason == AbortReason.INVALID_PDU_PARAMETER_VALUE
        case pdu:
            assert decoded(encode_pdu(pdu)) == pdu


@settings(max_examples=150, deadline=None)
@given(pdu=strategies.pdus, data=st.data())
def test_a_shortened_pdu_is_malformed_or_a_shorter_pdu(pdu: PDU, data: st.DataObject) -> None:
    body = encode_pdu(pdu)[6:]
    cut = data.draw(st.integers(0, len(body)))
    shorter = decoded_or_error(encode_pdu(pdu)[0], body[:cut])
    assert type(shorter) in (type(pdu), MalformedPDU)


@pytest.mark.parametrize("pdu_type", [0x00, 0x08, 0x16, 0xFF])
def test_a_pdu_type_outside_the_standard_is_an_unrecognized_pdu(pdu_type: int) -> None:
    with pytest.raises(MalformedPDU, match=f"{pdu_type:#04x}") as raised:
        decode_pdu_untrusted(pdu_type, b"")
    assert raised.value.abort_reason == AbortReason.UNRECOGNIZED_PDU


def test_the_error_names_the_pdu_the_item_and_the_field() -> None:
    body = encode_pdu(REQUEST)[6:]
    at = body.index(bytes.fromhex("51 00 0004")) + 2
    damaged = body[:at] + b"\x00\x03" + body[at + 2 :]
    with pytest.raises(MalformedPDU, match=r"A-ASSOCIATE-RQ, item 0x50, item 0x51: maximum len"):
        decode_pdu_untrusted(1, damaged)


@pytest.mark.parametrize("length", [0, 1])
def test_a_pdv_without_room_for_its_header_is_malformed(length: int) -> None:
    with pytest.raises(MalformedPDU, match=f"a PDV of {length} bytes has no message control"):
        decode_pdu_untrusted(4, length.to_bytes(4, "big") + bytes(10))


def test_fragments_are_views_of_what_was_received_not_copies() -> None:
    body = bytearray(encode_pdu(PDataTF((PDV(1, False, True, b"abcd"),)))[6:])
    pdu = decode_pdu_untrusted(4, memoryview(body))
    assert isinstance(pdu, PDataTF)
    body[-1:] = b"D"
    assert pdu.pdvs[0].data == b"abcD"


def test_an_empty_p_data_tf_is_decoded_to_no_pdvs() -> None:
    assert decode_pdu_untrusted(4, b"") == PDataTF(())


def test_unknown_items_and_sub_items_survive_decoding_and_encoding() -> None:
    information = attrs.evolve(
        REQUEST.user_information,
        unknown=(UnknownItem(0x5A, b"private"), UnknownItem(0x00, b"")),
    )
    for pdu in (REQUEST, ACCEPT):
        odd = attrs.evolve(pdu, user_information=information, unknown=(UnknownItem(0xF0, b"\1"),))
        assert decoded(encode_pdu(odd)) == odd


def test_a_user_identity_never_shows_its_secrets() -> None:
    identity = UserIdentity(2, b"grace", b"hopper")
    request = attrs.evolve(REQUEST, user_information=UserInformation(user_identity=identity))
    assert "grace" not in repr(request)
    assert "hopper" not in repr(request)


UNENCODABLE = {
    "AE title of 17 characters": attrs.evolve(REQUEST, called_ae_title="A" * 17),
    "AE title outside latin-1": attrs.evolve(REQUEST, calling_ae_title="记录"),
    "UID outside latin-1": attrs.evolve(REQUEST, application_context="1.٢"),
    "version name outside latin-1": UserInformation(implementation_version_name="μPACS"),
    "context ID 256": attrs.evolve(REQUEST, contexts=(ProposedContext(256, "1", ("2",)),)),
    "negative context ID": attrs.evolve(ACCEPT, results=(ContextResult(-1, 0, "2"),)),
    "result 256": attrs.evolve(ACCEPT, results=(ContextResult(1, 256, "2"),)),
    "protocol version of 17 bits": attrs.evolve(REQUEST, protocol_version=1 << 16),
    "maximum length of 33 bits": UserInformation(maximum_length=1 << 32),
    "negative maximum length": UserInformation(maximum_length=-1),
    "window of 17 bits": UserInformation(asynchronous_operations=AsynchronousOperations(1, 65536)),
    "identity type 256": UserInformation(user_identity=UserIdentity(256, b"")),
    "identity of 64 KiB": UserInformation(user_identity=UserIdentity(3, bytes(65536))),
    "item of 64 KiB": UserInformation(sop_class_extended=(SOPClassExtended("1", bytes(65535)),)),
    "user information of 64 KiB": UserInformation(
        roles=tuple(RoleSelection("1" * 60, True, True) for _ in range(1000))
    ),
    "item type 256": attrs.evolve(REQUEST, unknown=(UnknownItem(256, b""),)),
    "reject reason 256": AssociateRJ(1, 1, 256),
    "abort reason 256": Abort(2, 256),
    "PDV on context 256": PDataTF((PDV(256, True, True, b""),)),
}


@pytest.mark.parametrize("what", UNENCODABLE)
def test_a_value_that_does_not_fit_its_field_is_a_local_error(what: str) -> None:
    value = UNENCODABLE[what]
    if isinstance(value, UserInformation):
        value = attrs.evolve(REQUEST, user_information=value)
    with pytest.raises(LocalProtocolError):
        encode_pdu(value)
