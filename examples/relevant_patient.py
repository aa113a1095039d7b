"""Ask for relevant patient information, and answer for it: both sides in one program.

python relevant_patient.py
"""

from collections.abc import AsyncIterator

import trio
from pydicom import Dataset

import dimse_trio as dimse


class Reports:
    query_sop_classes = (dimse.relevant_patient_query("any")[0],)

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        if request.identifier.PatientID == "P1":
            report = Dataset()
            report.PatientID, report.PatientName = "P1", "Doe^Jane"
            report.ValueType, report.ContentSequence = "CONTAINER", []
            yield report


async def main() -> None:
    sop_class, _ = dimse.relevant_patient_query("P1")
    contexts = [dimse.PresentationContext(sop_class)]
    async with (
        dimse.open_server(Reports()) as server,
        dimse.open_association("127.0.0.1", server.port, contexts=contexts) as assoc,
    ):
        for report in await assoc.find_relevant_patient("P1"):
            print(report.PatientID, report.PatientName)


trio.run(main)
