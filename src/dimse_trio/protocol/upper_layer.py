"""The upper layer of one association, sans I/O (PS3.8 §9).

The driver feeds bytes (`receive_data`, `receive_eof`), says when ARTIM has expired, and calls the
local primitives; after each call it writes `data_to_send()`, takes `next_event()` until that is
`None`, looks whether ARTIM is to run (`artim_starts`) and whether the transport connection is to be
closed (`close_transport`). Every change of state goes through `_process`, which walks Table 9-10.

After bytes that form no PDU the frame is lost: what follows is not read any more.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Callable

from .buffer import ReceiveBuffer
from .decode import decode_pdu_untrusted
from .encode import encode_pdu, pdata_header
from .errors import (
    AbortReason,
    AbortSource,
    LocalProtocolError,
    MalformedPDU,
    RemoteProtocolError,
)
from .events import (
    Aborted,
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    PDataReceived,
    ProviderAborted,
    Refused,
    ReleaseConfirmed,
    ReleaseRequested,
    UpperLayerEvent,
)
from .pdus import (
    APPLICATION_CONTEXT,
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    PDUType,
    ReleaseRP,
    ReleaseRQ,
)
from .state import EFFECTS, MAY_SEND_DATA, PASSES_DATA, TRANSITIONS, Effect, Event, State

HEADER_LENGTH = 6
_PDU_HEADER = struct.Struct(">BxL")
MAX_ASSOCIATE_LENGTH = 1 << 20
"""Longest A-ASSOCIATE-RQ/-AC taken, in bytes: 128 contexts with every transfer syntax and a large
identity token need far less; DCMTK draws the line at the same place."""
MAX_CONTROL_LENGTH = 128
"""Longest A-ASSOCIATE-RJ, A-RELEASE and A-ABORT taken, in bytes: the standard says 4."""
MAX_WARNINGS = 100
"""Faults of a peer that are warned of; a flood of them would be one of the log as well."""
MIN_PDATA_LIMIT = 1 << 20
"""P-DATA-TF up to this many bytes is taken even if we announced less: peers miscount."""


class Role(enum.Enum):
    """Which side asked for the association."""

    REQUESTOR = "requestor"
    ACCEPTOR = "acceptor"


class UpperLayer:
    """The protocol machine of one association.

    Args:
        role: Which side of the association this is.
        max_pdu_length: What this side announces as maximum length, in bytes; 0 is no limit, and a
            PDU is then still bounded by 2^31 bytes. P-DATA-TF longer than both this and 1 MiB is
            the peer's protocol error, seen at the header, before anything is allocated.
        strict: Whether faults of the peer that can be put up with end the association too.
    """

    def __init__(self, role: Role, *, max_pdu_length: int, strict: bool = False) -> None:
        self.role = role
        self.strict = strict
        self.state = State.IDLE
        self.artim_running = False
        self.artim_starts = 0
        self.close_transport = False
        self.warnings: deque[str] = deque()
        self.on_state: Callable[[State, State], None] | None = None
        """Told each change of state, before its effects."""
        self._tolerated = 0
        self._announced = max_pdu_length
        self._pdata_limit = max(max_pdu_length, MIN_PDATA_LIMIT) if max_pdu_length else 1 << 31
        self._warned_long_pdata = False
        self._buffer = ReceiveBuffer()
        self._frame_lost = False
        self._outgoing: list[bytes] = []
        self._events: deque[UpperLayerEvent] = deque()

    # -- towards the peer: local primitives ------------------------------------------------------

    def associate(self, request: AssociateRQ) -> None:
        """A-ASSOCIATE request, on a transport connection that is open (AE-1, AE-2)."""
        encode_pdu(request)  # or fail before Sta4, which has no way back
        self._process(Event.ASSOCIATE_REQUEST)
        self._process(Event.TRANSPORT_CONFIRM, request)

    def transport_connected(self) -> None:
        """Transport connection indication: a peer has connected (AE-5)."""
        self._process(Event.TRANSPORT_INDICATION)

    def accept(self, accept: AssociateAC) -> None:
        """A-ASSOCIATE response, accepted (AE-7)."""
        self._process(Event.ASSOCIATE_RESPONSE_ACCEPT, accept)

    def reject(self, reject: AssociateRJ) -> None:
        """A-ASSOCIATE response, rejected (AE-8)."""
        self._process(Event.ASSOCIATE_RESPONSE_REJECT, reject)

    def pdata_header(
        self, context_id: int, length: int, *, is_command: bool, is_last: bool
    ) -> bytes:
        """P-DATA request (DT-1, AR-7): what to write before a fragment of `length` bytes."""
        if self.state not in MAY_SEND_DATA:
            self._process(Event.P_DATA_REQUEST)
        return pdata_header(context_id, length, is_command=is_command, is_last=is_last)

    def release(self) -> None:
        """A-RELEASE request (AR-1)."""
        self._process(Event.RELEASE_REQUEST, ReleaseRQ())

    def respond_to_release(self) -> None:
        """A-RELEASE response (AR-4, AR-9)."""
        self._process(Event.RELEASE_RESPONSE, ReleaseRP())

    def abort(self) -> None:
        """A-ABORT request (AA-1, AA-2)."""
        self._process(Event.ABORT_REQUEST)

    def violated(self, error: RemoteProtocolError) -> None:
        """A layer above found the peer's data invalid: A-P-ABORT (Evt19)."""
        self._process(Event.INVALID_PDU, error=error)

    def tolerate(self, error: RemoteProtocolError) -> None:
        """A fault of the peer that can be put up with: a warning or, if strict, raised."""
        if self.strict:
            raise error
        self._tolerated += 1
        if self._tolerated <= MAX_WARNINGS:
            self.warnings.append(str(error))

    def artim_expired(self) -> None:
        """The driver's ARTIM timer ran out (Evt18)."""
        self._process(Event.ARTIM_EXPIRED)

    @property
    def has_data_to_send(self) -> bool:
        """Whether there is anything for `data_to_send`."""
        return bool(self._outgoing)

    def data_to_send(self) -> bytes:
        """The PDUs to write now, in order; the caller owns them from here on."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    # -- from the peer ---------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the transport. Views handed out before are invalid from here on."""
        if not self._frame_lost and self.state is not State.IDLE:
            self._buffer.append(data)

    def get_buffer(self, size: int) -> memoryview:
        """Where to receive up to `size` bytes, in place of `receive_data`; then `buffer_updated`.

        Views handed out before are invalid from here on.
        """
        return self._buffer.space(size)

    def buffer_updated(self, count: int) -> None:
        """So many bytes have been received into `get_buffer`."""
        if not self._frame_lost and self.state is not State.IDLE:
            self._buffer.filled(count)

    def receive_eof(self) -> None:
        """The peer closed the transport connection, or it broke (Evt17)."""
        if (Event.TRANSPORT_CLOSED, self.state) in TRANSITIONS:
            self._process(Event.TRANSPORT_CLOSED)

    def next_event(self) -> UpperLayerEvent | None:
        """The next event, or `None`: more bytes are needed."""
        while not self._events:
            if self._frame_lost or self.state is State.IDLE:
                return None
            try:
                received = self._next_pdu_untrusted()
            except MalformedPDU as error:
                self._frame_lost = True
                self._buffer.clear()
                self._process(Event.INVALID_PDU, error=error)
                continue
            if received is None:
                return None
            if isinstance(received, PDataTF) and self.state in PASSES_DATA:
                return PDataReceived(received.pdvs)
            self._process(self._event_of(received), received)
        return self._events.popleft()

    @property
    def receiving(self) -> bool:
        """Whether a PDU has begun to arrive but is not whole."""
        return len(self._buffer) > 0

    def _next_pdu_untrusted(self) -> PDU | None:
        header = self._buffer.peek(HEADER_LENGTH)
        if header is None:
            return None
        pdu_type, length = _PDU_HEADER.unpack(header)
        limit = self._length_limit(pdu_type, header)
        if length > limit:
            raise MalformedPDU(
                f"PDU type {pdu_type:#04x} claims {length} bytes, more than the {limit} taken"
            )
        if pdu_type == PDUType.P_DATA_TF and 0 < self._announced < length:
            self._warn_long_pdata(length)
        pdu = self._buffer.take(HEADER_LENGTH + length)
        if pdu is None:
            return None
        return decode_pdu_untrusted(pdu_type, pdu[HEADER_LENGTH:])

    def _length_limit(self, pdu_type: int, header: memoryview) -> int:
        if pdu_type == PDUType.P_DATA_TF:
            return self._pdata_limit
        if pdu_type in (PDUType.ASSOCIATE_RQ, PDUType.ASSOCIATE_AC):
            return MAX_ASSOCIATE_LENGTH
        if pdu_type in _PDU_TYPES:
            return MAX_CONTROL_LENGTH
        raise MalformedPDU(
            f"unrecognized PDU type {pdu_type:#04x}{guess_protocol(bytes(header))}",
            AbortReason.UNRECOGNIZED_PDU,
        )

    def _warn_long_pdata(self, length: int) -> None:
        if not self._warned_long_pdata:
            self._warned_long_pdata = True
            self.tolerate(
                MalformedPDU(
                    f"P-DATA-TF of {length} bytes is longer than the announced {self._announced}"
                )
            )

    def _event_of(self, pdu: PDU) -> Event:
        if isinstance(pdu, ReleaseRQ):
            if self.role is Role.REQUESTOR:
                return Event.RELEASE_RQ_PDU_TO_REQUESTOR
            return Event.RELEASE_RQ_PDU_TO_ACCEPTOR
        if isinstance(pdu, AssociateRQ) and _reject_reason(pdu) is not None:
            return Event.ASSOCIATE_RQ_PDU_UNACCEPTABLE
        return _EVENT_OF_PDU[type(pdu)]

    # -- the one driver of the table -------------------------------------------------------------

    def _process(
        self, event: Event, pdu: PDU | None = None, *, error: RemoteProtocolError | None = None
    ) -> None:
        """Move the state by one event and carry out the action's effects."""
        try:
            action, next_state = TRANSITIONS[event, self.state]
        except KeyError:
            raise LocalProtocolError(
                f"{event.name} is not possible in {self.state.value} ({self.state.name})"
            ) from None
        effects = EFFECTS[action]
        encoded = b""
        if Effect.SEND_PDU in effects and pdu is not None:  # a P-DATA request writes its own
            encoded = encode_pdu(pdu)  # before the state moves: what cannot be encoded is no event
        before, self.state = self.state, next_state
        if self.on_state is not None and before is not next_state:
            self.on_state(before, next_state)
        if next_state is State.IDLE:
            self._buffer.clear()
        if Effect.SEND_PROVIDER_ABORT in effects and error is None:
            error = RemoteProtocolError(
                f"{event.name} in {before.value} ({before.name})", AbortReason.UNEXPECTED_PDU
            )
        for effect in effects:
            self._carry_out(effect, pdu, encoded, error)
        if before is State.AWAITING_REQUEST and next_state is State.AWAITING_CLOSE:
            self._events.append(Refused(error or RemoteProtocolError(_why_refused(event, pdu))))

    def _carry_out(
        self, effect: Effect, pdu: PDU | None, encoded: bytes, error: RemoteProtocolError | None
    ) -> None:
        match effect:
            case Effect.SEND_PDU:
                if encoded:
                    self._outgoing.append(encoded)
            case Effect.SEND_REJECT:
                assert isinstance(pdu, AssociateRQ)
                reject = _reject_reason(pdu)
                assert reject is not None
                self._outgoing.append(encode_pdu(reject))
            case Effect.SEND_USER_ABORT:
                self._outgoing.append(encode_pdu(Abort(AbortSource.SERVICE_USER, 0)))
            case Effect.SEND_PROVIDER_ABORT:
                assert error is not None
                abort = Abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)
                self._outgoing.append(encode_pdu(abort))
            case Effect.INDICATE:
                assert pdu is not None
                self._events.append(self._indication(pdu))
            case Effect.INDICATE_PROVIDER_ABORT:
                self._events.append(ProviderAborted(error))
            case Effect.START_ARTIM:
                self.artim_running = True
                self.artim_starts += 1
            case Effect.STOP_ARTIM:
                self.artim_running = False
            case Effect.CLOSE_TRANSPORT:
                self.close_transport = True

    def _indication(self, pdu: PDU) -> UpperLayerEvent:
        match pdu:
            case PDataTF():
                return PDataReceived(pdu.pdvs)
            case AssociateRQ():
                return AssociateRequested(pdu)
            case AssociateAC():
                return AssociateAccepted(pdu)
            case AssociateRJ():
                return AssociateRejected(pdu)
            case ReleaseRQ():
                return ReleaseRequested(collision=self.state is not State.AWAITING_LOCAL_RELEASE)
            case ReleaseRP():
                return ReleaseConfirmed()
            case Abort():
                return Aborted(pdu.source, pdu.reason)


def _reject_reason(request: AssociateRQ) -> AssociateRJ | None:
    """Why the service-provider itself refuses a request, if it does (PS3.8 Table 9-21)."""
    if not request.protocol_version & 1:
        return AssociateRJ(result=1, source=2, reason=2)
    if request.application_context != APPLICATION_CONTEXT:
        return AssociateRJ(result=1, source=1, reason=2)
    return None


def _why_refused(event: Event, pdu: PDU | None) -> str:
    """What was wrong with a connection's first PDU, for the log."""
    if isinstance(pdu, AssociateRQ):
        return (
            f"A-ASSOCIATE-RQ with protocol version {pdu.protocol_version} and application context"
            f" {pdu.application_context!r}"
        )
    return f"{event.name} before an A-ASSOCIATE-RQ"


def guess_protocol(header: bytes) -> str:
    """What a peer that does not speak DICOM may be speaking, for the error message."""
    if header[0] == 0x16 and header[1] == 0x03:
        return ": this is a TLS handshake; is this port meant to be plain?"
    if header[0] == 0x15 and header[1] == 0x03:
        return ": this is a TLS alert; the peer expects TLS"
    if header[:4] in (b"GET ", b"POST", b"HEAD", b"PUT ", b"HTTP", b"OPTI"):
        return ": this is HTTP"
    if header[:4] == b"\x0bMSH":
        return ": this is HL7 (MLLP)"
    return ""


_PDU_TYPES = frozenset(PDUType)
_EVENT_OF_PDU: dict[type, Event] = {
    AssociateRQ: Event.ASSOCIATE_RQ_PDU,
    AssociateAC: Event.ASSOCIATE_AC_PDU,
    AssociateRJ: Event.ASSOCIATE_RJ_PDU,
    PDataTF: Event.P_DATA_TF_PDU,
    ReleaseRP: Event.RELEASE_RP_PDU,
    Abort: Event.ABORT_PDU,
}
