"""Whether a handler is one: whether its methods and its class are what they seem meant to be."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partialmethod
from typing import Any, get_type_hints

from .checks import called_form
from .errors import HandlerError
from .handlers import METHODS, NORMALIZED_METHODS, Handler, method_of

KNOWN = (*METHODS.values(), *NORMALIZED_METHODS.values(), "handle_association")
"""The methods that take requests."""
NAMES = frozenset((*KNOWN, "resolve_destination"))
STREAMS = frozenset(("handle_find", "handle_get", "handle_move"))
_COROUTINES = frozenset(
    ("handle_echo", "handle_store", "resolve_destination", *NORMALIZED_METHODS.values())
)
_METHODS = NAMES | {"check_ready"}
_ATTRIBUTES = frozenset(
    ("query_sop_classes", "normalized_sop_classes", "query_options", "storage_options")
)
_REQUESTS: dict[str, str] = {name: vars(Handler)[name].__annotations__["request"] for name in KNOWN}
"""The class of what each method is given, by its name."""
_NEAR_METHOD = 0.85
"""How near a name must be to a method's, as difflib counts: `handel_get` is, `handles` is not."""
_NEAR_ATTRIBUTE = 0.9
"""The same for attributes, whose names are longer: `storage_locations` is none of them."""


def check_form(handler: object) -> None:
    """Refuse a handler that is not what the names in it say.

    Raises:
        HandlerError: A method has another form or takes something else, or a name is nearly that
            of one; what two bases say contradicts; a base class has not been initialized.
    """
    for name in sorted(NAMES):
        if (method := method_of(handler, name)) is not None:
            _check_signature(handler, name, method)
    _check_names(handler)
    _check_inherited(handler)
    _check_initialized(handler)


def _check_inherited(handler: object) -> None:
    """Refuse a class that has what it is for from two bases: neither says what both are for."""
    for name in ("normalized_sop_classes", "query_sop_classes"):
        having = [base for base in type(handler).__mro__ if name in vars(base)]
        if having and any(not issubclass(having[0], base) for base in having):
            one, other = having[0], next(b for b in having if not issubclass(having[0], b))
            raise HandlerError(
                f"{type(handler).__name__} has {name} both from {one.__name__} and from"
                f" {other.__name__}: say it in the class, or make one handler of several with"
                f" Handlers({one.__name__}(…), {other.__name__}(…))"
            )


def _check_initialized(handler: object) -> None:
    """Refuse a handler of whose base classes one has never got what it works with."""
    bases = [base for base in type(handler).__mro__ if "_from_init" in vars(base)]
    for base in bases:
        if not hasattr(handler, vars(base)["_from_init"]):
            advice = f"call it in the __init__ of {type(handler).__name__}"
            if len(bases) > 1:
                parts = ", ".join(f"{each.__name__}(…)" for each in bases)
                advice += f", or make one handler of several with Handlers({parts})"
            raise HandlerError(
                f"{type(handler).__name__} has not been through {base.__name__}.__init__: {advice}"
            )


def _check_names(handler: object) -> None:
    """Refuse what was meant to be a handler's method or attribute, by its name."""
    for name in dir(handler):
        if name.startswith("_") or name in _METHODS or name in _ATTRIBUTES:
            continue
        meant = _meant_by(name)
        if not name.startswith("handle_") and (meant is None or _has_both(handler, name, meant)):
            continue  # its own affair
        if meant not in _ATTRIBUTES and not _is_method(handler, name):
            continue
        hint = f"did you mean {meant}?" if meant else f"there are {', '.join(KNOWN)}"
        raise HandlerError(f"{type(handler).__name__} has {name}, which nothing uses; {hint}")


def _is_method(handler: object, name: str) -> bool:
    """Whether a name is a method's, by what stands there: no property is read."""
    value: object = inspect.getattr_static(handler, name, None)
    return callable(value) or isinstance(value, classmethod | partialmethod)


@lru_cache(1000)  # each association looks at its handler anew
def _meant_by(name: str) -> str | None:
    """The method or attribute that has nearly this name."""
    if name.startswith("handle_"):
        services = [known.removeprefix("handle_") for known in KNOWN]
        near = difflib.get_close_matches(name.removeprefix("handle_"), services, n=1)
        return f"handle_{near[0]}" if near else None
    for names, cutoff in ((_METHODS, _NEAR_METHOD), (_ATTRIBUTES, _NEAR_ATTRIBUTE)):
        plain = {_plain(known): known for known in names}
        if near := difflib.get_close_matches(_plain(name), plain, n=1, cutoff=cutoff):
            return plain[near[0]]
    return None


def _plain(name: str) -> str:
    """A name however its words are put together."""
    return name.replace("_", "").lower()


def _has_both(handler: object, name: str, meant: str) -> bool:
    """Whether the class that has a name, or a subclass, also has the one that is nearly that."""
    mro = type(handler).__mro__

    def level(name: str, otherwise: int) -> int:
        if name in getattr(handler, "__dict__", ()):
            return 0
        having = (level for level, base in enumerate(mro) if name in vars(base))
        return next(having, otherwise)

    return level(meant, len(mro)) <= level(name, 0)


def _check_signature(handler: object, name: str, method: Callable[..., Any]) -> None:
    where = f"{type(handler).__name__}.{name}"
    if not callable(method):
        raise HandlerError(f"{where} is not a method")
    try:
        # of what is called: a decorator may give the function that it wraps more than a request
        signature = inspect.signature(method, follow_wrapped=False)
    except (TypeError, ValueError):
        signature = None  # which some Pythons do not know, of a mock say
    try:
        if signature is not None:
            signature.bind(object())
    except TypeError:
        raise HandlerError(f"{where} must take one argument beside self") from None
    called, function = (method, type(method).__call__), called_form(method)
    if name in STREAMS and (
        inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function)
    ):
        raise HandlerError(
            f"{where} must be an async generator: `async def` with a `yield` in it, or a function"
            " that returns an async iterator"
        )
    if name == "handle_association" and (
        any(map(inspect.iscoroutinefunction, called))
        or any(map(inspect.isasyncgenfunction, called))
        or inspect.isgeneratorfunction(function)
    ):
        raise HandlerError(
            f"{where} must return an async context manager: make it an `async def` with one `yield`"
            " in it, and decorate it with @contextlib.asynccontextmanager"
        )
    if name in _COROUTINES and not inspect.iscoroutinefunction(function):
        raise HandlerError(f"{where} must be an `async def` that returns its result")
    if name == getattr(function, "__name__", None) and name in _REQUESTS:  # no other name for one
        _check_annotation(where, method, _REQUESTS[name])


def _check_annotation(where: str, method: Callable[..., Any], expected: str) -> None:
    """Refuse a method that says that it takes another request; what cannot be read is let be."""
    first = next(iter(inspect.signature(method, follow_wrapped=False).parameters.values()))
    with suppress(StopIteration, ValueError):  # the function that is wrapped may take nothing
        if first.kind is first.VAR_POSITIONAL:
            first = next(iter(inspect.signature(method).parameters.values()))
    annotation: object = first.annotation
    with suppress(Exception):  # names that only type checkers see, and whatever else is written
        annotation = get_type_hints(method).get(first.name, annotation)
    given = ""
    if isinstance(annotation, str) and (named := re.fullmatch(r"(?:\w+\.)*(\w+)", annotation)):
        given = named[1]
    elif isinstance(annotation, type) and annotation.__module__.startswith("dimse_trio."):
        given = annotation.__name__
    if given in _REQUESTS.values() and given != expected:
        raise HandlerError(f"{where} takes {given} by its annotation, but is given {expected}")
