"""What an acceptor makes of an A-ASSOCIATE-RQ, as pure functions (PS3.8 §9.3.3, PS3.7 §D.3).

Each context is decided by a `Policy`; what was proposed beside them is answered as far as the
policy supports it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from .extended import (
    STORAGE_SERVICE_CLASS,
    Options,
    QueryOptions,
    StorageOptions,
    answer_options,
)
from .negotiation import MAX_UID_LENGTH, narrower, syntaxes
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
from .uids import SOP_CLASSES, Service


@attrs.frozen
class TransferSyntaxPreference:
    """In which of the transfer syntaxes that both sides have an acceptor accepts a context.

    Those in `order` come first, in that order; then the requestor's order decides, which most
    requestors mean something by.

    Attributes:
        order: Transfer syntax UIDs, the one liked best first.
    """

    order: tuple[str, ...] = attrs.field(default=(), converter=syntaxes)

    def choose(self, proposed: Sequence[str], supported: Collection[str]) -> str | None:
        """The one to accept, of those that are both proposed and supported; `None` if none is."""
        common = [syntax for syntax in proposed if syntax in supported]
        liked = (syntax for syntax in self.order if syntax in common)
        return next(liked, common[0] if common else None)


REQUESTORS_ORDER = TransferSyntaxPreference()


@attrs.frozen
class Policy:
    """What an acceptor supports: abstract syntax to the transfer syntaxes it takes.

    `preference` chooses among them. `role_scu` are the classes whose requestor may become the SCP
    (C-GET's sub-operations). `unknown_storage` takes abstract syntaxes that are in no table as
    storage classes, in any transfer syntax. `query_options` and `storage_options` are what it
    answers in extended negotiation; without them it does not.
    """

    supported: Mapping[str, Collection[str]]
    role_scu: Collection[str] = ()
    unknown_storage: bool = False
    preference: TransferSyntaxPreference = REQUESTORS_ORDER
    max_invoked: int = 1
    max_performed: int = 1
    query_options: QueryOptions | None = None
    storage_options: StorageOptions | None = None

    def decide(
        self, proposed: ProposedContext, general_classes: Iterable[str] = ()
    ) -> ContextResult:
        """The answer to one context; it always names one transfer syntax, accepted or not.

        A class that is not supported is taken as the first of `general_classes` that is.
        """
        names = (proposed.abstract_syntax, *general_classes)
        supported = next((self.supported[n] for n in names if n in self.supported), None)
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
        chosen = self.preference.choose(proposed.transfer_syntaxes, supported)
        if chosen is not None:
            return ContextResult(proposed.context_id, ContextResultReason.ACCEPTANCE, chosen)
        reason = ContextResultReason.TRANSFER_SYNTAXES_NOT_SUPPORTED
        return ContextResult(proposed.context_id, reason, first)

    def narrowed(self, abstract_syntaxes: Collection[str]) -> Policy:
        """The policy for a peer that may use only these classes."""
        supported = {u: s for u, s in self.supported.items() if u in abstract_syntaxes}
        return attrs.evolve(self, supported=supported, unknown_storage=False)

    def offered(self, sop_class_uid: str) -> Options | None:
        """What is answered to a proposal of options for a class."""
        entry = SOP_CLASSES.get(sop_class_uid)
        if entry is None or entry.service is Service.STORAGE:
            return self.storage_options
        return self.query_options


def answer(
    request: AssociateRQ,
    policy: Policy,
    *,
    user_information: UserInformation,
) -> AssociateAC:
    """The A-ASSOCIATE-AC to a request under a policy; AE titles are echoed.

    Roles are granted where the policy allows them, once for each accepted SOP class; the
    asynchronous operations item is answered only if it was proposed (PS3.7 §D.3.3.3), and so are
    options. Common extended negotiation has no answer but the acceptance (§D.3.3.6.1).
    """
    proposed = request.user_information
    general = {
        item.sop_class_uid: item.related_general_sop_classes
        for item in proposed.sop_class_common_extended
        if item.service_class_uid == STORAGE_SERVICE_CLASS
    }
    results: list[ContextResult] = []
    seen: set[int] = set()
    accepted: set[str] = set()
    for context in request.contexts:
        result = policy.decide(context, general.get(context.abstract_syntax, ()))
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
    extended = {
        item.sop_class_uid: answer_options(item, policy.offered(item.sop_class_uid))
        for item in proposed.sop_class_extended
        if item.sop_class_uid in accepted
    }
    window = None
    if (asked := proposed.asynchronous_operations) is not None:
        window = AsynchronousOperations(
            narrower(asked.invoked, policy.max_performed),
            narrower(asked.performed, policy.max_invoked),
        )
    return AssociateAC(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        results=tuple(results),
        user_information=attrs.evolve(
            user_information,
            roles=tuple(roles.values()),
            asynchronous_operations=window,
            sop_class_extended=tuple(item for item in extended.values() if item is not None),
        ),
    )
