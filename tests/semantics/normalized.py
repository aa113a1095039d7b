"""What the tests of DIMSE-N share: a handler of all six operations."""

from __future__ import annotations

from typing import Any

import attrs
from pydicom import Dataset

import dimse_trio as dimse

from .script import attributes

MPPS = dimse.uid_of("ModalityPerformedProcedureStep")
MPPS_RETRIEVE = dimse.uid_of("ModalityPerformedProcedureStepRetrieve")
COMMITMENT = dimse.uid_of("StorageCommitmentPushModel")
UPS_PUSH = dimse.uid_of("UnifiedProcedureStepPush")
UPS_PULL = dimse.uid_of("UnifiedProcedureStepPull")
FILM_SESSION = dimse.uid_of("BasicFilmSession")
GRAYSCALE_PRINT = dimse.uid_of("BasicGrayscalePrintManagementMeta")
PRINTER = dimse.uid_of("Printer")

RT = dimse.uid_of("RTConventionalMachineVerification")
"""A class whose SCP performs all six."""


@attrs.define
class Everything:
    """Keeps instances of whatever class in a dictionary."""

    instances: dict[str, Dataset] = attrs.field(factory=dict)
    seen: list[Any] = attrs.field(factory=list)
    answer: Any = None

    def _known(self, request: Any) -> Dataset:
        self.seen.append(request)
        if request.sop_instance_uid not in self.instances:
            raise dimse.StatusError(dimse.Status.NO_SUCH_SOP_INSTANCE)
        return self.instances[request.sop_instance_uid]

    async def handle_n_create(self, request: dimse.NCreateRequest) -> Any:
        self.seen.append(request)
        self.instances[request.sop_instance_uid] = request.attributes
        return self.answer or dimse.Status.SUCCESS

    async def handle_n_set(self, request: dimse.NSetRequest) -> Any:
        self._known(request).update(request.modifications)
        return self.answer or dimse.Status.SUCCESS

    async def handle_n_get(self, request: dimse.NGetRequest) -> Any:
        return self._known(request)

    async def handle_n_action(self, request: dimse.NActionRequest) -> Any:
        self._known(request)
        return self.answer or attributes(ActionTypeID=None, PatientID=request.information.PatientID)

    async def handle_n_event_report(self, request: dimse.NEventReportRequest) -> Any:
        self.seen.append(request)
        return self.answer or dimse.Status.SUCCESS

    async def handle_n_delete(self, request: dimse.NDeleteRequest) -> dimse.Status:
        self._known(request)
        del self.instances[request.sop_instance_uid]
        return dimse.Status.SUCCESS


def contexts(*uids: str) -> list[dimse.PresentationContext]:
    return [dimse.PresentationContext(uid) for uid in uids]
