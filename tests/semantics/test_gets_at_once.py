"""Several C-GETs of one association: whose the instances are, and who waits for whom."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.invocations import Invocations, Retrieval
from dimse_trio.protocol.messages import CCancelRQ, CGetRQ, CGetRSP, CStoreRQ, CStoreRSP
from dimse_trio.testing import ScriptedPeer, associated_pair

from .script import CONTEXTS, CT, GET, STORE, encoded, instance, scripted

WINDOWS = [(1, 1), (2, 2), (8, 8), (0, 0)]


def by_uid(study: str) -> dimse.Query:
    return dimse.query("STUDY", StudyInstanceUID=study)


@attrs.define
class Archive:
    """Has three instances of each study; C-GETs of the studies in `held` wait before the first."""

    held: dict[str, trio.Event] = attrs.field(factory=dict)
    asked: list[str] = attrs.field(factory=list)
    ended: list[str] = attrs.field(factory=list)
    stored: list[str] = attrs.field(factory=list)

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncGenerator[Dataset]:
        yield request.identifier

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        self.stored.append(request.sop_instance_uid)
        return dimse.Status.SUCCESS

    async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Dataset]:
        study = request.identifier.StudyInstanceUID
        self.asked.append(study)
        try:
            if study in self.held:
                await self.held[study].wait()
            for number in range(3):
                yield instance(uid=f"{study}.{number}")
        finally:
            self.ended.append(study)


def opened(
    handler: object, window: tuple[int, int] = (8, 8), **options: object
) -> AbstractAsyncContextManager[dimse.Association]:
    return associated_pair(handler, contexts=CONTEXTS, async_operations=window, **options)  # type: ignore[arg-type]


async def blocked() -> None:
    await trio.testing.wait_all_tasks_blocked()


def files(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir())


async def fetch(association: dimse.Association, study: str, folder: Path) -> dimse.RetrieveResult:
    return await association.get(by_uid(study), save_to=folder)


def instances(*studies: str) -> list[str]:
    return [f"{study}.{number}" for study in studies for number in range(3)]


@pytest.mark.parametrize("window", WINDOWS)
async def test_each_of_several_gets_has_its_own_instances_and_no_others(
    window: tuple[int, int], tmp_path: Path, autojump_clock: object
) -> None:
    studies = ["1.2.1", "1.2.2", "1.2.3", "1.2.4"]
    iterated: list[str] = []

    async with opened(handler := Archive(), window) as association:

        async def save(study: str) -> None:
            result = await association.get(by_uid(study), save_to=tmp_path / study)
            assert (result.status, result.completed, result.failed) == (0, 3, 0)
            assert [path.stem for path in result.files] == instances(study)

        async def iterate(study: str) -> None:
            async with association.get(by_uid(study)) as items:
                iterated.extend([item.sop_instance_uid async for item in items])

        async with trio.open_nursery() as nursery:
            for study in studies[:3]:
                nursery.start_soon(save, study)
            nursery.start_soon(iterate, studies[3])
    for study in studies[:3]:
        assert files(tmp_path / study) == instances(study)
    assert iterated == instances(studies[3])
    assert sorted(handler.asked) == studies


async def test_a_get_waits_for_another_and_is_served_in_its_turn_while_all_else_goes_on(
    tmp_path: Path, autojump_clock: object
) -> None:
    handler = Archive(held={"1.2.1": trio.Event()})
    async with opened(handler, (3, 3)) as association, trio.open_nursery() as nursery:
        for study in ("1.2.1", "1.2.2", "1.2.3"):
            nursery.start_soon(fetch, association, study, tmp_path)
            await blocked()
        assert handler.asked == ["1.2.1"]
        # in a window of three there is room for two others
        assert (await association.echo()).status == dimse.Status.SUCCESS
        async with association.find(by_uid("1.2.9")) as matches:
            assert (await association.store(instance(uid="1.2.3.4"))).stored
            assert len([match async for match in matches]) == 1
        assert handler.asked == ["1.2.1"]
        handler.held["1.2.1"].set()
        await blocked()
        assert handler.asked == ["1.2.1", "1.2.2", "1.2.3"]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("steps", [0, 1])
async def test_the_next_begins_when_one_has_been_left_early_and_has_ended_for_the_peer_too(
    window: tuple[int, int], steps: int, tmp_path: Path, autojump_clock: object
) -> None:
    async with opened(handler := Archive(), window) as association:

        async def leave_early() -> None:
            async with association.get(by_uid("1.2.1")) as items:
                begun.set()
                for _ in range(steps):
                    await anext(items)
                await blocked()
                assert handler.asked == ["1.2.1"]

        begun = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_early)
            await begun.wait()
            result = await association.get(by_uid("1.2.2"), save_to=tmp_path)
    assert result.status == dimse.Status.SUCCESS
    assert files(tmp_path) == instances("1.2.2")


async def test_the_next_begins_when_one_has_failed(tmp_path: Path, autojump_clock: object) -> None:
    class Failing(Archive):
        async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Dataset]:
            if request.identifier.StudyInstanceUID == "1.2.1":
                await trio.sleep(1)
                raise dimse.StatusError(dimse.Status.OUT_OF_RESOURCES)
            async for item in super().handle_get(request):
                yield item

    async with opened(Failing()) as association:

        async def fail() -> None:
            with pytest.raises(dimse.StatusError):
                await association.get(by_uid("1.2.1"), save_to=tmp_path)

        association.start_soon(fail)
        await blocked()
        await association.get(by_uid("1.2.2"), save_to=tmp_path)
    assert files(tmp_path) == instances("1.2.2")


async def test_the_next_begins_when_one_could_not_be_begun(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with opened(handler := Archive()) as association:
        with trio.CancelScope() as scope:
            scope.cancel()
            await association.get(by_uid("1.2.1"), save_to=tmp_path)
        assert scope.cancelled_caught
        await association.get(by_uid("1.2.2"), save_to=tmp_path)
    assert handler.asked == ["1.2.2"]


@pytest.mark.parametrize("window", WINDOWS)
async def test_one_that_is_cancelled_while_it_waits_has_sent_nothing_and_leaves_nothing(
    window: tuple[int, int], tmp_path: Path, autojump_clock: object
) -> None:
    handler = Archive(held={"1.2.1": trio.Event()})
    async with opened(handler, window) as association:

        async def give_up() -> None:
            with trio.move_on_after(1) as scope:
                await association.get(by_uid("1.2.2"), save_to=tmp_path)
            assert scope.cancelled_caught

        association.start_soon(fetch, association, "1.2.1", tmp_path)
        await blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await blocked()
            nursery.start_soon(fetch, association, "1.2.3", tmp_path)
            await trio.sleep(2)
            handler.held["1.2.1"].set()
        assert (await association.echo()).status == dimse.Status.SUCCESS
    assert handler.asked == ["1.2.1", "1.2.3"]
    assert files(tmp_path) == instances("1.2.1", "1.2.3")


async def test_a_turn_that_comes_with_the_cancellation_is_given_on() -> None:
    invocations = Invocations(8)
    first, second, third = (cast("Retrieval", object()) for _ in range(3))

    async def wait(retrieval: Retrieval) -> None:
        with scopes[retrieval]:
            await invocations.take_place(lambda: None, retrieval)
            taken.append(retrieval)

    taken: list[Retrieval] = []
    scopes = {each: trio.CancelScope() for each in (first, second, third)}
    await wait(first)
    async with trio.open_nursery() as nursery:
        for each in (second, third):
            nursery.start_soon(wait, each)
            await blocked()
        scopes[second].cancel()
        invocations.give_place_back(first)  # it is the second one's, which has not run yet
    assert taken == [first, third]
    assert invocations.retrieval is third


# -- who would wait for itself ---------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_a_get_inside_the_block_of_another_is_refused_not_waited_for(
    window: tuple[int, int], steps: int, tmp_path: Path, autojump_clock: object
) -> None:
    async with opened(handler := Archive(), window) as association:
        async with association.get(by_uid("1.2.1")) as items:
            for _ in range(steps):
                await anext(items)
            for _ in range(2):
                with pytest.raises(dimse.LocalProtocolError, match="use another association"):
                    await association.get(by_uid("1.2.2"), save_to=tmp_path)
            left = [item.sop_instance_uid async for item in items]
            assert left == instances("1.2.1")[steps:]
            assert items.result.completed == 3
            # all has come: nothing of it is waited for any more
            await association.get(by_uid("1.2.3"), save_to=tmp_path)
    assert handler.asked == ["1.2.1", "1.2.3"]
    assert files(tmp_path) == instances("1.2.3")


async def test_a_get_inside_the_block_of_one_that_saves_by_itself_waits_for_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with opened(handler := Archive()) as association:
        async with association.get(by_uid("1.2.1"), save_to=tmp_path / "a") as first:
            await association.get(by_uid("1.2.2"), save_to=tmp_path / "b")
            async for _ in first:
                pytest.fail("there are no items")
    assert handler.asked == ["1.2.1", "1.2.2"]
    for name, study in (("a", "1.2.1"), ("b", "1.2.2")):
        assert files(tmp_path / name) == instances(study)


@pytest.mark.parametrize("steps", [0, 1])
async def test_in_a_window_of_one_no_operation_waits_for_the_block_that_it_is_in(
    steps: int, autojump_clock: object
) -> None:
    async with opened(Archive(), (1, 1)) as association:
        async with association.get(by_uid("1.2.1")) as items:
            for _ in range(steps):
                await anext(items)
            with pytest.raises(dimse.LocalProtocolError, match="use another association"):
                await association.echo()


async def test_a_task_in_the_loop_waits_for_a_place_that_another_operation_has(
    autojump_clock: object,
) -> None:
    class Slow(Archive):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            await trio.sleep(5)
            return dimse.Status.SUCCESS

    async with opened(Slow(), (2, 2)) as association:
        async with association.get(by_uid("1.2.1")) as items:
            await anext(items)
            association.start_soon(association.store, instance())
            await blocked()
            assert (await association.echo()).status == dimse.Status.SUCCESS
            assert len([item async for item in items]) == 2


async def test_another_task_may_iterate_over_what_one_has_begun(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with opened(handler := Archive()) as association:
        async with association.get(by_uid("1.2.1")) as items:

            async def iterate() -> None:
                async for item in items:
                    await trio.sleep(1)
                    assert item.sop_instance_uid in instances("1.2.1")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(iterate)
                await blocked()
                await association.get(by_uid("1.2.2"), save_to=tmp_path)
    assert handler.asked == ["1.2.1", "1.2.2"]


# -- the end of the association ------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
async def test_the_end_of_the_association_frees_who_iterates_and_who_waits(
    window: tuple[int, int], tmp_path: Path, autojump_clock: object
) -> None:
    """One awaits, in its loop, tasks that wait for their C-GETs: only the end can free them."""
    freed: list[str] = []

    async with trio.open_nursery() as outside, opened(handler := Archive(), window) as association:

        async def wait(study: str) -> None:
            with pytest.raises(dimse.AssociationAborted):
                await association.get(by_uid(study), save_to=tmp_path)
            freed.append(study)

        async def iterate() -> None:
            with pytest.raises(dimse.AssociationAborted):
                async with association.get(by_uid("1.2.1")) as items:
                    async for _ in items:
                        async with trio.open_nursery() as nursery:
                            for study in ("1.2.2", "1.2.3"):
                                nursery.start_soon(wait, study)
            freed.append("1.2.1")

        outside.start_soon(iterate)
        await trio.sleep(5)
        assert freed == []
        await association.abort()
    assert sorted(freed) == ["1.2.1", "1.2.2", "1.2.3"]
    assert handler.asked == ["1.2.1"]


async def test_the_peers_abort_frees_who_waits(tmp_path: Path, autojump_clock: object) -> None:
    async def play(peer: ScriptedPeer) -> None:
        await peer.accept(max_performed=8)
        await peer.expect_message(CGetRQ)
        with trio.move_on_after(5):
            raise AssertionError(await peer.receive())
        await peer.abort()

    failures: list[Exception] = []

    async def wait(association: dimse.Association, study: str) -> None:
        try:
            await association.get(by_uid(study), save_to=tmp_path)
        except dimse.AssociationAborted as error:
            failures.append(error)

    async with trio.open_nursery() as outside:
        async with scripted(play, accept=False, async_operations=(8, 8)) as association:
            for study in ("1.2.1", "1.2.2", "1.2.3"):
                outside.start_soon(wait, association, study)
            await association.wait_over()
    assert len(failures) == 3


# -- whose an instance is --------------------------------------------------------------------------


async def test_what_has_arrived_is_the_ended_gets_though_the_next_begins_at_once(
    tmp_path: Path, autojump_clock: object
) -> None:
    """A peer that answers C-CANCEL while an instance is on its way."""

    async def play(peer: ScriptedPeer) -> None:
        await peer.accept(max_performed=8)
        first = await peer.expect_message(CGetRQ)
        cancel = await peer.expect_message(CCancelRQ)
        assert cancel.message_id_being_responded_to == first.message_id
        with trio.move_on_after(2):
            raise AssertionError(await peer.receive())  # nothing before the final response
        store = CStoreRQ(
            message_id=1, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.1.0"
        )
        end = CGetRSP(message_id_being_responded_to=first.message_id, status=0xFE00)
        await peer.send(
            *peer.message_pdus(STORE, store, encoded(instance(uid="1.2.1.0"))),
            *peer.message_pdus(GET, end),
        )
        statuses: list[int] = []
        while len(statuses) < 2:
            _, message, _ = await peer.receive_message()
            if isinstance(message, CStoreRSP):
                statuses.append(message.status)
            else:
                assert isinstance(message, CGetRQ)
                end = CGetRSP(message_id_being_responded_to=message.message_id, status=0)
                await peer.send_message(GET, end)
                statuses.append(0)
        assert sorted(statuses) == [0, 0xA700]
        await peer.respond_to_release()

    async with scripted(play, accept=False, async_operations=(8, 8)) as association:

        async def leave() -> None:
            async with association.get(by_uid("1.2.1")):
                await blocked()

        association.start_soon(leave)
        await blocked()
        result = await association.get(by_uid("1.2.2"), save_to=tmp_path)
        assert (result.status, result.files) == (0, ())
    assert files(tmp_path) == []


async def test_while_a_get_is_under_way_every_store_of_the_peer_is_taken_for_one_of_it(
    autojump_clock: object,
) -> None:
    """Nothing in a C-STORE says of which C-GET it is, or that it is of none."""

    class StoresOfItsOwn(Archive):
        async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Dataset]:
            assert (await request.association.store(instance(uid="1.2.9"))).stored
            async for item in super().handle_get(request):
                yield item

        async def handle_find(self, request: dimse.FindRequest) -> AsyncGenerator[Dataset]:
            assert (await request.association.store(instance(uid="1.2.8"))).stored
            yield request.identifier

    async with opened(
        StoresOfItsOwn(), (4, 4), requestor_handler=(ours := Archive())
    ) as association:
        await association.find(by_uid("1.2.1"))
        async with association.get(by_uid("1.2.1")) as items:
            taken = [item.sop_instance_uid async for item in items]
        await association.find(by_uid("1.2.1"))
    assert taken == ["1.2.9", *instances("1.2.1")]
    assert ours.stored == ["1.2.8", "1.2.8"]
