"""`dimse-trio proxy`: what goes by is passed on as it is, and said."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

import dimse_trio as dimse
from dimse_trio.relay import MessageRelayed, Passage, open_relay

from .program import Ended, Keeper, Running, run, served

EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")
TITLE = ("--aec", "KEEPER")


@asynccontextmanager
async def proxied(*arguments: object, peer: str) -> AsyncGenerator[tuple[Running, str]]:
    """The proxy of a peer, and its own address."""
    async with await Running.start("proxy", peer, "--listen", 0, *arguments) as program:
        yield program, f"127.0.0.1:{await program.listening()}"


async def stopped(program: Running) -> Ended:
    """What it has said besides what was read, once it is stopped."""
    program.process.send_signal(signal.SIGINT)
    ended = await program.ended()
    assert (ended.code, ended.stderr) == (0, "")
    return ended


@pytest.mark.interop
async def test_dcmtks_clients_work_through_it(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    capture = tmp_path / "session.pcapng"
    keeper.files.clear()
    native = next(
        path
        for path in files
        if dimse.Instance.from_file(path).transfer_syntax_uid
        == dimse.uid_of("ExplicitVRLittleEndian")
    )
    async with (
        served(keeper) as (address, *_),
        proxied("--capture", capture, "--json", peer=address) as (program, own),
    ):
        there = ["-aec", "KEEPER", "127.0.0.1", own.rpartition(":")[2]]
        await trio.run_process(["echoscu", *there])
        await trio.run_process(["storescu", *there, str(native)])
        query = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study_uid}"]
        await trio.run_process(["findscu", "-S", *query, *there])
        ended = await stopped(program)
    said = [row["message"] for row in ended.objects if row["event"] == "message"]
    assert said == [
        *("C-ECHO-RQ", "C-ECHO-RSP", "C-STORE-RQ", "C-STORE-RSP"),
        *("C-FIND-RQ", "C-FIND-RSP", "C-FIND-RSP"),
    ]
    pdus = [row["pdu"] for row in ended.objects if row["event"] == "pdu"]
    one = ["A-ASSOCIATE-RQ", "A-ASSOCIATE-AC", "A-RELEASE-RQ", "A-RELEASE-RP"]
    assert pdus == one * 3
    (kept,) = keeper.files.values()
    sent, received = dimse.Instance.from_file(native), dimse.Instance.from_file(kept)
    assert received.sop_instance_uid == sent.sop_instance_uid
    assert study_uid not in ended.stdout
    assert sent.sop_instance_uid not in ended.stdout
    tshark = ["tshark", "-r", str(capture), "-Y", "dicom"]
    seen = (
        await trio.run_process(tshark, capture_stdout=True, capture_stderr=True)
    ).stdout.decode()
    for words in ("A-ASSOCIATE request FINDSCU", "C-STORE-RQ", "C-FIND-RQ", "A-RELEASE response"):
        assert words in seen


async def test_it_says_in_words_what_goes_by(keeper: Keeper) -> None:
    async with (
        served(keeper) as (address, *_),
        proxied(peer=address) as (program, own),
    ):
        (await run("find", own, *TITLE, "-k", "PatientID=TRIO-1")).check_done()
        (await run("echo", own, "--aec", "OTHER")).check(4, "called ae title not recognized")
        lines = (await stopped(program)).stdout.splitlines()
    text = "\n".join(lines)
    for words in (
        "[1] client: A-ASSOCIATE-RQ, 'DIMSE-TRIO' to 'KEEPER', 2 presentation contexts",
        "[1]     1: StudyRootQueryRetrieveInformationModelFind in ",
        "[1] client: C-FIND-RQ, Message ID 1, StudyRootQueryRetrieveInformationModelFind, data set",
        "[1] peer: C-FIND-RSP, Message ID 1, StudyRootQueryRetrieveInformationModelFind, Success",
        "[1] peer: A-RELEASE-RP",
        "[2] peer: A-ASSOCIATE-RJ, ",
    ):
        assert words in text
    assert "TRIO-1" not in text
    assert [line for line in lines if "closed after" in line and ";" in line] == []


async def test_data_sets_are_said_only_when_asked_for(keeper: Keeper) -> None:
    async with (
        served(keeper) as (address, *_),
        proxied("--data-sets", "--json", peer=address) as (program, own),
    ):
        (await run("find", own, *TITLE, "-k", "PatientID=TRIO-1")).check_done()
        rows = (await stopped(program)).objects
    (request,) = [row for row in rows if row.get("message") == "C-FIND-RQ"]
    assert request["data_set"]["00100020"]["Value"] == ["TRIO-1"]


async def test_a_peer_that_is_not_there(tmp_path: Path) -> None:
    async with proxied("--json", peer="127.0.0.1:1") as (program, own):
        ended = await run("echo", own)
        assert ended.code == 4
        (row,) = (await stopped(program)).objects
    assert row["event"] == "closed"
    assert "Connection refused" in row["error"]


@pytest.mark.interop
@pytest.mark.parametrize("grace", [0, 0.2])
async def test_connections_that_are_open_when_it_is_stopped_are_said_to_be_closed(
    keeper: Keeper, tmp_path: Path, grace: float
) -> None:
    capture = tmp_path / "session.pcapng"
    async with (
        served(keeper) as (address, *_),
        proxied("--grace", grace, "--capture", capture, peer=address) as (program, own),
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", int(own.rpartition(":")[2]))
        await stream.send_all(b"\1\0\0")
        assert (await program.line()).startswith("[1] connection from ")
        ended = await stopped(program)
        await stream.aclose()
    (line,) = ended.stdout.splitlines()
    assert line.startswith("[1] closed after ")
    assert line.endswith("; the relay was stopped")
    tshark = ["tshark", "-r", str(capture), "-Y", "tcp.flags.fin == 1"]
    seen = await trio.run_process(tshark, capture_stdout=True, capture_stderr=True)
    assert len(seen.stdout.splitlines()) == 2


async def test_what_is_not_dicom_is_passed_on() -> None:
    """In both directions, with the end of one before that of the other."""
    body = bytes(range(256)) * 4096

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            asked = b"".join([data async for data in stream])  # to its end
            await stream.send_all(b"HTTP/1.0 200 OK\r\n\r\n" + asked)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        peer = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with proxied("--json", peer=peer) as (program, own):
            stream = await trio.open_tcp_stream("127.0.0.1", int(own.rpartition(":")[2]))
            with trio.fail_after(30):
                await stream.send_all(b"GET / HTTP/1.0\r\n\r\n" + body)
                await stream.send_eof()
                got = b"".join([data async for data in stream])
            await stream.aclose()
            rows = (await stopped(program)).objects
        nursery.cancel_scope.cancel()
    assert got == b"HTTP/1.0 200 OK\r\n\r\nGET / HTTP/1.0\r\n\r\n" + body
    assert [(row["event"], row.get("from")) for row in rows] == [
        *(("opened", None), ("pdu", "client"), ("pdu", "peer"), ("closed", None))
    ]
    assert "this is HTTP" in rows[1]["error"]
    assert rows[-1]["bytes_from_client"] == len(body) + 18
    assert rows[-1]["error"] is None


async def test_a_side_that_does_not_read_slows_the_other_down() -> None:
    """Megabytes are not taken from the client while nobody takes them."""
    taken: list[int] = []

    async def ignore(stream: trio.SocketStream) -> None:
        taken.append(1)
        await trio.sleep_forever()

    async def on_passage(passage: Passage) -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        nursery.start_soon(trio.serve_listeners, ignore, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with open_relay("127.0.0.1", port, on_passage=on_passage) as relay:
            stream = await trio.open_tcp_stream("127.0.0.1", relay.port)
            sent = 0
            with trio.move_on_after(1):
                while sent < 1 << 28:
                    await stream.send_all(bytes(1 << 16))
                    sent += 1 << 16
            assert 0 < sent < 1 << 25
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def test_connections_are_relayed_at_once_and_bytes_do_not_change(
    keeper: Keeper, files: list[Path]
) -> None:
    async with (
        served(keeper) as (address, *_),
        proxied("--json", peer=address) as (program, own),
    ):
        keeper.files.clear()
        (await run("store", own, *TITLE, *files, "--jobs", 4)).check_done()
        rows = (await stopped(program)).objects
    assert {row["connection"] for row in rows} == {1, 2, 3, 4}
    for path in files:
        instance = dimse.Instance.from_file(path)
        kept = dimse.Instance.from_file(keeper.files[instance.sop_instance_uid])
        data_set = path.read_bytes()[instance.offset :]
        assert kept.path.read_bytes()[kept.offset :][: len(data_set)] == data_set


async def test_tls_on_either_side(keeper: Keeper, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    ca, server = ("--tls-ca", tmp_path / "ca.pem"), tmp_path / "server.pem"
    context = dimse.tls_profile("bcp195", server=True, certificate=server)
    async with served(keeper, ssl_context=context) as (address, *_):
        async with proxied("--json", *ca, peer=address) as (program, own):
            (await run("echo", own, *TITLE)).check_done()
            assert (await stopped(program)).objects[-1]["error"] is None
        both = ("--json", *ca, "--listen-tls-cert", server)
        async with proxied(*both, peer=address) as (program, own):
            (await run("echo", own, *TITLE, *ca)).check_done()
            rows = (await stopped(program)).objects
    assert [row["message"] for row in rows if row["event"] == "message"] == [
        *("C-ECHO-RQ", "C-ECHO-RSP")
    ]
    assert rows[-1]["error"] is None


async def test_instruments_watch_it_as_an_acceptor(keeper: Keeper, tmp_path: Path) -> None:
    class Watching(dimse.Instrument):
        def __init__(self) -> None:
            self.said: list[str] = []

        def operation_finished(self, end: object, /) -> None:
            self.said.append(repr(end))

    watching, messages = Watching(), list[MessageRelayed]()

    async def on_passage(passage: Passage) -> None:
        if isinstance(passage, MessageRelayed):
            messages.append(passage)

    async with dimse.open_server(keeper, ae_title="KEEPER") as server:
        async with (
            open_relay(
                "127.0.0.1",
                server.port,
                on_passage=on_passage,
                data_set_limit=1 << 16,
                instruments=[watching],
            ) as relay,
            dimse.open_association(
                "127.0.0.1", relay.port, called_ae_title="KEEPER"
            ) as association,
        ):
            await association.echo()
            found = await association.find(dimse.query("STUDY", PatientID="TRIO-1"))
    assert len(watching.said) == 2
    assert "Success" in watching.said[0]
    identifier = messages[2].decode()
    assert identifier is not None
    assert identifier.PatientID == "TRIO-1"
    assert len(messages) == 4 + len(found)
    assert "TRIO-1" not in repr(messages)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("127.0.0.1:1",), "--listen"),
        (("127.0.0.1:1", "--listen", "x"), "--listen"),
        (("127.0.0.1:1", "--listen", "99999"), "HOST:PORT"),
        (("127.0.0.1:1", "--listen", "0", "--listen-tls-ca", __file__), "needs --tls-cert"),
    ],
)
def test_a_wrong_command_line(
    arguments: tuple[str, ...], says: str, run_here: Callable[..., Ended]
) -> None:
    run_here("proxy", *arguments).check(2, says)
