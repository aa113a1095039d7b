"""Arguments that cannot be, refused before anything is opened, and what to write instead."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TypeGuard, cast

from .config import Limits, Timeouts
from .errors import LocalProtocolError
from .protocol.pdus import UserIdentity


def check_address(host: object, port: object) -> None:
    """That a host and port can be connected to, as far as can be told without trying.

    Raises:
        LocalProtocolError: The host is none, or has the port in it; the port is none.
    """
    check_host(host)
    check_port(port)


def check_host(host: object) -> None:
    """That a host is a name or an address.

    Raises:
        LocalProtocolError: It is not, or has a port in it.
    """
    if not isinstance(host, str) or not host:
        raise LocalProtocolError(f"host is a name or an address as text, not {host!r}")
    if host.startswith("["):
        bare, _, rest = host[1:].partition("]")
        with_it = rest.removeprefix(":")
    elif host.count(":") == 1:  # an IPv6 address has more
        bare, _, with_it = host.partition(":")
    else:
        return
    advice = f"host={bare!r}" + (f", port={int(with_it)}" if _is_number(with_it) else "")
    raise LocalProtocolError(
        f"host {host!r} is not just a name or an address; the port is given by itself: {advice}"
    )


def check_port(port: object, *, name: str = "port", least: int = 1) -> None:
    """That a port is one, from `least`, which is 0 where that stands for a free one.

    Raises:
        LocalProtocolError: It is not.
    """
    if not isinstance(port, int) or isinstance(port, bool):
        advice = f": write {name}={int(port)}" if _is_number(port) else ""
        raise LocalProtocolError(f"{name} is a whole number, not {port!r}{advice}")
    if not least <= port <= 0xFFFF:
        raise LocalProtocolError(f"{name} is a number from {least} to 65535, not {port}")


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


def check_ssl_context(ssl_context: ssl.SSLContext | None) -> None:
    """That TLS, if it is asked for, is by a context.

    Raises:
        LocalProtocolError: It is not.
    """
    _check_kind("ssl_context", ssl_context, ssl.SSLContext, "tls_profile(ca='ca.pem')")


def check_peers(peers: object) -> None:
    """That peers, if there are any, are by their AE titles.

    Raises:
        LocalProtocolError: They are not.
    """
    if peers is not None and not isinstance(peers, Mapping):
        raise LocalProtocolError(
            f'peers is a mapping, such as {{"TITLE": ("host", 104)}}, not {type(peers).__name__}'
        )
