"""Files in several transfer syntaxes, a handler that keeps what it is sent, and one that sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import numpy as np
from pydicom import Dataset

import dimse_trio as dimse
from interop.samples import SAMPLES, TEST_FILES

EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")
IMPLICIT = dimse.uid_of("ImplicitVRLittleEndian")
RLE = dimse.uid_of("RLELossless")
JPEG = dimse.uid_of("JPEGBaseline8Bit")
JPEG_2000 = dimse.uid_of("JPEG2000Lossless")

RLE_FILE = TEST_FILES / SAMPLES["RLELossless"]
JPEG_FILE = TEST_FILES / SAMPLES["JPEGBaseline8Bit"]
NATIVE_FILE = TEST_FILES / "MR_small.dcm"
DAMAGED_FILE = TEST_FILES / "JPEG2000-embedded-sequence-delimiter.dcm"


@attrs.define
class Shelf:
    """Keeps what comes, and its transfer syntax."""

    syntaxes: list[str] = attrs.field(factory=list[str])
    data_sets: list[Dataset] = attrs.field(factory=list[Dataset])

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        self.syntaxes.append(request.transfer_syntax_uid)
        self.data_sets.append(await request.data_set())
        return dimse.Status.SUCCESS


@attrs.define
class Source:
    """Has these to send, by C-GET and by C-MOVE."""

    items: list[Any]

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Any]:
        for item in self.items:
            yield item

    async def handle_move(self, request: dimse.MoveRequest) -> AsyncIterator[Any]:
        for item in self.items:
            yield item


def same(one: Dataset, other: Dataset) -> bool:
    return bool(np.array_equal(one.pixel_array, other.pixel_array))
