"""Association negotiation as pure functions (PS3.8 §9.3.2, §9.3.3, PS3.7 §D.3).

The requestor plans `PresentationContext`s and makes an A-ASSOCIATE-RQ of them; the acceptor decides
each one with a `Policy`; both read the outcome as a `Negotiated`. No bytes, no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import cast

import attrs

from .errors import LocalProtocolError
from .pdus import (
    AssociateAC,
    AssociateRQ,
    AsynchronousOperations,
    ContextResult,
    ContextResultReason,
    ProposedContext,
    RoleSelection,
    UserInformation,
)
from .uids import NATIVE_TRANSFER_SYNTAXES, SOP_CLASSES, uid_name

MAX_CONTEXTS = 128
"""Context IDs are odd bytes, so an association has at most 128 contexts (PS3.8 §9.3.2.2)."""

MAX_UID_LENGTH = 64

DEFAULT_TRANSFER_SYNTAXES = NATIVE_TRANSFER_SYNTAXES[:2]


def _syntaxes(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class PresentationContext:
    """An abstract syntax and the transfer syntax or syntaxes proposed for it.

    `scp=True` proposes, by role selection, that the requestor may be the SCP: what C-GET needs of a
    storage class (PS3.7 §D.3.3.4). `scu=False` gives up the usual role.
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = attrs.field(
        default=DEFAULT_TRANSFER_SYNTAXES, converter=_syntaxes
    )
    scp: bool = attrs.field(default=False, kw_only=True)
    scu: bool = attrs.field(default=True, kw_only=True)


def checked_contexts(contexts: object) -> list[PresentationContext]:
    """What was given for presentation contexts, as a list of them.

    Raises:
        LocalProtocolError: It is something else, such as UIDs.
    """
    given = [contexts] if isinstance(contexts, str | PresentationContext) else contexts
    if not isinstance(given, Iterable):
        raise LocalProtocolError(f"contexts are PresentationContexts, not {contexts!r}")
    checked: list[PresentationContext] = []
    for item in cast("Iterable[object]", given):
        if not isinstance(item, PresentationContext):
            advice = f": write PresentationContext({item!r})" if isinstance(item, str) else ""
            raise LocalProtocolError(
                f"contexts are PresentationContexts, and {item!r} is {type(item).__name__}{advice}"
            )
        checked.append(item)
    return checked


@attrs.frozen
class AcceptedContext:
    """A presentation context that both sides agreed on.

    `scu` and `scp` are this side's roles: `scu` allows it to send requests, `scp` to be sent them.
    """

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    scu: bool
    scp: bool


@attrs.frozen
class RefusedContext:
    """A presentation context that was proposed and not accepted, with the result it got."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    result: int

    def __str__(self) -> str:
        syntaxes = ", ".join(map(uid_name, self.transfer_syntaxes))
        return f"{uid_name(self.abstract_syntax)} in {syntaxes}: {result_name(self.result)}"


def result_name(result: int) -> str:
    """The result of a presentation context in the standard's words (PS3.8 Table 9-18)."""
    try:
        return ContextResultReason(result).name.lower().replace("_", " ")
    except ValueError:
        return f"unknown result {result}"


@attrs.frozen
class Negotiated:
    """What an association has been negotiated to be, seen from one side.

    `max_pdu_length`: what the peer will receive, 0 without limit. `max_invoked` and `max_performed`
    are this side's: how many operations it may have outstanding, and may be sent; 0 is no limit.
    """

    called_ae_title: str
    calling_ae_title: str
    accepted: Mapping[int, AcceptedContext]
    refused: tuple[RefusedContext, ...]
    max_pdu_length: int
    max_invoked: int
    max_performed: int
    peer: UserInformation

    def contexts_for(self, abstract_syntax: str) -> Iterator[AcceptedContext]:
        """The accepted contexts of an abstract syntax, in the order of their IDs."""
        return (c for c in self.accepted.values() if c.abstract_syntax == abstract_syntax)


def propose(
    contexts: Iterable[PresentationContext],
    *,
    called_ae_title: str,
    calling_ae_title: str,
    user_information: UserInformation,
) -> AssociateRQ:
    """An A-ASSOCIATE-RQ for these contexts; role selection items are added to `user_information`.

    Raises:
        LocalProtocolError: There are none, more than 128, or one without transfer syntax; or what
            is given are no presentation contexts.
    """
    proposals = checked_contexts(contexts)
    if not proposals:
        raise LocalProtocolError("an association needs at least one presentation context")
    if len(proposals) > MAX_CONTEXTS:
        raise LocalProtocolError(
            f"{len(proposals)} presentation contexts; an association has at most {MAX_CONTEXTS}:"
            " open several, or propose fewer"
        )
    for proposal in proposals:
        if not proposal.transfer_syntaxes:
            raise LocalProtocolError(
                f"{uid_name(proposal.abstract_syntax)} is proposed without a transfer syntax"
            )
    named = {role.sop_class_uid for role in user_information.roles}
    roles = {
        p.abstract_syntax: RoleSelection(p.abstract_syntax, p.scu, p.scp)
        for p in proposals
        if (p.scp or not p.scu) and p.abstract_syntax not in named
    }
    return AssociateRQ(
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        contexts=tuple(
            ProposedContext(2 * index + 1, p.abstract_syntax, p.transfer_syntaxes)
            for index, p in enumerate(proposals)
        ),
        user_information=attrs.evolve(
            user_information, roles=user_information.roles + tuple(roles.values())
        ),
    )


@attrs.frozen
class Policy:
    """What an acceptor supports: abstract syntax to the transfer syntaxes it takes, best first.

    A context is accepted in the first of the requestor's transfer syntaxes that is supported;
    `prefer_own_order` takes the acceptor's first one instead. `role_scu` are the classes whose
    requestor may become the SCP (C-GET's sub-operations). `unknown_storage` takes abstract syntaxes
    that are in no table as storage classes, in any transfer syntax.
    """

    supported: Mapping[str, Collection[str]]
    role_scu: Collection[str] = ()
    unknown_storage: bool = False
    prefer_own_order: bool = False
    max_invoked: int = 1
    max_performed: int = 1

    def decide(self, proposed: ProposedContext) -> ContextResult:
        """The answer to one context; it always names one transfer syntax, accepted or not."""
        supported = self.supported.get(proposed.abstract_syntax)
        if (
            supported is None
            and self.unknown_storage
            and proposed.abstract_syntax not in SOP_CLASSES
            and len(proposed.abstract_syntax) <= MAX_UID_LENGTH
        ):
            supported = proposed.transfer_syntaxes
        first = proposed.transfer_syntaxes[0] if proposed.transfer_syntaxes else ""
        if supported is None:
            reason = ContextResultReason.ABSTRACT_SYNTAX_NOT_SUPPORTED
            return ContextResult(proposed.context_id, reason, first)
        offers, order = proposed.transfer_syntaxes, supported
        if self.prefer_own_order:
            offers, order = tuple(supported), proposed.transfer_syntaxes
        for syntax in offers:
            if syntax in order:
                return ContextResult(proposed.context_id, ContextResultReason.ACCEPTANCE, syntax)
        reason = ContextResultReason.TRANSFER_SYNTAXES_NOT_SUPPORTED
        return ContextResult(proposed.context_id, reason, first)


def answer(
    request: AssociateRQ,
    policy: Policy,
    *,
    user_information: UserInformation,
) -> AssociateAC:
    """The A-ASSOCIATE-AC to a request under a policy; AE titles are echoed.

    Roles are granted where the policy allows them, once for each accepted SOP class; the
    asynchronous operations item is answered only if it was proposed (PS3.7 §D.3.3.3).
    """
    proposed = request.user_information
    results: list[ContextResult] = []
    seen: set[int] = set()
    accepted: set[str] = set()
    for context in request.contexts:
        result = policy.decide(context)
        if context.context_id in seen:  # nobody could tell the two apart
            result = attrs.evolve(result, result=ContextResultReason.NO_REASON)
        elif result.result == ContextResultReason.ACCEPTANCE:
            accepted.add(context.abstract_syntax)
        seen.add(context.context_id)
        results.append(result)
    roles = {
        role.sop_class_uid: RoleSelection(
            role.sop_class_uid, role.scu, role.scp and role.sop_class_uid in policy.role_scu
        )
        for role in proposed.roles
        if role.sop_class_uid in accepted
    }
    window = None
    if (asked := proposed.asynchronous_operations) is not None:
        window = AsynchronousOperations(
            _narrower(asked.invoked, policy.max_performed),
            _narrower(asked.performed, policy.max_invoked),
        )
    return AssociateAC(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        results=tuple(results),
        user_information=attrs.evolve(
            user_information, roles=tuple(roles.values()), asynchronous_operations=window
        ),
    )


def _narrower(one: int, other: int) -> int:
    """The smaller of two windows, in which 0 is unlimited."""
    return min(one, other) if one and other else one or other


def outcome(
    request: AssociateRQ,
    accept: AssociateAC,
    *,
    requestor: bool,
    implied_scp: Collection[str] = (),
) -> Negotiated:
    """What request and answer amount to, for the requestor or the acceptor.

    Results for contexts that were not proposed, second results for one context, second contexts of
    one ID, and transfer syntaxes that were not proposed are not believed. `implied_scp` are classes
    of which a requestor that proposes no role for them is the SCP as well.
    """
    results: dict[int, ContextResult] = {}
    for result in accept.results:
        results.setdefault(result.context_id, result)
    proposed_roles = {r.sop_class_uid: r for r in request.user_information.roles}
    granted_roles = {r.sop_class_uid: r for r in accept.user_information.roles}
    accepted: dict[int, AcceptedContext] = {}
    refused: list[RefusedContext] = []
    for context in request.contexts:
        answered = results.pop(context.context_id, None)
        reason = int(ContextResultReason.NO_REASON) if answered is None else answered.result
        syntax = None if answered is None else answered.transfer_syntax
        if reason == ContextResultReason.ACCEPTANCE and syntax not in context.transfer_syntaxes:
            reason = int(ContextResultReason.TRANSFER_SYNTAXES_NOT_SUPPORTED)
        if reason != ContextResultReason.ACCEPTANCE or syntax is None:
            refused.append(
                RefusedContext(
                    context.context_id, context.abstract_syntax, context.transfer_syntaxes, reason
                )
            )
            continue
        scu, scp = _requestor_roles(
            proposed_roles.get(context.abstract_syntax),
            granted_roles.get(context.abstract_syntax),
            implied_scp=context.abstract_syntax in implied_scp,
        )
        if not requestor:
            scu, scp = scp, scu
        accepted[context.context_id] = AcceptedContext(
            context.context_id, context.abstract_syntax, syntax, scu, scp
        )
    peer = accept.user_information if requestor else request.user_information
    invoked, performed = _window(request, accept)
    return Negotiated(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        accepted=accepted,
        refused=tuple(refused),
        max_pdu_length=peer.maximum_length or 0,
        max_invoked=invoked if requestor else performed,
        max_performed=performed if requestor else invoked,
        peer=peer,
    )


def doubts(request: AssociateRQ, accept: AssociateAC) -> Iterator[str]:
    """What in an answer `outcome` does not believe, for the requestor's log."""
    proposed = {context.context_id: context for context in request.contexts}
    for result in accept.results:
        context = proposed.get(result.context_id)
        if context is None:
            yield f"a result for presentation context {result.context_id}, which was not proposed"
        elif (
            result.result == ContextResultReason.ACCEPTANCE
            and result.transfer_syntax not in context.transfer_syntaxes
        ):
            yield (
                f"{uid_name(context.abstract_syntax)} was accepted in a transfer syntax that was"
                f" not proposed ({uid_name(result.transfer_syntax or 'none')}); taken as refused"
            )


def _requestor_roles(
    proposed: RoleSelection | None, granted: RoleSelection | None, *, implied_scp: bool
) -> tuple[bool, bool]:
    """The requestor's roles (SCU, SCP) for one class.

    A role is held if both sides said so; without an item the requestor is the SCU. A peer that
    does not answer a proposed item at all is taken to agree: C-GET SCPs are known to forget it.
    """
    if proposed is None:
        return True, implied_scp
    if granted is None:
        return proposed.scu, proposed.scp
    return proposed.scu and granted.scu, proposed.scp and granted.scp


def _window(request: AssociateRQ, accept: AssociateAC) -> tuple[int, int]:
    """The requestor's (invoked, performed) window; 1 and 1 unless both sides sent the item."""
    asked = request.user_information.asynchronous_operations
    granted = accept.user_information.asynchronous_operations
    if asked is None or granted is None:
        return 1, 1
    return _narrower(asked.invoked, granted.invoked), _narrower(asked.performed, granted.performed)
