"""Transcoding: the pixels that come out are those that went in, and are described as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

import dimse_trio as dimse
from dimse_trio.part10 import file_header
from dimse_trio.protocol.uids import NATIVE_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES
from dimse_trio.transcoding import ENCODERS
from interop.samples import TEST_FILES

from .images import EXPLICIT, JPEG_2000, RLE, of_data_set, sample, transcoded

BIG_ENDIAN = dimse.uid_of("ExplicitVRBigEndian")
JPEG = dimse.uid_of("JPEGBaseline8Bit")
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
