"""Quirks 1 to 19: PDUs, their items, and what is negotiated with them (PS3.8 §9.3)."""

from __future__ import annotations

import logging

import attrs
import pytest

import dimse_trio as dimse
from dimse_trio.protocol.decode import ByteReader, decode_pdu_untrusted
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import AbortReason
from dimse_trio.protocol.messages import CEchoRQ, CEchoRSP, CStoreRQ, CStoreRSP
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
    ReleaseRQ,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UnknownItem,
    UserIdentity,
    UserInformation,
)
from dimse_trio.protocol.uids import IMPLICIT_VR_LITTLE_ENDIAN
from dimse_trio.testing.scripted import ScriptedPeer
from protocol.pair import ACCEPT, REQUEST, ConnectionPair, receive
from semantics.script import CONTEXTS, LE, STORE, encoded, instance, scripted, served

from .tools import (
    CALLED,
    CALLING,
    HEADER,
    ITEMS,
    KEEP,
    VERIFY,
    Everything,
    expect_abort,
    item,
    item_types,
    items_of,
    logged,
    receive_raw,
    with_items,
)

EVERY_ITEM = UserInformation(
    maximum_length=16384,
    implementation_class_uid="1.2.3",
    implementation_version_name="QUIRKS",
    asynchronous_operations=AsynchronousOperations(2, 3),
    roles=(RoleSelection("1.2.4", True, True),),
    sop_class_extended=(SOPClassExtended("1.2.5", b"\x01"),),
    sop_class_common_extended=(SOPClassCommonExtended("1.2.6", "1.2.7", ("1.2.8",)),),
    user_identity=UserIdentity(1, b"somebody"),
)
ASK = AssociateRQ("ARCHIVE", "STATION", (VERIFY, KEEP), UserInformation(maximum_length=16384))


def decoded(data: bytes) -> PDU:
    return decode_pdu_untrusted(data[0], data[HEADER:])


async def echo(peer: ScriptedPeer) -> None:
    """The association works."""
    await peer.send_message(1, CEchoRQ(message_id=7))
    assert (await peer.expect_message(CEchoRSP)).status == 0


def answer(*results: ContextResult) -> AssociateAC:
    return AssociateAC("ANY-SCP", "DIMSE-TRIO", results, UserInformation(maximum_length=16384))


ACCEPTED = tuple(ContextResult(context_id, 0, *LE) for context_id in (1, 3, 5, 7, 9))


@pytest.mark.parametrize(
    "title", [b"ARCHIVE" + bytes(9), b"  ARCHIVE".ljust(16), b"ARCHIVE \0".ljust(16, b"\0")]
)
async def test_quirk_01_ae_titles_padded_with_nul_or_leading_spaces(
    autojump_clock: object, title: bytes
) -> None:
    rq = bytearray(encode_pdu(ASK))
    rq[CALLED], rq[CALLING] = title, b" STATION\0".ljust(16)
    async with served(Everything(), ae_title="ARCHIVE") as peer:
        await peer.send_raw(bytes(rq))
        accept = await peer.expect(AssociateAC)
        assert (accept.called_ae_title, accept.calling_ae_title) == ("ARCHIVE", "STATION")
        await echo(peer)
        await peer.release()


@pytest.mark.parametrize("ignore", [False, True])
async def test_quirk_01_ae_titles_in_another_case(autojump_clock: object, ignore: bool) -> None:
    async with served(Everything(), ae_title="ARCHIVE", ignore_ae_title_case=ignore) as peer:
        await peer.send(attrs.evolve(ASK, called_ae_title="archive"))
        if ignore:
            await peer.expect(AssociateAC)
            await peer.release()
        else:
            assert await peer.expect(AssociateRJ) == AssociateRJ(1, 1, 7)


@pytest.mark.parametrize("padding", ["\0", " ", "\0 "])
def test_quirk_02_uids_in_items_padded(padding: str) -> None:
    bare = attrs.evolve(ASK, user_information=EVERY_ITEM)
    padded = attrs.evolve(
        bare,
        application_context=bare.application_context + padding,
        contexts=tuple(
            attrs.evolve(
                context,
                abstract_syntax=context.abstract_syntax + padding,
                transfer_syntaxes=tuple(uid + padding for uid in context.transfer_syntaxes),
            )
            for context in bare.contexts
        ),
        user_information=attrs.evolve(
            EVERY_ITEM,
            implementation_class_uid="1.2.3" + padding,
            roles=(RoleSelection("1.2.4" + padding, True, True),),
            sop_class_extended=(SOPClassExtended("1.2.5" + padding, b"\x01"),),
            sop_class_common_extended=(
                SOPClassCommonExtended("1.2.6" + padding, "1.2.7" + padding, ("1.2.8" + padding,)),
            ),
        ),
    )
    assert encode_pdu(padded) != encode_pdu(bare)
    assert decoded(encode_pdu(padded)) == bare


def test_quirk_02_uids_are_not_padded_by_us() -> None:
    odd = item(0x30, b"1.2.840.10008.1.1")
    assert len(odd) % 2 == 1
    assert odd in encode_pdu(ASK)


async def test_quirk_03_bytes_outside_ascii_in_titles_and_names(autojump_clock: object) -> None:
    every = [bytes(range(start, start + 16)) for start in range(0, 256, 16)]
    for title in every:
        rq = bytearray(encode_pdu(ASK))
        rq[CALLING] = title
        pdu = decoded(bytes(rq))
        assert isinstance(pdu, AssociateRQ)
        assert pdu.calling_ae_title == title.decode("latin-1").strip(" \0")
    information = attrs.evolve(EVERY_ITEM, implementation_version_name="BILDER-Ü\xff")
    strange = attrs.evolve(ASK, calling_ae_title="RÖNTGEN\xa0\x80", user_information=information)
    async with served(Everything()) as peer:
        await peer.send(strange)
        assert (await peer.expect(AssociateAC)).calling_ae_title == "RÖNTGEN\xa0\x80"
        await echo(peer)
        await peer.release()


def reserved_bytes(pdu: bytes) -> list[int]:
    """Where the reserved bytes of a PDU are (PS3.8 §9.3)."""
    if pdu[0] in (5, 6):
        return [1, *range(6, 10)]
    if pdu[0] in (3, 7):
        return [1, 6, *([7] if pdu[0] == 7 else [])]
    places = [1, 8, 9, *range(42, ITEMS)]
    inside = {0x20: (5, 6, 7), 0x21: (5, 7), 0x50: ()}
    stack, position = [(ITEMS, len(pdu))], 0
    while stack:
        position, end = stack.pop()
        while position < end:
            places.append(position + 1)
            length = int.from_bytes(pdu[position + 2 : position + 4], "big")
            if pdu[position] in inside:
                places += [position + offset for offset in inside[pdu[position]]]
                start = position + (4 if pdu[position] == 0x50 else 8)
                stack.append((start, position + 4 + length))
            position += 4 + length
    return places


@pytest.mark.parametrize(
    "pdu", [REQUEST, ACCEPT, AssociateRJ(1, 1, 7), ReleaseRQ(), Abort(2, 1)], ids=type
)
def test_quirk_04_reserved_bytes_that_are_not_zero(pdu: PDU) -> None:
    ours = encode_pdu(pdu)
    assert not any(ours[place] for place in reserved_bytes(ours))
    theirs = bytearray(ours)
    for place in reserved_bytes(ours):
        theirs[place] = 0xFF
    assert decoded(bytes(theirs)) == pdu


def test_quirk_04_reserved_bits_of_a_message_control_header() -> None:
    data = bytearray(encode_pdu(PDataTF((PDV(1, True, True, b"ab"),))))
    data[1], data[11] = 0xFF, data[11] | 0xFC
    assert decoded(bytes(data)) == PDataTF((PDV(1, True, True, b"ab"),))


async def test_quirk_05_titles_of_an_acceptance_that_differ(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(AssociateRQ)
        await peer.send(attrs.evolve(answer(*ACCEPTED), called_ae_title="X", calling_ae_title=""))
        await peer.respond_to_release()

    async with scripted(script, accept=False, called_ae_title="PACS") as association:
        assert association.called_ae_title == "PACS"


async def test_quirk_05_titles_of_a_request_are_echoed(autojump_clock: object) -> None:
    async with served(Everything(), ae_title="MINE", accept_any_called_ae_title=True) as peer:
        accept = await peer.associate(CONTEXTS, called_ae_title="Yours", calling_ae_title="Theirs")
        assert (accept.called_ae_title, accept.calling_ae_title) == ("Yours", "Theirs")
        await peer.release()


async def test_quirk_06_refused_contexts_without_transfer_syntax(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(AssociateRQ)
        refused = (ContextResult(context_id, 3, None) for context_id in (3, 5, 7, 9))
        await peer.send(answer(ContextResult(1, 0, *LE), *refused))
        await peer.respond_to_release()

    async with scripted(script, accept=False) as association:
        assert list(association.negotiated.accepted) == [1]
        assert [c.result for c in association.negotiated.refused] == [3, 3, 3, 3]


async def test_quirk_07_every_result_of_ours_names_one_transfer_syntax(
    autojump_clock: object,
) -> None:
    class OnlyEcho:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    async with served(OnlyEcho()) as peer:
        contexts = (VERIFY, attrs.evolve(VERIFY, context_id=5, transfer_syntaxes=("1.2",)), KEEP)
        await peer.send(attrs.evolve(ASK, contexts=contexts))
        accept = await receive_raw(peer)
        results = []
        for content in items_of(accept, 0x21):
            results.append(content.view(4, "fields")[2])
            assert item_types(content) == [0x40]
        assert results == [0, 4, 3]
        await peer.release()


async def test_quirk_08_results_for_unknown_and_repeated_contexts(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(AssociateRQ)
        unasked = (ContextResult(33, 0, *LE), ContextResult(2, 0, *LE), ContextResult(1, 3, None))
        await peer.send(answer(*ACCEPTED, *unasked))
        await peer.respond_to_release()

    with logged(caplog) as messages:
        async with scripted(script, accept=False) as association:
            assert list(association.negotiated.accepted) == [1, 3, 5, 7, 9]
    assert sum("which was not proposed" in message for message in messages) == 2


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, "1.2.3", "", None])
async def test_quirk_09_an_acceptance_in_a_transfer_syntax_not_proposed(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, syntax: str | None
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(AssociateRQ)
        await peer.send(answer(*ACCEPTED[:4], ContextResult(STORE, 0, syntax)))
        await peer.respond_to_release()

    with logged(caplog, level=logging.WARNING) as messages:
        async with scripted(script, accept=False) as association:
            assert STORE not in association.negotiated.accepted
            with pytest.raises(dimse.ContextNotAccepted):
                await association.store(instance())
    assert "transfer syntax that was not proposed" in messages[0]


async def test_quirk_10_unknown_items_and_sub_items(autojump_clock: object) -> None:
    context = bytes((1, 0, 0, 0)) + b"".join(
        (item(0x99, b"?"), item(0x30, b"1.2.840.10008.1.1"), item(0x40, b"1.2.840.10008.1.2"))
    )
    rq = with_items(
        ASK,
        item(0x77, b"what"),
        item(0x10, ASK.application_context.encode()),
        item(0x20, context),
        item(0x50, item(0x51, b"\0\0@\0") + item(0x5A, b"new") + item(0xF0, b"")),
    )
    pdu = decoded(rq)
    assert isinstance(pdu, AssociateRQ)
    assert pdu.unknown == (UnknownItem(0x77, b"what"),)
    assert pdu.user_information.unknown == (UnknownItem(0x5A, b"new"), UnknownItem(0xF0, b""))
    async with served(Everything()) as peer:
        await peer.send_raw(rq)
        await peer.expect(AssociateAC)
        await echo(peer)
        await peer.release()


def user_items(pdu: bytes) -> list[bytes]:
    """The sub-items of a PDU's user information, whole."""
    (content,) = items_of(pdu, 0x50)
    return [item(item_type, sub_item.rest()) for item_type, sub_item in content.items()]


def test_quirk_11_sub_items_out_of_order() -> None:
    everything = attrs.evolve(ASK, user_information=EVERY_ITEM)
    ours = encode_pdu(everything)
    types = [sub_item[0] for sub_item in user_items(ours)]
    assert types == [0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58]
    others = [
        item(item_type, content.rest())
        for item_type, content in ByteReader(ours[ITEMS:], "PDU").items()
        if item_type != 0x50
    ]
    backwards = item(0x50, b"".join(reversed(user_items(ours))))
    assert decoded(with_items(everything, backwards, *others)) == everything


@pytest.mark.parametrize("window", [None, (4, 4)])
async def test_quirk_12_the_asynchronous_operations_item_only_where_it_is_asked_for(
    autojump_clock: object, window: tuple[int, int] | None
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.accept(LE)
        sent = request.user_information.asynchronous_operations
        assert sent == (window and AsynchronousOperations(*window))
        await peer.respond_to_release()

    async with scripted(script, accept=False, async_operations=window):
        pass


async def test_quirk_12_the_asynchronous_operations_item_is_never_answered_unasked(
    autojump_clock: object,
) -> None:
    async with served(Everything()) as peer:
        await peer.send(ASK)
        assert 0x53 not in [sub_item[0] for sub_item in user_items(await receive_raw(peer))]
        await peer.release()


TRAILING = {
    0x51: b"\0\0@\0",
    0x53: b"\0\1\0\1",
    0x54: b"\0\x051.2.4\1\1",
    0x57: b"\0\x051.2.6\0\x051.2.7\0\0",
    0x58: b"\1\0\0\2me\0\0",
}


@pytest.mark.parametrize("item_type", TRAILING, ids=hex)
def test_quirk_13_bytes_behind_the_fields_of_a_sub_item(item_type: int) -> None:
    first, last = item(0x52, b"1.2.3"), item(0x55, b"LAST")

    def information(content: bytes) -> object:
        pdu = decoded(with_items(ASK, item(0x50, first + item(item_type, content) + last)))
        assert isinstance(pdu, AssociateRQ)
        return pdu.user_information

    assert information(TRAILING[item_type] + b"more") == information(TRAILING[item_type])


@pytest.mark.parametrize(
    "content",
    [b"\x51\0\0\x20\0\0", item(0x51, b"\0"), item(0x54, b"\0\xff1.2")],
    ids=["longer than the PDU", "too short", "a length inside"],
)
async def test_quirk_13_lengths_of_items_that_do_not_fit(
    autojump_clock: object, content: bytes
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(AssociateRQ)
        await peer.send_raw(with_items(answer(*ACCEPTED), item(0x50, content)))
        await expect_abort(peer, AbortReason.INVALID_PDU_PARAMETER_VALUE)

    with pytest.raises(dimse.AssociationAborted, match="item 0x5"):
        async with scripted(script, accept=False):
            raise AssertionError("there is no association")


@pytest.mark.parametrize(("version", "taken"), [(1, True), (3, True), (0xFFFF, True), (2, False)])
async def test_quirk_14_protocol_versions_with_other_bits(
    autojump_clock: object, version: int, taken: bool
) -> None:
    async with served(Everything()) as peer:
        await peer.send(attrs.evolve(ASK, protocol_version=version))
        if taken:
            assert (await peer.expect(AssociateAC)).protocol_version == 1
            await peer.release()
        else:
            assert await peer.expect(AssociateRJ) == AssociateRJ(1, 2, 2)


@pytest.mark.parametrize("maximum", [0, 1, 13, 14, 17, 1001, 4096, 1 << 31, (1 << 32) - 1])
def test_quirk_15_maximum_lengths_of_every_kind(maximum: int) -> None:
    pair = ConnectionPair()
    pair.requestor.associate(REQUEST)
    accept = attrs.evolve(ACCEPT, user_information=UserInformation(maximum_length=maximum))
    receive(pair.requestor, [encode_pdu(accept)])
    data = bytes(301 if 0 < maximum < 100 else 300_001)
    wire = [b"".join(parts) for parts in pair.requestor.data_set_pdus(3, data, is_last=True)]
    fragments = b""
    for number, pdu in enumerate(wire):
        p_data = decoded(pdu)
        assert isinstance(p_data, PDataTF)
        (pdv,) = p_data.pdvs
        assert len(pdv.data) % 2 == 0
        assert pdv.is_last is (number == len(wire) - 1)
        assert len(pdu) <= (maximum if maximum >= 14 else 14 if maximum else 1 << 17) + HEADER
        fragments += pdv.data
    assert fragments == data + b"\0"


@pytest.mark.parametrize("strict", [False, True])
async def test_quirk_16_p_data_longer_than_announced(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, strict: bool
) -> None:
    handler = Everything()
    data = encoded(instance(60_000))
    with logged(caplog, level=logging.WARNING) as messages:
        async with served(handler, max_pdu_length=4096, strict=strict) as peer:
            await peer.associate(CONTEXTS)
            store = CStoreRQ(message_id=1, affected_sop_instance_uid="1.2.3.4")
            await peer.send_message(STORE, store, data)
            if strict:
                await expect_abort(peer, AbortReason.INVALID_PDU_PARAMETER_VALUE)
            else:
                assert (await peer.expect_message(CStoreRSP)).status == 0
                await peer.release()
    if not strict:
        assert handler.received == [data]
        assert sum("longer than the announced 4096" in message for message in messages) == 1


async def test_quirk_16_p_data_longer_than_anything_is_not_taken(autojump_clock: object) -> None:
    async with served(Everything(), max_pdu_length=4096) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_raw(b"\x04\0" + (1 << 24).to_bytes(4, "big"))
        await expect_abort(peer, AbortReason.INVALID_PDU_PARAMETER_VALUE)
