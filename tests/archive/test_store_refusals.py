"""C-STORE: what is no instance, is cut off or finds no room gets a status, and leaves nothing."""

from __future__ import annotations

import errno
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing

import pytest
import trio
from pydicom import Dataset, dcmread
from trio.testing import wait_all_tasks_blocked

import dimse_trio as dimse
from dimse_trio import Status, StatusError, datasets
from dimse_trio.archive import Archive, Statistics, arrivals, handler, header
from dimse_trio.archive.arrivals import Arrivals
from dimse_trio.archive.folder import Folder
from dimse_trio.archive.index import Index
from dimse_trio.protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    uid_of,
)

from .instances import (
    CT,
    failing,
    found,
    instance,
    request_with,
    store,
    store_request,
    unfinished_files,
    visible_files,
)

JPEG_BASELINE = uid_of("JPEGBaseline8Bit")


def cut(length: int) -> dimse.StoreRequest:
    data = datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
    return request_with(data[:length], "1.2.1.1.1")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (lambda: store_request(instance(StudyInstanceUID=None)), Status.DATA_SET_MISMATCH),
        (lambda: store_request(instance(SeriesInstanceUID="")), Status.DATA_SET_MISMATCH),
        (lambda: store_request(instance(SOPClassUID=None)), Status.DATA_SET_MISMATCH),
        (lambda: store_request(instance(), sop_class_uid="1.2"), Status.DATA_SET_MISMATCH),
        (lambda: request_with(b"", "1.2.1.1.1"), Status.DATA_SET_MISMATCH),
        (
            lambda: request_with(
                datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN), "1.2.1.1.2"
            ),
            Status.DATA_SET_MISMATCH,
        ),
        (lambda: cut(40), Status.CANNOT_UNDERSTAND),
        (lambda: request_with(b"\x08\0\x05\0CS\xff\0abc", "1.2.1.1.1"), Status.CANNOT_UNDERSTAND),
    ],
)
async def test_what_is_no_instance_is_refused(
    archive: Archive, request_: Callable[[], dimse.StoreRequest], status: Status
) -> None:
    with pytest.raises(StatusError) as caught:
        await archive.handle_store(request_())
    assert caught.value.status == status
    assert caught.value.comment
    assert len(caught.value.comment) <= 64
    assert visible_files(archive.folder) == unfinished_files(archive.folder) == []
    assert await archive.statistics() == Statistics(0, 0, 0, 0, 0)
    await store(archive, instance())


def encapsulated() -> bytes:
    """A data set that ends with pixel data in fragments."""
    item = b"\xfe\xff\x00\xe0"
    return (
        datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
        + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
        + item
        + bytes(4)
        + (item + b"\x04\0\0\0abcd") * 2
        + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )


def native(syntax: str) -> bytes:
    """A data set that ends with pixel data."""
    pixels = Dataset()
    pixels.add_new("PixelData", "OW", b"pixels" * 1000)
    return datasets.encode(instance(), syntax) + datasets.encode(pixels, syntax)


def deflated() -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(native(EXPLICIT_VR_LITTLE_ENDIAN)) + packer.flush()


CUT = [
    *(
        pytest.param(native(syntax), syntax, length, id=f"{dimse.uid_name(syntax)}-{length}")
        for syntax in (
            IMPLICIT_VR_LITTLE_ENDIAN,
            EXPLICIT_VR_LITTLE_ENDIAN,
            EXPLICIT_VR_BIG_ENDIAN,
        )
        for length in (-1, -5998, -6003)
    ),
    *(
        pytest.param(encapsulated(), JPEG_BASELINE, length, id=f"encapsulated-{length}")
        for length in (-1, -8, -9, -14, -20)
    ),
    pytest.param(deflated(), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, -20, id="deflated"),
]


@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "on disk"])
@pytest.mark.parametrize(("data", "syntax", "length"), CUT)
async def test_what_is_cut_off_does_not_take_the_place_of_what_is_whole(
    archive: Archive,
    data: bytes,
    syntax: str,
    length: int,
    in_memory: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not in_memory:
        monkeypatch.setattr(handler, "BLOCK", 1)
    uid = "1.2.1.1.1"
    assert await archive.handle_store(request_with(data, uid, syntax=syntax)) == Status.SUCCESS
    with pytest.raises(StatusError) as caught:
        await archive.handle_store(request_with(data[:length], uid, syntax=syntax))
    assert (caught.value.status, caught.value.comment) == (
        Status.CANNOT_UNDERSTAND,
        "data set is cut off",
    )
    (kept,) = visible_files(archive.folder)
    assert kept.read_bytes()[dimse.Instance.from_file(kept).offset :] == data
    assert unfinished_files(archive.folder) == []
    assert await archive.committed(dimse.SOPReference(CT, uid)) is None


async def test_what_is_cut_off_in_a_sequence_of_the_head_is_refused(archive: Archive) -> None:
    item = Dataset()
    item.RequestedProcedureDescription = "x" * 100
    data_set = instance(RequestAttributesSequence=[item])
    data_set["RequestAttributesSequence"].is_undefined_length = True
    data = datasets.encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    for length in (-1, -8, -20):
        with pytest.raises(StatusError, match="cut off"):
            await archive.handle_store(request_with(data[:length], data_set.SOPInstanceUID))
    assert visible_files(archive.folder) == []


@pytest.mark.parametrize(
    ("agreed", "sent"),
    [
        (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN),
        (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN),
    ],
)
async def test_another_encoding_than_agreed_is_followed_too(
    archive: Archive, agreed: str, sent: str
) -> None:
    data = native(sent)
    with pytest.raises(StatusError, match="cut off"):
        await archive.handle_store(request_with(data[:-1], "1.2.1.1.1", syntax=agreed))
    await archive.handle_store(request_with(data, "1.2.1.1.1", syntax=agreed))


async def test_what_cannot_be_followed_is_kept(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
    odd = b"\x71\0\x01\x10??\x04\0ABCD" + b"\x73\0\x01\x10LO\x04\0AB"
    await archive.handle_store(request_with(data + odd, "1.2.1.1.1"))
    monkeypatch.setattr(header, "MANY_ELEMENTS", 1)
    endless = native(EXPLICIT_VR_LITTLE_ENDIAN)[:-1]
    await archive.handle_store(request_with(endless, "1.2.1.1.1"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("what", ["writing a block", "writing the end", "placing"])
async def test_a_disk_that_fails(
    archive: Archive, code: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(archive, instance(PatientComments="old"))
    fail = failing(OSError(code, "what the system says"))
    with monkeypatch.context() as patch:
        if what == "writing a block":
            patch.setattr(handler, "BLOCK", 1)
            patch.setattr(handler, "write_blocks", fail)
        elif what == "writing the end":
            patch.setattr(arrivals, "write_blocks", fail)
        else:
            patch.setattr(Folder, "place", fail)
        for data_set in (instance(PatientComments="new"), instance("1.9", "1.9.1", "1.9.1.1")):
            with pytest.raises(StatusError) as caught:
                await archive.handle_store(store_request(data_set))
            assert caught.value.status == Status.OUT_OF_RESOURCES
            assert "what the system says" in str(caught.value.comment)
    (kept,) = visible_files(archive.folder)
    assert dcmread(kept).PatientComments == "old"
    assert unfinished_files(archive.folder) == []
    assert (await archive.statistics()).studies == 1
    await store(archive, instance(PatientComments="new"))
    assert dcmread(kept).PatientComments == "new"


async def test_an_index_that_is_locked(archive: Archive) -> None:
    await store(archive, instance())
    archive._index._writer.execute("PRAGMA busy_timeout = 1")  # pyright: ignore[reportPrivateUsage]
    with closing(sqlite3.connect(archive.folder / "index.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StatusError, match="locked") as caught:
            await archive.handle_store(store_request(instance(uid="1.2.1.1.2")))
        assert caught.value.status == Status.OUT_OF_RESOURCES
        other.execute("ROLLBACK")
    assert len(visible_files(archive.folder)) == 1
    assert unfinished_files(archive.folder) == []
    await store(archive, instance(uid="1.2.1.1.2"))


async def test_an_index_that_cannot_be_written_leaves_no_new_file(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(archive, instance(PatientComments="old"))
    with monkeypatch.context() as patch:
        patch.setattr(Index, "put", failing(sqlite3.OperationalError("disk is full")))
        for data_set in (instance(uid="1.2.1.1.2"), instance(PatientComments="new")):
            with pytest.raises(StatusError) as caught:
                await archive.handle_store(store_request(data_set))
            assert caught.value.status == Status.OUT_OF_RESOURCES
    (kept,) = visible_files(archive.folder)
    assert dcmread(kept).PatientComments == "old"
    assert await found(archive, "IMAGE", "SOPInstanceUID") == ["1.2.1.1.1"]
    assert archive._arrivals.consistent  # pyright: ignore[reportPrivateUsage]


async def test_a_mistake_of_ours_reaches_everybody_who_waits(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Arrivals, "_commit", failing(ZeroDivisionError()))
        with pytest.raises(ZeroDivisionError):
            await archive.handle_store(store_request(instance()))
    assert unfinished_files(archive.folder) == []
    await store(archive, instance())


@pytest.mark.parametrize("error", [ZeroDivisionError("Doe^John"), UnicodeError("Doe^John")])
async def test_one_that_cannot_be_read_is_refused_alone(
    archive: Archive,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reading = header._decoded  # pyright: ignore[reportPrivateUsage]

    def decoded(raw: dict[int, tuple[bytes, bytes]], little: bool) -> dict[int, str]:
        if b"bad" in raw[0x00104000][1]:
            raise error
        return reading(raw, little)

    answers: dict[str, Status] = {}

    async def send(number: int) -> None:
        uid = f"1.2.1.1.{number}"
        request = store_request(instance(uid=uid, PatientComments="bad" if number == 5 else "good"))
        try:
            answers[uid] = await archive.handle_store(request)
        except StatusError as refused:
            answers[uid] = refused.status

    monkeypatch.setattr(header, "_decoded", decoded)
    async with trio.open_nursery() as nursery:
        async with archive._arrivals.writing:  # pyright: ignore[reportPrivateUsage]
            for number in range(9):
                nursery.start_soon(send, number)
            await wait_all_tasks_blocked()
    assert answers.pop("1.2.1.1.5") == Status.CANNOT_UNDERSTAND
    assert set(answers.values()) == {Status.SUCCESS}
    assert await found(archive, "IMAGE", "SOPInstanceUID") == sorted(answers)
    assert unfinished_files(archive.folder) == []
    assert archive._arrivals.consistent  # pyright: ignore[reportPrivateUsage]
    assert type(error).__name__ in caplog.text
    assert "Doe" not in caplog.text


async def test_an_association_that_ends_is_not_the_disk(archive: Archive) -> None:
    request = request_with(b"half", "1.2.1.1.1", ended=False)
    error = dimse.ConnectionFailed("gone")
    request._data.inbox.fail(error)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(dimse.ConnectionFailed):
        await archive.handle_store(request)
