"""What happens on one connection, told to its instruments. Without instruments there is none of it.

The link tells what it does; operations are derived from the messages that go by: a request begins
one, its final response or the end of the association ends it (PS3.7 §6.2).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from contextvars import ContextVar

import attrs
import trio

from .errors import AssociationAborted, AssociationError
from .instruments import (
    Address,
    AssociationEnd,
    AssociationInfo,
    AssociationRefusal,
    ConnectionEnd,
    ConnectionInfo,
    Instrument,
    MessageInfo,
    OperationEnd,
    OperationInfo,
    OperationRole,
    PDUInfo,
    StateChange,
    WireData,
)
from .protocol.events import (
    AssociateRejected,
    AssociateRequested,
    DataSetFragment,
    DimseEvent,
    MessageReceived,
)
from .protocol.headers import PDUHeaders
from .protocol.messages import CCancelRQ, CGetRQ, CStoreRQ, Message, Request, Response
from .protocol.negotiation import AcceptedContext, Negotiated
from .protocol.pdus import AssociateRJ, AssociateRQ
from .protocol.state import State
from .protocol.upper_layer import Role, UpperLayer

logger = logging.getLogger("dimse_trio")

_HOOKS = {name: value for name, value in vars(Instrument).items() if callable(value)}
_numbers = itertools.count(1)
_performing: ContextVar[OperationInfo | None] = ContextVar("dimse_trio performing", default=None)
"""The operation whose handler the task runs, or runs for."""

Buffer = bytes | memoryview


@attrs.define
class _Running:
    """An operation under way, and what has been counted of it."""

    info: OperationInfo
    began: float
    pending: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    cancelled: bool = False


@attrs.define
class _Arriving:
    """A message whose data set has begun to arrive, with its bytes as long as they are wanted."""

    context: AcceptedContext
    message: Message
    length: int = 0
    data: bytearray | None = None


class Observer:
    """See the module. One for each connection that has instruments.

    Args:
        instruments: Who is told.
        role: Which side of the association this is.
        addresses: Of this side and the peer.
        tls: The version of TLS.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        role: Role,
        addresses: tuple[Address | None, Address | None],
        tls: str | None,
    ) -> None:
        self._listeners = {
            name: [i for i in instruments if getattr(type(i), name) is not unused]
            for name, unused in _HOOKS.items()
        }
        self._data_set_limit = max(instrument.data_set_limit for instrument in instruments)
        self._began = trio.current_time()
        self._bytes_sent = self._bytes_received = 0
        self._pdus_sent, self._pdus_received = PDUHeaders(), PDUHeaders()
        self._request: AssociateRQ | None = None
        self._association: AssociationInfo | None = None
        self._associated = self._began
        self._invoked: dict[int, _Running] = {}
        self._performed: dict[int, _Running] = {}
        self._arriving: _Arriving | None = None
        self._connection = ConnectionInfo(next(_numbers), role, *addresses, tls)
        self._tell("connection_opened", self._connection)

    def _tell(self, hook: str, value: object) -> None:
        """Call a hook where it is overridden; who raises is not called again."""
        for instrument in self._listeners[hook]:
            if instrument._switched_off:  # pyright: ignore[reportPrivateUsage]
                continue
            told = value
            if isinstance(value, MessageInfo) and value.data_set is not None:
                limit = instrument.data_set_limit
                if not limit or len(value.data_set) > limit:  # another one has asked for it
                    told = attrs.evolve(value, data_set=None)
            try:
                getattr(instrument, hook)(told)
            except Exception:
                object.__setattr__(instrument, "_switched_off", True)
                logger.exception(
                    "%s.%s raised; the instrument is switched off", type(instrument).__name__, hook
                )

    def watch(self, upper_layer: UpperLayer) -> Tap:
        """Watch the protocol machine; what the transport is to receive into in its place."""
        if self._listeners["state_changed"]:
            upper_layer.on_state = self._state_changed
        return Tap(self, upper_layer)

    def _state_changed(self, before: State, after: State) -> None:
        self._tell("state_changed", StateChange(self._connection, before, after))

    # -- bytes -----------------------------------------------------------------------------------

    def sent(self, buffers: Sequence[Buffer]) -> None:
        """Whole PDUs are about to be written."""
        self._bytes_sent += sum(map(len, buffers))
        if self._listeners["bytes_sent"]:
            data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
            self._tell("bytes_sent", WireData(self._connection, data))
        if self._listeners["pdu_sent"]:
            for buffer in buffers:
                self._tell_pdus("pdu_sent", self._pdus_sent, buffer)

    def received(self, data: Buffer) -> None:
        """Bytes have arrived."""
        self._bytes_received += len(data)
        if self._listeners["bytes_received"]:
            self._tell("bytes_received", WireData(self._connection, data))
        if self._listeners["pdu_received"]:
            self._tell_pdus("pdu_received", self._pdus_received, data)

    def _tell_pdus(self, hook: str, headers: PDUHeaders, data: Buffer) -> None:
        for pdu_type, length in headers.feed_untrusted(data):
            self._tell(hook, PDUInfo(self._connection, pdu_type, length))

    # -- association -----------------------------------------------------------------------------

    def requested(self, request: AssociateRQ) -> None:
        """An association has been asked for."""
        self._request = request

    def rejected(self, reject: AssociateRJ) -> None:
        """An association has been rejected."""
        request = self._request
        if request is None:
            return
        refusal = AssociationRefusal(
            self._connection,
            request.called_ae_title,
            request.calling_ae_title,
            reject.result,
            reject.source,
            reject.reason,
        )
        self._tell("association_rejected", refusal)

    def associated(self, negotiated: Negotiated) -> None:
        """An association has been accepted."""
        self._associated = trio.current_time()
        requestor = self._connection.role is Role.REQUESTOR
        self._association = AssociationInfo(
            self._connection,
            negotiated.called_ae_title,
            negotiated.calling_ae_title,
            negotiated,
            parent=_performing.get() if requestor else None,
        )
        self._tell("association_opened", self._association)

    def ended(self, error: AssociationError) -> None:
        """The association, if there is one, is over, and so is all that was under way."""
        if self._association is None:
            return
        for table in (self._performed, self._invoked):
            for running in list(table.values()):
                self._finish(running, None, error)
            table.clear()
        duration = trio.current_time() - self._associated
        self._tell("association_closed", AssociationEnd(self._association, error, duration))
        self._association = None

    def closed(self, failure: AssociationError | None) -> None:
        """The connection has been closed."""
        self.ended(failure or AssociationAborted("this side gave the association up"))
        end = ConnectionEnd(
            self._connection,
            trio.current_time() - self._began,
            self._bytes_sent,
            self._bytes_received,
            failure,
        )
        self._tell("connection_closed", end)

    # -- messages --------------------------------------------------------------------------------

    def event(self, event: DimseEvent) -> None:
        """The protocol machine says something, before anybody acts on it."""
        match event:
            case DataSetFragment(data=data, is_last=is_last):
                self._fragment(data, is_last)
            case MessageReceived(context_id=context_id, message=message):
                self._message_received(context_id, message, event.has_data_set)
            case AssociateRequested(request=request):
                self.requested(request)
            case AssociateRejected(reject=reject):
                self.rejected(reject)
            case _:
                pass

    def _message_received(self, context_id: int, message: Message, has_data_set: bool) -> None:
        if self._association is None:
            return
        context = self._association.negotiated.accepted[context_id]
        if isinstance(message, Request):
            parent = self._retrieving() if isinstance(message, CStoreRQ) else None
            self._start(self._performed, OperationRole.PERFORMED, context, message, parent)
        if has_data_set:
            data = bytearray() if self._data_set_limit else None
            self._arriving = _Arriving(context, message, data=data)
        else:
            self._tell_message("message_received", context, message, None, None)
            self._received_whole(message, 0)

    def _fragment(self, data: Buffer, is_last: bool) -> None:
        if (arriving := self._arriving) is None:
            return
        arriving.length += len(data)
        if arriving.data is not None:
            if arriving.length <= self._data_set_limit:
                arriving.data += data
            else:
                arriving.data = None
        if is_last:
            self._arriving = None
            whole = None if arriving.data is None else bytes(arriving.data)
            self._tell_message(
                "message_received", arriving.context, arriving.message, arriving.length, whole
            )
            self._received_whole(arriving.message, arriving.length)

    def _received_whole(self, message: Message, length: int) -> None:
        match message:
            case Request(message_id=message_id):
                if (performed := self._performed.get(message_id)) is not None:
                    performed.bytes_received += length
            case Response(message_id_being_responded_to=message_id):
                if (invoked := self._invoked.get(message_id)) is not None:
                    invoked.bytes_received += length
                    self._responded(self._invoked, invoked, message)
            case CCancelRQ(message_id_being_responded_to=message_id):
                if (performed := self._performed.get(message_id)) is not None:
                    performed.cancelled = True
            case _:
                pass

    def message_sent(
        self, context_id: int, message: Message, length: int | None, data: Buffer | None
    ) -> None:
        """A message is about to be sent.

        Args:
            context_id: Of its presentation context.
            message: Its command set.
            length: Of its data set, in bytes, if it has one.
            data: The data set, if it is at hand as a whole.
        """
        if self._association is None:
            return
        context = self._association.negotiated.accepted[context_id]
        if isinstance(message, Request):
            self._start(
                self._invoked, OperationRole.INVOKED, context, message, _performing.get()
            ).bytes_sent = length or 0
        whole = None
        if data is not None and len(data) <= self._data_set_limit:
            whole = bytes(data)
        self._tell_message("message_sent", context, message, length, whole)
        match message:
            case Response(message_id_being_responded_to=message_id):
                if (performed := self._performed.get(message_id)) is not None:
                    performed.bytes_sent += length or 0
                    self._responded(self._performed, performed, message)
            case CCancelRQ(message_id_being_responded_to=message_id):
                if (invoked := self._invoked.get(message_id)) is not None:
                    invoked.cancelled = True
            case _:
                pass

    def _tell_message(
        self,
        hook: str,
        context: AcceptedContext,
        message: Message,
        length: int | None,
        data: bytes | None,
    ) -> None:
        if self._association is None or not self._listeners[hook]:
            return
        message_id = 0
        match message:
            case Request(message_id=message_id):
                pass
            case Response() | CCancelRQ():
                message_id = message.message_id_being_responded_to
            case _:
                pass
        status = message.status if isinstance(message, Response) else None
        info = MessageInfo(
            self._association, context, message.name, message_id, status, length, message, data
        )
        self._tell(hook, info)

    # -- operations ------------------------------------------------------------------------------

    def _retrieving(self) -> OperationInfo | None:
        """The C-GET that instances arrive for: the last one that this side has asked for."""
        for running in reversed(self._invoked.values()):
            if isinstance(running.info.request, CGetRQ):
                return running.info
        return None

    def _start(
        self,
        table: dict[int, _Running],
        role: OperationRole,
        context: AcceptedContext,
        request: Request,
        parent: OperationInfo | None,
    ) -> _Running:
        assert self._association is not None
        info = OperationInfo(
            self._association,
            context,
            role,
            request.name.removesuffix("-RQ"),
            request.message_id,
            request,
            parent,
        )
        running = table[request.message_id] = _Running(info, trio.current_time())
        self._tell("sub_operation_started" if info.is_sub_operation else "operation_started", info)
        return running

    def performing(self, message_id: int) -> None:
        """This task begins to perform that operation."""
        if (running := self._performed.get(message_id)) is not None:
            _performing.set(running.info)
            self._tell("operation_performing", running.info)

    def _responded(self, table: dict[int, _Running], running: _Running, response: Response) -> None:
        if not isinstance(response, running.info.request.response):
            return
        if response.status.is_pending:
            running.pending += 1
        else:
            del table[running.info.message_id]
            self._finish(running, response, None)

    def _finish(
        self, running: _Running, response: Response | None, error: AssociationError | None
    ) -> None:
        sub_operation = running.info.is_sub_operation
        hook = "sub_operation_finished" if sub_operation else "operation_finished"
        if not self._listeners[hook]:
            return
        end = OperationEnd(
            running.info,
            None if response is None else response.status,
            running.cancelled,
            running.pending,
            running.bytes_sent,
            running.bytes_received,
            trio.current_time() - running.began,
            response,
            error,
        )
        self._tell(hook, end)


class Tap:
    """Stands between the transport and the protocol machine, and sees what is received."""

    def __init__(self, observer: Observer, upper_layer: UpperLayer) -> None:
        self._observer = observer
        self._upper_layer = upper_layer
        self._space = memoryview(b"")

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self._observer.received(memoryview(data))
        self._upper_layer.receive_data(data)

    def get_buffer(self, size: int) -> memoryview:
        self._space = self._upper_layer.get_buffer(size)
        return self._space

    def buffer_updated(self, count: int) -> None:
        if count:
            self._observer.received(self._space[:count])
        self._space = memoryview(b"")
        self._upper_layer.buffer_updated(count)
