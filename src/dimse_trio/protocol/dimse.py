"""The DIMSE layer of one association, sans I/O, on top of its `UpperLayer` (PS3.7 §6 to §10).

It turns P-DATA indications into messages and fragments of data sets, keeps the table of operations
that this side has invoked and that the peer has, and hands out Message IDs. A fault in what the
peer sent becomes an A-P-ABORT here; the driver only ever sees events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

import attrs

from .errors import AbortReason, LocalProtocolError, RemoteProtocolError
from .events import (
    AssociateAccepted,
    AssociateRequested,
    DimseEvent,
    MessageReceived,
    PDataReceived,
)
from .fragments import DEFAULT_MAX_COMMAND_LENGTH, Assembler, fragment_length, split
from .messages import CCancelRQ, Message, Request, Response, encode_command
from .negotiation import Negotiated, doubts, outcome
from .pdus import AssociateAC, AssociateRJ, AssociateRQ
from .upper_layer import Role, UpperLayer

MAX_MESSAGE_ID = 0xFFFF

REPOSITORY_QUERY = "1.2.840.10008.5.1.4.1.1.201.6"
LIMIT_REACHED = 0xB001
"""Matching reached response limit, of a repository query (PS3.4 §C.6.4)."""


@attrs.define
class Invoked:
    """An operation that this side has requested and that has not had its final response."""

    request: Request
    context_id: int
    cancel_sent: bool = False


class DimseConnection:
    """One association's protocol: the upper layer, messages, and the operations under way.

    Args:
        role: As of `UpperLayer`.
        max_pdu_length: As of `UpperLayer`.
        max_command_length: Longest command set taken from the peer, in bytes.
        strict: As of `UpperLayer`.
    """

    def __init__(
        self,
        role: Role,
        *,
        max_pdu_length: int,
        max_command_length: int = DEFAULT_MAX_COMMAND_LENGTH,
        strict: bool = False,
    ) -> None:
        self.upper_layer = UpperLayer(role, max_pdu_length=max_pdu_length, strict=strict)
        self.invoked: dict[int, Invoked] = {}
        self.performing: dict[int, Request] = {}
        self._assembler = Assembler(max_command_length)
        self._pdvs: deque[DimseEvent] = deque()
        self._request: AssociateRQ | None = None
        self._negotiated: Negotiated | None = None
        self._last_message_id = 0

    @property
    def negotiated(self) -> Negotiated:
        """What was agreed; only after acceptance."""
        if self._negotiated is None:
            raise LocalProtocolError("the association has not been accepted")
        return self._negotiated

    # -- association -----------------------------------------------------------------------------

    def associate(self, request: AssociateRQ) -> None:
        self.upper_layer.associate(request)
        self._request = request

    def accept(self, accept: AssociateAC, *, implied_scp: Collection[str] = ()) -> None:
        """Accept; of the classes in `implied_scp` the requestor is the SCP without saying so."""
        self.upper_layer.accept(accept)
        assert self._request is not None
        self._negotiated = outcome(self._request, accept, requestor=False, implied_scp=implied_scp)

    def reject(self, reject: AssociateRJ) -> None:
        self.upper_layer.reject(reject)

    # -- sending ---------------------------------------------------------------------------------

    def next_message_id(self) -> int:
        """A Message ID from 1 to 65535 that no outstanding operation has (PS3.7 §9.1)."""
        for _ in range(MAX_MESSAGE_ID):
            self._last_message_id = self._last_message_id % MAX_MESSAGE_ID + 1
            if self._last_message_id not in self.invoked:
                return self._last_message_id
        raise LocalProtocolError("65535 operations are outstanding")

    def command_pdus(self, context_id: int, message: Message, *, has_data_set: bool) -> bytes:
        """The P-DATA-TF PDUs of a command set; from here on the operation is outstanding.

        If `has_data_set`, those of the data set must follow before any other message.
        """
        command = encode_command(message, has_data_set=has_data_set)
        header = self.upper_layer.pdata_header
        pdus = b"".join(
            header(context_id, len(fragment), is_command=True, is_last=last) + fragment
            for fragment, last in split(command, self.fragment_length)
        )
        match message:
            case Request():
                self.invoked[message.message_id] = Invoked(message, context_id)
            case CCancelRQ():
                operation = self.invoked.get(message.message_id_being_responded_to)
                if operation is not None:
                    operation.cancel_sent = True
            case Response() if not message.status.is_pending:
                self.performing.pop(message.message_id_being_responded_to, None)
            case _:
                pass
        return pdus

    def data_set_pdus(
        self, context_id: int, data: bytes | memoryview, *, is_last: bool
    ) -> Iterator[tuple[bytes, memoryview]]:
        """Header and fragment of each P-DATA-TF for the next part of a data set.

        A part that is not the last must be a multiple of `fragment_length` long, which is even. A
        data set of odd length, which the standard does not allow, gets a NUL.
        """
        for fragment, last in split(data, self.fragment_length):
            if last and is_last and len(fragment) % 2:
                fragment = memoryview(bytes(fragment) + b"\0")
            yield (
                self.upper_layer.pdata_header(
                    context_id, len(fragment), is_command=False, is_last=last and is_last
                ),
                fragment,
            )

    @property
    def fragment_length(self) -> int:
        """Bytes of a message that go into one P-DATA-TF: even, and as the peer will receive."""
        return fragment_length(self.negotiated.max_pdu_length)

    # -- receiving -------------------------------------------------------------------------------

    @property
    def receiving(self) -> bool:
        """Whether a PDU, or a message in several of them, has begun to arrive but is not whole."""
        return self.upper_layer.receiving or not self._assembler.idle

    def next_event(self) -> DimseEvent | None:
        """The next event, or `None`: more bytes are needed."""
        while not self._pdvs:
            event = self.upper_layer.next_event()
            if not isinstance(event, PDataReceived):
                match event:
                    case AssociateRequested():
                        self._request = event.request
                    case AssociateAccepted():
                        assert self._request is not None
                        self._negotiated = outcome(self._request, event.accept, requestor=True)
                        self.upper_layer.warnings.extend(doubts(self._request, event.accept))
                    case _:
                        pass
                return event
            try:
                self._receive_untrusted(event)
            except RemoteProtocolError as error:
                self.upper_layer.violated(error)
        return self._pdvs.popleft()

    def _receive_untrusted(self, event: PDataReceived) -> None:
        if not event.pdvs:
            self.upper_layer.tolerate(RemoteProtocolError("P-DATA-TF without a PDV"))
        for pdv in event.pdvs:
            received = self._assembler.feed_untrusted(pdv)
            if isinstance(received, MessageReceived):
                self._register_untrusted(received)
            if received is not None:
                self._pdvs.append(received)

    def _register_untrusted(self, received: MessageReceived) -> None:
        """Check a whole command against the association and keep the tables of operations."""
        if received.context_id not in self.negotiated.accepted:
            raise RemoteProtocolError(
                f"{received.message.name} on presentation context {received.context_id},"
                " which was not accepted",
                AbortReason.UNEXPECTED_PDU_PARAMETER,
            )
        match received.message:
            case Request() as request:
                if request.message_id in self.performing:
                    raise RemoteProtocolError(
                        f"{request.name} with Message ID {request.message_id},"
                        " whose operation is still being performed",
                        AbortReason.UNEXPECTED_PDU_PARAMETER,
                    )
                window = self.negotiated.max_performed
                if window and len(self.performing) >= window:
                    raise RemoteProtocolError(
                        f"{request.name} while {len(self.performing)} operations are being"
                        f" performed; the asynchronous operations window is {window}",
                        AbortReason.UNEXPECTED_PDU_PARAMETER,
                    )
                self.performing[request.message_id] = request
            case Response() as response:
                self._register_response_untrusted(response)
            case _:
                pass

    def _register_response_untrusted(self, response: Response) -> None:
        message_id = response.message_id_being_responded_to
        operation = self.invoked.get(message_id)
        if operation is None or not isinstance(response, operation.request.response):
            self.upper_layer.tolerate(
                RemoteProtocolError(
                    f"{response.name} with Message ID {message_id} to no request of ours",
                    AbortReason.UNEXPECTED_PDU_PARAMETER,
                )
            )
        elif not response.status.is_pending and not self._may_be_repeated(response, operation):
            del self.invoked[message_id]

    def _may_be_repeated(self, response: Response, operation: Invoked) -> bool:
        """Whether another final response may follow this one.

        A repository query that reached its limit ends with B001H; some SCPs send 0000H after it.
        Its Message ID is not used again.
        """
        context = self.negotiated.accepted[operation.context_id]
        return context.abstract_syntax == REPOSITORY_QUERY and response.status == LIMIT_REACHED
