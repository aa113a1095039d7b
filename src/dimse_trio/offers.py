"""What a handler offers, and whether it is one: looked at once, before anybody is listened to."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection
from typing import Any

from .contexts import NormalizedOffer
from .errors import HandlerError
from .handlers import METHODS, NORMALIZED_METHODS, method_of
from .protocol.messages import CFindRQ, NEventReportRQ
from .protocol.normalized import NORMALIZED_CLASSES
from .protocol.uids import Service

_KNOWN = (*METHODS.values(), *NORMALIZED_METHODS.values(), "handle_association")
_NAMES = frozenset((*_KNOWN, "resolve_destination"))
_STREAMS = frozenset(("handle_find", "handle_get", "handle_move"))
_COROUTINES = frozenset(
    ("handle_echo", "handle_store", "resolve_destination", *NORMALIZED_METHODS.values())
)


def services_of(handler: object) -> frozenset[Service]:
    """The services that a handler offers.

    Raises:
        HandlerError: It is a class, has no handler's method, or has one that is not what its name
            says, or whose name is nearly one.
    """
    if isinstance(handler, type):
        raise HandlerError(f"{handler.__name__} is a class; pass an instance: {handler.__name__}()")
    for name in sorted(_NAMES):
        if (method := method_of(handler, name)) is not None:
            _check_signature(handler, name, method)
    _check_names(handler)
    services = frozenset(s for s, name in METHODS.items() if method_of(handler, name) is not None)
    if any(method_of(handler, name) is not None for name in NORMALIZED_METHODS.values()):
        services |= {Service.NORMALIZED}
    if not services and method_of(handler, "handle_association") is None:
        raise HandlerError(
            f"{type(handler).__name__} has no handle_* method, so there is nothing to offer; there"
            f" are {', '.join(_KNOWN)}"
        )
    return services


def normalized_offer(handler: object) -> NormalizedOffer:
    """The DIMSE-N classes that a handler's methods are enough for.

    It is offered as SCP of a class if it has a method for each of the requests that the SCP
    performs, as SCU if the class has events and it has `handle_n_event_report`. An attribute
    `normalized_sop_classes` of the handler, UIDs, narrows that to these classes. Of those that have
    nothing but events it is the SCP if they are named there, and it does not take the events.
    """
    requests = {**NORMALIZED_METHODS, CFindRQ: METHODS[Service.FIND]}
    performed = {kind for kind, name in requests.items() if method_of(handler, name) is not None}
    declared: Collection[str] | None = getattr(handler, "normalized_sop_classes", None)
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


def _check_names(handler: object) -> None:
    """Refuse methods that were meant to be a handler's, by their name."""
    for name in dir(handler):
        if name in _NAMES or not name.startswith(("handle_", "resolve_")):
            continue
        if name.startswith("handle_"):
            bare = name.removeprefix("handle_")
            services = [known.removeprefix("handle_") for known in _KNOWN]
            near = [f"handle_{each}" for each in difflib.get_close_matches(bare, services, n=1)]
        else:
            near = difflib.get_close_matches(name, ["resolve_destination"], cutoff=0.85)
            if not near or method_of(handler, "resolve_destination") is not None:
                continue  # its own affair
        if callable(getattr(handler, name)):
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_KNOWN)}"
            raise HandlerError(
                f"{type(handler).__name__} has {name}, which no service calls; {hint}"
            )


def _check_signature(handler: object, name: str, method: Callable[..., Any]) -> None:
    where = f"{type(handler).__name__}.{name}"
    if not callable(method):
        raise HandlerError(f"{where} is not a method")
    try:
        inspect.signature(method).bind(object())
    except TypeError:
        raise HandlerError(f"{where} must take one argument beside self") from None
    function = inspect.unwrap(method)
    if name in _STREAMS and inspect.iscoroutinefunction(function):
        raise HandlerError(
            f"{where} must be an async generator: `async def` with a `yield` in it, or a function"
            " that returns an async iterator"
        )
    if name == "handle_association" and (
        inspect.iscoroutinefunction(method)
        or inspect.isasyncgenfunction(method)
        or inspect.isgeneratorfunction(function)
    ):
        raise HandlerError(
            f"{where} must return an async context manager: make it an `async def` with one `yield`"
            " in it, and decorate it with @contextlib.asynccontextmanager"
        )
    if name in _COROUTINES and not inspect.iscoroutinefunction(function):
        raise HandlerError(f"{where} must be an `async def` that returns its result")
