"""What the random walks over the core have in common."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from dimse_trio.protocol.state import State

ARTIM_RUNS = (State.AWAITING_REQUEST, State.AWAITING_CLOSE)
WALKS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
