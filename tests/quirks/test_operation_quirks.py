"""Quirks 51 to 60: sub-operations, roles, events, C-CANCEL, destinations (PS3.7 §9.1, §D.3.3.4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.protocol.messages import (
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CGetRQ,
    CGetRSP,
    CMoveRQ,
    CMoveRSP,
    CStoreRQ,
    CStoreRSP,
    NEventReportRQ,
    NEventReportRSP,
)
from dimse_trio.protocol.negotiation import PresentationContext
from dimse_trio.protocol.pdus import (
    Abort,
    AssociateAC,
    AssociateRQ,
    ContextResult,
    ReleaseRP,
    ReleaseRQ,
    RoleSelection,
    UserInformation,
)
from dimse_trio.protocol.uids import STUDY_ROOT_GET
from dimse_trio.testing.scripted import ScriptedPeer
from semantics.script import (
    CONTEXTS,
    CT,
    ECHO,
    FIND,
    LE,
    MOVE,
    STORE,
    TIMEOUTS,
    encoded,
    instance,
    scripted,
    served,
    study,
)

from .tools import Everything, Unfinished, proposing

STUDY = dimse.query("STUDY", StudyInstanceUID="1.2")
COMMITMENT = "1.2.840.10008.1.20.1"


@pytest.mark.parametrize("handler", [Everything(), None], ids=["handler", "none"])
async def test_quirk_51_c_store_on_the_association_of_a_c_move(
    autojump_clock: object, handler: Everything | None
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CMoveRQ)
        store = CStoreRQ(message_id=50, affected_sop_instance_uid="1.2.3.4")
        await peer.send_message(STORE, store, encoded(instance()))
        stored = await peer.expect_message(CStoreRSP)
        assert stored.status == (dimse.Status.SOP_CLASS_NOT_SUPPORTED if handler is None else 0)
        final = CMoveRSP(message_id_being_responded_to=1, status=0, completed=1)
        await peer.send_message(MOVE, final)
        await peer.respond_to_release()

    async with scripted(script, handler=handler) as association:
        assert (await association.move(STUDY, destination="US")).completed == 1
    if handler is not None:
        assert handler.received == [encoded(instance())]


GET_AND_STORE = [
    PresentationContext(STUDY_ROOT_GET, LE),
    PresentationContext(CT, LE, scp=True),
    PresentationContext(CT, ("1.2.840.10008.1.2",)),
]


async def accept_with_roles(peer: ScriptedPeer, *roles: RoleSelection) -> AssociateRQ:
    """Accept every context in its first transfer syntax, with these roles."""
    request = await peer.expect(AssociateRQ)
    results = tuple(
        ContextResult(context.context_id, 0, context.transfer_syntaxes[0])
        for context in request.contexts
    )
    information = UserInformation(maximum_length=16384, roles=roles)
    await peer.send(AssociateAC("ANY-SCP", "DIMSE-TRIO", results, information))
    return request


async def got(context_id: int, *roles: RoleSelection) -> list[str]:
    """What a C-GET brings that is answered on that context, after these role selections."""

    async def script(peer: ScriptedPeer) -> None:
        await accept_with_roles(peer, *roles)
        await peer.expect_message(CGetRQ)
        store = CStoreRQ(message_id=50, affected_sop_instance_uid="1.2.3.4")
        await peer.send_message(context_id, store, encoded(instance()))
        assert (await peer.expect_message(CStoreRSP)).status == 0
        await peer.send_message(1, CGetRSP(message_id_being_responded_to=1, status=0))
        await peer.respond_to_release()

    async with proposing(GET_AND_STORE, script) as association:
        async with association.get(STUDY) as instances:
            return [request.sop_instance_uid async for request in instances]


@pytest.mark.parametrize("context_id", [3, 5])
async def test_quirk_52_a_sub_operation_on_a_context_without_the_scp_role(
    autojump_clock: object, context_id: int
) -> None:
    assert await got(context_id, RoleSelection(CT, True, False)) == ["1.2.3.4"]


@pytest.mark.parametrize(
    "roles",
    [
        (),
        (RoleSelection(CT, True, True),),
        (RoleSelection(CT, False, True),),
        (RoleSelection(CT, False, False),),
        (RoleSelection(CT, True, True), RoleSelection("1.2.3", True, True)),
    ],
    ids=["none", "as proposed", "only SCP", "neither", "unasked"],
)
async def test_quirk_53_role_answers_of_a_c_get_scp(
    autojump_clock: object, roles: tuple[RoleSelection, ...]
) -> None:
    assert await got(3, *roles) == ["1.2.3.4"]


async def test_quirk_53_a_wider_role_answer_is_not_taken_up(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await accept_with_roles(peer, RoleSelection(STUDY_ROOT_GET, True, True))
        await peer.respond_to_release()

    async with proposing(GET_AND_STORE, script) as association:
        context = association.negotiated.accepted[1]
        assert (context.scu, context.scp) == (True, False)


@pytest.mark.parametrize("lenient", [False, True])
async def test_quirk_53_a_c_get_scu_that_did_not_ask_for_the_scp_role(
    autojump_clock: object, lenient: bool
) -> None:
    contexts = [attrs.evolve(context, scp=False) for context in GET_AND_STORE[:2]]
    async with served(Everything(), lenient_roles=lenient) as peer:
        accept = await peer.associate(contexts)
        assert accept.user_information.roles == ()
        await peer.send_message(1, CGetRQ(message_id=1), encoded(study()))
        if lenient:
            store = await peer.expect_message(CStoreRQ)
            stored = CStoreRSP(message_id_being_responded_to=store.message_id, status=0)
            await peer.send_message(3, stored)
        final = await peer.expect_message(CGetRSP)
        assert (final.completed, final.failed) == ((1, 0) if lenient else (0, 1))
        await peer.release()


EVENT = NEventReportRQ(
    message_id=60,
    affected_sop_class_uid=COMMITMENT,
    affected_sop_instance_uid="1.2.840.10008.1.20.1.1",
    event_type_id=1,
)


async def answered(peer: ScriptedPeer, context_id: int) -> None:
    """An event is answered, with whatever status: nobody here handles events."""
    await peer.send_message(context_id, EVENT, encoded(study()))
    response = await peer.expect_message(NEventReportRSP)
    assert response.message_id_being_responded_to == EVENT.message_id
    assert response.affected_sop_instance_uid == EVENT.affected_sop_instance_uid
    assert response.status.is_failure


async def test_quirk_54_an_event_before_and_after_the_response_to_a_request(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CEchoRQ)
        await answered(peer, ECHO)
        response = CEchoRSP(message_id_being_responded_to=request.message_id, status=0)
        await peer.send_message(ECHO, response)
        await answered(peer, ECHO)
        await peer.respond_to_release()

    async with scripted(script) as association:
        assert (await association.echo()).status == 0
        await trio.sleep(1)


async def test_quirk_54_an_event_during_release(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(ReleaseRQ)
        await peer.send_message(ECHO, EVENT, encoded(study()))
        await peer.send(ReleaseRP())
        await peer.expect_end()  # no answer is possible in Sta7, and no abort is sent

    async with scripted(script) as association:
        pass
    assert isinstance(association.end, dimse.AssociationClosed)


async def test_quirk_54_an_event_on_an_association_of_its_own(autojump_clock: object) -> None:
    context = PresentationContext(COMMITMENT, LE)
    async with served(Everything(), contexts=[context]) as peer:
        await peer.associate([context])
        await answered(peer, 1)
        await peer.release()


@pytest.mark.parametrize(("scu", "scp"), [(True, False), (False, True), (True, True)])
async def test_quirk_55_an_event_with_any_role_selection_or_none(
    autojump_clock: object, scu: bool, scp: bool
) -> None:
    context = PresentationContext(COMMITMENT, LE, scu=scu, scp=scp)
    async with served(Everything(), contexts=[context]) as peer:
        await peer.associate([context])
        await answered(peer, 1)
        await peer.release()


@pytest.mark.parametrize(("scu", "scp"), [(True, False), (False, True), (False, False)])
async def test_quirk_55_an_event_to_a_requestor_whatever_the_role_answer(
    autojump_clock: object, scu: bool, scp: bool
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await accept_with_roles(peer, RoleSelection(COMMITMENT, scu, scp))
        await answered(peer, 1)
        await peer.respond_to_release()

    async with proposing([PresentationContext(COMMITMENT, LE)], script):
        await trio.sleep(1)


@attrs.define
class Endless(Everything):
    """A handler whose C-FIND gives one match and then none for ever."""

    unfinished: Unfinished = attrs.field(factory=Unfinished)

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        yield study()
        await self.unfinished()


@pytest.mark.parametrize("context_id", [FIND, ECHO, MOVE])
async def test_quirk_56_c_cancel_on_any_context(autojump_clock: object, context_id: int) -> None:
    handler = Endless()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(FIND, CFindRQ(message_id=5), encoded(study()))
        assert (await peer.expect_message(CFindRSP)).status == 0xFF00
        await peer.send_message(context_id, CCancelRQ(message_id_being_responded_to=5))
        assert (await peer.expect_message(CFindRSP)).status == 0xFE00
        await peer.release()
    assert handler.unfinished.cancelled


async def test_quirk_56_c_cancel_for_what_is_unknown_or_over(autojump_clock: object) -> None:
    async with served(Everything(matches=[])) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(FIND, CCancelRQ(message_id_being_responded_to=5))
        await peer.send_message(FIND, CFindRQ(message_id=5), encoded(study()))
        assert (await peer.expect_message(CFindRSP)).status == 0
        for message_id in (5, 5, 77):
            await peer.send_message(FIND, CCancelRQ(message_id_being_responded_to=message_id))
        await peer.send_message(ECHO, CEchoRQ(message_id=5))
        assert (await peer.expect_message(CEchoRSP)).status == 0
        await peer.release()


async def test_quirk_57_a_peer_that_ignores_c_cancel(autojump_clock: object) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CFindRQ)
        pending = CFindRSP(message_id_being_responded_to=1, status=0xFF00)  # type: ignore[arg-type]
        await peer.send_message(FIND, pending, encoded(study()))
        await peer.expect_message(CCancelRQ)
        for _ in range(int(TIMEOUTS.cancel_grace) - 1):
            await peer.send_message(FIND, pending, encoded(study()))
            await trio.sleep(1)
        assert await peer.expect(Abort) == Abort(0, 0)

    with pytest.raises(dimse.AssociationAborted, match="did not end C-FIND-RQ within"):
        async with scripted(script) as association:
            start = trio.current_time()
            async with association.find(STUDY) as matches:
                async for _ in matches:
                    break
            assert trio.current_time() - start == pytest.approx(TIMEOUTS.cancel_grace)
            await association.echo()


@pytest.mark.parametrize("how", ["abort", "close", "release"])
async def test_quirk_58_a_find_without_final_response_keeps_its_matches(
    autojump_clock: object, how: str
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CFindRQ)
        pending = CFindRSP(message_id_being_responded_to=1, status=0xFF00)  # type: ignore[arg-type]
        for index in range(3):
            await peer.send_message(FIND, pending, encoded(study(index)))
        if how == "abort":
            await peer.abort(2, 6)
        elif how == "release":
            await peer.send(ReleaseRQ())
            await peer.expect(ReleaseRP)

    kind = dimse.AssociationClosed if how == "release" else dimse.AssociationAborted
    with pytest.raises(kind) as caught:
        async with scripted(script) as association:
            await association.find(STUDY)
    assert [match.StudyInstanceUID for match in caught.value.partial] == ["1.2.0", "1.2.1", "1.2.2"]
    if isinstance(caught.value, dimse.AssociationAborted):
        assert caught.value.source == (2 if how == "abort" else None)


async def test_quirk_58_a_get_without_final_response_keeps_its_files(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(CGetRQ)
        store = CStoreRQ(message_id=50, affected_sop_instance_uid="1.2.3.4")
        await peer.send_message(STORE, store, encoded(instance()))
        assert (await peer.expect_message(CStoreRSP)).status == 0
        await peer.abort()

    with pytest.raises(dimse.AssociationAborted) as caught:
        async with scripted(script) as association:
            await association.get(STUDY, save_to=tmp_path)
    assert caught.value.partial == (tmp_path / "1.2.3.4.dcm",)


@pytest.mark.parametrize("title", ["", "MUCH TOO LONG AN AE TITLE", "A\\B", "\x01\xff", "   "])
async def test_quirk_59_a_move_originator_that_is_no_ae_title(
    autojump_clock: object, title: str
) -> None:
    handler = Everything()
    async with served(handler) as peer:
        await peer.associate(CONTEXTS)
        store = CStoreRQ(
            message_id=1,
            affected_sop_instance_uid="1.2.3",
            move_originator_ae_title=title,
            move_originator_message_id=70,
        )
        await peer.send_message(STORE, store, encoded(instance()))
        assert (await peer.expect_message(CStoreRSP)).status == 0
        await peer.release()
    assert handler.stores[0].message.move_originator_message_id == 70


@pytest.mark.parametrize(
    ("asked", "ignore", "known"),
    [
        ("STATION", False, True),
        ("  STATION\0", False, True),
        ("station", False, False),
        (" Station ", True, True),
    ],
)
async def test_quirk_60_a_move_destination_padded_or_in_another_case(
    asked: str, ignore: bool, known: bool
) -> None:
    station = Everything()
    async with dimse.open_server(station, ae_title="STATION") as destination:
        peers = {"STATION": dimse.Destination("127.0.0.1", destination.port, "STATION")}
        async with dimse.open_server(
            Everything(), peers=peers, ignore_ae_title_case=ignore
        ) as server:
            peer = await ScriptedPeer.connect("127.0.0.1", server.port)
            async with peer.stream:
                await peer.associate(CONTEXTS)
                move = CMoveRQ(message_id=1, move_destination=asked)
                await peer.send_message(MOVE, move, encoded(study()))
                final = await peer.expect_message(CMoveRSP)
                await peer.release()
    if known:
        assert (final.status, final.completed, len(station.stores)) == (0, 1, 1)
    else:
        assert final.status == dimse.Status.MOVE_DESTINATION_UNKNOWN
