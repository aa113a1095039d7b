"""What a handler offers, and whether it is one: looked at once, before anybody is listened to.

`Handlers` makes one handler of several, by what each of them offers.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias, TypeVar, cast, final

from .contexts import NormalizedOffer
from .errors import HandlerError, StatusError
from .handler_checks import KNOWN, NAMES, STREAMS, check_form
from .handlers import (
    METHODS,
    NORMALIZED_METHODS,
    SupportsAssociation,
    SupportsEcho,
    SupportsFind,
    SupportsGet,
    SupportsMove,
    SupportsNAction,
    SupportsNCreate,
    SupportsNDelete,
    SupportsNEventReport,
    SupportsNGet,
    SupportsNSet,
    SupportsStore,
    method_of,
)
from .protocol.extended import QueryOptions, StorageOptions
from .protocol.messages import CFindRQ, NEventReportRQ
from .protocol.normalized import NORMALIZED_CLASSES
from .protocol.status import Status
from .protocol.uids import SOP_CLASSES, Service, sop_classes, uid_name
from .requests import Admission, AssociationRequest

OptionsT = TypeVar("OptionsT", QueryOptions, StorageOptions)

_FOR_ONE = ("handle_store", "resolve_destination")
"""What has no SOP class to go by, or too many."""
_QUERYING = (Service.FIND, Service.GET, Service.MOVE)
_ROOTS = ("PatientRootQuery", "StudyRootQuery", "PatientStudyOnlyQuery")


def services_of(handler: object) -> frozenset[Service]:
    """The services that a handler offers.

    Raises:
        HandlerError: It is a class, has no handler's method, or has one that is not what its name
            says, or whose name is nearly one; or a base class has not been initialized.
    """
    if isinstance(handler, type):
        raise HandlerError(f"{handler.__name__} is a class; pass an instance: {handler.__name__}()")
    check_form(handler)
    services = frozenset(s for s, name in METHODS.items() if method_of(handler, name) is not None)
    if any(method_of(handler, name) is not None for name in NORMALIZED_METHODS.values()):
        services |= {Service.NORMALIZED}
    if not services and method_of(handler, "handle_association") is None:
        raise HandlerError(
            f"{type(handler).__name__} has no handle_* method, so there is nothing to offer; there"
            f" are {', '.join(KNOWN)}"
        )
    return services


def check_ready(handler: object) -> None:
    """Let a handler that has `check_ready` say what keeps it from being used.

    Raises:
        HandlerError: What it says, by raising this itself.
    """
    check = getattr(handler, "check_ready", None)
    if inspect.iscoroutinefunction(check):
        raise HandlerError(f"{type(handler).__name__}.check_ready must be a plain `def`")
    if check is not None:
        check()


def normalized_offer(handler: object) -> NormalizedOffer:
    """The DIMSE-N classes that a handler's methods are enough for.

    It is offered as SCP of a class if it has a method for each of the requests that the SCP
    performs, as SCU if the class has events and it has `handle_n_event_report`. An attribute
    `normalized_sop_classes` of the handler, UIDs, narrows that to these classes. Of those that have
    nothing but events it is the SCP if they are named there, and it does not take the events.
    """
    if isinstance(handler, Handlers):
        offers = [normalized_offer(part) for part in handler.handlers]
        return NormalizedOffer(
            frozenset[str]().union(*(offer.as_scp for offer in offers)),
            frozenset[str]().union(*(offer.as_scu for offer in offers)),
        )
    requests = {**NORMALIZED_METHODS, CFindRQ: METHODS[Service.FIND]}
    performed = {kind for kind, name in requests.items() if method_of(handler, name) is not None}
    declared = _declared_classes(handler, "normalized_sop_classes", Service.NORMALIZED)
    rows = [row for row in NORMALIZED_CLASSES.values() if declared is None or row.uid in declared]
    takes_events = NEventReportRQ in performed
    only_reports = declared is not None and not takes_events
    return NormalizedOffer(
        frozenset(
            row.uid
            for row in rows
            if row.performed <= performed and (row.performed or only_reports)
        ),
        frozenset(row.uid for row in rows if row.reports and takes_events),
    )


def query_classes(handler: object) -> frozenset[str]:
    """The SOP classes that a handler queries and retrieves by, for the methods that it has.

    They are those of its attribute `query_sop_classes`, else those of Query/Retrieve for patients
    and studies (PS3.4 Annex C).
    """
    if isinstance(handler, Handlers):
        return frozenset[str]().union(*(query_classes(part) for part in handler.handlers))
    services = [s for s in _QUERYING if method_of(handler, METHODS[s]) is not None]
    declared = _declared_classes(handler, "query_sop_classes", *_QUERYING)
    if declared is None:
        declared = [uid for uid, entry in SOP_CLASSES.items() if entry.keyword.startswith(_ROOTS)]
    return frozenset(uid for service in services for uid in sop_classes(service) if uid in declared)


def _declared_classes(handler: object, name: str, *services: Service) -> Collection[str] | None:
    """The SOP classes that a handler has in an attribute, if it has that.

    Raises:
        HandlerError: They are no UIDs of classes of these services.
    """
    declared: object = getattr(handler, name, None)
    if declared is None:
        return None
    where = f"{type(handler).__name__}.{name}"
    if isinstance(declared, str) or not isinstance(declared, Collection):
        raise HandlerError(f"{where} is a collection of SOP Class UIDs, such as a tuple")
    classes = cast("Collection[object]", declared)
    for uid in classes:
        entry = SOP_CLASSES.get(uid) if isinstance(uid, str) else None
        if entry is None:
            raise HandlerError(
                f"{where}: {uid!r} is no SOP Class UID of the standard; uid_of(keyword) gives them"
            )
        if entry.service not in (*services, Service.FIND):  # Unified Procedure Step has C-FIND
            raise HandlerError(f"{where}: {entry.keyword} has other services than these")
    return cast("Collection[str]", classes)


def declared_options(handler: object, name: str, kind: type[OptionsT]) -> OptionsT | None:
    """The options that a handler has in an attribute, for extended negotiation.

    Raises:
        HandlerError: They are something else.
    """
    if isinstance(handler, Handlers):
        options = [declared_options(part, name, kind) for part in handler.handlers]
        return next((each for each in options if each is not None), None)
    value = getattr(handler, name, None)
    if value is not None and not isinstance(value, kind):
        raise HandlerError(f"{type(handler).__name__}.{name} must be {kind.__name__}(…)")
    return value


@final
class Handlers:
    """One handler made of several, for several services on one port.

        await serve(Handlers(WorklistFolder("worklist"), PerformedProcedureSteps()), 11112)

    Each request goes to the handler that offers its SOP class; an association has to be admitted by
    all that have `handle_association`, and its SOP classes by each. C-ECHO goes to the first that
    answers it.

    Args:
        handlers: The handlers, as `serve` takes them.

    Raises:
        HandlerError: One is no handler, or two of them offer the same.
    """

    def __init__(self, *handlers: object) -> None:
        if not handlers:
            raise HandlerError("Handlers are one at least: Handlers(WorklistFolder(…), …)")
        self.handlers = handlers
        for handler in handlers:
            services_of(handler)
        self._refuse_doubles()
        for name in sorted(NAMES):
            having = [handler for handler in handlers if method_of(handler, name) is not None]
            if having:
                setattr(self, name, self._dispatch(name, having))

    def __repr__(self) -> str:
        return f"Handlers({', '.join(map(repr, self.handlers))})"

    def check_ready(self) -> None:
        """Ask each."""
        for handler in self.handlers:
            check_ready(handler)

    def _refuse_doubles(self) -> None:
        offered: dict[tuple[str, str], object] = {}
        for handler in self.handlers:
            normalized = normalized_offer(handler)
            offers = normalized.as_scp | query_classes(handler)
            what = [("the SCP of", uid) for uid in sorted(offers)]
            what += [("told the events of", uid) for uid in sorted(normalized.as_scu)]
            what += [(name, "") for name in _FOR_ONE if method_of(handler, name) is not None]
            for role, uid in what:
                other = offered.setdefault((role, uid), handler)
                if other is not handler:
                    both = f"{type(other).__name__} and {type(handler).__name__}"
                    if not uid:
                        raise HandlerError(f"{both} both have {role}; only one of Handlers can")
                    raise HandlerError(
                        f"{both} would both be {role} {uid_name(uid)}; narrow what one of them is"
                        " for by query_sop_classes or normalized_sop_classes"
                    )

    def _dispatch(self, name: str, having: list[object]) -> Callable[..., Any]:
        """The method of that name: of the handler that a request is for."""

        def chosen(request: Any) -> Callable[..., Any]:
            method = method_of(self._one_of(having, name, request), name)
            assert method is not None
            return method

        async def once(request: Any, /) -> Any:
            return await chosen(request)(request)

        def stream(request: Any, /) -> Any:
            return chosen(request)(request)

        if name == "handle_association":
            return self._admitted_by(having)
        return stream if name in STREAMS else once

    @staticmethod
    def _one_of(having: list[object], name: str, request: Any) -> object:
        if len(having) == 1 or name == METHODS[Service.ECHO]:
            return having[0]
        events = name == NORMALIZED_METHODS[NEventReportRQ]
        for uid in (request.sop_class_uid, request.context.abstract_syntax):
            for handler in having:
                normalized = normalized_offer(handler)
                offered = normalized.as_scu if events else normalized.as_scp
                if uid in offered or (not events and uid in query_classes(handler)):
                    return handler
        raise StatusError(Status.NO_SUCH_SOP_CLASS)

    @staticmethod
    def _admitted_by(having: list[object]) -> Callable[..., Any]:
        @asynccontextmanager
        async def handle_association(request: AssociationRequest, /) -> AsyncGenerator[Admission]:
            async with AsyncExitStack() as stack:
                admissions: list[Admission] = []
                for handler in having:
                    admit = method_of(handler, "handle_association")
                    assert admit is not None
                    admitted = await stack.enter_async_context(admit(request))
                    if not isinstance(admitted, Admission | None):
                        raise HandlerError(
                            f"handle_association of {type(handler).__name__} yielded"
                            f" {type(admitted).__name__}; it yields an Admission(…) or nothing"
                        )
                    admissions.append(admitted or Admission())
                yield Admission.of_all(admissions)

        return handle_association


AnyHandler: TypeAlias = (
    SupportsEcho
    | SupportsStore
    | SupportsFind
    | SupportsGet
    | SupportsMove
    | SupportsNEventReport
    | SupportsNGet
    | SupportsNSet
    | SupportsNAction
    | SupportsNCreate
    | SupportsNDelete
    | SupportsAssociation
    | Handlers
)
"""What type checkers take for a handler: what has one method at least as a protocol has it."""
