"""The whole of the client on one association.

python client.py HOST PORT AE-TITLE FILE DESTINATION FOLDER
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, file, destination, folder = sys.argv[1:]
    async with dimse.open_association(host, int(port), called_ae_title=ae_title) as assoc:
        print((await assoc.echo()).status)  # Success (0x0000)

        await assoc.store(file)  # a path, a pydicom Dataset, or an Instance

        studies = await assoc.find_studies(PatientName="*", StudyDate="20040101-")
        for study in studies:  # the whole answer
            print(study.PatientName, study.StudyInstanceUID)
        uid = studies[0].StudyInstanceUID

        with trio.move_on_after(10):  # a time-out is a C-CANCEL; the association lives on
            async with assoc.find(dimse.query("SERIES", StudyInstanceUID=uid)) as matches:
                async for match in matches:  # one at a time, with back-pressure
                    print(match.Modality, match.SeriesInstanceUID)

        query = dimse.query("STUDY", StudyInstanceUID=uid)
        moved = await assoc.move(query, destination=destination)
        print(f"moved {moved.completed}")
        got = await assoc.get(query, save_to=folder)
        print(f"got {got.completed}: {', '.join(path.name for path in got.files)}")


trio.run(main)
