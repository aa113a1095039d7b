"""The tables of the Unified Procedure Step against PS3.4, transcribed again (Annex CC)."""

from __future__ import annotations

import itertools

import pytest

from dimse_trio.protocol.ups import (
    DECISIONS,
    StepRequest,
    StepState,
    decide,
    required_in,
)

S, I, C, X = (  # noqa: E741
    StepState.SCHEDULED,
    StepState.IN_PROGRESS,
    StepState.COMPLETED,
    StepState.CANCELED,
)
STATES = [None, S, I, C, X]
LOCK, OTHER = "1.2.3", "1.2.4"

# PS3.4 Table CC.1.1-2: status, states gone through
CELLS: dict[tuple[StepRequest, bool | None], list[tuple[int, list[StepState]]]] = {
    (StepRequest.CREATE, None): [(0, [S]), *[(0x0111, [])] * 4],
    (StepRequest.CLAIM, True): [
        (0xC307, []),
        (0, [I]),
        (0xC302, []),
        (0xC300, []),
        (0xC300, []),
    ],
    (StepRequest.CLAIM, False): [(0xC307, []), *[(0xC301, [])] * 4],
    (StepRequest.SCHEDULE, None): [(0xC307, []), *[(0xC303, [])] * 4],
    (StepRequest.COMPLETE, True): [
        (0xC307, []),
        (0xC310, []),
        (0, [C]),
        (0xB306, []),
        (0xC300, []),
    ],
    (StepRequest.COMPLETE, False): [(0xC307, []), *[(0xC301, [])] * 4],
    (StepRequest.REQUEST_CANCEL, None): [
        (0xC307, []),
        (0, [I, X]),
        (0, []),
        (0xC311, []),
        (0xB304, []),
    ],
    (StepRequest.CANCEL, True): [
        (0xC307, []),
        (0xC310, []),
        (0, [X]),
        (0xC300, []),
        (0xB304, []),
    ],
    (StepRequest.CANCEL, False): [(0xC307, []), *[(0xC301, [])] * 4],
}


@pytest.mark.parametrize(
    ("request_and_uid", "column"), list(itertools.product(CELLS, range(len(STATES))))
)
def test_every_cell_of_the_state_table_is_what_the_standard_says(
    request_and_uid: tuple[StepRequest, bool | None], column: int
) -> None:
    request, correct = request_and_uid
    state = STATES[column]
    recorded = "" if state in (None, S) else LOCK
    given = {None: "", True: LOCK, False: OTHER if recorded else ""}[correct]
    decision = decide(request, state, given=given, recorded=recorded)
    status, states = CELLS[request_and_uid][column]
    assert (int(decision.status), list(decision.states)) == (status, states)
    final_by_performer = correct is True and bool(states) and states[-1].is_final
    assert decision.if_final is final_by_performer
    asked = request is StepRequest.REQUEST_CANCEL and state in (S, I)
    assert decision.reports_request is asked


def test_the_transaction_uid_that_claims_a_scheduled_step_is_the_scus_to_choose() -> None:
    assert decide(StepRequest.CLAIM, S, given=OTHER).states == (I,)


@pytest.mark.parametrize(
    ("state", "given", "status"),
    [
        (None, "", 0xC307),
        (S, "", 0),
        (S, LOCK, 0xC310),
        (I, LOCK, 0),
        (I, OTHER, 0xC301),
        (I, "", 0xC301),
        (C, LOCK, 0xC300),
        (C, "", 0xC300),
        (X, LOCK, 0xC300),
    ],
)
def test_n_set_needs_the_lock_of_a_step_in_progress_and_none_before(
    state: StepState | None, given: str, status: int
) -> None:
    recorded = "" if state in (None, S) else LOCK
    assert decide(StepRequest.SET, state, given=given, recorded=recorded).status == status


def test_there_is_a_decision_for_every_request_in_every_state() -> None:
    for request, state, given in itertools.product(StepRequest, STATES, ("", LOCK)):
        assert decide(request, state, given=given, recorded=LOCK)
    assert {state for _, _, state in DECISIONS} == set(STATES)


def test_completed_needs_what_was_performed_and_canceled_why_it_was_not() -> None:
    completed = {path.rpartition(".")[2] for path, _ in required_in(C)}
    canceled = {path.rpartition(".")[2] for path, _ in required_in(X)}
    assert completed - canceled == {
        "UnifiedProcedureStepPerformedProcedureSequence",
        "PerformedStationNameCodeSequence",
        "PerformedProcedureStepStartDateTime",
        "PerformedWorkitemCodeSequence",
        "PerformedProcedureStepEndDateTime",
        "OutputInformationSequence",
    }
    assert canceled - completed == {
        "ProcedureStepProgressInformationSequence",
        "ProcedureStepCancellationDateTime",
        "ProcedureStepDiscontinuationReasonCodeSequence",
    }
