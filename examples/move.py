"""Have the archive send a study to a third party, and count along.

python move.py HOST PORT AE-TITLE STUDY-INSTANCE-UID DESTINATION
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, study_uid, destination = sys.argv[1:]
    async with dimse.open_association(host, int(port), called_ae_title=ae_title) as assoc:
        study = dimse.query("STUDY", StudyInstanceUID=study_uid)
        async with assoc.move(study, destination=destination) as move:
            async for pending in move:
                print(f"{pending.completed} there, {pending.remaining} to come")
            print(f"{move.result.status}: {move.result.completed} completed")


trio.run(main)
