"""Images to transcode, and how to tell what became of them."""

from __future__ import annotations

import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.transcoding import Transcoding
from interop.samples import SAMPLES, TEST_FILES

EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")
RLE = dimse.uid_of("RLELossless")
JPEG_2000 = dimse.uid_of("JPEG2000Lossless")


def transcoded(instance: dimse.Instance, target: str) -> Dataset:
    way = Transcoding(instance.sop_instance_uid, instance.transfer_syntax_uid, target)
    return read(way.of(instance), target)


def read(data: bytes, syntax: str) -> Dataset:
    data_set = datasets.decode(data, syntax)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(syntax)
    return data_set


def of_data_set(data_set: Dataset, target: str) -> Dataset:
    syntax = str(data_set.file_meta.TransferSyntaxUID)
    way = Transcoding(str(data_set.SOPInstanceUID), syntax, target)
    return read(way.of(data_set), target)


def sample(keyword: str) -> Dataset:
    return pydicom.dcmread(TEST_FILES / SAMPLES[keyword])


def endless() -> Dataset:
    """A JPEG-LS image that does not say how many rows it has; a codec looks for them for ever."""
    image = sample("JPEGLSLossless")
    data = bytearray(image.PixelData)
    header = data.index(b"\xff\xf7")
    data[header + 5 : header + 7] = b"\0\0"
    image.PixelData = bytes(data)
    return image
