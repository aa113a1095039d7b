"""Every example is run as a user would, as a script of its own, against a real archive."""

from __future__ import annotations

import datetime as dt
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
import trio
import trustme

import dimse_trio as dimse

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CT, MR = FILES / "CT_small.dcm", FILES / "MR_small.dcm"
JPEG2000, JPEG = FILES / "JPEG2000.dcm", FILES / "JPEG-lossy.dcm"
SR = FILES / "test-SR.dcm"
MR_STUDY = "1.3.6.1.4.1.5962.1.2.4.20040826185059.5457"
NM_STUDY = "1.3.6.1.4.1.5962.1.2.8.20040826185059.5457"

RunExample = Callable[..., list[str]]


def script(name: str, *arguments: object) -> list[str]:
    """The lines that an example prints; it must end well."""
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@contextmanager
def listener(port_file: Path, *arguments: object) -> Iterator[int]:
    """A listening `dimse-trio` process; its port."""
    options = ["--port", "0", "--port-file", port_file]
    command = [sys.executable, "-m", "dimse_trio", *arguments, *options]
    with running(*command) as process:

        def port() -> int:
            return int(port_file.read_text() or 0) if port_file.exists() else 0

        wait_until(port, process)
        yield port()


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([str(word) for word in command])
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait for another process, which can only be asked again and again."""
    deadline = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def workstation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    folder = tmp_path_factory.mktemp("workstation")
    port_file = folder.with_suffix(".port")
    with listener(port_file, "receive", folder, "--aet", "WORKSTATION") as port:
        yield port, folder


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory, workstation: tuple[int, Path]
) -> Iterator[tuple[str, int, str]]:
    """Host, port and AE title of an archive that holds a CT, an MR and a report."""
    folder = tmp_path_factory.mktemp("archive")
    peer = f"WORKSTATION=127.0.0.1:{workstation[0]}"
    port_file = folder.with_suffix(".port")
    with listener(port_file, "archive", folder, "--aet", "ARCHIVE", "--peer", peer) as port:
        peer_arguments = "127.0.0.1", port, "ARCHIVE"
        assert script("store.py", *peer_arguments, CT, MR, SR) == [
            f"{path} Success (0x0000)" for path in (CT, MR, SR)
        ]
        yield peer_arguments


def unused_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def data_set_of(path: Path) -> bytes:
    instance = dimse.Instance.from_file(path)
    return path.read_bytes()[instance.offset :]


def test_echo(archive: tuple[str, int, str]) -> None:
    assert script("echo.py", *archive) == ["Success (0x0000)"]


def test_capture_is_one_that_tshark_reads(archive: tuple[str, int, str], tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    lines = script("capture.py", *archive, path)
    assert lines[0] == f"3 studies; tshark -r {path} -Y dicom shows how they came"
    assert " took longest: " in lines[1]
    command = ["tshark", "-r", path, "-Y", "dicom"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "C-FIND-RSP ID=2 (Success)" in shown.stdout


def test_find_prints_the_studies_that_match(archive: tuple[str, int, str]) -> None:
    lines = script("find.py", *archive, "CompressedSamples^M")
    assert lines == [f"CompressedSamples^MR1 20040826 {MR_STUDY}"]


def test_find_with_timeout_prints_all_that_comes_in_time(archive: tuple[str, int, str]) -> None:
    lines = script("find_with_timeout.py", *archive, 30)
    assert {line.split()[0] for line in lines[:-1]} == {"CT", "MR", "SR"}
    assert lines[-1] == "the association lives on: Success (0x0000)"


def test_find_with_timeout_keeps_the_association_when_time_is_out(
    archive: tuple[str, int, str],
) -> None:
    lines = script("find_with_timeout.py", *archive, 0)
    assert lines == ["that was all in 0 s", "the association lives on: Success (0x0000)"]


def test_get_writes_the_study_as_the_archive_has_it(
    archive: tuple[str, int, str], tmp_path: Path
) -> None:
    script("store.py", *archive, JPEG2000, JPEG)
    lines = script("get.py", *archive, NM_STUDY, tmp_path)
    assert lines == ["Success (0x0000): 2 completed, 0 failed"]
    written = sorted(data_set_of(path) for path in tmp_path.iterdir())
    assert written == sorted(data_set_of(path) for path in (JPEG2000, JPEG))


def test_move_sends_the_study_to_the_workstation(
    archive: tuple[str, int, str], workstation: tuple[int, Path]
) -> None:
    study = str(pydicom.dcmread(SR).StudyInstanceUID)
    lines = script("move.py", *archive, study, "WORKSTATION")
    assert lines[-1] == "Success (0x0000): 1 completed"
    uid = dimse.Instance.from_file(SR).sop_instance_uid
    assert data_set_of(workstation[1] / f"{uid}.dcm") == data_set_of(SR)


def test_remote_stores_a_folder_and_fetches_a_study(
    archive: tuple[str, int, str], tmp_path: Path
) -> None:
    folder, output = tmp_path / "folder", tmp_path / "output"
    folder.mkdir()
    for path in (JPEG2000, JPEG):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no DICOM")
    lines = script("remote.py", *archive, folder, NM_STUDY, output)
    assert lines[0].startswith(f"{folder / 'notes.txt'}: ")
    assert lines[1:] == ["2 of 3 stored", "2 instances by C-GET, complete: True"]
    assert len(list(output.iterdir())) == 2


async def test_transcode_decompresses_what_was_compressed_without_loss(tmp_path: Path) -> None:
    rle, jpeg = FILES / "MR_small_RLE.dcm", FILES / "SC_rgb_jpeg_dcmtk.dcm"
    classes = {dimse.Instance.from_file(path).sop_class_uid for path in (MR, jpeg)}
    native = (dimse.uid_of("ExplicitVRLittleEndian"),)
    contexts = [dimse.PresentationContext(uid, native) for uid in sorted(classes)]
    async with dimse.open_server(Saving(tmp_path), contexts=contexts) as server:
        arguments = "transcode.py", "127.0.0.1", server.port, "ARCHIVE", MR, rle, jpeg
        lines = await trio.to_thread.run_sync(script, *arguments)
    assert lines[0] == f"{MR} sent in ExplicitVRLittleEndian"
    assert lines[1] == f"{rle} transcoded to ExplicitVRLittleEndian"
    assert lines[2].startswith(f"{jpeg} not sent: no presentation context for ")


class Saving:
    """Takes what is sent, into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        await request.save_as(self._folder / request.file_name)
        return dimse.Status.SUCCESS


def test_client_goes_through_all_of_it(archive: tuple[str, int, str], tmp_path: Path) -> None:
    lines = script("client.py", *archive, CT, "WORKSTATION", tmp_path)
    assert lines[0] == "Success (0x0000)"
    moved, got = lines[-2:]
    assert moved.startswith("moved ")
    files = {path.name for path in tmp_path.iterdir()}
    count, names = got.removeprefix("got ").split(": ")
    assert int(count) == len(files) > 0
    assert set(names.split(", ")) == files


def test_cancel_leaves_the_association_usable_until_it_is_aborted(
    archive: tuple[str, int, str],
) -> None:
    lines = script("cancel.py", *archive)
    assert lines[0].startswith("one is enough: ")
    assert lines[1:] == ["after C-CANCEL: Success (0x0000)", "after A-ABORT: open is False"]


def test_ups_watches_a_step_to_its_end(tmp_path: Path) -> None:
    with listener(tmp_path / "port", "ups", "serve", "--aet", "WORKLIST") as port:
        lines = script("ups.py", "127.0.0.1", port, "WORKLIST")
    states = ["SCHEDULED", "IN_PROGRESS", "50.0 %", "COMPLETED"]
    assert [line.removeprefix("Segment the liver ") for line in lines] == [
        state if state.endswith("%") else f"StepState.{state}" for state in states
    ]


def test_storage_server_takes_and_finds_instances(tmp_path: Path) -> None:
    port = unused_port()
    folder = tmp_path / "incoming"
    folder.mkdir()
    server = EXAMPLES / "storage_server.py"
    with running(sys.executable, server, port, folder) as process:

        def answers() -> bool:
            command = [sys.executable, EXAMPLES / "echo.py", "127.0.0.1", port, "ARCHIVE"]
            arguments = [str(word) for word in command]
            return subprocess.run(arguments, capture_output=True, check=False).returncode == 0

        wait_until(answers, process)
        peer = "127.0.0.1", port, "ARCHIVE"
        script("store.py", *peer, CT, JPEG2000)
        assert sorted(map(data_set_of, folder.iterdir())) == sorted(
            map(data_set_of, (CT, JPEG2000))
        )
        lines = script("find.py", *peer, "CompressedSamples^C")
        assert [line.split()[0] for line in lines] == ["CompressedSamples^CT1"]


def test_commitment_deletes_only_what_is_safe(
    archive: tuple[str, int, str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(CT.read_bytes())
    lines = script("commitment.py", *archive, "US", unused_port(), copy)
    assert lines == [f"{copy} is safe, and deleted here"]
    assert not copy.exists()


def test_availability_is_told_and_taken() -> None:
    assert script("availability.py") == [
        "1.2.3.4.1 of series 1.2.3.4: ONLINE at ARCHIVE",
        "Success (0x0000)",
    ]


def test_identity_lets_in_who_is_known() -> None:
    assert sorted(script("identity.py")) == [
        "ada came from DIMSE-TRIO",
        "ada left",
        "ada: Success (0x0000), identity looked at: True",
        "eve: association rejected (permanent, service provider acse, provider no reason given)",
    ]


def test_tls_verifies_a_peer_with_certificates_on_both_sides(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    ca, certificate, key = (tmp_path / name for name in ("ca.pem", "our.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    tls = ("--tls-cert", certificate, "--tls-key", key, "--tls-ca", ca)
    with listener(tmp_path / "port", "receive", tmp_path / "in", "--aet", "KEEPER", *tls) as port:
        lines = script("tls.py", "127.0.0.1", port, "KEEPER", ca, certificate, key)
    assert lines == ["Success (0x0000)"]


def test_worklist_and_performed_step_go_through_what_is_scheduled(tmp_path: Path) -> None:
    orders, steps = tmp_path / "orders", tmp_path / "steps"
    orders.mkdir()
    step = pydicom.Dataset()
    step.Modality, step.ScheduledStationAETitle = "CT", "SCANNER"
    # whatever the clock says when the script looks
    today = dt.date.today()
    step.ScheduledProcedureStepStartDate = [f"{today + dt.timedelta(n):%Y%m%d}" for n in (0, 1)]
    step.ScheduledProcedureStepStartTime = "0900"
    item = pydicom.Dataset()
    item.PatientName, item.PatientID, item.StudyInstanceUID = "Doe^Jane", "P1", "1.2.3"
    item.ScheduledProcedureStepSequence = [step]
    item.save_as(orders / "1.wl", implicit_vr=False, little_endian=True)
    command = ("worklist", orders, "--steps", steps, "--aet", "RIS")
    with listener(tmp_path / "port", *command) as port:
        lines = script("worklist.py", "127.0.0.1", port, "RIS", "SCANNER")
        assert lines == ["0900 CT Doe^Jane"]
        lines = script("performed_step.py", "127.0.0.1", port, "RIS")
        assert lines == ["IN PROGRESS", "COMPLETED"]
    (path,) = steps.iterdir()
    assert pydicom.dcmread(path).PerformedProcedureStepStatus == "COMPLETED"


def test_relevant_patient_gives_its_report() -> None:
    assert script("relevant_patient.py") == ["P1 Doe^Jane"]
