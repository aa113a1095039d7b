"""What the tests of performed procedure steps share."""

from __future__ import annotations

from typing import Any

from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.testing import associated_pair

MPPS = dimse.uid_of("ModalityPerformedProcedureStep")
RETRIEVE = dimse.uid_of("ModalityPerformedProcedureStepRetrieve")
SERIES = dimse.PerformedSeries("1.2.4", "HEAD", [("1.2.840.10008.5.1.4.1.1.2", "1.2.5")])


def pair(handler: object) -> Any:
    return associated_pair(handler, contexts=dimse.performed_step_contexts())


async def state(association: dimse.Association, uid: str) -> Dataset:
    return (await association.n_get(RETRIEVE, uid)).data_set


UNSCHEDULED = {"Modality": "CT", "PerformedStationAETitle": "SCANNER"}
