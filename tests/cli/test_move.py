"""`dimse-trio move`: to others, and to a listener of its own."""

from __future__ import annotations

import csv
import io
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import dimse_trio as dimse

from .program import Ended, Keeper, run, served


def free_port() -> int:
    """A port that nobody has; the program is told it, so that the peer may know it first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def test_instances_go_to_the_destination(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    target = Keeper(tmp_path / "there")
    async with (
        dimse.open_server(target, ae_title="THERE") as there,
        served(keeper, peers={"THERE": ("127.0.0.1", there.port)}) as peer,
    ):
        ended = await run(
            *("move", *peer, "-k", f"StudyInstanceUID={study_uid}"),
            *("--destination", "THERE", "--json"),
        )
    assert ended.check_done().objects == [
        {
            "status": 0,
            "meaning": "Success",
            "completed": len(files),
            "failed": 0,
            "warning": 0,
            "remaining": None,
            "failed_sop_instance_uids": [],
        }
    ]
    assert set(target.files) == set(keeper.files)


async def test_the_program_can_be_the_destination(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    port = free_port()
    async with served(keeper, peers={"US": ("127.0.0.1", port)}) as peer:
        ended = await run(
            *("move", *peer, "-k", f"StudyInstanceUID={study_uid}", "--aet", "US", "--csv"),
            *("--receive", tmp_path / "got", "--receive-port", port),
            *("--receive-host", "127.0.0.1"),
        )
    (row,) = csv.DictReader(io.StringIO(ended.check_done().stdout))
    assert (row["completed"], row["received"]) == (str(len(files)), str(len(files)))
    assert {path.stem for path in (tmp_path / "got").iterdir()} == set(keeper.files)


async def test_an_unknown_destination_is_said(keeper: Keeper, study_uid: str) -> None:
    async with served(keeper) as peer:
        ended = await run(
            "move", *peer, "-k", f"StudyInstanceUID={study_uid}", "--destination", "NOWHERE"
        )
    ended.check(1, "does not know the destination NOWHERE", "0xa801")


async def test_failed_instances_are_counted(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    bad = next(iter(keeper.files))
    target = Keeper(tmp_path, answer=lambda uid: 0xA700 if uid == bad else 0)
    async with (
        dimse.open_server(target, ae_title="THERE") as there,
        served(keeper, peers={"THERE": ("127.0.0.1", there.port)}) as peer,
    ):
        ended = await run(
            *("move", *peer, "-k", f"StudyInstanceUID={study_uid}"),
            *("--destination", "THERE", "--json"),
        )
    ended.check(1, f"1 instance failed: {bad}")
    (result,) = ended.objects
    assert (result["completed"], result["failed"]) == (len(files) - 1, 1)
    assert result["failed_sop_instance_uids"] == [bad]


async def test_a_failure_of_the_peer_is_said_in_its_words() -> None:
    class Failing:
        async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Path]:
            raise dimse.StatusError(0xC123, "no tape drive")
            yield

        async def resolve_destination(self, ae_title: str) -> dimse.Destination:
            return dimse.Destination("127.0.0.1", 1)

    async with served(Failing()) as peer:
        ended = await run("move", *peer, "-k", "StudyInstanceUID=1.2", "--destination", "X")
    ended.check(1, "the peer answered C-MOVE with ", "(0xc123): no tape drive")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-k", "StudyInstanceUID=1.2"), "--destination TITLE or --receive FOLDER"),
        (("--destination", "X"), "needs -k StudyInstanceUID"),
        (("--receive", "got", "--receive-port", "70000", "-k", "StudyInstanceUID=1"), "70000"),
    ],
)
def test_where_to_must_be_said(
    arguments: tuple[str, ...], says: str, run_here: Callable[..., Ended]
) -> None:
    run_here("move", "127.0.0.1:1", *arguments).check(2, says)


async def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = await run(
            *("move", "127.0.0.1:1", "-k", "StudyInstanceUID=1.2"),
            *("--receive", tmp_path, "--receive-port", taken.getsockname()[1]),
            *("--receive-host", "127.0.0.1"),
        )
    ended.check(1, "in use")


async def test_nothing_to_move_is_a_failure(keeper: Keeper, tmp_path: Path) -> None:
    async with (
        dimse.open_server(Keeper(tmp_path / "there"), ae_title="THERE") as there,
        served(keeper, peers={"THERE": ("127.0.0.1", there.port)}) as peer,
    ):
        ended = await run("move", *peer, "-k", "StudyInstanceUID=1.2", "--destination", "THERE")
    ended.check(1, "nothing was moved: the peer has no instance of these keys")
