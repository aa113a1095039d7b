"""Transfer syntaxes that do not match, in whole jobs and sub-operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import trio

import dimse_trio as dimse

from .mismatches import (
    DAMAGED_FILE,
    EXPLICIT,
    IMPLICIT,
    JPEG_FILE,
    NATIVE_FILE,
    RLE,
    RLE_FILE,
    Shelf,
    Source,
    same,
)


def native_only(*paths: Path) -> list[dimse.PresentationContext]:
    classes = {dimse.Instance.from_file(path).sop_class_uid for path in paths}
    syntaxes = (EXPLICIT, IMPLICIT)
    return [dimse.PresentationContext(uid, syntaxes, scp=True) for uid in sorted(classes)]


FILES = [RLE_FILE, DAMAGED_FILE, JPEG_FILE, NATIVE_FILE]


async def test_a_job_goes_on_and_says_what_became_of_each() -> None:
    shelf = Shelf()
    async with dimse.open_server(shelf, contexts=native_only(*FILES)) as server:
        peer = dimse.RemoteAE("ARCHIVE", "127.0.0.1", server.port)
        outcomes = await peer.store(FILES, on_mismatch="transcode")
        refused = await peer.store(FILES)
    assert [o.stored for o in outcomes] == [True, False, True, True]
    assert [o.transcoded for o in outcomes] == [True, False, True, False]
    assert [o.transfer_syntax_uid for o in outcomes] == [EXPLICIT, None, EXPLICIT, EXPLICIT]
    assert isinstance(outcomes[1].error, dimse.TranscodingError)
    assert [o.stored for o in refused] == [False, False, False, True]


async def test_a_policy_that_fails_fails_its_instances_only() -> None:
    def policy(mismatch: dimse.Mismatch) -> str:
        if mismatch.transfer_syntax_uid == RLE:
            raise dimse.AssociationClosed("of another association")
        return "transcode"

    async with dimse.open_server(Shelf(), contexts=native_only(*FILES)) as server:
        peer = dimse.RemoteAE("ARCHIVE", "127.0.0.1", server.port)
        outcomes = await peer.store([RLE_FILE, JPEG_FILE], on_mismatch=policy)
    assert [o.stored for o in outcomes] == [False, True]


async def moved(policy: Any) -> tuple[dimse.RetrieveResult, Shelf]:
    shelf = Shelf()
    async with (
        dimse.open_server(shelf, contexts=native_only(*FILES)) as station,
        dimse.open_server(
            Source(FILES), peers={"WS": ("127.0.0.1", station.port)}, on_mismatch=policy
        ) as pacs,
        dimse.open_association("127.0.0.1", pacs.port) as association,
    ):
        what = dimse.query("STUDY", StudyInstanceUID="1.2.3")
        return await association.move(what, destination="WS", check=False), shelf


async def got(policy: Any, folder: Path) -> dimse.RetrieveResult:
    async with dimse.open_server(Source(FILES), on_mismatch=policy) as pacs:
        contexts = [*dimse.retrieve_contexts([]), *native_only(*FILES)]
        async with dimse.open_association("127.0.0.1", pacs.port, contexts=contexts) as association:
            what = dimse.query("STUDY", StudyInstanceUID="1.2.3")
            return await association.get(what, save_to=folder, check=False)


async def test_a_move_transcodes_for_its_destination() -> None:
    result, shelf = await moved("transcode")
    damaged = dimse.Instance.from_file(DAMAGED_FILE).sop_instance_uid
    assert (result.completed, result.failed) == (3, 1)
    assert result.failed_sop_instance_uids == (damaged,)
    assert len(shelf.data_sets) == 3
    for path, came in zip([RLE_FILE, JPEG_FILE, NATIVE_FILE], shelf.data_sets, strict=True):
        assert same(came, pydicom.dcmread(path))


async def test_without_transcoding_a_move_fails_over_them() -> None:
    result, _ = await moved("error")
    assert (result.completed, result.failed) == (1, 3)


async def test_a_get_transcodes_for_its_requestor(tmp_path: Path) -> None:
    result = await got("transcode", tmp_path)
    assert (result.completed, result.failed) == (3, 1)
    came = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, result.files)}
    for path in (RLE_FILE, JPEG_FILE, NATIVE_FILE):
        sent = pydicom.dcmread(path)
        assert same(came[sent.SOPInstanceUID], sent)


async def test_a_servers_policy_is_asked_too(tmp_path: Path) -> None:
    async def policy(mismatch: dimse.Mismatch) -> str | None:
        await trio.lowlevel.checkpoint()
        return EXPLICIT if mismatch.transfer_syntax_uid == RLE else None

    result = await got(policy, tmp_path)
    assert (result.completed, result.failed) == (2, 2)
