"""What handlers get wrong is told to the log, and to the peer as a failure: never as a success."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.matching import compile_query
from dimse_trio.protocol.uids import STUDY_ROOT_MOVE
from dimse_trio.testing.memory import associated_pair

from .commitments import CONTEXTS, GOOD, UGLY
from .script import CT

IMAGE = Dataset()
IMAGE.SOPClassUID, IMAGE.SOPInstanceUID, IMAGE.StudyInstanceUID = CT, "1.2.3", "1.2"


class Answering(dimse.EchoSCP):
    """Answers with whatever it is given."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def handle_echo(self, request: dimse.EchoRequest) -> Any:
        return self.answer

    async def handle_store(self, request: dimse.StoreRequest) -> Any:
        return self.answer


@pytest.mark.parametrize("answer", [True, False, None, "ok", 0xFF00, -1, 0x10000])
async def test_what_is_no_final_status_is_no_success(
    answer: object, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = [*dimse.default_contexts(), *dimse.contexts_for(IMAGE)]
    async with associated_pair(Answering(answer), contexts=contexts) as association:
        stored = await association.store(IMAGE, check=False)
        echoed = await association.echo(check=False)
    assert stored.status == echoed.status == dimse.Status.PROCESSING_FAILURE
    assert not stored.stored
    assert caplog.text.count("it must return a final Status") == 2


@pytest.mark.filterwarnings("ignore:coroutine 'StoreRequest:RuntimeWarning")
@pytest.mark.parametrize("way", ["save_as", "data_set"])
async def test_a_forgotten_await_is_no_success(
    way: str, tmp_path: Path, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    class Forgetful(dimse.EchoSCP):
        async def handle_store(self, request: dimse.StoreRequest) -> int:
            getattr(request, way)(*[tmp_path / "z.dcm"] * (way == "save_as"))
            return dimse.Status.SUCCESS

    contexts = dimse.contexts_for(IMAGE)
    async with associated_pair(Forgetful(), contexts=contexts) as association:
        stored = await association.store(IMAGE, check=False)
    assert stored.status == dimse.Status.PROCESSING_FAILURE
    assert f"not awaited to its end: await {way}(…)" in caplog.text


@pytest.mark.filterwarnings("ignore:coroutine 'StoreRequest:RuntimeWarning")
async def test_what_the_loop_of_a_get_has_not_awaited_has_not_come(
    tmp_path: Path, autojump_clock: object
) -> None:
    class Giving(dimse.EchoSCP):
        async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Dataset]:
            yield IMAGE

    contexts = dimse.retrieve_contexts([CT])
    what = dimse.query("STUDY", StudyInstanceUID="1.2")
    async with associated_pair(Giving(), contexts=contexts) as association:
        async with association.get(what, check=False) as instances:
            async for instance in instances:
                instance.save_as(tmp_path / "g.dcm")  # type: ignore[unused-coroutine]
                del instance
        assert (instances.result.completed, instances.result.failed) == (0, 1)


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_what_a_task_has_not_taken_to_its_end_is_no_success(
    steps: int, tmp_path: Path, autojump_clock: object
) -> None:
    class Hasty(dimse.EchoSCP):
        async def handle_store(self, request: dimse.StoreRequest) -> int:
            nursery.start_soon(request.save_as, tmp_path / "a.dcm")
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            return dimse.Status.SUCCESS

    large = Dataset()
    large.update(IMAGE)
    large.PixelData = bytes(5_000_000)
    large["PixelData"].VR = "OW"
    contexts = [*dimse.default_contexts(), *dimse.contexts_for(IMAGE)]
    with pytest.RaisesGroup(pytest.RaisesExc(dimse.DimseError, match="read too late")):
        async with (
            trio.open_nursery() as nursery,
            associated_pair(Hasty(), contexts=contexts) as association,
        ):
            with trio.CancelScope(shield=True):
                stored = await association.store(large, check=False)
            assert stored.status == dimse.Status.PROCESSING_FAILURE
    assert os.listdir(tmp_path) == []


async def test_a_received_data_set_is_written_as_a_dicom_file(
    tmp_path: Path, autojump_clock: object
) -> None:
    class Writing(dimse.EchoSCP):
        async def handle_store(self, request: dimse.StoreRequest) -> int:
            (await request.data_set()).save_as(tmp_path / "y.dcm")
            return dimse.Status.SUCCESS

    async with associated_pair(Writing(), contexts=dimse.contexts_for(IMAGE)) as association:
        await association.store(IMAGE)
    read = pydicom.dcmread(tmp_path / "y.dcm")
    assert read == IMAGE
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3"


async def test_several_instances_yielded_as_one_are_a_failure_that_says_so(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    class Listing(dimse.EchoSCP):
        async def handle_get(self, request: dimse.GetRequest) -> AsyncGenerator[Any]:
            yield [IMAGE]

    what = dimse.query("STUDY", StudyInstanceUID="1.2")
    contexts = dimse.retrieve_contexts([CT])
    async with associated_pair(Listing(), contexts=contexts) as association:
        with pytest.raises(dimse.StatusError, match="0x0110"):
            async with association.get(what) as instances:
                async for _ in instances:
                    pass
    assert "handle_get yielded a list; instances are paths" in caplog.text


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (("127.0.0.1", 1), 0xA702, "C-MOVE to"),  # nobody listens there
        ("127.0.0.1:1", 0x0110, r"resolve_destination has '127.0.0.1:1': write Destination"),
    ],
)
async def test_a_destination_is_taken_as_peers_has_it(
    found: Any, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Resolving(dimse.EchoSCP):
        async def resolve_destination(self, ae_title: str) -> Any:
            return found

        async def handle_move(self, request: dimse.MoveRequest) -> AsyncGenerator[Dataset]:
            yield IMAGE

    what = dimse.query("STUDY", StudyInstanceUID="1.2")
    contexts = [dimse.PresentationContext(STUDY_ROOT_MOVE)]
    async with associated_pair(Resolving(), contexts=contexts) as association:
        result = await association.move(what, destination="X", check=False)
    assert result.status == status
    assert said in caplog.text


@pytest.mark.parametrize("record", [{"PatientID": "1"}, "1", [Dataset()]])
def test_a_record_is_a_data_set(record: Any) -> None:
    identifier = dimse.worklist_query(PatientID="1").identifier
    with pytest.raises(dimse.LocalProtocolError, match="a record is a pydicom Dataset, not"):
        compile_query(identifier).matches(record)
    with pytest.raises(dimse.LocalProtocolError, match="an item is a pydicom Dataset, not"):
        list(dimse.worklist_matches(identifier, [record]))


# -- storage commitment ----------------------------------------------------------------------------


class Provider(dimse.StorageCommitmentProvider):
    """Says of one instance what it is given, and of the others that they are safe."""

    report_pause = 0.1

    def __init__(self, said: Any = None, title: Any = None) -> None:
        self.said = said
        self.title = title

    async def committed(self, reference: dimse.SOPReference) -> Any:
        return self.said if reference == UGLY else None

    def retrieve_ae_title(self, request: dimse.NActionRequest) -> Any:
        if isinstance(self.title, Exception):
            raise self.title
        return self.title


@pytest.mark.parametrize("said", ["no", {}, True, False, 70000, 0, -1, 1.5, object()])
async def test_an_odd_answer_about_an_instance_is_a_failure_of_that_alone(
    said: object, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with associated_pair(Provider(said), contexts=CONTEXTS) as association:
        async with association.commit([GOOD, UGLY]) as commitment:
            result = await commitment.wait()
    assert result.committed == (GOOD,)
    [failed] = result.failed
    assert (failed.reference, failed.reason) == (UGLY, dimse.FailureReason.PROCESSING_FAILURE)
    assert "neither None nor a FailureReason" in caplog.text


@pytest.mark.parametrize("title", [5, "much longer than a title is", ValueError("no title")])
async def test_an_odd_title_to_retrieve_from_is_left_out(
    title: object, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with associated_pair(Provider(title=title), contexts=CONTEXTS) as association:
        async with association.commit([GOOD]) as commitment:
            result = await commitment.wait()
    assert (result.committed, result.retrieve_ae_title) == ((GOOD,), None)
    assert "retrieve_ae_title failed" in caplog.text


async def test_a_report_is_tried_again_where_nobody_knew_the_address() -> None:
    class Separately(Provider):
        report_on_same_association = False
        tries = 0

        async def resolve_destination(self, title: str) -> dimse.Destination:
            self.tries += 1
            if self.tries == 1:
                raise OSError("the directory is not there just now")
            return dimse.Destination("127.0.0.1", listening.port)

    ours, provider = dimse.CommitmentListener(), Separately()
    with trio.fail_after(30):
        async with (
            dimse.open_server(ours, ae_title="US") as listening,
            dimse.open_server(provider) as server,
            dimse.open_association(
                "127.0.0.1", server.port, calling_ae_title="US", contexts=CONTEXTS
            ) as association,
            association.commit([GOOD], listener=ours) as commitment,
        ):
            assert (await commitment.wait()).committed == (GOOD,)
    assert provider.tries == 2
