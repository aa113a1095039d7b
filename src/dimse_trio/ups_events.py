"""Events of Unified Procedure Steps as an SCU gets them: a queue to iterate (PS3.4 §CC.2.4).

They come on the association that subscribed, or on one that the SCP opens to our listener.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Self, final

import attrs
import trio

from . import datasets
from .errors import DimseError
from .handlers import EchoSCP
from .protocol.status import Status
from .protocol.ups import UPS_EVENT, UPS_PUSH, StepEventType, StepState

if TYPE_CHECKING:
    from pydicom import Dataset

    from .normalized_requests import NEventReportRequest


@attrs.frozen
class StepEvent:
    """One N-EVENT-REPORT about a procedure step (PS3.4 Table CC.2.4-1).

    Attributes:
        sop_instance_uid: The step; of `SCP_STATUS`, whatever the SCP names.
        type: What kind of event it is.
        information: Event Information as it came.
        peer_ae_title: The SCP's AE title on the association that it came on.
    """

    sop_instance_uid: str
    type: StepEventType
    information: Dataset = attrs.field(repr=False)
    peer_ae_title: str = ""

    @property
    def state(self) -> StepState | None:
        """Procedure Step State of a `STATE` event; `None` where it has none that is one."""
        try:
            return StepState(datasets.text_of(self.information, "ProcedureStepState"))
        except ValueError:
            return None

    @property
    def progress(self) -> float | None:
        """Procedure Step Progress of a `PROGRESS` event, in percent, if it says so."""
        for item in datasets.items_of(self.information, "ProcedureStepProgressInformationSequence"):
            try:
                return float(datasets.text_of(item, "ProcedureStepProgress"))
            except ValueError:
                return None
        return None

    @property
    def requesting_ae_title(self) -> str:
        """Requesting AE of a `CANCEL_REQUESTED` event: who wants the step canceled."""
        return datasets.text_of(self.information, "RequestingAE")

    @property
    def reason(self) -> str:
        """Reason For Cancellation, if there is one."""
        return datasets.text_of(self.information, "ReasonForCancellation")


@final
class StepEvents(EchoSCP):
    """Events in the order in which they came, for `async for`.

    One for an association is made by `UnifiedProcedureSteps.watch`. Made by itself it is a handler
    for a listener: `open_server(StepEvents(), port)`, for the associations that an SCP opens to
    report.

    It holds `limit` events that nobody has taken yet; those beyond are refused with status 0x0213,
    and counted in `refused`. More than one task may iterate; each event goes to one of them.

    Cancelled while it waits for an event, it has taken none.

    Args:
        limit: See above.
        only: The one step whose events it takes; of all by default.
    """

    normalized_sop_classes = (UPS_EVENT,)

    def __init__(self, limit: int = 1000, *, only: str | None = None) -> None:
        self._limit = limit
        self.only = only
        self._events: deque[StepEvent] = deque()
        self._waiting = trio.lowlevel.ParkingLot()
        self._end: DimseError | None = None
        self.refused = 0

    async def handle_n_event_report(self, request: NEventReportRequest) -> Status:
        """Take an event that came to a listener."""
        status = await self(request)
        return Status.NO_SUCH_SOP_CLASS if status is None else status

    async def __call__(self, request: NEventReportRequest) -> Status | None:
        """Take an event; the status for it, or `None` if it is none for us."""
        if request.sop_class_uid not in (UPS_PUSH, UPS_EVENT):
            return None
        if self.only not in (None, request.sop_instance_uid):
            return None
        try:
            kind = StepEventType(request.event_type_id)
        except ValueError:
            return Status.NO_SUCH_EVENT_TYPE
        if len(self._events) >= self._limit:
            self.refused += 1
            return Status.RESOURCE_LIMITATION
        peer = request.association.peer_ae_title
        self._events.append(StepEvent(request.sop_instance_uid, kind, request.information, peer))
        self._waiting.unpark()
        return Status.SUCCESS

    def end(self, error: DimseError) -> None:
        """No event will come any more: once those that came are taken, `error` is raised."""
        self._end = error
        self._waiting.unpark_all()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StepEvent:
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._end is not None:
                raise self._end
            await self._waiting.park()
        return self._events.popleft()
