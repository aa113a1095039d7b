"""The Unified Procedure Step's rules as tables: states and final state (PS3.4 Annex CC).

`decide` walks the first: what an action in a state does. It knows neither data sets nor who asks.
"""

from __future__ import annotations

import enum

import attrs

from .status import Status
from .uids import uid_of

UPS_PUSH = uid_of("UnifiedProcedureStepPush")
UPS_WATCH = uid_of("UnifiedProcedureStepWatch")
UPS_PULL = uid_of("UnifiedProcedureStepPull")
UPS_EVENT = uid_of("UnifiedProcedureStepEvent")
UPS_QUERY = uid_of("UnifiedProcedureStepQuery")

GLOBAL_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5"
"""The well-known instance that stands for all procedure steps of an SCP (PS3.4 §CC.2.3.2)."""
FILTERED_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5.1"
"""The one for those that match the keys of the subscription."""


class StepState(enum.Enum):
    """Procedure Step State (PS3.4 Table CC.1.1-1)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        return self in (StepState.COMPLETED, StepState.CANCELED)


class StepAction(enum.IntEnum):
    """Action Type ID (PS3.4 §CC.2.1 to CC.2.3)."""

    CHANGE_STATE = 1
    REQUEST_CANCEL = 2
    SUBSCRIBE = 3
    UNSUBSCRIBE = 4
    SUSPEND = 5


class StepEventType(enum.IntEnum):
    """Event Type ID (PS3.4 Table CC.2.4-1)."""

    STATE = 1
    CANCEL_REQUESTED = 2
    PROGRESS = 3
    SCP_STATUS = 4
    ASSIGNED = 5


class StepRequest(enum.Enum):
    """What may be asked of a procedure step: the rows of PS3.4 Table CC.1.1-2, and N-SET."""

    CREATE = "create"
    CLAIM = "claim"
    SCHEDULE = "schedule"
    COMPLETE = "complete"
    REQUEST_CANCEL = "request"
    CANCEL = "cancel"
    SET = "set"


@attrs.frozen
class Decision:
    """What a request does to a procedure step.

    Attributes:
        status: The response's.
        states: The states that the step goes through, the last being its new one.
        if_final: Only if the final state requirements are met, else 0xC304.
        reports_request: Whether the wish to cancel is reported to the subscribers.
    """

    status: Status
    states: tuple[StepState, ...] = ()
    if_final: bool = False
    reports_request: bool = False


_STATES = (
    None,
    StepState.SCHEDULED,
    StepState.IN_PROGRESS,
    StepState.COMPLETED,
    StepState.CANCELED,
)
_TABLE = """
create    -      make  0111  0111  0111  0111
claim     right  C307  begin C302  C300  C300
claim     wrong  C307  C301  C301  C301  C301
schedule  -      C307  C303  C303  C303  C303
complete  right  C307  C310  done  B306  C300
complete  wrong  C307  C301  C301  C301  C301
request   -      C307  drop  ask   C311  B304
cancel    right  C307  C310  stop  C300  B304
cancel    wrong  C307  C301  C301  C301  C301
set       right  C307  C310  0000  C300  C300
set       wrong  C307  C301  C301  C300  C300
set       none   C307  0000  C301  C300  C300
"""
"""PS3.4 Table CC.1.1-2, and N-SET by §CC.2.6: the request, its Transaction UID, and for no such
step, SCHEDULED, IN PROGRESS, COMPLETED and CANCELED a status or one of `_CHANGES`."""

_CHANGES: dict[str, Decision] = {
    "make": Decision(Status.SUCCESS, (StepState.SCHEDULED,)),
    "begin": Decision(Status.SUCCESS, (StepState.IN_PROGRESS,)),
    "done": Decision(Status.SUCCESS, (StepState.COMPLETED,), if_final=True),
    "stop": Decision(Status.SUCCESS, (StepState.CANCELED,), if_final=True),
    "drop": Decision(
        Status.SUCCESS, (StepState.IN_PROGRESS, StepState.CANCELED), reports_request=True
    ),
    "ask": Decision(Status.SUCCESS, reports_request=True),
}


def _parsed() -> dict[tuple[StepRequest, str, StepState | None], Decision]:
    decisions: dict[tuple[StepRequest, str, StepState | None], Decision] = {}
    for line in _TABLE.split("\n")[1:-1]:
        request, uid, *cells = line.split()
        for state, cell in zip(_STATES, cells, strict=True):
            decision = _CHANGES.get(cell) or Decision(Status(int(cell, 16)))
            decisions[StepRequest(request), uid, state] = decision
    return decisions


DECISIONS = _parsed()


def decide(
    request: StepRequest, state: StepState | None, *, given: str = "", recorded: str = ""
) -> Decision:
    """What a request does to a step in a state, `None` being that there is no such step.

    Args:
        request: What is asked for.
        state: The step's state.
        given: The Transaction UID in the request, empty if it has none that is a UID.
        recorded: The step's; a step without one takes any.
    """
    uid = "right" if given and given == (recorded or given) else "wrong"
    if request is StepRequest.SET and not given:
        uid = "none"
    if (request, "-", state) in DECISIONS:
        uid = "-"
    return DECISIONS[request, uid, state]


CHANGES_TO: dict[str, StepRequest] = {
    StepState.SCHEDULED.value: StepRequest.SCHEDULE,
    StepState.IN_PROGRESS.value: StepRequest.CLAIM,
    StepState.COMPLETED.value: StepRequest.COMPLETE,
    StepState.CANCELED.value: StepRequest.CANCEL,
}
"""What N-ACTION type 1 asks for, by its Procedure Step State."""


FINAL_STATE: tuple[tuple[str, str], ...] = (
    ("ScheduledProcedureStepPriority", "R"),
    ("ScheduledProcedureStepModificationDateTime", "R"),
    ("ScheduledProcedureStepStartDateTime", "R"),
    ("InputReadinessState", "R"),
    ("ProcedureStepProgressInformationSequence", "X"),
    ("ProcedureStepProgressInformationSequence.ProcedureStepCancellationDateTime", "X"),
    (
        "ProcedureStepProgressInformationSequence.ProcedureStepDiscontinuationReasonCodeSequence",
        "X",
    ),
    ("UnifiedProcedureStepPerformedProcedureSequence", "P"),
    ("UnifiedProcedureStepPerformedProcedureSequence.PerformedStationNameCodeSequence", "P"),
    ("UnifiedProcedureStepPerformedProcedureSequence.PerformedProcedureStepStartDateTime", "P"),
    ("UnifiedProcedureStepPerformedProcedureSequence.PerformedWorkitemCodeSequence", "P"),
    ("UnifiedProcedureStepPerformedProcedureSequence.PerformedProcedureStepEndDateTime", "P"),
    ("UnifiedProcedureStepPerformedProcedureSequence.OutputInformationSequence", "P0"),
)
"""What must have a value in a final state: R in both, P in COMPLETED, X in CANCELED; with 0, that
it is there is enough (PS3.4 Tables CC.2.5-1 and CC.2.5-3). What is only required if something is
known cannot be checked from outside."""


def required_in(state: StepState) -> tuple[tuple[str, bool], ...]:
    """Paths of the attributes that a final state requires, and whether each may be empty."""
    codes = "RP" if state is StepState.COMPLETED else "RX"
    return tuple((path, "0" in code) for path, code in FINAL_STATE if code[0] in codes)
