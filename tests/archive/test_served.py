"""The archive behind a server: every service, over TCP."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from pydicom import dcmread

import dimse_trio as dimse
from dimse_trio.archive import Archive, open_archive

from .instances import TEST_FILES, instance, unfinished_files, visible_files, write


@asynccontextmanager
async def served(
    archive: Archive, ae_title: str = "ARCHIVE", **peers: tuple[str, int]
) -> AsyncGenerator[dimse.Server]:
    async with dimse.open_server(archive, 0, ae_title=ae_title, peers=peers) as server:
        yield server


@asynccontextmanager
async def connected(server: dimse.Server, *files: Path) -> AsyncGenerator[dimse.Association]:
    contexts = dimse.contexts_for(files) if files else None
    async with dimse.open_association(
        "127.0.0.1", server.port, called_ae_title="ARCHIVE", contexts=contexts
    ) as association:
        yield association


def storable() -> list[Path]:
    """The test files that are whole instances, and say in both places which."""
    files: list[Path] = []
    for path in sorted(TEST_FILES.glob("*.dcm")):
        try:
            found = dimse.Instance.from_file(path)
        except dimse.InvalidFile:
            continue
        data_set = dcmread(path, stop_before_pixels=True)
        if (
            "truncated" not in path.name
            and data_set.get("SOPInstanceUID") == found.sop_instance_uid
            and data_set.get("SOPClassUID") == found.sop_class_uid
            and data_set.get("StudyInstanceUID")
            and data_set.get("SeriesInstanceUID")
        ):
            files.append(path)
    return files


async def test_every_service(archive: Archive, tmp_path: Path) -> None:
    files = storable()
    latest = {dimse.Instance.from_file(path).sop_instance_uid: path for path in files}
    assert len(latest) > 25
    async with open_archive(tmp_path / "other") as other, served(other, "OTHER") as destination:
        async with served(archive, OTHER=("127.0.0.1", destination.port)) as server:
            for path in files:
                async with connected(server, path) as association:
                    assert (await association.store(path)).status == 0
            async with connected(server) as association:
                assert (await association.echo()).status == 0
                images = await association.find_instances()
                assert {image.SOPInstanceUID for image in images} == set(latest)
                for path in latest.values():
                    data_set = dcmread(path, stop_before_pixels=True)
                    (study,) = await association.find_studies(
                        StudyInstanceUID=data_set.StudyInstanceUID, PatientName="*"
                    )
                    assert study.StudyDate == data_set.get("StudyDate", "")
                    assert str(study.PatientName).rstrip("^=") == str(
                        data_set.get("PatientName", "")
                    ).rstrip("^=")
                studies = [study.StudyInstanceUID for study in await association.find_studies()]
                query = dimse.query("STUDY", StudyInstanceUID=studies)
                result = await association.move(query, destination="OTHER")
            assert (result.status, result.completed) == (0, len(latest))
    for uid, path in latest.items():
        (kept,) = (tmp_path / "other").rglob(f"{uid}.dcm")
        original = dimse.Instance.from_file(path)
        copy = dimse.Instance.from_file(kept)
        assert copy.transfer_syntax_uid == original.transfer_syntax_uid
        sent = path.read_bytes()[original.offset :]
        sent += b"\0" * (len(sent) % 2)  # as fragments have to be even
        assert kept.read_bytes()[copy.offset :] == sent


async def test_retrieval_on_the_same_association(archive: Archive, tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{number}.dcm", instance(uid=f"1.2.1.1.{number}")) for number in range(20)
    ]
    for file in files:
        await archive.add_file(file)
    async with served(archive) as server, connected(server) as association:
        query = dimse.query("STUDY", StudyInstanceUID="1.2.1")
        result = await association.get(query, save_to=tmp_path / "got")
        assert (result.status, result.completed) == (0, 20)
        query = dimse.query("IMAGE", SOPInstanceUID=["1.2.1.1.3", "1.2.1.1.4"])
        assert (await association.get(query, save_to=tmp_path / "two")).completed == 2
        with pytest.raises(dimse.StatusError) as caught:
            await association.get(dimse.query("STUDY"), save_to=tmp_path / "all")
        assert caught.value.status == dimse.Status.DATA_SET_MISMATCH
        assert (await association.echo()).status == 0
    assert len(list((tmp_path / "got").iterdir())) == 20


async def test_refusals_reach_the_peer_and_the_association_lives(
    archive: Archive, tmp_path: Path
) -> None:
    bad = write(tmp_path / "bad.dcm", instance(StudyInstanceUID=None))
    async with served(archive) as server, connected(server, bad) as association:
        for _ in range(3):
            response = await association.store(bad, check=False)
            assert response.status == dimse.Status.DATA_SET_MISMATCH
            assert response.error_comment == "data set has no StudyInstanceUID"
    async with served(archive) as server, connected(server) as association:
        query = dimse.query("STUDY", model="STUDY_ROOT")
        query.identifier.QueryRetrieveLevel = "PATIENT"
        with pytest.raises(dimse.StatusError, match="level"):
            await association.find(query)
        assert await association.find_studies() == []
    assert visible_files(archive.folder) == unfinished_files(archive.folder) == []


async def test_a_long_answer_that_is_cancelled(archive: Archive, tmp_path: Path) -> None:
    source = tmp_path / "source.dcm"
    for number in range(300):
        await archive.add_file(write(source, instance(uid=f"1.2.1.1.{number}")))
    async with served(archive) as server, connected(server) as association:
        count = 0
        async with association.find(dimse.query("IMAGE")) as matches:
            async for _ in matches:
                count += 1
                if count == 3:
                    break
        assert len(await association.find_instances()) == 300


async def test_many_peers_store_at_once(archive: Archive, tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{number}.dcm", instance(uid=f"1.2.1.1.{number}")) for number in range(60)
    ]

    async def send(server: dimse.Server, mine: list[Path]) -> None:
        async with connected(server, *mine) as association:
            for path in mine:
                await association.store(path)

    async with served(archive) as server, trio.open_nursery() as nursery:
        for start in range(6):  # everything twice, by different peers
            nursery.start_soon(send, server, files[start % 3 :: 3])
    assert len(visible_files(archive.folder)) == 60
    assert (await archive.statistics()).instances == 60


async def test_a_range_of_moments_is_for_those_that_negotiated_it(archive: Archive) -> None:
    find = dimse.uid_of("StudyRootQueryRetrieveInformationModelFind")
    early, late = (
        instance(f"1.2.{n}", f"1.2.{n}.1", f"1.2.{n}.1.1", StudyDate=date, StudyTime="120000")
        for n, date in ((1, "20260101"), (2, "20260102"))
    )
    wanted = dimse.QueryOptions(relational=True, date_time=True, fuzzy_names=True)
    plain = dimse.PresentationContext(find)
    combined = dimse.PresentationContext(find, options=wanted)
    async with served(archive) as server:
        async with dimse.open_association(
            "127.0.0.1", server.port, called_ae_title="ARCHIVE"
        ) as association:
            for data_set in (early, late):
                await association.store(data_set)
        found: list[set[str]] = []
        for context in (plain, combined):
            async with dimse.open_association(
                "127.0.0.1", server.port, called_ae_title="ARCHIVE", contexts=[context]
            ) as association:
                agreed = association.negotiated.query_options(find)
                assert agreed.date_time == (context is combined)
                assert not agreed.fuzzy_names
                studies = await association.find_studies(
                    StudyDate="20260101-20260102", StudyTime="180000-130000"
                )
                found.append({study.StudyInstanceUID for study in studies})
        assert found == [set(), {"1.2.2"}]
