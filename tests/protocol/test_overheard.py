"""`Overheard`: the same is made out wherever bytes are cut, and nothing raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.events import DataSetFragment, MessageReceived
from dimse_trio.protocol.fragments import split
from dimse_trio.protocol.messages import CStoreRQ, encode_command
from dimse_trio.protocol.overheard import NotUnderstood, Overheard
from dimse_trio.protocol.pdus import (
    PDV,
    Abort,
    AssociateRQ,
    PDataTF,
    ProposedContext,
    ReleaseRQ,
    UserInformation,
)
from dimse_trio.protocol.upper_layer import Role

REQUEST = AssociateRQ(
    "CALLED", "CALLING", (ProposedContext(1, "1.2.840.10008.1.1", ("1.2",)),), UserInformation()
)
STORE = CStoreRQ(
    message_id=7,
    affected_sop_class_uid="1.2",
    affected_sop_instance_uid="1.3",
    priority=0,
)
DATA = bytes(range(256)) * 4


def conversation() -> bytes:
    """What a requestor sends, its PDVs cut several ways."""
    command = encode_command(STORE, has_data_set=True)
    pdvs = [PDV(1, True, last, bytes(part)) for part, last in split(command, 30)]
    pdvs += [PDV(1, False, last, bytes(part)) for part, last in split(DATA, 300)]
    pdus = [REQUEST, PDataTF(tuple(pdvs[:2])), *(PDataTF((pdv,)) for pdv in pdvs[2:]), ReleaseRQ()]
    return b"".join(map(encode_pdu, pdus))


@given(st.lists(st.integers(1, 400), max_size=60))
def test_where_bytes_are_cut_makes_no_difference(lengths: list[int]) -> None:
    overheard, rest = Overheard(), conversation()
    events: list[object] = []
    data = b""
    for length in [*lengths, len(rest)]:
        part, rest = rest[:length], rest[length:]
        for event in overheard.feed_untrusted(Role.REQUESTOR, part):
            if isinstance(event, DataSetFragment):
                data += event.data
                assert event.is_last is (data == DATA)
            else:
                events.append(event)
    assert events == [REQUEST, MessageReceived(1, STORE, True), ReleaseRQ()]
    assert data == DATA


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_bytes_raise(parts: list[bytes]) -> None:
    overheard = Overheard()
    for part in parts:
        for role in Role:
            list(overheard.feed_untrusted(role, part))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n",
        b"\x01\0\xff\xff\xff\xff",
        b"\x05\0\0\0\0\0",
        b"\x04\0\0\0\0\x06\0\0\0\x09\x01\x03",
        b"\x04\0\0\0\0\x06\0\0\0\x01\x01\x03",
    ],
)
def test_what_is_no_dicom_is_said_once(data: bytes) -> None:
    overheard = Overheard()
    (event,) = overheard.feed_untrusted(Role.REQUESTOR, data)
    assert isinstance(event, NotUnderstood)
    assert list(overheard.feed_untrusted(Role.REQUESTOR, conversation())) == []
    assert list(overheard.feed_untrusted(Role.ACCEPTOR, encode_pdu(Abort()))) == [Abort()]
