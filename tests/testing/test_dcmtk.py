"""The runners: how programs are found, started, ended, and what they tell."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from dimse_trio import Instance, uid_of
from dimse_trio.testing import dcmtk as runners
from dimse_trio.testing.dcmtk import programs

EXPLICIT = uid_of("ExplicitVRLittleEndian")
VERSION = 'if [ "$1" = --version ]; then echo "\\$dcmtk: $0 v0"; exit; fi\n'

Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a program of that name, a shell script, before all others on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{VERSION}{script}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return put


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# -- finding programs ----------------------------------------------------------------------------


def test_a_missing_program_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not runners.available()
    with pytest.raises(runners.ProgramMissing, match="apt-get install dcmtk") as caught:
        runners.find_program("storescp")
    assert isinstance(caught.value, FileNotFoundError)


async def test_a_missing_program_is_noticed_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(runners.ProgramMissing):
        async with runners.storescp(tmp_path / "in"):
            pass
    with pytest.raises(runners.ProgramMissing):
        await runners.echoscu(104)


def test_programs_of_the_same_name_are_passed_over(install: Install) -> None:
    """pynetdicom installs an `echoscu` of its own, in Python; another may be anything."""
    python = install("echoscu", "#!/usr/bin/env python\n")
    other = install("findscu", "#!/bin/sh\necho findscu v1\n")
    ours = install("getscu", "")
    for name, path in (("echoscu", python), ("findscu", other)):
        with suppress(runners.ProgramMissing):  # there may be no other
            assert runners.find_program(name) != str(path)
    assert runners.find_program("getscu") == str(ours)


# -- programs that end ---------------------------------------------------------------------------


async def test_a_program_s_arguments_and_environment(install: Install) -> None:
    install("echoscu", 'echo "$@"; echo "nodelay $TCP_NODELAY" >&2')
    result = await runners.echoscu(
        11112, called_ae_title="THEM", calling_ae_title="US", timeout=7, options=["--repeat", "3"]
    )
    assert result.stdout == ("-v -aec THEM -aet US -to 7 -ta 7 -td 7 --repeat 3 127.0.0.1 11112\n")
    assert result.stderr == "nodelay 1\n"
    assert result.output == result.stdout + result.stderr
    assert result.returncode == 0
    assert result.command[0] == "echoscu"


async def test_a_program_that_fails(install: Install) -> None:
    install("echoscu", "echo it is broken >&2; exit 3")
    with pytest.raises(runners.ProgramFailed, match="return code 3\nit is broken") as caught:
        await runners.echoscu(104)
    assert caught.value.completed.returncode == 3
    result = await runners.echoscu(104, check=False)
    assert (result.returncode, result.stderr) == (3, "it is broken\n")


async def test_files_that_a_program_writes(install: Install, tmp_path: Path) -> None:
    """Those that were there before are not among them."""
    install("getscu", "touch b.dcm a.dcm")
    folder = tmp_path / "new" / "folder"
    folder.mkdir(parents=True)
    (folder / "old.dcm").touch()
    result = await runners.getscu(104, {}, folder)
    assert result.files == (folder / "a.dcm", folder / "b.dcm")


async def test_keys_and_transfer_syntaxes_become_options(install: Install, tmp_path: Path) -> None:
    for name in ("findscu", "getscu", "movescu", "storescu"):
        install(name, 'echo "$@"')
    keys = {"QueryRetrieveLevel": "STUDY", "PatientName": ""}
    asked = "-k QueryRetrieveLevel=STUDY -k PatientName="
    common = "-v -aec ANY-SCP -aet {} -to 30 -ta 30 -td 30"
    found = await runners.findscu(
        104, keys, folder=tmp_path, transfer_syntax=EXPLICIT, cancel_after=2
    )
    got = await runners.getscu(104, keys, tmp_path, transfer_syntax=EXPLICIT, model="-P")
    moved = await runners.movescu(104, keys, destination="WS", receive_on=99, folder=tmp_path)
    stored = await runners.storescu(104, "a.dcm", "b.dcm", transfer_syntax=EXPLICIT)
    assert [result.stdout.strip() for result in (found, got, moved, stored)] == [
        f"{common.format('FINDSCU')} -X -od {tmp_path} -S -xe --cancel 2 {asked} 127.0.0.1 104",
        f"{common.format('GETSCU')} -od {tmp_path} -P +xe {asked} +B 127.0.0.1 104",
        f"{common.format('MOVESCU')} -od {tmp_path} +B +xa +P 99 -aem WS -S {asked} 127.0.0.1 104",
        f"{common.format('STORESCU')} -xe -R 127.0.0.1 104 a.dcm b.dcm",
    ]


async def test_a_transfer_syntax_without_an_option() -> None:
    with pytest.raises(ValueError, match=r"no option for transfer syntax 1\.2\.3"):
        await runners.storescu(104, transfer_syntax="1.2.3")


async def test_a_cancelled_program_is_ended(install: Install, tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    install("echoscu", f'echo $$ > "{started}"; exec sleep 1000')
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runners.echoscu, 104)
        async with await trio.open_file(started) as pipe:
            pid = int(await pipe.read())
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# -- programs that listen ------------------------------------------------------------------------


async def test_a_listener_that_does_not_start(install: Install, tmp_path: Path) -> None:
    install("storescp", "echo no such option >&2; exit 1")
    with pytest.raises(runners.DcmtkError, match="storescp ended by itself") as caught:
        async with runners.storescp(tmp_path):
            pass
    assert "no such option" in str(caught.value)


async def test_a_listener_that_never_answers(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "START_TIMEOUT", 0.2)
    install("storescp", "echo thinking; exec sleep 1000")
    with pytest.raises(runners.DcmtkError, match="does not answer on port") as caught:
        async with runners.storescp(tmp_path):
            pass
    assert "thinking" in str(caught.value)


async def test_a_program_that_does_not_want_to_end_is_killed(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "START_TIMEOUT", 0.2)
    monkeypatch.setattr(programs, "END_TIMEOUT", 0.1)
    install("storescp", "trap '' TERM; echo $$; while true; do sleep 1000; done")
    with pytest.raises(runners.DcmtkError, match="does not answer") as caught:
        async with runners.storescp(tmp_path):
            pass
    with pytest.raises(ProcessLookupError):
        os.kill(int(str(caught.value).splitlines()[1]), 0)


@pytest.mark.interop
async def test_a_listener_listens_as_long_as_its_block(dcmtk: Any, tmp_path: Path) -> None:
    before = open_files()
    async with dcmtk.storescp(tmp_path, ae_title="STORE") as peer:
        assert peer.running
        assert repr(peer) == f"<storescp STORE on 127.0.0.1:{peer.port}>"
        result = await dcmtk.echoscu(peer.port)
        assert "Received Echo Request" in peer.log
    assert not peer.running
    assert "Received Echo Request" in peer.log
    assert "Received Echo Response (Success)" in result.output
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream(peer.host, peer.port)
    assert open_files() == before


@pytest.mark.interop
@pytest.mark.parametrize("program", ["storescp", "dcmqrscp", "wlmscpfs"])
async def test_what_a_listener_has_forked_ends_with_it(
    dcmtk: Any, tmp_path: Path, program: str
) -> None:
    """Each connection has a process of its own, which would wait 30 s for its request."""
    async with getattr(dcmtk, program)(tmp_path) as peer:
        stream = await trio.open_tcp_stream(peer.host, peer.port)
    with trio.fail_after(10), suppress(trio.BrokenResourceError):
        assert await stream.receive_some() == b""
    await stream.aclose()


@pytest.mark.interop
async def test_a_listener_that_dies_fails_its_block(dcmtk: Any, tmp_path: Path) -> None:
    with pytest.raises(dcmtk.DcmtkError, match=r"storescp ended by itself \(-9\)"):
        async with dcmtk.storescp(tmp_path) as peer:
            os.kill(peer.pid, signal.SIGKILL)
            await peer.wait()
    assert not peer.running


@pytest.mark.interop
async def test_the_body_s_exception_comes_first(dcmtk: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with dcmtk.storescp(tmp_path) as peer:
            raise KeyError("from the body")
    assert not peer.running


@pytest.mark.interop
async def test_a_listener_cancelled_while_it_starts(dcmtk: Any, tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with dcmtk.storescp(tmp_path):
            pytest.fail("entered")
    assert scope.cancelled_caught


@pytest.mark.interop
async def test_a_taken_port_is_left_for_another(
    dcmtk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with dcmtk.storescp(tmp_path / "one") as one:
        other = dcmtk.free_port()
        monkeypatch.setattr(programs.random, "sample", lambda *_: [one.port, other])
        async with dcmtk.storescp(tmp_path / "two") as two:
            assert two.port == other


@pytest.mark.interop
async def test_an_archive_with_files_to_begin_with(
    dcmtk: Any, study: dict[str, Any], tmp_path: Path
) -> None:
    files = [sample.path for sample in study.values()]
    async with dcmtk.dcmqrscp(tmp_path, *files) as peer:
        assert [Instance.from_file(path).sop_instance_uid for path in peer.files()] == [
            sample.sop_instance_uid for sample in study.values()
        ]
        result = await dcmtk.findscu(
            peer.port,
            {"QueryRetrieveLevel": "STUDY", "PatientName": "Interop*"},
            folder=tmp_path / "found",
            called_ae_title=peer.ae_title,
        )
    assert len(result.files) == 1
