"""`dimse-trio commit`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

import dimse_trio as dimse
from dimse_trio import FailureReason, SOPReference

from .program import Ended, run, served


class Vault(dimse.StorageCommitmentProvider):
    """Commits to all but one instance."""

    def __init__(self, lost: str = "") -> None:
        self.lost = lost

    async def committed(self, reference: SOPReference, /) -> FailureReason | None:
        if reference.sop_instance_uid == self.lost:
            return FailureReason.NO_SUCH_OBJECT_INSTANCE
        return None


def uid_of(path: Path) -> str:
    return dimse.Instance.from_file(path).sop_instance_uid


async def test_what_is_committed_is_a_table(files: list[Path]) -> None:
    async with served(Vault()) as peer:
        ended = (await run("commit", *peer, *files[:2])).check_done()
    header, *rows = ended.stdout.splitlines()
    assert header.split() == ["path", "sop_instance_uid", "committed"]
    assert [row.split() for row in rows] == [[str(p), uid_of(p), "yes"] for p in files[:2]]


async def test_what_is_not_committed_is_named(files: list[Path]) -> None:
    lost = files[1]
    async with served(Vault(uid_of(lost))) as peer:
        ended = await run("commit", *peer, *files[:2], "--json")
    ended.check(1, f"{lost}: not committed: no such object instance (0x0112)")
    kept, missing = ended.objects
    assert (kept["committed"], kept["sop_instance_uid"]) == (True, uid_of(files[0]))
    assert (missing["committed"], missing["reason"]) == (False, 0x0112)


async def test_csv_has_a_line_for_each_file(files: list[Path]) -> None:
    async with served(Vault()) as peer:
        ended = (await run("commit", *peer, *files[:2], "--csv")).check_done()
    assert ended.stdout.splitlines()[0].startswith("path,sop_instance_uid,committed,reason")
    assert len(ended.stdout.splitlines()) == 3


async def test_a_report_may_come_to_a_port_of_ours(files: list[Path], unused_port: int) -> None:
    class Separate(Vault):
        report_on_same_association = False

    peers: dict[str, Any] = {"US": ("127.0.0.1", unused_port)}
    async with served(Separate(), peers=peers) as peer:
        arguments = (*peer, files[0], "--aet", "US", "--listen-port", unused_port)
        (await run("commit", *arguments, "--listen-host", "127.0.0.1")).check_done()


async def test_a_report_that_does_not_come_is_waited_for_until_the_timeout(
    files: list[Path],
) -> None:
    class Silent(Vault):
        async def committed(self, reference: SOPReference, /) -> FailureReason | None:
            await trio.sleep_forever()
            return None

    async with served(Silent()) as peer:
        ended = await run("commit", *peer, *files[:2], "--timeout", 2)
    ended.check(5, "timed out after 2 s: 2 files not reported about", "--listen-port")


def test_help_says_how_long_it_waits(run_here: Callable[..., Ended]) -> None:
    assert "after an hour (3600 s)" in " ".join(run_here("commit", "-h").stdout.split())


async def test_that_there_is_nothing_to_ask_about_is_a_failure(
    tmp_path: Path, run_here: Callable[..., Ended]
) -> None:
    (await run("commit", "127.0.0.1:1", tmp_path)).check(1, "nothing to ask about")


async def test_the_port_for_reports_may_have_tls(
    files: list[Path], unused_port: int, tmp_path: Path
) -> None:
    class Separate(Vault):
        report_on_same_association = False

    authority = trustme.CA()
    certificate, ca = tmp_path / "cert.pem", tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    theirs = dimse.tls_profile(certificate=certificate, ca=ca)
    ours = dimse.tls_profile(server=True, certificate=certificate, ca=ca)
    peers = {"US": dimse.Destination("127.0.0.1", unused_port, ssl_context=theirs)}
    async with served(Separate(), peers=peers, ssl_context=ours) as peer:
        arguments = (*peer, files[0], "--aet", "US", "--listen-port", unused_port)
        tls = ("--tls-cert", certificate, "--tls-ca", ca)
        (await run("commit", *arguments, *tls, "--listen-tls")).check_done()
        plain = await run("commit", *arguments, *tls, "--timeout", 3)
    assert plain.code == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "needs --listen-port"), (("--listen-port", "1"), "needs --tls-cert")],
)
def test_what_tls_on_that_port_needs(
    arguments: tuple[str, ...], says: str, run_here: Callable[..., Ended]
) -> None:
    run_here("commit", "127.0.0.1:1", "x", "--listen-tls", *arguments).check(2, says)


async def test_a_port_for_reports_that_is_taken_is_named(files: list[Path]) -> None:
    async with served(Vault()) as peer:
        port = peer[0].rpartition(":")[2]
        listening = ("--listen-port", port, "--listen-host", "127.0.0.1")
        ended = await run("commit", *peer, files[0], *listening)
    ended.check(1, f"cannot listen on 127.0.0.1, port {port}: Address already in use; ")


async def test_a_peer_without_storage_commitment_is_an_error(
    files: list[Path], keeper: Any
) -> None:
    async with served(keeper) as peer:
        (await run("commit", *peer, files[0])).check(4, "StorageCommitmentPushModel")


async def test_what_is_no_dicom_file_has_failed(files: list[Path], tmp_path: Path) -> None:
    stranger = tmp_path / "notes.txt"
    stranger.write_text("no DICOM")
    async with served(Vault()) as peer:
        ended = await run("commit", *peer, files[0], stranger)
    ended.check(1, f"{stranger}: ")


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
