"""`LoggingInstrument`: associations and operations as lines of a log, without patient data."""

from __future__ import annotations

import logging
from typing import final

from . import datasets
from .errors import DataSetError
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
    Role,
    StateChange,
)
from .protocol.uids import uid_name

DATA_SET_LIMIT = 1 << 16
"""Bytes of the longest data set that is logged where that is asked for: identifiers are shorter."""


@final
class LoggingInstrument(Instrument):
    """Logs associations and operations; each line begins with the connection's number.

    INFO has associations, how they ended, and operations with their status, bytes and seconds.
    DEBUG adds connections, presentation contexts, messages, sub-operations, PDUs and states. There
    is no patient data in it: no data set, no error comment, no SOP Instance UID.

    Args:
        logger: Where to; by default the logger `dimse_trio.log`.
        data_sets: Log these too, at DEBUG: data sets of up to 64 KiB, error comments and SOP
            Instance UIDs. They are patient data, and then so is the log.
    """

    def __init__(self, logger: logging.Logger | None = None, *, data_sets: bool = False) -> None:
        self._logger = logger or logging.getLogger("dimse_trio.log")
        self._data_sets = data_sets
        if data_sets:
            self.data_set_limit = DATA_SET_LIMIT

    @property
    def _detailed(self) -> bool:
        return self._logger.isEnabledFor(logging.DEBUG)

    def _info(self, connection: ConnectionInfo, text: str, *values: object) -> None:
        self._logger.info(f"[%d] {text}", connection.number, *values)

    def _debug(self, connection: ConnectionInfo, text: str, *values: object) -> None:
        self._logger.debug(f"[%d] {text}", connection.number, *values)

    def connection_opened(self, connection: ConnectionInfo, /) -> None:
        direction = "to" if connection.role is Role.REQUESTOR else "from"
        peer, tls = _address(connection.peer_address), connection.tls or "no TLS"
        self._debug(connection, "connection %s %s, %s", direction, peer, tls)

    def connection_closed(self, end: ConnectionEnd, /) -> None:
        self._debug(
            end.connection,
            "connection closed after %.3f s, %d bytes sent, %d received",
            end.duration,
            end.bytes_sent,
            end.bytes_received,
        )

    def state_changed(self, change: StateChange, /) -> None:
        if self._detailed:
            before, after = change.before, change.after
            self._debug(change.connection, "%s -> %s (%s)", before.value, after.value, after.name)

    def pdu_sent(self, pdu: PDUInfo, /) -> None:
        self._pdu("sent", pdu)

    def pdu_received(self, pdu: PDUInfo, /) -> None:
        self._pdu("received", pdu)

    def _pdu(self, verb: str, pdu: PDUInfo) -> None:
        if self._detailed:
            self._debug(pdu.connection, "PDU %s: %s, %d bytes", verb, pdu.pdu_type.name, pdu.length)

    def association_opened(self, association: AssociationInfo, /) -> None:
        connection, negotiated = association.connection, association.negotiated
        self._info(
            connection,
            "association %s: %r to %r at %s; %d presentation contexts accepted, %d refused",
            "opened" if connection.role is Role.REQUESTOR else "accepted",
            association.calling_ae_title,
            association.called_ae_title,
            _address(connection.peer_address),
            len(negotiated.accepted),
            len(negotiated.refused),
        )
        if self._detailed:
            for context in negotiated.accepted.values():
                names = (_named(context.abstract_syntax), _named(context.transfer_syntax))
                self._debug(connection, "context %d: %s in %s", context.context_id, *names)
            for refused in negotiated.refused:
                self._debug(
                    connection, "context %d: refused: %s", refused.context_id, _safe(str(refused))
                )

    def association_rejected(self, refusal: AssociationRefusal, /) -> None:
        titles = refusal.calling_ae_title, refusal.called_ae_title
        self._info(refusal.connection, "%r to %r: %s", *titles, refusal.why)

    def association_closed(self, end: AssociationEnd, /) -> None:
        self._info(
            end.association.connection,
            "association %s after %.3f s",
            "released" if end.released else f"ended by {type(end.error).__name__}: {end.error}",
            end.duration,
        )

    def message_sent(self, message: MessageInfo, /) -> None:
        self._message("sent", message)

    def message_received(self, message: MessageInfo, /) -> None:
        self._message("received", message)

    def _message(self, verb: str, message: MessageInfo) -> None:
        if not self._detailed:
            return
        length = message.data_set_length
        self._debug(
            message.association.connection,
            "%s %s: Message ID %d on context %d%s%s",
            message.name,
            verb,
            message.message_id,
            message.context.context_id,
            "" if message.status is None else f", {message.status}",
            "" if length is None else f", data set of {length} bytes",
        )
        if self._data_sets:
            self._debug(message.association.connection, "%r", message.message)
            if message.data_set is not None:
                text = _text(message.data_set, message.context.transfer_syntax)
                self._debug(message.association.connection, "%s", text)

    def operation_started(self, operation: OperationInfo, /) -> None:
        self._started(operation)

    def sub_operation_started(self, operation: OperationInfo, /) -> None:
        self._started(operation)

    def _started(self, operation: OperationInfo) -> None:
        if self._detailed:
            self._debug(operation.association.connection, "%s begins", _name(operation))

    def operation_finished(self, end: OperationEnd, /) -> None:
        self._finished(end, logging.INFO)

    def sub_operation_finished(self, end: OperationEnd, /) -> None:
        self._finished(end, logging.DEBUG)

    def _finished(self, end: OperationEnd, level: int) -> None:
        if not self._logger.isEnabledFor(level):
            return
        how = end.status if end.status is not None else f"no answer: {type(end.error).__name__}"
        self._logger.log(
            level,
            "[%d] %s: %s%s; %d pending, %d bytes sent, %d received, %.3f s",
            end.operation.association.connection.number,
            _name(end.operation),
            how,
            ", cancelled" if end.cancelled else "",
            end.pending,
            end.bytes_sent,
            end.bytes_received,
            end.duration,
        )


def _name(operation: OperationInfo) -> str:
    kind = "sub-operation " if operation.is_sub_operation else ""
    verb = "" if operation.role is OperationRole.INVOKED else " performed"
    about = _named(operation.sop_class_uid)
    return f"{kind}{operation.name}{verb}, Message ID {operation.message_id}, {about}"


def _named(uid: str) -> str:
    return _safe(uid_name(uid))


def _safe(text: str) -> str:
    """A text of the peer's as one line of the log, and no more than that."""
    return text if text.isprintable() else repr(text)


def _address(address: Address | None) -> str:
    return "a stream without address" if address is None else f"{address[0]}:{address[1]}"


def _text(data: bytes, transfer_syntax: str) -> str:
    """A data set as pydicom prints it."""
    try:
        return str(datasets.decode(data, transfer_syntax))
    except DataSetError:
        return "(a data set that cannot be read)"
