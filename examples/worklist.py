"""What is a scanner to do today?

python worklist.py HOST PORT AE-TITLE SCANNER
"""

import datetime as dt
import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, scanner = sys.argv[1:]
    async with dimse.open_association(host, int(port), called_ae_title=ae_title) as assoc:
        today = dt.date.today()
        for item in await assoc.find_worklist(
            ScheduledStationAETitle=scanner, ScheduledProcedureStepStartDate=today
        ):
            step = item.ScheduledProcedureStepSequence[0]
            print(step.ScheduledProcedureStepStartTime, step.Modality, item.PatientName)


trio.run(main)
