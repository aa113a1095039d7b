"""Captures, as tshark reads them."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
import trustme

import dimse_trio as dimse
from dimse_trio.testing import associated_pair

from .hospital import PATIENT_NAME, Hospital, write_files
from .tshark import fields, tshark

pytestmark = pytest.mark.interop


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "capture.pcapng"


def assert_sound(path: Path) -> None:
    """Wireshark finds nothing wrong with the packets: no gaps, no bad checksums."""
    assert tshark(path, "-Y", "_ws.expert.severity >= 0x600000 || tcp.analysis.flags") == []
    assert tshark(path, "-Y", "_ws.malformed") == []


def assert_shows_the_find(path: Path) -> None:
    lines = tshark(path, "-Y", "dicom")
    for part in ("A-ASSOCIATE request", "C-FIND-RQ ID=1", "C-FIND-RSP ID=1 (Success)"):
        assert any(part in line for line in lines), lines
    assert any(PATIENT_NAME in line for line in tshark(path, "-Y", "dicom", "-V"))
    assert "A-RELEASE response" in lines[-1]


async def find(association: dimse.Association) -> None:
    assert len(await association.find_studies(PatientName=PATIENT_NAME)) == 1


async def test_plain_tcp_has_its_addresses_and_ports(path: Path) -> None:
    with dimse.PcapngWriter(path) as writer:
        async with (
            dimse.open_server(Hospital([])) as server,
            dimse.open_association("127.0.0.1", server.port, instruments=[writer]) as association,
        ):
            await find(association)
    assert_shows_the_find(path)
    assert_sound(path)
    (syn,) = fields(path, "tcp.flags.syn == 1 && tcp.flags.ack == 0", "ip.dst", "tcp.dstport")
    assert syn == ["127.0.0.1", str(server.port)]
    assert len(fields(path, "tcp.flags.fin == 1", "tcp.stream")) == 2


@pytest.mark.parametrize("ours", [True, False], ids=["requestor", "acceptor"])
async def test_tls_is_captured_decrypted(path: Path, ours: bool) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    with dimse.PcapngWriter(path) as writer:
        async with (
            dimse.open_server(
                Hospital([]),
                ssl_context=server_context,
                instruments=[] if ours else [writer],
            ) as server,
            dimse.open_association(
                "127.0.0.1",
                server.port,
                ssl_context=client_context,
                instruments=[writer] if ours else [],
            ) as association,
        ):
            await find(association)
    assert_shows_the_find(path)
    assert_sound(path)
    (comment,) = fields(path, "frame.comment", "frame.comment")
    assert comment[0].endswith("TLSv1.3, decrypted")


async def test_memory_streams_have_addresses_that_are_made_up(path: Path) -> None:
    with dimse.PcapngWriter(path) as writer:
        for _ in range(2):
            async with associated_pair(Hospital([]), requestor_instruments=[writer]) as association:
                await find(association)
    assert_shows_the_find(path)
    assert_sound(path)
    syns = fields(path, "tcp.flags.syn == 1 && tcp.flags.ack == 0", "ip.dst", "tcp.dstport")
    assert syns == [["192.0.2.2", "104"]] * 2
    assert {stream for (stream,) in fields(path, "dicom", "tcp.stream")} == {"0", "1"}


async def test_ipv6_is_ipv6(path: Path) -> None:
    with dimse.PcapngWriter(path) as writer:
        async with (
            dimse.open_server(Hospital([]), host="::1", instruments=[writer]) as server,
            dimse.open_association("::1", server.port) as association,
        ):
            await find(association)
    assert_shows_the_find(path)
    assert_sound(path)
    assert {address for (address,) in fields(path, "dicom", "ipv6.dst")} == {"::1"}


async def test_several_associations_at_once_and_both_sides_of_them(
    path: Path, files: list[Path]
) -> None:
    with dimse.PcapngWriter(path) as writer:
        async with dimse.open_server(Hospital(files), instruments=[writer]) as server:
            remote = dimse.RemoteAE("PACS", "127.0.0.1", server.port, instruments=[writer])
            async with remote:
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(remote.echo)
    assert_sound(path)
    requests = [line for line in tshark(path, "-Y", "dicom") if "C-ECHO-RQ" in line]
    assert len(requests) == 3
    streams = {stream for (stream,) in fields(path, "dicom", "tcp.stream")}
    assert len(streams) == len(fields(path, "tcp.flags.syn == 1 && tcp.flags.ack == 0", "ip.src"))


async def test_long_pdus_are_segmented(path: Path, tmp_path: Path) -> None:
    from pydicom import dcmread

    (source, _) = write_files(tmp_path)
    data_set = dcmread(source)
    data_set.add_new("PixelData", "OW", bytes(5 << 20))
    big = tmp_path / "big.dcm"
    data_set.save_as(big)
    with dimse.PcapngWriter(path) as writer:
        async with associated_pair(
            Hospital([]), requestor_instruments=[writer], max_pdu_length=1 << 20
        ) as association:
            await association.store(big)
            await association.echo()
    assert_sound(path)
    assert os.path.getsize(path) > 5 << 20  # noqa: ASYNC240 - it is over
    assert any("C-ECHO-RSP ID=2 (Success)" in line for line in tshark(path, "-Y", "dicom"))
    assert all(int(length) < 1 << 16 for (length,) in fields(path, "tcp", "frame.len"))


async def test_a_rejected_association_is_captured(path: Path) -> None:
    with dimse.PcapngWriter(path) as writer, pytest.raises(dimse.AssociationRejected):
        async with associated_pair(
            Hospital([]), ae_title="ELSEWHERE", requestor_instruments=[writer]
        ):
            raise AssertionError
    assert any("A-ASSOCIATE reject" in line for line in tshark(path, "-Y", "dicom"))


def test_after_a_crash_the_capture_is_readable(path: Path) -> None:
    script = """
import os, sys, trio, dimse_trio as dimse
from dimse_trio.testing import associated_pair

class Handler:
    async def handle_echo(self, request):
        return dimse.Status.SUCCESS

async def main():
    writer = dimse.PcapngWriter(sys.argv[1])
    async with associated_pair(Handler(), requestor_instruments=[writer]) as association:
        await association.echo()
        os._exit(3)

trio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", script, path], check=False)
    assert done.returncode == 3
    lines = tshark(path, "-Y", "dicom")
    assert any("C-ECHO-RSP ID=1 (Success)" in line for line in lines)


async def test_a_capture_is_its_owners_and_closing_it_early_harms_nothing(path: Path) -> None:
    writer = dimse.PcapngWriter(path)
    async with associated_pair(Hospital([]), requestor_instruments=[writer]) as association:
        writer.close()
        assert (await association.echo()).status == 0
    async with associated_pair(Hospital([]), requestor_instruments=[writer]) as association:
        assert (await association.echo()).status == 0
    if os.name == "posix":
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert tshark(path, "-Y", "dicom")


async def test_a_disk_that_is_full_is_logged_and_the_association_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    with dimse.PcapngWriter(path) as writer:
        async with associated_pair(Hospital([]), requestor_instruments=[writer]) as association:

            def full(*_: bytes) -> None:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(writer, "_write", full)
            assert (await association.echo()).status == 0
    assert "PcapngWriter.bytes_sent raised" in caplog.text
    assert tshark(path, "-Y", "dicom")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
async def test_a_capture_may_go_to_a_pipe(tmp_path: Path, path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: path.write_bytes(pipe.read_bytes()))
    reader.start()
    with dimse.PcapngWriter(pipe) as writer:
        async with associated_pair(Hospital([]), requestor_instruments=[writer]) as association:
            assert (await association.echo()).status == 0
    reader.join()
    assert any("C-ECHO-RSP" in line for line in tshark(path, "-Y", "dicom"))
