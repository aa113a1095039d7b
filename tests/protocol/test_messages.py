"""The 23 messages against PS3.7 as transcribed here, and against pydicom."""

from __future__ import annotations

from io import BytesIO

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import datadict
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue

from dimse_trio.protocol.elements import ELEMENTS, GROUP_LENGTH
from dimse_trio.protocol.errors import LocalProtocolError, MalformedCommand
from dimse_trio.protocol.messages import (
    MESSAGES,
    CCancelRQ,
    CEchoRQ,
    CFindRSP,
    CStoreRQ,
    Message,
    NGetRQ,
    Request,
    Response,
    decode_command_untrusted,
    encode_command,
)

from . import strategies

STATUS = "Status OffendingElement ErrorComment ErrorID"
CLASS, INSTANCE = "AffectedSOPClassUID", "AffectedSOPInstanceUID"
REQUESTED = "RequestedSOPClassUID RequestedSOPInstanceUID"
COUNTS = " ".join(
    f"NumberOf{which}Suboperations" for which in ("Remaining", "Completed", "Failed", "Warning")
)
ORIGINATOR = "MoveOriginatorApplicationEntityTitle MoveOriginatorMessageID"
ANSWERED = "MessageIDBeingRespondedTo"

# PS3.7 §9.3 and §10.3: name, command field (Table E.1-1), elements beside CommandField and
# CommandDataSetType; the status elements of a response are those of Annex C
STANDARD = {
    "C-STORE-RQ": (
        0x0001,
        f"{CLASS} MessageID Priority {INSTANCE} {ORIGINATOR}",
    ),
    "C-STORE-RSP": (0x8001, f"{CLASS} {ANSWERED} {STATUS} {INSTANCE}"),
    "C-GET-RQ": (0x0010, f"{CLASS} MessageID Priority"),
    "C-GET-RSP": (0x8010, f"{CLASS} {ANSWERED} {STATUS} {COUNTS}"),
    "C-FIND-RQ": (0x0020, f"{CLASS} MessageID Priority"),
    "C-FIND-RSP": (0x8020, f"{CLASS} {ANSWERED} {STATUS}"),
    "C-MOVE-RQ": (0x0021, f"{CLASS} MessageID Priority MoveDestination"),
    "C-MOVE-RSP": (0x8021, f"{CLASS} {ANSWERED} {STATUS} {COUNTS}"),
    "C-ECHO-RQ": (0x0030, f"{CLASS} MessageID"),
    "C-ECHO-RSP": (0x8030, f"{CLASS} {ANSWERED} {STATUS}"),
    "N-EVENT-REPORT-RQ": (0x0100, f"{CLASS} MessageID {INSTANCE} EventTypeID"),
    "N-EVENT-REPORT-RSP": (0x8100, f"{CLASS} {ANSWERED} {STATUS} {INSTANCE} EventTypeID"),
    "N-GET-RQ": (0x0110, f"{REQUESTED} MessageID AttributeIdentifierList"),
    "N-GET-RSP": (0x8110, f"{CLASS} {ANSWERED} {STATUS} {INSTANCE} AttributeIdentifierList"),
    "N-SET-RQ": (0x0120, f"{REQUESTED} MessageID"),
    "N-SET-RSP": (0x8120, f"{CLASS} {ANSWERED} {STATUS} {INSTANCE} AttributeIdentifierList"),
    "N-ACTION-RQ": (0x0130, f"{REQUESTED} MessageID ActionTypeID"),
    "N-ACTION-RSP": (0x8130, f"{CLASS} {ANSWERED} {STATUS} {INSTANCE} ActionTypeID"),
    "N-CREATE-RQ": (0x0140, f"{CLASS} MessageID {INSTANCE}"),
    "N-CREATE-RSP": (0x8140, f"{CLASS} {ANSWERED} {STATUS} {INSTANCE} AttributeIdentifierList"),
    "N-DELETE-RQ": (0x0150, f"{REQUESTED} MessageID"),
    "N-DELETE-RSP": (0x8150, f"{CLASS} {ANSWERED} {STATUS} {INSTANCE}"),
    "C-CANCEL-RQ": (0x0FFF, ANSWERED),
}

BY_NAME = {message_class.name: message_class for message_class in MESSAGES.values()}
ALL = pytest.mark.parametrize("message_class", BY_NAME.values(), ids=BY_NAME.keys())


def elements_of(message_class: type[Message]) -> dict[str, str]:
    """Attribute name by keyword."""
    return {
        field.metadata["element"].keyword: field.name
        for field in attrs.fields(message_class)
        if "element" in field.metadata
    }


def test_there_are_the_23_messages_of_the_standard() -> None:
    assert {name: c.command_field for name, c in BY_NAME.items()} == {
        name: command_field for name, (command_field, _) in STANDARD.items()
    }
    assert {field: c.name for field, c in MESSAGES.items()} == {
        command_field: name for name, (command_field, _) in STANDARD.items()
    }


@ALL
def test_a_message_has_the_elements_of_the_standard(message_class: type[Message]) -> None:
    assert set(elements_of(message_class)) == set(STANDARD[message_class.name][1].split())


@ALL
def test_a_response_answers_its_request(message_class: type[Message]) -> None:
    if issubclass(message_class, Request):
        assert message_class.response is BY_NAME[message_class.name.replace("-RQ", "-RSP")]
    else:
        assert issubclass(message_class, Response) or message_class is CCancelRQ


@ALL
@settings(max_examples=25, deadline=None)
@given(data=st.data(), has_data_set=st.booleans())
def test_a_message_is_what_it_was_after_encoding_and_decoding(
    message_class: type[Message], data: st.DataObject, has_data_set: bool
) -> None:
    message = data.draw(strategies.messages_of(message_class))
    encoded = encode_command(message, has_data_set=has_data_set)
    assert decode_command_untrusted(encoded) == (message, has_data_set)
    assert len(encoded) % 2 == 0


@ALL
@settings(max_examples=15, deadline=None)
@given(data=st.data(), has_data_set=st.booleans())
def test_pydicom_reads_every_value_of_a_command_set(
    message_class: type[Message], data: st.DataObject, has_data_set: bool
) -> None:
    message = data.draw(strategies.messages_of(message_class))
    encoded = encode_command(message, has_data_set=has_data_set)
    read = read_dataset(BytesIO(encoded), is_implicit_VR=True, is_little_endian=True)

    assert read.CommandField == message_class.command_field
    assert (read.CommandDataSetType == 0x0101) is not has_data_set
    assert read.CommandGroupLength == len(encoded) - 12
    tags = [int(tag) for tag in read.keys()]  # noqa: SIM118 - a Dataset iterates its elements
    assert tags == sorted(tags)

    expected = {
        keyword: getattr(message, name)
        for keyword, name in elements_of(message_class).items()
        if getattr(message, name) is not None
    }
    computed = {"CommandField", "CommandDataSetType", "CommandGroupLength"}
    assert {element.keyword for element in read} - computed == expected.keys()
    for keyword, value in expected.items():
        theirs = read[keyword].value
        if read[keyword].VR == "AT":
            several = theirs if isinstance(theirs, MultiValue) else [theirs]
            theirs = tuple(int(tag) for tag in several if tag is not None and tag != "")
        assert theirs == value or (theirs is None and value in ("", ()))


@pytest.mark.parametrize("keyword", ELEMENTS)
def test_an_element_is_that_of_pydicoms_dictionary(keyword: str) -> None:
    element = ELEMENTS[keyword]
    assert element.keyword == keyword
    assert datadict.tag_for_keyword(keyword) == element.tag
    assert datadict.dictionary_VR(element.tag) == element.vr


def test_no_element_of_the_standard_is_missing() -> None:
    current = {
        keyword
        for tag, (_, _, _, retired, keyword) in datadict.DicomDictionary.items()
        if tag >> 16 == 0 and not retired
    }
    assert current == {"CommandGroupLength", *ELEMENTS}


def test_a_command_set_is_the_bytes_of_the_standard() -> None:
    echo = CEchoRQ(message_id=7, affected_sop_class_uid="1.2.840.10008.1.1")
    assert encode_command(echo, has_data_set=False) == (
        bytes.fromhex("0000 0000 04000000 38000000")
        + bytes.fromhex("0000 0200 12000000") + b"1.2.840.10008.1.1\0"
        + bytes.fromhex("0000 0001 02000000 3000")
        + bytes.fromhex("0000 1001 02000000 0700")
        + bytes.fromhex("0000 0008 02000000 0101")
    )  # fmt: skip


def test_a_tag_is_written_group_first() -> None:
    get = NGetRQ(message_id=1, attribute_identifier_list=(0x0010_0020, 0x7FE0_0010))
    assert bytes.fromhex("1000 2000 E07F 1000") in encode_command(get, has_data_set=False)


def test_the_data_set_type_says_one_if_a_data_set_follows() -> None:
    encoded = encode_command(CFindRSP(message_id_being_responded_to=1, status=0), has_data_set=True)
    assert bytes.fromhex("0000 0008 02000000 0100") in encoded


def test_unknown_elements_are_kept_and_written_in_their_place() -> None:
    message = CEchoRQ(message_id=1, unknown=((0x0000_0001, b"\1\0\0\0"), (0x0009_0010, b"PRIV")))
    encoded = encode_command(message, has_data_set=False)
    assert decode_command_untrusted(encoded) == (message, False)
    assert encoded[12:24] == bytes.fromhex("0000 0100 04000000 01000000")
    assert encoded.endswith(b"PRIV")


UNENCODABLE = {
    "Message ID of 17 bits": CEchoRQ(message_id=1 << 16),
    "negative Message ID": CEchoRQ(message_id=-1),
    "status of 17 bits": CFindRSP(message_id_being_responded_to=1, status=1 << 16),
    "UID outside latin-1": CStoreRQ(message_id=1, affected_sop_instance_uid="1.٢"),
    "unknown element of 33 bits": CEchoRQ(message_id=1, unknown=((1 << 32, b""),)),
    "tag of 33 bits": NGetRQ(message_id=1, attribute_identifier_list=(1 << 32,)),
}


@pytest.mark.parametrize("what", UNENCODABLE)
def test_a_value_that_does_not_fit_its_element_is_a_local_error(what: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_command(UNENCODABLE[what], has_data_set=False)


def test_a_comment_outside_latin_1_is_written_with_question_marks() -> None:
    response = CFindRSP(message_id_being_responded_to=1, status=0xC000, error_comment="记录 é")
    decoded, _ = decode_command_untrusted(encode_command(response, has_data_set=False))
    assert isinstance(decoded, CFindRSP)
    assert decoded.error_comment == "?? é"


def test_a_message_is_hashable_and_shows_its_status() -> None:
    response = CFindRSP(message_id_being_responded_to=1, status=0xFF00)
    assert hash(response) == hash(attrs.evolve(response))
    assert "<Status 0xff00 Pending>" in repr(response)


def decoded_or_error(data: bytes) -> Message | MalformedCommand:
    try:
        return decode_command_untrusted(data)[0]
    except MalformedCommand as error:
        return error


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_random_bytes_raise_only_malformed_command(data: bytes) -> None:
    assert isinstance(decoded_or_error(data), MalformedCommand)


elements = st.lists(
    st.tuples(
        st.sampled_from([element.tag for element in ELEMENTS.values()]) | strategies.uint32,
        st.binary(max_size=12),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(command_field=st.sampled_from(list(MESSAGES)), elements=elements)
def test_any_elements_are_a_message_or_raise_malformed_command(
    command_field: int, elements: list[tuple[int, bytes]]
) -> None:
    data = b"".join(
        (tag >> 16).to_bytes(2, "little")
        + (tag & 0xFFFF).to_bytes(2, "little")
        + len(raw).to_bytes(4, "little")
        + raw
        for tag, raw in [(0x0100, command_field.to_bytes(2, "little")), *elements]
        if tag != GROUP_LENGTH
    )
    message = decoded_or_error(data)
    if not isinstance(message, MalformedCommand):
        decode_command_untrusted(encode_command(message, has_data_set=False))


@settings(max_examples=200, deadline=None)
@given(message=strategies.messages, data=st.data())
def test_a_damaged_command_set_is_a_message_or_raises_malformed_command(
    message: Message, data: st.DataObject
) -> None:
    encoded = bytearray(encode_command(message, has_data_set=True))
    position = data.draw(st.integers(0, len(encoded)))
    removed = data.draw(st.integers(0, 3))
    encoded[position : position + removed] = data.draw(st.binary(max_size=3))
    assert isinstance(decoded_or_error(bytes(encoded)), Message | MalformedCommand)
