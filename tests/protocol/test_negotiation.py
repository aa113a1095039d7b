"""What requestor and acceptor make of proposals, policies and answers."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimse_trio.protocol.acceptance import Policy, TransferSyntaxPreference, answer
from dimse_trio.protocol.decode import decode_pdu_untrusted
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import LocalProtocolError
from dimse_trio.protocol.negotiation import (
    DEFAULT_TRANSFER_SYNTAXES,
    AcceptedContext,
    Negotiated,
    PresentationContext,
    RefusedContext,
    outcome,
    propose,
    result_name,
)
from dimse_trio.protocol.pdus import (
    AssociateAC,
    AssociateRQ,
    AsynchronousOperations,
    ContextResult,
    ProposedContext,
    RoleSelection,
    UserInformation,
)

from .pair import CT_IMAGE_STORAGE, EXPLICIT, IMPLICIT, STUDY_ROOT_FIND, VERIFICATION
from .strategies import associate_acs, associate_rqs

JPEG = "1.2.840.10008.1.2.4.50"
PRIVATE = "1.2.3.4.5"
CLIENT = UserInformation(maximum_length=16384, implementation_class_uid="1.2.3")
SERVER = UserInformation(maximum_length=32768, implementation_class_uid="1.2.4")


def proposal(*contexts: PresentationContext, info: UserInformation = CLIENT) -> AssociateRQ:
    return propose(contexts, called_ae_title="SCP", calling_ae_title="SCU", user_information=info)


def both(request: AssociateRQ, policy: Policy) -> tuple[Negotiated, Negotiated]:
    """The outcome as requestor and acceptor see it."""
    accept = answer(request, policy, user_information=SERVER)
    return (
        outcome(request, accept, requestor=True),
        outcome(request, accept, requestor=False),
    )


# Proposing


def test_contexts_are_numbered_by_odd_ids_in_their_order() -> None:
    request = proposal(
        PresentationContext(VERIFICATION, [IMPLICIT]),
        PresentationContext(CT_IMAGE_STORAGE, (JPEG, EXPLICIT)),
        PresentationContext(CT_IMAGE_STORAGE),
    )
    assert request.contexts == (
        ProposedContext(1, VERIFICATION, (IMPLICIT,)),
        ProposedContext(3, CT_IMAGE_STORAGE, (JPEG, EXPLICIT)),
        ProposedContext(5, CT_IMAGE_STORAGE, (EXPLICIT, IMPLICIT)),
    )
    assert (request.called_ae_title, request.calling_ae_title) == ("SCP", "SCU")
    assert request.user_information == CLIENT
    assert DEFAULT_TRANSFER_SYNTAXES == (EXPLICIT, IMPLICIT)


def test_128_contexts_fit_an_association_and_129_do_not() -> None:
    contexts = [PresentationContext(f"1.2.{number}") for number in range(129)]
    request = proposal(*contexts[:128])
    assert [context.context_id for context in request.contexts] == list(range(1, 256, 2))
    assert decode_pdu_untrusted(1, encode_pdu(request)[6:]) == request
    with pytest.raises(LocalProtocolError, match="129 presentation contexts"):
        proposal(*contexts)


def test_an_association_without_context_or_a_context_without_syntax_is_not_proposed() -> None:
    with pytest.raises(LocalProtocolError, match="at least one"):
        proposal()
    with pytest.raises(LocalProtocolError, match="CTImageStorage is proposed without"):
        proposal(PresentationContext(CT_IMAGE_STORAGE, ()))


def test_a_role_is_selected_once_for_each_class_that_needs_it() -> None:
    request = proposal(
        PresentationContext(STUDY_ROOT_FIND),
        PresentationContext(CT_IMAGE_STORAGE, (EXPLICIT,), scp=True),
        PresentationContext(CT_IMAGE_STORAGE, (JPEG,), scp=True),
        PresentationContext(PRIVATE, scp=True, scu=False),
    )
    assert request.user_information.roles == (
        RoleSelection(CT_IMAGE_STORAGE, scu=True, scp=True),
        RoleSelection(PRIVATE, scu=False, scp=True),
    )


def test_a_role_that_the_user_information_names_is_left_as_it_is() -> None:
    own = RoleSelection(CT_IMAGE_STORAGE, False, True)
    request = proposal(
        PresentationContext(CT_IMAGE_STORAGE, scp=True), info=attrs.evolve(CLIENT, roles=(own,))
    )
    assert request.user_information.roles == (own,)


# Deciding

OWN_ORDER = TransferSyntaxPreference((EXPLICIT, IMPLICIT))
POLICY = Policy({VERIFICATION: (IMPLICIT,), CT_IMAGE_STORAGE: (EXPLICIT, IMPLICIT)})


@pytest.mark.parametrize(
    ("policy", "abstract_syntax", "offered", "result", "syntax"),
    [
        (POLICY, VERIFICATION, (IMPLICIT,), 0, IMPLICIT),
        (POLICY, CT_IMAGE_STORAGE, (IMPLICIT, EXPLICIT), 0, IMPLICIT),
        (POLICY, CT_IMAGE_STORAGE, (JPEG, IMPLICIT), 0, IMPLICIT),
        (POLICY, CT_IMAGE_STORAGE, (JPEG,), 4, JPEG),
        (POLICY, CT_IMAGE_STORAGE, (), 4, ""),
        (POLICY, STUDY_ROOT_FIND, (IMPLICIT, EXPLICIT), 3, IMPLICIT),
        (POLICY, PRIVATE, (), 3, ""),
        (
            attrs.evolve(POLICY, preference=OWN_ORDER),
            CT_IMAGE_STORAGE,
            (IMPLICIT, EXPLICIT),
            0,
            EXPLICIT,
        ),
        (attrs.evolve(POLICY, preference=OWN_ORDER), CT_IMAGE_STORAGE, (JPEG,), 4, JPEG),
        (attrs.evolve(POLICY, unknown_storage=True), PRIVATE, (JPEG, EXPLICIT), 0, JPEG),
        (attrs.evolve(POLICY, unknown_storage=True), STUDY_ROOT_FIND, (IMPLICIT,), 3, IMPLICIT),
        (attrs.evolve(POLICY, unknown_storage=True), VERIFICATION, (JPEG,), 4, JPEG),
    ],
)
def test_a_context_is_decided_by_the_policy(
    policy: Policy, abstract_syntax: str, offered: tuple[str, ...], result: int, syntax: str
) -> None:
    proposed = ProposedContext(9, abstract_syntax, offered)
    assert policy.decide(proposed) == ContextResult(9, result, syntax)


policies = st.builds(
    Policy,
    st.dictionaries(
        st.sampled_from([VERIFICATION, CT_IMAGE_STORAGE]),
        st.lists(st.sampled_from([IMPLICIT, EXPLICIT, JPEG]), unique=True),
    ),
    role_scu=st.sets(st.just(CT_IMAGE_STORAGE)),
    unknown_storage=st.booleans(),
    preference=st.sampled_from([OWN_ORDER, TransferSyntaxPreference()]),
)
requests = st.lists(
    st.builds(
        PresentationContext,
        st.sampled_from([VERIFICATION, CT_IMAGE_STORAGE, STUDY_ROOT_FIND, PRIVATE]),
        st.lists(st.sampled_from([IMPLICIT, EXPLICIT, JPEG, "1.2.3"]), min_size=1, unique=True),
        scp=st.booleans(),
        scu=st.booleans(),
    ),
    min_size=1,
    max_size=6,
).map(lambda contexts: proposal(*contexts))


@settings(max_examples=80, deadline=None)
@given(request=requests, policy=policies)
def test_every_answer_names_one_syntax_that_was_proposed(
    request: AssociateRQ, policy: Policy
) -> None:
    accept = answer(request, policy, user_information=SERVER)
    assert [r.context_id for r in accept.results] == [c.context_id for c in request.contexts]
    for context, result in zip(request.contexts, accept.results, strict=True):
        assert result.transfer_syntax in context.transfer_syntaxes


@settings(max_examples=80, deadline=None)
@given(request=requests, policy=policies)
def test_both_sides_see_the_same_contexts_with_opposite_roles(
    request: AssociateRQ, policy: Policy
) -> None:
    requestor, acceptor = both(request, policy)
    assert requestor.refused == acceptor.refused
    assert requestor.accepted.keys() == acceptor.accepted.keys()
    for context_id, ours in requestor.accepted.items():
        theirs = acceptor.accepted[context_id]
        assert attrs.evolve(theirs, scu=ours.scu, scp=ours.scp) == ours
        assert (theirs.scu, theirs.scp) == (ours.scp, ours.scu)
    together = [*requestor.accepted, *(refused.context_id for refused in requestor.refused)]
    assert sorted(together) == [context.context_id for context in request.contexts]


def test_the_titles_of_the_request_are_echoed() -> None:
    request = attrs.evolve(
        proposal(PresentationContext(VERIFICATION)), called_ae_title="any scp", calling_ae_title=""
    )
    accept = answer(request, POLICY, user_information=SERVER)
    assert (accept.called_ae_title, accept.calling_ae_title) == ("any scp", "")
    for negotiated in both(request, POLICY):
        assert (negotiated.called_ae_title, negotiated.calling_ae_title) == ("any scp", "")


def test_each_side_learns_the_others_user_information() -> None:
    requestor, acceptor = both(proposal(PresentationContext(VERIFICATION)), POLICY)
    assert (requestor.max_pdu_length, requestor.peer) == (32768, SERVER)
    assert (acceptor.max_pdu_length, acceptor.peer) == (16384, CLIENT)


@pytest.mark.parametrize("maximum_length", [0, None])
def test_without_maximum_length_there_is_no_limit(maximum_length: int | None) -> None:
    info = attrs.evolve(CLIENT, maximum_length=maximum_length)
    _, acceptor = both(proposal(PresentationContext(VERIFICATION), info=info), POLICY)
    assert acceptor.max_pdu_length == 0


# Roles


def roles(
    request: AssociateRQ, granted: tuple[RoleSelection, ...]
) -> tuple[AcceptedContext, AcceptedContext]:
    """Context 1 for requestor and acceptor when the acceptor grants these roles."""
    accept = answer(request, POLICY, user_information=SERVER)
    accept = attrs.evolve(accept, user_information=attrs.evolve(SERVER, roles=granted))
    return (
        outcome(request, accept, requestor=True).accepted[1],
        outcome(request, accept, requestor=False).accepted[1],
    )


@pytest.mark.parametrize(
    ("asked", "granted", "requestor_is"),
    [
        (None, None, (True, False)),
        (None, (True, True), (True, False)),  # nobody asked
        ((True, True), (True, True), (True, True)),
        ((True, True), (True, False), (True, False)),
        ((True, True), (False, True), (False, True)),
        ((True, True), (False, False), (False, False)),
        ((False, True), (True, True), (False, True)),  # more than was asked
        ((False, True), (False, True), (False, True)),
        ((True, True), None, (True, True)),  # not answered: taken to agree
        ((False, True), None, (False, True)),
    ],
)
def test_a_role_is_held_if_both_sides_said_so(
    asked: tuple[bool, bool] | None,
    granted: tuple[bool, bool] | None,
    requestor_is: tuple[bool, bool],
) -> None:
    asked_roles = () if asked is None else (RoleSelection(CT_IMAGE_STORAGE, *asked),)
    request = proposal(
        PresentationContext(CT_IMAGE_STORAGE), info=attrs.evolve(CLIENT, roles=asked_roles)
    )
    granted_roles = () if granted is None else (RoleSelection(CT_IMAGE_STORAGE, *granted),)
    ours, theirs = roles(request, granted_roles)
    assert (ours.scu, ours.scp) == requestor_is
    assert (theirs.scp, theirs.scu) == requestor_is


def test_an_acceptor_grants_the_scp_role_only_where_its_policy_does() -> None:
    request = proposal(
        PresentationContext(CT_IMAGE_STORAGE, scp=True), PresentationContext(VERIFICATION, scp=True)
    )
    policy = attrs.evolve(POLICY, role_scu=(CT_IMAGE_STORAGE,))
    accept = answer(request, policy, user_information=SERVER)
    assert accept.user_information.roles == (
        RoleSelection(CT_IMAGE_STORAGE, True, True),
        RoleSelection(VERIFICATION, True, False),
    )


def test_roles_of_classes_that_were_not_proposed_are_not_answered() -> None:
    info = attrs.evolve(CLIENT, roles=(RoleSelection(PRIVATE, True, True),))
    request = proposal(PresentationContext(VERIFICATION), info=info)
    policy = attrs.evolve(POLICY, role_scu=(PRIVATE,))
    assert answer(request, policy, user_information=SERVER).user_information.roles == ()


# Asynchronous operations: what each side may have outstanding, 0 is unlimited


@pytest.mark.parametrize(
    ("asked", "policy", "answered"),
    [
        (None, (5, 5), None),
        ((1, 1), (0, 0), (1, 1)),
        ((0, 0), (1, 1), (1, 1)),
        ((0, 0), (0, 0), (0, 0)),
        ((8, 2), (4, 4), (4, 2)),
        ((8, 2), (1, 0), (1, 2)),
        ((0, 7), (3, 0), (3, 7)),
        ((5, 0), (0, 6), (5, 6)),
    ],
)
def test_the_narrower_window_holds_and_zero_is_unlimited(
    asked: tuple[int, int] | None, policy: tuple[int, int], answered: tuple[int, int] | None
) -> None:
    info = attrs.evolve(CLIENT, asynchronous_operations=asked and AsynchronousOperations(*asked))
    request = proposal(PresentationContext(VERIFICATION), info=info)
    # the requestor's invocations are what the acceptor performs
    full = attrs.evolve(POLICY, max_performed=policy[0], max_invoked=policy[1])
    accept = answer(request, full, user_information=SERVER)
    window = accept.user_information.asynchronous_operations
    assert window == (answered and AsynchronousOperations(*answered))

    requestor, acceptor = both(request, full)
    expected = answered or (1, 1)
    assert (requestor.max_invoked, requestor.max_performed) == expected
    assert (acceptor.max_performed, acceptor.max_invoked) == expected


def test_an_answer_wider_than_asked_is_not_taken_up() -> None:
    info = attrs.evolve(CLIENT, asynchronous_operations=AsynchronousOperations(2, 1))
    request = proposal(PresentationContext(VERIFICATION), info=info)
    wide = attrs.evolve(SERVER, asynchronous_operations=AsynchronousOperations(9, 0))
    accept = attrs.evolve(answer(request, POLICY, user_information=SERVER), user_information=wide)
    negotiated = outcome(request, accept, requestor=True)
    assert (negotiated.max_invoked, negotiated.max_performed) == (2, 1)


def test_a_window_that_nobody_asked_for_is_not_taken_up() -> None:
    request = proposal(PresentationContext(VERIFICATION))
    wide = attrs.evolve(SERVER, asynchronous_operations=AsynchronousOperations(0, 0))
    accept = attrs.evolve(answer(request, POLICY, user_information=SERVER), user_information=wide)
    negotiated = outcome(request, accept, requestor=True)
    assert (negotiated.max_invoked, negotiated.max_performed) == (1, 1)


# Answers that are not as they should be (INTEROP.md, quirks 6 to 9)

ASKED = proposal(
    PresentationContext(VERIFICATION, (IMPLICIT,)),
    PresentationContext(CT_IMAGE_STORAGE, (EXPLICIT, IMPLICIT)),
)


def outcome_of(*results: ContextResult) -> Negotiated:
    accept = AssociateAC("SCP", "SCU", results, SERVER)
    return outcome(ASKED, accept, requestor=True)


def refused(index: int, result: int) -> RefusedContext:
    context = ASKED.contexts[index]
    return RefusedContext(
        context.context_id, context.abstract_syntax, context.transfer_syntaxes, result
    )


def test_a_refusal_may_lack_its_transfer_syntax() -> None:
    negotiated = outcome_of(ContextResult(1, 3, None), ContextResult(3, 1, ""))
    assert negotiated.accepted == {}
    assert negotiated.refused == (refused(0, 3), refused(1, 1))


def test_the_transfer_syntax_of_a_refusal_means_nothing() -> None:
    assert outcome_of(ContextResult(1, 2, IMPLICIT)).accepted == {}


def test_results_for_contexts_not_proposed_are_ignored() -> None:
    negotiated = outcome_of(
        ContextResult(99, 0, IMPLICIT), ContextResult(1, 0, IMPLICIT), ContextResult(0, 0, None)
    )
    assert negotiated.accepted.keys() == {1}


def test_of_two_results_for_a_context_the_first_counts() -> None:
    negotiated = outcome_of(
        ContextResult(3, 0, EXPLICIT), ContextResult(3, 0, IMPLICIT), ContextResult(3, 4, "")
    )
    assert negotiated.accepted[3].transfer_syntax == EXPLICIT


def test_a_context_without_result_is_refused() -> None:
    assert outcome_of(ContextResult(3, 0, EXPLICIT)).refused == (refused(0, 2),)


@pytest.mark.parametrize("syntax", [JPEG, EXPLICIT, "", None])
def test_a_syntax_that_was_not_proposed_for_a_context_refuses_it(syntax: str | None) -> None:
    negotiated = outcome_of(ContextResult(1, 0, syntax), ContextResult(3, 0, IMPLICIT))
    assert negotiated.accepted.keys() == {3}
    assert negotiated.refused == (refused(0, 4),)


def test_a_result_outside_the_standard_refuses() -> None:
    negotiated = outcome_of(ContextResult(1, 200, IMPLICIT))
    assert negotiated.refused == (refused(0, 200), refused(1, 2))
    assert str(negotiated.refused[0]) == (
        "Verification in ImplicitVRLittleEndian: unknown result 200"
    )


@pytest.mark.parametrize(
    ("result", "name"),
    [
        (0, "acceptance"),
        (1, "user rejection"),
        (2, "no reason"),
        (3, "abstract syntax not supported"),
        (4, "transfer syntaxes not supported"),
        (5, "unknown result 5"),
    ],
)
def test_a_result_has_the_standards_name(result: int, name: str) -> None:
    assert result_name(result) == name


@settings(max_examples=60, deadline=None)
@given(request=associate_rqs, accept=associate_acs, requestor=st.booleans())
def test_any_answer_to_any_request_has_an_outcome(
    request: AssociateRQ, accept: AssociateAC, requestor: bool
) -> None:
    negotiated = outcome(request, accept, requestor=requestor)
    for context in negotiated.accepted.values():
        assert context.context_id in {c.context_id for c in request.contexts}


@settings(max_examples=60, deadline=None)
@given(request=associate_rqs, policy=policies)
def test_any_request_can_be_answered(request: AssociateRQ, policy: Policy) -> None:
    accept = answer(request, policy, user_information=SERVER)
    assert decode_pdu_untrusted(2, encode_pdu(accept)[6:]) == accept


def test_contexts_are_found_by_their_class() -> None:
    request = proposal(
        PresentationContext(CT_IMAGE_STORAGE, (JPEG,)),
        PresentationContext(VERIFICATION, (IMPLICIT,)),
        PresentationContext(CT_IMAGE_STORAGE, (IMPLICIT,)),
        PresentationContext(CT_IMAGE_STORAGE, (EXPLICIT,)),
    )
    negotiated, _ = both(request, POLICY)
    found = list(negotiated.contexts_for(CT_IMAGE_STORAGE))
    assert [(c.context_id, c.transfer_syntax) for c in found] == [(5, IMPLICIT), (7, EXPLICIT)]
    assert list(negotiated.contexts_for(PRIVATE)) == []
