"""`RemoteAE` and its associations: how many there are, for how long, what cancellation leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse

from .peers import CancelAfter, Leaky, Taker, instance, remote, until

# -- associations ----------------------------------------------------------------------------------


async def test_outside_a_block_each_call_has_an_association_of_its_own() -> None:
    async with dimse.open_server(Taker()) as server:
        peer = remote(server.port)
        for _ in range(3):
            assert (await peer.echo()).status == dimse.Status.SUCCESS
        await until(lambda: server.statistics().associations_open == 0)
        assert server.statistics().associations_accepted == 3


async def test_in_a_block_associations_are_used_again_and_released_at_its_end() -> None:
    async with dimse.open_server(Taker()) as server:
        async with remote(server.port) as peer:
            for _ in range(3):
                await peer.echo()
            await peer.store(instance("1.2.3"))
            await peer.store([instance("1.2.4")])
            assert server.statistics() == dimse.ServerStatistics(2, 2, 0)
        await until(lambda: server.statistics().associations_open == 0)


async def test_an_association_is_not_kept_for_longer_than_asked() -> None:
    async with dimse.open_server(Taker()) as server, remote(server.port, keep_idle=0.01) as peer:
        await peer.echo()
        await until(lambda: server.statistics().associations_open == 0)
        await peer.echo()
        assert server.statistics().associations_accepted == 2


async def test_there_are_no_more_associations_than_asked_for() -> None:
    async with dimse.open_server(Taker()) as server:
        async with remote(server.port, max_associations=2) as peer, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(peer.echo)
        assert server.statistics().associations_accepted <= 2
        async with remote(server.port, max_associations=1) as peer:
            await peer.echo()
            await peer.store(instance("1.2"))  # other contexts: the idle one makes room
            await until(lambda: server.statistics().associations_open == 1)


async def test_an_association_that_the_peer_has_closed_is_replaced() -> None:
    async with dimse.open_server(Taker()) as server:
        peer = remote(server.port)
        async with peer:
            await peer.echo()
            port = server.port
            await server.stop()
            with pytest.raises(dimse.ConnectionFailed):
                await peer.echo()
            async with dimse.open_server(Taker(), port):
                assert (await peer.echo()).status == dimse.Status.SUCCESS


async def test_an_exception_leaves_the_block_bare_and_closes_everything() -> None:
    async with dimse.open_server(Taker()) as server:
        with pytest.raises(KeyError):
            async with remote(server.port) as peer:
                await peer.echo()
                raise KeyError
        await until(lambda: server.statistics().associations_open == 0)


async def test_a_call_that_is_cancelled_costs_its_association_only() -> None:
    entered = trio.Event()

    class Slow(Taker):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            if not entered.is_set():
                entered.set()
                await trio.sleep_forever()
            return dimse.Status.SUCCESS

    async with dimse.open_server(Slow()) as server, remote(server.port) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.echo)
            await entered.wait()
            nursery.cancel_scope.cancel()
        assert (await peer.echo()).status == dimse.Status.SUCCESS
        assert server.statistics().associations_accepted == 2


async def test_a_block_in_a_block_of_the_same_is_refused() -> None:
    peer = remote(1)
    async with peer:
        with pytest.raises(dimse.LocalProtocolError, match="block already"):
            async with peer:
                raise AssertionError


@pytest.mark.parametrize(
    "options",
    [{"max_associations": 0}, {"retries": -1}, {"calling_ae_title": ""}, {"max_pdu_length": 1}],
)
def test_arguments_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(dimse.LocalProtocolError):
        remote(104, **options)


async def test_what_is_no_query_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    peer = remote(1)
    for call in (peer.find, lambda q: peer.move(q, destination="WS")):
        with pytest.raises(TypeError, match=r"takes a query\(...\), not str"):
            await call("STUDY")  # type: ignore[operator]
    with pytest.raises(TypeError, match="retrieve takes a query"):
        await peer.retrieve({}, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(dimse.LocalProtocolError, match="not 'move'"):
        await peer.retrieve(dimse.query("STUDY"), tmp_path, method="move")  # type: ignore[arg-type]


def test_an_outcome_does_not_show_the_data_set() -> None:
    data_set = Dataset()
    data_set.PatientName = "Doe^Jane"
    outcome = dimse.StoreOutcome(data_set, "1.2.3", dimse.Status.SUCCESS, None)
    assert "Doe" not in repr(outcome)
    assert "a.dcm" in repr(dimse.StoreOutcome(Path("a.dcm"), "1.2.3", None, None))


# -- cancellation ----------------------------------------------------------------------------------


class Peer(Leaky):
    """Has all that the calls below need."""

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        return dimse.Status.SUCCESS if await request.data_set() else dimse.Status.CANCEL


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("call", ["echo", "find", "store", "retrieve"])
async def test_a_call_cancelled_at_any_step_leaves_no_association_and_no_part_of_a_file(
    tmp_path: Path, files: list[Path], call: str, pooled: bool
) -> None:
    query = dimse.query("STUDY", StudyInstanceUID="1.2")
    output = tmp_path / "out"

    async def run(peer: dimse.RemoteAE) -> None:
        match call:
            case "echo":
                await peer.echo()
            case "find":
                await peer.find_series(StudyInstanceUID="1.2")
            case "store":
                await peer.store(files[:4], jobs=2)
            case _:
                await peer.retrieve(query, output)

    handler = Peer({f"1.2.3.{n}": path for n, path in enumerate(files[:4])}, 0)
    async with dimse.open_server(handler) as server:
        finished = False
        steps = 0
        while not finished:
            steps += 1
            peer = remote(server.port)
            with trio.fail_after(30), trio.CancelScope() as scope:
                instrument = CancelAfter(steps, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    if pooled:
                        async with peer:
                            await run(peer)
                    else:
                        await run(peer)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
                finished = True
            await until(lambda: server.statistics().associations_open == 0)
        assert steps > 3
    assert not output.exists() or not list(output.glob(".*"))
