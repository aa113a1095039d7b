"""`dimse-trio forward`: what it acknowledges, its destinations have."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import dimse_trio as dimse
from dimse_trio.testing import dcmtk as programs

from .program import Ended, Keeper, Running, run, served


@attrs.define
class Router:
    """The program, forwarding."""

    program: Running
    port: int
    spool: Path

    async def send(self, *files: Path, options: tuple[object, ...] = ()) -> Ended:
        address = f"127.0.0.1:{self.port}"
        return await run("store", address, "--aec", "ROUTER", "--aet", "CT1", *files, *options)

    async def said(self) -> dict[str, Any]:
        """What it says of the next instance."""
        row: dict[str, Any] = json.loads(await self.program.line())
        return row

    async def stop(self) -> Ended:
        self.program.process.send_signal(signal.SIGTERM)
        return await self.program.ended()


@asynccontextmanager
async def routing(
    tmp_path: Path, *peers: str, options: tuple[object, ...] = ()
) -> AsyncGenerator[Router]:
    spool = tmp_path / "spool"
    async with await Running.start(
        *("forward", *peers, "--port", 0, "--aet", "ROUTER", "--spool", spool, "--json"),
        *options,
    ) as program:
        yield Router(program, await program.listening(), spool)
        assert list(spool.iterdir()) == []


@asynccontextmanager
async def keeping(folder: Path, title: str, **options: Any) -> AsyncGenerator[tuple[Keeper, str]]:
    """A destination, and what the program is told to find it by."""
    keeper = Keeper(folder, **options)
    async with served(keeper, ae_title=title) as (address, *_):
        yield keeper, f"{title}={address}"


def data_set_of(path: Path) -> bytes:
    return path.read_bytes()[dimse.Instance.from_file(path).offset :]


async def test_every_destination_gets_every_instance_as_it_is(
    files: list[Path], tmp_path: Path
) -> None:
    async with (
        keeping(tmp_path / "a", "A") as (one, to_one),
        keeping(tmp_path / "b", "B") as (other, to_other),
        routing(tmp_path, to_one, to_other) as router,
    ):
        (await run("echo", f"127.0.0.1:{router.port}", "--aec", "ROUTER")).check_done()
        (await router.send(*files, options=("--jobs", 3))).check_done()
        rows = [await router.said() for _ in files]
        ended = await router.stop()
    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")
    sent = {dimse.Instance.from_file(path).sop_instance_uid: path for path in files}
    for kept in (one, other):
        assert set(kept.files) == set(sent)
        for uid, path in sent.items():
            got = kept.files[uid]
            syntax = dimse.Instance.from_file(path).transfer_syntax_uid
            assert dimse.Instance.from_file(got).transfer_syntax_uid == syntax
            assert data_set_of(got)[: len(data_set_of(path))] == data_set_of(path)
    for row in rows:
        syntax = row["transfer_syntax_uid"]
        assert syntax == dimse.Instance.from_file(sent[row["sop_instance_uid"]]).transfer_syntax_uid
        assert (row["status"], row["calling_ae_title"]) == (0, "CT1")
        assert row["destinations"] == [
            {
                "name": title,
                "ae_title": title,
                "status": 0,
                "transfer_syntax_uid": syntax,
                "transcoded": False,
                "error": None,
            }
            for title in "AB"
        ]


async def test_associations_with_destinations_are_used_again(
    files: list[Path], tmp_path: Path
) -> None:
    async with (
        dimse.open_server(Keeper(tmp_path / "a"), ae_title="A") as server,
        routing(tmp_path, f"A=127.0.0.1:{server.port}") as router,
    ):
        for _ in range(5):
            (await router.send(files[0])).check_done()
        assert server.statistics().associations_accepted == 1
        await router.stop()
        assert server.statistics().associations_open == 0


@pytest.mark.parametrize(
    ("answers", "code"), [((0, 0xB000), 0), ((0xB006, 0xA700), 1), ((0xC123, 0xA700), 1)]
)
async def test_the_worst_status_is_the_answer(
    files: list[Path], tmp_path: Path, answers: tuple[int, int], code: int
) -> None:
    worst = {(0, 0xB000): 0xB000, (0xB006, 0xA700): 0xA700, (0xC123, 0xA700): 0xC123}[answers]
    async with (
        keeping(tmp_path / "a", "A", answer=lambda _: answers[0]) as (_, to_one),
        keeping(tmp_path / "b", "B", answer=lambda _: answers[1]) as (_, to_other),
        routing(tmp_path, to_one, to_other) as router,
    ):
        ended = await router.send(files[0], options=("--json",))
        row = await router.said()
    assert ended.code == code
    assert ended.objects[0]["status"] == row["status"] == worst
    assert [each["status"] for each in row["destinations"]] == list(answers)


async def test_a_destination_that_is_not_there_leaves_the_instance_with_the_sender(
    files: list[Path], tmp_path: Path
) -> None:
    port = programs.free_port()
    async with (
        keeping(tmp_path / "a", "A") as (_, to_one),
        routing(tmp_path, to_one, f"GONE=127.0.0.1:{port}", options=("--retries", 0)) as router,
    ):
        ended = await router.send(files[0])
        ended.check(1, "out of resources (0xa700)", "not sent on to GONE")
        row = await router.said()
        assert [each["status"] for each in row["destinations"]] == [0, 0xA700]
        async with dimse.open_server(Keeper(tmp_path / "b"), port, ae_title="GONE"):
            (await router.send(files[0])).check_done()
        ended = await router.stop()
    ended.check(0, "an instance was not sent on to GONE: no connection to 127.0.0.1")


async def test_a_class_that_a_destination_does_not_take_is_a_failure_of_its_own(
    files: list[Path], tmp_path: Path
) -> None:
    contexts = [dimse.PresentationContext(dimse.uid_of("Verification"))]
    async with served(Keeper(tmp_path / "a"), ae_title="A", contexts=contexts) as (address, *_):
        async with routing(tmp_path, f"A={address}") as router:
            (await router.send(files[0])).check(1, "(0x0122)", "not sent on to A")


async def test_a_compressed_instance_is_decompressed_only_if_asked(
    study: dict[str, Any], tmp_path: Path
) -> None:
    sample = study["RLELossless"]
    keeper = Keeper(tmp_path / "a")
    explicit = dimse.uid_of("ExplicitVRLittleEndian")
    sop_class = dimse.Instance.from_file(sample.path).sop_class_uid
    contexts = [dimse.PresentationContext(sop_class, explicit)]
    async with served(keeper, ae_title="A", contexts=contexts) as (address, *_):
        async with routing(tmp_path, f"A={address}") as router:
            (await router.send(sample.path)).check(1, "(0x0122)")
        async with routing(
            tmp_path, f"A={address}", options=("--on-mismatch", "transcode")
        ) as router:
            (await router.send(sample.path)).check_done()
            (told,) = (await router.said())["destinations"]
    assert (told["transcoded"], told["transfer_syntax_uid"]) == (True, explicit)
    (path,) = keeper.files.values()
    assert dimse.Instance.from_file(path).transfer_syntax_uid == explicit


async def test_tls_on_both_sides(files: list[Path], tmp_path: Path, pem: dict[str, Path]) -> None:
    keeper = Keeper(tmp_path / "a")
    tls = dimse.tls_profile(server=True, certificate=pem["server"], ca=pem["ca"])
    async with dimse.open_server(keeper, ae_title="KEPT", ssl_context=tls) as server:
        peers = tmp_path / "peers.toml"
        peers.write_text(
            f'[A]\nhost = "127.0.0.1"\nport = {server.port}\nae_title = "KEPT"\n'
            'tls_ca = "ca.pem"\ntls_cert = "client.pem"\n'
        )
        options = ("--peers-file", peers, "--tls-cert", pem["server"])
        async with routing(tmp_path, "A", options=options) as router:
            (await router.send(files[0], options=("--tls-ca", pem["ca"]))).check_done()
            assert (await router.send(files[0])).code in (3, 4)
    assert len(keeper.files) == 1


async def test_stopped_it_waits_for_what_is_under_way(files: list[Path], tmp_path: Path) -> None:
    arrived, answer = trio.Event(), trio.Event()

    class Slow(Keeper):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            arrived.set()
            await answer.wait()
            return await super().handle_store(request)

    keeper = Slow(tmp_path / "a")
    ends: list[Ended] = []
    async with (
        served(keeper, ae_title="A") as (address, *_),
        routing(tmp_path, f"A={address}", options=("--grace", 60)) as router,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            ends.append(await router.send(files[0]))

        nursery.start_soon(send)
        await arrived.wait()
        router.program.process.send_signal(signal.SIGINT)
        answer.set()
        ended = await router.program.ended()
    assert (ended.code, ends[0].code, len(keeper.files)) == (0, 0, 1)


async def test_a_sender_that_is_gone_leaves_nothing_behind(
    files: list[Path], tmp_path: Path
) -> None:
    arrived = trio.Event()

    class Stuck(Keeper):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            arrived.set()
            await trio.sleep_forever()
            raise AssertionError

    async with (
        served(Stuck(tmp_path / "a"), ae_title="A") as (address, *_),
        routing(tmp_path, f"A={address}") as router,
    ):
        with trio.CancelScope() as scope:
            async with dimse.open_association(
                "127.0.0.1",
                router.port,
                called_ae_title="ROUTER",
                contexts=dimse.contexts_for(files[:1]),
            ) as association:
                association.start_soon(association.store, files[0])
                await arrived.wait()
                scope.cancel()
        with trio.fail_after(30):
            while list(router.spool.iterdir()):
                await trio.lowlevel.checkpoint()
        assert (await router.stop()).code == 0


@pytest.mark.interop
async def test_between_storescu_and_storescp(
    dcmtk: Any, study: dict[str, Any], tmp_path: Path
) -> None:
    sample = study["JPEG2000Lossless"]
    async with (
        dcmtk.storescp(tmp_path / "scp") as target,
        routing(tmp_path, f"STORESCP=127.0.0.1:{target.port}") as router,
    ):
        await dcmtk.storescu(
            router.port,
            sample.path,
            called_ae_title="ROUTER",
            transfer_syntax=sample.transfer_syntax,
            options=["-R"],
        )
        assert (await router.said())["status"] == 0
        await router.stop()
        (path,) = target.files()
    assert dimse.Instance.from_file(path).transfer_syntax_uid == sample.transfer_syntax
    assert data_set_of(path)[: len(data_set_of(sample.path))] == data_set_of(sample.path)


@pytest.mark.interop
async def test_to_a_destination_that_serves_one_association_at_a_time(
    dcmtk: Any, files: list[Path], tmp_path: Path
) -> None:
    """Each file needs other presentation contexts than the last one."""
    async with (
        dcmtk.storescp(tmp_path / "scp", fork=False) as target,
        routing(tmp_path, f"STORESCP=127.0.0.1:{target.port}") as router,
    ):
        with trio.fail_after(25):  # less than a request that is not answered
            (await router.send(*files)).check_done()
        await router.stop()
        assert len(target.files()) == len(files)


async def test_peers_of_the_same_title_are_known_by_their_names(
    files: list[Path], tmp_path: Path
) -> None:
    async with (
        keeping(tmp_path / "a", "STORE") as (first, one),
        keeping(tmp_path / "b", "STORE") as (second, other),
    ):
        entries = {"ONE": one, "OTHER": other}
        peers_file = tmp_path / "peers.toml"
        peers_file.write_text(
            "".join(
                f'[{name}]\nhost = "127.0.0.1"\nport = {peer.rpartition(":")[2]}\n'
                'ae_title = "STORE"\n'
                for name, peer in entries.items()
            )
        )
        async with routing(tmp_path, *entries, options=("--peers-file", peers_file)) as router:
            (await router.send(files[0])).check_done()
            row = await router.said()
    assert [(each["name"], each["ae_title"]) for each in row["destinations"]] == [
        ("ONE", "STORE"),
        ("OTHER", "STORE"),
    ]
    assert first.files.keys() == second.files.keys() != set()


async def test_what_a_killed_one_has_left_in_its_spool_is_said(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / ("0" * 32 + ".dcm")).touch()
    (spool / ("." + "0" * 16 + ".part")).touch()
    (spool / "another.dcm").touch()
    async with await Running.start(
        "forward", "A=127.0.0.1:1", "--port", 0, "--spool", spool
    ) as program:
        await program.listening()
        program.process.send_signal(signal.SIGTERM)
        ended = await program.ended()
    assert f"dimse-trio: {spool} has 2 files of a forward that was killed" in ended.stderr
    assert len(list(spool.iterdir())) == 3
