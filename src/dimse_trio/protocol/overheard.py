"""What two sides say to each other, made out from the bytes of both, by one who only listens.

Bytes may be cut anywhere. Of a data set nothing is kept here, of a command set and a PDU what is
not whole yet, within the limits of an association's own sides. A direction that breaks the
protocol is not listened to any more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs

from .decode import decode_pdu_untrusted
from .errors import AbortReason, MalformedPDU, RemoteProtocolError
from .events import DataSetFragment, MessageReceived
from .fragments import Assembler
from .negotiation import Negotiated, outcome
from .pdus import PDU, PDV, AssociateAC, AssociateRQ, PDUType
from .upper_layer import (
    HEADER_LENGTH,
    MAX_ASSOCIATE_LENGTH,
    MAX_CONTROL_LENGTH,
    Role,
    guess_protocol,
)

_HEADER = struct.Struct(">BxL")
_PDV_HEADER = struct.Struct(">LBB")
_LONG = (PDUType.ASSOCIATE_RQ, PDUType.ASSOCIATE_AC)


@attrs.frozen
class NotUnderstood:
    """A direction's bytes break the protocol, or are of another; the rest of them is not read."""

    error: RemoteProtocolError


OverheardEvent = PDU | MessageReceived | DataSetFragment | NotUnderstood
"""P-DATA-TF comes as the messages in it."""


class Overheard:
    """One connection, and what was negotiated on it."""

    def __init__(self) -> None:
        self._directions = {role: _Direction() for role in Role}
        self._request: AssociateRQ | None = None
        self.negotiated: Negotiated | None = None
        """What was agreed, as the acceptor sees it; `None` before that."""

    def feed_untrusted(self, sender: Role, data: bytes | memoryview) -> Iterator[OverheardEvent]:
        """What is complete with these bytes of one side; never an error.

        Args:
            sender: The side, the one that has connected being the requestor.
            data: Its bytes. The fragments that come are views of them.
        """
        direction = self._directions[sender]
        if direction.lost:
            return
        try:
            for event in direction.feed_untrusted(memoryview(data)):
                if isinstance(event, AssociateRQ):
                    self._request = event
                elif isinstance(event, AssociateAC) and self._request is not None:
                    self.negotiated = outcome(self._request, event, requestor=False)
                yield event
        except RemoteProtocolError as error:
            direction.lost = True
            yield NotUnderstood(error)


class _Direction:
    """The bytes of one side, PDU by PDU, those of a P-DATA-TF as they come."""

    def __init__(self) -> None:
        self.lost = False
        self._assembler = Assembler()
        self._partial = bytearray()
        """A header or a control PDU's body, as far as it is there."""
        self._wanted = HEADER_LENGTH
        self._control: int | None = None
        """The PDU type whose body is awaited."""
        self._pdu_left = self._fragment_left = 0
        """Bytes of a P-DATA-TF, and of the PDV in it, that are still to come."""
        self._pdv = PDV(0, False, False, b"")

    def feed_untrusted(self, view: memoryview) -> Iterator[PDU | MessageReceived | DataSetFragment]:
        """Raises MalformedPDU, MalformedCommand, RemoteProtocolError."""
        while len(view):
            if self._fragment_left:
                chunk = view[: self._fragment_left]
                view = view[len(chunk) :]
                yield from self._fragment_untrusted(chunk)
                continue
            taken = view[: self._wanted - len(self._partial)]
            view = view[len(taken) :]
            self._partial += taken
            if len(self._partial) < self._wanted:
                return
            whole = bytes(self._partial)
            self._partial.clear()
            if self._control is not None:
                control, self._control, self._wanted = self._control, None, HEADER_LENGTH
                yield decode_pdu_untrusted(control, whole)
            elif self._pdu_left:
                yield from self._pdv_header_untrusted(whole)
            else:
                self._header_untrusted(whole)

    def _header_untrusted(self, header: bytes) -> None:
        pdu_type, length = _HEADER.unpack(header)
        if pdu_type == PDUType.P_DATA_TF:
            self._pdu_left = length
            return
        if pdu_type not in frozenset(PDUType):
            raise MalformedPDU(
                f"unrecognized PDU type {pdu_type:#04x}{guess_protocol(header)}",
                AbortReason.UNRECOGNIZED_PDU,
            )
        limit = MAX_ASSOCIATE_LENGTH if pdu_type in _LONG else MAX_CONTROL_LENGTH
        if not 0 < length <= limit:
            raise MalformedPDU(f"{PDUType(pdu_type).name} of {length} bytes; at most {limit}")
        self._control, self._wanted = pdu_type, length

    def _pdv_header_untrusted(
        self, header: bytes
    ) -> Iterator[PDU | MessageReceived | DataSetFragment]:
        length, context_id, control = _PDV_HEADER.unpack(header)
        if not 2 <= length <= self._pdu_left - 4:
            raise MalformedPDU(f"a PDV of {length} bytes in the last {self._pdu_left} of a PDU")
        self._pdu_left -= len(header)
        self._fragment_left = length - 2
        self._pdv = PDV(context_id, control & 1 == 1, control & 2 == 2, b"")
        if not self._fragment_left:
            yield from self._fragment_untrusted(memoryview(b""))

    def _fragment_untrusted(self, data: memoryview) -> Iterator[MessageReceived | DataSetFragment]:
        """Part of a PDV, which is taken for a PDV of its own."""
        self._fragment_left -= len(data)
        self._pdu_left -= len(data)
        last = self._pdv.is_last and not self._fragment_left
        event = self._assembler.feed_untrusted(attrs.evolve(self._pdv, is_last=last, data=data))
        if event is not None:
            yield event
