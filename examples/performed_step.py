"""Perform the first thing on a worklist, and report it.

python performed_step.py HOST PORT AE-TITLE
"""

import sys

import trio

import dimse_trio as dimse

CT = dimse.uid_of("CTImageStorage")


async def main() -> None:
    host, port, ae_title = sys.argv[1:]
    contexts = [*dimse.default_contexts(), *dimse.performed_step_contexts()]
    async with dimse.open_association(
        host, int(port), called_ae_title=ae_title, contexts=contexts
    ) as assoc:
        item = (await assoc.find_worklist())[0]
        async with assoc.performed_procedure_step(item) as step:
            print(step.status)
            series = dimse.PerformedSeries(dimse.new_uid(), "HEAD", [(CT, dimse.new_uid())])
            await step.complete(series)
        print(step.status)


trio.run(main)
