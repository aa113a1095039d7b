"""What the tests of Unified Procedure Steps share: an SCP and its users, a step, a status."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.testing import associated_pair

from .script import attributes

PUSH = dimse.uid_of("UnifiedProcedureStepPush")
PULL = dimse.uid_of("UnifiedProcedureStepPull")
WATCH = dimse.uid_of("UnifiedProcedureStepWatch")
EVERY = "1.2.840.10008.5.1.4.34.5"
IMAGING = dimse.Code("110001", "DCM", "Image Processing")
READING = dimse.Code("110005", "DCM", "Interpretation")

Clock = trio.abc.Clock


@asynccontextmanager
async def worklist(
    steps: dimse.ProcedureSteps, title: str = "STATION", **options: Any
) -> AsyncGenerator[dimse.UnifiedProcedureSteps]:
    """An association with an SCP, whose block is the caller's."""
    options.setdefault("contexts", dimse.procedure_step_contexts())
    async with associated_pair(steps, calling_ae_title=title, **options) as association:
        yield dimse.UnifiedProcedureSteps(association)


@asynccontextmanager
async def managed(**options: Any) -> AsyncGenerator[tuple[Any, dimse.UnifiedProcedureSteps]]:
    async with dimse.ProcedureSteps(**options) as steps, worklist(steps) as ups:
        yield steps, ups


async def status_of(awaitable: Any) -> int:
    """The status that a request ends with, be it an error or not."""
    try:
        result = await awaitable
    except dimse.StatusError as error:
        return int(error.status)
    return int(result.status)


def a_step(**changes: object) -> Dataset:
    return attributes(
        **{
            "ProcedureStepState": "SCHEDULED",
            "ProcedureStepLabel": "Step",
            "ScheduledProcedureStepStartDateTime": "20260101",
            "InputReadinessState": "READY",
            **changes,
        }
    )
