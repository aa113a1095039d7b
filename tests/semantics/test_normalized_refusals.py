"""DIMSE-N: what is malformed, or not what a context is for, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio.protocol.messages import (
    CFindRQ,
    NActionRQ,
    NCreateRQ,
    NCreateRSP,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NGetRSP,
    NSetRQ,
)
from dimse_trio.protocol.pdus import ReleaseRP, ReleaseRQ
from dimse_trio.testing import ScriptedPeer, associated_pair

from .normalized import MPPS, PRINTER, RT, Everything, contexts
from .script import attributes, encoded, scripted, served

NO_DATA_SET = b"\x08\x00\x18\x00ZZ\x04\x001.2\0"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (NActionRQ(message_id=1, requested_sop_instance_uid="1.2"), 0x0123),
        (NEventReportRQ(message_id=1, affected_sop_instance_uid="1.2"), 0x0113),
        (NGetRQ(message_id=1), 0x0117),
        (NSetRQ(message_id=1, requested_sop_instance_uid="../../etc"), 0x0117),
        (NDeleteRQ(message_id=1, requested_sop_instance_uid="1" * 65), 0x0117),
        (NCreateRQ(message_id=1, affected_sop_instance_uid="x"), 0x0117),
        (NGetRQ(message_id=1, requested_sop_instance_uid="1.2"), 0x0112),
    ],
)
async def test_a_request_that_lacks_something_gets_its_status_and_the_association_lives(
    request_: Any, status: int, autojump_clock: trio.abc.Clock
) -> None:
    async with served(Everything()) as peer:
        await peer.associate(contexts(RT))
        await peer.send_message(1, request_)
        answer = await peer.expect_message(type(request_).response)
        assert answer.status == status
        await peer.send_message(1, NCreateRQ(message_id=2, affected_sop_instance_uid="1.2"))
        made = await peer.expect_message(NCreateRSP)
        assert made.status == dimse.Status.SUCCESS


async def test_a_data_set_that_is_none_gets_a_status(autojump_clock: trio.abc.Clock) -> None:
    async with served(Everything()) as peer:
        await peer.associate(contexts(RT))
        await peer.send_message(1, NCreateRQ(message_id=1), NO_DATA_SET)
        answer = await peer.expect_message(NCreateRSP)
        assert answer.status == dimse.Status.PROCESSING_FAILURE


async def test_a_response_that_is_no_data_set_is_the_callers_error_and_the_association_lives(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        await peer.expect_message(NGetRQ)
        bad = NGetRSP(message_id_being_responded_to=1, status=dimse.Status.SUCCESS)
        await peer.send_message(1, bad, NO_DATA_SET)
        await peer.expect(ReleaseRQ)
        await peer.send(ReleaseRP())

    async with scripted(script, contexts=contexts(RT)) as association:
        with pytest.raises(dimse.DataSetError):
            await association.n_get(RT, "1.2.3")


async def test_a_data_set_over_the_limit_ends_the_association(
    autojump_clock: trio.abc.Clock,
) -> None:
    limits = dimse.Limits(attributes=1000)
    async with associated_pair(Everything(), contexts=contexts(RT), limits=limits) as association:
        with pytest.raises(dimse.AssociationAborted):
            await association.n_create(RT, "1.2.3", attributes(TextValue="x" * 2000))


@pytest.mark.parametrize("wrong", ["NoSuchKeyword", object(), -1])
async def test_an_attribute_that_is_none_is_refused_before_anything_is_sent(
    wrong: Any, autojump_clock: trio.abc.Clock
) -> None:
    async with associated_pair(Everything(), contexts=contexts(RT)) as association:
        with pytest.raises(dimse.LocalProtocolError, match="keywords"):
            await association.n_get(RT, "1.2.3", [wrong])
        with pytest.raises(TypeError, match="Dataset"):
            await association.n_set(RT, "1.2.3", "PatientID")  # type: ignore[arg-type]


# -- what a context is for -------------------------------------------------------------------------


class All(Everything):
    """Every service, C-FIND too."""

    async def handle_find(self, request: dimse.FindRequest) -> Any:
        self.seen.append(request)
        yield attributes(PatientID="1")

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


@pytest.mark.parametrize(
    ("request_", "abstract_syntax"),
    [
        (CFindRQ(message_id=1), "1.2.840.10008.1.1"),
        (NDeleteRQ(message_id=1, requested_sop_instance_uid="1.2"), "1.2.840.10008.1.1"),
        (NDeleteRQ(message_id=1, requested_sop_class_uid=RT, requested_sop_instance_uid="1"), MPPS),
        (NGetRQ(message_id=1, requested_sop_class_uid=RT, requested_sop_instance_uid="1"), PRINTER),
        (CFindRQ(message_id=1), MPPS),
    ],
)
async def test_a_request_is_refused_on_a_context_that_is_for_something_else(
    request_: Any, abstract_syntax: str, autojump_clock: trio.abc.Clock
) -> None:
    handler = All()
    async with served(handler) as peer:
        await peer.associate(contexts(abstract_syntax))
        has_data = isinstance(request_, CFindRQ)
        await peer.send_message(1, request_, encoded(attributes()) if has_data else None)
        answer = await peer.expect_message(type(request_).response)
        assert answer.status == dimse.Status.SOP_CLASS_NOT_SUPPORTED
    assert handler.seen == []


async def test_a_requestor_that_is_no_scp_performs_nothing_of_a_class(
    autojump_clock: trio.abc.Clock,
) -> None:
    handler = Everything()

    async def script(peer: ScriptedPeer) -> None:
        await peer.send_message(1, NDeleteRQ(message_id=1, requested_sop_instance_uid="1.2"))
        answer = await peer.expect_message(NDeleteRQ.response)
        assert answer.status == dimse.Status.SOP_CLASS_NOT_SUPPORTED
        refused.set()
        await peer.expect(ReleaseRQ)
        await peer.send(ReleaseRP())

    refused = trio.Event()
    async with scripted(script, handler=handler, contexts=contexts(RT)):
        await refused.wait()
    assert handler.seen == []


@pytest.mark.parametrize(
    "data", [b"\xff" * 100, bytes(100), b"\x10\0\x20\0LO\x0c\0cut", b"GET / HTTP/1.1\r\n"]
)
async def test_what_is_cut_off_or_no_data_set_never_reaches_a_handler(
    data: bytes, autojump_clock: trio.abc.Clock
) -> None:
    handler = Everything({"1.2.3": attributes()})
    async with served(handler) as peer:
        await peer.associate([dimse.PresentationContext(RT, "1.2.840.10008.1.2.1")])
        request = NSetRQ(message_id=1, requested_sop_instance_uid="1.2.3")
        await peer.send_message(1, request, data)
        answer = await peer.expect_message(NSetRQ.response)
        assert answer.status == dimse.Status.PROCESSING_FAILURE
    assert handler.seen == []


@pytest.mark.parametrize(
    "reply",
    [
        dimse.Reply(comment=5),  # type: ignore[arg-type]
        dimse.Reply(sop_instance_uid=5),  # type: ignore[arg-type]
        dimse.Reply(sop_instance_uid="中"),
        dimse.Reply(sop_instance_uid="1" * 100),
        dimse.Reply(attribute_identifiers=["PatientName"]),  # type: ignore[list-item]
        dimse.Reply(attribute_identifiers=[1 << 40]),
        dimse.Reply(attribute_identifiers=range(100_000)),
        dimse.Reply(1.5),  # type: ignore[arg-type]
    ],
)
async def test_a_reply_that_cannot_be_is_a_processing_failure(
    reply: dimse.Reply, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Everything({"1.2.3": attributes()})
    handler.answer = reply
    async with associated_pair(handler, contexts=contexts(RT)) as association:
        with pytest.raises(dimse.StatusError) as caught:
            await association.n_create(RT, "1.2.3", attributes(PatientID="1"))
        assert caught.value.status == dimse.Status.PROCESSING_FAILURE
        handler.answer = None
        assert (await association.n_set(RT, "1.2.3", attributes())).status == 0
    assert "handler failed" in caplog.text
