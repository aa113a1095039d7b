"""What a listener is told: `ServerOptions`, as its caller writes it, `ServerSettings`, checked."""

from __future__ import annotations

import difflib
import ssl
from collections.abc import Collection, Iterable, Mapping
from typing import TypedDict, cast

import attrs

from .checks import (
    check_count,
    check_implementation,
    check_max_pdu_length,
    check_peers,
    check_ssl_context,
    check_window,
    checked_limits,
    checked_timeouts,
)
from .client import DEFAULT_MAX_PDU_LENGTH, Destination, check_ae_title
from .config import Limits, Timeouts
from .contexts import acceptance_policy
from .errors import LocalProtocolError
from .instruments import Instrument, checked_instruments
from .offers import (
    check_ready,
    declared_options,
    normalized_offer,
    query_classes,
    services_of,
)
from .protocol.acceptance import REQUESTORS_ORDER, Policy, TransferSyntaxPreference
from .protocol.extended import QueryOptions, StorageOptions
from .protocol.negotiation import PresentationContext
from .protocol.pdus import Implementation
from .storing import OnMismatch, check_policy

PeerMap = Mapping[str, Destination | tuple[str, int]]


class ServerOptions(TypedDict, total=False):
    """The options that `open_server`, `serve` and `serve_stream` share, all by keyword."""

    ae_title: str | None
    """Our AE title. An association that calls another is rejected; `None`, the default, takes
    all."""
    accept_any_called_ae_title: bool
    """Take all, though there is an `ae_title`."""
    calling_ae_titles: Collection[str] | None
    """Whom an association is accepted from; others are rejected. `None`, the default, takes all."""
    ignore_ae_title_case: bool
    """Compare AE titles, move destinations too, whatever their case."""
    contexts: Iterable[PresentationContext] | None
    """What is accepted, in place of every SOP class of the handler's services in every transfer
    syntax that fits. With `scp`, a requestor that wants to be the SCP of the class may be."""
    implementation: Implementation | None
    """As for `open_association`."""
    transfer_syntax_preference: TransferSyntaxPreference
    """In which of a context's transfer syntaxes it is accepted, by default the first proposed that
    is supported."""
    accept_unknown_storage: bool
    """Take SOP classes that are in no table as storage classes."""
    accept_invalid_uids: bool
    """Let SOP Instance UIDs that are none reach the handler's `handle_store`."""
    lenient_roles: bool
    """Send the instances of a C-GET also to requestors that have not asked for the SCP role by role
    selection."""
    strict: bool
    """As for `open_association`."""
    ssl_context: ssl.SSLContext | None
    """For TLS."""
    peers: PeerMap | None
    """AE title to `Destination` or `(host, port)`: where a C-MOVE may go. A handler with
    `resolve_destination` is asked instead."""
    on_mismatch: OnMismatch
    """What sub-operations of C-GET and C-MOVE do about a transfer syntax that the requestor or the
    destination does not take: as for `Association.store`. What cannot be transcoded has failed."""
    max_associations: int
    """Beyond these, an association is rejected as transient, local limit exceeded. 200: enough for
    a department, and for its memory."""
    max_associations_per_peer: int
    """The same for the associations from one network address. 100: one peer that opens them without
    end leaves half to the others."""
    max_unassociated: int
    """Connections whose peer has not asked for an association yet. One more closes the one that has
    waited longest, so that idle connections cannot lock anybody out. 512, half of the descriptors
    that systems give a process, or `max_associations` if that is more."""
    async_operations: tuple[int, int]
    """Operations invoked and performed at once on one association with a peer that proposes a
    window, 0 without limit (PS3.7 §D.3.3.3). (1, 1), the default, is none: with more, handlers of
    one association run concurrently."""
    max_pdu_length: int
    """The longest P-DATA-TF that peers may send, in bytes; 0 without limit."""
    quick_ack: bool
    """As for `open_association`."""
    timeouts: Timeouts | None
    """How long the library itself waits."""
    limits: Limits | None
    """How much of the peers' data is held."""
    instruments: Iterable[Instrument]
    """Told what happens on each connection, those for the sub-operations of a C-MOVE too."""


def _destinations(peers: PeerMap | None) -> Mapping[str, Destination]:
    check_peers(peers)
    return {
        check_ae_title(title): destination_of(peer, f"peers, for {title!r},")
        for title, peer in (peers or {}).items()
    }


def destination_of(peer: object, who: str) -> Destination:
    """A destination that was given as one, or as host and port.

    Raises:
        LocalProtocolError: It was given otherwise; `who` did.
    """
    match peer:
        case Destination():
            return peer
        case (str(host), int(port)):
            return Destination(host, port)
        case _:
            raise LocalProtocolError(
                f"{who} has {peer!r}: write Destination(host, port) or (host, port)"
            )


def _titles(titles: Collection[str] | None) -> Collection[str] | None:
    if isinstance(titles, str):
        raise LocalProtocolError(f"calling_ae_titles are several: write [{titles!r}]")
    if titles is not None and not isinstance(cast("object", titles), Iterable):
        raise LocalProtocolError(f"calling_ae_titles are several, not {type(titles).__name__}")
    return None if titles is None else tuple(map(check_ae_title, titles))


def _at_least_one(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    check_count(value, name=attribute.name)


def _default_unassociated(settings: ServerSettings) -> int:
    # no validator has run yet
    check_count(settings.max_associations, name="max_associations")
    return max(512, settings.max_associations)


def _tls(_: object, __: object, value: ssl.SSLContext | None) -> None:
    check_ssl_context(value, server=True)


def _window(value: tuple[int, int] | None) -> tuple[int, int]:
    check_window(value)  # no validator: those come after the policy, which needs it
    return value or (1, 1)


def _chooses(_: object, __: object, value: object) -> None:
    if isinstance(value, type) or not callable(getattr(value, "choose", None)):
        raise LocalProtocolError(
            "transfer_syntax_preference is a TransferSyntaxPreference((uid, …)),"
            f" not {type(value).__name__}"
        )


def _can_be_announced(_: object, __: attrs.Attribute[int], value: int) -> None:
    check_max_pdu_length(value)


def _implementation(_: object, __: object, value: Implementation | None) -> None:
    check_implementation(value)


def _policy(settings: ServerSettings) -> Policy:
    handler = settings.handler
    policy = acceptance_policy(
        services_of(handler),
        settings.contexts,
        unknown_storage=settings.accept_unknown_storage,
        normalized=normalized_offer(handler),
        query_classes=query_classes(handler),
    )
    check_ready(handler)
    invoked, performed = settings.async_operations
    return attrs.evolve(
        policy,
        max_invoked=invoked,
        max_performed=performed,
        preference=settings.transfer_syntax_preference,
        query_options=declared_options(handler, "query_options", QueryOptions),
        storage_options=declared_options(handler, "storage_options", StorageOptions),
    )


@attrs.frozen(kw_only=True)
class ServerSettings:
    """The options with their defaults, and what follows from them.

    Raises:
        HandlerError: A handler's method does not have its protocol's signature.
        LocalProtocolError: An option cannot be.
    """

    handler: object
    ae_title: str | None = attrs.field(
        default=None, converter=attrs.converters.optional(check_ae_title)
    )
    accept_any_called_ae_title: bool = False
    calling_ae_titles: Collection[str] | None = attrs.field(default=None, converter=_titles)
    ignore_ae_title_case: bool = False
    contexts: Iterable[PresentationContext] | None = None
    implementation: Implementation | None = attrs.field(default=None, validator=_implementation)
    transfer_syntax_preference: TransferSyntaxPreference = attrs.field(
        default=REQUESTORS_ORDER, validator=_chooses
    )
    accept_unknown_storage: bool = False
    accept_invalid_uids: bool = False
    lenient_roles: bool = False
    strict: bool = False
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, validator=_tls)
    peers: Mapping[str, Destination] = attrs.field(default=None, converter=_destinations)
    on_mismatch: OnMismatch = attrs.field(default="error", converter=check_policy)
    max_associations: int = attrs.field(default=200, validator=_at_least_one)
    max_associations_per_peer: int = attrs.field(default=100, validator=_at_least_one)
    max_unassociated: int = attrs.field(
        default=attrs.Factory(_default_unassociated, takes_self=True), validator=_at_least_one
    )
    async_operations: tuple[int, int] = attrs.field(default=(1, 1), converter=_window)
    max_pdu_length: int = attrs.field(default=DEFAULT_MAX_PDU_LENGTH, validator=_can_be_announced)
    quick_ack: bool = True
    timeouts: Timeouts = attrs.field(default=None, converter=checked_timeouts)
    limits: Limits = attrs.field(default=None, converter=checked_limits)
    instruments: tuple[Instrument, ...] = attrs.field(default=(), converter=checked_instruments)
    policy: Policy = attrs.field(init=False, default=attrs.Factory(_policy, takes_self=True))

    def same_title(self, one: str, other: str) -> bool:
        """Whether two AE titles, without their padding, are the same one."""
        return one == other or (self.ignore_ae_title_case and one.upper() == other.upper())


def settings_of(handler: object, options: ServerOptions) -> ServerSettings:
    """The settings of a listener that is told these options.

    Raises:
        TypeError: There is no such option.
        HandlerError, LocalProtocolError: As `ServerSettings`.
    """
    known = ServerOptions.__annotations__
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise TypeError(f"open_server, serve and serve_stream have no option {name}{hint}")
    return ServerSettings(handler=handler, **options)
