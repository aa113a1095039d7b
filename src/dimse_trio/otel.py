"""OpenTelemetry: associations, operations and sub-operations as spans, and metrics of them.

    instruments=[OpenTelemetryInstrument()]

Spans and metrics have no patient data: no data set, no error comment, no SOP Instance UID. Needs
opentelemetry-api, which `dimse-trio[otel]` brings; without an SDK nothing is recorded.
"""

from __future__ import annotations

try:
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, trace
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "dimse_trio.otel needs opentelemetry-api: pip install 'dimse-trio[otel]'", name=error.name
    ) from error

from typing import final

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from .instruments import (
    AssociationEnd,
    AssociationInfo,
    AssociationRefusal,
    ConnectionEnd,
    ConnectionInfo,
    Instrument,
    OperationEnd,
    OperationInfo,
    OperationRole,
    Role,
)
from .protocol.status import StatusCategory
from .protocol.uids import uid_name
from .version import __version__

__all__ = ["OpenTelemetryInstrument"]

_SCOPE = "dimse_trio"
_Attributes = dict[str, AttributeValue]


@final
class OpenTelemetryInstrument(Instrument):
    """Spans and metrics of associations, for OpenTelemetry.

    An association's span goes from its connection to its end, or to its rejection. Of a requestor,
    it is a child of the span in which it was opened; the spans of its operations are its children,
    those of sub-operations children of their C-GET's or C-MOVE's. Spans that a handler makes are
    children of the operation that it performs. An operation that was asked for inside of another
    span than its parent has a link to that.

    Metrics: `dicom.associations.open`, `dicom.operations`, `dicom.operation.duration` (seconds) and
    `dicom.data_set.transferred` (bytes).

    Args:
        tracer_provider: By default the global one.
        meter_provider: By default the global one.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider)
        self._open = meter.create_up_down_counter(
            "dicom.associations.open", "{association}", "Associations that are open."
        )
        self._operations = meter.create_counter(
            "dicom.operations", "{operation}", "Operations and sub-operations that have ended."
        )
        self._duration = meter.create_histogram(
            "dicom.operation.duration", "s", "From the request to the final response."
        )
        self._bytes = meter.create_counter(
            "dicom.data_set.transferred", "By", "Data sets of operations and sub-operations."
        )
        self._associations: dict[ConnectionInfo, Span] = {}
        self._running: dict[OperationInfo, Span] = {}

    # -- associations ----------------------------------------------------------------------------

    def connection_opened(self, connection: ConnectionInfo, /) -> None:
        requestor = connection.role is Role.REQUESTOR
        attributes: _Attributes = {
            "network.protocol.name": "dicom",
            "network.transport": "tcp",
            "dicom.association.role": connection.role.value,
        }
        if connection.peer_address is not None:
            address, port = connection.peer_address
            attributes |= {"network.peer.address": address, "network.peer.port": port}
        if connection.tls is not None:
            attributes["tls.protocol.version"] = connection.tls.removeprefix("TLSv")
        self._associations[connection] = self._tracer.start_span(
            "DICOM association",
            context=None if requestor else Context(),  # a listener's task has no part in it
            kind=SpanKind.CLIENT if requestor else SpanKind.SERVER,
            attributes=attributes,
        )

    def association_opened(self, association: AssociationInfo, /) -> None:
        self._open.add(1, _association_attributes(association))
        negotiated = association.negotiated
        self._associations[association.connection].set_attributes(
            {
                **_titles(association),
                "dicom.contexts.accepted": len(negotiated.accepted),
                "dicom.contexts.refused": len(negotiated.refused),
            }
        )

    def association_rejected(self, refusal: AssociationRefusal, /) -> None:
        span = self._associations[refusal.connection]
        span.set_attributes(
            {
                **_titles(refusal),
                "dicom.reject.result": refusal.result,
                "dicom.reject.source": refusal.source,
                "dicom.reject.reason": refusal.reason,
            }
        )
        _fail(span, "AssociationRejected")

    def association_closed(self, end: AssociationEnd, /) -> None:
        self._open.add(-1, _association_attributes(end.association))
        if not end.released:
            _fail(self._associations[end.association.connection], type(end.error).__name__)

    def connection_closed(self, end: ConnectionEnd, /) -> None:
        span = self._associations.pop(end.connection)
        if end.error is not None:
            _fail(span, type(end.error).__name__)
        span.set_attributes(
            {"dicom.bytes.sent": end.bytes_sent, "dicom.bytes.received": end.bytes_received}
        )
        span.end()

    # -- operations ------------------------------------------------------------------------------

    def operation_started(self, operation: OperationInfo, /) -> None:
        self._start(operation, self._associations[operation.association.connection])

    def sub_operation_started(self, operation: OperationInfo, /) -> None:
        association = self._associations[operation.association.connection]
        parent = None if operation.parent is None else self._running.get(operation.parent)
        self._start(operation, parent or association)

    def _start(self, operation: OperationInfo, parent: Span) -> None:
        invoked = operation.role is OperationRole.INVOKED
        current = trace.get_current_span().get_span_context()
        linked = invoked and current.is_valid and current != parent.get_span_context()
        self._running[operation] = self._tracer.start_span(
            operation.name,
            context=trace.set_span_in_context(parent, Context()),
            kind=SpanKind.CLIENT if invoked else SpanKind.SERVER,
            links=[Link(current)] if linked else None,
            attributes={
                **_operation_attributes(operation),
                **_titles(operation.association),
                "dicom.message_id": operation.message_id,
                "dicom.sop_class.uid": operation.sop_class_uid,
                "dicom.sop_class.name": uid_name(operation.sop_class_uid),
                "dicom.transfer_syntax.uid": operation.context.transfer_syntax,
            },
        )

    def operation_performing(self, operation: OperationInfo, /) -> None:
        # for the rest of this task, which is that of the handler
        otel_context.attach(trace.set_span_in_context(self._running[operation]))

    def operation_finished(self, end: OperationEnd, /) -> None:
        self._finish(end)

    def sub_operation_finished(self, end: OperationEnd, /) -> None:
        self._finish(end)

    def _finish(self, end: OperationEnd) -> None:
        span = self._running.pop(end.operation)
        attributes = _operation_attributes(end.operation)
        span.set_attributes(
            {
                "dicom.cancelled": end.cancelled,
                "dicom.responses.pending": end.pending,
                "dicom.data_set.sent": end.bytes_sent,
                "dicom.data_set.received": end.bytes_received,
            }
        )
        category = "none"
        if end.status is None:
            _fail(span, type(end.error).__name__)
        else:
            category = end.status.category.value.lower()
            span.set_attribute("dicom.status", int(end.status))
            if end.status.category is StatusCategory.FAILURE:
                _fail(span, f"{int(end.status):04X}")
        attributes["dicom.status.category"] = category
        span.set_attribute("dicom.status.category", category)
        span.end()
        self._operations.add(1, attributes)
        self._duration.record(end.duration, attributes)
        for direction, count in (("sent", end.bytes_sent), ("received", end.bytes_received)):
            if count:
                self._bytes.add(count, {**attributes, "dicom.direction": direction})


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)


def _titles(association: AssociationInfo | AssociationRefusal) -> _Attributes:
    return {
        "dicom.called_ae_title": association.called_ae_title,
        "dicom.calling_ae_title": association.calling_ae_title,
    }


def _association_attributes(association: AssociationInfo) -> _Attributes:
    """What the gauge of open associations distinguishes."""
    return {"dicom.association.role": association.connection.role.value}


def _operation_attributes(operation: OperationInfo) -> _Attributes:
    """What metrics of operations distinguish: few values each."""
    return {
        "rpc.system": "dicom",
        "rpc.method": operation.name,
        "dicom.operation.role": operation.role.value,
        "dicom.sub_operation": operation.is_sub_operation,
    }
