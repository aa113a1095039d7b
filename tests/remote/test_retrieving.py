"""`RemoteAE.find` and `RemoteAE.retrieve`: what came, and whether that is all."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import attrs
import pytest
from pydicom import Dataset, dcmread

import dimse_trio as dimse
from dimse_trio.archive import Archive
from dimse_trio.testing import dcmtk as programs
from dimse_trio.testing import served_archive
from interop.samples import STUDY_UID, Sample

from .peers import Leaky, instance, remote

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
