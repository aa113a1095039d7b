"""Association negotiation as pure functions (PS3.8 §9.3.2, §9.3.3, PS3.7 §D.3).

The requestor plans `PresentationContext`s and makes an A-ASSOCIATE-RQ of them; the acceptor answers
by what `acceptance` says; both read the outcome as a `Negotiated`. No bytes, no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import cast

import attrs

from .errors import LocalProtocolError
from .extended import (
    QUERYING,
    STORAGE_SERVICE_CLASS,
    Options,
    QueryOptions,
    StorageOptions,
    decode_query_options,
    decode_storage_options,
    encode_options,
)
from .pdus import (
    AssociateAC,
    AssociateRQ,
    ContextResult,
    ContextResultReason,
    ProposedContext,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserInformation,
)
from .uids import NATIVE_TRANSFER_SYNTAXES, SOP_CLASSES, uid_name, uid_of

MAX_CONTEXTS = 128
"""Context IDs are odd bytes, so an association has at most 128 contexts (PS3.8 §9.3.2.2)."""

MAX_UID_LENGTH = 64

DEFAULT_TRANSFER_SYNTAXES = NATIVE_TRANSFER_SYNTAXES[:2]


def syntaxes(value: str | Iterable[str]) -> tuple[str, ...]:
    """UIDs as a tuple, of one or several."""
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class PresentationContext:
    """An abstract syntax and the transfer syntax or syntaxes proposed for it.

    `scp=True` proposes, by role selection, that the requestor may be the SCP: what C-GET needs of a
    storage class (PS3.7 §D.3.3.4). `scu=False` gives up the usual role.

    `options` proposes extended negotiation (§D.3.3.5): `QueryOptions`, `StorageOptions`, or bytes
    for another service class; `Negotiated` has the answer. `general_classes` says of a storage
    class, by common extended negotiation (§D.3.3.6), which classes it may be taken for where the
    peer does not know it.
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = attrs.field(
        default=DEFAULT_TRANSFER_SYNTAXES, converter=syntaxes
    )
    scp: bool = attrs.field(default=False, kw_only=True)
    scu: bool = attrs.field(default=True, kw_only=True)
    options: Options | None = attrs.field(default=None, kw_only=True)
    general_classes: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=syntaxes)


def refuse_keyword(name: str, uid: str) -> None:
    """Refuse the keyword of a UID in its place.

    Raises:
        LocalProtocolError: It is a keyword, or looks like one; the message names those near.
    """
    if uid[:1].isalpha():
        uid_of(uid)  # which says what is near
        raise LocalProtocolError(f"{name} {uid!r} is a keyword: write uid_of({uid!r})")


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
            advice = ""
            if isinstance(item, str):
                refuse_keyword("a context", item)
                advice = f": write PresentationContext({item!r})"
            raise LocalProtocolError(
                f"contexts are PresentationContexts, and {item!r} is {type(item).__name__}{advice}"
            )
        for uid in (item.abstract_syntax, *item.transfer_syntaxes, *item.general_classes):
            refuse_keyword("of a context", uid)
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
        return f"{uid_name(self.abstract_syntax)} in {syntaxes}: {self.meaning}"

    @property
    def meaning(self) -> str:
        """The result in the standard's words."""
        return result_name(self.result)


def result_name(result: int) -> str:
    """The result of a presentation context in the standard's words (PS3.8 Table 9-18)."""
    try:
        return ContextResultReason(result).name.lower().replace("_", " ")
    except ValueError:
        return f"unknown result {result}"


@attrs.frozen(repr=False)
class Negotiated:
    """What an association has been negotiated to be, seen from one side.

    `max_pdu_length`: what the peer will receive, 0 without limit. `max_invoked` and `max_performed`
    are this side's: how many operations it may have outstanding, and may be sent; 0 is no limit.
    Its repr is short; `str` is a line for each presentation context.
    `peer` is what the peer said of itself. `extended` are the acceptor's answers in extended
    negotiation, which both sides go by; see `query_options` and `storage_options`.
    """

    called_ae_title: str
    calling_ae_title: str
    accepted: Mapping[int, AcceptedContext]
    refused: tuple[RefusedContext, ...]
    max_pdu_length: int
    max_invoked: int
    max_performed: int
    peer: UserInformation
    extended: tuple[SOPClassExtended, ...] = ()
    _identity_response: bytes | None = attrs.field(
        default=None, repr=False, alias="identity_response"
    )

    def __repr__(self) -> str:
        limit = f"{self.max_pdu_length} bytes" if self.max_pdu_length else "no limit"
        return (
            f"<Negotiated {self.calling_ae_title!r} -> {self.called_ae_title!r}"
            f" {len(self.accepted)} of {len(self.accepted) + len(self.refused)} contexts,"
            f" max PDU {limit}, window {self.max_invoked}/{self.max_performed},"
            f" peer {self.peer.implementation_version_name!r}>"
        )

    def __str__(self) -> str:
        lines = [repr(self)]
        for context in self.accepted.values():
            roles = [name for name, has in (("SCU", context.scu), ("SCP", context.scp)) if has]
            lines.append(
                f"{context.context_id}: {uid_name(context.abstract_syntax)} in"
                f" {uid_name(context.transfer_syntax)}: accepted as {' and '.join(roles)}"
            )
        lines += [f"{context.context_id}: {context}" for context in self.refused]
        return "\n".join(lines)

    def contexts_for(self, abstract_syntax: str) -> Iterator[AcceptedContext]:
        """The accepted contexts of an abstract syntax, in the order of their IDs."""
        return (c for c in self.accepted.values() if c.abstract_syntax == abstract_syntax)

    def query_options(self, abstract_syntax: str) -> QueryOptions:
        """The options agreed on for a class that queries or retrieves.

        Without an answer they are those that need none: for a worklist `relational` and
        `date_time` (PS3.4 §K.5.1), for Query/Retrieve none.
        """
        item = self._extended(abstract_syntax) or SOPClassExtended(abstract_syntax, b"")
        return decode_query_options(item)

    def storage_options(self, abstract_syntax: str) -> StorageOptions | None:
        """What the acceptor says of storing a class; `None` without an answer."""
        item = self._extended(abstract_syntax)
        return None if item is None else decode_storage_options(item)

    def _extended(self, abstract_syntax: str) -> SOPClassExtended | None:
        return next((e for e in self.extended if e.sop_class_uid == abstract_syntax), None)

    @property
    def user_identity_response(self) -> bytes | None:
        """The acceptor's answer to our user identity: a ticket, an assertion, or empty.

        `None` if there was none: the acceptor did not look at it, or was not asked to say so.
        """
        return self._identity_response


def propose(
    contexts: Iterable[PresentationContext],
    *,
    called_ae_title: str,
    calling_ae_title: str,
    user_information: UserInformation,
) -> AssociateRQ:
    """An A-ASSOCIATE-RQ for these contexts; what they say of roles and options is added to
    `user_information`.

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
    extended = {
        p.abstract_syntax: encode_options(p.abstract_syntax, p.options)
        for p in proposals
        if p.options is not None
    }
    common = {
        p.abstract_syntax: SOPClassCommonExtended(
            p.abstract_syntax, STORAGE_SERVICE_CLASS, p.general_classes
        )
        for p in proposals
        if p.general_classes
    }
    return AssociateRQ(
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        contexts=tuple(
            ProposedContext(2 * index + 1, p.abstract_syntax, p.transfer_syntaxes)
            for index, p in enumerate(proposals)
        ),
        user_information=attrs.evolve(
            user_information,
            roles=user_information.roles + tuple(roles.values()),
            sop_class_extended=user_information.sop_class_extended + tuple(extended.values()),
            sop_class_common_extended=(
                user_information.sop_class_common_extended + tuple(common.values())
            ),
        ),
    )


def narrower(one: int, other: int) -> int:
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
    identity = request.user_information.user_identity
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
        extended=tuple(_agreed_options(request, accept)),
        identity_response=(
            accept.user_information.user_identity_response
            if identity is not None and identity.response_requested
            else None
        ),
    )


def _agreed_options(request: AssociateRQ, accept: AssociateAC) -> Iterator[SOPClassExtended]:
    """The acceptor's answers to what was proposed; of query options, those that were."""
    proposed = {item.sop_class_uid: item for item in request.user_information.sop_class_extended}
    for item in accept.user_information.sop_class_extended:
        asked = proposed.get(item.sop_class_uid)
        entry = SOP_CLASSES.get(item.sop_class_uid)
        if asked is not None and entry is not None and entry.service in QUERYING:
            yield encode_options(
                item.sop_class_uid, decode_query_options(asked) & decode_query_options(item)
            )
        elif asked is not None:
            yield item


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
    return narrower(asked.invoked, granted.invoked), narrower(asked.performed, granted.performed)
