"""`dimse-trio find`: what it asks, what it prints, how it is stopped."""

from __future__ import annotations

import csv
import io
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse

from .program import Ended, Keeper, Running, run, served


async def test_json_is_one_object_of_the_dicom_json_model_a_line(
    keeper: Keeper, files: list[Path]
) -> None:
    async with served(keeper) as peer:
        ended = await run("find", *peer, "--level", "image", "--json")
    matches = [Dataset.from_json(match) for match in ended.check_done().objects]
    assert {str(match.SOPInstanceUID) for match in matches} == set(keeper.files)
    assert len(matches) == len(files)


async def test_json_is_in_utf_8_whatever_the_peer_sends(tmp_path: Path) -> None:
    class Abroad:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            match = Dataset()
            match.SpecificCharacterSet = "ISO_IR 100"
            match.QueryRetrieveLevel = "STUDY"
            match.PatientName = "Müller^Jürg"
            yield match

    async with served(Abroad()) as peer:
        ended = await run("find", *peer, "--json")
    (match,) = ended.check_done().objects
    assert match["00100010"]["Value"] == [{"Alphabetic": "Müller^Jürg"}]
    assert match["00080005"]["Value"] == ["ISO_IR 192"]


async def test_csv_has_a_column_for_each_key_the_named_ones_first(
    keeper: Keeper, study_uid: str
) -> None:
    async with served(keeper) as peer:
        ended = await run("find", *peer, "-k", "AccessionNumber=A1", "-k", "StudyDate", "--csv")
    (row,) = csv.DictReader(io.StringIO(ended.check_done().stdout))
    assert list(row)[:2] == ["AccessionNumber", "StudyDate"]
    assert (row["StudyInstanceUID"], row["StudyDate"]) == (study_uid, "20260102")


async def test_csv_without_matches_is_its_header(keeper: Keeper) -> None:
    async with served(keeper) as peer:
        ended = await run("find", *peer, "-k", "PatientID=NOBODY", "--only-keys", "--csv")
    assert ended.check_done().stdout == "PatientID\n"


async def test_a_pipe_gets_a_table_with_nothing_cut_off(keeper: Keeper, study_uid: str) -> None:
    async with served(keeper) as peer:
        ended = await run("find", *peer, "--level", "series", "-k", "Modality=MR")
    header, row = ended.check_done().stdout.splitlines()
    assert header.split()[0] == "Modality"
    assert row.split()[0] == "MR"
    assert study_uid in row.split()


async def test_no_matches_are_no_failure(keeper: Keeper) -> None:
    async with served(keeper) as peer:
        ended = await run("find", *peer, "-k", "PatientID=NOBODY")
    ended.check(0, "no matches")
    assert ended.stdout == ""


@pytest.mark.parametrize(
    "key",
    [
        "PatientID=TRIO-1",
        "(0010,0020)=TRIO*",
        "Modality=C?",
    ],
)
async def test_keys_are_keywords_or_tags(keeper: Keeper, key: str) -> None:
    async with served(keeper) as peer:
        ended = await run("find", *peer, "--level", "image", "-k", key, "--only-keys", "--json")
    assert ended.check_done().objects
    (identifier,) = keeper.identifiers
    assert [str(element.value) for element in identifier if element.value] == [
        "IMAGE",
        key.partition("=")[2],
    ]


@pytest.mark.parametrize(
    "key",
    [
        "0040,0100.0008,0060=CT",
        "Modality=CT",
    ],
)
async def test_keys_of_a_worklist_are_in_its_scheduled_procedure_step(key: str) -> None:
    class Worklist:
        query_sop_classes = (dimse.uid_of("ModalityWorklistInformationModelFind"),)

        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            asked.append(request.identifier)
            match = Dataset()
            match.PatientName = "DOE^JOHN"
            step = Dataset()
            step.Modality = "CT"
            step.ScheduledStationAETitle = "CT1"
            match.ScheduledProcedureStepSequence = [step]
            yield match

    asked: list[Dataset] = []
    async with served(Worklist()) as peer:
        ended = await run("find", *peer, "--level", "worklist", "-k", key, "--csv")
    (row,) = csv.DictReader(io.StringIO(ended.check_done().stdout))
    assert row["ScheduledProcedureStepSequence.Modality"] == "CT"
    assert row["ScheduledProcedureStepSequence.ScheduledStationAETitle"] == "CT1"
    (identifier,) = asked
    (step,) = identifier.ScheduledProcedureStepSequence
    assert (step.Modality, "Modality" in identifier) == ("CT", False)
    assert "QueryRetrieveLevel" not in identifier


async def test_a_table_of_a_worklist_has_short_headings_and_no_empty_sequences() -> None:
    step = Dataset()
    step.Modality = "CT"
    item = Dataset()
    item.PatientName = "DOE^JOHN"
    item.ReferencedStudySequence = []
    item.ScheduledProcedureStepSequence = [step]

    class Worklist:
        query_sop_classes = (dimse.uid_of("ModalityWorklistInformationModelFind"),)

        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            yield item

    async with served(Worklist()) as peer:
        table = (await run("find", *peer, "--level", "worklist")).check_done().stdout
    assert table.splitlines()[0].split() == ["PatientName", "Modality"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-k", "Modality=CT"), "Modality is a key of the level series: did you mean Modalities"),
        (
            ("-k", "InstanceNumber=1"),
            "InstanceNumber is a key of the level image: ask with --level",
        ),
        (
            ("--level", "patient", "-k", "StudyDate=20260101"),
            "StudyDate is a key of the level study",
        ),
    ],
)
async def test_a_key_below_the_level_is_sent_with_a_hint(
    keeper: Keeper, arguments: tuple[str, ...], says: str
) -> None:
    async with served(keeper) as peer:
        (await run("find", *peer, "--json", *arguments)).check(0, says)
    assert len(keeper.identifiers) == 1


@pytest.mark.parametrize(
    "arguments",
    [("-k", "PatientID=1"), ("-k", "Modality"), ("--level", "image", "-k", "Modality=CT")],
)
async def test_other_keys_get_no_hint(keeper: Keeper, arguments: tuple[str, ...]) -> None:
    async with served(keeper) as peer:
        (await run("find", *peer, "--json", *arguments)).check_done()


async def test_values_of_numbers_and_lists_are_sent_as_such(keeper: Keeper) -> None:
    uids = [str(uid) for uid in list(keeper.files)[:2]]
    async with served(keeper) as peer:
        ended = await run(
            *("find", *peer, "--level", "image", "--only-keys", "--json"),
            *("-k", "SOPInstanceUID=" + "\\".join(uids), "-k", "Rows=64"),
        )
    assert {match["00080018"]["Value"][0] for match in ended.check_done().objects} <= set(uids)
    (identifier,) = keeper.identifiers
    assert (list(identifier.SOPInstanceUID), identifier.Rows) == (uids, 64)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-k", "PatientNam=DOE"), "did you mean PatientName"),
        (("-k", "ScheduledProcedureStepSequence.Modalty=CT"), "Modality"),
        (("-k", "PatientID.Modality=CT"), "PatientID is no sequence"),
        (("-k", "ReferencedStudySequence=1"), "is a sequence"),
        (("-k", "Rows=many"), "VR US"),
        (("-k", "Rows=-1"), "Rows=-1: not from 0 to 65535"),
        (("-k", "Rows=70000"), "Rows=70000: not from 0 to 65535"),
        (("-k", "PatientID=a", "-k", "PatientID=b"), "PatientID is given twice"),
        (("-k", "SpecificCharacterSet=KLINGON"), "no such character set"),
        (("-k", "SpecificCharacterSet=ISO_IR 100", "-k", "PatientName=山田"), "does not fit"),
        (("-k", "StudyDate=2026-01-31"), "write '20260131'"),
        (("-k", "PixelData=1"), "binary"),
        (("-k", "0011,0010=1"), "private"),
        (("-k", "00109999"), "no attribute of the data dictionary"),
        (("-k", "=1"), "no DICOM keyword or tag"),
        (("--model", "study", "--level", "patient"), "--model patient"),
        (("--model", "study", "--level", "worklist"), "worklist"),
        (("--level", "studies"), "--level"),
        (("--limit", "0"), "--limit"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_opened(
    arguments: tuple[str, ...], says: str, run_here: Callable[..., Ended]
) -> None:
    run_here("find", "127.0.0.1:1", *arguments).check(2, says)


async def test_a_misspelt_keyword_names_the_near_ones() -> None:
    (await run("find", "127.0.0.1:1", "-k", "PatientNam=DOE")).check(2, "did you mean PatientName")


async def test_matches_before_a_failure_are_printed(keeper: Keeper) -> None:
    class Failing:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            yield request.identifier
            raise dimse.StatusError(dimse.Status.OUT_OF_RESOURCES, "too\nmany\x1b[31m")

    for form in ("--json", "--csv", None):
        async with served(Failing()) as peer:
            ended = await run("find", *peer, "-k", "PatientID=X", *filter(None, [form]))
        ended.check(1, "Refused: out of resources (0xa700): too many?[31m")
        assert "X" in ended.stdout


async def test_a_limit_cancels_the_query(keeper: Keeper) -> None:
    keeper.hold = 2
    async with served(keeper) as peer:
        ended = await run("find", *peer, "--level", "image", "--limit", 2, "--json")
        await keeper.cancelled.wait()
    assert len(ended.check_done().objects) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_is_c_cancel_and_release(
    keeper: Keeper, number: signal.Signals, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    keeper.hold = 1
    caplog.set_level("INFO", "dimse_trio")
    async with (
        dimse.open_server(keeper) as server,
        await Running.start(
            "find", f"127.0.0.1:{server.port}", "--level", "image", "--json"
        ) as program,
    ):
        assert await program.line()
        program.process.send_signal(number)
        await keeper.cancelled.wait()
        ended = await program.ended()
        await server.stop(grace=10)
    ended.check(code, "interrupted" if code == 130 else "terminated")
    assert "abort" not in caplog.text.lower()


async def test_interrupted_it_prints_what_has_come(keeper: Keeper) -> None:
    keeper.hold = 3
    async with (
        served(keeper) as peer,
        await Running.start("find", *peer, "--level", "image") as program,
    ):
        await keeper.holding.wait()
        program.process.send_signal(signal.SIGINT)
        ended = await program.ended()
    ended.check(130)
    assert len(ended.stdout.splitlines()) in (3, 4)


async def test_a_timeout_is_c_cancel_too(keeper: Keeper) -> None:
    keeper.hold = 1
    async with served(keeper) as peer:
        ended = await run("find", *peer, "--level", "image", "--json", "--timeout", 5)
        with trio.fail_after(30):
            await keeper.cancelled.wait()
    ended.check(5, "timed out after 5 s")
    assert len(ended.objects) == 1


async def test_when_nobody_reads_the_output_the_query_is_cancelled() -> None:
    class Endless:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            try:
                while True:
                    yield request.identifier
            finally:
                cancelled.set()

    cancelled = trio.Event()
    async with (
        served(Endless()) as peer,
        await Running.start("find", *peer, "--json") as program,
    ):
        assert await program.line()
        assert program.process.stdout is not None
        await program.process.stdout.aclose()
        await cancelled.wait()
        assert program.process.stderr is not None
        assert b"".join([data async for data in program.process.stderr]) == b""
        assert await program.process.wait() == 141


async def test_interrupted_while_its_output_is_not_read(keeper: Keeper) -> None:
    """A reader that lags, as `less` does, stops neither C-CANCEL nor the end of the program."""

    class Endless:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            try:
                while True:
                    count[0] += 1
                    if count[0] == 300:
                        many.set()
                    yield request.identifier
            finally:
                cancelled.set()

    cancelled, many, count = trio.Event(), trio.Event(), [0]
    async with (
        served(Endless()) as peer,
        await Running.start("find", *peer, "--json") as program,
    ):
        await many.wait()
        program.process.send_signal(signal.SIGINT)
        with trio.fail_after(60):
            await cancelled.wait()
            assert await program.process.wait() == 130
