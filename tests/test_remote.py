"""`RemoteAE`: whole jobs with a peer, over real sockets; it fails in the ways that peers do."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

import dimse_trio as dimse
from dimse_trio.archive import Archive
from dimse_trio.protocol.uids import SOP_CLASSES
from dimse_trio.testing import dcmtk as programs
from dimse_trio.testing import served_archive
from interop.samples import STUDY_UID, Sample

CT = dimse.uid_of("CTImageStorage")
EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")


def instance(uid: str, sop_class: str = CT) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = UID(sop_class), UID(uid)
    data_set.PatientID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "1", "1.2", "1.2.1"
    return data_set


def write(path: Path, data_set: Dataset) -> Path:
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    data_set.save_as(path, enforce_file_format=True)
    return path


@attrs.define
class Taker:
    """Takes instances, and breaks the association over some of them the first times."""

    breaks: dict[str, int] = attrs.field(factory=dict)
    refuses: tuple[str, ...] = ()
    taken: Counter[str] = attrs.field(factory=Counter[str])
    at_once: int = 0
    most_at_once: int = 0

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await request.data_set()
            uid = request.sop_instance_uid
            if self.breaks.get(uid, 0):
                self.breaks[uid] -= 1
                await request.association.abort()
            if uid in self.refuses:
                return dimse.Status.OUT_OF_RESOURCES
            self.taken[uid] += 1
            await trio.lowlevel.checkpoint()
            return dimse.Status.SUCCESS
        finally:
            self.at_once -= 1


def remote(port: int, **options: object) -> dimse.RemoteAE:
    options.setdefault("pause", 0)
    return dimse.RemoteAE("ARCHIVE", "127.0.0.1", port, **options)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "files"
    folder.mkdir()
    return [write(folder / f"{n:02}.dcm", instance(f"1.2.3.{n}")) for n in range(20)]


# -- associations --------------------------------------------------------------------------------


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


async def until(condition: object) -> None:
    assert callable(condition)
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


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


# -- storing -------------------------------------------------------------------------------------


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


# -- finding -------------------------------------------------------------------------------------


async def test_a_find_is_awaited_or_entered(tmp_path: Path, study: dict[str, Sample]) -> None:
    paths = [sample.path for sample in study.values()]
    async with served_archive(tmp_path, *paths) as archive, remote(archive.port) as peer:
        (found,) = await peer.find_studies(StudyInstanceUID=STUDY_UID)
        assert found.StudyInstanceUID == STUDY_UID
        query = dimse.query("IMAGE", StudyInstanceUID=STUDY_UID, SOPInstanceUID=None)
        assert len(await peer.find(query)) == len(paths)
        async with peer.find(query) as matches:
            async for _ in matches:
                break
        with pytest.raises(dimse.LocalProtocolError, match="inside the operation's block"):
            async for _ in peer.find(query):  # type: ignore[attr-defined]
                raise AssertionError
        assert archive.server.statistics().associations_accepted == 1


# -- retrieving ----------------------------------------------------------------------------------


async def test_a_study_is_retrieved_and_known_to_be_complete(
    tmp_path: Path, study: dict[str, Sample]
) -> None:
    paths = [sample.path for sample in study.values()]
    seen: list[tuple[Path, int, int | None]] = []
    async with served_archive(tmp_path / "archive", *paths) as archive:
        got = await remote(archive.port).retrieve(
            dimse.query("STUDY", StudyInstanceUID=STUDY_UID),
            tmp_path / "out",
            progress=lambda *told: seen.append(told),
        )
    assert (got.method, got.complete, got.missing) == ("C-GET", True, ())
    assert got.status == dimse.Status.SUCCESS
    expected = {str(dcmread(path).SOPInstanceUID) for path in paths}
    assert set(got.files) == expected
    for uid, path in got.files.items():
        assert dcmread(path).SOPInstanceUID == uid
    assert [(done, total) for _, done, total in seen] == [
        (n, len(paths)) for n in range(1, len(paths) + 1)
    ]


@pytest.mark.parametrize("method", [None, "C-MOVE"])
async def test_a_peer_without_c_get_is_asked_to_send_to_our_listener(
    tmp_path: Path, study: dict[str, Sample], method: object
) -> None:
    paths = [sample.path for sample in study.values()]
    port = programs.free_port()
    moving = {"peers": {"DIMSE-TRIO": ("127.0.0.1", port)}}
    async with served_archive(tmp_path / "archive", *paths) as archive:
        handler = WithoutGet(archive.archive)
        async with dimse.open_server(handler, **moving) as server:  # type: ignore[arg-type]
            peer = remote(server.port, listen_port=port, listen_host="127.0.0.1")
            got = await peer.retrieve(
                dimse.query("STUDY", StudyInstanceUID=STUDY_UID),
                tmp_path / "out",
                method=method,  # type: ignore[arg-type]
            )
            with pytest.raises(dimse.ContextNotAccepted):
                await remote(server.port).retrieve(
                    dimse.query("STUDY", StudyInstanceUID=STUDY_UID), tmp_path / "out"
                )
            with pytest.raises(dimse.LocalProtocolError, match="listen_port"):
                await remote(server.port).retrieve(
                    dimse.query("STUDY", StudyInstanceUID=STUDY_UID),
                    tmp_path / "out",
                    method="C-MOVE",
                )
    assert (got.method, got.complete, got.missing) == ("C-MOVE", True, ())
    assert len(got.files) == len(paths)


@attrs.define
class WithoutGet:
    """An archive that knows C-FIND and C-MOVE only."""

    archive: Archive

    def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        return self.archive.handle_find(request)

    def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[object]:
        return self.archive.handle_move(request)


async def test_a_query_by_other_keys_retrieves_each_entity_that_matches(
    tmp_path: Path, study: dict[str, Sample]
) -> None:
    paths = [sample.path for sample in study.values()]
    async with served_archive(tmp_path / "archive", *paths) as archive:
        peer = remote(archive.port)
        name = str(dcmread(paths[0]).PatientName)
        got = await peer.retrieve(
            dimse.query("STUDY", PatientName=f"{name[:3]}*"), tmp_path / "one"
        )
        assert (got.complete, len(got.files)) == (True, len(paths))
        none = await peer.retrieve(dimse.query("STUDY", PatientName="NOBODY"), tmp_path / "two")
        assert (none.complete, none.files) == (False, {})


class Leaky:
    """An archive that forgets an instance in its C-GETs, the first times."""

    def __init__(self, files: dict[str, Path], forgets: int) -> None:
        self.files = files
        self.forgets = forgets
        self.gets = 0

    async def handle_find(self, request: dimse.FindRequest) -> AsyncGenerator[Dataset]:
        level = request.identifier.QueryRetrieveLevel
        matches = {"SERIES": ["1.2.1"], "IMAGE": list(self.files)}[level]
        for uid in matches:
            match = instance(uid if level == "IMAGE" else "1")
            match.QueryRetrieveLevel = level
            yield match

    async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Path]:
        self.gets += 1
        wanted = request.identifier.get("SOPInstanceUID") or list(self.files)
        wanted = [wanted] if isinstance(wanted, str) else wanted
        for uid in wanted:
            if uid == "1.2.3.4" and self.gets <= self.forgets:
                continue
            yield self.files[uid]


@pytest.mark.parametrize(
    ("forgets", "complete", "gets"), [(0, True, 1), (1, True, 2), (9, False, 2)]
)
async def test_what_is_missing_is_asked_for_once_more(
    tmp_path: Path, files: list[Path], forgets: int, complete: bool, gets: int
) -> None:
    handler = Leaky({f"1.2.3.{n}": path for n, path in enumerate(files)}, forgets)
    async with dimse.open_server(handler) as server:
        got = await remote(server.port).retrieve(
            dimse.query("STUDY", StudyInstanceUID="1.2"), tmp_path / "out"
        )
    assert (got.complete, handler.gets) == (complete, gets)
    assert got.missing == (() if complete else ("1.2.3.4",))
    assert len(got.files) == 20 - (not complete)


async def test_a_peer_that_cannot_be_asked_is_retrieved_from_all_the_same(
    tmp_path: Path, files: list[Path]
) -> None:
    class OnlyGet:
        async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Path]:
            for path in files:
                yield path

    async with dimse.open_server(OnlyGet()) as server:
        got = await remote(server.port).retrieve(
            dimse.query("STUDY", StudyInstanceUID="1.2"), tmp_path / "out"
        )
    assert (got.complete, len(got.files)) == (None, 20)


async def test_a_retrieve_whose_association_breaks_is_done_again(
    tmp_path: Path, files: list[Path]
) -> None:
    class Breaking(Leaky):
        async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Path]:
            self.gets += 1
            for number, path in enumerate(self.files.values()):
                if number == 10 and self.gets < 3:
                    await request.association.abort()
                yield path

    handler = Breaking({f"1.2.3.{n}": path for n, path in enumerate(files)}, 0)
    async with dimse.open_server(handler) as server:
        got = await remote(server.port).retrieve(
            dimse.query("STUDY", StudyInstanceUID="1.2"), tmp_path / "out"
        )
        assert (got.complete, len(got.files), handler.gets) == (True, 20, 3)
        handler.gets = -9
        with pytest.raises(dimse.AssociationAborted):
            await remote(server.port).retrieve(
                dimse.query("STUDY", StudyInstanceUID="1.2"), tmp_path / "out"
            )


@pytest.mark.parametrize("method", ["C-GET", "C-MOVE"])
@pytest.mark.parametrize("most", [8, 1])
async def test_series_are_retrieved_over_several_associations_or_as_many_as_the_peer_takes(
    tmp_path: Path, study: dict[str, Sample], method: object, most: int
) -> None:
    paths = [sample.path for sample in study.values()]
    port = programs.free_port()
    async with served_archive(tmp_path / "archive", *paths) as archive:
        async with dimse.open_server(
            archive.archive, peers={"DIMSE-TRIO": ("127.0.0.1", port)}, max_associations=most
        ) as server:
            peer = remote(server.port, listen_port=port, listen_host="127.0.0.1", retries=0)
            got = await peer.retrieve(
                dimse.query("STUDY", StudyInstanceUID=STUDY_UID),
                tmp_path / "out",
                method=method,  # type: ignore[arg-type]
                jobs=3,
            )
            accepted = server.statistics().associations_accepted
    assert (got.method, got.complete, len(got.files)) == (method, True, len(paths))
    assert accepted == 1 + len({str(dcmread(path).SeriesInstanceUID) for path in paths})


async def test_what_the_peer_could_not_send_is_named(tmp_path: Path, files: list[Path]) -> None:
    lost = tmp_path / "lost.dcm"
    lost.write_bytes(files[0].read_bytes())

    class Losing:
        async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Path]:
            yield lost
            yield files[1]
            lost.unlink()

    async with dimse.open_server(Losing()) as server:
        got = await remote(server.port).retrieve(
            dimse.query("STUDY", StudyInstanceUID="1.2"), tmp_path / "out"
        )
    assert (got.complete, got.failed, set(got.files)) == (False, ("1.2.3.0",), {"1.2.3.1"})


async def test_our_listener_takes_nothing_from_strangers(
    tmp_path: Path, study: dict[str, Sample]
) -> None:
    paths = [sample.path for sample in study.values()]
    port = programs.free_port()
    refused: list[int] = []

    @attrs.define
    class WithStranger(WithoutGet):
        async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[object]:
            async with dimse.open_association(
                "127.0.0.1", port, called_ae_title="DIMSE-TRIO"
            ) as stranger:
                response = await stranger.store(instance("1.2.3.99"), check=False)
                refused.append(response.status)
            async for item in self.archive.handle_move(request):
                yield item

    async with served_archive(tmp_path / "archive", *paths) as archive:
        handler = WithStranger(archive.archive)
        peers = {"DIMSE-TRIO": ("127.0.0.1", port)}
        async with dimse.open_server(handler, peers=peers) as server:
            peer = remote(server.port, listen_port=port, listen_host="127.0.0.1")
            query = dimse.query("STUDY", StudyInstanceUID=STUDY_UID)
            got = await peer.retrieve(query, tmp_path / "out", method="C-MOVE")
    assert refused == [dimse.Status.NOT_AUTHORIZED]
    assert (got.complete, len(got.files)) == (True, len(paths))
    assert len(list((tmp_path / "out").iterdir())) == len(paths)


# -- cancellation --------------------------------------------------------------------------------


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when the current task is about to take its n-th step from here."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self._task = trio.lowlevel.current_task()
        self._steps = steps
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._steps -= 1
            if not self._steps:
                self._scope.cancel()


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
