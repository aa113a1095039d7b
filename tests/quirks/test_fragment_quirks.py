"""Quirks 17 to 24: fragments, and the messages that they make (PS3.8 §9.3.5, Annex E)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dimse_trio as dimse
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import AbortReason
from dimse_trio.protocol.events import ProviderAborted
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CStoreRQ,
    CStoreRSP,
    Message,
)
from dimse_trio.protocol.pdus import PDV, AsynchronousOperations, PDataTF, UserInformation
from dimse_trio.testing.scripted import ScriptedPeer
from interop.samples import TEST_FILES
from protocol.pair import (
    ACCEPTED_CONTEXTS,
    ConnectionPair,
    WholeMessage,
    pieces,
    receive,
    whole_messages,
)
from semantics.script import CONTEXTS, ECHO, FIND, LE, STORE, encoded, instance, scripted, served
from semantics.script import study as study_of

from .tools import Everything, cut, expect_abort, logged, one_pdu

UNLIMITED = AsynchronousOperations(0, 0)
A_STORE = CStoreRQ(message_id=1, affected_sop_instance_uid="1.2.3.4")
INSTANCE = encoded(instance(1000))
STORE_PDUS = ScriptedPeer.message_pdus(STORE, A_STORE, INSTANCE)


async def stored(handler: Everything, *pdus: PDataTF) -> None:
    """These PDUs are a C-STORE of `INSTANCE` that succeeds."""
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        await peer.send(*pdus)
        assert (await peer.expect_message(CStoreRSP)).status == 0
        await peer.release()
    assert handler.received == [INSTANCE]


@pytest.mark.parametrize("length", [1, 7, 101])
async def test_quirk_17_fragments_of_odd_length(autojump_clock: object, length: int) -> None:
    await stored(Everything(), *cut(STORE_PDUS, length))


async def sent_fragments(what: str | Path, maximum: int) -> list[PDV]:
    """What the library sends for a C-STORE to a peer with that maximum length."""
    pdvs: list[PDV] = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.accept(LE, user_information=UserInformation(maximum_length=maximum))
        while not pdvs or pdvs[-1].is_command or not pdvs[-1].is_last:
            pdu = await peer.expect(PDataTF)
            (pdv,) = pdu.pdvs  # one in each PDU
            pdvs.append(pdv)
        response = CStoreRSP(message_id_being_responded_to=1, status=0)
        await peer.send_message(STORE, response)
        await peer.respond_to_release()

    async with scripted(script, accept=False) as association:
        await association.store(what)
    return pdvs


def odd_file(folder: Path) -> Path:
    """A DICOM file whose data set has an odd number of bytes."""
    path = folder / "odd.dcm"
    whole = (TEST_FILES / "CT_small.dcm").read_bytes()
    path.write_bytes(whole + b"\0" * (len(whole) % 2 == 0))
    return path


@pytest.mark.parametrize("maximum", [0, 1001, 16384])
async def test_quirk_17_our_fragments_are_even_whatever_the_file_and_the_maximum(
    autojump_clock: object, tmp_path: Path, maximum: int
) -> None:
    path = odd_file(tmp_path)
    length = dimse.Instance.from_file(path).length
    assert length % 2 == 1
    pdvs = await sent_fragments(path, maximum)
    assert {len(pdv.data) % 2 for pdv in pdvs} == {0}
    assert sum(len(pdv.data) for pdv in pdvs if not pdv.is_command) == length + 1


def with_empty_fragments(pdus: list[PDataTF]) -> list[PDataTF]:
    """Before and after every fragment an empty one; the last of a message is empty."""
    pdvs: list[PDV] = []
    for pdu in pdus:
        for pdv in pdu.pdvs:
            pdvs += [
                PDV(pdv.context_id, pdv.is_command, False, b""),
                PDV(pdv.context_id, pdv.is_command, False, pdv.data),
                PDV(pdv.context_id, pdv.is_command, pdv.is_last, b""),
            ]
    return [PDataTF((pdv,)) for pdv in pdvs]


async def test_quirk_18_empty_fragments(autojump_clock: object) -> None:
    await stored(Everything(), *with_empty_fragments(cut(STORE_PDUS, 100)))


def test_quirk_18_our_fragments_are_empty_only_for_an_empty_data_set() -> None:
    core = ConnectionPair.established().requestor
    length = core.fragment_length
    for size in (1, length - 1, length, length + 1, 3 * length):
        parts = list(core.data_set_pdus(3, bytes(size), is_last=True))
        assert all(len(fragment) > 0 for _, fragment in parts)
    ((header, fragment),) = core.data_set_pdus(3, b"", is_last=True)
    assert (header[-1], len(fragment)) == (2, 0)


@pytest.mark.parametrize("strict", [False, True])
async def test_quirk_19_p_data_without_a_pdv(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, strict: bool
) -> None:
    with logged(caplog, level=logging.WARNING) as messages:
        async with served(Everything(), strict=strict) as peer:
            await peer.associate(CONTEXTS)
            await peer.send(PDataTF(()))
            if strict:
                await expect_abort(peer, AbortReason.INVALID_PDU_PARAMETER_VALUE)
            else:
                await peer.send_message(ECHO, CEchoRQ(message_id=1))
                assert (await peer.expect_message(CEchoRSP)).status == 0
                await peer.release()
    [message] = [message for message in messages if "P-DATA-TF without a PDV" in message]
    assert ("aborted" in message) is strict


async def test_quirk_20_a_command_set_in_several_pdus(autojump_clock: object) -> None:
    command, *data = STORE_PDUS
    await stored(Everything(), *cut([command], 10), *data)


async def test_quirk_20_command_and_data_set_in_one_pdu(autojump_clock: object) -> None:
    await stored(Everything(), one_pdu(cut(STORE_PDUS, 64)))


async def test_quirk_20_each_pdu_of_ours_has_one_pdv(autojump_clock: object) -> None:
    pdvs = await sent_fragments(TEST_FILES / "CT_small.dcm", 4096)
    assert [pdv.is_command for pdv in pdvs].count(True) == 1
    assert len(pdvs) > 5


MESSAGES: list[tuple[int, Message, bytes | None]] = [
    (1, CEchoRQ(message_id=1), None),
    (3, CStoreRQ(message_id=2, affected_sop_instance_uid="1.2"), bytes(range(256)) * 3),
    (5, CFindRQ(message_id=3), b"identifier"),
    (5, CCancelRQ(message_id_being_responded_to=3), None),
    (3, CStoreRQ(message_id=4), b""),
]


@settings(max_examples=60, deadline=None)
@given(
    fragment=st.integers(1, 400),
    grouping=st.lists(st.integers(1, 6), max_size=40),
    cuts=st.lists(st.integers(0, 3000), max_size=30),
)
def test_quirk_21_messages_however_pdvs_pdus_and_segments_are_cut(
    fragment: int, grouping: list[int], cuts: list[int]
) -> None:
    pdvs = [
        pdv
        for context_id, message, data in MESSAGES
        for pdu in cut(ScriptedPeer.message_pdus(context_id, message, data), fragment)
        for pdv in pdu.pdvs
    ]
    wire = b""
    for count in grouping:
        wire += encode_pdu(PDataTF(tuple(pdvs[:count])))
        del pdvs[:count]
    wire += b"".join(encode_pdu(PDataTF((pdv,))) for pdv in pdvs)
    core = ConnectionPair.established(window=UNLIMITED).acceptor
    assert whole_messages(receive(core, pieces(wire, cuts))) == [
        WholeMessage(context_id, message, data) for context_id, message, data in MESSAGES
    ]


async def test_quirk_21_several_responses_in_one_pdu(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CFindRQ)
        pdus: list[PDataTF] = []
        for index in range(20):
            pending = CFindRSP(
                message_id_being_responded_to=request.message_id, status=dimse.Status.PENDING
            )
            pdus += peer.message_pdus(FIND, pending, encoded(study_of(index)))
        final = CFindRSP(message_id_being_responded_to=request.message_id, status=0)
        pdus += peer.message_pdus(FIND, final)
        wire = encode_pdu(one_pdu(pdus))
        await peer.send_raw(wire[:-5])
        await peer.send_raw(wire[-5:])
        await peer.respond_to_release()

    async with scripted(script) as association:
        matches = await association.find(dimse.query("STUDY"))
    assert [match.StudyInstanceUID for match in matches] == [f"1.2.{i}" for i in range(20)]


async def aborts(*pdus: PDataTF) -> Everything:
    """These PDUs are answered by A-ABORT, unexpected PDU parameter; the handler, afterwards."""
    handler = Everything()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        await peer.send(*pdus)
        await expect_abort(peer, AbortReason.UNEXPECTED_PDU_PARAMETER)
    return handler


async def test_quirk_22_a_data_set_on_another_context_than_its_command(
    autojump_clock: object,
) -> None:
    command, data = STORE_PDUS
    (pdv,) = data.pdvs
    handler = await aborts(command, PDataTF((PDV(FIND, False, True, pdv.data),)))
    assert handler.received == []


async def test_quirk_23_a_data_set_before_its_command(autojump_clock: object) -> None:
    command, data = STORE_PDUS
    assert (await aborts(data, command)).stores == []


async def test_quirk_23_a_command_inside_a_data_set(autojump_clock: object) -> None:
    command, *data = cut(STORE_PDUS, 200)
    assert (await aborts(command, data[0], command)).received == []


@pytest.mark.parametrize("context_id", [STORE, 99, 2])
async def test_quirk_24_a_request_on_a_context_that_was_not_accepted(
    autojump_clock: object, context_id: int
) -> None:
    class NoStorage:
        echoes = 0

        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            self.echoes += 1
            return dimse.Status.SUCCESS

    handler = NoStorage()
    async with served(handler) as peer:
        accept = await peer.associate(CONTEXTS)
        assert [result.result for result in accept.results].count(0) == 1
        await peer.send_message(context_id, CEchoRQ(message_id=1))
        await expect_abort(peer, AbortReason.UNEXPECTED_PDU_PARAMETER)
    assert handler.echoes == 0


def test_quirk_24_says_what_was_asked_and_where() -> None:
    core = ConnectionPair.established().acceptor
    assert 7 not in ACCEPTED_CONTEXTS
    (pdu,) = ScriptedPeer.message_pdus(7, CEchoRQ(message_id=1))
    (event,) = receive(core, [encode_pdu(pdu)])
    assert isinstance(event, ProviderAborted)
    assert "C-ECHO-RQ on presentation context 7, which was not accepted" in str(event.error)
