"""What every command does alike: errors, exit codes, help, how fast it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.cli.running import INTERRUPTED, TO_RELEASE, Work
from dimse_trio.protocol.pdus import Abort
from dimse_trio.testing import ScriptedPeer

from .program import COMMAND, Ended, Keeper, environment, run, served

COMMANDS = (
    "echo",
    "probe",
    "find",
    "get",
    "retrieve",
    "move",
    "store",
    "commit",
    "archive",
    "receive",
    "forward",
    "worklist",
    "mpps",
    "ups",
    "dump",
    "create",
    "modify",
    "proxy",
)
CLIENTS: dict[str, tuple[str, ...]] = {
    "echo": (),
    "probe": ("--sop-class", "CT"),
    "find": (),
    "get": ("-k", "StudyInstanceUID=1.2"),
    "retrieve": ("-k", "StudyInstanceUID=1.2"),
    "move": ("-k", "StudyInstanceUID=1.2", "--destination", "X"),
    "store": (),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, files: list[Path]) -> tuple[str, tuple[str, ...]]:
    """Each client command with arguments that do."""
    name: str = request.param
    arguments = CLIENTS[name] if name != "store" else (str(files[0]), str(files[1]))
    return name, arguments


# -- what goes wrong -------------------------------------------------------------------------------


async def test_a_refused_connection(client: tuple[str, tuple[str, ...]], tmp_path: Path) -> None:
    name, arguments = client
    ended = await run(name, "127.0.0.1:1", *arguments, cwd=tmp_path)
    ended.check(3, "no connection to 127.0.0.1:1: Connection refused")


async def test_a_name_that_is_not_found(client: tuple[str, tuple[str, ...]]) -> None:
    name, arguments = client
    (await run(name, "nowhere.invalid:104", *arguments)).check(3, "nowhere.invalid:104: Name")


async def test_a_wrong_ae_title(
    client: tuple[str, tuple[str, ...]], keeper: Keeper, tmp_path: Path
) -> None:
    name, arguments = client
    async with served(keeper) as (address, *_):
        ended = await run(name, address, "--aec", "OTHER", *arguments, cwd=tmp_path)
    ended.check(4, "called ae title not recognized", "the peer is not called 'OTHER'")


async def test_no_acceptable_context(client: tuple[str, tuple[str, ...]], tmp_path: Path) -> None:
    class Nothing:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            yield Dataset()

    name, arguments = client
    contexts = [dimse.PresentationContext("1.2.840.10008.5.1.4.31")]
    async with served(Nothing(), contexts=contexts) as peer:
        ended = await run(name, *peer, *arguments, cwd=tmp_path)
    if name != "store":
        ended.check(4, "presentation context")
        return
    assert ended.code == 4  # and each file is named
    assert len(ended.errors) > 1
    assert all("abstract syntax not supported" in line for line in ended.errors)


@asynccontextmanager
async def raw_peer(
    answer: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncGenerator[str]:
    """A peer that does what it is told with its connections; its address."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_answer(
    client: tuple[str, tuple[str, ...]], tmp_path: Path
) -> None:
    async def say_nothing(stream: trio.SocketStream) -> None:
        async with stream:
            while await stream.receive_some():
                pass

    name, arguments = client
    async with raw_peer(say_nothing) as address:
        ended = await run(name, address, *arguments, "--timeout", 2, cwd=tmp_path)
    ended.check(5, "timed out after 2 s")


async def test_a_command_whose_time_is_over_does_not_wait_for_a_mute_peer_to_release() -> None:
    said: list[object] = []

    async def say_nothing_more(stream: trio.SocketStream) -> None:
        peer = ScriptedPeer(stream)
        await peer.accept()
        with suppress(trio.BrokenResourceError):
            while not isinstance(said[-1] if said else None, Abort):
                said.append(await peer.receive())
        await stream.aclose()

    async with raw_peer(say_nothing_more) as address:
        ended = await run("echo", address, "--timeout", 1)
    ended.check(5, "timed out after 1 s")
    assert isinstance(said[-1], Abort)


async def test_a_command_that_is_stopped_while_it_releases_does_not_wait_for_the_peer(
    autojump_clock: trio.abc.Clock,
) -> None:
    @asynccontextmanager
    async def opening() -> AsyncGenerator[Any]:
        yield None
        await trio.sleep_forever()  # for the answer to A-RELEASE-RQ

    async def associate() -> None:
        async with work.association(opening()):
            pass

    work = Work()
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(associate)
        await trio.sleep(1)
        work.stop(INTERRUPTED)
    assert trio.current_time() - begin == 1 + TO_RELEASE


async def test_a_peer_that_is_no_dicom_application() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_peer(answer) as address:
        ended = await run("echo", address)
    ended.check(4, "abort")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--unknown",), "--unknown"),
        (("sing", "127.0.0.1"), "sing"),
        (("ech", "127.0.0.1"), "Did you mean 'echo'?"),
        (("echo", "http://127.0.0.1:104/"), "write HOST:PORT, and nothing more"),
        (("echo", "ARCHIVE@127.0.0.1:104"), "--aec"),
        (("echo", "127.0.0.1", "11112"), "(11112); a peer is HOST:PORT"),
        (("echo",), "PEER"),
        (("echo", "127.0.0.1:0"), "port"),
        (("echo", "127.0.0.1:99999"), "port"),
        (("echo", "127.0.0.1:x"), "port"),
        (("echo", "127.0.0.1:"), "port"),
        (("echo", ":104"), "host"),
        (("echo", "::1"), "brackets"),
        (("echo", "[::1"), "[::1]:11112"),
        (("echo", "127.0.0.1:1", "--timeout", "0"), "--timeout"),
        (("echo", "127.0.0.1:1", "--timeout", "nan"), "'nan' is not a number"),
        (("echo", "127.0.0.1:1", "--connect-timeout", "NaN"), "'NaN' is not a number"),
        (("receive", "x", "--artim", "nan"), "'nan' is not a number"),
        (("receive", "x", "--grace", "nan"), "'nan' is not a number"),
        (("echo", "127.0.0.1:1", "--max-pdu", "5"), "at least 128 bytes"),
        (("echo", "127.0.0.1:1", "--peers-file", "missing.toml"), "missing.toml"),
        (("echo", "127.0.0.1:1", "--tls-ca", "missing.pem"), "--tls-ca missing.pem: No such file"),
        (("echo", "127.0.0.1:1", "--tls-key", "missing.pem"), "--tls-key needs --tls-cert"),
        (("echo", "127.0.0.1:1", "--tls-cert", __file__), "no certificate in PEM"),
        (("echo", "127.0.0.1:1", "--tls-ca", __file__), "no certificate in PEM"),
        (("store", "127.0.0.1:1"), "PATH"),
        (("store", "127.0.0.1:1", "x", "--jobs", "0"), "--jobs"),
        (("receive",), "FOLDER"),
        (("receive", "x", "--port", "-1"), "--port"),
        (("receive", "x", "--tls-ca", __file__), "needs --tls-cert"),
        (("archive", "x", "--peer", "WS"), "--peer WS"),
        (("forward",), "PEER"),
        (("forward", "WS"), "WS: write TITLE=HOST:PORT"),
        (("forward", "WS=a:1", "WS=b:1"), "WS is there twice"),
        (("archive", "x", "--peer", "WS=a:b"), "port"),
        (("find", "127.0.0.1:1", "--json", "--csv"), "--json or --csv"),
        (("echo", os.fsdecode(b"M\xfcller")), "argument M?ller is not UTF-8"),
        (("create", "x", os.fsdecode(b"PatientName=M\xfcller")), "is not UTF-8"),
    ],
)
def test_a_wrong_command_line(
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_here: Callable[..., Ended],
) -> None:
    monkeypatch.chdir(tmp_path)
    run_here(*arguments).check(2, says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--aec", "LONGER THAN SIXTEEN"), "1 to 16 characters"),
        (("--aec", ""), "1 to 16 characters"),
        (("--aet", "BACK\\SLASH"), "backslash"),
    ],
)
async def test_a_wrong_ae_title_of_ours(arguments: tuple[str, ...], says: str) -> None:
    (await run("echo", "127.0.0.1:1", *arguments)).check(2, says)


async def test_a_wrong_option_is_one_line() -> None:
    (await run("echo", "127.0.0.1:1", "--aex", "X")).check(2, "--aex")


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_which(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from dimse_trio.cli import main; sys.exit(main(['--help']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f'dimse-trio: needs {missing}, which come with the extra cli: pip install "dimse-trio[cli]"'
    ]


def test_without_the_archives_extra_it_says_which(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        f"from dimse_trio.cli import main; sys.exit(main(['archive', {str(tmp_path)!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert 'pip install "dimse-trio[archive]"' in result.stderr


# -- the program itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command: str, run_here: Callable[..., Ended]) -> None:
    ended = run_here(command, "--help").check_done()
    assert f"dimse-trio {command} " in ended.stdout.partition("Examples:")[2]
    assert "  0 " in ended.stdout.partition("Exit codes:")[2]


async def test_without_a_command_it_helps() -> None:
    ended = (await run()).check_done()
    assert all(f"\n  {command} " in ended.stdout for command in COMMANDS)


async def test_version() -> None:
    assert (await run("--version")).check_done().stdout == f"dimse-trio {dimse.__version__}\n"


async def test_echo_in_three_forms(tmp_path: Path) -> None:
    async with served(Keeper(tmp_path)) as peer:
        text = (await run("echo", *peer)).check_done().stdout
        (row,) = (await run("echo", *peer, "--json")).check_done().objects
        table = (await run("echo", *peer, "--csv")).check_done().stdout.splitlines()
    assert text.startswith(f"Success (0x0000): KEEPER at {peer[0]} answered in ")
    assert (row["status"], row["meaning"]) == (0, "Success")
    assert table[0].startswith("called_ae_title,host,port,status,")
    assert table[1].startswith("KEEPER,127.0.0.1,")


async def test_a_failure_status_of_c_echo(tmp_path: Path) -> None:
    class Sick(Keeper):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            raise dimse.StatusError(0x0122, "unwell")

    async with served(Sick(tmp_path)) as peer:
        (await run("echo", *peer)).check(1, "SOP class not supported (0x0122): unwell")


async def test_verbose_says_more_without_patient_data(keeper: Keeper) -> None:
    async with served(keeper) as peer:
        ended = await run("find", *peer, "-vv", "-k", "PatientID=TRIO-1")
    assert ended.code == 0
    assert "TRIO-1" not in ended.stderr
    assert "Interop" not in ended.stderr


async def test_a_command_imports_only_what_it_needs(tmp_path: Path) -> None:
    async with served(Keeper(tmp_path)) as peer:
        result = await trio.run_process(
            [COMMAND[0], "-X", "importtime", *COMMAND[1:], "echo", *peer],
            capture_stdout=True,
            capture_stderr=True,
            env=environment(),
        )
    imported = {
        line.rpartition(b"|")[2].strip().decode().partition(".")[0]
        for line in result.stderr.splitlines()
    }
    assert "dimse_trio" in imported
    assert imported.isdisjoint({"pydicom", "numpy", "sqlalchemy", "rich", "asyncio"})


def test_a_file_may_have_any_name(tmp_path: Path, run_here: Callable[..., Ended]) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"M\xfcller.dcm")
    with open(path, "wb") as file:
        file.write(b"nothing")
    run_here("dump", os.fsdecode(path)).check(1, "not a DICOM file")


def test_a_host_that_cannot_be_listened_on_is_told_in_words_of_the_command_line(
    tmp_path: Path, run_here: Callable[..., Ended]
) -> None:
    ended = run_here("receive", tmp_path / "got", "--host", "192.0.2.1", "--port", 0)
    ended.check(1, "or * for all of them")
