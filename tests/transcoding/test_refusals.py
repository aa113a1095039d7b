"""What cannot be transcoded is an error: damage, other kinds of images, a missing plugin."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

import dimse_trio as dimse
from dimse_trio.protocol.uids import NATIVE_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES
from dimse_trio.transcoding import DECODERS, ENCODERS, Transcoding
from interop.samples import SAMPLES, TEST_FILES

from .images import EXPLICIT, JPEG_2000, RLE, of_data_set, sample, transcoded

# -- what cannot be transcoded -------------------------------------------------------------------


def number_of_frames(image: Dataset, number: int) -> None:
    image.NumberOfFrames = number


def cut(image: Dataset) -> None:
    (frame,) = generate_frames(image.PixelData, number_of_frames=1)
    image.PixelData = encapsulate([frame[: len(frame) // 2]])


def cut_before_the_marker(image: Dataset) -> None:
    (frame,) = generate_frames(image.PixelData, number_of_frames=1)
    image.PixelData = encapsulate([frame.rstrip(b"\0")[:-2]])


def noise(image: Dataset) -> None:
    image.PixelData = encapsulate([bytes(range(256)) * 4 + b"\xff\xd9"])


def no_fragments(image: Dataset) -> None:
    image.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0"


def rows(image: Dataset) -> None:
    image.Rows *= 2


def bits(image: Dataset) -> None:
    image.BitsAllocated = image.BitsStored = 8 if image.BitsAllocated == 16 else 16


def one_bit(image: Dataset) -> None:
    image.BitsAllocated = 1


def huge(image: Dataset) -> None:
    image.Rows = image.Columns = 0xFFFF


def frames(image: Dataset) -> None:
    image.NumberOfFrames = 1 << 30


def negative_frames(image: Dataset) -> None:
    image.NumberOfFrames = -1


def more_frames(image: Dataset) -> None:
    image.NumberOfFrames = 2


def no_rows(image: Dataset) -> None:
    del image.Rows


def samples(image: Dataset) -> None:
    image.SamplesPerPixel = 1 if image.SamplesPerPixel == 3 else 3


def native(image: Dataset) -> None:
    image["PixelData"].is_undefined_length = False


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        cut_before_the_marker,
        noise,
        no_fragments,
        rows,
        bits,
        one_bit,
        huge,
        frames,
        negative_frames,
        more_frames,
        no_rows,
        samples,
        native,
    ],
)
@pytest.mark.parametrize(
    "keyword",
    ["JPEGBaseline8Bit", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"],
)
def test_damage_is_an_error(keyword: str, damage: Callable[[Dataset], None]) -> None:
    if keyword == "RLELossless" and damage is cut_before_the_marker:
        damage = cut  # there is no marker
    image = sample(keyword)
    damage(image)
    if damage is not native:
        image["PixelData"].is_undefined_length = True
    with pytest.raises(dimse.DataSetError) as caught:
        of_data_set(image, EXPLICIT)
    if isinstance(caught.value, dimse.TranscodingError):
        assert caught.value.sop_instance_uid == image.SOPInstanceUID
        assert caught.value.transfer_syntax_uid == image.file_meta.TransferSyntaxUID
        assert caught.value.target_uid == EXPLICIT


def test_frames_beyond_those_declared_are_neither_dropped_nor_added() -> None:
    image = pydicom.dcmread(TEST_FILES / "SC_rgb_rle_2frame.dcm")
    image.NumberOfFrames = 1
    with pytest.raises(dimse.TranscodingError):
        of_data_set(image, EXPLICIT)


def test_a_file_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    for keyword in ("JPEG2000Lossless", "JPEGBaseline8Bit", "RLELossless"):
        whole = (TEST_FILES / SAMPLES[keyword]).read_bytes()
        path = tmp_path / f"{keyword}.dcm"
        path.write_bytes(whole[: len(whole) * 3 // 4])
        with pytest.raises(dimse.DataSetError):
            transcoded(dimse.Instance.from_file(path), EXPLICIT)


@pytest.mark.parametrize("keyword", [k for k in SAMPLES if dimse.uid_of(k) in DECODERS])
def test_whatever_the_bytes_are_it_is_an_instance_or_an_error(keyword: str, tmp_path: Path) -> None:
    chance = random.Random(keyword)
    path = tmp_path / "image.dcm"
    whole = dimse.Instance.from_file(TEST_FILES / SAMPLES[keyword])
    for _ in range(100):
        data = bytearray(whole.path.read_bytes())
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(whole.offset, len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(whole.offset, len(data)) :]
        path.write_bytes(data)
        try:
            after = transcoded(dimse.Instance.from_file(path), EXPLICIT)
        except dimse.DimseError:
            continue
        if "PixelData" in after:
            assert not after["PixelData"].is_undefined_length


def test_a_file_that_was_replaced_is_not_taken_for_another(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes((TEST_FILES / SAMPLES["RLELossless"]).read_bytes())
    instance = dimse.Instance.from_file(path)
    path.write_bytes((TEST_FILES / SAMPLES["JPEG2000Lossless"]).read_bytes())
    with pytest.raises(dimse.TranscodingError, match="by now"):
        transcoded(instance, EXPLICIT)


@pytest.mark.parametrize(
    "syntax",
    [
        *sorted(set(TRANSFER_SYNTAXES) - set(NATIVE_TRANSFER_SYNTAXES) - set(DECODERS)),
        "1.2.840.10008.1.2.4.94",  # JPIP Referenced
        "1.2.840.10008.1.2.4.95",  # and deflated
        "1.2.3.4",
    ],
)
def test_video_and_the_like_are_refused(syntax: str) -> None:
    image = sample("RLELossless")
    image.file_meta.TransferSyntaxUID = UID(syntax)
    with pytest.raises(dimse.TranscodingError, match="send it as it is"):
        of_data_set(image, EXPLICIT)


@pytest.mark.parametrize(
    "target", sorted(set(TRANSFER_SYNTAXES) - set(NATIVE_TRANSFER_SYNTAXES) - set(ENCODERS))
)
def test_nothing_is_compressed_with_loss(target: str) -> None:
    with pytest.raises(dimse.TranscodingError, match="never with loss"):
        of_data_set(pydicom.dcmread(TEST_FILES / "CT_small.dcm"), target)


def test_pixels_that_are_elsewhere_are_not_left_behind() -> None:
    image = sample("RLELossless")
    del image.PixelData
    image.PixelDataProviderURL = "http://127.0.0.1/jpip"
    with pytest.raises(dimse.TranscodingError, match="elsewhere"):
        of_data_set(image, EXPLICIT)


def test_encapsulated_pixels_in_a_native_transfer_syntax_are_refused() -> None:
    image = sample("RLELossless")
    image.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    with pytest.raises(dimse.DataSetError):
        of_data_set(image, RLE)


# -- what the header of a stream says --------------------------------------------------------------

FRAME_HEADERS = {
    "JPEGBaseline8Bit": 0xC0,
    "JPEGExtended12Bit": 0xC1,
    "JPEGLosslessSV1": 0xC3,
    "JPEGLSLossless": 0xF7,
    "JPEGLSNearLossless": 0xF7,
}


def with_header(keyword: str, at: int, value: bytes) -> Dataset:
    """A sample with something else in the frame header of its stream, so far behind its marker."""
    image = sample(keyword)
    data = bytearray(image.PixelData)
    start = data.index(bytes((0xFF, FRAME_HEADERS[keyword]))) + at
    data[start : start + len(value)] = value
    image.PixelData = bytes(data)
    return image


@pytest.mark.parametrize("keyword", ["JPEGBaseline8Bit", "JPEGLSLossless", "JPEG2000Lossless"])
def test_a_stream_of_another_size_is_not_decoded(
    keyword: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dimse_trio.transcoding._decoded", None)
    image = sample(keyword)
    rows, columns = image.Rows, image.Columns
    image.Rows, image.Columns = 2 * rows, columns // 2
    with pytest.raises(dimse.TranscodingError, match=f"has {rows} rows and {columns} columns"):
        of_data_set(image, EXPLICIT)


@pytest.mark.parametrize("keyword", FRAME_HEADERS)
@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (5, b"\0\0", "does not say how many rows it has"),
        (7, b"\0\0", "and 0 columns"),
        (9, b"\x02", "has 2 samples per pixel"),
        (4, b"\xff", "has 255 bits for each sample"),
        (0, b"\xff\xfe", "has no header"),
    ],
)
def test_a_stream_with_another_header_is_not_decoded(
    keyword: str, at: int, value: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dimse_trio.transcoding._decoded", None)
    with pytest.raises(dimse.TranscodingError, match=why):
        of_data_set(with_header(keyword, at, value), EXPLICIT)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (8, b"\0\0\0\0", "columns"),
        (12, b"\0\0\0\0", "does not say how many rows it has"),
        (40, b"\x40\x00", "has 16384 samples per pixel"),
        (42, b"\x25", "has 38 bits for each sample"),
        (0, b"\xff\x00", "has no header"),
    ],
)
def test_a_jpeg_2000_stream_with_another_header_is_not_decoded(
    at: int, value: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dimse_trio.transcoding._decoded", None)
    image = sample("JPEG2000Lossless")
    data = bytearray(image.PixelData)
    start = data.index(b"\xff\x4f\xff\x51") + at
    data[start : start + len(value)] = value
    image.PixelData = bytes(data)
    with pytest.raises(dimse.TranscodingError, match=why):
        of_data_set(image, EXPLICIT)


def test_rows_that_are_defined_behind_the_scan_are_refused() -> None:
    """For what a decoder makes of them is another image."""
    image = with_header("JPEGBaseline8Bit", 5, b"\0\0")
    (frame,) = generate_frames(image.PixelData, number_of_frames=1)
    end = frame.rindex(b"\xff\xd9")
    lines = b"\xff\xdc\0\4" + int(image.Rows).to_bytes(2)
    image.PixelData = encapsulate([frame[:end] + lines + frame[end:]])
    with pytest.raises(dimse.TranscodingError, match="does not say how many rows it has"):
        of_data_set(image, EXPLICIT)


def test_what_one_codec_refuses_no_other_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    image = sample("JPEGLSLossless")
    others = get_decoder(image.file_meta.TransferSyntaxUID)._available

    def called(*_: object) -> bytes:
        raise BaseException("another was given it")

    monkeypatch.setitem(others, "pylibjpeg", called)
    image.PixelData = image.PixelData.replace(b"\xff\xda\x00\x08\x01", b"\xff\xda\x00\x08\x09")
    with pytest.raises(dimse.TranscodingError, match="pyjpegls"):
        of_data_set(image, EXPLICIT)


def test_a_plugin_that_panics_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those written in Rust do, with what is no Exception."""
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def decoded(*_: object, **__: object) -> None:
        raise panic("index out of bounds")

    monkeypatch.setattr("dimse_trio.transcoding._decoded", decoded)
    with pytest.raises(dimse.TranscodingError, match="index out of bounds"):
        of_data_set(sample("RLELossless"), EXPLICIT)


# -- what is not installed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "target", "missing"),
    [
        ("JPEGBaseline8Bit", EXPLICIT, "pylibjpeg-libjpeg"),
        ("JPEG2000Lossless", EXPLICIT, "pylibjpeg-openjpeg"),
        ("ExplicitVRLittleEndian", JPEG_2000, "pylibjpeg-openjpeg"),
        ("ExplicitVRLittleEndian", dimse.uid_of("JPEGLSLossless"), "pyjpegls"),
    ],
)
def test_a_missing_plugin_is_named(
    keyword: str, target: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels.common import CoderBase

    monkeypatch.setattr(CoderBase, "is_available", property(lambda _: False))
    with pytest.raises(dimse.TranscodingError, match=r"dimse-trio\[transcode\]") as caught:
        of_data_set(sample(keyword), target)
    assert missing in caught.value.missing.split()


def test_without_numpy_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders import base

    monkeypatch.setattr(base, "HAVE_NP", False)
    with pytest.raises(dimse.TranscodingError, match="numpy"):
        of_data_set(sample("RLELossless"), EXPLICIT)


def test_cancellation_is_looked_for_at_every_frame() -> None:
    class Enough(BaseException):
        pass

    looks = 0

    def checkpoint() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise Enough

    image: Any = pydicom.dcmread(TEST_FILES / "SC_rgb_rle_2frame.dcm")
    with pytest.raises(Enough):
        Transcoding("1.2.3", RLE, EXPLICIT).of(image, checkpoint)
    assert looks == 2
