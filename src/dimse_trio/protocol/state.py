"""The upper layer state machine: PS3.8 Table 9-10 whole, as data, and what its actions do.

`TRANSITIONS` maps (event, state) to (action, next state); a missing pair is an empty cell.
`EFFECTS` maps an action of Tables 9-6 to 9-9 to what must be done, in order. `UpperLayer` holds the
one function that walks both. Nothing here knows PDUs, sockets or time.

Two cells of the standard's table name two next states. They are split by their event instead: AE-6
by whether the request is acceptable to the service-provider, AR-8 by which side requested the
association. So `Event` has 21 members for the standard's 19 numbers.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """States of the protocol machine (PS3.8 Tables 9-1 to 9-5)."""

    __hash__ = object.__hash__  # Enum has one in Python; states are looked up a lot

    IDLE = "Sta1"
    AWAITING_REQUEST = "Sta2"
    AWAITING_LOCAL_RESPONSE = "Sta3"
    AWAITING_TRANSPORT = "Sta4"
    AWAITING_ACCEPT = "Sta5"
    ESTABLISHED = "Sta6"
    AWAITING_RELEASE_RP = "Sta7"
    AWAITING_LOCAL_RELEASE = "Sta8"
    COLLISION_REQUESTOR_LOCAL = "Sta9"
    COLLISION_ACCEPTOR_PEER = "Sta10"
    COLLISION_REQUESTOR_PEER = "Sta11"
    COLLISION_ACCEPTOR_LOCAL = "Sta12"
    AWAITING_CLOSE = "Sta13"


class Event(enum.Enum):
    """Events of the protocol machine (PS3.8 Table 9-10, first column), numbered as there."""

    ASSOCIATE_REQUEST = "1"
    TRANSPORT_CONFIRM = "2"
    ASSOCIATE_AC_PDU = "3"
    ASSOCIATE_RJ_PDU = "4"
    TRANSPORT_INDICATION = "5"
    ASSOCIATE_RQ_PDU = "6"
    ASSOCIATE_RQ_PDU_UNACCEPTABLE = "6 unacceptable"
    ASSOCIATE_RESPONSE_ACCEPT = "7"
    ASSOCIATE_RESPONSE_REJECT = "8"
    P_DATA_REQUEST = "9"
    P_DATA_TF_PDU = "10"
    RELEASE_REQUEST = "11"
    RELEASE_RQ_PDU_TO_REQUESTOR = "12 requestor"
    RELEASE_RQ_PDU_TO_ACCEPTOR = "12 acceptor"
    RELEASE_RP_PDU = "13"
    RELEASE_RESPONSE = "14"
    ABORT_REQUEST = "15"
    ABORT_PDU = "16"
    TRANSPORT_CLOSED = "17"
    ARTIM_EXPIRED = "18"
    INVALID_PDU = "19"

    @property
    def number(self) -> int:
        """The event's number in the standard."""
        return int(self.value.split()[0])


class Action(enum.Enum):
    """Actions of the protocol machine (PS3.8 Tables 9-6 to 9-9)."""

    AE_1 = "AE-1"
    AE_2 = "AE-2"
    AE_3 = "AE-3"
    AE_4 = "AE-4"
    AE_5 = "AE-5"
    AE_6 = "AE-6"
    AE_6_REJECT = "AE-6 reject"
    AE_7 = "AE-7"
    AE_8 = "AE-8"
    DT_1 = "DT-1"
    DT_2 = "DT-2"
    AR_1 = "AR-1"
    AR_2 = "AR-2"
    AR_3 = "AR-3"
    AR_4 = "AR-4"
    AR_5 = "AR-5"
    AR_6 = "AR-6"
    AR_7 = "AR-7"
    AR_8 = "AR-8"
    AR_9 = "AR-9"
    AR_10 = "AR-10"
    AA_1 = "AA-1"
    AA_2 = "AA-2"
    AA_3 = "AA-3"
    AA_4 = "AA-4"
    AA_5 = "AA-5"
    AA_6 = "AA-6"
    AA_7 = "AA-7"
    AA_8 = "AA-8"


class Effect(enum.Enum):
    """One step of an action."""

    SEND_PDU = "send the PDU of the local primitive"
    SEND_REJECT = "send A-ASSOCIATE-RJ, source service-provider (ACSE)"
    SEND_USER_ABORT = "send A-ABORT, source service-user"
    SEND_PROVIDER_ABORT = "send A-ABORT, source service-provider"
    INDICATE = "issue the indication or confirmation of the received PDU"
    INDICATE_PROVIDER_ABORT = "issue A-P-ABORT indication"
    START_ARTIM = "start ARTIM, or restart it"
    STOP_ARTIM = "stop ARTIM"
    CLOSE_TRANSPORT = "close the transport connection"


EFFECTS: dict[Action, tuple[Effect, ...]] = {
    Action.AE_1: (),  # the driver opens the transport connection before it starts the core
    Action.AE_2: (Effect.SEND_PDU,),
    Action.AE_3: (Effect.INDICATE,),
    Action.AE_4: (Effect.INDICATE, Effect.CLOSE_TRANSPORT),
    Action.AE_5: (Effect.START_ARTIM,),
    Action.AE_6: (Effect.STOP_ARTIM, Effect.INDICATE),
    Action.AE_6_REJECT: (Effect.STOP_ARTIM, Effect.SEND_REJECT, Effect.START_ARTIM),
    Action.AE_7: (Effect.SEND_PDU,),
    Action.AE_8: (Effect.SEND_PDU, Effect.START_ARTIM),
    Action.DT_1: (Effect.SEND_PDU,),
    Action.DT_2: (Effect.INDICATE,),
    Action.AR_1: (Effect.SEND_PDU,),
    Action.AR_2: (Effect.INDICATE,),
    Action.AR_3: (Effect.INDICATE, Effect.CLOSE_TRANSPORT),
    Action.AR_4: (Effect.SEND_PDU, Effect.START_ARTIM),
    Action.AR_5: (Effect.STOP_ARTIM,),
    Action.AR_6: (Effect.INDICATE,),
    Action.AR_7: (Effect.SEND_PDU,),
    Action.AR_8: (Effect.INDICATE,),
    Action.AR_9: (Effect.SEND_PDU,),
    Action.AR_10: (Effect.INDICATE,),
    Action.AA_1: (Effect.SEND_USER_ABORT, Effect.START_ARTIM),
    Action.AA_2: (Effect.STOP_ARTIM, Effect.CLOSE_TRANSPORT),
    Action.AA_3: (Effect.INDICATE, Effect.CLOSE_TRANSPORT),
    Action.AA_4: (Effect.INDICATE_PROVIDER_ABORT,),
    Action.AA_5: (Effect.STOP_ARTIM,),
    Action.AA_6: (),
    Action.AA_7: (Effect.SEND_PROVIDER_ABORT,),
    Action.AA_8: (
        Effect.SEND_PROVIDER_ABORT,
        Effect.INDICATE_PROVIDER_ABORT,
        Effect.START_ARTIM,
    ),
}

_Row = dict[State, tuple[Action, State]]

_AWAITING_REQUEST: _Row = {State.AWAITING_REQUEST: (Action.AA_1, State.AWAITING_CLOSE)}
_CONNECTED = (
    State.AWAITING_LOCAL_RESPONSE,
    State.AWAITING_ACCEPT,
    State.ESTABLISHED,
    State.AWAITING_RELEASE_RP,
    State.AWAITING_LOCAL_RELEASE,
    State.COLLISION_REQUESTOR_LOCAL,
    State.COLLISION_ACCEPTOR_PEER,
    State.COLLISION_REQUESTOR_PEER,
    State.COLLISION_ACCEPTOR_LOCAL,
)
_IGNORED: _Row = {State.AWAITING_CLOSE: (Action.AA_6, State.AWAITING_CLOSE)}
_UNEXPECTED: _Row = (
    _AWAITING_REQUEST | dict.fromkeys(_CONNECTED, (Action.AA_8, State.AWAITING_CLOSE)) | _IGNORED
)
"""A PDU that is out of place: the row every received PDU starts from."""

_RELEASE_RQ_PDU: _Row = _UNEXPECTED | {
    State.ESTABLISHED: (Action.AR_2, State.AWAITING_LOCAL_RELEASE)
}

_ROWS: dict[Event, _Row] = {
    Event.ASSOCIATE_REQUEST: {State.IDLE: (Action.AE_1, State.AWAITING_TRANSPORT)},
    Event.TRANSPORT_CONFIRM: {State.AWAITING_TRANSPORT: (Action.AE_2, State.AWAITING_ACCEPT)},
    Event.ASSOCIATE_AC_PDU: _UNEXPECTED | {State.AWAITING_ACCEPT: (Action.AE_3, State.ESTABLISHED)},
    Event.ASSOCIATE_RJ_PDU: _UNEXPECTED | {State.AWAITING_ACCEPT: (Action.AE_4, State.IDLE)},
    Event.TRANSPORT_INDICATION: {State.IDLE: (Action.AE_5, State.AWAITING_REQUEST)},
    Event.ASSOCIATE_RQ_PDU: _UNEXPECTED
    | {
        State.AWAITING_REQUEST: (Action.AE_6, State.AWAITING_LOCAL_RESPONSE),
        State.AWAITING_CLOSE: (Action.AA_7, State.AWAITING_CLOSE),
    },
    Event.ASSOCIATE_RQ_PDU_UNACCEPTABLE: _UNEXPECTED
    | {
        State.AWAITING_REQUEST: (Action.AE_6_REJECT, State.AWAITING_CLOSE),
        State.AWAITING_CLOSE: (Action.AA_7, State.AWAITING_CLOSE),
    },
    Event.ASSOCIATE_RESPONSE_ACCEPT: {
        State.AWAITING_LOCAL_RESPONSE: (Action.AE_7, State.ESTABLISHED)
    },
    Event.ASSOCIATE_RESPONSE_REJECT: {
        State.AWAITING_LOCAL_RESPONSE: (Action.AE_8, State.AWAITING_CLOSE)
    },
    Event.P_DATA_REQUEST: {
        State.ESTABLISHED: (Action.DT_1, State.ESTABLISHED),
        State.AWAITING_LOCAL_RELEASE: (Action.AR_7, State.AWAITING_LOCAL_RELEASE),
    },
    Event.P_DATA_TF_PDU: _UNEXPECTED
    | {
        State.ESTABLISHED: (Action.DT_2, State.ESTABLISHED),
        State.AWAITING_RELEASE_RP: (Action.AR_6, State.AWAITING_RELEASE_RP),
    },
    Event.RELEASE_REQUEST: {State.ESTABLISHED: (Action.AR_1, State.AWAITING_RELEASE_RP)},
    Event.RELEASE_RQ_PDU_TO_REQUESTOR: _RELEASE_RQ_PDU
    | {State.AWAITING_RELEASE_RP: (Action.AR_8, State.COLLISION_REQUESTOR_LOCAL)},
    Event.RELEASE_RQ_PDU_TO_ACCEPTOR: _RELEASE_RQ_PDU
    | {State.AWAITING_RELEASE_RP: (Action.AR_8, State.COLLISION_ACCEPTOR_PEER)},
    Event.RELEASE_RP_PDU: _UNEXPECTED
    | {
        State.AWAITING_RELEASE_RP: (Action.AR_3, State.IDLE),
        State.COLLISION_ACCEPTOR_PEER: (Action.AR_10, State.COLLISION_ACCEPTOR_LOCAL),
        State.COLLISION_REQUESTOR_PEER: (Action.AR_3, State.IDLE),
    },
    Event.RELEASE_RESPONSE: {
        State.AWAITING_LOCAL_RELEASE: (Action.AR_4, State.AWAITING_CLOSE),
        State.COLLISION_REQUESTOR_LOCAL: (Action.AR_9, State.COLLISION_REQUESTOR_PEER),
        State.COLLISION_ACCEPTOR_LOCAL: (Action.AR_4, State.AWAITING_CLOSE),
    },
    Event.ABORT_REQUEST: dict.fromkeys(_CONNECTED, (Action.AA_1, State.AWAITING_CLOSE))
    | {State.AWAITING_TRANSPORT: (Action.AA_2, State.IDLE)},
    Event.ABORT_PDU: dict.fromkeys(_CONNECTED, (Action.AA_3, State.IDLE))
    | {
        State.AWAITING_REQUEST: (Action.AA_2, State.IDLE),
        State.AWAITING_CLOSE: (Action.AA_2, State.IDLE),
    },
    Event.TRANSPORT_CLOSED: dict.fromkeys(
        (State.AWAITING_TRANSPORT, *_CONNECTED), (Action.AA_4, State.IDLE)
    )
    | {
        State.AWAITING_REQUEST: (Action.AA_5, State.IDLE),
        State.AWAITING_CLOSE: (Action.AR_5, State.IDLE),
    },
    Event.ARTIM_EXPIRED: {
        State.AWAITING_REQUEST: (Action.AA_2, State.IDLE),
        State.AWAITING_CLOSE: (Action.AA_2, State.IDLE),
    },
    Event.INVALID_PDU: _UNEXPECTED | {State.AWAITING_CLOSE: (Action.AA_7, State.AWAITING_CLOSE)},
}

TRANSITIONS: dict[tuple[Event, State], tuple[Action, State]] = {
    (event, state): cell for event, row in _ROWS.items() for state, cell in row.items()
}
"""PS3.8 Table 9-10."""


def _unmoved_by(event: Event, effect: Effect) -> frozenset[State]:
    """The states that an event leaves as they are, with this one effect."""
    return frozenset(
        state
        for (cause, state), (action, next_state) in TRANSITIONS.items()
        if cause is event and next_state is state and EFFECTS[action] == (effect,)
    )


PASSES_DATA = _unmoved_by(Event.P_DATA_TF_PDU, Effect.INDICATE)
MAY_SEND_DATA = _unmoved_by(Event.P_DATA_REQUEST, Effect.SEND_PDU)
"""Where P-DATA, which nearly all the traffic is, need not walk through the table."""
