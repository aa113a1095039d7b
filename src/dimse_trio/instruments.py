"""Watching associations: subclass `Instrument`, override the hooks that are of interest.

The hooks are those of `trio.abc.Instrument` in spirit: synchronous, called in the task in which the
thing happens, and only those that are overridden cost anything. Each is given one frozen value.
What may hold patient data is in no value's repr: data sets, bytes, whole messages (an error comment
is free text), SOP Instance UIDs. State names and PDU types are PS3.8's.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterable
from difflib import get_close_matches
from typing import cast

import attrs

from .errors import AssociationClosed, AssociationError, AssociationRejected, LocalProtocolError
from .protocol.messages import CGetRQ, CMoveRQ, CStoreRQ, Message, Request, Response
from .protocol.negotiation import AcceptedContext, Negotiated
from .protocol.pdus import PDUType
from .protocol.state import State
from .protocol.status import Status
from .protocol.upper_layer import Role

__all__ = [
    "AssociationEnd",
    "AssociationInfo",
    "AssociationRefusal",
    "ConnectionEnd",
    "ConnectionInfo",
    "MessageInfo",
    "OperationEnd",
    "OperationInfo",
    "OperationRole",
    "PDUInfo",
    "PDUType",
    "Role",
    "State",
    "StateChange",
    "WireData",
]

Address = tuple[str, int]


@attrs.frozen(eq=False)
class ConnectionInfo:
    """A transport connection; the same value in all that is said about it.

    Attributes:
        number: Counts this process's connections, from 1.
        role: Which side of the association this is.
        local_address: Host and port of this side, where the stream has them.
        peer_address: Those of the peer.
        tls: The version of TLS, such as "TLSv1.3"; `None` without.
    """

    number: int
    role: Role
    local_address: Address | None
    peer_address: Address | None
    tls: str | None = None


@attrs.frozen
class ConnectionEnd:
    """A connection has been closed.

    Attributes:
        connection: Which one.
        duration: For how many seconds it was there.
        bytes_sent: Bytes of DICOM that were written, before TLS.
        bytes_received: Bytes of DICOM that were read, after TLS.
        error: Why this side gave it up, where it did.
    """

    connection: ConnectionInfo
    duration: float
    bytes_sent: int
    bytes_received: int
    error: AssociationError | None


@attrs.frozen(eq=False)
class AssociationInfo:
    """An association that has been accepted; the same value in all that is said about it.

    Attributes:
        connection: What it goes over.
        called_ae_title: As the requestor wrote it.
        calling_ae_title: As the requestor wrote it.
        negotiated: What was agreed. Not in the repr: it can hold the answer to a user identity.
        parent: The operation in whose handler it was opened, such as the C-MOVE whose instances go
            over it.
    """

    connection: ConnectionInfo
    called_ae_title: str
    calling_ae_title: str
    negotiated: Negotiated = attrs.field(repr=False)
    parent: OperationInfo | None = attrs.field(default=None, repr=False)


@attrs.frozen
class AssociationEnd:
    """An association is over.

    Attributes:
        association: Which one.
        error: How: `AssociationClosed` after a release, else what broke it.
        duration: For how many seconds it was there.
    """

    association: AssociationInfo
    error: AssociationError
    duration: float

    @property
    def released(self) -> bool:
        """Whether it ended by A-RELEASE."""
        return isinstance(self.error, AssociationClosed)


@attrs.frozen
class AssociationRefusal:
    """An association was rejected: by the peer where this side is the requestor, else by us.

    Attributes:
        connection: What it was asked for over.
        called_ae_title: As the requestor wrote it.
        calling_ae_title: As the requestor wrote it.
        result: 1 permanent, 2 transient (PS3.8 Table 9-21).
        source: Who says so, as a number of that table.
        reason: Why, as a number of that table.
    """

    connection: ConnectionInfo
    called_ae_title: str
    calling_ae_title: str
    result: int
    source: int
    reason: int

    @property
    def why(self) -> AssociationRejected:
        """The same in words."""
        return AssociationRejected(
            self.result,
            self.source,
            self.reason,
            called=self.called_ae_title,
            calling=self.calling_ae_title,
        )


@attrs.frozen
class StateChange:
    """The protocol machine of a connection has moved (PS3.8 Table 9-10)."""

    connection: ConnectionInfo
    before: State
    after: State


@attrs.frozen
class WireData:
    """Bytes as they are written or have been read, TLS apart.

    Attributes:
        connection: Over which connection.
        data: The bytes; a view is valid only during the hook. Not in the repr.
    """

    connection: ConnectionInfo
    data: bytes | memoryview = attrs.field(repr=False)


@attrs.frozen
class PDUInfo:
    """A whole PDU.

    Attributes:
        connection: Over which connection.
        pdu_type: Which of the seven.
        length: Its PDU-length: bytes after the first six.
    """

    connection: ConnectionInfo
    pdu_type: PDUType
    length: int


@attrs.frozen
class MessageInfo:
    """A DIMSE message.

    Attributes:
        association: On which association.
        context: In which presentation context.
        name: Such as "C-FIND-RSP".
        message_id: Its Message ID or, of a response and C-CANCEL, that which it responds to.
        status: Of a response.
        data_set_length: Bytes of its data set; `None` if it has none.
        message: The whole command set. Not in the repr.
        data_set: The data set, for instruments with a `data_set_limit`. Not in the repr.
    """

    association: AssociationInfo
    context: AcceptedContext
    name: str
    message_id: int
    status: Status | None
    data_set_length: int | None
    message: Message = attrs.field(repr=False)
    data_set: bytes | None = attrs.field(default=None, repr=False)


class OperationRole(enum.Enum):
    """What this side is in an operation (PS3.7 §7.1)."""

    INVOKED = "invoked"
    PERFORMED = "performed"


@attrs.frozen(eq=False)
class OperationInfo:
    """A request on its way to its final response; the same value in all that is said about it.

    Attributes:
        association: On which association.
        context: In which presentation context.
        role: Whether this side invokes or performs it.
        name: Such as "C-FIND".
        message_id: Its Message ID.
        request: The whole command set. Not in the repr.
        parent: The operation that this one is for: the C-GET or C-MOVE of a sub-operation, or that
            whose handler has asked for it.
    """

    association: AssociationInfo
    context: AcceptedContext
    role: OperationRole
    name: str
    message_id: int
    request: Request = attrs.field(repr=False)
    parent: OperationInfo | None = attrs.field(default=None, repr=False)

    @property
    def sop_class_uid(self) -> str:
        """The SOP class that it is about: of the request, or of its presentation context."""
        named: str | None = getattr(self.request, "affected_sop_class_uid", None)
        named = named or getattr(self.request, "requested_sop_class_uid", None)
        return named or self.context.abstract_syntax

    @property
    def is_sub_operation(self) -> bool:
        """Whether it is a C-STORE of a C-GET or C-MOVE (PS3.4 §C.4.2, §C.4.3)."""
        retrieve = None if self.parent is None else self.parent.request
        return isinstance(self.request, CStoreRQ) and isinstance(retrieve, CGetRQ | CMoveRQ)


@attrs.frozen
class OperationEnd:
    """An operation is over: answered finally, or its association is gone.

    Attributes:
        operation: Which one.
        status: Of the final response; `None` if there was none.
        cancelled: Whether C-CANCEL was sent for it.
        pending: How many pending responses there were.
        bytes_sent: Bytes of data sets that were sent in its messages.
        bytes_received: Bytes of data sets that were received in them.
        duration: Seconds from the request to here.
        response: The final response. Not in the repr.
        error: What ended the association, if that came first.
    """

    operation: OperationInfo
    status: Status | None
    cancelled: bool
    pending: int
    bytes_sent: int
    bytes_received: int
    duration: float
    response: Response | None = attrs.field(default=None, repr=False)
    error: AssociationError | None = None


class Instrument:
    """Override what is of interest; every hook here does nothing.

    A method whose name is nearly a hook's is refused when the instrument is given to something.
    Hooks are called in the midst of things: they must return soon, and cannot be asynchronous. One
    that raises is logged with its traceback, and its instrument switched off for good; the
    association takes no notice. An instrument may serve any number of associations, one after
    another and at once, of one thread.

    Attributes:
        data_set_limit: `MessageInfo.data_set` has data sets of up to so many bytes. 0, the default,
            is none: they are the patients'.
    """

    data_set_limit: int = 0
    _switched_off = False

    def connection_opened(self, connection: ConnectionInfo, /) -> None:
        """A transport connection is there, its TLS handshake done."""

    def connection_closed(self, end: ConnectionEnd, /) -> None:
        """It has been closed: the last that is said about it."""

    def state_changed(self, change: StateChange, /) -> None:
        """The protocol machine has moved; what that sends and says follows."""

    def bytes_sent(self, sent: WireData, /) -> None:
        """Whole PDUs are being given to the connection, before it can be known to take them."""

    def bytes_received(self, received: WireData, /) -> None:
        """Bytes have arrived, cut anywhere, before the protocol machine sees them."""

    def pdu_sent(self, pdu: PDUInfo, /) -> None:
        """As `bytes_sent`, for each PDU."""

    def pdu_received(self, pdu: PDUInfo, /) -> None:
        """The last byte of a PDU has arrived; nobody has looked whether it is valid."""

    def association_opened(self, association: AssociationInfo, /) -> None:
        """An association has been accepted, by either side."""

    def association_rejected(self, refusal: AssociationRefusal, /) -> None:
        """An association has been rejected, by either side."""

    def association_closed(self, end: AssociationEnd, /) -> None:
        """An association is over; its operations have been finished before."""

    def message_sent(self, message: MessageInfo, /) -> None:
        """A message is about to be sent."""

    def message_received(self, message: MessageInfo, /) -> None:
        """A message has been received, with all of its data set."""

    def operation_started(self, operation: OperationInfo, /) -> None:
        """A request is about to be sent, or its command set has been received."""

    def operation_performing(self, operation: OperationInfo, /) -> None:
        """The task that performs an operation begins: what is put in context variables here, the
        handler has.
        """

    def operation_finished(self, end: OperationEnd, /) -> None:
        """The final response has been received or is about to be sent, or there will be none."""

    def sub_operation_started(self, operation: OperationInfo, /) -> None:
        """As `operation_started`, in its place, for the C-STOREs of a C-GET or C-MOVE."""

    def sub_operation_finished(self, end: OperationEnd, /) -> None:
        """As `operation_finished`, in its place, for the C-STOREs of a C-GET or C-MOVE."""


def checked_instruments(instruments: Iterable[Instrument]) -> tuple[Instrument, ...]:
    """The instruments.

    Raises:
        LocalProtocolError: One of them is none, or has a hook that would not be called.
    """
    if not isinstance(cast("object", instruments), Iterable):
        raise LocalProtocolError(
            f"instruments are several: write instruments=[…], not {type(instruments).__name__}(…)"
        )
    given = tuple(instruments)
    for instrument in cast("tuple[object, ...]", given):
        if isinstance(instrument, type) and Instrument in instrument.__mro__:
            name = instrument.__name__
            raise LocalProtocolError(f"instruments has the class {name}: give an object, {name}()")
        if not isinstance(instrument, Instrument):
            raise LocalProtocolError(
                f"instruments has a {type(instrument).__name__}: make it a subclass of Instrument,"
                " and give an object of it"
            )
        _check_hooks(instrument)
        limit = cast("object", instrument.data_set_limit)
        if not isinstance(limit, int | float):
            raise LocalProtocolError(f"data_set_limit is a number of bytes, not {limit!r}")
    return given


_HOOKS = tuple(
    name for name, hook in vars(Instrument).items() if callable(hook) and not name.startswith("_")
)


def _check_hooks(instrument: Instrument) -> None:
    """Refuse hooks that would not be called, or not as they were meant."""
    kind = type(instrument)
    for name in (name for name in dir(kind) if not name.startswith("_")):
        method = getattr(kind, name)
        where = f"{kind.__name__}.{name}"
        if name not in _HOOKS:
            bare = name.removeprefix("on_")
            if callable(method) and (near := get_close_matches(bare, _HOOKS, n=1, cutoff=0.85)):
                raise LocalProtocolError(
                    f"{where} is no hook, and nothing calls it; did you mean {near[0]}?"
                )
        elif method is not getattr(Instrument, name):
            if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
                raise LocalProtocolError(f"{where} cannot be asynchronous: hooks are plain methods")
            try:
                inspect.signature(getattr(instrument, name)).bind(object())
            except TypeError:
                raise LocalProtocolError(f"{where} must take one argument beside self") from None
