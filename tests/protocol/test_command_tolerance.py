"""Command sets as other implementations write them (INTEROP.md, quirks 35 to 42)."""

from __future__ import annotations

import pytest

from dimse_trio.protocol.elements import PaddedUID
from dimse_trio.protocol.errors import AbortReason, MalformedCommand
from dimse_trio.protocol.messages import (
    CEchoRQ,
    CFindRQ,
    CFindRSP,
    CGetRSP,
    CMoveRQ,
    CStoreRQ,
    CStoreRSP,
    NGetRQ,
    Request,
    decode_command_untrusted,
    encode_command,
)

UID = "1.2.840.10008.1.1"


def element(tag: int, raw: bytes) -> bytes:
    return bytes((0, 0)) + tag.to_bytes(2, "little") + len(raw).to_bytes(4, "little") + raw


def us(tag: int, value: int) -> bytes:
    return element(tag, value.to_bytes(2, "little"))


ECHO = us(0x0100, 0x0030) + us(0x0110, 5)
"""A C-ECHO-RQ with nothing in it that could be left out."""


@pytest.mark.parametrize("data_set_type", [0x0000, 0x0001, 0x0100, 0x0102, 0xFEFE, 0xFFFF])
def test_any_data_set_type_but_0101_says_that_a_data_set_follows(data_set_type: int) -> None:
    _, has_data_set = decode_command_untrusted(ECHO + us(0x0800, data_set_type))
    assert has_data_set


def test_data_set_type_0101_says_that_none_follows() -> None:
    assert decode_command_untrusted(ECHO + us(0x0800, 0x0101)) == (CEchoRQ(message_id=5), False)


def test_without_data_set_type_none_follows() -> None:
    assert decode_command_untrusted(ECHO) == (CEchoRQ(message_id=5), False)


@pytest.mark.parametrize("group_length", [b"", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0"])
def test_a_wrong_group_length_is_not_looked_at(group_length: bytes) -> None:
    assert decode_command_untrusted(element(0, group_length) + ECHO) == decode_command_untrusted(
        ECHO
    )


def test_elements_out_of_order_are_read() -> None:
    data = us(0x0800, 0x0101) + us(0x0110, 5) + element(0x0002, UID.encode()) + us(0x0100, 0x0030)
    message, _ = decode_command_untrusted(data)
    assert message == CEchoRQ(message_id=5, affected_sop_class_uid=UID)


def test_elements_that_the_message_does_not_know_are_kept() -> None:
    data = ECHO + us(0x0700, 2) + bytes.fromhex("0900 1000 02000000 4142")
    message, _ = decode_command_untrusted(data)
    assert message.unknown == ((0x0700, b"\2\0"), (0x0009_0010, b"AB"))


def test_of_several_values_the_first_is_read() -> None:
    store = (
        us(0x0100, 0x0001)
        + element(0x0110, bytes.fromhex("0700 0800"))
        + element(0x0002, b"1.2\\1.3 ")
        + element(0x1030, b"FIRST\\SECOND")
    )
    message, _ = decode_command_untrusted(store)
    assert isinstance(message, CStoreRQ)
    assert message.message_id == 7
    assert message.affected_sop_class_uid == "1.2"
    assert message.move_originator_ae_title == "FIRST"


def test_empty_values_are_empty_and_optional_numbers_absent() -> None:
    get = (
        us(0x0100, 0x8010) + us(0x0120, 1) + us(0x0900, 0) + element(0x1020, b"")
        + element(0x0002, b"") + element(0x0902, b"") + element(0x0901, b"")
    )  # fmt: skip
    message, _ = decode_command_untrusted(get)
    assert message == CGetRSP(
        message_id_being_responded_to=1,
        status=0,
        affected_sop_class_uid="",
        error_comment="",
        offending_element=(),
    )


def test_a_number_of_odd_length_is_read() -> None:
    message, _ = decode_command_untrusted(us(0x0100, 0x0030) + element(0x0110, b"\7"))
    assert message == CEchoRQ(message_id=7)


def test_a_tag_list_with_a_broken_end_is_read_up_to_it() -> None:
    data = us(0x0100, 0x0110) + us(0x0110, 1) + element(0x1005, bytes.fromhex("1000 2000 E07F"))
    message, _ = decode_command_untrusted(data)
    assert message == NGetRQ(message_id=1, attribute_identifier_list=(0x0010_0020,))


def test_ae_titles_and_comments_lose_their_padding() -> None:
    move = us(0x0100, 0x0021) + us(0x0110, 1) + element(0x0600, b" ARCHIVE \0\0")
    message, _ = decode_command_untrusted(move)
    assert isinstance(message, CMoveRQ)
    assert message.move_destination == "ARCHIVE"


@pytest.mark.parametrize(
    "raw", [b"1.2.3 ", b" 1.2.3", b"1.2.3\0\0\0", b"1.2.3.4\0\0 ", b"1.2.34\0\0", b"1.2\\1.3\0"]
)
def test_a_padded_uid_is_compared_bare_and_echoed_exactly(raw: bytes) -> None:
    bare = raw.decode().partition("\\")[0].strip(" \0")
    store = us(0x0100, 1) + us(0x0110, 1) + element(0x1000, raw)
    message, _ = decode_command_untrusted(store)
    assert isinstance(message, CStoreRQ)
    uid = message.affected_sop_instance_uid
    assert uid == bare
    assert hash(uid) == hash(bare)
    response = CStoreRSP(message_id_being_responded_to=1, status=0, affected_sop_instance_uid=uid)
    echoed = encode_command(response, has_data_set=False)
    assert element(0x1000, raw) in echoed


def test_a_uid_padded_as_the_standard_says_is_a_plain_string() -> None:
    assert type(PaddedUID.of(b"1.2.3\0")) is str
    assert type(PaddedUID.of(b"1.23")) is str
    assert type(PaddedUID.of(b"")) is str


@pytest.mark.parametrize("raw", [b"1.2.3", b"1.2 ", b" 1.2\0"])
def test_an_echoed_uid_never_makes_a_command_set_of_odd_length(raw: bytes) -> None:
    echo = CEchoRQ(message_id=1, affected_sop_class_uid=PaddedUID.of(raw))
    encoded = encode_command(echo, has_data_set=False)
    assert len(encoded) % 2 == 0
    assert raw + bytes(len(raw) % 2) in encoded
    assert decode_command_untrusted(encoded)[0] == echo


def test_an_unknown_element_never_makes_a_command_set_of_odd_length() -> None:
    echo = CEchoRQ(message_id=1, unknown=((0x0001, b"abc"),))
    encoded = encode_command(echo, has_data_set=False)
    assert len(encoded) % 2 == 0
    assert element(0x0001, b"abc\0") in encoded


@pytest.mark.parametrize("uid", ["1." + "2" * 80, "01.002", "ABC.def", "1..2", "."])
def test_a_uid_that_is_none_is_taken_as_it_is(uid: str) -> None:
    echo = CEchoRQ(message_id=1, affected_sop_class_uid=uid)
    assert decode_command_untrusted(encode_command(echo, has_data_set=False)) == (echo, False)


def test_responses_need_no_affected_uids() -> None:
    data = us(0x0100, 0x8001) + us(0x0120, 1) + us(0x0900, 0xA700)
    message, _ = decode_command_untrusted(data)
    assert message == CStoreRSP(message_id_being_responded_to=1, status=0xA700)


@pytest.mark.parametrize("command_field", [0x0001, 0x0020, 0x0100, 0x0130, 0x0150])
def test_requests_need_no_sop_uids(command_field: int) -> None:
    message, _ = decode_command_untrusted(us(0x0100, command_field) + us(0x0110, 1))
    assert isinstance(message, Request)
    assert message.message_id == 1


def test_a_missing_priority_is_medium() -> None:
    message, _ = decode_command_untrusted(us(0x0100, 0x0020) + us(0x0110, 1))
    assert message == CFindRQ(message_id=1, priority=0)


def test_message_id_zero_is_taken() -> None:
    message, _ = decode_command_untrusted(us(0x0100, 0x0030) + us(0x0110, 0))
    assert message == CEchoRQ(message_id=0)


def test_an_element_given_twice_counts_once() -> None:
    message, _ = decode_command_untrusted(ECHO + us(0x0110, 9))
    assert message == CEchoRQ(message_id=9)


def test_private_and_unheard_of_statuses_are_kept() -> None:
    for status in (0x0123, 0xC001, 0xFFFF, 0xD00D):
        data = us(0x0100, 0x8020) + us(0x0120, 1) + us(0x0900, status)
        message, _ = decode_command_untrusted(data)
        assert isinstance(message, CFindRSP)
        assert message.status == status


MALFORMED = {
    "nothing": (b"", "0x0000"),
    "no command field": (us(0x0110, 1), "0x0000"),
    "empty command field": (element(0x0100, b"") + us(0x0110, 1), "0x0000"),
    "unknown command field": (us(0x0100, 0x0002) + us(0x0110, 1), "0x0002"),
    "cancel response": (us(0x0100, 0x8FFF) + us(0x0120, 1), "0x8fff"),
    "request without Message ID": (us(0x0100, 0x0030), "C-ECHO-RQ without MessageID"),
    "request with an empty one": (us(0x0100, 0x0030) + element(0x0110, b""), "without MessageID"),
    "response without Message ID": (us(0x0100, 0x8001) + us(0x0900, 0), "BeingRespondedTo"),
    "response without status": (us(0x0100, 0x8001) + us(0x0120, 1), "C-STORE-RSP without Status"),
    "cancel without Message ID": (us(0x0100, 0x0FFF), "C-CANCEL-RQ without MessageIDBeing"),
    "an element's half header": (ECHO + bytes(7), "ends inside an element at byte 20"),
    "a length beyond the end": (ECHO + bytes.fromhex("0000 0002 FFFFFFFF"), "4294967295 bytes"),
    "explicit VR": (bytes.fromhex("0000 0000 554C 0400 38000000"), "claims"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_command_set_that_cannot_be_answered_is_malformed(what: str) -> None:
    data, says = MALFORMED[what]
    with pytest.raises(MalformedCommand, match=says) as raised:
        decode_command_untrusted(data)
    assert raised.value.abort_reason == AbortReason.INVALID_PDU_PARAMETER_VALUE
