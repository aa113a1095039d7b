"""Fetch a study into a folder, with C-GET.

python get.py HOST PORT AE-TITLE STUDY-INSTANCE-UID FOLDER
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, study_uid, folder = sys.argv[1:]
    async with dimse.open_association(host, int(port), called_ae_title=ae_title) as assoc:
        instances = await assoc.find_instances(StudyInstanceUID=study_uid)
    # what is there says what to propose, so that everything comes as the archive has it
    contexts = dimse.retrieve_contexts(instance.SOPClassUID for instance in instances)
    async with dimse.open_association(
        host, int(port), called_ae_title=ae_title, contexts=contexts
    ) as assoc:
        study = dimse.query("STUDY", StudyInstanceUID=study_uid)
        result = await assoc.get(study, save_to=folder)
        print(f"{result.status}: {result.completed} completed, {result.failed} failed")


trio.run(main)
