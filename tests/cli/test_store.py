"""`dimse-trio store`: what is sent, what is not, and what is said about it."""

from __future__ import annotations

import csv
import io
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import attrs
import pydicom
import pytest
import trio

import dimse_trio as dimse
from dimse_trio.cli.errors import ExitCode
from dimse_trio.cli.options import Client
from dimse_trio.cli.output import Format
from dimse_trio.cli.peers import TLSOptions, find_peer
from dimse_trio.cli.running import Work
from dimse_trio.cli.store import _Sending

from .program import Ended, Keeper, Running, run, served

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def empty(tmp_path: Path) -> Keeper:
    """A handler that has nothing yet."""
    return Keeper(tmp_path / "kept")


@pytest.fixture
def folder(files: list[Path], tmp_path: Path) -> Path:
    """Four good files in a tree, and what is to be left out of it."""
    top = tmp_path / "to send"
    (top / "series" / "deep").mkdir(parents=True)
    (top / ".hidden").mkdir()
    for path, place in zip(files, ["", "series", "series/deep", "series/deep"], strict=False):
        shutil.copy(path, top / place)
    for name in ("DICOMDIR", "dicomdir", ".hidden/file.dcm", ".DS_Store"):
        (top / name).write_bytes(b"not to be looked at")
    shutil.copy(TEST_FILES / "dicomdirtests" / "DICOMDIR", top / "directory")
    return top


def uid_of(path: Path) -> str:
    return dimse.Instance.from_file(path).sop_instance_uid


def summary(ended: Ended) -> str:
    return ended.stdout.splitlines()[-1]


async def test_files_and_folders_are_sent(empty: Keeper, folder: Path, files: list[Path]) -> None:
    async with served(empty) as peer:
        ended = await run("store", *peer, folder, files[4])
    assert summary(ended.check_done()).startswith("5 sent, 0 failed, ")
    assert set(empty.files) == {uid_of(path) for path in files[:5]}


async def test_every_transfer_syntax_arrives_as_it_is(empty: Keeper, files: list[Path]) -> None:
    async with served(empty) as peer:
        (await run("store", *peer, *files)).check_done()
    for path in files:
        sent, kept = dimse.Instance.from_file(path), empty.files[uid_of(path)]
        received = dimse.Instance.from_file(kept)
        assert received.transfer_syntax_uid == sent.transfer_syntax_uid
        data_set = path.read_bytes()[sent.offset :]
        assert kept.read_bytes()[received.offset :][: len(data_set)] == data_set


async def test_json_has_an_object_for_each_file(empty: Keeper, folder: Path) -> None:
    (folder / "broken.dcm").write_bytes(b"\0" * 200)
    async with served(empty) as peer:
        ended = await run("store", *peer, folder, "--json")
    ended.check(1, "broken.dcm: not a DICOM file")
    rows = {row["path"]: row for row in ended.objects}
    assert len(rows) == 5
    bad = rows.pop(str(folder / "broken.dcm"))
    assert (bad["sop_instance_uid"], bad["status"]) == (None, None)
    assert bad["error"].startswith("not a DICOM file")
    assert {row["sop_instance_uid"] for row in rows.values()} == set(empty.files)
    assert {(row["status"], row["error"]) for row in rows.values()} == {(0, None)}


async def test_what_the_peer_does_not_take_is_transcoded_when_asked_for(
    empty: Keeper, tmp_path: Path
) -> None:
    rle = TEST_FILES / "MR_small_RLE.dcm"
    damaged = TEST_FILES / "JPEG2000-embedded-sequence-delimiter.dcm"
    native = dimse.uid_of("ExplicitVRLittleEndian")
    classes = {dimse.Instance.from_file(path).sop_class_uid for path in (rle, damaged)}
    contexts = [dimse.PresentationContext(uid, (native,)) for uid in sorted(classes)]
    async with served(empty, contexts=contexts) as peer:
        refused = await run("store", *peer, rle)
        ended = await run("store", *peer, rle, damaged, "--on-mismatch", "transcode", "--json")
        again = await run("store", *peer, rle, "--on-mismatch", "transcode")
    refused.check(4)
    ended.check(1, f"{damaged}: cannot transcode ")
    sent, failed = sorted(ended.objects, key=lambda row: row["error"] is not None)
    assert (sent["transfer_syntax_uid"], sent["transcoded"]) == (native, True)
    assert (failed["transfer_syntax_uid"], failed["transcoded"]) == (None, None)
    assert summary(again.check_done()).startswith("1 sent (1 transcoded), 0 failed, ")
    pixels = pydicom.dcmread(empty.files[uid_of(rle)]).pixel_array
    assert (pixels == pydicom.dcmread(rle).pixel_array).all()


async def test_csv_has_a_row_for_each_file(empty: Keeper, folder: Path) -> None:
    async with served(empty) as peer:
        ended = await run("store", *peer, folder, "--csv")
    rows = list(csv.DictReader(io.StringIO(ended.check_done().stdout)))
    assert [row["status"] for row in rows] == ["0"] * 4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("README.txt", "README.txt: not a DICOM file"),
        ("no_meta.dcm", "no_meta.dcm: not a DICOM file, as it has no preamble"),
        ("meta_missing_tsyntax.dcm", "Transfer Syntax UID (0002,0010)"),
        ("missing.dcm", "missing.dcm: No such file or directory"),
    ],
)
async def test_a_file_that_cannot_be_sent_is_named(name: str, says: str) -> None:
    """Nothing is left to send, so that nothing is connected to either."""
    ended = await run("store", "127.0.0.1:1", TEST_FILES / name)
    ended.check(1, says)
    assert summary(ended).startswith("0 sent, 1 failed, ")


async def test_a_refused_transfer_syntax_names_the_option(
    study: dict[str, Any], tmp_path: Path
) -> None:
    rle = study["RLELossless"].path
    context = dimse.PresentationContext(
        dimse.Instance.from_file(rle).sop_class_uid, ("1.2.840.10008.1.2.1",)
    )

    class Plain:
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    other = tmp_path / "plain.dcm"
    data_set = pydicom.dcmread(rle)
    data_set.decompress()
    data_set.save_as(other)
    async with served(Plain(), contexts=[context]) as peer:
        ended = await run("store", *peer, rle, other)
    assert ended.code == 1
    assert "(--on-mismatch transcode)" in ended.stderr
    assert "on_mismatch=" not in ended.stderr


async def test_a_folder_without_files_is_a_failure(tmp_path: Path) -> None:
    (await run("store", "127.0.0.1:1", tmp_path)).check(1, "nothing to send")


async def test_a_broken_file_does_not_keep_the_good_ones(empty: Keeper, folder: Path) -> None:
    (folder / "series" / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0")
    async with served(empty) as peer:
        ended = await run("store", *peer, folder)
    ended.check(1, "broken.dcm: ")
    assert summary(ended).startswith("4 sent, 1 failed, ")
    assert len(empty.files) == 4


async def test_a_file_that_is_cut_off_is_not_sent(empty: Keeper, files: list[Path]) -> None:
    async with served(empty) as peer:
        ended = await run("store", *peer, TEST_FILES / "MR_truncated.dcm", files[0])
    ended.check(1, "MR_truncated.dcm: its data set is cut off")
    assert summary(ended).startswith("1 sent, 1 failed, ")
    assert set(empty.files) == {uid_of(files[0])}


async def test_a_sop_class_that_is_refused_is_named_and_the_others_go(
    empty: Keeper, files: list[Path]
) -> None:
    mr = [p for p in files if pydicom.dcmread(p, stop_before_pixels=True).Modality == "MR"]
    other = next(p for p in files if p not in mr)
    contexts = [
        dimse.PresentationContext(
            dimse.uid_of("MRImageStorage"),
            tuple({dimse.Instance.from_file(p).transfer_syntax_uid for p in mr}),
        )
    ]
    async with served(empty, contexts=contexts) as peer:
        ended = await run("store", *peer, other, *mr)
    ended.check(1, f"{other}: not sent: ", "abstract syntax not supported")
    assert set(empty.files) == {uid_of(path) for path in mr}


async def test_no_acceptable_context_is_a_line_for_each_file(
    empty: Keeper, files: list[Path]
) -> None:
    contexts = [dimse.PresentationContext(dimse.uid_of("Verification"))]
    async with served(empty, contexts=contexts) as peer:
        ended = await run("store", *peer, *files, "--json")
    assert ended.code == 4
    assert len(ended.objects) == len(ended.errors) == len(files)
    for path, line, row in zip(files, ended.errors, ended.objects, strict=True):
        assert line.startswith(f"dimse-trio: {path}: not sent: ")
        assert "abstract syntax not supported; check that the peer offers this SOP class" in line
        assert "transcode" not in line
        assert line.endswith(row["error"])


@pytest.mark.parametrize("with_another", [False, True], ids=["alone", "beside one that is taken"])
async def test_a_refused_transfer_syntax_is_advised_about_whatever_else_is_taken(
    empty: Keeper, study: dict[str, Any], tmp_path: Path, with_another: bool
) -> None:
    rle, jpeg = study["RLELossless"].path, study["JPEG2000Lossless"].path
    classes = {dimse.Instance.from_file(path).sop_class_uid for path in (rle, jpeg)}
    contexts = [dimse.PresentationContext(uid, ("1.2.840.10008.1.2.1",)) for uid in classes]
    sent: list[Path] = [rle, jpeg]
    if with_another:
        data_set = pydicom.dcmread(rle)
        data_set.decompress()
        sent.append(tmp_path / "plain.dcm")
        data_set.save_as(sent[-1])
    async with served(empty, contexts=contexts) as peer:
        ended = await run("store", *peer, *sent)
    assert ended.code == (1 if with_another else 4)
    for path, line in zip((rle, jpeg), ended.errors, strict=True):
        assert line.startswith(f"dimse-trio: {path}: not sent: ")
        assert "transfer syntaxes not supported" in line
        assert line.endswith("convert the file, or let store do it (--on-mismatch transcode)")
    assert summary(ended).startswith(f"{int(with_another)} sent, 2 failed, ")


async def test_a_warning_is_said_and_counted(empty: Keeper, files: list[Path]) -> None:
    odd = uid_of(files[1])
    empty.answer = lambda uid: 0xB007 if uid == odd else 0
    async with served(empty) as peer:
        ended = await run("store", *peer, *files[:3])
    ended.check(0, f"{files[1]}: stored; Warning: ", "(0xb007)")
    assert summary(ended).startswith("3 sent (1 with a warning), 0 failed, ")


async def test_a_failure_status_is_the_files_alone(empty: Keeper, files: list[Path]) -> None:
    bad = uid_of(files[1])
    empty.answer = lambda uid: 0xA700 if uid == bad else 0xB000
    async with served(empty) as peer:
        ended = await run("store", *peer, *files[:3], "--json")
    assert ended.code == 1
    assert f"dimse-trio: {files[1]}: Refused: out of resources (0xa700)" in ended.stderr
    assert [row["status"] for row in ended.objects] == [0xB000, 0xA700, 0xB000]
    assert len(empty.files) == 2


class Leaving(Keeper):
    """Aborts the association at some instances, so often, and may reject those that follow."""

    leaves_at: frozenset[str] = frozenset()
    times: float = inf
    rejects = False

    @asynccontextmanager
    async def handle_association(self, request: dimse.AssociationRequest) -> AsyncGenerator[None]:
        if self.rejects:
            raise dimse.Reject(dimse.RejectReason.NO_REASON_GIVEN)
        yield

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        if request.sop_instance_uid in self.leaves_at and self.times:
            self.times -= 1
            await request.association.abort()
            return dimse.Status.PROCESSING_FAILURE  # which nobody hears
        return await Keeper.handle_store(self, request)


async def test_an_association_that_ends_midway_is_opened_again(
    files: list[Path], tmp_path: Path
) -> None:
    handler = Leaving(tmp_path / "kept")
    handler.leaves_at, handler.times = frozenset([uid_of(files[2])]), 1
    async with served(handler) as peer:
        ended = await run("store", *peer, *files[:5])
    assert summary(ended.check_done()).startswith("5 sent, 0 failed, ")
    assert len(handler.files) == 5


@pytest.mark.parametrize("jobs", [1, 3])
async def test_a_file_that_ends_each_association_keeps_none_of_the_others(
    files: list[Path], tmp_path: Path, jobs: int
) -> None:
    handler = Leaving(tmp_path / "kept")
    handler.leaves_at = frozenset(map(uid_of, files[1:3]))
    async with served(handler) as peer:
        ended = await run("store", *peer, *files[:5], "--jobs", jobs)
    assert ended.code == 1
    assert summary(ended).startswith("3 sent, 2 failed, ")
    assert len(handler.files) == 3
    assert sorted(ended.errors) == [
        f"dimse-trio: {path}: not sent: association aborted by the peer's application"
        " (service-user)"
        for path in files[1:3]
    ]


async def test_a_peer_that_takes_no_association_any_more_says_what_was_sent(
    files: list[Path], tmp_path: Path
) -> None:
    class Gone(Leaving):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            self.rejects = request.sop_instance_uid in self.leaves_at
            return await super().handle_store(request)

    handler = Gone(tmp_path / "kept")
    handler.leaves_at = frozenset([uid_of(files[2])])
    async with served(handler) as peer:
        ended = await run("store", *peer, *files[:5], "--json")
    ended.check(4, "rejected", "2 of 5 instances were sent", f"not {files[3]} and 2 more")
    assert [row["status"] for row in ended.objects] == [0, 0, None, None, None]
    assert all("not sent: association rejected" in row["error"] for row in ended.objects[2:])


@attrs.define
class Silent(Keeper):
    """Answers some instances never."""

    mute: frozenset[str] = frozenset()

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        if request.sop_instance_uid in self.mute:
            self.associations += 1
            await trio.sleep_forever()
        return await Keeper.handle_store(self, request)


async def sent_without_patience(handler: Silent, files: list[Path]) -> ExitCode:
    """What the command ends with where responses have to come in a moment."""
    async with served(handler) as (address, *_):
        client = Client(
            peer=find_peer(address, None),
            called_ae_title="KEEPER",
            calling_ae_title="US",
            timeout=None,
            timeouts=dimse.Timeouts(response=0.3),
            max_pdu_length=None,
            ssl_context=None,
            tls=TLSOptions(),
            user_identity=None,
        )
        work = Work()
        sending = _Sending(work, client, jobs=1, on_mismatch="error", format=Format.TABLE)
        return await work.run(lambda _: sending.run(tuple(map(str, files))), None)


@pytest.mark.parametrize("answered", [0, 3])
async def test_a_peer_that_answers_nothing_any_more_is_not_asked_for_ever(
    answered: int, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = Silent(tmp_path / "kept", mute=frozenset(map(uid_of, files[answered:5])))
    assert await sent_without_patience(handler, files[:5]) == ExitCode.TIMED_OUT
    said = capsys.readouterr()
    assert handler.associations == 2
    for path in files[answered : answered + 2]:
        assert f"dimse-trio: {path}: not sent: " in said.err
    assert said.out.startswith(f"{answered} sent, {5 - answered} failed, ")


async def test_what_is_behind_a_silent_peers_last_instances_is_said_not_to_be_sent(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def in_two(instances: list[dimse.Instance], **_: object) -> list[list[dimse.Instance]]:
        return [instances[:3], instances[3:]]

    monkeypatch.setattr(dimse, "split_instances", in_two)  # as of more than 128 contexts
    handler = Silent(tmp_path / "kept", mute=frozenset(map(uid_of, files[1:3])))
    assert await sent_without_patience(handler, files[:5]) == ExitCode.TIMED_OUT
    assert f"1 of 5 instances were sent, not {files[3]} and 1 more" in capsys.readouterr().err


async def test_jobs_are_associations_at_a_time(files: list[Path], tmp_path: Path) -> None:
    class Counting(Keeper):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            self.associations += 1
            if self.associations == 3:
                self.holding.set()
            await self.holding.wait()  # each on an association of its own
            return await Keeper.handle_store(self, request)

    handler = Counting(tmp_path / "kept")
    async with served(handler) as peer:
        ended = await run("store", *peer, *files, "--jobs", 3)
    assert summary(ended.check_done()).startswith(f"{len(files)} sent, 0 failed, ")


async def test_a_peer_that_takes_fewer_associations_than_jobs_is_no_failure(
    empty: Keeper, files: list[Path]
) -> None:
    async with served(empty, max_associations=1) as peer:
        ended = await run("store", *peer, *files, "--jobs", 4)
    ended.check_done()
    assert len(empty.files) == len(files)


async def test_more_contexts_than_an_association_has_make_several(
    empty: Keeper, files: list[Path], tmp_path: Path
) -> None:
    """150 SOP classes, where one association has 128 contexts."""
    folder = tmp_path / "many"
    folder.mkdir()
    data_set = pydicom.dcmread(files[1])
    for number in range(150):
        uid = f"1.2.3.4.{number}"
        data_set.SOPClassUID = data_set.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(uid)
        data_set.SOPInstanceUID = pydicom.uid.UID(f"2.25.{number + 1}")
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        data_set.save_as(folder / f"{number}.dcm")
    async with served(empty, accept_unknown_storage=True) as peer:
        (await run("store", *peer, folder)).check_done()
    assert len(empty.files) == 150


async def test_an_interrupt_says_what_was_not_sent(files: list[Path], tmp_path: Path) -> None:
    class Slow(Keeper):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            if len(self.files) == 1:
                self.holding.set()
                await trio.sleep_forever()
            return await Keeper.handle_store(self, request)

    handler = Slow(tmp_path / "kept")
    async with (
        served(handler) as peer,
        await Running.start("store", *peer, *files[:3], "--json") as program,
    ):
        await handler.holding.wait()
        program.process.send_signal(signal.SIGINT)
        program.process.send_signal(signal.SIGTERM)  # the second is A-ABORT, at once
        ended = await program.ended()
    assert ended.code in (130, 143)
    assert len(ended.errors) == 1
    assert ended.objects[0]["status"] == 0
