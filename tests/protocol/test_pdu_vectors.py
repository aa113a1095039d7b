"""PDUs and items as bytes written by hand from PS3.8 §9.3 and PS3.7 Annex D, both directions."""

from __future__ import annotations

import pytest

from dimse_trio.protocol.decode import decode_pdu_untrusted
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import MalformedPDU
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
    SOPClassCommonExtended,
    SOPClassExtended,
    UnknownItem,
    UserIdentity,
    UserInformation,
)

H = bytes.fromhex

RQ_BYTES = (
    H("01 00 0000009B")  # PDU type, reserved, 155 bytes
    + H("0001 0000")  # protocol version, reserved
    + b"ANY-SCP         "
    + b"ECHOSCU         "
    + bytes(32)
    + H("10 00 0015")  # application context item, 21 bytes
    + b"1.2.840.10008.3.1.1.1"
    + H("20 00 002E 01 00 00 00")  # presentation context item, 46 bytes, ID 1
    + H("30 00 0011")  # abstract syntax sub-item
    + b"1.2.840.10008.1.1"
    + H("40 00 0011")  # transfer syntax sub-item
    + b"1.2.840.10008.1.2"
    + H("50 00 0008 51 00 0004 00004000")  # user information: maximum length 16384
)
RQ = AssociateRQ(
    called_ae_title="ANY-SCP",
    calling_ae_title="ECHOSCU",
    contexts=(ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
    user_information=UserInformation(maximum_length=16384),
)

AC_BYTES = (
    H("02 00 000000A5 0001 0000")  # 165 bytes
    + b"ANY-SCP         "
    + b"ECHOSCU         "
    + bytes(32)
    + H("10 00 0015")
    + b"1.2.840.10008.3.1.1.1"
    + H("21 00 0019 01 00 00 00")  # context 1: acceptance
    + H("40 00 0011")
    + b"1.2.840.10008.1.2"
    + H("21 00 0004 03 00 03 00")  # context 3: abstract syntax not supported; no sub-item
    + H("50 00 001F")
    + H("51 00 0004 00000000")  # no maximum length
    + H("52 00 0009")
    + b"1.2.3.4.5"
    + H("55 00 0006")
    + b"V_1 .0"
)
AC = AssociateAC(
    called_ae_title="ANY-SCP",
    calling_ae_title="ECHOSCU",
    results=(ContextResult(1, 0, "1.2.840.10008.1.2"), ContextResult(3, 3, None)),
    user_information=UserInformation(
        maximum_length=0,
        implementation_class_uid="1.2.3.4.5",
        implementation_version_name="V_1 .0",
    ),
)

PDUS: list[tuple[PDU, bytes]] = [
    (RQ, RQ_BYTES),
    (AC, AC_BYTES),
    (AssociateRJ(result=1, source=2, reason=3), H("03 00 00000004 00 01 02 03")),
    (PDataTF(()), H("04 00 00000000")),
    (PDataTF((PDV(1, True, True, b"\1\2\3\4"),)), H("04 00 0000000A 00000006 01 03 01020304")),
    (
        PDataTF(
            (
                PDV(3, is_command=True, is_last=False, data=b"ab"),
                PDV(255, is_command=False, is_last=False, data=b"c"),
                PDV(5, is_command=False, is_last=True, data=b""),
            )
        ),
        H("04 00 00000015 00000004 03 01 6162  00000003 FF 00 63  00000002 05 02"),
    ),
    (ReleaseRQ(), H("05 00 00000004 00000000")),
    (ReleaseRP(), H("06 00 00000004 00000000")),
    (Abort(source=2, reason=6), H("07 00 00000004 00 00 02 06")),
    (Abort(), H("07 00 00000004 00 00 00 00")),
]


@pytest.mark.parametrize(("pdu", "data"), PDUS)
def test_a_pdu_is_encoded_as_the_standard_has_it(pdu: PDU, data: bytes) -> None:
    assert encode_pdu(pdu) == data


@pytest.mark.parametrize(("pdu", "data"), PDUS)
def test_the_standards_bytes_are_decoded_to_the_pdu(pdu: PDU, data: bytes) -> None:
    assert len(data) == 6 + int.from_bytes(data[2:6], "big")
    assert decode_pdu_untrusted(data[0], data[6:]) == pdu


SUB_ITEMS: dict[str, tuple[UserInformation, bytes]] = {
    "maximum length": (UserInformation(maximum_length=0x12345678), H("51 00 0004 12345678")),
    "implementation class UID": (
        UserInformation(implementation_class_uid="1.22"),
        H("52 00 0004") + b"1.22",
    ),
    "asynchronous operations window": (
        UserInformation(asynchronous_operations=AsynchronousOperations(5, 258)),
        H("53 00 0004 0005 0102"),
    ),
    "role selection": (
        UserInformation(roles=(RoleSelection("1.2.3", True, False), RoleSelection("4", False, 1))),
        H("54 00 0009 0005") + b"1.2.3" + H("01 00") + H("54 00 0005 0001") + b"4" + H("00 01"),
    ),
    "implementation version name": (
        UserInformation(implementation_version_name="TRIO_1"),
        H("55 00 0006") + b"TRIO_1",
    ),
    "SOP class extended negotiation": (
        UserInformation(sop_class_extended=(SOPClassExtended("1.2", b"\1\0\1"),)),
        H("56 00 0008 0003") + b"1.2" + H("01 00 01"),
    ),
    "SOP class common extended negotiation": (
        UserInformation(
            sop_class_common_extended=(SOPClassCommonExtended("1.2", "1.3.4", ("1", "1.5")),)
        ),
        H("57 00 0016 0003") + b"1.2" + H("0005") + b"1.3.4"
        # related general SOP classes, 8 bytes
        + H("0008 0001") + b"1" + H("0003") + b"1.5",
    ),
    "SOP class common extended negotiation, none related": (
        UserInformation(sop_class_common_extended=(SOPClassCommonExtended("1", "2"),)),
        H("57 00 0008 0001") + b"1" + H("0001") + b"2" + H("0000"),
    ),
    "user identity": (
        UserInformation(user_identity=UserIdentity(2, b"ada", b"lovelace", True)),
        H("58 00 0011 02 01 0003") + b"ada" + H("0008") + b"lovelace",
    ),
    "user identity without secondary field": (
        UserInformation(user_identity=UserIdentity(5, b"ey.J")),
        H("58 00 000A 05 00 0004") + b"ey.J" + H("0000"),
    ),
    "user identity response": (
        UserInformation(user_identity_response=b"token"),
        H("59 00 0007 0005") + b"token",
    ),
    "empty user identity response": (
        UserInformation(user_identity_response=b""),
        H("59 00 0002 0000"),
    ),
    "unknown": (UserInformation(unknown=(UnknownItem(0x5B, b"??"),)), H("5B 00 0002 3F3F")),
    "ascending order": (
        UserInformation(
            maximum_length=1,
            implementation_class_uid="1",
            implementation_version_name="V",
            asynchronous_operations=AsynchronousOperations(0, 0),
            roles=(RoleSelection("2", True, True),),
        ),
        H("51 00 0004 00000001") + H("52 00 0001 31") + H("53 00 0004 0000 0000")
        + H("54 00 0005 0001 32 01 01") + H("55 00 0001 56"),
    ),
}  # fmt: skip


def associate(kind: int, items: bytes) -> bytes:
    """An A-ASSOCIATE PDU with these items after the application context."""
    body = H("0001 0000") + b"B".ljust(16) + b"A".ljust(16) + bytes(32)
    body += H("10 00 0015") + b"1.2.840.10008.3.1.1.1" + items
    return bytes((kind, 0)) + len(body).to_bytes(4, "big") + body


def user_information_item(sub_items: bytes) -> bytes:
    return H("50 00") + len(sub_items).to_bytes(2, "big") + sub_items


def decoded(data: bytes) -> AssociateRQ | AssociateAC:
    pdu = decode_pdu_untrusted(data[0], data[6:])
    assert isinstance(pdu, AssociateRQ | AssociateAC)
    return pdu


@pytest.mark.parametrize("name", SUB_ITEMS)
@pytest.mark.parametrize("pdu_class", [AssociateRQ, AssociateAC])
def test_a_sub_item_is_coded_as_the_standard_has_it(
    pdu_class: type[AssociateRQ | AssociateAC], name: str
) -> None:
    information, sub_item = SUB_ITEMS[name]
    data = associate(1 if pdu_class is AssociateRQ else 2, user_information_item(sub_item))
    pdu = pdu_class("B", "A", (), information)
    assert encode_pdu(pdu) == data
    assert decoded(data) == pdu


# What other implementations write, and must be read (INTEROP.md, quirks 1 to 14).


def test_padding_of_ae_titles_and_uids_is_stripped() -> None:
    data = bytearray(associate(1, b""))
    data[10:42] = b"  CALLED\0\0\0\0\0\0\0\0" + b"\0CALLING " + bytes(7)
    data += H("20 00 0012 07 00 00 00") + H("30 00 0003") + b"1.2" + H("40 00 0003") + b"1 \0"
    rq = decoded(bytes(data))
    assert isinstance(rq, AssociateRQ)
    assert rq.called_ae_title == "CALLED"
    assert rq.calling_ae_title == "CALLING"
    assert rq.contexts == (ProposedContext(7, "1.2", ("1",)),)


def test_bytes_outside_ascii_are_read_as_latin_1() -> None:
    data = bytearray(associate(1, user_information_item(H("55 00 0004") + b"M\xfc1 ")))
    data[10:16] = b"\xc4RCHIV"
    rq = decoded(bytes(data))
    assert rq.called_ae_title == "ÄRCHIV"
    assert rq.user_information.implementation_version_name == "Mü1"


def test_reserved_bytes_are_not_looked_at() -> None:
    data = bytearray(RQ_BYTES)
    for position in (1, 8, 9, *range(42, 74), 75, 100, 104, 105, 106, 108, 129, 150, 154):
        assert data[position] == 0
        data[position] = 0xEE
    assert decoded(bytes(data)) == RQ

    data = bytearray(AC_BYTES)
    for position in (1, 8, 9, *range(42, 74), 75, 100, 104, 106, 108, 129, 133, 135):
        assert data[position] == 0
        data[position] = 0xEE
    assert decoded(bytes(data)) == AC

    assert decode_pdu_untrusted(3, H("FF 01 02 03")) == AssociateRJ(1, 2, 3)
    assert decode_pdu_untrusted(5, H("FFFFFFFF")) == ReleaseRQ()
    assert decode_pdu_untrusted(6, H("FFFFFFFF")) == ReleaseRP()
    assert decode_pdu_untrusted(7, H("FF FF 02 01")) == Abort(2, 1)
    assert decode_pdu_untrusted(4, H("00000002 01 FF")) == PDataTF((PDV(1, True, True, b""),))
    assert decode_pdu_untrusted(4, H("00000002 01 FC")) == PDataTF((PDV(1, False, False, b""),))


def test_results_sources_and_reasons_outside_the_standard_keep_their_numbers() -> None:
    assert decode_pdu_untrusted(3, H("00 09 08 FF")) == AssociateRJ(9, 8, 255)
    assert decode_pdu_untrusted(7, H("00 00 07 AA")) == Abort(7, 170)
    assert decoded(associate(2, H("21 00 0004 05 00 63 00"))).results == (
        ContextResult(5, 0x63, None),
    )


def test_sub_items_are_read_in_any_order() -> None:
    sub_items = H("55 00 0001 56") + H("54 00 0005 0001 32 01 00") + H("51 00 0004 00000007")
    information = decoded(associate(1, user_information_item(sub_items))).user_information
    assert information.maximum_length == 7
    assert information.implementation_version_name == "V"
    assert information.roles == (RoleSelection("2", True, False),)


def test_items_are_read_in_any_order() -> None:
    context = H("20 00 000E 01 00 00 00") + H("40 00 0001 33") + H("30 00 0001 32")
    rq = decoded(associate(1, user_information_item(H("52 00 0001 31")) + context))
    assert rq.contexts == (ProposedContext(1, "2", ("3",)),)
    assert rq.user_information.implementation_class_uid == "1"


def test_an_unknown_sub_item_of_a_context_is_skipped() -> None:
    context = H("20 00 0013 01 00 00 00") + H("3F 00 0001 00") + H("30 00 0001 32 40 00 0001 33")
    assert decoded(associate(1, context)).contexts == (ProposedContext(1, "2", ("3",)),)
    result = H("21 00 000E 01 00 00 00") + H("3F 00 0001 00") + H("40 00 0001 33")
    assert decoded(associate(2, result)).results == (ContextResult(1, 0, "3"),)


def test_a_context_item_of_the_other_pdu_is_an_unknown_item() -> None:
    item = H("21 00 0004 01 00 00 00")
    assert decoded(associate(1, item)).unknown == (UnknownItem(0x21, H("01 00 00 00")),)


def test_missing_items_are_left_empty() -> None:
    body = H("0001 0000") + bytes(64)
    rq = decode_pdu_untrusted(1, body)
    assert rq == AssociateRQ("", "", (), UserInformation(), application_context="")


def test_bytes_after_the_related_classes_are_skipped() -> None:
    sub_item = H("57 00 000A 0001") + b"1" + H("0001") + b"2" + H("0000 CAFE")
    information = decoded(associate(1, user_information_item(sub_item))).user_information
    assert information.sop_class_common_extended == (SOPClassCommonExtended("1", "2"),)


def test_a_user_identity_may_end_without_a_secondary_field() -> None:
    sub_item = H("58 00 0005 01 00 0001") + b"u"
    information = decoded(associate(1, user_information_item(sub_item))).user_information
    assert information.user_identity == UserIdentity(1, b"u")


def test_bytes_after_the_fields_of_short_pdus_are_skipped() -> None:
    assert decode_pdu_untrusted(3, H("00 01 02 03 04")) == AssociateRJ(1, 2, 3)
    assert decode_pdu_untrusted(5, b"") == ReleaseRQ()
    assert decode_pdu_untrusted(7, H("00 00 02 01 00")) == Abort(2, 1)


@pytest.mark.parametrize(
    "items",
    [
        H("50"),
        H("50 00 00"),
        H("50 00 0005 51 00 0004"),  # claims more than there is
        user_information_item(H("51 00 0004 0000")),
        user_information_item(H("51 00 0003 000000")),
        user_information_item(H("53 00 0003 000000")),
        user_information_item(H("54 00 0004 0003 3132")),
        user_information_item(H("54 00 0003 0000 01")),
        user_information_item(H("56 00 0001 00")),
        user_information_item(H("57 00 0006 0000 0000 0001")),
        user_information_item(H("57 00 0009 0000 0000 0003 0005 31")),
        user_information_item(H("58 00 0004 01 00 0002")),
        user_information_item(H("58 00 0005 01 00 0000 00")),
        user_information_item(H("59 00 0001 00")),
        H("20 00 0003 01 00 00"),
        H("20 00 0006 01 00 00 00 30 00"),
    ],
    ids=lambda items: items.hex(),
)
def test_an_item_that_does_not_hold_its_lengths_is_malformed(items: bytes) -> None:
    with pytest.raises(MalformedPDU):
        decoded(associate(1, items))
