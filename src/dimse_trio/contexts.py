"""Which presentation contexts to propose, by default, for files, for a retrieve; and to accept."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import attrs

from . import datasets
from .errors import ContextNotAccepted
from .part10 import Instance, path_of
from .protocol.acceptance import Policy
from .protocol.negotiation import (
    DEFAULT_TRANSFER_SYNTAXES,
    MAX_CONTEXTS,
    AcceptedContext,
    Negotiated,
    PresentationContext,
    RefusedContext,
    checked_contexts,
    result_name,
)
from .protocol.normalized import carriers_of
from .protocol.pdus import ContextResultReason
from .protocol.uids import (
    MODALITY_WORKLIST_FIND,
    NATIVE_TRANSFER_SYNTAXES,
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    SOP_CLASSES,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    TRANSFER_SYNTAXES,
    VERIFICATION,
    Service,
    sop_classes,
    uid_name,
)
from .transcoding import ENCODERS

if TYPE_CHECKING:
    from pydicom import Dataset

    Source: TypeAlias = str | os.PathLike[str] | Instance | Dataset

SendableT = TypeVar("SendableT", bound="str | os.PathLike[str] | Instance | Dataset")

QUERY_RETRIEVE = (
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_MOVE,
    PATIENT_ROOT_GET,
    STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE,
    STUDY_ROOT_GET,
)
COMMON_STORAGE = tuple(
    uid for uid, entry in SOP_CLASSES.items() if entry.service is Service.STORAGE and entry.common
)


@attrs.frozen
class NormalizedOffer:
    """The DIMSE-N classes that a handler is made for.

    Attributes:
        as_scp: Those whose requests it performs.
        as_scu: Those whose events it takes.
    """

    as_scp: frozenset[str] = frozenset()
    as_scu: frozenset[str] = frozenset()


NO_OFFER = NormalizedOffer()


def default_contexts() -> list[PresentationContext]:
    """What `open_association` proposes if it is not told otherwise.

    Verification, the Patient and Study Root models, the modality worklist, and the common storage
    classes with both roles, so that C-STORE and C-GET work; Explicit and Implicit VR Little Endian.
    Not all native transfer syntaxes: of those in one context some peers choose Deflated.
    """
    services = [
        PresentationContext(uid) for uid in (VERIFICATION, *QUERY_RETRIEVE, MODALITY_WORKLIST_FIND)
    ]
    storage = [
        PresentationContext(uid, DEFAULT_TRANSFER_SYNTAXES, scp=True) for uid in COMMON_STORAGE
    ]
    return services + storage


def contexts_for(
    instances: Source | Iterable[Source], *, transcode: bool = False
) -> list[PresentationContext]:
    """Just what it takes to send these: one context per SOP class and transfer syntax.

    Native ones get a second context, the default native transfer syntaxes, for a peer that knows
    only those. There may be more than 128: see `split_instances`.

    Args:
        instances: Paths of DICOM files, `Instance`s or data sets; or a single one.
        transcode: Whether compressed ones get that context too, and all of them one with what can
            be compressed to, for `on_mismatch="transcode"` or a policy.

    Raises:
        OSError: A file cannot be read, or is a folder.
        InvalidFile: A file is no DICOM file.
        DataSetError: A data set is no instance.
    """
    single = isinstance(instances, str | os.PathLike | Instance) or hasattr(instances, "iterall")
    given = cast("Iterable[Source]", [instances] if single else instances)
    pairs = dict.fromkeys(map(_classes_of, given))
    contexts = [PresentationContext(sop_class, (syntax,)) for sop_class, syntax in pairs if syntax]
    native = {
        sop_class: None
        for sop_class, syntax in pairs
        if transcode or syntax is None or syntax in NATIVE_TRANSFER_SYNTAXES
    }
    contexts += [
        PresentationContext(sop_class, DEFAULT_TRANSFER_SYNTAXES)
        for sop_class in native
        if not all((sop_class, syntax) in pairs for syntax in DEFAULT_TRANSFER_SYNTAXES)
    ]
    if transcode:
        contexts += [PresentationContext(sop_class, tuple(ENCODERS)) for sop_class in native]
    return contexts


def folder_error(path: Path) -> IsADirectoryError:
    """The error for a folder where a file is needed, which says what takes folders."""
    advice = "is a folder: pass its files (scan_files finds them), or use RemoteAE.store"
    return IsADirectoryError(errno.EISDIR, advice, str(path))


def _classes_of(
    instance: str | os.PathLike[str] | Instance | Dataset,
) -> tuple[str, str | None]:
    """SOP class and transfer syntax; `None` for a data set that is in none yet."""
    if (path := path_of(instance)) is not None:
        try:
            instance = Instance.from_file(path)
        except OSError:
            if path.is_dir():
                raise folder_error(path) from None
            raise
    if isinstance(instance, Instance):
        return instance.sop_class_uid, instance.transfer_syntax_uid
    data_set = cast("Dataset", instance)
    return datasets.sop_uids(data_set)[0], datasets.original_transfer_syntax(data_set)


def split_instances(
    instances: Iterable[SendableT], *, transcode: bool = False
) -> list[list[SendableT]]:
    """The instances in groups whose `contexts_for` fit one association each, order kept."""
    fallbacks = 2 if transcode else 1
    groups: list[list[SendableT]] = []
    budget = 0
    seen: dict[str, set[str | None]] = {}
    for instance in instances:
        sop_class, syntax = _classes_of(instance)
        syntaxes = seen.setdefault(sop_class, set())
        # a SOP class costs its transfer syntaxes and perhaps one native fallback, or two
        cost = (syntax not in syntaxes) + (0 if syntaxes else fallbacks)
        if not groups or budget + cost > MAX_CONTEXTS:
            groups.append([])
            syntaxes = set[str | None]()
            seen, budget, cost = {sop_class: syntaxes}, 0, 1 + fallbacks
        syntaxes.add(syntax)
        budget += cost
        groups[-1].append(instance)
    return groups


def retrieve_contexts(
    sop_class_uids: Iterable[str],
    *,
    models: Sequence[str] = (STUDY_ROOT_GET, PATIENT_ROOT_GET),
    transfer_syntaxes: Iterable[str] = TRANSFER_SYNTAXES,
) -> list[PresentationContext]:
    """Contexts for a C-GET of instances of these SOP classes, each with the SCP role.

    One context per SOP class and transfer syntax, so that the peer can send every instance as it
    is; where that would be more than 128, the rarer transfer syntaxes share contexts.
    """
    classes = list(dict.fromkeys(sop_class_uids))
    syntaxes = sorted(transfer_syntaxes, key=_retrieve_preference)
    contexts = [PresentationContext(model) for model in models]
    if not classes:
        return contexts
    slots = max((MAX_CONTEXTS - len(contexts)) // len(classes), 1)
    alone, shared = syntaxes[: slots - 1], tuple(syntaxes[slots - 1 :])
    for sop_class in classes:
        contexts += [PresentationContext(sop_class, (syntax,), scp=True) for syntax in alone]
        if shared:
            contexts.append(PresentationContext(sop_class, shared, scp=True))
    return contexts


_COMMON_COMPRESSED = (
    "JPEGBaseline8Bit",
    "JPEGLosslessSV1",
    "JPEG2000Lossless",
    "JPEG2000",
    "RLELossless",
    "JPEGLSLossless",
    "JPEGLSNearLossless",
    "JPEGExtended12Bit",
    "JPEGLossless",
)


def _retrieve_preference(uid: str) -> int:
    """Native first, then the compressed ones that archives are full of, then the rest."""
    if uid in NATIVE_TRANSFER_SYNTAXES:
        return NATIVE_TRANSFER_SYNTAXES.index(uid)
    entry = TRANSFER_SYNTAXES.get(uid)
    if entry is not None and entry.keyword in _COMMON_COMPRESSED:
        return 10 + _COMMON_COMPRESSED.index(entry.keyword)
    return 100


def acceptance_policy(
    services: frozenset[Service],
    contexts: Iterable[PresentationContext] | None,
    *,
    unknown_storage: bool,
    normalized: NormalizedOffer = NO_OFFER,
    query_classes: Collection[str] = (),
) -> Policy:
    """What a handler's services, or an explicit list, amount to in negotiation.

    Of `normalized` classes whose events the handler takes, a requestor may become the SCP. Of those
    that query and retrieve only `query_classes` are offered.

    Raises:
        LocalProtocolError: The list has others than presentation contexts.
    """
    role_scu = set(sop_classes(Service.STORAGE) if Service.GET in services else ())
    role_scu |= normalized.as_scu
    supported: dict[str, tuple[str, ...]]
    if contexts is not None:
        contexts = checked_contexts(contexts)
        supported = {c.abstract_syntax: c.transfer_syntaxes for c in contexts}
        role_scu.update(c.abstract_syntax for c in contexts if c.scp)
        return Policy(supported, role_scu=role_scu)
    supported = {}
    if Service.ECHO in services:
        supported[VERIFICATION] = NATIVE_TRANSFER_SYNTAXES
    offered = (*query_classes, *normalized.as_scp, *normalized.as_scu)
    supported |= dict.fromkeys(offered, NATIVE_TRANSFER_SYNTAXES)
    if {Service.STORAGE, Service.GET} & services:
        supported |= dict.fromkeys(sop_classes(Service.STORAGE), tuple(TRANSFER_SYNTAXES))
    return Policy(
        supported,
        role_scu=role_scu,
        unknown_storage=unknown_storage and Service.STORAGE in services,
    )


def context_for(negotiated: Negotiated, *abstract_syntaxes: str) -> AcceptedContext:
    """The first context that was accepted for one of these abstract syntaxes, with the SCU role.

    Raises:
        ContextNotAccepted: There is none.
    """
    for abstract_syntax in abstract_syntaxes:
        for context in negotiated.contexts_for(abstract_syntax):
            if context.scu:
                return context
    raise _not_accepted(negotiated, abstract_syntaxes)


def normalized_context(
    negotiated: Negotiated, sop_class_uid: str, via: str | None = None, *, as_scp: bool = False
) -> AcceptedContext:
    """The context for a DIMSE-N message of a SOP class.

    Args:
        negotiated: What was accepted.
        sop_class_uid: The class.
        via: The context's abstract syntax, where it is not one that the class is known to use.
        as_scp: Whether this side acts as the class's SCP, as it does for N-EVENT-REPORT.

    Raises:
        ContextNotAccepted: There is none.
    """
    carriers = (via,) if via is not None else carriers_of(sop_class_uid)
    for carrier in carriers:
        for context in negotiated.contexts_for(carrier):
            if context.scp if as_scp else context.scu:
                return context
    raise _not_accepted(negotiated, carriers, as_scp=as_scp)


def storage_context(
    negotiated: Negotiated, sop_class_uid: str, transfer_syntax_uid: str | None
) -> AcceptedContext:
    """The context to send an instance on: of its own transfer syntax, else one to convert it to.

    `transfer_syntax_uid` is `None` for a data set that is in none yet.

    Raises:
        ContextNotAccepted: There is none.
    """
    contexts = [c for c in negotiated.contexts_for(sop_class_uid) if c.scu]
    for context in contexts:
        if context.transfer_syntax == transfer_syntax_uid:
            return context
    if transfer_syntax_uid is None or transfer_syntax_uid in NATIVE_TRANSFER_SYNTAXES:
        for context in contexts:
            if context.transfer_syntax in NATIVE_TRANSFER_SYNTAXES:
                return context
    raise _not_accepted(negotiated, (sop_class_uid,), transfer_syntax_uid)


def transcoding_context(contexts: Iterable[AcceptedContext]) -> AcceptedContext | None:
    """The context to transcode to: of a native transfer syntax, else of a lossless compression."""
    by_syntax = {context.transfer_syntax: context for context in contexts}
    wanted = (*NATIVE_TRANSFER_SYNTAXES, *ENCODERS)
    return next((by_syntax[syntax] for syntax in wanted if syntax in by_syntax), None)


_HELPERS = {
    "UnifiedProcedureStep": "procedure_step_contexts",
    "ModalityPerformedProcedureStep": "performed_step_contexts",
    "StorageCommitmentPushModel": "commitment_contexts",
    "InstanceAvailabilityNotification": "availability_contexts",
}
"""What makes the contexts of a workflow, by what the keywords of its classes begin with."""


def refusals(contexts: Iterable[RefusedContext]) -> str:
    """What was refused and why, in few words: by result, and of many not all."""
    by_result: dict[int, list[RefusedContext]] = {}
    for context in contexts:
        by_result.setdefault(context.result, []).append(context)
    return "; ".join(map(_of_one_result, by_result.values()))


def _of_one_result(contexts: list[RefusedContext]) -> str:
    if len(contexts) <= 2:
        return "; ".join(map(str, contexts))
    names = list(dict.fromkeys(uid_name(context.abstract_syntax) for context in contexts))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}: {result_name(contexts[0].result)}"


def _contexts_with(abstract_syntax: str) -> str:
    """What to open the association with for a class that was not proposed."""
    entry = SOP_CLASSES.get(abstract_syntax)
    if entry is None or entry.service is Service.STORAGE:
        return "contexts=contexts_for(paths) of the files"
    if entry.service is Service.GET:
        return "contexts=retrieve_contexts(sop_class_uids) of what is to be retrieved"
    for keyword, helper in _HELPERS.items():
        if entry.keyword.startswith(keyword):
            return f"contexts={helper}()"
    advice = f"contexts=[…, PresentationContext({abstract_syntax!r})]"
    if abstract_syntax in (VERIFICATION, *QUERY_RETRIEVE, MODALITY_WORKLIST_FIND):
        advice += " or the default_contexts(), which have it"
    return advice


_CONVERT = 'convert the file, or let store do it (on_mismatch="transcode")'
_TRANSCODE = 'contexts_for(paths, transcode=True), on_mismatch="transcode"'
_TRANSFER_SYNTAXES = ContextResultReason.TRANSFER_SYNTAXES_NOT_SUPPORTED
_RESULT_ADVICE: dict[int, str] = {
    ContextResultReason.ABSTRACT_SYNTAX_NOT_SUPPORTED: "the peer does not offer this service to us",
    _TRANSFER_SYNTAXES: "propose other transfer syntaxes",
}
"""Advice about a class of which no context was accepted, by the result of its contexts."""


def _not_accepted(
    negotiated: Negotiated,
    abstract_syntaxes: Sequence[str],
    transfer_syntax: str | None = None,
    *,
    as_scp: bool = False,
) -> ContextNotAccepted:
    """The error that says what was proposed for these classes, what came of it, and what to try."""
    role = "SCP" if as_scp else "SCU"
    what = " or ".join(map(uid_name, abstract_syntaxes[:2]))
    if len(abstract_syntaxes) > 2:
        what += " or another that carries it"
    if transfer_syntax is not None:
        what += f" in {uid_name(transfer_syntax)}"
    refused = [c for c in negotiated.refused if c.abstract_syntax in abstract_syntaxes]
    contexts = [c for c in negotiated.accepted.values() if c.abstract_syntax in abstract_syntaxes]
    accepted = [
        f"{uid_name(c.abstract_syntax)} in {uid_name(c.transfer_syntax)}: accepted"
        + ("" if (c.scp if as_scp else c.scu) else f", but not with the {role} role")
        for c in contexts
    ]
    if not refused and not accepted:
        return ContextNotAccepted(
            f"no presentation context for {what}: it was not proposed; open the association with"
            f" {_contexts_with(abstract_syntaxes[0])}"
        )
    usable = [c for c in contexts if (c.scp if as_scp else c.scu)]
    if contexts and not usable:
        advice = _role_advice(abstract_syntaxes[0], as_scp=as_scp)
    elif contexts:
        advice = f"propose the transfer syntax itself (contexts_for(paths)), or {_CONVERT}"
        if any(transfer_syntax in context.transfer_syntaxes for context in refused):
            advice = f"the peer does not take this transfer syntax from us: {_CONVERT}"
    else:
        own = [c for c in refused if transfer_syntax in c.transfer_syntaxes] or refused
        advice = _RESULT_ADVICE.get(own[0].result, "the peer's log may say why")
        if own[0].result == _TRANSFER_SYNTAXES and transfer_syntax is not None:
            advice += f" to which store can transcode ({_TRANSCODE}), or convert the file"
    answers = "; ".join(filter(None, [refusals(refused), *accepted]))
    return ContextNotAccepted(f"no presentation context for {what}; {answers}; {advice}")


def _role_advice(abstract_syntax: str, *, as_scp: bool) -> str:
    """What to do where a class was accepted, with roles that do not fit."""
    if as_scp:
        return f"propose PresentationContext({abstract_syntax!r}, scp=True, scu=False)"
    entry = SOP_CLASSES.get(abstract_syntax)
    if entry is not None and entry.service is not Service.STORAGE:
        return f"propose PresentationContext({abstract_syntax!r}), which has the SCU role"
    return (
        "to be sent it by C-GET, a peer proposes the SCP role (retrieve_contexts(sop_class_uids)),"
        " unless the server has lenient_roles=True; to send it, propose contexts_for(paths)"
    )
