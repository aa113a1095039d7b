"""Quirks 35 to 46: command sets, Message IDs, C-FIND responses (PS3.7 §6.3, §9.1)."""

from __future__ import annotations

import logging
import struct
from itertools import pairwise

import pytest
import trio

import dimse_trio as dimse
from dimse_trio.protocol.dimse import Invoked
from dimse_trio.protocol.errors import AbortReason
from dimse_trio.protocol.messages import (
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CStoreRQ,
    CStoreRSP,
    Message,
    Response,
)
from dimse_trio.protocol.pdus import PDV, PDataTF
from dimse_trio.testing.scripted import ScriptedPeer
from protocol.pair import ConnectionPair
from semantics.script import (
    CONTEXTS,
    CT,
    ECHO,
    FIND,
    STORE,
    encoded,
    instance,
    scripted,
    served,
    study,
)

from .tools import Everything, expect_abort, logged

VERIFICATION = b"1.2.840.10008.1.1\0"


def element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


def us(value: int) -> bytes:
    return struct.pack("<H", value)


ECHO_ELEMENTS = (
    element(0x0002, VERIFICATION),
    element(0x0100, us(0x0030)),
    element(0x0110, us(7)),
    element(0x0800, us(0x0101)),
)


async def send_command(peer: ScriptedPeer, context_id: int, *elements: bytes) -> None:
    await peer.send(PDataTF((PDV(context_id, True, True, b"".join(elements)),)))


async def echo(peer: ScriptedPeer, message_id: int = 7) -> None:
    """The association is as good as new."""
    await peer.send_message(ECHO, CEchoRQ(message_id=message_id))
    response = await peer.expect_message(CEchoRSP)
    assert (response.status, response.message_id_being_responded_to) == (0, message_id)


@pytest.mark.parametrize("value", [0x0000, 0x0001, 0x0100, 0x0102, 0xFEFE])
async def test_quirk_35_values_that_say_that_a_data_set_follows(
    autojump_clock: object, value: int
) -> None:
    handler = Everything()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        find = (element(0x0100, us(0x0020)), element(0x0110, us(1)), element(0x0800, us(value)))
        await send_command(peer, FIND, *find)
        await peer.send(PDataTF((PDV(FIND, False, True, encoded(study(5))),)))
        assert (await peer.expect_message(CFindRSP)).status == 0xFF00
        await peer.abort()
    assert [identifier.StudyInstanceUID for identifier in handler.identifiers] == ["1.2.5"]


async def raw_commands(peer: ScriptedPeer, count: int) -> list[bytes]:
    """The command sets of the next messages; their data sets are dropped."""
    commands: list[bytes] = []
    while len(commands) < count:
        pdvs = (await peer.expect(PDataTF)).pdvs
        commands += [bytes(pdv.data) for pdv in pdvs if pdv.is_command]
    return commands


async def test_quirk_35_what_we_say(autojump_clock: object) -> None:
    async with served(Everything(matches=[study()])) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(FIND, CFindRQ(message_id=1), encoded(study()))
        pending, final = await raw_commands(peer, 2)
        assert element(0x0800, us(0x0001)) in pending
        assert element(0x0800, us(0x0101)) in final
        await peer.release()


@pytest.mark.parametrize(
    "elements",
    [
        ECHO_ELEMENTS,
        (element(0, struct.pack("<L", 4)), *ECHO_ELEMENTS),
        (element(0, b""), *ECHO_ELEMENTS),
        tuple(reversed(ECHO_ELEMENTS)),
        (*ECHO_ELEMENTS, element(0x0001, struct.pack("<L", 9)), element(0x5110, b"odd")),
        (element(0x0002, VERIFICATION[:-1]), *ECHO_ELEMENTS[1:]),
        (*ECHO_ELEMENTS, element(0x0018, b"1.2.3\0", group=8)),
    ],
    ids=["no length", "wrong", "empty", "reversed", "retired", "odd", "group 8"],
)
async def test_quirk_36_command_sets_that_are_badly_made(
    autojump_clock: object, elements: tuple[bytes, ...]
) -> None:
    async with served(Everything()) as peer:
        await peer.associate(CONTEXTS)
        await send_command(peer, ECHO, *elements)
        response = await peer.expect_message(CEchoRSP)
        assert (response.status, response.message_id_being_responded_to) == (0, 7)
        await peer.release()


async def test_quirk_36_our_command_sets_are_well_made(autojump_clock: object) -> None:
    async with served(Everything()) as peer:
        await peer.associate(CONTEXTS)
        store = CStoreRQ(message_id=1, affected_sop_instance_uid="1.2.3")
        await peer.send_message(STORE, store, encoded(instance()))
        (command,) = await raw_commands(peer, 1)
        assert command[:8] == element(0, bytes(4))[:8]
        assert int.from_bytes(command[8:12], "little") == len(command) - 12
        tags: list[int] = []
        position = 0
        while position < len(command):
            group, number, length = struct.unpack_from("<HHL", command, position)
            assert length % 2 == 0
            tags.append(group << 16 | number)
            position += 8 + length
        assert tags == sorted(set(tags))
        await peer.release()


async def test_quirk_37_several_or_no_values_in_an_element(autojump_clock: object) -> None:
    handler = Everything()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        await send_command(
            peer,
            STORE,
            element(0x0002, f"{CT}\\1.2.9".encode()),
            element(0x0100, us(1) + us(9)),
            element(0x0110, us(3) + us(4)),
            element(0x0700, b""),
            element(0x0800, us(1)),
            element(0x1000, b"1.2.3\\1.2.4 "),
            element(0x1030, b""),
        )
        await peer.send(PDataTF((PDV(STORE, False, True, encoded(instance())),)))
        response = await peer.expect_message(CStoreRSP)
        assert (response.status, response.message_id_being_responded_to) == (0, 3)
        await peer.release()
    (request,) = handler.stores
    assert (request.sop_class_uid, request.sop_instance_uid) == (CT, "1.2.3")


@pytest.mark.parametrize("uid", [b"1.2.3 ", b"1.2.3\0", b"1.2\0\0\0", b"1.2.34  ", b" 1.2.3"])
async def test_quirk_38_padded_uids_are_echoed_as_they_came(
    autojump_clock: object, uid: bytes
) -> None:
    handler = Everything()
    padded_class = f"{CT} ".encode()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        await send_command(
            peer,
            STORE,
            element(0x0002, padded_class),
            element(0x0100, us(1)),
            element(0x0110, us(1)),
            element(0x0800, us(1)),
            element(0x1000, uid),
        )
        await peer.send(PDataTF((PDV(STORE, False, True, encoded(instance())),)))
        (response,) = await raw_commands(peer, 1)
        assert element(0x1000, uid) in response
        assert element(0x0002, padded_class) in response
        assert element(0x0900, us(0)) in response
        await peer.release()
    assert handler.stores[0].sop_instance_uid == uid.decode().strip(" \0")
    assert handler.stores[0].sop_class_uid == CT


@pytest.mark.parametrize(
    ("uid", "good"), [("1.02.003", True), ("1." + "2" * 80, False), ("1.2.A", False), ("", False)]
)
@pytest.mark.parametrize("accept_invalid_uids", [False, True])
async def test_quirk_39_uids_that_are_none(
    autojump_clock: object, uid: str, good: bool, accept_invalid_uids: bool
) -> None:
    handler = Everything()
    async with served(handler, accept_invalid_uids=accept_invalid_uids) as peer:
        await peer.associate(CONTEXTS)
        store = CStoreRQ(message_id=1, affected_sop_instance_uid=uid)
        await peer.send_message(STORE, store, encoded(instance()))
        taken = good or accept_invalid_uids
        status = 0 if taken else dimse.Status.INVALID_SOP_INSTANCE
        assert (await peer.expect_message(CStoreRSP)).status == status
        await echo(peer)
        await peer.release()
    assert [request.sop_instance_uid for request in handler.stores] == [uid] * taken
    assert all("/" not in request.file_name for request in handler.stores)


async def test_quirk_40_responses_without_affected_uids(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for context_id, response in (
            (ECHO, CEchoRSP(message_id_being_responded_to=1, status=0)),
            (STORE, CStoreRSP(message_id_being_responded_to=2, status=0)),
            (FIND, CFindRSP(message_id_being_responded_to=3, status=0)),
        ):
            await peer.receive_message()
            await peer.send_message(context_id, response)
        await peer.respond_to_release()

    async with scripted(script) as association:
        assert (await association.echo()).status == 0
        assert (await association.store(instance())).affected_sop_instance_uid is None
        assert await association.find(dimse.query("STUDY")) == []


@pytest.mark.parametrize("uid", [None, "1.2.840.10008.5.1.4.1.1.4", "nonsense"])
async def test_quirk_41_an_affected_sop_class_that_is_not_the_contexts(
    autojump_clock: object, uid: str | None
) -> None:
    handler = Everything()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        store = CStoreRQ(
            message_id=1, affected_sop_class_uid=uid, affected_sop_instance_uid="1.2.3"
        )
        await peer.send_message(STORE, store, encoded(instance()))
        response = await peer.expect_message(CStoreRSP)
        assert (response.status, response.affected_sop_class_uid) == (0, uid or CT)
        find = CFindRQ(message_id=2, affected_sop_class_uid=uid)
        await peer.send_message(FIND, find, encoded(study()))
        assert (await peer.expect_message(CFindRSP)).status == 0xFF00
        await peer.abort()
    (request,) = handler.stores
    assert request.context.abstract_syntax == CT
    assert request.sop_class_uid == (uid or CT)  # both are there: what it is, and as what it came


async def test_quirk_42_message_id_0_and_ids_used_again_at_once(autojump_clock: object) -> None:
    async with served(Everything()) as peer:
        await peer.associate(CONTEXTS)
        for message_id in (0, 0, 65535, 5, 5, 5, 0):
            await echo(peer, message_id)
        await peer.release()


def test_quirk_42_our_message_ids_are_1_to_65535_and_never_twice_at_once() -> None:
    core = ConnectionPair.established().requestor
    in_flight = {1, 2, 65535}
    for message_id in in_flight:
        core.invoked[message_id] = Invoked(CEchoRQ(message_id=message_id), 1)
    ids = [core.next_message_id() for _ in range(3 * 65535)]
    assert set(ids) == set(range(1, 65536)) - in_flight
    assert all(one != other for one, other in pairwise(ids))


STRAY = (
    CEchoRSP(message_id_being_responded_to=999, status=0),
    CFindRSP(message_id_being_responded_to=1, status=0xFF00),
)


@pytest.mark.parametrize("stray", STRAY, ids=["unknown ID", "another service"])
@pytest.mark.parametrize("strict", [False, True])
async def test_quirk_43_a_response_to_no_request(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, stray: Response, strict: bool
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CEchoRQ)
        await peer.send_message(ECHO, stray, b"")
        if strict:
            await expect_abort(peer, AbortReason.UNEXPECTED_PDU_PARAMETER)
            return
        response = CEchoRSP(message_id_being_responded_to=request.message_id, status=0)
        await peer.send_message(ECHO, response)
        await peer.respond_to_release()

    if strict:
        with pytest.raises(dimse.AssociationAborted, match="to no request of ours"):
            async with scripted(script, strict=True) as association:
                await association.echo()
        return
    with logged(caplog, level=logging.WARNING) as messages:
        async with scripted(script) as association:
            assert (await association.echo()).status == 0
    assert ["to no request of ours" in message for message in messages] == [True]


async def test_quirk_43_a_late_answer_to_what_was_cancelled(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        for message_id in (1, 2):
            await peer.expect_message(CEchoRQ)
            if message_id == 1:
                await trio.sleep(5)
            response = CEchoRSP(message_id_being_responded_to=message_id, status=0)
            await peer.send_message(ECHO, response)
        await peer.respond_to_release()

    with logged(caplog, level=logging.WARNING) as messages:
        async with scripted(script, strict=True) as association:
            with trio.move_on_after(1):
                await association.echo()
            assert (await association.echo()).message_id_being_responded_to == 2
    assert messages == []


async def found(*responses: tuple[Message, bytes | None]) -> list[str]:
    """The study UIDs that a C-FIND gives when it is answered by these."""

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CFindRQ)
        for message, data in responses:
            await peer.send_message(FIND, message, data)
        request = await peer.expect_message(CEchoRQ)
        response = CEchoRSP(message_id_being_responded_to=request.message_id, status=0)
        await peer.send_message(ECHO, response)
        await peer.respond_to_release()

    async with scripted(script) as association:
        matches = await association.find(dimse.query("STUDY"))
        await association.echo()
    return [match.StudyInstanceUID for match in matches]


def find_response(status: int) -> CFindRSP:
    return CFindRSP(message_id_being_responded_to=1, status=status)


MATCH = encoded(study(1))
FINAL = (find_response(0), None)


async def test_quirk_44_pending_with_unsupported_optional_keys(autojump_clock: object) -> None:
    pending = [(find_response(status), MATCH) for status in (0xFF00, 0xFF01, 0xFF00, 0xFF01)]
    assert await found(*pending, FINAL) == ["1.2.1"] * 4


async def test_quirk_45_pending_without_a_data_set(autojump_clock: object) -> None:
    empty, pending = (find_response(0xFF00), None), (find_response(0xFF00), MATCH)
    assert await found(empty, pending, empty, FINAL) == ["1.2.1"]


async def test_quirk_46_a_final_response_with_a_data_set(autojump_clock: object) -> None:
    assert await found((find_response(0xFF00), MATCH), (find_response(0), MATCH)) == ["1.2.1"]


@pytest.mark.parametrize("matches", [0, 2])
async def test_quirk_45_46_we_send_a_data_set_while_pending_and_none_at_the_end(
    autojump_clock: object, matches: int
) -> None:
    async with served(Everything(matches=[study()] * matches)) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(FIND, CFindRQ(message_id=1), encoded(study()))
        for _ in range(matches):
            _, response, data = await peer.receive_message()
            assert isinstance(response, CFindRSP)
            assert (response.status, bool(data)) == (0xFF00, True)
        assert (await peer.receive_message())[1:] == (
            CFindRSP(
                message_id_being_responded_to=1,
                status=0,
                affected_sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1",
            ),
            None,
        )
        await peer.release()
