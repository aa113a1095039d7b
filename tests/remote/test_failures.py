"""`RemoteAE` with peers, files and callers that fail it: what a breaker found, and its like."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.testing import dcmtk as programs

from .peers import Leaky, Taker, instance, remote, until

STUDY = dimse.query("STUDY", StudyInstanceUID="1.2")


def leaky(files: list[Path], forgets: int = 0) -> Leaky:
    return Leaky({f"1.2.3.{n}": path for n, path in enumerate(files)}, forgets)


# -- completeness ----------------------------------------------------------------------------------


class Denying:
    """Knows of no instance, and gives what it gives."""

    def __init__(self, status: int, gives: list[Path]) -> None:
        self.status, self.gives = status, gives

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        return
        yield

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        for path in self.gives:
            yield path
        if self.status:
            raise dimse.StatusError(self.status)


@pytest.mark.parametrize(
    ("status", "number", "complete"),
    [(0xA702, 0, False), (0, 2, None), (0, 0, False)],
)
async def test_an_empty_inventory_proves_nothing(
    status: int, number: int, complete: bool | None, tmp_path: Path, files: list[Path]
) -> None:
    async with dimse.open_server(Denying(status, files[:number])) as server:
        got = await remote(server.port).retrieve(STUDY, tmp_path / "out")
    assert (got.complete, len(got.files)) == (complete, number)


@pytest.mark.parametrize(("forgets", "complete"), [(1, True), (9, False)])
async def test_what_is_missing_is_asked_for_again_if_nothing_came(
    forgets: int, complete: bool, tmp_path: Path, files: list[Path]
) -> None:
    handler = Leaky({"1.2.3.4": files[4]}, forgets)
    async with dimse.open_server(handler) as server:
        got = await remote(server.port).retrieve(STUDY, tmp_path / "out")
    assert (got.complete, handler.gets) == (complete, 2)


# -- storing ---------------------------------------------------------------------------------------


class Silent(Taker):
    """Never answers about some instances."""

    def __init__(self, *silent: str) -> None:
        super().__init__()
        self.silent = silent

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        if request.sop_instance_uid in self.silent:
            await trio.sleep_forever()
        return await super().handle_store(request)


TIMEOUTS = dimse.Timeouts(response=0.3)


@pytest.mark.parametrize("window", [None, (8, 1)])
@pytest.mark.parametrize("jobs", [1, 3])
async def test_one_instance_without_an_answer_fails_alone(
    files: list[Path], jobs: int, window: tuple[int, int] | None
) -> None:
    async with dimse.open_server(Silent("1.2.3.0"), async_operations=(1, 8)) as server:
        outcomes = await remote(server.port, timeouts=TIMEOUTS, async_operations=window).store(
            files, jobs=jobs
        )
    failed = [o for o in outcomes if not o.stored]
    assert [o.sop_instance_uid for o in failed] == ["1.2.3.0"]
    assert isinstance(failed[0].error, dimse.AssociationTimeout)


async def test_a_peer_that_answers_nothing_is_given_up_after_two(files: list[Path]) -> None:
    silent = Silent(*(f"1.2.3.{n}" for n in range(20)))
    async with dimse.open_server(silent) as server:
        outcomes = await remote(server.port, timeouts=TIMEOUTS).store(files)
        assert server.statistics().associations_accepted == 2
    assert not any(o.stored for o in outcomes)
    untried = [o for o in outcomes if str(o.error).startswith("not tried: ")]
    assert len(untried) == 18


async def test_when_all_is_sent_nobody_waits_for_another_association(files: list[Path]) -> None:
    """A peer that serves one at a time, as storescp does, leaves the others waiting."""
    one_at_a_time = trio.Lock()

    class One(Taker):
        def handle_association(self, request: dimse.AssociationRequest) -> trio.Lock:
            return one_at_a_time

    with trio.fail_after(15):
        async with dimse.open_server(One()) as server:
            async with remote(server.port) as peer:
                outcomes = await peer.store(files, jobs=4)
                assert all(o.stored for o in outcomes)
                assert server.statistics().associations_open == 1


async def test_a_data_set_that_is_no_instance_is_an_outcome(files: list[Path]) -> None:
    handler = Taker()
    async with dimse.open_server(handler) as server:
        outcomes = await remote(server.port).store([files[0], Dataset()])
    assert [o.stored for o in outcomes] == [False, True]
    assert isinstance(outcomes[0].error, dimse.DataSetError)


async def test_a_pipe_is_an_outcome_and_no_trap(tmp_path: Path, files: list[Path]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with dimse.open_server(Taker()) as server:
        with trio.fail_after(5):
            outcomes = await remote(server.port).store([pipe, files[0]])
            async with dimse.open_association("127.0.0.1", server.port) as association:
                with pytest.raises(dimse.InvalidFile, match="not a regular file"):
                    await association.store(pipe)
    assert [o.stored for o in outcomes] == [False, True]


async def test_links_are_followed_once(tmp_path: Path, files: list[Path]) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "series").symlink_to(files[0].parent)
    (folder / "back").symlink_to(folder)
    (folder / "dangling.dcm").symlink_to(tmp_path / "nothing")
    found, unreadable = await dimse.scan_files(folder)
    assert len(found) == 20
    assert [(u.path.name, type(u.error)) for u in unreadable] == [
        ("dangling.dcm", FileNotFoundError)
    ]


async def test_what_progress_raises_comes_out_as_it_is(files: list[Path]) -> None:
    def progress(outcome: dimse.StoreOutcome, done: int, total: int) -> None:
        raise ZeroDivisionError

    async with dimse.open_server(Taker()) as server:
        with pytest.raises(ZeroDivisionError):
            await remote(server.port).store(files, jobs=3, progress=progress)
        await until(lambda: server.statistics().associations_open == 0)


# -- the pool --------------------------------------------------------------------------------------


async def test_a_peer_with_one_place_gets_it_back_from_our_idle_association(
    tmp_path: Path, files: list[Path]
) -> None:
    with trio.fail_after(20):
        async with dimse.open_server(leaky(files), max_associations=1) as server:
            async with remote(server.port) as peer:
                got = await peer.retrieve(STUDY, tmp_path / "out")
    assert got.complete


@pytest.mark.parametrize("most", [1, 8])
async def test_an_idle_association_is_in_nobodys_way_at_a_peer_with_one_place(most: int) -> None:
    with trio.fail_after(20):
        async with dimse.open_server(Taker(), max_associations=1) as server:
            async with remote(server.port, max_associations=most) as peer:
                await peer.echo()
                [outcome] = await peer.store(instance("1.2.3"))
                assert outcome.stored
                async with peer.association() as association:
                    await association.echo()
                await peer.echo()


async def test_leaving_the_block_does_not_wait_until_a_used_association_was_idle_for_long() -> None:
    @attrs.define
    class Slow:
        go_on: trio.Event = attrs.field(factory=trio.Event)
        asked: trio.Event = attrs.field(factory=trio.Event)

        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            self.asked.set()
            await self.go_on.wait()
            return
            yield

    async def ask(peer: dimse.RemoteAE) -> None:
        assert await peer.find_studies() == []

    handler = Slow()
    with trio.fail_after(10):
        async with dimse.open_server(handler) as server, trio.open_nursery() as nursery:
            async with remote(server.port, keep_idle=3600) as peer:
                nursery.start_soon(ask, peer)
                await handler.asked.wait()
                handler.go_on.set()


async def test_a_task_that_would_wait_for_itself_is_told() -> None:
    class Study:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            yield instance("1.2")

        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    with trio.fail_after(10):
        async with dimse.open_server(Study()) as server:
            async with remote(server.port, max_associations=1) as peer:
                async with peer.find_studies() as matches:
                    async for _ in matches:
                        with pytest.raises(dimse.LocalProtocolError, match="max_associations"):
                            await peer.echo()
                assert (await peer.echo()).status == 0
            async with remote(server.port, max_associations=2) as peer:
                async with peer.find_studies() as matches:
                    async for _ in matches:
                        assert (await peer.echo()).status == 0


# -- what fails here while the peer sends ----------------------------------------------------------


class Moving(Leaky):
    """Sends by C-MOVE what `Leaky` would by C-GET."""

    handle_get = None  # type: ignore[assignment]

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncGenerator[Path]:
        self.gets += 1
        for path in self.files.values():
            yield path


@pytest.mark.parametrize("method", ["C-GET", "C-MOVE"])
async def test_a_folder_that_cannot_be_written_is_our_own_error(
    method: Any, tmp_path: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    port = programs.free_port()
    handler: Leaky = leaky(files) if method == "C-GET" else Moving(leaky(files).files, 0)
    peers = {"DIMSE-TRIO": ("127.0.0.1", port)}
    async with dimse.open_server(handler, peers=peers) as server:
        peer = remote(server.port, listen_port=port, listen_host="127.0.0.1")
        with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is looked at below
            await peer.retrieve(STUDY, tmp_path / "file" / "out", method=method)
    assert caught.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert handler.gets == 1
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("method", ["C-GET", "C-MOVE"])
async def test_what_progress_raises_ends_a_retrieve(
    method: Any, tmp_path: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    def progress(path: Path, done: int, expected: int | None) -> None:
        if done == 3:
            raise ZeroDivisionError

    port = programs.free_port()
    handler: Leaky = leaky(files) if method == "C-GET" else Moving(leaky(files).files, 0)
    peers = {"DIMSE-TRIO": ("127.0.0.1", port)}
    async with dimse.open_server(handler, peers=peers) as server:
        peer = remote(server.port, listen_port=port, listen_host="127.0.0.1")
        with pytest.raises(ZeroDivisionError):
            await peer.retrieve(STUDY, tmp_path / "out", method=method, progress=progress)
    assert "Traceback" not in caplog.text


async def test_retrieves_by_c_move_share_one_listener_in_turn(
    tmp_path: Path, files: list[Path]
) -> None:
    port = programs.free_port()
    handler = Moving(leaky(files).files, 0)
    got: list[dimse.Retrieved] = []
    async with dimse.open_server(handler, peers={"DIMSE-TRIO": ("127.0.0.1", port)}) as server:
        peer = remote(server.port, listen_port=port, listen_host="127.0.0.1")

        async def retrieve(folder: str) -> None:
            got.append(await peer.retrieve(STUDY, tmp_path / folder, method="C-MOVE"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(retrieve, "one")
            nursery.start_soon(retrieve, "two")
    assert [each.complete for each in got] == [True, True]


@pytest.mark.parametrize("status", [0xFE00, 0xA700, 0xB000, 0])
async def test_only_success_and_warnings_say_that_an_instance_is_stored(
    status: int, files: list[Path]
) -> None:
    class Answering:
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            return dimse.Status(status)

    stored = status in (0xB000, 0)
    async with dimse.open_server(Answering()) as server:
        [outcome] = await remote(server.port).store(files[:1])
        assert (outcome.stored, outcome.status) == (stored, status)
        contexts = dimse.contexts_for(files[:1])
        async with dimse.open_association(
            "127.0.0.1", server.port, contexts=contexts
        ) as association:
            assert (await association.store(files[0], check=False)).stored is stored
            with nullcontext() if stored else pytest.raises(dimse.StatusError):
                await association.store(files[0])
