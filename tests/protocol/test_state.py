"""Table 9-10 and Tables 9-6 to 9-9 of PS3.8 against transcriptions that the core has not seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.errors import LocalProtocolError
from dimse_trio.protocol.events import (
    Aborted,
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    PDataReceived,
    ProviderAborted,
    Refused,
    ReleaseConfirmed,
    ReleaseRequested,
)
from dimse_trio.protocol.pdus import PDU, PDV, Abort, AssociateRJ, PDataTF, ReleaseRP, ReleaseRQ
from dimse_trio.protocol.state import EFFECTS, TRANSITIONS, Action, Effect, Event, State
from dimse_trio.protocol.upper_layer import Role, UpperLayer

from .pair import ACCEPT, REQUEST, drain

CELLS: dict[str, dict[str, dict[str, object]]] = json.loads(
    (Path(__file__).parent / "table_9_10.json").read_text()
)["cells"]

VARIANTS = {"6": ("6", "6 unacceptable"), "12": ("12 requestor", "12 acceptor")}
"""The two events whose cells name two next states, in the order of those states."""


def standard_cells() -> dict[tuple[str, str], tuple[str, str]]:
    """Table 9-10 by event variant and state: action and next state."""
    cells: dict[tuple[str, str], tuple[str, str]] = {}
    for number, row in CELLS.items():
        for index, event in enumerate(VARIANTS.get(number, (number,))):
            for state, cell in row.items():
                action, following = cell["action"], cell["next"]
                split = len(following) > 1
                if action == "AE-6" and index == 1:
                    action = "AE-6 reject"
                cells[event, state] = (action, following[index if split else 0])
    return cells


STANDARD = standard_cells()


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
@pytest.mark.parametrize("event", Event, ids=lambda event: event.value.replace(" ", "-"))
def test_a_cell_is_that_of_the_standard(event: Event, state: State) -> None:
    cell = TRANSITIONS.get((event, state))
    ours = None if cell is None else (cell[0].value, cell[1].value)
    assert ours == STANDARD.get((event.value, state.value))


def test_the_table_has_as_many_cells_as_the_standard() -> None:
    assert len(TRANSITIONS) == len(STANDARD)
    assert {event.number for event in Event} == set(map(int, CELLS))
    assert {state.value for state in State} == {f"Sta{n}" for n in range(1, 14)}


def test_every_two_way_cell_of_the_standard_is_split_by_its_event() -> None:
    two_way = {
        (number, state): cell["next"]
        for number, row in CELLS.items()
        for state, cell in row.items()
        if len(cell["next"]) > 1
    }
    assert two_way == {("6", "Sta2"): ["Sta3", "Sta13"], ("12", "Sta7"): ["Sta9", "Sta10"]}


def test_every_action_is_used_and_has_effects_described() -> None:
    assert {action for action, _ in TRANSITIONS.values()} == set(Action) == set(EFFECTS)


@attrs.frozen
class Does:
    """What an action does, in the words of Tables 9-6 to 9-9."""

    sends: str = ""
    indicates: str = ""
    artim: str = ""
    closes: bool = False


ACTIONS = {
    # Table 9-6, association establishment
    "AE-1": Does(),  # issues TRANSPORT CONNECT, which is the driver's
    "AE-2": Does(sends="A-ASSOCIATE-RQ"),
    "AE-3": Does(indicates="A-ASSOCIATE confirmation (accept)"),
    "AE-4": Does(indicates="A-ASSOCIATE confirmation (reject)", closes=True),
    "AE-5": Does(artim="start"),  # issues TRANSPORT CONNECTION response, which is the driver's
    "AE-6": Does(indicates="A-ASSOCIATE indication", artim="stop"),
    "AE-6 reject": Does(sends="A-ASSOCIATE-RJ", artim="stop, start"),
    "AE-7": Does(sends="A-ASSOCIATE-AC"),
    "AE-8": Does(sends="A-ASSOCIATE-RJ", artim="start"),
    # Table 9-7, data transfer
    "DT-1": Does(sends="P-DATA-TF"),
    "DT-2": Does(indicates="P-DATA indication"),
    # Table 9-8, association release
    "AR-1": Does(sends="A-RELEASE-RQ"),
    "AR-2": Does(indicates="A-RELEASE indication"),
    "AR-3": Does(indicates="A-RELEASE confirmation", closes=True),
    "AR-4": Does(sends="A-RELEASE-RP", artim="start"),
    "AR-5": Does(artim="stop"),
    "AR-6": Does(indicates="P-DATA indication"),
    "AR-7": Does(sends="P-DATA-TF"),
    "AR-8": Does(indicates="A-RELEASE indication (release collision)"),
    "AR-9": Does(sends="A-RELEASE-RP"),
    "AR-10": Does(indicates="A-RELEASE confirmation"),
    # Table 9-9, association abort
    "AA-1": Does(sends="A-ABORT, service-user", artim="start"),
    "AA-2": Does(artim="stop", closes=True),
    "AA-3": Does(indicates="A-(P-)ABORT indication", closes=True),
    "AA-4": Does(indicates="A-P-ABORT indication"),
    "AA-5": Does(artim="stop"),
    "AA-6": Does(),
    "AA-7": Does(sends="A-ABORT, service-provider"),
    "AA-8": Does(
        sends="A-ABORT, service-provider", indicates="A-P-ABORT indication", artim="start"
    ),
}


@pytest.mark.parametrize("action", Action, ids=lambda action: action.value.replace(" ", "-"))
def test_an_action_has_the_effects_of_the_standard(action: Action) -> None:
    does = ACTIONS[action.value]
    effects = EFFECTS[action]
    sends = {Effect.SEND_PDU, Effect.SEND_REJECT, Effect.SEND_USER_ABORT}
    sends.add(Effect.SEND_PROVIDER_ABORT)
    assert len(set(effects)) == len(effects)
    assert len(sends & set(effects)) == bool(does.sends)
    assert (Effect.SEND_USER_ABORT in effects) is (does.sends == "A-ABORT, service-user")
    assert (Effect.SEND_PROVIDER_ABORT in effects) is (does.sends == "A-ABORT, service-provider")
    assert (Effect.SEND_REJECT in effects) is (action.value == "AE-6 reject")
    provider_abort = does.indicates == "A-P-ABORT indication"
    assert (Effect.INDICATE_PROVIDER_ABORT in effects) is provider_abort
    assert (Effect.INDICATE in effects) is (bool(does.indicates) and not provider_abort)
    timer = [e for e in effects if e in (Effect.START_ARTIM, Effect.STOP_ARTIM)]
    assert ", ".join("start" if e is Effect.START_ARTIM else "stop" for e in timer) == does.artim
    assert (Effect.CLOSE_TRANSPORT in effects) is does.closes


# What the actions look like from outside: every cell is entered by the public interface.

REJECT = AssociateRJ(1, 1, 1)
UNACCEPTABLE = attrs.evolve(REQUEST, protocol_version=2)


def _receive(pdu: PDU) -> Callable[[UpperLayer], object]:
    return lambda core: core.receive_data(encode_pdu(pdu))


STIMULI: dict[str, Callable[[UpperLayer], object]] = {
    "3": _receive(ACCEPT),
    "4": _receive(REJECT),
    "5": UpperLayer.transport_connected,
    "6": _receive(REQUEST),
    "6 unacceptable": _receive(UNACCEPTABLE),
    "7": lambda core: core.accept(ACCEPT),
    "8": lambda core: core.reject(REJECT),
    "9": lambda core: core.pdata_header(1, 2, is_command=True, is_last=True),
    "10": _receive(PDataTF((PDV(1, True, True, b"x"),))),
    "11": UpperLayer.release,
    "12 requestor": _receive(ReleaseRQ()),
    "12 acceptor": _receive(ReleaseRQ()),
    "13": _receive(ReleaseRP()),
    "14": UpperLayer.respond_to_release,
    "15": UpperLayer.abort,
    "16": _receive(Abort(2, 1)),
    "17": UpperLayer.receive_eof,
    "18": UpperLayer.artim_expired,
    "19": lambda core: core.receive_data(bytes(6)),
}
"""How to cause an event; 1 and 2 are one call, `associate`, and have tests of their own."""

INDICATIONS: dict[str, type | None] = {
    "": None,
    "A-ASSOCIATE indication": AssociateRequested,
    "A-ASSOCIATE confirmation (accept)": AssociateAccepted,
    "A-ASSOCIATE confirmation (reject)": AssociateRejected,
    "P-DATA indication": PDataReceived,
    "A-RELEASE indication": ReleaseRequested,
    "A-RELEASE indication (release collision)": ReleaseRequested,
    "A-RELEASE confirmation": ReleaseConfirmed,
    "A-(P-)ABORT indication": Aborted,
    "A-P-ABORT indication": ProviderAborted,
}
FIRST_BYTES = {
    "": b"",
    "A-ASSOCIATE-RQ": b"\x01",
    "A-ASSOCIATE-AC": b"\x02",
    "A-ASSOCIATE-RJ": b"\x03",
    "A-RELEASE-RQ": b"\x05",
    "A-RELEASE-RP": b"\x06",
    "P-DATA-TF": b"",  # returned by `pdata_header` to whoever has the fragment
}


def core_in(state: str, event: str) -> UpperLayer:
    """A core put in a state, ARTIM as the state has it; its role is the event's."""
    role = Role.ACCEPTOR if event.endswith("acceptor") else Role.REQUESTOR
    core = UpperLayer(role, max_pdu_length=16384)
    core.state = State(state)
    core.artim_running = state in ("Sta2", "Sta13")
    return core


@pytest.mark.parametrize(("event", "state"), [c for c in STANDARD if c[0] not in ("1", "2")])
def test_an_event_has_the_consequences_of_its_cell(event: str, state: str) -> None:
    action, next_state = STANDARD[event, state]
    does = ACTIONS[action]
    core = core_in(state, event)
    ran = core.artim_running

    STIMULI[event](core)
    events = drain(core)
    sent = core.data_to_send()

    assert core.state.value == next_state
    if does.sends.startswith("A-ABORT"):
        assert sent[:9] == bytes.fromhex("07 00 00000004 00 00") + sent[8:9]
        assert sent[8] == (0 if does.sends.endswith("user") else 2)
        assert len(sent) == 10
    else:
        assert sent[:1] == FIRST_BYTES[does.sends]
    refused = [Refused] if state == "Sta2" and next_state == "Sta13" else []
    indicated = INDICATIONS[does.indicates]
    assert [type(e) for e in events] == ([] if indicated is None else [indicated]) + refused
    if does.indicates.startswith("A-RELEASE indication"):
        assert events == [ReleaseRequested(collision="collision" in does.indicates)]
    assert core.artim_starts == does.artim.endswith("start")
    assert core.artim_running is (does.artim.endswith("start") or (ran and not does.artim))
    assert core.close_transport is does.closes


LOCAL = ("5", "7", "8", "9", "11", "14", "15", "18")


@pytest.mark.parametrize(
    ("event", "state"),
    [(e, s.value) for e in LOCAL for s in State if (e, s.value) not in STANDARD],
)
def test_a_local_primitive_out_of_place_changes_nothing(event: str, state: str) -> None:
    core = core_in(state, event)
    with pytest.raises(LocalProtocolError, match=state):
        STIMULI[event](core)
    assert core.state.value == state
    assert core.data_to_send() == b""
    assert core.artim_starts == 0
    assert not core.close_transport


@pytest.mark.parametrize("state", [state for state in State if state is not State.IDLE])
def test_associate_is_possible_only_in_sta1(state: State) -> None:
    core = core_in(state.value, "1")
    with pytest.raises(LocalProtocolError, match=r"ASSOCIATE_REQUEST"):
        core.associate(REQUEST)
    assert core.state is state
    assert core.data_to_send() == b""


def test_associate_sends_the_request_and_awaits_the_answer() -> None:
    core = core_in("Sta1", "1")
    core.associate(REQUEST)
    assert core.state is State.AWAITING_ACCEPT
    assert core.data_to_send() == encode_pdu(REQUEST)
    assert not core.artim_running


def test_the_end_of_the_stream_in_sta1_is_nothing_new() -> None:
    core = core_in("Sta1", "17")
    core.receive_eof()
    assert core.state is State.IDLE
    assert drain(core) == []
