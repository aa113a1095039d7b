"""What `make demo` runs: an archive, a workstation and the command line, as real processes.

Everything happens on free ports of this machine and in a temporary folder. The files are those that
pydicom's package carries. What comes back must be, byte for byte, what was sent.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom

import dimse_trio as dimse

Instances = dict[str, dimse.Instance]
"""Files by their SOP Instance UID."""

PROGRAM = [sys.executable, "-m", "dimse_trio"]
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
NAMES = (
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "JPEG2000.dcm",
    "JPEG-lossy.dcm",
    "examples_jpeg2k.dcm",
    "examples_rgb_color.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_small_odd.dcm",
    "image_dfl.dcm",
    "ExplVR_BigEnd.dcm",
    "liver_1frame.dcm",
    "waveform_ecg.dcm",
    "test-SR.dcm",
    "reportsi.dcm",
    "rtplan.dcm",
    "rtdose.dcm",
)
"""One each of what there is: modalities, transfer syntaxes, images and others."""
STUDY = "1.2.826.0.1.3680043.8.498.12406831542731051035295345080039845114"
"""A study of several instances, each in another transfer syntax."""


def step(title: str) -> None:
    """Say what comes next."""
    print(f"\n== {title}", flush=True)


def dimse_trio(folder: Path, *arguments: str) -> None:
    """Run one command of the command line in a folder; it must succeed."""
    print("$ dimse-trio", shlex.join(arguments), flush=True)
    subprocess.run([*PROGRAM, *arguments], cwd=folder, check=True, timeout=120)


@contextmanager
def listening(folder: Path, command: str, name: str, *arguments: str) -> Iterator[int]:
    """A listener in a process of its own, inside a block; its port."""
    port_file = folder / f"{name}.port"
    words = [command, name, "--port", "0", "--port-file", port_file.name, *arguments]
    print("$ dimse-trio", shlex.join(words), "&", flush=True)
    process = subprocess.Popen([*PROGRAM, *words], cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while not (port_file.is_file() and (port := port_file.read_text().strip())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dimse-trio {command} does not listen")
            time.sleep(0.05)
        yield int(port)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def data_set_of(instance: dimse.Instance) -> bytes:
    """The bytes of a file's data set; a deflated one is padded to even length (PS3.5 §A.5)."""
    data = instance.path.read_bytes()[instance.offset :]
    return data + b"\0" * (len(data) % 2)


def compare(folder: Path, sent: Instances) -> None:
    """See that a folder holds just these instances, each as it was sent."""
    received = [
        dimse.Instance.from_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix == ".dcm"
    ]
    if {instance.sop_instance_uid for instance in received} != sent.keys():
        raise RuntimeError(f"{folder.name}: {len(received)} instances, not the {len(sent)} sent")
    for instance in received:
        original = sent[instance.sop_instance_uid]
        syntax = dimse.uid_name(original.transfer_syntax_uid)
        if instance.transfer_syntax_uid != original.transfer_syntax_uid:
            raise RuntimeError(f"{original.path.name} was sent in {syntax}, and came in another")
        if data_set_of(instance) != data_set_of(original):
            raise RuntimeError(f"{original.path.name} is not as it was sent")
        print(f"   {original.path.name}: {original.length} bytes, {syntax}: as sent")


def main() -> None:
    """The demonstration from its first step to its last."""
    with tempfile.TemporaryDirectory(prefix="dimse-trio-demo-") as temporary:
        folder = Path(temporary)
        files = folder / "files"
        files.mkdir()
        copies = [shutil.copy(TEST_FILES / name, files) for name in NAMES]
        instances = [dimse.Instance.from_file(path) for path in copies]
        sent = {instance.sop_instance_uid: instance for instance in instances}
        studies: dict[str, Instances] = defaultdict(dict)
        for uid, instance in sent.items():
            header = pydicom.dcmread(instance.path, stop_before_pixels=True)
            studies[header.StudyInstanceUID][uid] = instance
        step("A workstation, and an archive that knows it")
        with (
            listening(folder, "receive", "workstation", "--aet", "WORKSTATION") as destination,
            listening(
                folder,
                "archive",
                "archive",
                "--aet=ARCHIVE",
                f"--peer=WORKSTATION=127.0.0.1:{destination}",
            ) as port,
        ):
            converse(folder, f"127.0.0.1:{port}", studies)
    print("\nAll of it came back as it was sent.")


def converse(folder: Path, archive: str, studies: dict[str, Instances]) -> None:
    """What a client does with the archive."""

    def ask(command: str, *arguments: str) -> None:
        dimse_trio(folder, command, archive, "--aec=ARCHIVE", *arguments)

    step("C-ECHO: does it answer?")
    ask("echo")
    step(f"C-STORE: send it {sum(map(len, studies.values()))} instances of {len(studies)} studies")
    ask("store", "files")
    step("C-FIND: what does it have now?")
    ask("find", "--level=study", "-k", "PatientName=*")
    step("C-MOVE: have it send one study to the workstation")
    ask("move", "--level=study", "-k", f"StudyInstanceUID={STUDY}", "--destination=WORKSTATION")
    compare(folder / "workstation", studies[STUDY])
    step("C-GET: fetch the same study into a folder")
    ask("get", "--level=study", "-k", f"StudyInstanceUID={STUDY}", "--output=fetched")
    compare(folder / "fetched", studies[STUDY])
    step("C-GET: and all the others")
    others = [uid for uid in studies if uid != STUDY]
    uids = "\\".join(others)
    ask("get", "--level=study", "-k", f"StudyInstanceUID={uids}", "--output=others")
    compare(folder / "others", {u: i for study in others for u, i in studies[study].items()})


if __name__ == "__main__":
    main()
