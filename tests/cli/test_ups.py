"""`dimse-trio ups`: a step from its scheduling to its end, by the program alone."""

from __future__ import annotations

import datetime as dt
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

import dimse_trio as dimse

from .program import COMMAND, PATIENCE, Ended, environment, run, served


async def test_a_step_is_scheduled_found_claimed_updated_and_completed() -> None:
    async with dimse.ProcedureSteps() as steps, served(steps) as peer:
        made = await run(
            *("ups", "create", *peer, "Segment", "-k", "PatientID=4711"),
            *("--workitem", "110001^DCM^Image Processing", "--priority", "high"),
        )
        uid = made.check_done().stdout.strip()
        found = await run("ups", "find", *peer, "-k", "PatientID=47*", "--json")
        [match] = found.check_done().objects
        assert match["00080018"]["Value"] == [uid]
        assert match["00741000"]["Value"] == ["SCHEDULED"]
        claimed = await run("ups", "claim", *peer, uid)
        lock = ("--transaction-uid", claimed.check_done().stdout.strip())
        (await run("ups", "claim", *peer, uid)).check(1, "0xc301")
        (await run("ups", "update", *peer, uid, *lock, "--progress", 50)).check_done()
        got = await run("ups", "get", *peer, uid)
        progress = got.check_done().objects[0]["00741002"]["Value"][0]
        assert progress["00741004"]["Value"] == [50]
        (await run("ups", "complete", *peer, uid, *lock)).check_done()
        assert steps.states == {uid: dimse.StepState.COMPLETED}
        (await run("ups", "cancel", *peer, uid)).check(1, "0xc311")
        table = await run("ups", "find", *peer)
        assert "COMPLETED" in table.check_done().stdout


async def test_a_step_without_a_workitem_is_completed_with_an_option() -> None:
    async with dimse.ProcedureSteps() as steps, served(steps) as peer:
        made = await run("ups", "create", *peer, "Segment")
        uid = made.check_done().stdout.strip()
        claimed = await run("ups", "claim", *peer, uid)
        lock = ("--transaction-uid", claimed.check_done().stdout.strip())
        ended = await run("ups", "complete", *peer, uid, *lock)
        ended.check(2, "performed: give --workitem VALUE^SCHEME^MEANING")
        assert "complete(" not in ended.stderr
        assert steps.states == {uid: dimse.StepState.IN_PROGRESS}


async def test_a_watcher_prints_events_of_steps_at_a_manager_that_the_program_is(
    tmp_path: Path,
) -> None:
    port_file = tmp_path / "port"
    command = [*COMMAND, "ups", "serve", "--port", "0", "--port-file", str(port_file)]
    command += ["--accept-any-called-aet"]
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            start = partial(trio.run_process, stdout=subprocess.PIPE, env=environment())
            process: trio.Process = await nursery.start(start, command)
            assert process.stdout is not None
            assert (await process.stdout.receive_some()).startswith(b"listening on")
            peer = f"127.0.0.1:{port_file.read_text().strip()}"
            uid = (await run("ups", "create", peer, "Step")).check_done().stdout.strip()
            watched = await run("ups", "watch", peer, uid, "--limit", 1, "--json")
            assert watched.check_done().objects == [
                {
                    "event": "STATE",
                    "sop_instance_uid": uid,
                    "state": "SCHEDULED",
                    "progress": None,
                    "requesting_ae": None,
                    "reason": None,
                }
            ]
            (await run("ups", "cancel", peer, uid, "--reason", "late")).check_done()
            process.terminate()


def test_what_is_wrong_on_the_command_line_is_said(run_here: Callable[..., Ended]) -> None:
    run_here("ups", "create", "h", "Step", "--workitem", "1").check(2, "VALUE^SCHEME")
    run_here("ups", "update", "h", "1.2", "--progress", 5).check(2, "--transaction-uid")
    run_here("ups", "find", "h", "-k", "ProcedureStepStat=1").check(2, "ProcedureStepState")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "127.0.0.1:1", "Step", "--start", "nonsense"), "--start 'nonsense' is no"),
        (("create", "127.0.0.1:1", "Step", "--start", "2026-"), "is a range"),
        (("create", "127.0.0.1:1", "Step", "--workitem", "110001^DCM"), "VALUE^SCHEME^MEANING"),
        (("create", "127.0.0.1:1", "Step", "-k", "Rows=-1"), "not from 0 to 65535"),
        (("claim", "127.0.0.1:1", "here/"), "'here/' is no UID"),
        (("claim", "127.0.0.1:1", "1.2", "--transaction-uid", "abc"), "'abc' is no UID"),
        (("update", "127.0.0.1:1", "1.2"), "nothing to change"),
    ],
)
def test_a_wrong_command_line(
    arguments: tuple[str, ...], says: str, run_here: Callable[..., Ended]
) -> None:
    run_here("ups", *arguments).check(2, says)


async def test_a_step_may_start_tomorrow() -> None:
    async with dimse.ProcedureSteps() as steps, served(steps) as peer:
        made = await run("ups", "create", *peer, "Segment", "--start", "today+1")
        got = await run("ups", "get", *peer, made.check_done().stdout.strip())
    (start,) = got.check_done().objects[0]["00404005"]["Value"]
    assert dt.date.fromisoformat(start[:8]) >= dt.date.today()
