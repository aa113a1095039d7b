"""Which studies are there of patients whose name begins so?

python find.py HOST PORT AE-TITLE NAME
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, name = sys.argv[1:]
    async with dimse.open_association(host, int(port), called_ae_title=ae_title) as assoc:
        for study in await assoc.find_studies(PatientName=f"{name}*", StudyDate="19900101-"):
            print(study.PatientName, study.StudyDate, study.StudyInstanceUID)


trio.run(main)
