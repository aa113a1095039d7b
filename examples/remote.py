"""Whole jobs with one peer: a folder stored over several associations, a study fetched and checked.

python remote.py HOST PORT AE-TITLE FOLDER STUDY-INSTANCE-UID OUTPUT
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, folder, study_uid, output = sys.argv[1:]
    async with dimse.RemoteAE(ae_title, host, int(port)) as peer:
        outcomes = await peer.store(folder, jobs=4)
        for outcome in outcomes:
            if not outcome.stored:
                print(f"{outcome.source}: {outcome.error}")
        print(f"{sum(o.stored for o in outcomes)} of {len(outcomes)} stored")

        got = await peer.retrieve(dimse.query("STUDY", StudyInstanceUID=study_uid), output)
        print(f"{len(got.files)} instances by {got.method}, complete: {got.complete}")


trio.run(main)
