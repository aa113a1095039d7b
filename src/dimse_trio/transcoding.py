"""Compressed pixel data to native and native to losslessly compressed, by pydicom and its plugins.

What comes out is checked here, whatever the plugins do: as many frames as the header says, streams
that are whole, values that fit their container, and after compression the very same pixels. What
does not pass is an error; a data set never leaves without its pixels (PS3.5 §8.2, §A.4).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import attrs

from . import datasets
from .codec_process import Impossible, run_codec
from .errors import DataSetError
from .part10 import Instance
from .protocol.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    NATIVE_TRANSFER_SYNTAXES,
    uid_name,
    uid_of,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_JPEG, _J2K = "pylibjpeg pylibjpeg-libjpeg", "pylibjpeg pylibjpeg-openjpeg"
DECODERS: dict[str, str] = {
    uid_of(keyword): packages
    for packages, keywords in {
        _JPEG: "JPEGBaseline8Bit JPEGExtended12Bit JPEGLossless JPEGLosslessSV1 JPEGLSLossless"
        " JPEGLSNearLossless",
        _J2K: "JPEG2000Lossless JPEG2000 HTJ2KLossless HTJ2KLosslessRPCL HTJ2K",
        "numpy": "RLELossless",
    }.items()
    for keyword in keywords.split()
}
"""Transfer syntaxes that can be decompressed, and packages that can do it."""
ENCODERS: dict[str, str] = {
    uid_of("RLELossless"): "numpy",
    uid_of("JPEGLSLossless"): f"pyjpegls {_JPEG}",
    uid_of("JPEG2000Lossless"): _J2K,
}
"""Transfer syntaxes that can be compressed to, the one that takes least first, and packages that
can do it. All are lossless."""

_RLE = uid_of("RLELossless")
_JPEG_2000 = frozenset(uid for uid, packages in DECODERS.items() if packages == _J2K)
_JPEG_LOSSLESS = frozenset(map(uid_of, ("JPEGLossless", "JPEGLosslessSV1")))
_LOSSY_JPEG = frozenset(map(uid_of, ("JPEGBaseline8Bit", "JPEGExtended12Bit")))

_PLUGINS = ("pyjpegls", "pylibjpeg", "pillow", "pydicom", "gdcm")
"""pydicom's plugins, the one that best refuses what is damaged first. What one has refused no other
is given, though pydicom would."""
_PIXEL_DATA = 0x7FE0_0010
_FLOAT_PIXEL_DATA = (0x7FE0_0008, 0x7FE0_0009)
_OFFSET_TABLES = (0x7FE0_0001, 0x7FE0_0002, 0x7FE0_0003)
_PIXEL_DATA_PROVIDER_URL = 0x0028_7FE0
_PANIC = "pyo3_runtime"
"""Where the exceptions are from that plugins in Rust end with, which are no `Exception`s."""
_OVERLAYS = range(0x6000, 0x6020, 2)
_END_OF_IMAGE = b"\xff\xd9"
_JPEG_2000_START = b"\xff\x4f\xff\x51"
_JP2_BOXES = 1 << 16
"""In how many bytes a file header may stand before a JPEG 2000 stream, which should have none."""
_START_OF_FRAME = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_MAX_LENGTH = (1 << 32) - 2
"""Longest value that is not of undefined length, in bytes (PS3.5 §7.1)."""

_EXTRA = "pip install 'dimse-trio[transcode]' ('.[transcode]' in a clone)"

Checkpoint = Callable[[], None]


class TranscodingError(DataSetError):
    """An instance cannot be had in another transfer syntax with every pixel as it is.

    Attributes:
        sop_instance_uid: Which instance.
        transfer_syntax_uid: What it is in.
        target_uid: What it should have become; empty where the peer has accepted nothing that an
            instance may be transcoded to.
        missing: The packages to install, if that is what is missing.
    """

    def __init__(
        self,
        why: str,
        *,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        target_uid: str = "",
        missing: str = "",
    ) -> None:
        self.sop_instance_uid = sop_instance_uid
        self.transfer_syntax_uid = transfer_syntax_uid
        self.target_uid = target_uid
        self.missing = missing
        to = f" to {uid_name(target_uid)}" if target_uid else ""
        advice = f"; {_EXTRA}, or {missing}" if missing else ""
        super().__init__(
            f"cannot transcode {sop_instance_uid} from {uid_name(transfer_syntax_uid)}{to}:"
            f" {why}{advice}"
        )


@attrs.frozen
class Transcoding:
    """One instance's way from one transfer syntax to another."""

    sop_instance_uid: str
    transfer_syntax_uid: str
    target_uid: str

    async def run(self, item: Instance | Dataset) -> bytes | bytearray:
        """The data set in the target transfer syntax; the work is done in a process of its own.

        Cancelled, it kills that process. At a time, as many run as there are processors.

        Raises:
            TranscodingError: It cannot be done.
            DataSetError, InvalidFile, OSError: The instance cannot be read.
        """
        job = {"source": self.transfer_syntax_uid, "target": self.target_uid}
        try:
            return await run_codec(job, functools.partial(self._read, item))
        except Impossible as error:
            raise self._error(str(error), error.missing) from error.__cause__

    def of(self, item: Instance | Dataset, checkpoint: Checkpoint = lambda: None) -> bytes:
        """The same, here and now. `checkpoint` is called between frames, and may raise."""
        data = self._read(item)
        try:
            return recode(data, self.transfer_syntax_uid, self.target_uid, checkpoint)
        except Impossible as error:
            raise self._error(str(error), error.missing) from error.__cause__

    def _read(self, item: Instance | Dataset) -> bytes:
        if not isinstance(item, Instance):  # so that the caller's own stays as it is
            return datasets.encode(item, self.transfer_syntax_uid)
        with item.path.open("rb") as file:
            now = Instance.from_open_file(file, item.path)  # it may have been replaced
            if now.transfer_syntax_uid != self.transfer_syntax_uid:
                raise self._error(f"it is in {uid_name(now.transfer_syntax_uid)} by now")
            file.seek(now.offset)
            return file.read()

    def _error(self, why: str, missing: str = "") -> TranscodingError:
        return TranscodingError(
            why,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            target_uid=self.target_uid,
            missing=missing,
        )


def recode(data: bytes, source: str, target: str, checkpoint: Checkpoint = lambda: None) -> bytes:
    """A data set in another transfer syntax. `checkpoint` is called between frames, and may raise.

    Raises:
        Impossible: It cannot be done. If it has a cause, that is what a codec or pydicom raised.
    """
    try:
        data_set = datasets.decode_whole(data, source)
        _transcode(data_set, source, target, checkpoint)
        return datasets.encode(data_set, target)
    except DataSetError as error:
        raise Impossible(str(error)) from None
    except Impossible:
        raise
    except BaseException as error:  # pydicom and its plugins raise whatever they meet
        if not isinstance(error, Exception) and type(error).__module__ != _PANIC:
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise Impossible(said) from error


def _transcode(data_set: Dataset, source: str, target: str, checkpoint: Checkpoint) -> None:
    if source not in NATIVE_TRANSFER_SYNTAXES and source not in DECODERS:
        raise Impossible("its pixel data cannot be decompressed; send it as it is")
    if target not in NATIVE_TRANSFER_SYNTAXES and target not in ENCODERS:
        raise Impossible("nothing is compressed to that, and never with loss")
    if _PIXEL_DATA_PROVIDER_URL in data_set and _PIXEL_DATA not in data_set:
        raise Impossible("its pixel data are elsewhere, at a URL")
    if any(data_set[tag].is_undefined_length for tag in _FLOAT_PIXEL_DATA if tag in data_set):
        raise Impossible("its float pixel data are encapsulated")
    if source not in NATIVE_TRANSFER_SYNTAXES:
        if _PIXEL_DATA in data_set and not data_set[_PIXEL_DATA].is_undefined_length:
            raise Impossible("its pixel data are native, whatever its transfer syntax says")
        for image in _images(data_set):
            if image[_PIXEL_DATA].is_undefined_length:
                _decompress(image, source, checkpoint)
        if source in _LOSSY_JPEG and _PIXEL_DATA in data_set:
            _mark_as_lossy(data_set)
    elif any(image[_PIXEL_DATA].is_undefined_length for image in _images(data_set)):
        raise Impossible("its pixel data are encapsulated, whatever its transfer syntax says")
    if (source == EXPLICIT_VR_BIG_ENDIAN) != (target == EXPLICIT_VR_BIG_ENDIAN):
        if _PIXEL_DATA in data_set and data_set.BitsAllocated > 16:
            raise Impossible("which end of such long pixels comes first is read in two ways")
        datasets.swap_words(data_set)
    if target not in NATIVE_TRANSFER_SYNTAXES:
        if any(tag in data_set for tag in _FLOAT_PIXEL_DATA):
            raise Impossible("float pixel data cannot be compressed")
        if _PIXEL_DATA in data_set:
            _compress(data_set, target, checkpoint)


def _images(data_set: Dataset) -> Iterator[Dataset]:
    """The data set and the items in it, such as icons, that have pixel data.

    With explicit VRs, elements other than sequences are left as they are, undecoded.
    """
    if _PIXEL_DATA in data_set:
        yield data_set
    for tag in list(data_set.keys()):
        if data_set.get_item(tag).VR in ("SQ", None) and data_set[tag].VR == "SQ":
            for item in cast("list[Dataset]", data_set[tag].value):
                yield from _images(item)


# -- decompression ---------------------------------------------------------------------------------


def _decompress(image: Dataset, syntax: str, checkpoint: Checkpoint) -> None:
    """Make pixel data native, and their description what they then are (PS3.3 §C.7.6.3)."""
    allocated, expected = int(image.BitsAllocated), _frames(image)
    if allocated not in (8, 16, 32, 64):
        raise Impossible(f"compressed pixels of {allocated} bits allocated are not read")
    size = int(image.Rows) * int(image.Columns) * int(image.SamplesPerPixel) * allocated // 8
    if size * expected > _MAX_LENGTH:
        raise Impossible(f"uncompressed it would have {size * expected} bytes, which is too long")
    _check_streams(image, syntax, expected)
    signed = bool(image.get("PixelRepresentation", 0))
    frames: list[bytes] = []
    described: dict[str, Any] = {}
    for array, described in _decoded(  # noqa: B007 - the last one counts
        image,
        syntax,
        # Of JPEG with loss, YCbCr is how the codec keeps colours; of all others it is what the
        # pixels are, and a conversion would round them
        as_rgb=syntax in _LOSSY_JPEG,
        # the sign, which this codec leaves out; but overlays in unused bits stay
        correct_unused_bits=signed
        and syntax in _JPEG_LOSSLESS
        and not _has_embedded_overlay(image),
    ):
        checkpoint()
        if array.dtype.itemsize * 8 > allocated:
            raise Impossible(f"its pixels are longer than the {allocated} bits allocated for them")
        frames.append(array.astype(f"<{array.dtype.kind}{allocated // 8}", copy=False).tobytes())
        if len(frames[-1]) != size:
            raise Impossible(f"frame {len(frames)} has {len(frames[-1])} bytes instead of {size}")
    if len(frames) != expected:
        raise Impossible(f"it has {len(frames)} frames instead of {expected}")
    if size * expected % 2:
        frames.append(b"\0")
    element = image[_PIXEL_DATA]
    element.value = frames[0] if len(frames) == 1 else b"".join(frames)
    element.VR = "OB" if allocated == 8 else "OW"
    element.is_undefined_length = False
    for tag in _OFFSET_TABLES:
        if tag in image:
            del image[tag]
    if image.SamplesPerPixel > 1:
        image.PlanarConfiguration = 0
        interpretation = str(described["photometric_interpretation"])
        # a decoder gives as many Cb and Cr as Y
        interpretation = interpretation.replace("YBR_FULL_422", "YBR_FULL")
        if interpretation.startswith("YBR") and interpretation != "YBR_FULL":
            raise Impossible(f"its colours would be {interpretation}, which is for compression")
        image.PhotometricInterpretation = interpretation


def _frames(image: Dataset) -> int:
    frames = int(image.get("NumberOfFrames") or 1)
    if frames < 1:
        raise Impossible(f"its number of frames is {frames}")
    return frames


def _decoded(image: Dataset, syntax: str, **options: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The frames of an image, each as pydicom decodes it, with what it then is."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    decoder = get_decoder(UID(syntax))
    packages = DECODERS.get(syntax, "numpy")
    if not decoder.is_available:
        raise Impossible("there is no decoder for it", packages)
    plugins = decoder.available_plugins
    plugin = next((plugin for plugin in _PLUGINS if plugin in plugins), "")
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(syntax)
    try:
        yield from decoder.iter_array(image, decoding_plugin=plugin, **options)
    except ImportError as error:
        raise Impossible(str(error), packages) from error
    finally:
        del image.file_meta


def _check_streams(image: Dataset, syntax: str, expected: int) -> None:
    """See that there are as many frames as there should be, and that none is cut off.

    Some decoders make up what is missing. All codecs but RLE end with the same marker.
    """
    from pydicom.encaps import generate_frames

    tables: tuple[bytes, bytes] | None = None
    if "ExtendedOffsetTable" in image and "ExtendedOffsetTableLengths" in image:
        tables = image.ExtendedOffsetTable, image.ExtendedOffsetTableLengths
    number = 0
    for frame in generate_frames(
        image.PixelData, number_of_frames=expected, extended_offsets=tables
    ):
        number += 1
        if syntax != _RLE and not frame.rstrip(b"\0\xff").endswith(_END_OF_IMAGE):
            raise Impossible(f"the stream of frame {number} is cut off")
        if syntax != _RLE:
            _check_header(image, syntax, frame, number)
    if number != expected:
        raise Impossible(f"it has {number} frames instead of {expected}")


def _check_header(image: Dataset, syntax: str, frame: bytes, number: int) -> None:
    """See that the header of a stream says what the data set says.

    So that no decoder makes room for more than the image has, or looks for an end that is not
    there.
    """
    header = (_jpeg_2000_header if syntax in _JPEG_2000 else _jpeg_header)(frame)
    if header is None:
        raise Impossible(f"the stream of frame {number} has no header")
    rows, columns, samples, bits = header
    if not rows:
        raise Impossible(f"the stream of frame {number} does not say how many rows it has")
    if (rows, columns) != (image.Rows, image.Columns):
        raise Impossible(f"frame {number} has {rows} rows and {columns} columns")
    if samples != image.SamplesPerPixel:
        raise Impossible(f"frame {number} has {samples} samples per pixel")
    if bits > image.BitsAllocated:
        raise Impossible(f"frame {number} has {bits} bits for each sample")


def _jpeg_header(frame: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, samples per pixel and bits of each (ITU-T T.81 §B.2.2, T.87 §C.2.2).

    No rows are those that are defined behind the first scan (§B.2.5), which codecs look for without
    end or do not read as they should. `None` where there is no frame header.
    """
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker, length = frame[position + 1], int.from_bytes(frame[position + 2 : position + 4])
        if marker in _START_OF_FRAME:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 4)
            return rows, columns, samples, bits
        # markers may be preceded by any number of these
        position += 1 if marker == 0xFF else 2 + length
    return None


def _jpeg_2000_header(frame: bytes) -> tuple[int, int, int, int] | None:
    """The same of JPEG 2000, bits as the first component has them (ITU-T T.800 §A.5.1)."""
    start = frame.find(_JPEG_2000_START, 0, _JP2_BOXES)
    if start < 0 or start + 43 > len(frame):
        return None
    width, height, left, top = struct.unpack_from(">4L", frame, start + 8)
    samples, bits = struct.unpack_from(">HB", frame, start + 40)
    return height - top, width - left, samples, (bits & 0x7F) + 1


def _has_embedded_overlay(image: Dataset) -> bool:
    """Whether an overlay is in bits of the pixels (retired, PS3.3 2004 §C.9.2)."""
    return any((group, 0x0010) in image and (group, 0x3000) not in image for group in _OVERLAYS)


def _mark_as_lossy(data_set: Dataset) -> None:
    """Lossy Image Compression where only the transfer syntax said so (PS3.3 §C.7.6.1.1.5)."""
    if not data_set.get("LossyImageCompression"):
        data_set.LossyImageCompression = "01"


# -- compression -----------------------------------------------------------------------------------


def _compress(image: Dataset, syntax: str, checkpoint: Checkpoint) -> None:
    """Compress an image's native little endian pixel data, and see that they come out the same."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.encoders.base import get_encoder
    from pydicom.uid import UID

    encoder = get_encoder(UID(syntax))
    if not encoder.is_available:
        raise Impossible("there is no encoder for it", ENCODERS[syntax])
    unchanged = {"as_rgb": False, "correct_unused_bits": False}
    before = [array for array, _ in _decoded(image, EXPLICIT_VR_LITTLE_ENDIAN, **unchanged)]
    element = image[_PIXEL_DATA]
    if image.SamplesPerPixel > 1 and image.PlanarConfiguration:
        element.value = b"".join(array.tobytes() for array in before)
        image.PlanarConfiguration = 0  # as these arrays are, and what encoders take
    frames: list[bytes] = []
    for frame in encoder.iter_encode(image):
        checkpoint()
        frames.append(bytes(frame))
    element.value = encapsulate(frames)
    element.VR = "OB"
    element.is_undefined_length = True
    count = 0
    for count, (array, _) in enumerate(_decoded(image, syntax, **unchanged), 1):
        checkpoint()
        same = count <= len(before) and array.shape == before[count - 1].shape
        if not same or not (array == before[count - 1]).all():
            raise Impossible("its pixels would not come out the same")
    if count != len(before) or count != _frames(image):
        raise Impossible(f"it would have {count} frames instead of {_frames(image)}")
