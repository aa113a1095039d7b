"""`dimse-trio archive`: all commands against each other, as processes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

import dimse_trio as dimse

from .program import Running, run


async def archive(folder: Path, *more: object) -> Running:
    return await Running.start("archive", folder, "--port", 0, "--aet", "ARCHIVE", *more)


async def test_it_keeps_finds_and_sends(files: list[Path], study_uid: str, tmp_path: Path) -> None:
    uids = {dimse.Instance.from_file(path).sop_instance_uid for path in files}
    key = ("-k", f"StudyInstanceUID={study_uid}")
    async with await Running.start(
        "receive", tmp_path / "moved", "--port", 0, "--aet", "WORKSTATION"
    ) as workstation:
        address = f"127.0.0.1:{await workstation.listening()}"
        async with await archive(
            tmp_path / "archive", "--peer", f"WORKSTATION={address}"
        ) as server:
            line = await server.line()
            port = int(line.rpartition(":")[2].split()[0])
            assert line == f"listening on 127.0.0.1:{port} as ARCHIVE"
            peer = (f"127.0.0.1:{port}", "--aec", "ARCHIVE")
            (await run("echo", *peer)).check_done()
            (await run("store", *peer, *files)).check_done()
            found = await run("find", *peer, "--level", "image", *key, "--json")
            got = await run("get", *peer, *key, "--output", tmp_path / "got")
            moved = await run("move", *peer, *key, "--destination", "WORKSTATION", "--json")
            server.process.send_signal(signal.SIGTERM)
            ended = await server.ended()
    assert (ended.code, ended.stderr) == (0, "")
    assert {match["00080018"]["Value"][0] for match in found.check_done().objects} == uids
    assert got.check_done().stdout.startswith(f"{len(files)} instances, ")
    assert {path.stem for path in (tmp_path / "got").iterdir()} == uids
    assert moved.check_done().objects[0]["completed"] == len(files)
    assert {path.stem for path in (tmp_path / "moved").iterdir()} == uids


@pytest.mark.parametrize(("policy", "code"), [("error", 1), ("transcode", 0)])
async def test_it_decompresses_for_a_receiver_if_it_is_told_to(
    study: dict[str, Any], tmp_path: Path, policy: str, code: int
) -> None:
    received: list[str] = []

    class Plain:
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            received.append(request.transfer_syntax_uid)
            return dimse.Status.SUCCESS

    rle = study["RLELossless"].path
    instance = dimse.Instance.from_file(rle)
    plain = "1.2.840.10008.1.2.1"
    contexts = [dimse.PresentationContext(instance.sop_class_uid, (plain,))]
    async with dimse.open_server(Plain(), contexts=contexts) as receiver:
        peers = ("--peer", f"WS=127.0.0.1:{receiver.port}", "--on-mismatch", policy)
        async with await archive(tmp_path / "archive", *peers) as server:
            peer = (f"127.0.0.1:{await server.listening()}", "--aec", "ARCHIVE")
            (await run("store", *peer, rle)).check_done()
            key = ("-k", f"SOPInstanceUID={instance.sop_instance_uid}", "--level", "image")
            ended = await run("move", *peer, *key, "--destination", "WS")
    assert (ended.code, received) == (code, [plain] * (policy == "transcode"))


@pytest.mark.parametrize("option", [(), ("--rebuild-index",)])
async def test_what_it_kept_is_there_after_a_restart(
    files: list[Path], tmp_path: Path, option: tuple[str, ...]
) -> None:
    for options, found in (((), 0), (option, len(files))):
        async with await archive(tmp_path / "archive", *options) as server:
            peer = (f"127.0.0.1:{await server.listening()}", "--aec", "ARCHIVE")
            ended = await run("find", *peer, "--level", "image", "--json")
            assert len(ended.objects) == found
            (await run("store", *peer, *files)).check_done()
            server.process.send_signal(signal.SIGINT)
            assert (await server.ended()).code == 0


async def test_destinations_may_be_named_in_the_peers_file(
    files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    async with await Running.start(
        "receive", tmp_path / "moved", "--port", 0, "--aet", "WS-AET"
    ) as workstation:
        peers = tmp_path / "p.toml"
        peers.write_text(
            f"[WS]\nhost = '127.0.0.1'\nport = {await workstation.listening()}\n"
            "ae_title = 'WS-AET'\n"
        )
        options = ("--peers-file", peers, "--peer", "WS", "--peer", "OTHER=WS")
        async with await archive(tmp_path / "archive", *options) as server:
            peer = (f"127.0.0.1:{await server.listening()}", "--aec", "ARCHIVE")
            (await run("store", *peer, *files)).check_done()
            for title in ("WS-AET", "OTHER"):
                (
                    await run(
                        *("move", *peer, "-k", f"StudyInstanceUID={study_uid}"),
                        *("--destination", title),
                    )
                ).check_done()


async def test_a_folder_that_another_has_open_is_one_line(tmp_path: Path) -> None:
    async with await archive(tmp_path) as server:
        await server.listening()
        (await run("archive", tmp_path, "--port", 0)).check(1)


async def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (await run("archive", tmp_path / "file" / "below", "--port", 0)).check(1)


async def test_verbose_it_says_what_it_holds_without_patient_data(
    files: list[Path], tmp_path: Path
) -> None:
    async with await archive(tmp_path, "-vv") as server:
        peer = (f"127.0.0.1:{await server.listening()}", "--aec", "ARCHIVE")
        (await run("store", *peer, *files)).check_done()
        (await run("find", *peer, "-k", "PatientID=TRIO-1", "--json")).check_done()
        server.process.send_signal(signal.SIGTERM)
        ended = await server.ended()
    assert "the archive holds 0 instances in 0 studies" in ended.stderr
    assert "TRIO-1" not in ended.stderr
    assert "Interop" not in ended.stderr
