"""`dimse-trio receive`: a listener as a process."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest
import trio

import dimse_trio as dimse

from .program import Running, run


async def test_instances_are_written_under_their_uids(files: list[Path], tmp_path: Path) -> None:
    async with await Running.start(
        "receive", tmp_path / "in", "--port", 0, "--aet", "WORKSTATION"
    ) as program:
        line = await program.line()
        port = int(line.rpartition(":")[2].split()[0])
        assert line == f"listening on 127.0.0.1:{port} as WORKSTATION"
        peer = (f"127.0.0.1:{port}", "--aec", "WORKSTATION")
        (await run("echo", *peer)).check_done()
        (await run("store", *peer, *files)).check_done()
        (await run("echo", f"127.0.0.1:{port}", "--aec", "OTHER")).check(4)
        program.process.send_signal(signal.SIGTERM)
        ended = await program.ended()
    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")
    uids = {dimse.Instance.from_file(path).sop_instance_uid for path in files}
    assert {path.name for path in (tmp_path / "in").iterdir()} == {f"{uid}.dcm" for uid in uids}


async def test_each_instance_is_a_line_or_an_object(files: list[Path], tmp_path: Path) -> None:
    sent = dimse.Instance.from_file(files[0])
    path = str(tmp_path / f"{sent.sop_instance_uid}.dcm")
    for option in ("--json", "-v"):
        async with await Running.start("receive", tmp_path, "--port", 0, option) as program:
            port = await program.listening()
            peer = (f"127.0.0.1:{port}", "--aec", "DIMSE-TRIO", "--aet", "SENDER")
            (await run("store", *peer, files[0])).check_done()
            line = await program.line()
        if option == "-v":
            assert line == f"{path} {dimse.uid_name(sent.sop_class_uid)}"
        else:
            assert json.loads(line) == {
                "path": path,
                "sop_class_uid": sent.sop_class_uid,
                "sop_instance_uid": sent.sop_instance_uid,
                "transfer_syntax_uid": sent.transfer_syntax_uid,
                "calling_ae_title": "SENDER",
            }


async def test_any_called_ae_title_and_unknown_classes_can_be_let_in(tmp_path: Path) -> None:
    async with await Running.start(
        *("receive", tmp_path, "--port", 0, "--aet", "US", "--max-pdu", 0),
        *("--accept-any-called-aet", "--accept-unknown-storage"),
    ) as program:
        port = await program.listening()
        contexts = [dimse.PresentationContext("1.2.3.4.5")]
        async with dimse.open_association(
            "127.0.0.1", port, called_ae_title="WHOEVER", contexts=contexts
        ) as association:
            assert [c.abstract_syntax for c in association.negotiated.accepted.values()] == [
                "1.2.3.4.5"
            ]
            assert association.negotiated.max_pdu_length == 0


async def test_associations_beyond_the_limit_are_rejected(tmp_path: Path) -> None:
    async with await Running.start(
        "receive", tmp_path, "--port", 0, "--max-associations", 1
    ) as program:
        port = await program.listening()
        async with dimse.open_association("127.0.0.1", port, called_ae_title="DIMSE-TRIO"):
            ended = await run("echo", f"127.0.0.1:{port}", "--aec", "DIMSE-TRIO")
    ended.check(4, "transient", "local limit exceeded")


async def test_a_connection_that_asks_for_nothing_ends_with_artim(tmp_path: Path) -> None:
    async with await Running.start("receive", tmp_path, "--port", 0, "--artim", "0.2") as program:
        port = await program.listening()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            with trio.fail_after(30):
                while await stream.receive_some():
                    pass


async def test_the_port_file_is_there_as_long_as_it_listens(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    async with await Running.start(
        "receive", tmp_path / "in", "--port", 0, "--port-file", port_file
    ) as program:
        port = await program.listening()
        assert port_file.read_text() == f"{port}\n"
        program.process.send_signal(signal.SIGINT)
        assert (await program.ended()).code == 0
    assert not port_file.exists()


async def test_stopped_it_lets_associations_end(tmp_path: Path, files: list[Path]) -> None:
    async with await Running.start("receive", tmp_path, "--port", 0, "--grace", 60) as program:
        port = await program.listening()
        async with dimse.open_association(
            "127.0.0.1",
            port,
            called_ae_title="DIMSE-TRIO",
            contexts=dimse.contexts_for(files[:1]),
        ) as association:
            program.process.send_signal(signal.SIGTERM)
            await _refused(port)
            assert (await association.store(files[0])).status == dimse.Status.SUCCESS
        assert (await program.ended()).code == 0


async def test_stopped_twice_it_does_not_wait(tmp_path: Path) -> None:
    async with await Running.start("receive", tmp_path, "--port", 0, "--grace", 3600) as program:
        port = await program.listening()
        with pytest.raises(dimse.AssociationAborted):
            async with dimse.open_association("127.0.0.1", port, called_ae_title="DIMSE-TRIO"):
                program.process.send_signal(signal.SIGTERM)
                program.process.send_signal(signal.SIGINT)
                await trio.sleep_forever()
        assert (await program.ended()).code == 0


async def _refused(port: int) -> None:
    """Wait until nobody listens there any more."""
    with trio.fail_after(30):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                return
            await stream.aclose()


async def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = await run("receive", tmp_path, "--port", taken.getsockname()[1])
    ended.check(1, "in use")


async def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (await run("receive", tmp_path / "file")).check(2, "is a file")
    (await run("receive", tmp_path / "file" / "below")).check(1, "Not a directory")


async def test_an_instance_that_cannot_be_written_is_refused_and_said(
    files: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    async with await Running.start("receive", folder, "--port", 0) as program:
        port = await program.listening()
        folder.rmdir()
        folder.write_text("now a file")
        ended = await run("store", f"127.0.0.1:{port}", "--aec", "DIMSE-TRIO", files[0])
        ended.check(1, "out of resources (0xa700)")
        program.process.send_signal(signal.SIGINT)
        ended = await program.ended()
    ended.check(0, "an instance could not be written")
