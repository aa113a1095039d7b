"""An archive that is killed while it stores: what it said it has, it has, and nothing by halves.

`python tests/soak/kill.py --rounds 200` starts `dimse-trio archive` on one folder again and again.
Each time several associations store instances into it, until SIGKILL at a random moment, now and
then before it even listens. After every restart, before the next kill:

* each instance of the last round that was answered with 0000H is found by C-FIND at IMAGE level,
  and lies in the folder with the data set that was sent, byte for byte;
* one of them, picked at random, comes back by C-GET, byte for byte;
* every `*.dcm` in the folder is whole, answered for or not, and C-FIND finds nothing but those.

At the end the same for all rounds. Exit status 1 if anything was not so.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio
from pydicom import Dataset
from pydicom.uid import UID

import dimse_trio as dimse
from dimse_trio import datasets

CT = dimse.uid_of("CTImageStorage")
EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")
CONTEXTS = [
    dimse.PresentationContext(dimse.uid_of("StudyRootQueryRetrieveInformationModelFind")),
    dimse.PresentationContext(dimse.uid_of("StudyRootQueryRetrieveInformationModelGet")),
    dimse.PresentationContext(CT, (EXPLICIT,), scp=True),
]
STUDY = "2.25.1789"
START_LIMIT = 60.0
TIMEOUTS = dimse.Timeouts(network=20, response=20, release=5, linger=0.2)


def digest_of(path: Path) -> tuple[str, str]:
    """SOP Instance UID and digest of the data set of a DICOM file."""
    instance = dimse.Instance.from_file(path)
    data = path.read_bytes()[instance.offset :]
    return instance.sop_instance_uid, hashlib.sha256(data).hexdigest()


@attrs.define
class Trial:
    """The archive's folder, and what was sent to it and answered."""

    folder: Path
    scratch: Path
    pick: random.Random
    sent: dict[str, str] = attrs.field(factory=dict[str, str])
    """Digest of each data set, by SOP Instance UID."""
    kept: dict[int, list[str]] = attrs.field(factory=dict[int, list[str]])
    """SOP Instance UIDs that were answered with success, by round."""
    known: dict[Path, tuple[str, int, int, int]] = attrs.field(
        factory=dict[Path, tuple[str, int, int, int]]
    )
    """Files that were found whole: SOP Instance UID, and what `stat` said of them."""
    counts: Counter[str] = attrs.field(factory=Counter[str])
    wrong: list[str] = attrs.field(factory=list[str])

    def series(self, number: int) -> str:
        return f"{STUDY}.{number}"

    # -- the process -------------------------------------------------------------------------------

    @asynccontextmanager
    async def archive(self) -> AsyncGenerator[tuple[int, trio.Process]]:
        """The archive in a process of its own, which is killed at the end."""
        port_file = self.scratch / "port"
        port_file.unlink(missing_ok=True)
        start = time.perf_counter()
        process = await self.start(port_file)
        try:
            with trio.fail_after(START_LIMIT):
                while not port_file.exists():
                    if process.poll() is not None:
                        raise RuntimeError(f"the archive ended with {process.returncode}")
                    await trio.sleep(0.01)
            self.counts["starts"] += 1
            self.counts["milliseconds to start"] += int(1000 * (time.perf_counter() - start))
            yield int(port_file.read_text(encoding="ascii")), process
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def start(self, port_file: Path) -> trio.Process:
        command = [sys.executable, "-m", "dimse_trio", "archive", str(self.folder)]
        command += ["--port", "0", "--port-file", str(port_file), "--aet", "KILL"]
        return await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL)

    def associated(self, port: int) -> AbstractAsyncContextManager[dimse.Association]:
        return dimse.open_association(
            "127.0.0.1", port, called_ae_title="KILL", contexts=CONTEXTS, timeouts=TIMEOUTS
        )

    # -- storing -----------------------------------------------------------------------------------

    def instance(self, number: int, uid: str) -> Dataset:
        """An instance of a round; most are small, some take many PDUs."""
        data_set = Dataset()
        data_set.SOPClassUID, data_set.SOPInstanceUID = UID(CT), UID(uid)
        data_set.PatientID, data_set.PatientName = f"KILL{number % 7}", "Kill^Test"
        data_set.StudyInstanceUID = UID(STUDY)
        data_set.SeriesInstanceUID = UID(self.series(number))
        size = 2 * self.pick.choice([500, 5_000, 50_000, 1_000_000])
        data_set.add_new("PixelData", "OW", self.pick.randbytes(size))
        return data_set

    async def store(self, number: int, worker: int, port: int) -> None:
        """Store until the archive is gone; some instances are sent a second time."""
        again: Dataset | None = None
        count = 0
        try:
            async with self.associated(port) as association:
                while True:
                    count += 1
                    data_set = again
                    again = None
                    if data_set is None:
                        data_set = self.instance(number, f"{self.series(number)}.{worker}.{count}")
                        data = datasets.encode(data_set, EXPLICIT)
                        uid = str(data_set.SOPInstanceUID)
                        self.sent[uid] = hashlib.sha256(data).hexdigest()
                        if self.pick.random() < 0.1:
                            again = data_set
                    response = await association.store(data_set)
                    if response.status == dimse.Status.SUCCESS:
                        self.kept.setdefault(number, []).append(str(data_set.SOPInstanceUID))
        except (dimse.AssociationError, OSError):
            pass

    async def round(self, number: int, workers: int, longest: float) -> None:
        """Start, check what the last round left, store, kill."""
        if self.pick.random() < 0.1:
            process = await self.start(self.scratch / "no-port")
            await trio.sleep(self.pick.random())
            process.kill()
            await process.wait()
            self.counts["killed while starting"] += 1
        async with self.archive() as (port, process):
            if number:
                await self.check(port, number - 1)
            async with trio.open_nursery() as nursery:
                for worker in range(workers):
                    nursery.start_soon(self.store, number, worker, port)
                await trio.sleep(self.pick.random() * longest)
                process.kill()
        self.counts["killed while storing"] += 1

    # -- checking ----------------------------------------------------------------------------------

    async def check(self, port: int, number: int) -> None:
        """What a round was told is true."""
        whole = self.whole_files()
        kept = set(self.kept.get(number, ()))
        for uid in kept - whole:
            self.wrong.append(f"round {number}: {uid} was answered with success and has no file")
        async with self.associated(port) as association:
            query = dimse.query(
                "IMAGE", StudyInstanceUID=STUDY, SeriesInstanceUID=self.series(number)
            )
            found = {str(match.SOPInstanceUID) for match in await association.find(query)}
            for uid in kept - found:
                self.wrong.append(f"round {number}: {uid} was answered with success, is not found")
            for uid in found - whole:
                self.wrong.append(f"round {number}: {uid} is found and has no whole file")
            if kept:
                await self.fetch(association, number, self.pick.choice(sorted(kept)))
        self.counts["instances answered with success"] += len(kept)
        self.counts["instances found beyond those"] += len(found - kept)

    async def fetch(self, association: dimse.Association, number: int, uid: str) -> None:
        """One instance comes back as it was sent."""
        query = dimse.query(
            "IMAGE",
            StudyInstanceUID=STUDY,
            SeriesInstanceUID=self.series(number),
            SOPInstanceUID=uid,
        )
        try:
            result = await association.get(query, save_to=self.scratch)
        except dimse.StatusError as error:
            self.wrong.append(f"round {number}: C-GET of {uid}: {error}")
            return
        if len(result.files) != 1:
            self.wrong.append(f"round {number}: C-GET of {uid} gave {len(result.files)} files")
        for path in result.files:
            if digest_of(path) != (uid, self.sent[uid]):
                self.wrong.append(f"round {number}: {uid} came back otherwise than it was sent")
            path.unlink()

    def whole_files(self) -> set[str]:
        """The SOP Instance UIDs of all files, which must be as they were sent."""
        uids: set[str] = set()
        for path in sorted(self.folder.rglob("*.dcm")):
            status = path.stat()
            seen = status.st_ino, status.st_size, status.st_mtime_ns
            if self.known.get(path, ("",))[1:] != seen:
                try:
                    uid, digest = digest_of(path)
                except (OSError, dimse.DimseError) as error:
                    self.wrong.append(f"{path.name} is not whole: {error}")
                    continue
                if self.sent.get(uid) != digest:
                    self.wrong.append(f"{path.name} is not what was sent")
                    continue
                self.known[path] = (uid, *seen)
            uids.add(self.known[path][0])
        return uids


async def trial(rounds: int, workers: int, longest: float, seed: int) -> int:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder, scratch = Path(name) / "archive", Path(name) / "scratch"
        folder.mkdir()
        scratch.mkdir()
        run = Trial(folder, scratch, random.Random(seed))
        for number in range(rounds):
            await run.round(number, workers, longest)
            if sys.stdout.isatty() or number % 20 == 19:
                print(f"{number + 1} rounds, {len(run.wrong)} faults", flush=True)
        async with run.archive() as (port, _):
            await run.check(port, rounds - 1)
            run.known.clear()
            run.counts["files at the end, all whole"] = len(run.whole_files())
            for number in range(rounds):
                async with run.associated(port) as association:
                    query = dimse.query(
                        "IMAGE", StudyInstanceUID=STUDY, SeriesInstanceUID=run.series(number)
                    )
                    found = {str(match.SOPInstanceUID) for match in await association.find(query)}
                for uid in set(run.kept.get(number, ())) - found:
                    run.wrong.append(f"at the end: {uid} of round {number} is not found")
        run.counts["left in hidden files, bytes"] = sum(
            path.stat().st_size for path in folder.rglob("*") if ".part" in path.name
        )
    run.counts["milliseconds to start"] //= run.counts["starts"]
    for what, count in run.counts.items():
        print(f"{count:8} {what}")
    for text in run.wrong[:20]:
        print("WRONG", text)
    verdict = "FAILED" if run.wrong else "ok"
    seconds = time.perf_counter() - start
    print(f"{rounds} rounds in {seconds:.0f} s: {len(run.wrong)} faults, {verdict}")
    return int(bool(run.wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--associations", type=int, default=3, help="that store at once")
    parser.add_argument("--longest", type=float, default=0.8, help="seconds of storing in a round")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2), "big"))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    return trio.run(
        trial, arguments.rounds, arguments.associations, arguments.longest, arguments.seed
    )


if __name__ == "__main__":
    sys.exit(main())
