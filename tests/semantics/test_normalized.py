"""DIMSE-N, both roles, over memory streams (PS3.7 §10.1)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from pydicom import DataElement
from pydicom.uid import UID

import dimse_trio as dimse
from dimse_trio.protocol.messages import (
    NActionRQ,
    NActionRSP,
    NCreateRSP,
    NEventReportRQ,
    NEventReportRSP,
    NSetRQ,
)
from dimse_trio.protocol.pdus import ReleaseRP, ReleaseRQ
from dimse_trio.testing import ScriptedPeer, associated_pair

from .normalized import (
    COMMITMENT,
    FILM_SESSION,
    GRAYSCALE_PRINT,
    MPPS,
    MPPS_RETRIEVE,
    PRINTER,
    RT,
    UPS_PULL,
    UPS_PUSH,
    Everything,
    contexts,
)
from .script import attributes, encoded, scripted, served


async def test_an_instance_is_made_changed_read_acted_upon_and_deleted(
    autojump_clock: trio.abc.Clock,
) -> None:
    handler = Everything()
    async with associated_pair(handler, contexts=contexts(RT)) as association:
        made = await association.n_create(RT, "1.2.3", attributes(PatientID="1", PatientName="ÄÖ"))
        assert (made.status, made.sop_instance_uid) == (dimse.Status.SUCCESS, "1.2.3")
        await association.n_set(RT, "1.2.3", attributes(PatientID="2"))
        got = await association.n_get(RT, "1.2.3", ["PatientID", 0x00100010])
        assert got.data_set.PatientID == "2"
        assert got.data_set.PatientName == "ÄÖ"
        done = await association.n_action(RT, "1.2.3", 7, attributes(PatientID="3"))
        assert done.data_set.PatientID == "3"
        assert isinstance(done.response, NActionRSP)
        assert done.response.action_type_id == 7
        await association.n_delete(RT, "1.2.3")
        with pytest.raises(dimse.StatusError) as caught:
            await association.n_get(RT, "1.2.3")
        assert caught.value.status == dimse.Status.NO_SUCH_SOP_INSTANCE
        assert association.is_open
    assert [type(request).__name__ for request in handler.seen] == [
        "NCreateRequest",
        "NSetRequest",
        "NGetRequest",
        "NActionRequest",
        "NDeleteRequest",
        "NGetRequest",
    ]
    assert all(request.sop_class_uid == RT for request in handler.seen)


async def test_what_was_not_asked_for_is_left_out_of_n_get(autojump_clock: trio.abc.Clock) -> None:
    handler = Everything({"1.2.3": attributes(PatientID="1", StudyID="2")})
    async with associated_pair(handler, contexts=contexts(RT)) as association:
        got = await association.n_get(RT, "1.2.3", "StudyID")
        assert [element.keyword for element in got.data_set] == ["StudyID"]
        everything = await association.n_get(RT, "1.2.3")
        assert everything.data_set == handler.instances["1.2.3"]


async def test_the_scp_gives_an_instance_its_uid_when_the_scu_leaves_it_to_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    handler = Everything()
    async with associated_pair(handler, contexts=contexts(RT)) as association:
        made = await association.n_create(RT, attributes=attributes(PatientID="1"))
        assert list(handler.instances) == [made.sop_instance_uid]
        assert UID(made.sop_instance_uid).is_valid
        handler.answer = dimse.Reply(sop_instance_uid="1.2.3.4")
        chosen = await association.n_create(RT)
        assert chosen.sop_instance_uid == "1.2.3.4"


async def test_a_reply_says_what_went_wrong_with_which_attributes(
    autojump_clock: trio.abc.Clock,
) -> None:
    handler = Everything({"1.2.3": attributes(PatientID="1")})
    handler.answer = dimse.Reply(
        dimse.Status.ATTRIBUTE_LIST_ERROR,
        attributes(PatientID="1"),
        attribute_identifiers=[0x00100020],
        comment="PatientID stays",
    )
    async with associated_pair(handler, contexts=contexts(RT)) as association:
        result = await association.n_set(RT, "1.2.3", attributes(PatientID="2"))
        assert result.status == dimse.Status.ATTRIBUTE_LIST_ERROR  # a warning: not raised
        assert result.response.attribute_identifier_list == (0x00100020,)  # type: ignore[attr-defined]
        assert result.response.error_comment == "PatientID stays"
        assert result.data_set.PatientID == "1"


async def test_an_event_reaches_the_requestors_handler_before_the_response_of_the_action(
    autojump_clock: trio.abc.Clock,
) -> None:
    events = Everything()

    class Committing:
        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            reported = await request.association.n_event_report(
                COMMITMENT, "1.2.840.10008.1.20.1.1", 1, attributes(TransactionUID="1.2")
            )
            assert reported.response.event_type_id == 1  # type: ignore[attr-defined]
            return dimse.Status.SUCCESS

    async with associated_pair(
        Committing(), contexts=contexts(COMMITMENT), requestor_handler=events
    ) as association:
        await association.n_action(COMMITMENT, "1.2.840.10008.1.20.1.1", 1, attributes())
        [event] = events.seen
        assert event.event_type_id == 1
        assert event.information.TransactionUID == "1.2"


async def test_a_task_of_the_handler_can_wait_until_the_response_is_sent(
    autojump_clock: trio.abc.Clock,
) -> None:
    order: list[str] = []
    reported = trio.Event()

    class Committing:
        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            request.association.start_soon(self.report, request)
            await trio.sleep(1)
            return dimse.Status.SUCCESS

        async def report(self, request: dimse.NActionRequest) -> None:
            await request.responded.wait()
            await request.association.n_event_report(COMMITMENT, "1.2", 1)

    class Events:
        async def handle_n_event_report(self, request: dimse.NEventReportRequest) -> dimse.Status:
            order.append("event")
            reported.set()
            return dimse.Status.SUCCESS

    async with associated_pair(
        Committing(), contexts=contexts(COMMITMENT), requestor_handler=Events()
    ) as association:
        await association.n_action(COMMITMENT, "1.2", 1)
        order.append("response")
        await reported.wait()
    assert order == ["response", "event"]


async def test_an_event_that_meets_the_release_is_still_seen_to_its_end(
    autojump_clock: trio.abc.Clock,
) -> None:
    done: list[str] = []

    class Slow:
        async def handle_n_event_report(self, request: dimse.NEventReportRequest) -> dimse.Status:
            await trio.sleep(1)
            done.append(request.information.TransactionUID)
            return dimse.Status.SUCCESS

    async def script(peer: ScriptedPeer) -> None:
        await peer.expect(ReleaseRQ)
        event = NEventReportRQ(
            message_id=1,
            affected_sop_class_uid=COMMITMENT,
            affected_sop_instance_uid="1.2",
            event_type_id=1,
        )
        await peer.send_message(1, event, encoded(attributes(TransactionUID="1.2.3")))
        await peer.send(ReleaseRP())

    async with scripted(script, handler=Slow(), contexts=contexts(COMMITMENT)):
        pass
    assert done == ["1.2.3"]


async def test_an_event_without_a_handler_is_an_unrecognized_operation(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        event = NEventReportRQ(message_id=9, affected_sop_instance_uid="1.2", event_type_id=1)
        await peer.send_message(1, event)
        answer = await peer.expect_message(NEventReportRSP)
        assert answer.status == dimse.Status.UNRECOGNIZED_OPERATION
        answered.set()
        await peer.expect(ReleaseRQ)
        await peer.send(ReleaseRP())

    answered = trio.Event()
    async with scripted(script, contexts=contexts(COMMITMENT)):
        await answered.wait()


async def test_a_requestor_becomes_the_scp_that_reports_by_role_selection(
    autojump_clock: trio.abc.Clock,
) -> None:
    events = Everything()
    as_scp = dimse.PresentationContext(COMMITMENT, scp=True, scu=False)
    async with associated_pair(events, contexts=[as_scp]) as association:
        [context] = association.negotiated.accepted.values()
        assert (context.scu, context.scp) == (False, True)
        await association.n_event_report(COMMITMENT, "1.2", 2)
        assert [event.event_type_id for event in events.seen] == [2]
        with pytest.raises(dimse.ContextNotAccepted, match="not with the SCU role"):
            await association.n_action(COMMITMENT, "1.2", 1)
    async with associated_pair(events, contexts=contexts(COMMITMENT)) as association:
        with pytest.raises(dimse.ContextNotAccepted, match=r"scp=True, scu=False"):
            await association.n_event_report(COMMITMENT, "1.2", 2)


async def test_the_context_may_be_of_another_class_than_the_message(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Print(Everything):
        normalized_sop_classes = frozenset((GRAYSCALE_PRINT,))

    handler = Print({"1.2.840.10008.5.1.1.17": attributes(PrinterName="LASER")})
    async with associated_pair(handler, contexts=contexts(GRAYSCALE_PRINT)) as association:
        got = await association.n_get(PRINTER, "1.2.840.10008.5.1.1.17")
        assert got.data_set.PrinterName == "LASER"
        made = await association.n_create(FILM_SESSION)
        assert handler.seen[-1].sop_class_uid == FILM_SESSION
        assert handler.seen[-1].context.abstract_syntax == GRAYSCALE_PRINT
        deleted = await association.n_delete(
            "1.2.3.4", made.sop_instance_uid, context=GRAYSCALE_PRINT
        )
        assert deleted.response.affected_sop_class_uid == "1.2.3.4"  # type: ignore[attr-defined]


async def test_ups_push_messages_travel_on_a_ups_pull_context(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Steps(Everything):
        async def handle_find(self, request: dimse.FindRequest) -> Any:
            yield attributes(PatientID="1")

    handler = Steps({"1.2.3": attributes()})
    async with associated_pair(handler, contexts=contexts(UPS_PULL)) as association:
        await association.n_action(UPS_PUSH, "1.2.3", 1, attributes(PatientID="1"))
        assert handler.seen[0].sop_class_uid == UPS_PUSH


async def test_the_table_decides_what_a_handler_offers(autojump_clock: trio.abc.Clock) -> None:
    class Steps:
        async def handle_n_create(self, request: dimse.NCreateRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

        async def handle_n_set(self, request: dimse.NSetRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    proposed = contexts(MPPS, MPPS_RETRIEVE, COMMITMENT, UPS_PUSH)
    async with associated_pair(Steps(), contexts=proposed) as association:
        accepted = association.negotiated.accepted.values()
        assert [context.abstract_syntax for context in accepted] == [MPPS]
        with pytest.raises(dimse.ContextNotAccepted):
            await association.n_get(MPPS_RETRIEVE, "1.2.3")
        with pytest.raises(dimse.StatusError) as caught:  # offered, but not this operation of it
            await association.n_delete(MPPS, "1.2.3")
        assert caught.value.status == dimse.Status.UNRECOGNIZED_OPERATION


@pytest.mark.parametrize(
    ("returned", "status"),
    [
        (dimse.Status.SUCCESS, 0),
        (0x0107, 0x0107),
        (dimse.Reply(0x0213, comment="full"), 0x0213),
        (dimse.Status.PENDING, 0x0110),
        ("success", 0x0110),
        (dimse.Reply(data_set="no data set"), 0x0110),  # type: ignore[arg-type]
    ],
)
async def test_what_a_handler_returns_becomes_the_status(
    returned: object,
    status: int,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Everything({"1.2.3": attributes()})
    handler.answer = returned or None
    async with associated_pair(handler, contexts=contexts(RT)) as association:
        result = await association.n_set(RT, "1.2.3", attributes(PatientID="1"), check=False)
        assert result.status == status
        assert association.is_open
    assert ("HandlerError" in caplog.text) == (status == 0x0110)


async def test_cancelled_while_the_peer_works_the_association_stays_usable(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Slow(Everything):
        async def handle_n_get(self, request: dimse.NGetRequest) -> Any:
            await trio.sleep(5)
            return await super().handle_n_get(request)

    handler = Slow({"1.2.3": attributes(PatientID="1")})
    async with associated_pair(handler, contexts=contexts(RT)) as association:
        with trio.move_on_after(1) as scope:
            await association.n_get(RT, "1.2.3")
        assert scope.cancelled_caught
        got = await association.n_get(RT, "1.2.3")
        assert got.data_set.PatientID == "1"


async def test_requests_show_nothing_of_their_data(autojump_clock: trio.abc.Clock) -> None:
    handler = Everything()
    async with associated_pair(handler, contexts=contexts(RT)) as association:
        result = await association.n_create(RT, "1.2.3", attributes(PatientName="SECRET"))
        assert "SECRET" not in repr(handler.seen) + repr(result) + repr(
            dimse.Reply(data_set=attributes(PatientName="SECRET"))
        )
    assert isinstance(result.response, NCreateRSP)


def test_a_set_request_has_no_pending_status() -> None:
    assert not NSetRQ.response.name.startswith("C-")
    assert NSetRQ.normalized


async def test_errors_do_not_show_what_is_in_data_sets(autojump_clock: trio.abc.Clock) -> None:
    bad = DataElement(0x00101010, "US", None)
    bad._value = "Doe^John"  # type: ignore[attr-defined]
    data_set = attributes(PatientID="1")
    data_set[0x00101010] = bad
    async with associated_pair(Everything(), contexts=contexts(RT)) as association:
        with pytest.raises(dimse.DataSetError) as caught:
            await association.n_set(RT, "1.2.3", data_set)
    assert "Doe" not in str(caught.value)
    assert "(0010,1010)" in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("leave", ["release", "abort", "close"])
async def test_a_report_to_a_peer_that_has_left_is_no_error_of_the_listener(
    leave: str, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Committing:
        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            request.association.start_soon(self.report, request)
            return dimse.Status.SUCCESS

        async def report(self, request: dimse.NActionRequest) -> None:
            await request.responded.wait()
            await trio.sleep(1)
            await request.association.n_event_report(COMMITMENT, "1.2", 1, check=False)

    caplog.set_level("INFO")
    async with served(Committing()) as peer:
        await peer.associate(contexts(COMMITMENT))
        request = NActionRQ(message_id=1, requested_sop_instance_uid="1.2", action_type_id=1)
        await peer.send_message(1, request)
        await peer.expect_message(NActionRSP)
        if leave == "release":
            await peer.release()
        elif leave == "abort":
            await peer.abort()
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked(2)
    assert "Traceback" not in caplog.text
