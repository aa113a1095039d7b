"""Damaged compressed frames for the codecs that pydicom decodes with, each in a process of its own.

A codec is C, C++ or Rust that is given a peer's bytes. This counts what becomes of damaged frames:
decoded, refused, a crash of the interpreter, or no end within the time limit; and how long other
Python threads were kept from running. With ``--through checks`` the frames go to codecs as
`dimse_trio.transcoding` gives them, after its checks; with ``--through library`` they go all its
way, on which nothing may hang or crash. See README.rst.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import random
import resource
import sys
import threading
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pydicom
import trio
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
SAMPLES = {
    "baseline": "SC_rgb_jpeg_dcmtk.dcm",
    "extended": "JPGExtended.dcm",
    "lossless": "SC_rgb_jpeg_gdcm.dcm",
    "jls": "MR_small_jpeg_ls_lossless.dcm",
    "jls-near": "JPEGLSNearLossless_16.dcm",
    "jls-near-rgb": "SC_rgb_jls_lossy_line.dcm",
    "j2k": "MR_small_jp2klossless.dcm",
    "j2k-rgb": "SC_rgb_gdcm_KY.dcm",
    "rle": "MR_small_RLE.dcm",
    "rle-rgb": "SC_rgb_rle.dcm",
}
MADE = {"lossless-16": "1.2.840.10008.1.2.4.57", "htj2k": "1.2.840.10008.1.2.4.201"}
"""Samples that imagecodecs makes, if it is installed."""
EDGES = (0, 1, 2, 3, 4, 8, 0x10, 0x7F, 0x80, 0xFE, 0xFF)


def sample(name: str) -> Dataset:
    """One image of one frame."""
    if name in SAMPLES:
        return pydicom.dcmread(FILES / SAMPLES[name])
    import imagecodecs

    image = pydicom.dcmread(FILES / "MR_small.dcm")
    pixels = image.pixel_array.astype("<u2")
    encode = imagecodecs.ljpeg_encode if name == "lossless-16" else imagecodecs.htj2k_encode
    stream = encode(pixels) if name == "lossless-16" else encode(pixels, reversible=True)
    image.PixelRepresentation = 0
    image.file_meta.TransferSyntaxUID = UID(MADE[name])
    image.PixelData = encapsulate([bytes(stream)])
    image["PixelData"].is_undefined_length = True
    return image


# -- damage ----------------------------------------------------------------------------------------


def segments(frame: bytes) -> list[tuple[int, int]]:
    """Marker segments of a JPEG or JPEG 2000 stream up to the first scan or tile: begin and end."""
    found, at = [], 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        end = at + 2 + int.from_bytes(frame[at + 2 : at + 4])
        found.append((at, min(end, len(frame))))
        if frame[at + 1] in (0xDA, 0x90):
            break
        at = end
    return found


def edge(chance: random.Random) -> int:
    """A byte, most often one at the edge of something."""
    return chance.choice(EDGES) if chance.random() < 0.6 else chance.randrange(256)


def field(data: bytearray, chance: random.Random) -> None:
    """One byte or word in the header."""
    parts = segments(data)
    if not parts:  # RLE
        at = chance.randrange(64)
    else:
        begin, end = chance.choice(parts)
        at = chance.randrange(begin, min(end, begin + 24))
    for i in range(at, min(at + chance.choice((1, 2, 2, 4)), len(data))):
        data[i] = edge(chance)
        if chance.random() < 0.5:
            data[i] = 0


def body(data: bytearray, chance: random.Random) -> None:
    """Bytes of the coded image."""
    parts = segments(data)
    begin = parts[-1][1] if parts else 64
    if begin >= len(data) - 3:
        return
    for _ in range(chance.choice((1, 2, 8, 64))):
        data[chance.randrange(begin, len(data) - 2)] = edge(chance)


def marker(data: bytearray, chance: random.Random) -> None:
    """A marker where none belongs, with a length."""
    at = chance.randrange(2, len(data))
    code = chance.choice((0xC4, 0xD0, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xC0, 0xC3, 0xF7, 0xF8))
    new = bytes(
        (0xFF, code, 0, chance.choice((2, 3, 4, 6, 255)), *(edge(chance) for _ in range(4)))
    )
    if chance.random() < 0.5:
        data[at:at] = new
    else:
        data[at : at + len(new)] = new


def segment(data: bytearray, chance: random.Random) -> None:
    """A segment left out, or twice, or elsewhere."""
    parts = segments(data)
    if not parts:
        return
    begin, end = chance.choice(parts)
    part = data[begin:end]
    if chance.random() < 0.7:
        del data[begin:end]
    if chance.random() < 0.6:
        at = chance.choice(segments(data) or [(2, 2)])[0]
        data[at:at] = part


def cut(data: bytearray, chance: random.Random) -> None:
    """The middle or the end is missing, but the end of image is there."""
    at = chance.randrange(4, len(data))
    del data[at : at + chance.randint(1, len(data))]
    data += b"\xff\xd9"


def fill(data: bytearray, chance: random.Random) -> None:
    """A stretch of the same byte."""
    at = chance.randrange(2, len(data))
    length = min(chance.choice((4, 16, 256)), len(data) - at)
    data[at : at + length] = bytes([chance.choice((0, 0xFF, 0x7F))]) * length


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    field,
    field,
    field,
    body,
    body,
    marker,
    segment,
    cut,
    fill,
)


def damaged(whole: bytes, chance: random.Random) -> tuple[bytes, str]:
    """A frame with one to three damages, and their names."""
    data, names = bytearray(whole), []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if len(data) > 8:
            damage = chance.choice(DAMAGES)
            damage(data, chance)
            names.append(damage.__name__)
    if chance.random() < 0.7 and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        data += b"\xff\xd9"
    return bytes(data), "+".join(names)


# -- the process that decodes ----------------------------------------------------------------------


def serve(pipe: Connection) -> None:
    """Decode what comes, and answer with what became of it."""
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.CRITICAL)
    limit = 6 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    gaps = [0.0]

    def tick() -> None:
        last = time.monotonic()
        while True:
            time.sleep(0.001)
            now = time.monotonic()
            gaps[0] = max(gaps[0], now - last)
            last = now

    threading.Thread(target=tick, daemon=True).start()
    images: dict[str, Dataset] = {}
    while True:
        try:
            name, through, frame, size = pipe.recv()
        except EOFError:
            return
        image = images.setdefault(name, sample(name))
        copy = deepcopy(image)
        copy.PixelData = encapsulate([frame])
        copy["PixelData"].is_undefined_length = True
        if size is not None:
            copy.Rows, copy.Columns = size
        time.sleep(0.002)
        gaps[0] = 0.0
        began = time.monotonic()
        try:
            decode(copy, through)
        except BaseException as error:
            said = f"refused {type(error).__name__}"
        else:
            said = "decoded"
        took = time.monotonic() - began
        time.sleep(0.002)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pipe.send((said, took, gaps[0], peak))


def decode(image: Dataset, through: str) -> None:
    """Decode it in one of the ways."""
    if through in ("checks", "library"):
        from dimse_trio import codec_process
        from dimse_trio.transcoding import Transcoding

        syntax = str(image.file_meta.TransferSyntaxUID)
        way = Transcoding(str(image.SOPInstanceUID), syntax, str(ExplicitVRLittleEndian))
        if through == "checks":
            way.of(image)
        else:
            codec_process.QUIET = 2.5
            trio.run(way.run, image)
        return
    decoder = get_decoder(image.file_meta.TransferSyntaxUID)
    for _ in decoder.iter_array(image, decoding_plugin=through, as_rgb=False):
        pass


class Child:
    """A process to decode in, started anew when it has hung or died."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Any = None

    def ask(self, job: object, seconds: float) -> tuple[str, float, float, int]:
        if self._process is None:
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(target=serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            self.ask(WARM_UP, 60)
        self._pipe.send(job)
        if not self._pipe.poll(seconds):
            self.close()
            return "HANG", seconds, seconds, 0
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            said = f"CRASH {self._process.exitcode}"
            self.close()
            return said, 0.0, 0.0, 0

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


WARM_UP: tuple[str, str, bytes, None] = ("rle", "pydicom", b"\0" * 64, None)


def stream_size(frame: bytes) -> tuple[int, int] | None:
    """What the stream says of itself, to make a data set that agrees with it."""
    if frame.startswith(b"\xff\x4f\xff\x51"):
        w, h = int.from_bytes(frame[8:12]), int.from_bytes(frame[12:16])
        return (h, w) if max(w, h) < 65536 else None
    for begin, end in segments(frame):
        if end - begin >= 9 and (0xC0 <= frame[begin + 1] < 0xD0 or frame[begin + 1] == 0xF7):
            return int.from_bytes(frame[begin + 5 : begin + 7]), int.from_bytes(
                frame[begin + 7 : begin + 9]
            )
    return None


def main() -> int:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", nargs="*", help="all of them by default")
    parser.add_argument(
        "--through", default="plugins", help="plugins, checks, library, or one plugin"
    )
    parser.add_argument("--runs", type=int, default=300, help="of each sample and plugin")
    parser.add_argument("--seconds", type=float, default=3.0, help="until it counts as a hang")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for frames that hang or crash")
    options = parser.parse_args()
    names = options.samples or [*SAMPLES, *MADE]
    child, bad = Child(), 0
    for name in names:
        try:
            image = sample(name)
        except ImportError:
            print(f"{name}: imagecodecs is missing")
            continue
        (whole,) = generate_frames(image.PixelData, number_of_frames=1)
        ways = [options.through]
        if options.through == "plugins":
            ways = list(get_decoder(image.file_meta.TransferSyntaxUID).available_plugins)
        for through in ways:
            chance = random.Random(f"{options.seed} {name}")
            said, *_ = child.ask((name, through, whole, None), 60)
            if said != "decoded":
                print(f"{name} {through}: {said} before any damage", flush=True)
                continue
            count: collections.Counter[str] = collections.Counter()
            how: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
            longest = blocked = 0.0
            peak = 0
            for run in range(options.runs):
                frame, damages = damaged(whole, chance)
                size = stream_size(frame) if chance.random() < 0.5 else None
                said, took, gap, rss = child.ask((name, through, frame, size), options.seconds)
                kind = said.split()[0] if said.startswith("refused") else said
                count[kind] += 1
                longest, blocked, peak = max(longest, took), max(blocked, gap), max(peak, rss)
                if kind not in ("refused", "decoded"):
                    bad += 1
                    how[kind][damages] += 1
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        kept = options.keep / f"{name}-{through}-{kind.replace(' ', '')}-{run}"
                        kept.write_bytes(frame)
                        kept.with_suffix(".size").write_text(repr(size))
            bad_ones = {kind: dict(damages) for kind, damages in how.items()}
            print(
                f"{name} {through}: {dict(count)}; at most {longest:.2f} s, others held up for"
                f" {blocked:.2f} s, peak {peak >> 10} MiB; {bad_ones or ''}",
                flush=True,
            )
    child.close()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
