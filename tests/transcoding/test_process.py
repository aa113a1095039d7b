"""Codecs run in a process of their own: what they do to it reaches no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import codec_process
from dimse_trio.codec_process import _Process
from dimse_trio.transcoding import Transcoding
from interop.samples import SAMPLES, TEST_FILES

from .images import EXPLICIT, endless, read, sample

JPEG_LS = dimse.uid_of("JPEGLSLossless")
WHOLE = TEST_FILES / SAMPLES["JPEGLSLossless"]


class Archive(dimse.EchoSCP):
    """Takes all, and has these to send."""

    def __init__(self, *items: Dataset | Path) -> None:
        self.items = items
        self.came = 0

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        await request.data_set()
        self.came += 1
        return dimse.Status.SUCCESS

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Dataset | Path]:
        for item in self.items:
            yield item


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[trio.Process]:
    """The processes that are started, in that order."""
    processes: list[trio.Process] = []
    start = _Process.started

    async def starting() -> _Process:
        process = await start()
        processes.append(process.process)
        return process

    monkeypatch.setattr(_Process, "started", starting)
    return processes


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_process, "_PROGRAM", "transcoding.unchecked")


def native_only() -> list[dimse.PresentationContext]:
    return [dimse.PresentationContext(str(sample("JPEGLSLossless").SOPClassUID), (EXPLICIT,))]


def way(image: Dataset) -> Transcoding:
    syntax = str(image.file_meta.TransferSyntaxUID)
    return Transcoding(str(image.SOPInstanceUID), syntax, EXPLICIT)


def is_gone(process: trio.Process) -> bool:
    """Whether it has ended and been waited for, so that nothing is left of it."""
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


# -- what is damaged -------------------------------------------------------------------------------


async def test_an_instance_that_would_hang_a_codec_is_refused_and_the_association_goes_on() -> None:
    archive = Archive()
    async with (
        dimse.open_server(archive, contexts=native_only()) as server,
        dimse.open_association("127.0.0.1", server.port, contexts=native_only()) as association,
    ):
        with pytest.raises(dimse.TranscodingError, match="does not say how many rows it has"):
            await association.store(endless(), on_mismatch="transcode")
        assert (await association.store(WHOLE, on_mismatch="transcode")).transcoded
    assert archive.came == 1


async def test_a_server_that_sends_such_an_instance_fails_it_alone(tmp_path: Path) -> None:
    archive = Archive(endless(), WHOLE)
    contexts = [*dimse.retrieve_contexts([]), *native_only()]
    contexts[-1] = dimse.PresentationContext(contexts[-1].abstract_syntax, (EXPLICIT,), scp=True)
    async with (
        dimse.open_server(archive, on_mismatch="transcode") as server,
        dimse.open_association("127.0.0.1", server.port, contexts=contexts) as association,
    ):
        what = dimse.query("STUDY", StudyInstanceUID="1.2.3")
        result = await association.get(what, save_to=tmp_path, check=False)
    assert (result.completed, result.failed) == (1, 1)
    assert result.failed_sop_instance_uids == (endless().SOPInstanceUID,)


@pytest.mark.usefixtures("unchecked")
async def test_a_codec_that_hangs_is_killed(
    started: list[trio.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec_process, "QUIET", 3.0)
    with pytest.raises(dimse.TranscodingError, match="come to no end in 3 s"):
        await way(endless()).run(endless())
    assert is_gone(started[0])
    whole = sample("JPEGLSLossless")
    after = read(bytes(await way(whole).run(whole)), EXPLICIT)
    assert np.array_equal(after.pixel_array, whole.pixel_array)
    assert len(started) == 2


@pytest.mark.usefixtures("unchecked")
async def test_while_a_codec_hangs_others_are_answered_and_cancelling_kills_it(
    started: list[trio.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    signs, begun = iter(("ready", "at work")), trio.Event()
    message = _Process._message

    async def watched(self: _Process) -> tuple[bytes, bytearray]:
        came = await message(self)
        if next(signs, "") == "at work":
            begun.set()
        return came

    monkeypatch.setattr(_Process, "_message", watched)
    async with (
        dimse.open_server(Archive()) as server,
        dimse.open_association("127.0.0.1", server.port, contexts=native_only()) as association,
    ):
        async with trio.open_nursery() as nursery:

            async def store() -> None:
                await association.store(endless(), on_mismatch="transcode")

            nursery.start_soon(store)
            await begun.wait()
            async with dimse.open_association("127.0.0.1", server.port) as other:
                assert (await other.echo()).status == 0
            assert started[0].poll() is None
            nursery.cancel_scope.cancel()
        assert is_gone(started[0])
        assert association.is_open
        assert (await association.store(WHOLE, on_mismatch="transcode")).transcoded


async def test_a_process_that_dies_costs_its_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(codec_process, "_PROGRAM", "transcoding.crashing")
    image = sample("JPEGLSLossless")
    with pytest.raises(dimse.TranscodingError, match=f"died with status -{signal.SIGABRT:d}"):
        await way(image).run(image)


# -- the processes ---------------------------------------------------------------------------------


async def test_a_process_does_one_instance_after_the_other(started: list[trio.Process]) -> None:
    for _ in range(3):
        for keyword in ("JPEGLSLossless", "RLELossless", "JPEGBaseline8Bit"):
            image = sample(keyword)
            await way(image).run(image)
    video = sample("JPEGLSLossless")
    video.file_meta.TransferSyntaxUID = dimse.uid_of("MPEG2MPML")
    with pytest.raises(dimse.TranscodingError, match="send it as it is"):
        await way(video).run(video)
    await way(image).run(image)
    assert len(started) == 1


async def test_a_process_in_which_a_codec_has_refused_something_is_not_used_again(
    started: list[trio.Process],
) -> None:
    image = sample("JPEGLSLossless")
    data = bytearray(image.PixelData)
    scan = data.index(b"\xff\xda")
    data[scan + 4] = 9  # so many components
    image.PixelData = bytes(data)
    with pytest.raises(dimse.TranscodingError):
        await way(image).run(image)
    assert is_gone(started[0])


async def test_a_process_that_was_killed_while_idle_is_replaced(
    started: list[trio.Process],
) -> None:
    image = sample("JPEGLSLossless")
    await way(image).run(image)
    started[0].kill()
    await started[0].wait()
    await way(image).run(image)
    assert len(started) == 2


async def test_a_process_that_is_not_used_ends(
    started: list[trio.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec_process, "KEPT", 0.1)
    image = sample("JPEGLSLossless")
    await way(image).run(image)
    await started[0].wait()
    await way(image).run(image)
    assert len(started) == 2


def test_no_process_outlives_the_run(started: list[trio.Process]) -> None:
    async def main() -> None:
        image = sample("JPEGLSLossless")
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(way(image).run, image)

    trio.run(main)
    assert 1 <= len(started) <= (os.cpu_count() or 1)
    assert all(map(is_gone, started))


async def test_a_clock_that_jumps_ends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    image = sample("JPEGLSLossless")
    after = read(bytes(await way(image).run(image)), EXPLICIT)
    assert np.array_equal(after.pixel_array, image.pixel_array)


def test_a_program_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import trio, pydicom\n"
        "from dimse_trio.transcoding import Transcoding\n"
        "print('once')\n"
        f"image = pydicom.dcmread({str(WHOLE)!r})\n"
        f"way = Transcoding('1.2.3', {JPEG_LS!r}, {EXPLICIT!r})\n"
        "print(len(trio.run(way.run, image)) > 0)\n",
        "utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["once", "True"]


async def test_a_frozen_program_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    image = sample("JPEGLSLossless")
    with pytest.raises(dimse.TranscodingError, match="Python interpreter"):
        await way(image).run(image)


async def test_without_a_process_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    image = sample("JPEGLSLossless")
    with pytest.raises(dimse.TranscodingError, match="no process can be started"):
        await way(image).run(image)
