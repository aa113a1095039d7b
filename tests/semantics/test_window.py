"""The asynchronous operations window: several operations at once (PS3.7 §D.3.3.3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import attrs
import pytest
import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.protocol.messages import CEchoRQ, CEchoRSP, CFindRQ
from dimse_trio.protocol.pdus import Abort, AssociateAC, AsynchronousOperations, UserInformation
from dimse_trio.testing import ScriptedPeer, associated_pair

from .script import CONTEXTS, ECHO, FIND, encoded, instance, scripted, served, study


@attrs.define
class Gate:
    """Handlers that wait until they are let through, in whatever order."""

    gates: dict[str, trio.Event] = attrs.field(factory=dict)
    inside: list[str] = attrs.field(factory=list)
    most_at_once: int = 0

    def gate(self, name: str) -> trio.Event:
        return self.gates.setdefault(name, trio.Event())

    async def passage(self, name: str) -> None:
        self.inside.append(name)
        self.most_at_once = max(self.most_at_once, len(self.inside))
        try:
            await self.gate(name).wait()
        finally:
            self.inside.remove(name)

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        await request.data_set()
        await self.passage(request.sop_instance_uid)
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        await self.passage("find")
        yield study()


@pytest.mark.parametrize(
    ("proposed", "agreed", "invoked"),
    [((8, 1), (1, 3), 3), ((2, 1), (1, 3), 2), ((0, 1), (1, 3), 3), ((8, 1), (1, 0), 8)],
)
async def test_the_acceptor_agrees_to_the_narrower_window(
    proposed: tuple[int, int],
    agreed: tuple[int, int],
    invoked: int,
    autojump_clock: trio.abc.Clock,
) -> None:
    async with served(Gate(), async_operations=agreed) as peer:
        accepted = await peer.associate(
            CONTEXTS,
            user_information=UserInformation(
                maximum_length=16384, asynchronous_operations=AsynchronousOperations(*proposed)
            ),
        )
        assert accepted.user_information.asynchronous_operations == AsynchronousOperations(
            invoked, 1
        )


async def test_nothing_is_agreed_to_that_was_not_proposed(autojump_clock: trio.abc.Clock) -> None:
    async with served(Gate(), async_operations=(8, 8)) as peer:
        accepted: AssociateAC = await peer.associate(CONTEXTS)
        assert accepted.user_information.asynchronous_operations is None
        for message_id in (1, 2):
            await peer.send_message(FIND, find(message_id), encoded(study()))
        assert (await peer.expect(Abort)).source == 2


@pytest.mark.parametrize("window", [(-1, 1), (1, 65536)])
async def test_a_window_that_cannot_be_is_refused(window: tuple[int, int]) -> None:
    with pytest.raises(dimse.LocalProtocolError, match="async_operations"):
        async with dimse.open_server(Gate(), async_operations=window):
            raise AssertionError


def find(message_id: int) -> CFindRQ:
    return CFindRQ(message_id=message_id, affected_sop_class_uid=CONTEXTS[1].abstract_syntax)


async def test_handlers_run_at_once_up_to_the_window_and_are_answered_in_any_order(
    autojump_clock: trio.abc.Clock,
) -> None:
    handler = Gate()
    finished: list[str] = []

    async with associated_pair(handler, contexts=CONTEXTS, async_operations=(3, 1)) as association:

        async def store(uid: str) -> None:
            await association.store(instance(uid=uid))
            finished.append(uid)

        async with trio.open_nursery() as nursery:
            for uid in ("1.1", "1.2", "1.3", "1.4", "1.5"):
                nursery.start_soon(store, uid)
            await trio.testing.wait_all_tasks_blocked()
            assert len(handler.inside) == 3
            first, second, third = handler.inside
            handler.gate(third).set()
            await trio.testing.wait_all_tasks_blocked()
            assert finished == [third]
            assert len(handler.inside) == 3  # the next has taken its place
            handler.gate(first).set()
            await trio.testing.wait_all_tasks_blocked()
            assert finished == [third, first]
            for uid in (*handler.inside, second):
                handler.gate(uid).set()
        assert sorted(finished) == ["1.1", "1.2", "1.3", "1.4", "1.5"]
        assert handler.most_at_once == 3


async def test_a_quick_operation_passes_a_slow_one(autojump_clock: trio.abc.Clock) -> None:
    handler = Gate()
    async with associated_pair(handler, async_operations=(2, 1)) as association:
        async with association.find(dimse.query("STUDY", StudyInstanceUID="1.2")) as matches:
            await trio.testing.wait_all_tasks_blocked()
            assert handler.inside == ["find"]
            assert (await association.echo()).status == dimse.Status.SUCCESS
            handler.gate("find").set()
            assert [m.StudyInstanceUID async for m in matches] == ["1.2.1"]


async def test_one_of_several_is_cancelled_and_the_others_are_not(
    autojump_clock: trio.abc.Clock,
) -> None:
    handler = Gate()
    async with associated_pair(handler, contexts=CONTEXTS, async_operations=(3, 1)) as association:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(association.store, instance(uid="1.1"))
            with trio.move_on_after(5) as scope:
                await association.find_studies()
            assert scope.cancelled_caught
            assert handler.inside == ["1.1"]
            assert (await association.echo()).status == dimse.Status.SUCCESS
            handler.gate("1.1").set()


async def test_the_peer_may_not_exceed_the_window(autojump_clock: trio.abc.Clock) -> None:
    handler = Gate()
    async with served(handler, async_operations=(1, 2)) as peer:
        await peer.associate(
            CONTEXTS,
            user_information=UserInformation(
                maximum_length=16384, asynchronous_operations=AsynchronousOperations(5, 1)
            ),
        )
        for message_id in (1, 2, 3):
            await peer.send_message(FIND, find(message_id), encoded(study()))
        assert (await peer.expect(Abort)).source == 2
    assert handler.inside == []


async def test_a_requestor_does_not_exceed_what_the_acceptor_agreed_to(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def narrow(peer: ScriptedPeer) -> None:
        await peer.accept(max_performed=2)
        requests = [await peer.expect_message(CEchoRQ) for _ in range(2)]
        with trio.move_on_after(60):
            raise AssertionError(await peer.receive())
        for request in reversed(requests):  # in whatever order
            await peer.send_message(
                ECHO, CEchoRSP(message_id_being_responded_to=request.message_id, status=0)
            )
        third = await peer.expect_message(CEchoRQ)
        await peer.send_message(
            ECHO, CEchoRSP(message_id_being_responded_to=third.message_id, status=0)
        )
        await peer.respond_to_release()

    async with (
        scripted(narrow, accept=False, async_operations=(8, 1)) as association,
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            nursery.start_soon(association.echo)


@attrs.define
class CallsBack:
    """A C-STORE handler that uses its own association before it has read a byte of the data set."""

    took: float = 0.0

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        started = trio.current_time()
        assert (await request.association.echo()).status == dimse.Status.SUCCESS
        self.took = trio.current_time() - started
        return dimse.Status.SUCCESS if await request.data_set() else dimse.Status.CANNOT_UNDERSTAND


class Echo:
    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


@pytest.mark.parametrize("window", [None, (1, 1), (8, 8)])
@pytest.mark.parametrize("size", [1 << 10, 1 << 20])
async def test_a_handler_calls_its_own_association_while_its_data_set_is_arriving(
    window: tuple[int, int] | None, size: int, autojump_clock: trio.abc.Clock
) -> None:
    handler = CallsBack()
    contexts = [attrs.evolve(context, scp=True) for context in CONTEXTS]
    limits = dimse.Limits(memory_per_message=10_000)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        serve = partial(dimse.serve_stream, contexts=contexts, limits=limits)
        nursery.start_soon(partial(serve, handler, theirs, async_operations=window or (1, 1)))
        async with dimse.associate_over(
            ours, contexts=contexts, async_operations=window, handler=Echo(), limits=limits
        ) as association:
            response = await association.store(instance(size), check=False)
    assert response.status == dimse.Status.SUCCESS
    assert handler.took < 1


async def test_what_undoes_a_cancelled_request_comes_behind_it_in_a_window_too(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def look_up(title: str) -> dimse.Destination | None:
        await trio.sleep(1)
        return None

    async with dimse.ProcedureSteps(peers=look_up) as steps:
        async with associated_pair(
            dimse.Handlers(steps, late := Late()),
            contexts=[*dimse.procedure_step_contexts(), dimse.PresentationContext(MPPS)],
            async_operations=(4, 4),
        ) as association:
            with trio.move_on_after(0.5) as scope:
                async with association.performed_procedure_step(
                    Modality="CT", PerformedStationAETitle="A"
                ):
                    pytest.fail("the block is not entered")
            assert scope.cancelled_caught
            [step] = late.memory.steps.values()
            assert step.PerformedProcedureStepStatus == "DISCONTINUED"
            ups = dimse.UnifiedProcedureSteps(association)
            with trio.move_on_after(0.5) as scope:
                async with ups.watch():
                    await trio.sleep_forever()
            assert scope.cancelled_caught
        assert "0 subscribers" in repr(steps)


MPPS = dimse.uid_of("ModalityPerformedProcedureStep")


class Late(dimse.PerformedProcedureSteps):
    """Begins a step a second after it has been asked to."""

    def __init__(self) -> None:
        self.memory = dimse.PerformedStepMemory()
        super().__init__(self.memory)

    async def handle_n_create(self, request: dimse.NCreateRequest) -> dimse.Reply:
        await trio.sleep(1)
        return await super().handle_n_create(request)
