"""pynetdicom's SCP, with its own defaults where they let it do the same. Ends with its stdin."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt

from benchmarks.data import MATCHES, match
from benchmarks.processes import HOST

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sink", type=Path)
    parser.add_argument("--files", type=Path)
    arguments = parser.parse_args()
    files = sorted(arguments.files.iterdir()) if arguments.files else []
    matches = [match(number) for number in range(1, MATCHES + 1)]

    def store(event: Any) -> int:
        if arguments.sink:
            name = f"{event.request.AffectedSOPInstanceUID}.dcm"
            (arguments.sink / name).write_bytes(event.encoded_dataset())
        return 0x0000

    def find(event: Any) -> Iterator[tuple[int, Dataset]]:
        for found in islice(cycle(matches), int(event.identifier.PatientID)):
            yield 0xFF00, found

    def get(event: Any) -> Iterator[Any]:
        count = int(event.identifier.StudyInstanceUID.rpartition(".")[2])
        yield count
        for file in files[:count]:
            yield 0xFF00, dcmread(file)

    ae = AE()
    ae.maximum_associations = 2000
    for service in (VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_GET):
        ae.add_supported_context(service)
    ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    server = ae.start_server(
        (HOST, 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find), (evt.EVT_C_GET, get)],
    )
    assert server is not None
    print(json.dumps({"port": server.socket.getsockname()[1]}), flush=True)
    sys.stdin.read()
    ae.shutdown()


if __name__ == "__main__":
    main()
