"""Watch an association: a log, a capture for Wireshark, and an instrument of one's own.

python capture.py HOST PORT AE-TITLE FILE.pcapng
"""

import logging
import sys

import trio

import dimse_trio as dimse
from dimse_trio.instruments import OperationEnd


class Slowest(dimse.Instrument):
    """Remembers the operation that took longest."""

    end: OperationEnd | None = None

    def operation_finished(self, end: OperationEnd, /) -> None:
        if self.end is None or end.duration > self.end.duration:
            self.end = end


async def main() -> None:
    host, port, ae_title, path = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    slowest = Slowest()
    with dimse.PcapngWriter(path) as capture:  # it holds patient data
        async with dimse.open_association(
            host,
            int(port),
            called_ae_title=ae_title,
            instruments=[dimse.LoggingInstrument(), capture, slowest],
        ) as assoc:
            await assoc.echo()
            studies = await assoc.find_studies(StudyDate="")
    print(f"{len(studies)} studies; tshark -r {path} -Y dicom shows how they came")
    if slowest.end is not None:
        print(f"{slowest.end.operation.name} took longest: {slowest.end.duration:.3f} s")


trio.run(main)
