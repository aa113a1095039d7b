"""Schedule a procedure step, and perform it, while somebody watches.

python ups.py HOST PORT AE-TITLE
"""

import sys

import trio

import dimse_trio as dimse

IMAGE_PROCESSING = dimse.Code("110001", "DCM", "Image Processing")


async def perform(ups: dimse.UnifiedProcedureSteps, uid: str) -> None:
    async with ups.claim(uid) as work:  # left by an exception, the step is CANCELED
        await work.update(progress=50, description="half of it")
        await work.complete()


async def main() -> None:
    host, port, ae_title = sys.argv[1:]
    contexts = dimse.procedure_step_contexts()
    async with dimse.open_association(
        host, int(port), called_ae_title=ae_title, contexts=contexts
    ) as assoc:
        ups = dimse.UnifiedProcedureSteps(assoc)
        uid = await ups.create("Segment the liver", workitem=IMAGE_PROCESSING)
        for step in await ups.find(SOPInstanceUID=uid, ProcedureStepState="SCHEDULED"):
            async with ups.watch(uid) as events:
                assoc.start_soon(perform, ups, uid)
                async for event in events:
                    print(step.ProcedureStepLabel, event.state or f"{event.progress} %")
                    if event.state is dimse.StepState.COMPLETED:
                        break


trio.run(main)
