"""Transcoding: the pixels that come out are those that went in, or nothing comes out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.part10 import file_header
from dimse_trio.protocol.uids import NATIVE_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES
from dimse_trio.transcoding import DECODERS, ENCODERS, Transcoding
from interop.samples import SAMPLES, TEST_FILES

EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")
BIG_ENDIAN = dimse.uid_of("ExplicitVRBigEndian")
RLE = dimse.uid_of("RLELossless")
JPEG = dimse.uid_of("JPEGBaseline8Bit")
JPEG_2000 = dimse.uid_of("JPEG2000Lossless")
LOSSY_JPEG = (JPEG, dimse.uid_of("JPEGExtended12Bit"))

UNDECODABLE = {"JPEG-lossy.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"}
"""Files whose streams the decoders refuse; pydicom has no pixel array of them either."""


def instances() -> Iterator[dimse.Instance]:
    for path in sorted(TEST_FILES.rglob("*")):
        if path.is_file():
            try:
                yield dimse.Instance.from_file(path)
            except dimse.InvalidFile:
                continue


INSTANCES = list(instances())
COMPRESSED = [i for i in INSTANCES if i.transfer_syntax_uid not in NATIVE_TRANSFER_SYNTAXES]


def name_of(value: object) -> str:
    if isinstance(value, dimse.Instance):
        return value.path.name
    return TRANSFER_SYNTAXES[str(value)].keyword


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


def same(one: Dataset, other: Dataset) -> bool:
    return bool(np.array_equal(one.pixel_array, other.pixel_array))


def without_image(data_set: Dataset) -> Dataset:
    """What has nothing to do with how pixels are stored."""
    rest = Dataset()
    rest.update(data_set)
    for keyword in (
        "PixelData",
        "PlanarConfiguration",
        "PhotometricInterpretation",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
        "LossyImageCompression",
    ):
        rest.pop(keyword, None)
    for tag in [tag for tag in rest.keys() if tag.element == 0]:  # noqa: SIM118 - as pydicom has it
        del rest[tag]  # a group length, which is not written
    return rest


# -- pydicom's files -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", NATIVE_TRANSFER_SYNTAXES, ids=name_of)
@pytest.mark.parametrize("instance", COMPRESSED, ids=name_of)
def test_decompressed_pixels_are_those_that_pydicom_decodes(
    instance: dimse.Instance, target: str
) -> None:
    before = pydicom.dcmread(instance.path)
    if instance.path.name in UNDECODABLE:
        with pytest.raises(dimse.TranscodingError, match=instance.sop_instance_uid):
            transcoded(instance, target)
        return
    if target == BIG_ENDIAN and before.get("BitsAllocated", 0) > 16:
        with pytest.raises(dimse.TranscodingError, match="read in two ways"):
            transcoded(instance, target)
        return
    after = transcoded(instance, target)
    assert after.get("SOPInstanceUID") == before.get("SOPInstanceUID")
    if "PixelData" not in before:
        assert without_image(after) == without_image(before)
        return
    assert same(before, after)
    assert not after["PixelData"].is_undefined_length
    assert len(after.PixelData) % 2 == 0
    assert (
        "OW"
        if after.BitsAllocated > 8 or target == dimse.uid_of("ImplicitVRLittleEndian")
        else "OB"
    ) == after["PixelData"].VR
    if target == EXPLICIT:
        assert without_image(after) == without_image(before)
    assert after.SOPInstanceUID == before.SOPInstanceUID


@pytest.mark.parametrize(
    "instance",
    [
        i
        for i in COMPRESSED
        if i.transfer_syntax_uid not in LOSSY_JPEG
        and i.path.name not in (*UNDECODABLE, "UN_sequence.dcm")  # which has no pixels
    ],
    ids=name_of,
)
def test_what_is_no_lossy_jpeg_keeps_its_colours(instance: dimse.Instance) -> None:
    """No conversion rounds anything: not only the colours are the same, the samples are."""
    decoder = pydicom.pixels.get_decoder(UID(instance.transfer_syntax_uid))
    before, _ = decoder.as_array(pydicom.dcmread(instance.path), as_rgb=False)
    native = pydicom.pixels.get_decoder(UID(EXPLICIT))
    after, _ = native.as_array(transcoded(instance, EXPLICIT), as_rgb=False)
    assert np.array_equal(before, after)


@pytest.mark.parametrize("target", ENCODERS, ids=name_of)
@pytest.mark.parametrize("instance", INSTANCES, ids=name_of)
def test_compressed_pixels_are_the_same_or_there_are_none(
    instance: dimse.Instance, target: str
) -> None:
    if instance.transfer_syntax_uid == target:
        return
    before = pydicom.dcmread(instance.path)
    cut_off = instance.path.name == "rtplan_truncated.dcm"
    try:
        after = transcoded(instance, target)
    except dimse.TranscodingError:
        assert "PixelData" in before or cut_off
        return
    assert not cut_off
    assert ("PixelData" in after) is ("PixelData" in before)
    if "PixelData" in before:
        assert after["PixelData"].is_undefined_length
        assert same(before, after)


@pytest.mark.parametrize("name", ["CT_small.dcm", "ExplVR_BigEnd.dcm", "examples_ybr_color.dcm"])
@pytest.mark.parametrize("target", ENCODERS, ids=name_of)
def test_common_images_can_be_compressed(name: str, target: str) -> None:
    assert same(
        pydicom.dcmread(TEST_FILES / name),
        transcoded(dimse.Instance.from_file(TEST_FILES / name), target),
    )


# -- what an image says about itself ---------------------------------------------------------------


def sample(keyword: str) -> Dataset:
    return pydicom.dcmread(TEST_FILES / SAMPLES[keyword])


@pytest.mark.parametrize("keyword", ["JPEGBaseline8Bit", "JPEGExtended12Bit"])
@pytest.mark.parametrize("said", [None, "", "01"])
def test_what_was_compressed_with_loss_says_so(keyword: str, said: str | None) -> None:
    image = sample(keyword)
    image.pop("LossyImageCompression", None)
    if said is not None:
        image.LossyImageCompression = said
    assert of_data_set(image, EXPLICIT).LossyImageCompression == "01"


def test_without_loss_nothing_is_said_about_loss() -> None:
    assert "LossyImageCompression" not in of_data_set(sample("RLELossless"), EXPLICIT)


def test_jpeg_colours_come_out_as_rgb() -> None:
    after = of_data_set(pydicom.dcmread(TEST_FILES / "SC_rgb_dcmtk_+eb+cy+np.dcm"), EXPLICIT)
    assert (after.PhotometricInterpretation, after.PlanarConfiguration) == ("RGB", 0)


@pytest.mark.parametrize("interpretation", ["YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_RCT"])
def test_colours_that_only_a_codec_has_are_refused(interpretation: str) -> None:
    image = pydicom.dcmread(TEST_FILES / "SC_rgb_rle_2frame.dcm")
    image.PhotometricInterpretation = interpretation
    with pytest.raises(dimse.TranscodingError, match=interpretation):
        of_data_set(image, EXPLICIT)


@pytest.mark.parametrize("interpretation", ["YBR_FULL_422", "YBR_FULL"])
def test_ycbcr_of_a_lossless_source_stays_ycbcr(interpretation: str) -> None:
    image = pydicom.dcmread(TEST_FILES / "SC_rgb_rle_2frame.dcm")
    rgb = image.pixel_array
    image.PhotometricInterpretation = interpretation
    after = of_data_set(image, EXPLICIT)
    assert after.PhotometricInterpretation == "YBR_FULL"
    assert after.PixelData.rstrip(b"\0") == rgb.tobytes().rstrip(b"\0")


def test_the_given_data_set_stays_as_it_is() -> None:
    image = sample("RLELossless")
    before = image.PixelData
    of_data_set(image, EXPLICIT)
    assert image.PixelData == before
    assert image.file_meta.TransferSyntaxUID == RLE


def test_offset_tables_go_with_the_frames_that_they_are_of() -> None:
    image = pydicom.dcmread(TEST_FILES / "SC_rgb_rle_2frame.dcm")
    before = image.pixel_array
    frames = list(generate_frames(image.PixelData, number_of_frames=2))
    data, offsets, lengths = encapsulate_extended(frames)
    image.PixelData, image.ExtendedOffsetTable = data, offsets
    image.ExtendedOffsetTableLengths = lengths
    image["PixelData"].is_undefined_length = True
    after = of_data_set(image, EXPLICIT)
    assert "ExtendedOffsetTable" not in after
    assert "ExtendedOffsetTableLengths" not in after
    assert np.array_equal(after.pixel_array, before)


IMAGE_ATTRIBUTES = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_an_encapsulated_icon_is_decompressed_too(implicit: bool, tmp_path: Path) -> None:
    """Some write implicit VRs where they must be explicit."""
    image = sample("RLELossless")
    icon = Dataset()
    for keyword in IMAGE_ATTRIBUTES:
        icon[keyword] = image[keyword]
    image.IconImageSequence = Sequence([icon])
    image["IconImageSequence"].is_undefined_length = False
    icon.is_undefined_length_sequence_item = False
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    write_dataset(buffer, image)
    path = tmp_path / "image.dcm"
    header = file_header(
        sop_class_uid=image.SOPClassUID,
        sop_instance_uid=image.SOPInstanceUID,
        transfer_syntax_uid=RLE,
    )
    path.write_bytes(header + buffer.getvalue())
    after = transcoded(dimse.Instance.from_file(path), EXPLICIT)
    inner = after.IconImageSequence[0]
    assert not inner["PixelData"].is_undefined_length
    assert inner.PixelData == after.PixelData


def test_a_native_icon_stays_as_it_is() -> None:
    image, icon = sample("RLELossless"), Dataset()
    icon.Rows = icon.Columns = 2
    icon.PixelData = b"\1\2\3\4"
    icon["PixelData"].VR = "OB"
    image.IconImageSequence = Sequence([icon])
    assert of_data_set(image, EXPLICIT).IconImageSequence[0].PixelData == b"\1\2\3\4"


def with_overlay_bits(image: Dataset) -> bytes:
    """Put an overlay into bits that the pixels do not use; the bytes of the pixels with it."""
    pixels = np.frombuffer(image.PixelData, "<u2").copy() & 0x0FFF
    pixels[::3] |= 0x8000
    image.BitsStored, image.HighBit, image.PixelRepresentation = 12, 11, 0
    image.add_new(0x6000_0100, "US", 16)
    image.add_new(0x6000_0102, "US", 15)
    image.add_new(0x6000_0010, "US", image.Rows)
    return pixels.tobytes()


def test_an_overlay_in_unused_bits_is_kept() -> None:
    image = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    image.PixelData = with_overlay_bits(image)
    encoder = pydicom.pixels.get_encoder(UID(RLE))
    before = image.PixelData
    image.PixelData = encapsulate(list(encoder.iter_encode(image)))
    image["PixelData"].is_undefined_length = True
    image.file_meta.TransferSyntaxUID = UID(RLE)
    assert of_data_set(image, EXPLICIT).PixelData == before


def test_an_overlay_that_compression_would_cut_off_is_no_loss_but_an_error() -> None:
    image = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    image.PixelData = with_overlay_bits(image)
    assert same(of_data_set(image, RLE), image)
    with pytest.raises(dimse.TranscodingError):
        of_data_set(image, JPEG_2000)


def test_a_data_set_without_pixels_stays_one() -> None:
    image = sample("RLELossless")
    del image.PixelData
    assert without_image(of_data_set(image, EXPLICIT)) == without_image(image)


def test_float_pixels_stay_what_they_are() -> None:
    image = sample("RLELossless")
    del image.PixelData
    image.FloatPixelData = np.arange(image.Rows * image.Columns, dtype="<f4").tobytes()
    assert of_data_set(image, EXPLICIT).FloatPixelData == image.FloatPixelData
    image.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    with pytest.raises(dimse.TranscodingError, match="float pixel data cannot be compressed"):
        of_data_set(image, RLE)


def test_big_endian_is_compressed_as_it_is() -> None:
    instance = dimse.Instance.from_file(TEST_FILES / "MR_small_bigendian.dcm")
    assert same(transcoded(instance, RLE), pydicom.dcmread(instance.path))


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
