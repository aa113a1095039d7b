"""`RemoteAE.store`: an outcome for each instance, whatever becomes of the associations."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import dimse_trio as dimse
from dimse_trio.protocol.uids import SOP_CLASSES
from dimse_trio.testing import dcmtk as programs

from .peers import CT, EXPLICIT, Taker, instance, remote, until


@pytest.mark.parametrize("jobs", [1, 4])
async def test_a_folder_is_stored_and_each_file_has_an_outcome(
    files: list[Path], jobs: int
) -> None:
    folder = files[0].parent
    (folder / "notes.txt").write_text("no DICOM")
    (folder / ".hidden").write_text("not looked at")
    seen: list[tuple[dimse.StoreOutcome, int, int]] = []
    handler = Taker(refuses=("1.2.3.7",))
    async with dimse.open_server(handler) as server:
        outcomes = await remote(server.port).store(
            folder, jobs=jobs, progress=lambda *told: seen.append(told)
        )
    assert [o.source for o in outcomes] == [folder / "notes.txt", *files]
    assert [o.source for o in outcomes if not o.stored] == [folder / "notes.txt", files[7]]
    assert isinstance(outcomes[0].error, dimse.InvalidFile)
    assert isinstance(outcomes[8].error, dimse.StatusError)
    assert outcomes[8].status == dimse.Status.OUT_OF_RESOURCES
    assert outcomes[1].status == dimse.Status.SUCCESS
    assert sorted(handler.taken.values()) == [1] * 19
    assert sorted(o.sop_instance_uid for o, _, _ in seen) == sorted(
        o.sop_instance_uid for o in outcomes
    )
    assert [done for _, done, _ in seen] == list(range(1, 22))
    assert {total for _, _, total in seen} == {21}


async def test_paths_instances_and_data_sets_are_stored_alike(files: list[Path]) -> None:
    handler = Taker()
    given = [files[0], str(files[1]), dimse.Instance.from_file(files[2]), instance("1.5")]
    async with dimse.open_server(handler) as server:
        outcomes = await remote(server.port).store(given)
        assert [o.stored for o in outcomes] == [True] * 4
        assert await remote(server.port).store(files[3]) == [
            dimse.StoreOutcome(files[3], "1.2.3.3", dimse.Status.SUCCESS, None, EXPLICIT)
        ]
        assert await remote(server.port).store([]) == []
    assert set(handler.taken) == {"1.2.3.0", "1.2.3.1", "1.2.3.2", "1.5", "1.2.3.3"}


async def test_more_sop_classes_than_an_association_has_contexts() -> None:
    storage = [uid for uid, e in SOP_CLASSES.items() if e.service is dimse.Service.STORAGE]
    assert len(storage) > 128
    handler = Taker()
    async with dimse.open_server(handler) as server:
        outcomes = await remote(server.port).store(
            [instance(f"1.9.{n}", uid) for n, uid in enumerate(storage)], jobs=2
        )
        assert [o.error for o in outcomes if not o.stored] == []
        assert len(handler.taken) == len(storage)


@pytest.mark.parametrize("window", [None, (8, 1)])
@pytest.mark.parametrize("jobs", [1, 3])
async def test_an_association_that_breaks_is_replaced_and_the_instance_sent_again(
    files: list[Path], jobs: int, window: tuple[int, int] | None
) -> None:
    handler = Taker(breaks={"1.2.3.5": 1, "1.2.3.9": 2})
    async with dimse.open_server(handler, async_operations=(1, 8)) as server:
        outcomes = await remote(server.port, async_operations=window).store(files, jobs=jobs)
        assert [o.error for o in outcomes] == [None] * 20
        assert set(handler.taken) == {f"1.2.3.{n}" for n in range(20)}


@pytest.mark.parametrize("window", [None, (8, 1)])
@pytest.mark.parametrize("jobs", [1, 3])
async def test_an_instance_that_breaks_every_association_fails_and_the_others_do_not(
    files: list[Path], jobs: int, window: tuple[int, int] | None
) -> None:
    handler = Taker(breaks={"1.2.3.5": 99})
    async with dimse.open_server(handler, async_operations=(1, 8)) as server:
        outcomes = await remote(server.port, async_operations=window).store(files, jobs=jobs)
        failed = [o for o in outcomes if not o.stored]
        assert [o.sop_instance_uid for o in failed] == ["1.2.3.5"]
        assert isinstance(failed[0].error, dimse.AssociationAborted)
        assert handler.breaks["1.2.3.5"] == 96  # once, and two retries
        assert set(handler.taken) >= {f"1.2.3.{n}" for n in range(20) if n != 5}


async def test_as_many_are_under_way_as_the_window_allows(files: list[Path]) -> None:
    class Slow(Taker):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            self.at_once -= 1
            return dimse.Status.SUCCESS

    handler = Slow()
    async with dimse.open_server(handler, async_operations=(1, 5)) as server:
        outcomes = await remote(server.port, async_operations=(0, 1)).store(files)
        assert all(o.stored for o in outcomes)
        assert server.statistics().associations_accepted == 1
    assert handler.most_at_once == 5


async def test_a_peer_that_takes_fewer_associations_gets_all_over_those(files: list[Path]) -> None:
    handler = Taker()
    async with dimse.open_server(handler, max_associations=1) as server:
        outcomes = await remote(server.port).store(files, jobs=4)
        assert [o.error for o in outcomes] == [None] * 20
    assert sum(handler.taken.values()) == 20


async def test_nobody_there_is_every_outcome(files: list[Path]) -> None:
    outcomes = await remote(programs.free_port()).store(files, jobs=2)
    assert len(outcomes) == 20
    assert all(isinstance(o.error, dimse.ConnectionFailed) for o in outcomes)


async def test_a_permanent_rejection_is_not_tried_again(files: list[Path]) -> None:
    async with dimse.open_server(Taker(), ae_title="OTHER") as server:
        outcomes = await remote(server.port).store(files)
        assert all(isinstance(o.error, dimse.AssociationRejected) for o in outcomes)
        assert server.statistics().associations_rejected == 1


async def test_a_sop_class_that_the_peer_does_not_take_is_an_outcome(files: list[Path]) -> None:
    mr = instance("1.7", dimse.uid_of("MRImageStorage"))
    async with dimse.open_server(Taker(), contexts=[dimse.PresentationContext(CT)]) as server:
        first, second = await remote(server.port).store([mr, files[0]])
    assert isinstance(first.error, dimse.ContextNotAccepted)
    assert second.stored


async def test_cancelled_it_says_what_was_stored_and_leaves_nothing_behind(
    files: list[Path],
) -> None:
    seen: list[dimse.StoreOutcome] = []
    handler = Taker()
    async with dimse.open_server(handler) as server:
        with trio.CancelScope() as scope:

            def progress(outcome: dimse.StoreOutcome, done: int, _: int) -> None:
                seen.append(outcome)
                if done == 5:
                    scope.cancel()

            async with remote(server.port) as peer:
                await peer.store(files, progress=progress)
        assert scope.cancelled_caught
        await until(lambda: server.statistics().associations_open == 0)
    assert [o.sop_instance_uid for o in seen] == [f"1.2.3.{n}" for n in range(5)]
