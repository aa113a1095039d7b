"""Extended negotiation and identity with DCMTK's storescu and with pynetdicom, both ways."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import (
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

import dimse_trio as dimse
from dimse_trio.testing import dcmtk as programs

from .pynetdicom_peer import request
from .samples import Sample

FIND = dimse.uid_of("StudyRootQueryRetrieveInformationModelFind")
ECHO = dimse.uid_of("Verification")
WORKLIST = dimse.uid_of("ModalityWorklistInformationModelFind")
CT = dimse.uid_of("CTImageStorage")
PRIVATE_CT = "1.2.826.0.1.3680043.2.1143.1"
LE = "1.2.840.10008.1.2.1"


@attrs.define
class Doorkeeper:
    """Lets in those with the right identity, and answers them."""

    query_options = dimse.QueryOptions(relational=True, timezone=True)
    asked: list[dimse.AssociationRequest] = attrs.field(factory=list)
    stored: list[str] = attrs.field(factory=list)

    @asynccontextmanager
    async def handle_association(
        self, request: dimse.AssociationRequest
    ) -> AsyncGenerator[dimse.Admission]:
        self.asked.append(request)
        identity = request.user_identity
        if identity is None or identity.passcode not in ("", "secret"):
            raise dimse.Reject(dimse.RejectReason.PROVIDER_NO_REASON_GIVEN)
        yield dimse.Admission(user_identity_response=b"ticket")

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        self.stored.append(request.sop_class_uid)
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> Any:
        return
        yield


# DCMTK


@pytest.mark.interop
@pytest.mark.parametrize(
    ("options", "kind", "primary"),
    [
        (["--user", "me"], 1, b"me"),
        (["--user", "me", "--password", "secret"], 2, b"me"),
        (["--kerberos", "FILE"], 3, b"from a file "),
        (["--saml", "FILE"], 4, b"from a file "),
        (["--jwt", "FILE"], 5, b"from a file "),
    ],
)
async def test_each_identity_of_storescu_is_seen_and_answered(
    options: list[str], kind: int, primary: bytes, tmp_path: Path, study: dict[str, Sample]
) -> None:
    handler = Doorkeeper()
    file = tmp_path / "identity"
    file.write_bytes(primary)
    words = [str(file) if word == "FILE" else word for word in options]
    sample = study["ExplicitVRLittleEndian"]
    async with dimse.open_server(handler) as server:
        await programs.storescu(server.port, sample.path, options=[*words, "--pos-response"])
    [asked] = handler.asked
    assert asked.user_identity is not None
    assert asked.user_identity.identity_type == kind
    assert asked.user_identity.primary.startswith(primary.strip())
    assert asked.user_identity.response_requested
    assert handler.stored == [sample.sop_class_uid]


@pytest.mark.interop
async def test_storescu_with_a_wrong_passcode_is_rejected(study: dict[str, Sample]) -> None:
    handler = Doorkeeper()
    async with dimse.open_server(handler) as server:
        with pytest.raises(programs.ProgramFailed, match=r"Source: Service Provider \(ACSE.*\)"):
            await programs.storescu(
                server.port,
                study["ExplicitVRLittleEndian"].path,
                options=["--user", "me", "--password", "guess"],
            )
        assert server.statistics().associations_rejected == 1


# pynetdicom


def extended(uid: str, information: bytes) -> SOPClassExtendedNegotiation:
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = uid
    item.service_class_application_information = information
    return item


async def test_pynetdicoms_proposals_are_answered() -> None:
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.primary_field, identity.secondary_field = b"me", b"secret"
    identity.positive_response_requested = True
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid = PRIVATE_CT
    common.service_class_uid = "1.2.840.10008.4.2"
    common.related_general_sop_class_identification = [CT]
    answered: list[Any] = []

    def look(association: Association) -> list[str]:
        answered.extend(association.acceptor.sop_class_extended.items())
        answered.append(association.acceptor.user_identity.server_response)
        return [str(context.abstract_syntax) for context in association.accepted_contexts]

    handler = Doorkeeper()
    with trio.fail_after(30):
        async with dimse.open_server(handler) as server:
            accepted = await request(
                server.port,
                look,
                [(FIND, LE), (PRIVATE_CT, LE)],
                ext_neg=[extended(FIND, b"\1\1\1\1"), identity, common],
            )
    assert accepted == [FIND, PRIVATE_CT]
    assert answered == [(FIND, b"\1\0\0\1"), b"ticket"]


@contextmanager
def acceptor(seen: list[Any]) -> Iterator[int]:
    def identify(event: evt.Event) -> tuple[bool, bytes | None]:
        seen.append((event.user_id_type, event.primary_field, event.secondary_field))
        return True, b"ticket"

    def extend(event: evt.Event) -> dict[str, bytes]:
        seen.append(dict(event.app_info))
        return dict.fromkeys(event.app_info, b"\x01\x00\x00\x00")

    def common(event: evt.Event) -> dict[str, Any]:
        seen.extend(event.items.values())
        return dict(event.items)

    ae = AE(ae_title="PYNETDICOM")
    for uid in (FIND, WORKLIST, ECHO, PRIVATE_CT):
        ae.add_supported_context(uid, LE)
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_USER_ID, identify),
            (evt.EVT_SOP_EXTENDED, extend),
            (evt.EVT_SOP_COMMON, common),
        ],
    )
    assert server is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        ae.shutdown()


async def test_our_proposals_reach_pynetdicom_and_its_answers_us() -> None:
    seen: list[Any] = []
    contexts = [
        dimse.PresentationContext(
            FIND, LE, options=dimse.QueryOptions(relational=True, fuzzy_names=True)
        ),
        dimse.PresentationContext(PRIVATE_CT, LE, general_classes=CT),
    ]
    with trio.fail_after(30), acceptor(seen) as port:
        async with dimse.open_association(
            "127.0.0.1",
            port,
            contexts=contexts,
            user_identity=dimse.UserIdentity.kerberos(b"mine", response_requested=True),
        ) as association:
            negotiated = association.negotiated
            assert negotiated.query_options(FIND) == dimse.QueryOptions(relational=True)
            assert negotiated.user_identity_response == b"ticket"
        assert {FIND: b"\1\0\1"} in seen
        assert any(
            getattr(item, "related_general_sop_class_identification", None) == [CT] for item in seen
        )
    assert (3, b"mine", b"") in seen or (3, b"mine", None) in seen


async def test_worklist_options_are_three_bytes_or_four_both_ways() -> None:
    answered: list[Any] = []
    seen: list[Any] = []

    def look(association: Association) -> None:
        answered.extend(association.acceptor.sop_class_extended.items())

    class Listing(Doorkeeper):
        query_sop_classes = (WORKLIST,)
        handle_association = None

    asked = dimse.PresentationContext(WORKLIST, LE, options=dimse.QueryOptions(fuzzy_names=True))
    with trio.fail_after(30):
        async with dimse.open_server(Listing()) as server:
            for information in (b"\1\1\1", b"\1\1\1\1"):
                proposed = [extended(WORKLIST, information)]
                await request(server.port, look, [(WORKLIST, LE)], ext_neg=proposed)
        with acceptor(seen) as port:
            async with dimse.open_association("127.0.0.1", port, contexts=[asked]):
                pass
    assert answered == [(WORKLIST, b"\1\1\0"), (WORKLIST, b"\1\1\0\1")]
    assert {WORKLIST: b"\1\1\1"} in seen


async def test_agreed_options_are_those_of_the_query() -> None:
    data_set = Dataset()
    data_set.QueryRetrieveLevel = "STUDY"

    def find(association: Association) -> list[int]:
        return [status.Status for status, _ in association.send_c_find(data_set, FIND)]

    handler = Doorkeeper()
    with trio.fail_after(30):
        async with dimse.open_server(handler) as server:
            identity = UserIdentityNegotiation()
            identity.user_identity_type = 1
            identity.primary_field = b"me"
            assert await request(server.port, find, [(FIND, LE)], ext_neg=[identity]) == [0]
