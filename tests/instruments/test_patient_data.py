"""Whose data it is shows nowhere, unless it is asked for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio

import dimse_trio as dimse
from cli.program import Running, run, served

from .hospital import (
    INSTANCE_UIDS,
    PATIENT_ID,
    PATIENT_NAME,
    STUDY_UID,
    Hospital,
    Keeping,
    all_operations,
)
from .telemetry import Telemetry
from .tshark import fields, tshark

pytestmark = pytest.mark.interop

TELLTALES = ("telltale", *INSTANCE_UIDS)


def telling(text: str) -> list[str]:
    """The lines that say whose data it is."""
    lines = text.splitlines()
    return [line for line in lines if any(word in line.lower() for word in TELLTALES)]


async def retrieve_everything(files: list[Path], folder: Path, *ours: dimse.Instrument) -> None:
    """Every operation and sub-operation, with both sides, and a C-MOVE's destination, watched."""
    async with dimse.open_server(Hospital([]), instruments=ours) as station:
        peers = {"STATION": ("127.0.0.1", station.port)}
        async with (
            dimse.open_server(Hospital(files), peers=peers, instruments=ours) as server,
            dimse.open_association("127.0.0.1", server.port, instruments=ours) as association,
        ):
            await all_operations(association, files, folder)


async def test_it_is_in_no_log_span_metric_or_repr(
    files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keeping, telemetry = Keeping(data_set_limit=1 << 20), Telemetry()
    await retrieve_everything(
        files, tmp_path / "got", keeping, telemetry.instrument, dimse.LoggingInstrument()
    )
    log = "\n".join(map(caplog.handler.format, caplog.records))
    spans = "\n".join(span.to_json() for span in telemetry.spans.get_finished_spans())
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    reprs = "\n".join(f"{value!r}\n{value!s}" for _, value in keeping.told)
    assert "C-MOVE performed" in log
    assert '"C-MOVE"' in spans
    assert "OperationEnd(" in reprs
    assert [telling(text) for text in (log, spans, data.to_json(), reprs)] == [[], [], [], []]


async def test_it_is_in_values_and_logs_for_those_who_ask(
    files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keeping = Keeping(data_set_limit=1 << 20)
    asking = dimse.LoggingInstrument(data_sets=True)
    await retrieve_everything(files, tmp_path / "got", keeping, asking)
    assert any(PATIENT_NAME in record.getMessage() for record in caplog.records)
    messages = keeping.of("message_sent", "message_received")
    held = [m.data_set for m in messages if isinstance(m, dimse.instruments.MessageInfo)]
    assert any(PATIENT_ID.encode() in data for data in held if data)


async def test_the_command_line_says_nothing_of_it_and_captures_it_where_told(
    files: list[Path], tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours.pcapng", tmp_path / "theirs.pcapng"
    study = ("-k", f"StudyInstanceUID={STUDY_UID}", "-k", f"PatientID={PATIENT_ID}")
    async with served(Hospital(files)) as peer:
        found = await run(
            *("find", *peer, "-vv", "--capture", ours, "-k", f"PatientName={PATIENT_NAME}")
        )
        stored = await run("store", *peer, "-vv", files[0], files[0])
        got = await run(*("get", *peer, "-vv", *study, "--output", tmp_path / "got"))
    async with await Running.start(
        *("receive", tmp_path / "in", "--port", 0, "-vv", "--capture", theirs)
    ) as receiver:
        to = (f"127.0.0.1:{await receiver.listening()}", "--aec", "DIMSE-TRIO")
        (await run("store", *to, files[1])).check_done()
        receiver.process.terminate()
        received = await receiver.ended()
    assert (found.code, got.code, received.code) == (0, 0, 0)
    assert PATIENT_NAME in found.stdout
    for ended in (found, got, received):
        assert "association " in ended.stderr
        assert telling(ended.stderr) == []
    # what the peer says of a failure is told to the user, and is no log
    logged = [line for line in stored.errors if ": info: " in line or ": debug: " in line]
    assert telling("\n".join(logged)) == []
    assert len(telling(stored.stderr)) == 1
    assert any("C-FIND-RQ" in line for line in tshark(ours, "-Y", "dicom"))
    assert any("C-STORE-RSP ID=1 (Success)" in line for line in tshark(theirs, "-Y", "dicom"))
    assert len(fields(theirs, "tcp.flags.fin == 1", "tcp.stream")) == 2


async def test_a_capture_that_cannot_be_written_is_a_mistake_of_use(tmp_path: Path) -> None:
    ended = await run("echo", "127.0.0.1:9", "--capture", tmp_path / "none" / "capture.pcapng")
    ended.check(2, "--capture", "No such file")


async def test_move_captures_its_own_listener_too(files: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "move.pcapng"
    with trio.socket.socket() as free:
        await free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with served(Hospital(files), peers={"HERE": ("127.0.0.1", port)}) as peer:
        ended = await run(
            *("move", *peer, "-k", f"StudyInstanceUID={STUDY_UID}", "--capture", path),
            *("--receive", tmp_path / "in", "--receive-port", port, "--destination", "HERE"),
        )
    assert ended.code == 0
    assert len(list((tmp_path / "in").iterdir())) == 2
    lines = tshark(path, "-Y", "dicom")
    assert any("C-MOVE-RQ" in line for line in lines)
    assert sum("C-STORE-RQ" in line for line in lines) == 2
