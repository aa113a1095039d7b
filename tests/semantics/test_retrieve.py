"""Sub-operations: counts, failures, final statuses, and what a cancelled C-MOVE leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import pydicom.data
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.protocol.messages import CMoveRQ, CMoveRSP, CStoreRQ, CStoreRSP
from dimse_trio.protocol.pdus import Abort
from dimse_trio.testing.scripted import ScriptedPeer

from .script import CONTEXTS, LE, MOVE, encoded, instance, study

FILES = Path(pydicom.data.__file__).parent / "test_files"


@attrs.define
class Source:
    """A handler that yields what it is given, for C-GET and C-MOVE alike."""

    items: list[object]

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[object]:
        for item in self.items:
            yield item

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[object]:
        for item in self.items:
            yield item


@attrs.define
class Sink:
    """A storage SCP whose statuses the test chooses by SOP Instance UID."""

    statuses: dict[str, int] = attrs.field(factory=dict)
    received: list[dimse.StoreRequest] = attrs.field(factory=list)

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        self.received.append(request)
        return dimse.Status(self.statuses.get(request.sop_instance_uid, 0))


QUERY = {"level": "STUDY", "StudyInstanceUID": "1.2.3"}


async def move(items: list[object], sink: Sink) -> tuple[dimse.RetrieveResult, Sink]:
    async with (
        dimse.open_server(sink, ae_title="WS") as workstation,
        dimse.open_server(
            Source(items), ae_title="PACS", peers={"WS": ("127.0.0.1", workstation.port)}
        ) as pacs,
        dimse.open_association("127.0.0.1", pacs.port, called_ae_title="PACS") as association,
    ):
        result = await association.move(dimse.query(**QUERY), destination="WS", check=False)
    return result, sink


async def test_the_name_of_a_file_that_cannot_be_sent_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    (folder / "none.dcm").write_text("none")
    result, _ = await move([folder / "gone.dcm", str(folder / "none.dcm")], Sink())
    assert result.failed == 2
    assert "the file cannot be read: No such file or directory" in caplog.text
    assert "the file is none that can be sent" in caplog.text
    assert "DOE" not in caplog.text


async def test_every_instance_arrives_with_its_originator() -> None:
    items: list[object] = [
        FILES / "CT_small.dcm",
        instance(uid="1.2.1"),
        FILES / "MR_small_RLE.dcm",
    ]
    result, sink = await move(items, Sink())
    assert (result.status, result.completed, result.failed) == (0, 3, 0)
    assert [r.move_originator for r in sink.received] == [dimse.MoveOriginator("DIMSE-TRIO", 1)] * 3


async def test_failures_and_warnings_are_counted_and_named() -> None:
    sink = Sink({"1.2.1": 0xA700, "1.2.2": 0xB000})
    result, _ = await move([instance(uid=f"1.2.{number}") for number in range(4)], sink)
    assert result.status == dimse.Status.SUB_OPERATIONS_WARNING
    assert (result.completed, result.failed, result.warning) == (2, 1, 1)
    assert result.failed_sop_instance_uids == ("1.2.1",)


async def test_what_cannot_be_sent_fails_alone() -> None:
    items: list[object] = [FILES / "none.dcm", Dataset(), FILES / "README.txt", instance()]
    result, sink = await move(items, Sink())
    assert result.status == dimse.Status.SUB_OPERATIONS_WARNING
    assert (result.completed, result.failed) == (1, 3)
    assert len(sink.received) == 1


async def test_all_failed_is_a_failure() -> None:
    result, _ = await move([instance(uid="1.2.1")], Sink({"1.2.1": 0xC000}))
    assert result.status == dimse.Status.OUT_OF_RESOURCES_SUB_OPERATIONS
    assert result.failed_sop_instance_uids == ("1.2.1",)


async def test_nothing_to_send_is_a_success() -> None:
    result, _ = await move([], Sink())
    assert (result.status, result.completed, result.failed) == (0, 0, 0)


async def test_a_destination_that_is_down_fails_every_instance() -> None:
    async with (
        dimse.open_server(Sink()) as gone,
        dimse.open_server(
            Source([instance(uid="1.2.1"), instance(uid="1.2.2")]),
            peers={"WS": ("127.0.0.1", gone.port)},
        ) as pacs,
    ):
        await gone.stop()
        async with dimse.open_association("127.0.0.1", pacs.port) as association:
            with pytest.raises(dimse.StatusError) as raised:
                await association.move(dimse.query(**QUERY), destination="WS")
            assert raised.value.status == dimse.Status.OUT_OF_RESOURCES_SUB_OPERATIONS


async def with_stalled_destination(
    act: Callable[[ScriptedPeer, ScriptedPeer], object],
) -> None:
    """A C-MOVE whose destination has taken one C-STORE-RQ and says nothing more."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    source = Source([instance(uid="1.2.1"), instance(uid="1.2.2"), instance(uid="1.2.3")])
    async with dimse.open_server(source, peers={"WS": ("127.0.0.1", port)}) as pacs:
        requestor = await ScriptedPeer.connect("127.0.0.1", pacs.port)
        await requestor.associate(CONTEXTS)
        request = CMoveRQ(message_id=5, move_destination="WS")
        await requestor.send_message(MOVE, request, encoded(study()))
        destination = ScriptedPeer(await listeners[0].accept())
        await destination.accept(LE)
        store = await destination.expect_message(CStoreRQ)
        response = CStoreRSP(message_id_being_responded_to=store.message_id, status=0)
        await destination.send_message(1, response)
        assert (await requestor.expect_message(CMoveRSP)).completed == 1
        await destination.expect_message(CStoreRQ)
        await act(requestor, destination)  # type: ignore[misc]
        for stream in (requestor.stream, destination.stream, listeners[0]):
            await stream.aclose()


async def test_c_cancel_aborts_the_sub_association_and_is_answered_with_counts() -> None:
    from dimse_trio.protocol.messages import CCancelRQ

    async def act(requestor: ScriptedPeer, destination: ScriptedPeer) -> None:
        await requestor.send_message(MOVE, CCancelRQ(message_id_being_responded_to=5))
        await destination.expect(Abort)
        final = await requestor.expect_message(CMoveRSP)
        assert final.status == dimse.Status.CANCEL
        assert (final.completed, final.remaining, final.failed) == (1, 2, 0)
        await requestor.release()

    await with_stalled_destination(act)


async def test_a_requestor_that_goes_takes_the_sub_association_with_it() -> None:
    async def act(requestor: ScriptedPeer, destination: ScriptedPeer) -> None:
        await requestor.abort()
        await destination.expect(Abort)

    await with_stalled_destination(act)


async def test_a_destination_that_goes_fails_what_is_left() -> None:
    async def act(requestor: ScriptedPeer, destination: ScriptedPeer) -> None:
        await destination.abort()
        final = await requestor.expect_message(CMoveRSP)
        assert final.status == dimse.Status.SUB_OPERATIONS_WARNING
        assert (final.completed, final.failed) == (1, 2)
        await requestor.release()

    await with_stalled_destination(act)


async def test_get_sends_each_instance_and_saves_it_as_it_is(tmp_path: Path) -> None:
    files = [FILES / name for name in ("CT_small.dcm", "MR_small_RLE.dcm", "image_dfl.dcm")]
    async with dimse.open_server(Source(list(files))) as pacs:
        classes = [dimse.Instance.from_file(path).sop_class_uid for path in files]
        contexts = dimse.retrieve_contexts(classes)
        async with dimse.open_association("127.0.0.1", pacs.port, contexts=contexts) as association:
            result = await association.get(dimse.query(**QUERY), save_to=tmp_path / "new")
    assert (result.status, result.completed) == (0, 3)
    for path, saved in zip(files, result.files, strict=True):
        sent, got = dimse.Instance.from_file(path), dimse.Instance.from_file(saved)
        data = path.read_bytes()[sent.offset :]
        data += b"\0" * (len(data) % 2)  # fragments are even, so an odd data set gets a NUL
        assert data == saved.read_bytes()[got.offset :]
        assert sent.transfer_syntax_uid == got.transfer_syntax_uid


async def test_get_converts_between_native_syntaxes_where_it_must(tmp_path: Path) -> None:
    async with (
        dimse.open_server(
            Source([FILES / "MR_small_bigendian.dcm", FILES / "JPEG2000.dcm"])
        ) as pacs,
        dimse.open_association("127.0.0.1", pacs.port) as association,
    ):
        result = await association.get(dimse.query(**QUERY), save_to=tmp_path)
    assert (result.completed, result.failed) == (1, 1)  # the compressed one has no context
    (saved,) = result.files
    little = pydicom.dcmread(FILES / "MR_small.dcm")
    assert pydicom.dcmread(saved).PixelData == little.PixelData


async def test_a_folder_that_cannot_be_written_is_raised_to_who_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with (
        dimse.open_server(Source([instance()])) as pacs,
        dimse.open_association("127.0.0.1", pacs.port) as association,
    ):
        with pytest.raises(OSError, match="file"):
            await association.get(dimse.query(**QUERY), save_to=tmp_path / "file", check=True)
        assert association.is_open
