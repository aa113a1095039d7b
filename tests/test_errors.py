"""The errors' messages: one line that says what happened and what to try."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio.protocol.messages import (
    CEchoRSP,
    CGetRSP,
    CMoveRSP,
    NActionRQ,
    NActionRSP,
    NGetRQ,
    NGetRSP,
    Response,
)


def response(kind: type[Response], status: int, **fields: Any) -> Response:
    return kind(message_id_being_responded_to=1, status=dimse.Status(status), **fields)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            response(CEchoRSP, 0x0110),
            "Processing failure (0x0110); see the peer's log",
        ),
        (
            response(CEchoRSP, 0x0110, error_comment="no disk"),
            "Processing failure (0x0110): no disk; see the peer's log",
        ),
        (response(CEchoRSP, 0x0112), "No such SOP instance (0x0112)"),
        (
            response(CMoveRSP, 0xA801, completed=0, failed=0, error_comment="what is WS?"),
            (
                "Refused: move destination unknown (0xa801): what is WS?, 0 completed, 0 failed;"
                " have that AE title configured at the peer, with its host and port"
            ),
        ),
        (
            response(CGetRSP, 0xC000, completed=2, failed=1, warning=3),
            (
                "Cannot understand, or unable to process (0xc000): 2 completed, 1 failed,"
                " 3 with warnings; see the peer's log; try fewer keys in a query, or check the"
                " data set"
            ),
        ),
    ],
)
def test_a_failure_of_the_peer_says_what_came_of_it_and_what_to_try(
    answer: Response, message: str
) -> None:
    assert str(dimse.StatusError.of(answer)) == message


UPS = "UnifiedProcedureStepPush"


@pytest.mark.parametrize(
    ("status", "sop_class", "message"),
    [
        (
            0xC301,
            UPS,
            (
                "Procedure step: the correct Transaction UID was not provided (0xc301): no;"
                " somebody else has claimed it, or give the Transaction UID that it was claimed"
                " with"
            ),
        ),
        (
            0xC301,
            "BasicFilmSession",
            (
                "Cannot understand, or unable to process (0xc301): no; see the peer's log; try"
                " fewer keys in a query, or check the data set"
            ),
        ),
        (0x0110, UPS, "Processing failure (0x0110): no; see the peer's log"),
        (
            0xC100,
            "GeneralRelevantPatientInformationQuery",
            (
                "Relevant patient: there is more than one match (0xc100): no; ask with the Issuer"
                " of Patient ID as well"
            ),
        ),
    ],
)
def test_a_status_is_explained_by_the_service_that_it_is_of(
    status: int, sop_class: str, message: str
) -> None:
    request = NActionRQ(message_id=1, requested_sop_class_uid=dimse.uid_of(sop_class))
    answer = response(NActionRSP, status, error_comment="no")
    assert str(dimse.StatusError.of(answer, request)) == message


@pytest.mark.parametrize("status", [0x0118, 0x0122, 0x0211])
def test_n_get_of_a_performed_step_is_sent_to_the_class_that_has_it(status: int) -> None:
    request = NGetRQ(
        message_id=1, requested_sop_class_uid=dimse.uid_of("ModalityPerformedProcedureStep")
    )
    error = dimse.StatusError.of(response(NGetRSP, status), request)
    assert "n_get(uid_of('ModalityPerformedProcedureStepRetrieve'), …)" in str(error)


def test_a_get_without_contexts_for_compressed_instances_says_so() -> None:
    error = dimse.StatusError.of(response(CGetRSP, 0xA702, completed=0, failed=1, warning=0))
    assert ": 0 completed, 1 failed; for C-GET, " in str(error)
    assert "retrieve_contexts" in str(error)


@pytest.mark.parametrize(
    ("result", "advice"),
    [
        (dimse.RejectResult.TRANSIENT, "try again later, or with fewer at once"),
        (dimse.RejectResult.PERMANENT, "propose fewer presentation contexts"),
    ],
)
def test_what_helps_against_a_limit_depends_on_whether_it_will_pass(
    result: int, advice: str
) -> None:
    error = dimse.AssociationRejected(result, 3, 2, called="A", calling="B")
    assert advice in str(error)
    assert ("again" in str(error)) == error.is_transient


def test_a_failure_of_a_handler_has_no_advice_for_its_peer() -> None:
    error = dimse.StatusError(dimse.Status.OUT_OF_RESOURCES, "disk full")
    assert str(error) == "Refused: out of resources (0xa700): disk full"


def test_an_association_that_is_over_says_what_to_do() -> None:
    error = dimse.AssociationClosed("the association is over")
    assert str(error) == str(copy.copy(error)) == "the association is over; open another one"


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("127.0.0.1", "refused; check that the peer is running and that the port is right"),
        ("a..b", "no such name; check how the host is spelt"),
    ],
)
async def test_no_connection_says_what_to_check(host: str, advice: str) -> None:
    with pytest.raises(dimse.ConnectionFailed, match=advice):
        async with dimse.open_association(host, 1):
            pass


async def test_a_lost_connection_says_what_to_try() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()
    with pytest.raises(dimse.AssociationAborted, match="log may say why; try again"):
        async with dimse.associate_over(ours):
            pass
