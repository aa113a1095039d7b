"""Spans and metrics, as the SDK of OpenTelemetry exports them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

import dimse_trio as dimse
from dimse_trio.otel import OpenTelemetryInstrument
from dimse_trio.testing import associated_pair

from .hospital import STUDY_UID, Hospital, all_operations
from .telemetry import Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def context_id(span: ReadableSpan | None) -> int:
    assert span is not None
    assert span.context is not None
    return span.context.span_id


def assert_children(parent: ReadableSpan, children: Sequence[ReadableSpan]) -> None:
    assert children
    for child in children:
        assert child.parent is not None
        assert child.parent.span_id == context_id(parent)


async def test_a_requestors_operations_are_children_of_its_association(
    telemetry: Telemetry, files: list[Path], tmp_path: Path
) -> None:
    async with associated_pair(
        Hospital(files), requestor_instruments=[telemetry.instrument]
    ) as association:
        await all_operations(association, files, tmp_path / "got")
    (root,) = telemetry.named("DICOM association")
    assert root.kind is SpanKind.CLIENT
    assert root.attributes is not None
    assert root.attributes["dicom.called_ae_title"] == "ARCHIVE"
    assert root.status.status_code is StatusCode.UNSET
    (get,) = telemetry.named("C-GET")
    stores = telemetry.named("C-STORE")
    subs = [s for s in stores if s.attributes and s.attributes["dicom.sub_operation"]]
    operations = [
        s for s in telemetry.spans.get_finished_spans() if s is not root and s not in subs
    ]
    assert len(subs) == 2
    assert_children(get, subs)
    assert_children(root, operations)
    assert all(span.kind is SpanKind.SERVER for span in subs)
    failed = [s for s in operations if s.status.status_code is StatusCode.ERROR]
    assert [(s.name, s.attributes and s.attributes["error.type"]) for s in failed] == [
        ("C-STORE", "A700"),
        ("C-MOVE", "A801"),
    ]


async def test_an_acceptors_move_is_the_parent_of_its_association_and_sub_operations(
    telemetry: Telemetry, files: list[Path]
) -> None:
    async with dimse.open_server(Hospital([])) as station:
        peers = {"STATION": ("127.0.0.1", station.port)}
        async with (
            dimse.open_server(
                Hospital(files), peers=peers, instruments=[telemetry.instrument]
            ) as server,
            dimse.open_association("127.0.0.1", server.port) as association,
        ):
            study = dimse.query("STUDY", StudyInstanceUID=STUDY_UID)
            await association.move(study, destination="STATION")
            await association.abort()
    first, second = telemetry.named("DICOM association")  # in the order of their ends
    (move,) = telemetry.named("C-MOVE")
    assert (first.kind, second.kind, move.kind) == (
        SpanKind.CLIENT,
        SpanKind.SERVER,
        SpanKind.SERVER,
    )
    assert second.parent is None
    assert second.status.status_code is StatusCode.ERROR
    assert second.attributes is not None
    assert second.attributes["error.type"] == "AssociationAborted"
    assert_children(second, [move])
    assert_children(move, [first, *telemetry.named("C-STORE")])
    assert len(telemetry.named("C-STORE")) == 2


async def test_spans_of_users_are_above_associations_and_below_performed_operations(
    telemetry: Telemetry,
) -> None:
    tracer = telemetry.tracers.get_tracer("user")

    class Handler(Hospital):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            with tracer.start_as_current_span("in handler"):
                return dimse.Status.SUCCESS

    with tracer.start_as_current_span("job") as job:
        async with associated_pair(
            Handler([]),
            instruments=[telemetry.instrument],
            requestor_instruments=[telemetry.instrument],
        ) as association:
            await association.echo()
            with tracer.start_as_current_span("step") as step:
                await association.echo()
    by_kind = {span.kind: span for span in telemetry.named("DICOM association")}
    requestor, acceptor = by_kind[SpanKind.CLIENT], by_kind[SpanKind.SERVER]
    assert requestor.parent is not None
    assert requestor.parent.span_id == job.get_span_context().span_id
    assert acceptor.parent is None
    echoes = telemetry.named("C-ECHO")
    performed = [span for span in echoes if span.kind is SpanKind.SERVER]
    inside = telemetry.named("in handler")
    for parent, child in zip(performed, inside, strict=True):
        assert_children(parent, [child])
    linked = [span.links[0].context.span_id for span in echoes if span.links]
    assert linked[-1] == step.get_span_context().span_id


async def test_metrics_count_operations_bytes_and_open_associations(
    telemetry: Telemetry, files: list[Path]
) -> None:
    async with associated_pair(
        Hospital(files), requestor_instruments=[telemetry.instrument]
    ) as association:
        await association.echo()
        await association.echo()
        await association.store(files[0])
        (count,) = telemetry.metric("dicom.associations.open")
        assert count.value == 1
    (count,) = telemetry.metric("dicom.associations.open")
    assert count.value == 0
    counts = {p.attributes["rpc.method"]: p for p in telemetry.metric("dicom.operations")}
    assert {name: point.value for name, point in counts.items()} == {"C-ECHO": 2, "C-STORE": 1}
    assert counts["C-ECHO"].attributes["dicom.status.category"] == "success"
    durations = telemetry.metric("dicom.operation.duration")
    assert sum(point.count for point in durations) == 3
    (sent,) = telemetry.metric("dicom.data_set.transferred")
    assert sent.value == dimse.Instance.from_file(files[0]).length
    assert sent.attributes["dicom.direction"] == "sent"


async def test_a_rejected_association_is_a_failed_span(telemetry: Telemetry) -> None:
    with pytest.raises(dimse.AssociationRejected):
        async with associated_pair(
            Hospital([]), ae_title="ELSEWHERE", requestor_instruments=[telemetry.instrument]
        ):
            raise AssertionError
    (span,) = telemetry.named("DICOM association")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "AssociationRejected"
    assert span.attributes["dicom.reject.reason"] == 7


async def test_without_an_sdk_nothing_happens(files: list[Path]) -> None:
    async with associated_pair(
        Hospital(files), requestor_instruments=[OpenTelemetryInstrument()]
    ) as association:
        assert (await association.echo()).status == 0
