"""`dimse-trio get`: what arrives, and whether that is all."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import pydicom
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse

from .program import Ended, Keeper, Running, run, served


async def test_a_study_comes_as_it_is(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    target = tmp_path / "got" / "here"
    async with served(keeper) as peer:
        ended = await run("get", *peer, "-k", f"StudyInstanceUID={study_uid}", "--output", target)
    assert ended.check_done().stdout.startswith(f"{len(files)} instances, ")
    assert {path.stem for path in target.iterdir()} == set(keeper.files)
    for uid, path in keeper.files.items():
        sent, got = dimse.Instance.from_file(path), dimse.Instance.from_file(target / f"{uid}.dcm")
        assert got.transfer_syntax_uid == sent.transfer_syntax_uid
        data_set = path.read_bytes()[sent.offset :]
        assert got.path.read_bytes()[got.offset :][: len(data_set)] == data_set


async def test_it_goes_into_the_current_folder_by_default(
    keeper: Keeper, study_uid: str, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    async with served(keeper) as peer:
        ended = await run(
            "get", *peer, "-k", f"StudyInstanceUID={study_uid}", "--json", cwd=tmp_path / "here"
        )
    assert {row["sop_instance_uid"] for row in ended.check_done().objects} == set(keeper.files)
    assert all((tmp_path / "here" / row["path"]).is_file() for row in ended.objects)


@pytest.mark.parametrize("level", ["patient", "study", "series", "image"])
async def test_each_level_is_found_from_above_with_its_unique_keys(
    keeper: Keeper, files: list[Path], tmp_path: Path, level: str
) -> None:
    record = pydicom.dcmread(files[1], stop_before_pixels=True)
    names = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    depth = ["patient", "study", "series", "image"].index(level)
    keys = [f"-k{name}={record[name].value}" for name in names[: depth + 1]]
    async with served(keeper) as peer:
        ended = await run("get", *peer, "--level", level, *keys, "--output", tmp_path, "--json")
    alike = [
        path
        for path in files
        if all(
            pydicom.dcmread(path, stop_before_pixels=True)[name].value == record[name].value
            for name in names[: depth + 1]
        )
    ]
    assert len(ended.check_done().objects) == len(alike)
    for identifier in keeper.identifiers:
        above = names[
            : ["PATIENT", "STUDY", "SERIES", "IMAGE"].index(identifier.QueryRetrieveLevel)
        ]
        given = above if level == "patient" else above[1:]
        assert all(identifier[name].value for name in given)


async def test_several_uids_are_one_retrieve(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    series = sorted({str(pydicom.dcmread(p).SeriesInstanceUID) for p in files})
    async with served(keeper) as peer:
        ended = await run(
            *("get", *peer, "--level", "series", "--output", tmp_path, "--json"),
            *("-k", f"StudyInstanceUID={study_uid}"),
            *("-k", "SeriesInstanceUID=" + "\\".join(series)),
        )
    assert len(ended.check_done().objects) == len(files)


@attrs.define
class OnlyGet:
    """What a keeper has, without C-FIND; and a file that is none if there is to be one."""

    keeper: Keeper
    broken: Path | None = None

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        async for path in self.keeper.handle_get(request):
            yield path
        if self.broken is not None:
            self.broken.unlink()


def only_explicit(keeper: Keeper) -> dict[str, Path]:
    return {
        uid: path
        for uid, path in keeper.files.items()
        if dimse.Instance.from_file(path).transfer_syntax_uid == "1.2.840.10008.1.2.1"
    }


async def test_without_c_find_common_contexts_do(
    keeper: Keeper, study_uid: str, tmp_path: Path
) -> None:
    keeper.files = only_explicit(keeper)
    async with served(OnlyGet(keeper)) as peer:
        ended = await run("get", *peer, "-k", f"StudyInstanceUID={study_uid}", "--output", tmp_path)
    assert ended.check_done().stdout.startswith(f"{len(keeper.files)} instance")


async def test_without_c_find_the_peers_counts_tell(
    keeper: Keeper, study_uid: str, tmp_path: Path
) -> None:
    ((uid, path),) = only_explicit(keeper).items()
    lost = tmp_path / "lost.dcm"
    lost.write_bytes(path.read_bytes())
    keeper.files = {uid: path, "lost": lost}
    async with served(OnlyGet(keeper, lost)) as peer:
        ended = await run(
            "get", *peer, "-k", f"StudyInstanceUID={study_uid}", "--output", tmp_path / "got"
        )
    ended.check(1, f"the peer could not send 1 instance: {uid}")
    assert ended.stdout.startswith("1 instance, ")


@attrs.define
class Withholding:
    """Finds all that the keeper has, and sends all but one instance."""

    keeper: Keeper
    spoil: Path | None = None

    def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        return self.keeper.handle_find(request)

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
        paths = [path async for path in self.keeper.handle_get(request)]
        for path in paths[1:]:
            yield path


async def test_an_instance_that_does_not_come_is_missed(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    async with served(Withholding(keeper)) as peer:
        ended = await run(
            *("get", *peer, "-k", f"StudyInstanceUID={study_uid}"),
            *("--output", tmp_path, "--json"),
        )
    missing = next(iter(keeper.files))
    ended.check(1, f"1 of {len(files)} instances did not arrive: {missing}")
    (row,) = [row for row in ended.objects if row["error"]]
    assert (row["sop_instance_uid"], row["path"]) == (missing, None)


async def test_an_instance_that_the_peer_cannot_send_is_missed(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    """The peer's sub-operation fails, and it says so in its counts."""
    copy = tmp_path / "cut.dcm"
    uid, path = next(iter(keeper.files.items()))
    copy.write_bytes(path.read_bytes())
    keeper.files[uid] = copy

    class Losing(Keeper):
        async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
            async for path in Keeper.handle_get(self, request):
                yield path
            copy.unlink()

    loser = Losing(tmp_path, keeper.files)
    async with served(loser) as peer:
        ended = await run(
            "get", *peer, "-k", f"StudyInstanceUID={study_uid}", "--output", tmp_path / "got"
        )
    ended.check(1, f"1 of {len(files)} instances did not arrive: {uid}")


async def test_nothing_there_is_a_failure(keeper: Keeper, tmp_path: Path) -> None:
    async with served(keeper) as peer:
        ended = await run("get", *peer, "-k", "StudyInstanceUID=1.2.3", "--output", tmp_path)
    ended.check(1, "nothing was retrieved")


async def test_a_failure_of_the_peer_is_said_in_its_words(tmp_path: Path) -> None:
    class Failing:
        async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
            raise dimse.StatusError(0xA702)
            yield

    async with served(Failing()) as peer:
        ended = await run("get", *peer, "-k", "StudyInstanceUID=1.2.3", "--output", tmp_path)
    ended.check(1, "(0xa702)")


async def test_a_peer_without_c_get_is_said(tmp_path: Path) -> None:
    class OnlyEcho:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    async with served(OnlyEcho()) as peer:
        ended = await run("get", *peer, "-k", "StudyInstanceUID=1.2.3", "--output", tmp_path)
    ended.check(4, "the peer does not offer this service")


async def test_a_folder_that_cannot_be_written_is_one_line(
    keeper: Keeper, study_uid: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    async with served(keeper) as peer:
        ended = await run(
            *("get", *peer, "-k", f"StudyInstanceUID={study_uid}"),
            *("--output", tmp_path / "file" / "below"),
        )
    ended.check(1, "Not a directory")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "the level study needs -k StudyInstanceUID="),
        (("-k", "StudyInstanceUID"), "needs a value"),
        (("-k", "StudyInstanceUID="), "needs a value"),
        (("-k", "StudyInstanceUID=1.2*"), "without wildcards"),
        (("-k", "StudyInstanceUID=1.2", "-k", "PatientName=DOE"), "PatientName is no unique key"),
        (
            ("-k", "StudyInstanceUID=1.2", "-k", "SOPInstanceUID=1"),
            "SOPInstanceUID is no unique key",
        ),
        (("-k", "StudyInstanceUID=abc"), "StudyInstanceUID 'abc' is no UID"),
        (("-k", "StudyInstanceUid=1.2"), "did you mean StudyInstanceUID"),
        (("--level", "worklist"), "--level"),
        (("--model", "study", "--level", "patient", "-k", "PatientID=1"), "--model patient"),
    ],
)
def test_keys_that_name_nothing_to_retrieve(
    arguments: tuple[str, ...], says: str, run_here: Callable[..., Ended]
) -> None:
    run_here("get", "127.0.0.1:1", *arguments).check(2, says)


async def test_an_interrupt_cancels_the_retrieve(
    keeper: Keeper, study_uid: str, tmp_path: Path
) -> None:
    class Slow(Keeper):
        async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
            await self._hold()
            yield tmp_path

    slow = Slow(tmp_path, keeper.files)
    async with (
        served(slow) as peer,
        await Running.start(
            "get", *peer, "-k", f"StudyInstanceUID={study_uid}", "--output", tmp_path / "got"
        ) as program,
    ):
        await slow.holding.wait()
        program.process.send_signal(signal.SIGINT)
        with trio.fail_after(60):
            await slow.cancelled.wait()
        ended = await program.ended()
    ended.check(130, "interrupted")


async def test_only_the_transfer_syntaxes_that_the_peer_has_are_proposed(
    keeper: Keeper, files: list[Path], study_uid: str, tmp_path: Path
) -> None:
    class Telling(Keeper):
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            async for match in Keeper.handle_find(self, request):
                if request.level == "IMAGE":
                    path = self.files[str(match.SOPInstanceUID)]
                    syntax = dimse.Instance.from_file(path).transfer_syntax_uid
                    match.AvailableTransferSyntaxUID = syntax
                yield match

        async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Path]:
            for context in request.association.negotiated.accepted.values():
                if context.scu:
                    accepted.add((context.abstract_syntax, context.transfer_syntax))
            async for path in Keeper.handle_get(self, request):
                yield path

    accepted: set[tuple[str, str]] = set()
    instances = [
        dimse.Instance.from_file(path) for path in files[1:3]
    ]  # explicit VR, either endian
    telling = Telling(tmp_path, {i.sop_instance_uid: i.path for i in instances})
    async with served(telling) as peer:
        ended = await run(
            *("get", *peer, "-k", f"StudyInstanceUID={study_uid}"),
            *("--output", tmp_path / "got", "--json"),
        )
    assert len(ended.check_done().objects) == 2
    syntaxes = {i.transfer_syntax_uid for i in instances} | {"1.2.840.10008.1.2"}
    classes = {i.sop_class_uid for i in instances}
    storage = {pair for pair in accepted if pair[0] in classes}
    assert storage == {(c, s) for c in classes for s in syntaxes}
