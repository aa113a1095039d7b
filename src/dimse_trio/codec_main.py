"""`python -m dimse_trio.codec_main`: what a codec's process runs. See `codec_process`.

It ends with its standard input, when a codec has refused something, and by itself where the process
that started it has gone and a codec comes to no end.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
from pathlib import Path
from typing import BinaryIO

from .codec_process import DATA, HEAD, JOB, PROGRESS, QUIET, REFUSED, Impossible, message
from .transcoding import recode


def main() -> None:
    """Do one job after the other."""
    _quiet()
    jobs, answers = _streams()
    with jobs, answers, Path(os.devnull).open("wb") as nowhere:

        def progress() -> None:
            _answer(answers, PROGRESS)
            # by a thread in C, which needs no leave of Python's; the one who asked comes first
            faulthandler.dump_traceback_later(QUIET + 5, exit=True, file=nowhere)

        fit = True
        while fit:
            _answer(answers, PROGRESS)  # ready
            if (job := _read(jobs, JOB)) is None or (data := _read(jobs, DATA)) is None:
                return
            try:
                progress()
                _answer(answers, DATA, recode(data, **json.loads(job), checkpoint=progress))
            except Impossible as error:
                fit = error.__cause__ is None  # else it was not our own checks that have refused
                said = {"why": str(error), "missing": error.missing, "fit": fit}
                _answer(answers, REFUSED, json.dumps(said).encode())
            faulthandler.cancel_dump_traceback_later()


def _quiet() -> None:
    """Leave ending to the one who started this, and leave no pixels behind in a core dump."""
    for name in ("SIGINT", "SIGTERM"):  # a service is sent these as a whole, and may yet finish
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # Linux: the first to go when there is no memory left
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def _streams() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output, and nothing in their places, as codecs print."""
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return jobs, answers


def _read(jobs: BinaryIO, expected: bytes) -> bytes | None:
    head = jobs.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    kind, length = HEAD.unpack(head)
    assert kind == expected
    body = jobs.read(length)
    return body if len(body) == length else None


def _answer(answers: BinaryIO, kind: bytes, body: bytes = b"") -> None:
    answers.write(message(kind, body))
    answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the one who asked has gone
        main()
