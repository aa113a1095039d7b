"""What becomes of an instance in a transfer syntax that the peer does not take."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pydicom
import pytest
import trio

import dimse_trio as dimse
from dimse_trio import transcoding
from dimse_trio.testing import associated_pair
from interop.samples import TEST_FILES

from .mismatches import (
    DAMAGED_FILE,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    JPEG_2000,
    JPEG_FILE,
    NATIVE_FILE,
    RLE,
    RLE_FILE,
    Shelf,
    same,
)


def contexts_of(path: Path, *syntaxes: str) -> list[dimse.PresentationContext]:
    """Contexts of a file's SOP class: all that is proposed is accepted."""
    sop_class = dimse.Instance.from_file(path).sop_class_uid
    return [dimse.PresentationContext(sop_class, (syntax,)) for syntax in syntaxes]


async def stored(
    path: Path, on_mismatch: Any, *accepted: str, shelf: Shelf | None = None
) -> dimse.StoreResult:
    async with associated_pair(
        Shelf() if shelf is None else shelf, contexts=contexts_of(path, *accepted)
    ) as association:
        return await association.store(path, on_mismatch=on_mismatch)


# -- error and transcode ---------------------------------------------------------------------------


async def test_by_default_it_is_an_error_that_says_what_to_do() -> None:
    async with associated_pair(Shelf(), contexts=contexts_of(RLE_FILE, EXPLICIT)) as association:
        with pytest.raises(dimse.ContextNotAccepted, match='on_mismatch="transcode"'):
            await association.store(RLE_FILE)
        assert association.is_open


@pytest.mark.parametrize("on_mismatch", ["error", "transcode"])
async def test_what_is_taken_as_it_is_goes_as_it_is(on_mismatch: str) -> None:
    shelf = Shelf()
    result = await stored(RLE_FILE, on_mismatch, EXPLICIT, RLE, shelf=shelf)
    assert (result.transfer_syntax_uid, result.transcoded) == (RLE, False)
    assert shelf.data_sets[0].PixelData == pydicom.dcmread(RLE_FILE).PixelData


async def test_native_is_re_encoded_without_being_asked() -> None:
    result = await stored(NATIVE_FILE, "error", IMPLICIT)
    assert (result.transfer_syntax_uid, result.transcoded) == (IMPLICIT, False)


@pytest.mark.parametrize("path", [RLE_FILE, JPEG_FILE], ids=["RLE", "JPEG"])
@pytest.mark.parametrize("accepted", [EXPLICIT, IMPLICIT, dimse.uid_of("ExplicitVRBigEndian")])
async def test_a_compressed_file_is_decompressed(path: Path, accepted: str) -> None:
    shelf = Shelf()
    result = await stored(path, "transcode", accepted, shelf=shelf)
    assert (result.status, result.transfer_syntax_uid, result.transcoded) == (0, accepted, True)
    (came,) = shelf.data_sets
    sent = pydicom.dcmread(path)
    assert same(came, sent)
    assert came.SOPInstanceUID == sent.SOPInstanceUID == result.affected_sop_instance_uid


async def test_a_data_set_is_transcoded_and_stays_as_it_is() -> None:
    data_set = pydicom.dcmread(RLE_FILE)
    before = data_set.PixelData
    shelf = Shelf()
    async with associated_pair(shelf, contexts=contexts_of(RLE_FILE, EXPLICIT)) as association:
        result = await association.store(data_set, on_mismatch="transcode")
    assert result.transcoded
    assert same(shelf.data_sets[0], data_set)
    assert data_set.PixelData == before


async def test_native_is_preferred_to_another_compression() -> None:
    accepted = (JPEG_2000, JPEG, IMPLICIT, EXPLICIT)
    assert (await stored(RLE_FILE, "transcode", *accepted)).transfer_syntax_uid == EXPLICIT


@pytest.mark.parametrize("path", [NATIVE_FILE, RLE_FILE], ids=["native", "RLE"])
async def test_where_only_compression_is_taken_it_is_lossless(path: Path) -> None:
    shelf = Shelf()
    result = await stored(path, "transcode", JPEG, JPEG_2000, shelf=shelf)
    assert (result.transfer_syntax_uid, result.transcoded) == (JPEG_2000, True)
    assert same(shelf.data_sets[0], pydicom.dcmread(path))


async def test_nothing_is_compressed_with_loss() -> None:
    with pytest.raises(dimse.TranscodingError, match="JPEGBaseline8Bit, and nothing is compressed"):
        await stored(NATIVE_FILE, "transcode", JPEG)


async def test_what_cannot_be_transcoded_is_not_sent_and_costs_nobody_else() -> None:
    shelf = Shelf()
    contexts = contexts_of(DAMAGED_FILE, EXPLICIT)
    async with associated_pair(shelf, contexts=contexts) as association:
        with pytest.raises(dimse.TranscodingError) as caught:
            await association.store(DAMAGED_FILE, on_mismatch="transcode")
        assert caught.value.target_uid == EXPLICIT
        whole = pydicom.dcmread(TEST_FILES / "JPEG2000.dcm")
        await association.store(whole, on_mismatch="transcode")
    assert len(shelf.data_sets) == 1


async def test_a_sop_class_that_was_not_accepted_is_no_mismatch() -> None:
    def never(_: dimse.Mismatch) -> None:
        raise AssertionError

    for on_mismatch in ("transcode", never):
        async with associated_pair(
            Shelf(), contexts=[dimse.PresentationContext(dimse.uid_of("RTPlanStorage"))]
        ) as association:
            with pytest.raises(dimse.ContextNotAccepted, match="not proposed"):
                await association.store(RLE_FILE, on_mismatch=on_mismatch)  # type: ignore[arg-type]


@pytest.mark.parametrize("on_mismatch", ["convert", "", None, 1])
async def test_what_is_no_policy_is_refused_where_it_is_given(on_mismatch: Any) -> None:
    with pytest.raises(dimse.LocalProtocolError, match="on_mismatch is"):
        await stored(NATIVE_FILE, on_mismatch, EXPLICIT)
    with pytest.raises(dimse.LocalProtocolError, match="on_mismatch is"):
        await dimse.RemoteAE("PACS", "127.0.0.1", 1).store([], on_mismatch=on_mismatch)
    with pytest.raises(dimse.LocalProtocolError, match="on_mismatch is"):
        async with dimse.open_server(Shelf(), on_mismatch=on_mismatch):
            pass


# -- policies --------------------------------------------------------------------------------------


async def test_a_policy_is_told_what_there_is_to_choose_from() -> None:
    asked: list[dimse.Mismatch] = []

    def policy(mismatch: dimse.Mismatch) -> str:
        asked.append(mismatch)
        return mismatch.accepted[-1]

    result = await stored(RLE_FILE, policy, IMPLICIT, EXPLICIT)
    assert result.transfer_syntax_uid == EXPLICIT
    instance = dimse.Instance.from_file(RLE_FILE)
    uids = instance.sop_class_uid, instance.sop_instance_uid, RLE, (IMPLICIT, EXPLICIT)
    assert asked == [dimse.Mismatch(instance, *uids)]
    assert str(RLE_FILE) not in repr(asked)


async def test_a_policy_may_wait() -> None:
    async def policy(mismatch: dimse.Mismatch) -> str:
        await trio.lowlevel.checkpoint()
        return "transcode"

    assert (await stored(RLE_FILE, policy, EXPLICIT)).transcoded


@pytest.mark.parametrize(
    "make", [Path, dimse.Instance.from_file, pydicom.dcmread, trio.Path], ids=lambda f: f.__name__
)
async def test_a_policy_may_send_something_else(make: Callable[[Path], Any]) -> None:
    shelf = Shelf()
    result = await stored(RLE_FILE, lambda _: make(NATIVE_FILE), IMPLICIT, shelf=shelf)
    assert (result.transfer_syntax_uid, result.transcoded) == (IMPLICIT, False)
    assert shelf.data_sets[0].PixelData == pydicom.dcmread(NATIVE_FILE).PixelData


async def test_what_a_policy_gives_is_not_asked_about_again() -> None:
    with pytest.raises(dimse.ContextNotAccepted):
        await stored(RLE_FILE, lambda _: RLE_FILE, EXPLICIT)


async def test_a_policy_may_refuse() -> None:
    with pytest.raises(dimse.ContextNotAccepted):
        await stored(RLE_FILE, lambda _: None, EXPLICIT)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (JPEG, "the peer takes only ExplicitVRLittleEndian"),
        (str(NATIVE_FILE), "answer with its pathlib.Path"),
        (42, "returned a int"),
        (["transcode"], "returned a list"),
    ],
)
async def test_an_answer_that_is_none_says_so(answer: Any, says: str) -> None:
    with pytest.raises(dimse.TranscodingError, match=says):
        await stored(RLE_FILE, lambda _: answer, EXPLICIT)


@pytest.mark.parametrize("kind", [trio.ClosedResourceError, dimse.ConnectionFailed])
async def test_what_a_policy_raises_is_about_this_instance(kind: type[Exception]) -> None:
    async def policy(mismatch: dimse.Mismatch) -> None:
        raise kind("a database of the policy's")

    with pytest.raises(dimse.TranscodingError, match=f"raised {kind.__name__}") as caught:
        await stored(RLE_FILE, policy, EXPLICIT)
    assert isinstance(caught.value.__cause__, kind)


async def test_errors_of_files_come_as_they_are() -> None:
    with pytest.raises(FileNotFoundError):
        await stored(RLE_FILE, lambda _: Path("there is none"), EXPLICIT)


# -- memory, files ---------------------------------------------------------------------------------


async def test_two_at_a_time_are_transcoded_for_one_association(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = most = 0
    run = transcoding.Transcoding.run

    async def counting(self: transcoding.Transcoding, item: Any) -> bytes:
        nonlocal held, most
        held += 1
        most = max(most, held)
        return await run(self, item)

    monkeypatch.setattr(transcoding.Transcoding, "run", counting)

    class Taker(Shelf):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            nonlocal held
            status = await super().handle_store(request)
            held -= 1
            return status

    shelf = Taker()
    async with associated_pair(shelf, contexts=contexts_of(RLE_FILE, EXPLICIT)) as association:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(store_transcoded, association)
    assert len(shelf.data_sets) == 6
    assert most == 2


async def store_transcoded(association: dimse.Association) -> None:
    await association.store(RLE_FILE, on_mismatch="transcode")


async def test_files_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file left open would be a ResourceWarning, which is an error."""
    answers: list[Callable[[dimse.Mismatch], Any]] = [
        lambda _: None,
        lambda _: "transcode",
        lambda _: NATIVE_FILE,
        lambda _: JPEG,
    ]
    for answer in answers:
        with suppress(dimse.DimseError):
            await stored(RLE_FILE, answer, EXPLICIT)
        gc.collect()


# -- what is proposed ------------------------------------------------------------------------------


def test_contexts_for_transcoding_have_fallbacks() -> None:
    contexts = dimse.contexts_for([RLE_FILE, JPEG_FILE], transcode=True)
    for path in (RLE_FILE, JPEG_FILE):
        sop_class = dimse.Instance.from_file(path).sop_class_uid
        own = dimse.Instance.from_file(path).transfer_syntax_uid
        lists = [c.transfer_syntaxes for c in contexts if c.abstract_syntax == sop_class]
        assert lists == [(own,), (EXPLICIT, IMPLICIT), (RLE, *lists[-1][1:])]
    without = dimse.contexts_for([RLE_FILE, JPEG_FILE])
    assert [c.transfer_syntaxes for c in without] == [(RLE,), (JPEG,)]


def test_groups_for_transcoding_fit_one_association(tmp_path: Path) -> None:
    instances = [
        attrs.evolve(dimse.Instance.from_file(RLE_FILE), sop_class_uid=f"1.2.3.{number}")
        for number in range(100)
    ]
    groups = dimse.split_instances(instances, transcode=True)
    sizes = [len(dimse.contexts_for(group, transcode=True)) for group in groups]
    assert [instance for group in groups for instance in group] == instances
    assert all(size <= 128 for size in sizes)
    assert len(groups) == 3
