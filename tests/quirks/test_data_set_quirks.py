"""Quirks 66 to 69: data sets on their way, and how long a C-STORE may take (PS3.7 §9.1.1)."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import attrs
import pytest
import trio
from pydicom import Dataset, dcmread

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.part10 import file_header
from dimse_trio.protocol.messages import CStoreRQ, CStoreRSP
from dimse_trio.protocol.negotiation import PresentationContext
from dimse_trio.protocol.pdus import ReleaseRP, ReleaseRQ
from dimse_trio.protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from dimse_trio.testing.memory import associated_pair
from semantics.script import CONTEXTS, CT, STORE, encoded, instance, served

from .tools import Everything

NATIVE = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
A_STORE = CStoreRQ(message_id=1, affected_sop_instance_uid="1.2.3.4")


async def stored(handler: object, data: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> int:
    """The status of a C-STORE of these bytes, in a context of that transfer syntax."""
    async with served(handler) as peer:
        await peer.associate([PresentationContext(CT, (syntax,))])
        await peer.send_message(1, A_STORE, data)
        status = (await peer.expect_message(CStoreRSP)).status
        await peer.release()
    return status


@pytest.mark.parametrize("sent", NATIVE)
@pytest.mark.parametrize("negotiated", NATIVE)
def test_quirk_66_a_data_set_in_another_native_syntax_is_read(sent: str, negotiated: str) -> None:
    assert (
        datasets.decode(
            datasets.encode(instance(), sent), negotiated, max_values=datasets.MAX_VALUES
        )
        == instance()
    )


def test_quirk_66_a_data_set_that_is_not_deflated_is_read() -> None:
    data = encoded(instance())
    assert (
        datasets.decode(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, max_values=datasets.MAX_VALUES)
        == instance()
    )


@pytest.mark.parametrize("trailing", [b"", b"\0", b"\0\0\0"])
def test_quirk_66_bytes_behind_a_deflated_data_set(trailing: bytes) -> None:
    syntax = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    assert datasets.decode(datasets.encode(instance(), syntax) + trailing, syntax) == instance()


@pytest.mark.parametrize("syntax", NATIVE[:2])
def test_quirk_66_meta_information_inside_the_data_set(syntax: str) -> None:
    header = file_header(sop_class_uid=CT, sop_instance_uid="1.2.3.4", transfer_syntax_uid=syntax)
    meta = header.partition(b"DICM")[2]
    data = meta + datasets.encode(instance(), syntax)
    assert datasets.decode(data, syntax) == instance()


@attrs.define
class Saving(Everything):
    """A handler that saves what it gets."""

    folder: Path = attrs.field(factory=Path)

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        await request.save_as(self.folder / request.file_name)
        return dimse.Status.SUCCESS


@pytest.mark.parametrize(
    "data",
    [
        datasets.encode(instance(), IMPLICIT_VR_LITTLE_ENDIAN),
        b"\x02\0\x10\0UI\x02\x001." + encoded(instance()),
        b"no data set at all",
        b"",
    ],
    ids=["another syntax", "group 2", "none", "empty"],
)
async def test_quirk_66_bytes_pass_through_untouched(
    autojump_clock: object, tmp_path: Path, data: bytes
) -> None:
    assert await stored(Saving(folder=tmp_path), data) == 0
    path = tmp_path / "1.2.3.4.dcm"
    written = path.read_bytes()
    (length,) = struct.unpack_from("<L", written, 128 + 4 + 8)  # of the meta information
    header = written[: 128 + 4 + 12 + length]
    assert dcmread(BytesIO(header)).file_meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN
    assert written == header + data


def odd(pixels: bytes) -> bytes:
    """A data set that ends with a value of odd length, which the standard does not allow."""
    header = struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OB", len(pixels))
    without = instance()
    del without.PixelData
    return encoded(without) + header + pixels


async def test_quirk_67_values_of_odd_length_are_received_as_they_are(
    autojump_clock: object,
) -> None:
    handler = Everything()
    data = odd(b"abc")
    assert len(data) % 2 == 1
    assert await stored(handler, data) == 0
    assert handler.received == [data]
    (request,) = handler.stores
    read = datasets.decode(handler.received[0], request.transfer_syntax_uid)
    assert read.PixelData == b"abc"


@pytest.mark.parametrize("size", [1, 3, 200_001])
async def test_quirk_67_values_of_odd_length_are_sent_as_they_are(
    autojump_clock: object, tmp_path: Path, size: int
) -> None:
    data = odd(bytes(size))
    path = tmp_path / "odd.dcm"
    header = file_header(
        sop_class_uid=CT,
        sop_instance_uid="1.2.3.4",
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
    )
    path.write_bytes(header + data)
    handler = Everything()
    async with associated_pair(handler, contexts=dimse.contexts_for([path])) as association:
        await association.store(path)
    assert handler.received == [data + b"\0"]  # the last PDV's padding, and nothing else


async def test_quirk_68_a_handler_may_answer_and_go_on_working(autojump_clock: object) -> None:
    done: list[str] = []

    @attrs.define
    class Early(Everything):
        nursery: trio.Nursery = attrs.field(kw_only=True)

        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            data_set = await request.data_set()
            self.nursery.start_soon(self.process, data_set)
            return dimse.Status.SUCCESS

        async def process(self, data_set: Dataset) -> None:
            await trio.sleep(100)
            done.append(str(data_set.SOPInstanceUID))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        assert await stored(Early(nursery=nursery), encoded(instance())) == 0
        assert trio.current_time() - start < 100
        assert done == []
    assert done == ["1.2.3.4"]


async def test_quirk_68_a_handler_that_takes_long_keeps_its_association(
    autojump_clock: object,
) -> None:
    class Slow(Everything):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            await trio.sleep(250)  # nothing is read meanwhile
            return await Everything.handle_store(self, request)

    async with associated_pair(Slow()) as association:
        assert (await association.store(instance(3 << 20))).status == 0
        assert trio.current_time() >= 250


async def test_quirk_68_a_requestor_that_loses_patience_is_not_waited_for(
    autojump_clock: object,
) -> None:
    cancelled: list[bool] = []

    class Slow(Everything):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append(True)
            return dimse.Status.SUCCESS

    async with served(Slow()) as peer:
        await peer.associate(CONTEXTS)
        await peer.send_message(STORE, A_STORE, encoded(instance()))
        await trio.sleep(30)
        await peer.abort()
        await peer.expect_end()
    assert cancelled == [True]


async def test_quirk_69_a_study_that_comes_on_an_association_for_each_image(
    autojump_clock: object,
) -> None:
    handler = Everything()
    for index in range(5):
        async with served(handler) as peer:
            await peer.associate(CONTEXTS)
            uid = f"1.2.3.{index}"
            store = CStoreRQ(message_id=1, affected_sop_instance_uid=uid)
            await peer.send_message(STORE, store, encoded(instance(uid=uid)))
            assert (await peer.expect_message(CStoreRSP)).status == 0
            await peer.send(ReleaseRQ())
            await peer.expect(ReleaseRP)
    assert [request.sop_instance_uid for request in handler.stores] == [
        f"1.2.3.{index}" for index in range(5)
    ]
    studies = {
        datasets.decode(data, EXPLICIT_VR_LITTLE_ENDIAN).StudyInstanceUID
        for data in handler.received
    }
    assert studies == {"1.2.3"}


async def test_quirk_69_several_studies_on_one_association(autojump_clock: object) -> None:
    handler = Everything()
    async with associated_pair(handler) as association:
        for index in range(5):
            data_set = instance(uid=f"1.2.3.{index}")
            data_set.StudyInstanceUID = f"1.2.{index}"
            await association.store(data_set)
    studies = [
        datasets.decode(data, handler.stores[0].transfer_syntax_uid).StudyInstanceUID
        for data in handler.received
    ]
    assert studies == [f"1.2.{index}" for index in range(5)]
