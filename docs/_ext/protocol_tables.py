"""Directives that draw the documentation's tables from the protocol core's own.

`state-table` is Table 9-10, `state-diagram` its regular ways from state to state, `action-table`
what the actions do, `status-table` the statuses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dimse_trio.protocol.state import EFFECTS, TRANSITIONS, Action, Event, State
from dimse_trio.protocol.status import Status, StatusCategory

Cell = str | nodes.Node


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, css: str = "") -> nodes.table:
    """A docutils table; plain strings become paragraphs."""

    def row(cells: Sequence[Cell]) -> nodes.row:
        entries = []
        for cell in cells:
            content = nodes.paragraph("", cell) if isinstance(cell, str) else cell
            entries.append(nodes.entry("", content))
        return nodes.row("", *entries)

    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", row(head))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group, classes=[css] if css else [])


def words(member: State | Event) -> str:
    """An enum member's name as text."""
    return member.name.lower().replace("_", " ")


class StateTable(SphinxDirective):
    """Table 9-10: events down, states across, action and next state in the cells."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for event in Event:
            row = [f"{event.number} {words(event)}"]
            for state in State:
                cell = TRANSITIONS.get((event, state))
                row.append("" if cell is None else f"{cell[0].value} {cell[1].value}")
            rows.append(row)
        return [table(["Event", *(s.value for s in State)], rows, css="transitions")]


class StateNames(SphinxDirective):
    """The states' numbers and names."""

    def run(self) -> list[nodes.Node]:
        rows = [(s.value, nodes.paragraph("", "", nodes.literal("", s.name))) for s in State]
        return [table(["State", "dimse_trio.protocol.state.State"], rows)]


class ActionTable(SphinxDirective):
    """Tables 9-6 to 9-9."""

    def run(self) -> list[nodes.Node]:
        rows = [
            (action.value, "; ".join(effect.value for effect in EFFECTS[action]) or "nothing")
            for action in Action
        ]
        return [table(["Action", "What is done, in this order"], rows)]


UNSPECIFIC = (StatusCategory.WARNING, StatusCategory.FAILURE)
"""Categories of which many codes mean no more than that."""


class StatusTable(SphinxDirective):
    """Every status, or range of them, that has a meaning of its own."""

    def run(self) -> list[nodes.Node]:
        rows = []
        statuses = map(Status, range(0x10000))
        kinds = groupby(statuses, lambda s: (s.category, s.meaning, s.advice))
        for (category, meaning, advice), group in kinds:
            codes = [f"{status:04X}H" for status in group]
            if meaning != category.value or category not in UNSPECIFIC:
                span = codes[0] if len(codes) == 1 else f"{codes[0]} to {codes[-1]}"
                rows.append((span, category.value, meaning, advice))
        return [table(["Status", "Category", "Meaning", "Try"], rows)]


class StateDiagram(SphinxDirective):
    """The ways between states that an association takes when nothing goes wrong."""

    WIDTH, HEIGHT, BOX = 900, 780, (156, 44)
    PLACES: ClassVar[dict[State, tuple[int, int]]] = {
        State.IDLE: (470, 40),
        State.AWAITING_REQUEST: (150, 130),
        State.AWAITING_TRANSPORT: (790, 130),
        State.AWAITING_LOCAL_RESPONSE: (150, 220),
        State.AWAITING_ACCEPT: (790, 220),
        State.ESTABLISHED: (470, 300),
        State.AWAITING_LOCAL_RELEASE: (290, 390),
        State.AWAITING_RELEASE_RP: (560, 390),
        State.COLLISION_ACCEPTOR_PEER: (370, 490),
        State.COLLISION_REQUESTOR_LOCAL: (800, 490),
        State.COLLISION_ACCEPTOR_LOCAL: (370, 580),
        State.COLLISION_REQUESTOR_PEER: (800, 580),
        State.AWAITING_CLOSE: (110, 660),
    }
    END = (470, 740)
    """Where the ways back to idle lead, so that they do not cross all the others."""
    UNHAPPY = frozenset(a for a in Action if a.value.startswith("AA-")) | {Action.AE_6_REJECT}

    def run(self) -> list[nodes.Node]:
        ways: dict[tuple[State, State], list[str]] = defaultdict(list)
        for (_, start), (action, end) in TRANSITIONS.items():
            if action not in self.UNHAPPY and start is not end:
                ways[start, end].append(action.value)
        parts = [self._way(start, end, sorted(set(a))) for (start, end), a in ways.items()]
        parts += [self._state(state, x, y) for state, (x, y) in self.PLACES.items()]
        parts.append(self._state(State.IDLE, *self.END))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.WIDTH} {self.HEIGHT}"'
            ' font-family="sans-serif" font-size="11" role="img"'
            ' aria-label="States of an association and the actions between them">'
            '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7"'
            ' markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" fill="currentColor"/>'
            f"</marker></defs>{''.join(parts)}</svg>"
        )
        return [nodes.raw("", f'<div class="state-diagram">{svg}</div>', format="html")]

    def _state(self, state: State, x: int, y: int) -> str:
        width, height = self.BOX
        name = words(state)
        return (
            f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}"'
            ' rx="8" fill="none" stroke="currentColor"/>'
            f'<text x="{x}" y="{y - 4}" text-anchor="middle" font-weight="bold"'
            f' fill="currentColor">{state.value}</text>'
            f'<text x="{x}" y="{y + 12}" text-anchor="middle" font-size="10"'
            f' fill="currentColor">{escape(name)}</text>'
        )

    def _way(self, start: State, end: State, actions: list[str]) -> str:
        """An arrow from box to box, bent a little, with its actions on it."""
        begin, target = self.PLACES[start], self.PLACES[end]
        if end is State.IDLE:
            target = self.END
        (x1, y1), (x2, y2) = self._edge(begin, target), self._edge(target, begin)
        dx, dy = x2 - x1, y2 - y1
        length = max((dx * dx + dy * dy) ** 0.5, 1)
        bend = 4 + length / 16
        cx, cy = (x1 + x2) / 2 - dy / length * bend, (y1 + y2) / 2 + dx / length * bend
        lx, ly = (x1 + 2 * cx + x2) / 4, (y1 + 2 * cy + y2) / 4
        label = ", ".join(actions)
        return (
            f'<path d="M{x1:.0f} {y1:.0f} Q{cx:.0f} {cy:.0f} {x2:.0f} {y2:.0f}" fill="none"'
            ' stroke="currentColor" opacity="0.6" marker-end="url(#arrow)"/>'
            f'<text x="{lx:.0f}" y="{ly:.0f}" text-anchor="middle" fill="currentColor"'
            ' stroke="var(--color-background-primary, white)" stroke-width="4"'
            f' paint-order="stroke">{escape(label)}</text>'
        )

    def _edge(self, box: tuple[int, int], other: tuple[int, int]) -> tuple[float, float]:
        """Where the straight line from one box's middle to another's leaves the first."""
        (x1, y1), (x2, y2) = box, other
        dx, dy = x2 - x1, y2 - y1
        scale = min(
            (self.BOX[0] / 2 + 3) / abs(dx) if dx else 9e9,
            (self.BOX[1] / 2 + 3) / abs(dy) if dy else 9e9,
        )
        return x1 + dx * scale, y1 + dy * scale


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("state-table", StateTable)
    app.add_directive("state-names", StateNames)
    app.add_directive("state-diagram", StateDiagram)
    app.add_directive("action-table", ActionTable)
    app.add_directive("status-table", StatusTable)
    return {"parallel_read_safe": True}
