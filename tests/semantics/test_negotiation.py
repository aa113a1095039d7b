"""Extended negotiation, identity and admission, both roles over memory streams (PS3.7 §D.3.3)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.protocol.pdus import (
    AssociateAC,
    AssociateRQ,
    ContextResult,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserInformation,
)
from dimse_trio.testing import ScriptedPeer, associated_pair

from .script import instance, served

FIND = dimse.uid_of("StudyRootQueryRetrieveInformationModelFind")
WORKLIST = dimse.uid_of("ModalityWorklistInformationModelFind")
CT = dimse.uid_of("CTImageStorage")
ECHO = dimse.uid_of("Verification")
PRIVATE_CT = "1.2.826.0.1.3680043.2.1143.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


@attrs.define
class Echoing:
    """Answers C-ECHO, keeps what it stores, finds nothing, and says what was agreed on."""

    query_options = dimse.QueryOptions(relational=True, fuzzy_names=True)
    storage_options = dimse.StorageOptions(level=dimse.StorageLevel.FULL, coercion=0)
    stored: list[str] = attrs.field(factory=list)
    agreed: list[dimse.QueryOptions] = attrs.field(factory=list)

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        self.stored.append(request.sop_class_uid)
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        self.agreed.append(request.options)
        return
        yield


class Admitting(Echoing):
    """Asks `admit` about each association."""

    def __init__(self, admit: Any) -> None:
        super().__init__()
        self.admit = admit
        self.asked: list[dimse.AssociationRequest] = []

    @asynccontextmanager
    async def handle_association(
        self, request: dimse.AssociationRequest
    ) -> AsyncGenerator[dimse.Admission | None]:
        self.asked.append(request)
        yield self.admit(request)


# Options


async def test_both_sides_go_by_the_options_that_both_have(autojump_clock: trio.abc.Clock) -> None:
    handler = Echoing()
    asked = dimse.QueryOptions(fuzzy_names=True, timezone=True)
    contexts = [
        dimse.PresentationContext(FIND, options=asked),
        dimse.PresentationContext(CT, options=dimse.StorageOptions()),
    ]
    async with associated_pair(handler, contexts=contexts) as association:
        agreed = dimse.QueryOptions(fuzzy_names=True)
        assert association.negotiated.query_options(FIND) == agreed
        assert association.negotiated.storage_options(CT) == handler.storage_options
        await association.find_studies(PatientName="A")
        assert handler.agreed == [agreed]


async def test_what_is_not_proposed_is_not_agreed_on(autojump_clock: trio.abc.Clock) -> None:
    handler = Echoing()
    async with associated_pair(handler) as association:
        assert association.negotiated.query_options(FIND) == dimse.QueryOptions()
        assert association.negotiated.storage_options(CT) is None
        await association.find_studies(PatientName="A")
        assert handler.agreed == [dimse.QueryOptions()]


async def test_a_worklist_is_relational_and_combines_dates_with_times_in_any_case(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Listing:
        query_sop_classes = (WORKLIST,)
        query_options = dimse.QueryOptions(timezone=True)

        async def handle_find(self, request: dimse.FindRequest) -> AsyncGenerator[Dataset]:
            heard.append(request.options)
            return
            yield

    heard: list[dimse.QueryOptions] = []
    always = dimse.QueryOptions(relational=True, date_time=True)
    agreed = attrs.evolve(always, timezone=True)
    asked = dimse.QueryOptions(fuzzy_names=True, timezone=True)
    for proposed, expected, said in ((None, always, []), (asked, agreed, [b"\1\1\0\1"])):
        contexts = [dimse.PresentationContext(WORKLIST, options=proposed)]
        async with associated_pair(Listing(), contexts=contexts) as association:
            negotiated = association.negotiated
            assert negotiated.query_options(WORKLIST) == expected
            assert [item.information for item in negotiated.extended] == said
            await association.find(Dataset(), model=WORKLIST)
            assert heard.pop() == expected


async def test_a_handler_without_options_answers_nothing(autojump_clock: trio.abc.Clock) -> None:
    class Plain:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            return
            yield

    proposed = dimse.PresentationContext(FIND, options=dimse.QueryOptions(relational=True))
    async with associated_pair(Plain(), contexts=[proposed]) as association:
        assert association.negotiated.extended == ()


async def test_options_of_a_class_that_is_refused_are_not_answered(
    autojump_clock: trio.abc.Clock,
) -> None:
    refused = dimse.PresentationContext(CT, "1.2.3", options=dimse.StorageOptions())
    contexts = [dimse.PresentationContext(ECHO), refused]
    async with associated_pair(Echoing(), contexts=contexts) as association:
        assert association.negotiated.extended == ()


async def test_options_of_the_wrong_kind_are_refused_before_anything_is_served() -> None:
    class Wrong(Echoing):
        query_options = True  # type: ignore[assignment]

    with pytest.raises(dimse.HandlerError, match="QueryOptions"):
        async with dimse.open_server(Wrong()):
            pass


# Common extended negotiation


async def test_an_unknown_class_is_accepted_as_the_general_one(
    autojump_clock: trio.abc.Clock,
) -> None:
    handler = Echoing()
    special = dimse.PresentationContext(PRIVATE_CT, general_classes=CT)
    async with associated_pair(handler, contexts=[special]) as association:
        image = instance()
        image.SOPClassUID = PRIVATE_CT
        await association.store(image)
    assert handler.stored == [PRIVATE_CT]


@pytest.mark.parametrize(
    "item",
    [
        SOPClassCommonExtended(PRIVATE_CT, "1.2.840.10008.4.2", ()),
        SOPClassCommonExtended(PRIVATE_CT, "1.2.840.10008.4.2", ("1.2.3",)),
        SOPClassCommonExtended(PRIVATE_CT, "1.2.3", (CT,)),  # of no storage service class
        SOPClassCommonExtended("1.2.3", "1.2.840.10008.4.2", (CT,)),
    ],
)
async def test_other_unknown_classes_are_not(
    item: SOPClassCommonExtended, autojump_clock: trio.abc.Clock
) -> None:
    async with served(Echoing()) as peer:
        accepted = await peer.associate(
            [dimse.PresentationContext(PRIVATE_CT)],
            user_information=UserInformation(
                maximum_length=16384, sop_class_common_extended=(item,)
            ),
        )
        assert [result.result for result in accepted.results] == [3]


# Identity

IDENTITIES = [
    dimse.UserIdentity.username("ärztin", response_requested=True),
    dimse.UserIdentity.username_and_passcode("me", "secret", response_requested=True),
    dimse.UserIdentity.kerberos(b"\x60ticket", response_requested=True),
    dimse.UserIdentity.saml("<Assertion/>", response_requested=True),
    dimse.UserIdentity.jwt("e30.e30.x", response_requested=True),
]


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda i: str(i.identity_type))
async def test_each_form_of_identity_reaches_admission_and_is_answered(
    identity: dimse.UserIdentity, autojump_clock: trio.abc.Clock
) -> None:
    handler = Admitting(lambda request: dimse.Admission(user_identity_response=b"welcome"))
    async with associated_pair(handler, user_identity=identity) as association:
        assert association.negotiated.user_identity_response == b"welcome"
        await association.echo()
    [asked] = handler.asked
    assert asked.user_identity == identity
    assert "secret" not in repr(asked)


async def test_an_identity_can_be_the_reason_to_reject(autojump_clock: trio.abc.Clock) -> None:
    def admit(request: dimse.AssociationRequest) -> dimse.Admission:
        identity = request.user_identity
        if identity is None or (identity.name, identity.passcode) != ("me", "secret"):
            raise dimse.Reject(dimse.RejectReason.PROVIDER_NO_REASON_GIVEN)
        return dimse.Admission(user_identity_response=b"")

    right = dimse.UserIdentity.username_and_passcode("me", "secret", response_requested=True)
    wrong = dimse.UserIdentity.username_and_passcode("me", "guess")
    async with associated_pair(Admitting(admit), user_identity=right) as association:
        assert association.negotiated.user_identity_response == b""
    for identity in (wrong, None):
        with pytest.raises(dimse.AssociationRejected) as caught:
            async with associated_pair(Admitting(admit), user_identity=identity):
                pass
        assert (caught.value.result, caught.value.source) == (
            dimse.RejectResult.PERMANENT,
            dimse.RejectSource.SERVICE_PROVIDER_ACSE,
        )


@pytest.mark.parametrize(
    ("identity", "admission"),
    [
        (dimse.UserIdentity.username("me"), dimse.Admission(user_identity_response=b"")),
        (dimse.UserIdentity.username("me", response_requested=True), dimse.Admission()),
        (dimse.UserIdentity.username("me", response_requested=True), None),
        (None, dimse.Admission(user_identity_response=b"")),
    ],
)
async def test_what_was_not_asked_or_not_looked_at_is_not_answered(
    identity: dimse.UserIdentity | None,
    admission: dimse.Admission | None,
    autojump_clock: trio.abc.Clock,
) -> None:
    handler = Admitting(lambda request: admission)
    async with associated_pair(handler, user_identity=identity) as association:
        assert association.negotiated.user_identity_response is None


# Admission


async def test_admission_narrows_what_a_peer_may_use(autojump_clock: trio.abc.Clock) -> None:
    handler = Admitting(lambda request: dimse.Admission(abstract_syntaxes=[ECHO]))
    contexts = [dimse.PresentationContext(ECHO), dimse.PresentationContext(CT)]
    async with associated_pair(handler, contexts=contexts) as association:
        accepted = association.negotiated.accepted.values()
        assert [context.abstract_syntax for context in accepted] == [ECHO]


async def test_admission_sees_the_whole_request(autojump_clock: trio.abc.Clock) -> None:
    handler = Admitting(lambda request: None)
    ours = dimse.Implementation("1.2.3.4", "SCANNER_7")
    async with associated_pair(handler, implementation=ours) as association:
        assert association.negotiated.peer.implementation_version_name.startswith("DIMSETRIO")  # type: ignore[union-attr]
    [asked] = handler.asked
    assert asked.message is not None
    assert asked.message.user_information.implementation_class_uid == "1.2.3.4"
    assert asked.message.user_information.implementation_version_name == "SCANNER_7"
    assert asked.peer_certificate is None


@pytest.mark.parametrize("name", ["", "SEVENTEEN LETTERS", "NÄME"])
async def test_an_implementation_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match="version name"):
        async with dimse.open_server(Echoing(), implementation=dimse.Implementation("1.2", name)):
            pass


async def test_callers_that_are_not_known_are_rejected_as_such(
    autojump_clock: trio.abc.Clock,
) -> None:
    known: dict[str, Any] = {"calling_ae_titles": ["STATION", "OTHER"]}
    async with associated_pair(Echoing(), **known) as association:
        await association.echo()
    with pytest.raises(dimse.AssociationRejected) as caught:
        async with associated_pair(Echoing(), calling_ae_title="STRANGER", **known):
            pass
    assert caught.value.reason is dimse.RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED
    async with associated_pair(
        Echoing(), calling_ae_title="station", ignore_ae_title_case=True, **known
    ) as association:
        await association.echo()


async def test_calling_ae_titles_are_several() -> None:
    with pytest.raises(dimse.LocalProtocolError, match=r"\['STATION'\]"):
        async with dimse.open_server(Echoing(), calling_ae_titles="STATION"):
            pass


@pytest.mark.parametrize(
    ("order", "chosen"), [((), IMPLICIT), ((EXPLICIT,), EXPLICIT), (("1.2.3",), IMPLICIT)]
)
async def test_the_acceptors_preference_decides_between_transfer_syntaxes(
    order: tuple[str, ...], chosen: str, autojump_clock: trio.abc.Clock
) -> None:
    contexts = [dimse.PresentationContext(CT, (IMPLICIT, EXPLICIT))]
    preference = dimse.TransferSyntaxPreference(order)
    async with associated_pair(
        Echoing(), contexts=contexts, transfer_syntax_preference=preference
    ) as association:
        [context] = association.negotiated.accepted.values()
        assert context.transfer_syntax == chosen


async def test_a_handler_says_which_information_models_it_knows(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Models(Echoing):
        query_sop_classes = (FIND,)

    async with associated_pair(Models()) as association:
        accepted = {c.abstract_syntax for c in association.negotiated.accepted.values()}
    assert {FIND, ECHO, CT} <= accepted
    assert dimse.uid_of("ModalityWorklistInformationModelFind") not in accepted
    assert dimse.uid_of("PatientRootQueryRetrieveInformationModelFind") not in accepted


async def test_a_single_class_of_an_admission_is_that_class(autojump_clock: trio.abc.Clock) -> None:
    enhanced = dimse.uid_of("EnhancedCTImageStorage")
    assert enhanced.startswith(CT)
    handler = Admitting(lambda request: dimse.Admission(abstract_syntaxes=enhanced))
    contexts = [dimse.PresentationContext(CT), dimse.PresentationContext(enhanced)]
    async with associated_pair(handler, contexts=contexts) as association:
        accepted = association.negotiated.accepted.values()
        assert [context.abstract_syntax for context in accepted] == [enhanced]


@pytest.mark.parametrize("yielded", [dimse.Admission, "x", 5])
async def test_what_is_no_admission_admits_nobody(
    yielded: object, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(dimse.AssociationRejected):
        async with associated_pair(Admitting(lambda request: yielded)):
            pass
    assert "handle_association yielded" in caplog.text


async def test_a_rejection_from_inside_a_nursery_is_that_rejection(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Nursed(Echoing):
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            async with trio.open_nursery():
                raise dimse.Reject(dimse.RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED)
            yield

    with pytest.raises(dimse.AssociationRejected) as caught:
        async with associated_pair(Nursed()):
            pass
    assert caught.value.reason is dimse.RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED
    assert "Traceback" not in caplog.text


async def test_an_admission_that_cancels_itself_rejects(autojump_clock: trio.abc.Clock) -> None:
    class Cancelling(Echoing):
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            with trio.CancelScope() as scope:
                scope.cancel()
                yield

    with pytest.raises(dimse.AssociationRejected) as caught:
        async with associated_pair(Cancelling()):
            pass
    assert caught.value.is_transient


async def test_answers_to_what_was_not_proposed_are_not_believed(
    autojump_clock: trio.abc.Clock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    peer = ScriptedPeer(theirs)

    async def answer() -> None:
        request = await peer.expect(AssociateRQ)
        await peer.send(
            AssociateAC(
                request.called_ae_title,
                request.calling_ae_title,
                tuple(ContextResult(c.context_id, 0, EXPLICIT) for c in request.contexts),
                UserInformation(
                    maximum_length=0,
                    sop_class_extended=(
                        SOPClassExtended(FIND, b"\1\1\1"),
                        SOPClassExtended(CT, b"\2\0\0\0\0\0"),
                    ),
                    user_identity_response=b"x",
                ),
            )
        )
        await peer.respond_to_release()
        await theirs.aclose()

    contexts = [
        dimse.PresentationContext(FIND, options=dimse.QueryOptions(relational=True)),
        dimse.PresentationContext(CT),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with dimse.associate_over(ours, contexts=contexts) as association:
            negotiated = association.negotiated
            assert negotiated.query_options(FIND) == dimse.QueryOptions(relational=True)
            assert negotiated.storage_options(CT) is None
            assert negotiated.user_identity_response is None
