"""Arguments that cannot be, refused before anything is opened, and what to write instead."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard, cast

from .config import Limits, Timeouts
from .errors import DimseError, LocalProtocolError
from .protocol.pdus import Implementation, RoleSelection, UserIdentity


def check_address(host: object, port: object) -> None:
    """That a host and port can be connected to, as far as can be told without trying.

    Raises:
        LocalProtocolError: The host is none, or has the port in it; the port is none.
    """
    check_host(host)
    check_port(port)


def check_host(host: object, *, name: str = "host") -> None:
    """That a host is a name or an address.

    Raises:
        LocalProtocolError: It is not, or has a port in it.
    """
    if not isinstance(host, str) or not host:
        raise LocalProtocolError(f"{name} is a name or an address as text, not {host!r}")
    if host.startswith("["):
        bare, _, rest = host[1:].partition("]")
        with_it = rest.removeprefix(":")
    elif host.count(":") == 1:  # an IPv6 address has more
        bare, _, with_it = host.partition(":")
    else:
        return
    advice = f"{name}={bare!r}"
    if _is_number(with_it):
        advice += f", {name.replace('host', 'port')}={int(with_it)}"
    raise LocalProtocolError(
        f"{name} {host!r} is not just a name or an address; the port is given by itself: {advice}"
    )


def check_port(port: object, *, name: str = "port", least: int = 1) -> None:
    """That a port is one, from `least`, which is 0 where that stands for a free one.

    Raises:
        LocalProtocolError: It is not.
    """
    if not least <= _whole(name, port) <= 0xFFFF:
        raise LocalProtocolError(f"{name} is a number from {least} to 65535, not {port}")


def check_count(count: object, *, name: str, least: int = 1) -> None:
    """That a number is a whole one, from `least`.

    Raises:
        LocalProtocolError: It is not.
    """
    if _whole(name, count) < least:
        raise LocalProtocolError(f"{name} must be at least {least}")


def check_flag(flag: object, *, name: str) -> None:
    """That something is said by True or False.

    Raises:
        LocalProtocolError: It is not.
    """
    if not isinstance(flag, bool):
        raise LocalProtocolError(f"{name} is True or False, not {flag!r}")


def check_seconds(seconds: object, *, name: str) -> None:
    """That a time is a number, from 0; `math.inf` is one.

    Raises:
        LocalProtocolError: It is not.
    """
    if _seconds(name, seconds) < 0:
        raise LocalProtocolError(f"{name} must be at least 0")


def check_grace(grace: object) -> None:
    """That the time until something is stopped is a number; what is left of one may be below 0.

    Raises:
        LocalProtocolError: It is not.
    """
    _seconds("grace", grace)


def _seconds(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:  # NaN
        raise LocalProtocolError(f"{name} is a number of seconds, not {value!r}")
    return value


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        advice = f": write {name}={int(value)}" if _is_number(value) else ""
        raise LocalProtocolError(f"{name} is a whole number, not {value!r}{advice}")
    return value


def _is_number(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and text.isascii() and text.isdigit()


def checked_timeouts(timeouts: Timeouts | None) -> Timeouts:
    """The timeouts, by default the default ones.

    Raises:
        LocalProtocolError: They are none.
    """
    _check_kind("timeouts", timeouts, Timeouts, "Timeouts(response=60)")
    return timeouts or Timeouts()


def checked_limits(limits: Limits | None) -> Limits:
    """The limits, by default the default ones.

    Raises:
        LocalProtocolError: They are none.
    """
    _check_kind("limits", limits, Limits, "Limits(data_set=1 << 30)")
    return limits or Limits()


def check_user_identity(identity: UserIdentity | None) -> None:
    """That a user identity is one, or left out; the error does not say what was given instead.

    Raises:
        LocalProtocolError: It is none.
    """
    _check_kind("user_identity", identity, UserIdentity, "UserIdentity.username('ada')")


def _check_kind(name: str, value: object, kind: type[object], example: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise LocalProtocolError(
            f"{name} is {kind.__name__}, not {type(value).__name__}; for example {name}={example}"
        )


def check_window(async_operations: object) -> None:
    """That an asynchronous operations window, if there is one, is two numbers.

    Raises:
        LocalProtocolError: It is not.
    """
    counts = cast("tuple[object, ...]", async_operations)
    if async_operations is not None and (
        not isinstance(async_operations, tuple)
        or len(counts) != 2
        or not all(isinstance(count, int) and 0 <= count <= 0xFFFF for count in counts)
    ):
        raise LocalProtocolError(
            f"async_operations {async_operations!r} must be two numbers up to 65535, invoked and"
            " performed"
        )


def checked_roles(roles: Iterable[RoleSelection]) -> tuple[RoleSelection, ...]:
    """Role selections.

    Raises:
        LocalProtocolError: They are none.
    """
    given = cast("object", roles)
    several = tuple(cast("Iterable[object]", given)) if isinstance(given, Iterable) else (given,)
    for each in several:
        if given is each or not isinstance(each, RoleSelection):
            raise LocalProtocolError(
                f"roles are several RoleSelection, not {type(each).__name__}; for example"
                " roles=[RoleSelection(uid, scu=False, scp=True)]"
            )
    return cast("tuple[RoleSelection, ...]", several)


_SIDES = {
    False: ("connect", ssl.PROTOCOL_TLS_SERVER, "tls_profile(ca='ca.pem')"),
    True: ("listen", ssl.PROTOCOL_TLS_CLIENT, "tls_profile(server=True, certificate='ours.pem')"),
}
"""Whether it is a server's: what a context is for, what it must not be, and what makes one."""


def check_ssl_context(
    ssl_context: ssl.SSLContext | None, *, name: str = "ssl_context", server: bool = False
) -> None:
    """That TLS, if it is asked for, is by a context, and one for this side.

    Raises:
        LocalProtocolError: It is not.
    """
    verb, wrong, example = _SIDES[server]
    _check_kind(name, ssl_context, ssl.SSLContext, example)
    if ssl_context is not None and ssl_context.protocol is wrong:
        raise LocalProtocolError(
            f"{name} is to {verb} with, and this is one for {'clients' if server else 'servers'};"
            f" for example {name}={example}"
        )


def check_max_pdu_length(length: object) -> None:
    """That a maximum length can be announced.

    Raises:
        LocalProtocolError: It cannot.
    """
    whole = _whole("max_pdu_length", length)
    if not 0 <= whole < 1 << 32 or 0 < whole < 128:
        raise LocalProtocolError("max_pdu_length must be 0 (no limit) or at least 128 bytes")


def check_implementation(implementation: Implementation | None) -> None:
    """That an implementation, if it is named, is named by both its identifiers.

    Raises:
        LocalProtocolError: It is not.
    """
    example = "Implementation(class_uid, 'VERSION_1')"
    _check_kind("implementation", implementation, Implementation, example)
    if implementation is None:
        return
    for what, text, longest in (
        ("version name", cast("object", implementation.version_name), 16),
        ("class UID", cast("object", implementation.class_uid), 64),
    ):
        if not isinstance(text, str) or not 0 < len(text) <= longest or not text.isascii():
            raise LocalProtocolError(
                f"implementation {what} {text!r} must have 1 to {longest} ASCII characters"
            )


def check_peers(peers: object) -> None:
    """That peers, if there are any, are by their AE titles.

    Raises:
        LocalProtocolError: They are not.
    """
    if peers is not None and not isinstance(peers, Mapping):
        raise LocalProtocolError(
            f'peers is a mapping, such as {{"TITLE": ("host", 104)}}, not {type(peers).__name__}'
        )


def called_form(call: Callable[..., Any]) -> Callable[..., Any]:
    """The function that says by its kind what a call gives, of whatever can be called.

    That is what is called itself, for an object its `__call__`. A plain function may hand through
    what the one that it wraps gives, and that one says it then.
    """
    wrapped: Callable[..., Any] = inspect.unwrap(call)
    for form in (call, type(call).__call__, wrapped, type(wrapped).__call__):
        if (
            inspect.iscoroutinefunction(form)
            or inspect.isasyncgenfunction(form)
            or inspect.isgeneratorfunction(form)
        ):
            return form
    return wrapped


def check_keeper(
    name: str,
    keeper: object,
    kind: str,
    *methods: str,
    error: type[DimseError] = LocalProtocolError,
) -> None:
    """That what keeps something has the methods for that, each of them an `async def`.

    Raises:
        DimseError: It is none: one of that class.
    """
    for method in methods:
        call: object = getattr(keeper, method, None)
        awaited = callable(call) and inspect.iscoroutinefunction(called_form(call))
        if not awaited or isinstance(keeper, type):
            wrong = (
                "this is a class" if awaited else f"{type(keeper).__name__} has no such {method}"
            )
            raise error(
                f"{name} is a {kind}: its {', '.join(methods[:-1])} and {methods[-1]} are"
                f" `async def`; {wrong}"
            )
