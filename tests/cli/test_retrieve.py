"""`dimse-trio retrieve`: what matches comes, by C-GET or C-MOVE, and what does not is said."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pydicom
import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.testing import dcmtk as programs

from .program import Ended, Keeper, Running, run, served


@attrs.define
class WithoutGet:
    """What a keeper has, by C-FIND and C-MOVE only."""

    keeper: Keeper

    def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        return self.keeper.handle_find(request)

    def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Path]:
        return self.keeper.handle_move(request)


@attrs.define
class Losing:
    """What a keeper has, but for one instance that C-GET leaves out, or cannot send."""

    keeper: Keeper
    lost: str
    says_so: bool = False

    def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        return self.keeper.handle_find(request)

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        async for path in self.keeper.handle_get(request):
            if path != self.keeper.files[self.lost]:
                yield path
        if self.says_so:
            yield self.keeper.folder / "missing.dcm"


@pytest.mark.parametrize("jobs", [1, 3])
async def test_what_other_keys_match_comes_as_it_is(
    keeper: Keeper, files: list[Path], tmp_path: Path, jobs: int
) -> None:
    patient = pydicom.dcmread(files[0]).PatientID
    target = tmp_path / "got"
    async with served(keeper) as peer:
        ended = await run(
            *("retrieve", *peer, "-k", f"PatientID={patient}", "--output", target),
            *("--json", "--jobs", jobs),
        )
    rows = {row["sop_instance_uid"]: row for row in ended.check_done().objects}
    assert set(rows) == set(keeper.files)
    for uid, path in keeper.files.items():
        sent = dimse.Instance.from_file(path)
        assert rows[uid] == {
            "path": str(target / f"{uid}.dcm"),
            "sop_class_uid": sent.sop_class_uid,
            "sop_instance_uid": uid,
            "transfer_syntax_uid": sent.transfer_syntax_uid,
            "error": None,
        }
        got = dimse.Instance.from_file(target / f"{uid}.dcm")
        data_set = path.read_bytes()[sent.offset :]
        assert got.path.read_bytes()[got.offset :][: len(data_set)] == data_set


async def test_a_peer_without_c_get_sends_to_a_listener(
    keeper: Keeper, study_uid: str, tmp_path: Path
) -> None:
    port = programs.free_port()
    key = ("-k", f"StudyInstanceUID={study_uid}")
    async with served(WithoutGet(keeper), peers={"US": ("127.0.0.1", port)}) as peer:
        ended = await run(
            *("retrieve", *peer, *key, "--aet", "US", "--output", tmp_path / "got"),
            *("--listen-port", port, "--listen-host", "127.0.0.1"),
        )
        refused = await run("retrieve", *peer, *key, "--output", tmp_path / "none")
    assert ended.check_done().stdout.startswith(f"{len(keeper.files)} instances, ")
    assert {path.stem for path in (tmp_path / "got").iterdir()} == set(keeper.files)
    refused.check(4, "give --listen-port")


@pytest.mark.interop
@pytest.mark.parametrize("method", ["get", "move"])
async def test_dcmqrscp_is_retrieved_from_either_way(
    dcmtk: Any, files: list[Path], study_uid: str, tmp_path: Path, method: str
) -> None:
    native = [
        path
        for path in files
        if dimse.Instance.from_file(path).transfer_syntax_uid == "1.2.840.10008.1.2.1"
    ]
    port = dcmtk.free_port()
    async with dcmtk.dcmqrscp(
        tmp_path / "qr", *native, peers={"US": ("127.0.0.1", port)}
    ) as archive:
        ended = await run(
            *("retrieve", f"127.0.0.1:{archive.port}", "--aec", "DCMQRSCP", "--aet", "US"),
            *("-k", f"StudyInstanceUID={study_uid}", "--method", method, "--jobs", 2),
            *("--listen-port", port, "--listen-host", "127.0.0.1", "--output", tmp_path / "got"),
        )
    assert ended.check_done().stdout.startswith(f"{len(native)} instance")


@pytest.mark.parametrize("says_so", [False, True])
async def test_what_does_not_come_is_a_row_and_an_error(
    keeper: Keeper, study_uid: str, tmp_path: Path, says_so: bool
) -> None:
    lost = next(iter(keeper.files))
    async with served(Losing(keeper, lost, says_so)) as peer:
        ended = await run(
            *("retrieve", *peer, "-k", f"StudyInstanceUID={study_uid}", "--output", tmp_path),
            "--json",
        )
    ended.check(1, f"1 of {len(keeper.files)} instances did not arrive: {lost}")
    (row,) = [row for row in ended.objects if row["error"] is not None]
    assert (row["sop_instance_uid"], row["path"], row["error"]) == (lost, None, "not received")


async def test_nothing_that_matches_is_said(keeper: Keeper, tmp_path: Path) -> None:
    async with served(keeper) as peer:
        ended = await run("retrieve", *peer, "-k", "PatientID=NOBODY", "--output", tmp_path)
    ended.check(1, "nothing was retrieved")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say what to retrieve"),
        (("-k", "PatientID"), "say what to retrieve"),
        (("-k", "PatientName=*"), "say what to retrieve"),
        (("-k", "PatientID=1", "--method", "move"), "needs --listen-port"),
        (("-k", "PatientIDD=1"), "PatientID"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: tuple[str, ...], says: str, run_here: Callable[..., Ended]
) -> None:
    run_here("retrieve", "127.0.0.1:1", *arguments).check(2, says)


async def test_interrupted_it_has_what_came_and_no_half_files(
    keeper: Keeper, study_uid: str, tmp_path: Path
) -> None:
    keeper.hold = 0
    async with served(keeper) as peer:
        async with await Running.start(
            "retrieve", *peer, "-k", f"StudyInstanceUID={study_uid}", "--output", tmp_path / "got"
        ) as program:
            await keeper.holding.wait()
            program.process.send_signal(signal.SIGINT)
            ended = await program.ended()
        await keeper.cancelled.wait()
    ended.check(130, "interrupted")
    assert not (tmp_path / "got").exists()


async def test_no_connection_is_one_line_and_its_code(tmp_path: Path) -> None:
    port = programs.free_port()
    ended = await run("retrieve", f"127.0.0.1:{port}", "-k", "PatientID=1", "--output", tmp_path)
    ended.check(3, "no connection to 127.0.0.1")
