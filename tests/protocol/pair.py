"""Two cores joined in memory, and cores driven to a given state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import attrs

from dimse_trio.protocol.acceptance import Policy, answer
from dimse_trio.protocol.dimse import DimseConnection
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.events import (
    DataSetFragment,
    DimseEvent,
    MessageReceived,
    UpperLayerEvent,
)
from dimse_trio.protocol.messages import Message
from dimse_trio.protocol.pdus import (
    PDU,
    AssociateAC,
    AssociateRQ,
    AsynchronousOperations,
    ContextResult,
    ProposedContext,
    ReleaseRP,
    ReleaseRQ,
    UserInformation,
)
from dimse_trio.protocol.state import State
from dimse_trio.protocol.upper_layer import Role, UpperLayer

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

REQUEST = AssociateRQ(
    called_ae_title="ARCHIVE",
    calling_ae_title="STATION",
    contexts=(
        ProposedContext(1, VERIFICATION, (IMPLICIT,)),
        ProposedContext(3, CT_IMAGE_STORAGE, (EXPLICIT, IMPLICIT)),
        ProposedContext(5, STUDY_ROOT_FIND, (IMPLICIT,)),
        ProposedContext(7, "1.2.3.4", (IMPLICIT,)),
    ),
    user_information=UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
)
ACCEPT = AssociateAC(
    called_ae_title="ARCHIVE",
    calling_ae_title="STATION",
    results=(
        ContextResult(1, 0, IMPLICIT),
        ContextResult(3, 0, EXPLICIT),
        ContextResult(5, 0, IMPLICIT),
        ContextResult(7, 3, IMPLICIT),
    ),
    user_information=UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
)
ACCEPTED_CONTEXTS = (1, 3, 5)

UNLIMITED = AsynchronousOperations(0, 0)


def drain(core: UpperLayer) -> list[UpperLayerEvent]:
    """Every event that the core has by now."""
    return list(iter(core.next_event, None))


def feed(core: UpperLayer, *pdus: PDU) -> list[UpperLayerEvent]:
    """The events that these PDUs from the peer cause."""
    core.receive_data(b"".join(map(encode_pdu, pdus)))
    return drain(core)


def _awaiting_request() -> UpperLayer:
    core = UpperLayer(Role.ACCEPTOR, max_pdu_length=16384)
    core.transport_connected()
    return core


def _awaiting_accept() -> UpperLayer:
    core = UpperLayer(Role.REQUESTOR, max_pdu_length=16384)
    core.associate(REQUEST)
    return core


def _established(role: Role) -> UpperLayer:
    if role is Role.REQUESTOR:
        core = _awaiting_accept()
        feed(core, ACCEPT)
    else:
        core = _awaiting_request()
        feed(core, REQUEST)
        core.accept(ACCEPT)
    return core


_ROLE_OF_STATE = {
    State.AWAITING_REQUEST: Role.ACCEPTOR,
    State.AWAITING_LOCAL_RESPONSE: Role.ACCEPTOR,
    State.AWAITING_ACCEPT: Role.REQUESTOR,
    State.COLLISION_REQUESTOR_LOCAL: Role.REQUESTOR,
    State.COLLISION_REQUESTOR_PEER: Role.REQUESTOR,
    State.COLLISION_ACCEPTOR_PEER: Role.ACCEPTOR,
    State.COLLISION_ACCEPTOR_LOCAL: Role.ACCEPTOR,
}

_STEPS_FROM_ESTABLISHED: dict[State, tuple[Callable[[UpperLayer], object], ...]] = {
    State.ESTABLISHED: (),
    State.AWAITING_RELEASE_RP: (UpperLayer.release,),
    State.AWAITING_LOCAL_RELEASE: (lambda core: feed(core, ReleaseRQ()),),
    State.COLLISION_REQUESTOR_LOCAL: (UpperLayer.release, lambda core: feed(core, ReleaseRQ())),
    State.COLLISION_ACCEPTOR_PEER: (UpperLayer.release, lambda core: feed(core, ReleaseRQ())),
    State.COLLISION_REQUESTOR_PEER: (
        UpperLayer.release,
        lambda core: feed(core, ReleaseRQ()),
        UpperLayer.respond_to_release,
    ),
    State.COLLISION_ACCEPTOR_LOCAL: (
        UpperLayer.release,
        lambda core: feed(core, ReleaseRQ()),
        lambda core: feed(core, ReleaseRP()),
    ),
    State.AWAITING_CLOSE: (UpperLayer.abort,),
}

REACHABLE = tuple(state for state in State if state is not State.AWAITING_TRANSPORT)
"""Every state in which a call to a core may find it: Sta4 lasts only inside `associate`."""


def reach(state: State, role: Role | None = None) -> UpperLayer:
    """A core in that state, with nothing left to send and no event waiting."""
    role = role or _ROLE_OF_STATE.get(state, Role.REQUESTOR)
    match state:
        case State.IDLE:
            core = UpperLayer(role, max_pdu_length=16384)
        case State.AWAITING_REQUEST:
            core = _awaiting_request()
        case State.AWAITING_LOCAL_RESPONSE:
            core = _awaiting_request()
            feed(core, REQUEST)
        case State.AWAITING_ACCEPT:
            core = _awaiting_accept()
        case _:
            core = _established(role)
            for step in _STEPS_FROM_ESTABLISHED[state]:
                step(core)
    core.data_to_send()
    assert core.state is state
    return core


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """The data cut at these positions, in any order; a position twice makes an empty piece."""
    positions = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return (data[a:b] for a, b in pairwise(positions))


@attrs.frozen
class WholeMessage:
    """A message as a user of the core sees it in the end."""

    context_id: int
    message: Message
    data_set: bytes | None


def whole_messages(events: Iterable[DimseEvent]) -> list[WholeMessage]:
    """The messages in these events, which must be nothing else."""
    whole: list[WholeMessage] = []
    open_data_set = False
    for event in events:
        match event:
            case MessageReceived(context_id, message, has_data_set):
                assert not open_data_set
                whole.append(WholeMessage(context_id, message, b"" if has_data_set else None))
                open_data_set = has_data_set
            case DataSetFragment(data, is_last):
                assert open_data_set
                so_far = whole[-1].data_set or b""
                whole[-1] = attrs.evolve(whole[-1], data_set=so_far + bytes(data))
                open_data_set = not is_last
            case _:
                raise AssertionError(event)
    assert not open_data_set
    return whole


class ConnectionPair:
    """A requestor and an acceptor; what one has to send, `transfer` gives to the other."""

    def __init__(
        self, *, max_pdu_length: int = 16384, window: AsynchronousOperations | None = None
    ):
        self.requestor = DimseConnection(Role.REQUESTOR, max_pdu_length=max_pdu_length)
        self.acceptor = DimseConnection(Role.ACCEPTOR, max_pdu_length=max_pdu_length)
        self.acceptor.upper_layer.transport_connected()
        self.user_information = UserInformation(
            maximum_length=max_pdu_length,
            implementation_class_uid="1.2.3",
            asynchronous_operations=window,
        )

    @classmethod
    def established(
        cls, *, max_pdu_length: int = 16384, window: AsynchronousOperations | None = None
    ) -> ConnectionPair:
        """A pair with the contexts of `REQUEST`, of which context 7 is refused."""
        pair = cls(max_pdu_length=max_pdu_length, window=window)
        pair.requestor.associate(attrs.evolve(REQUEST, user_information=pair.user_information))
        pair.transfer()
        supported = {
            VERIFICATION: (IMPLICIT,),
            CT_IMAGE_STORAGE: (EXPLICIT,),
            STUDY_ROOT_FIND: (IMPLICIT,),
        }
        limit = 1 if window is None else 0
        policy = Policy(supported, max_invoked=limit, max_performed=limit)
        request = attrs.evolve(REQUEST, user_information=pair.user_information)
        own = attrs.evolve(pair.user_information, asynchronous_operations=None)
        pair.acceptor.accept(answer(request, policy, user_information=own))
        pair.transfer()
        return pair

    def transfer(self) -> tuple[list[DimseEvent], list[DimseEvent]]:
        """Move what both have to send until neither has: events of requestor and acceptor."""
        seen: tuple[list[DimseEvent], list[DimseEvent]] = ([], [])
        sides = (self.requestor, self.acceptor)
        while any(side.upper_layer.has_data_to_send for side in sides):
            for sender, receiver, events in (
                (self.requestor, self.acceptor, seen[1]),
                (self.acceptor, self.requestor, seen[0]),
            ):
                events += receive(receiver, [sender.upper_layer.data_to_send()])
        return seen


def receive(core: DimseConnection, blocks: Iterable[bytes]) -> list[DimseEvent]:
    """The events of bytes that arrive in these blocks; fragments are copied while they last."""
    events: list[DimseEvent] = []
    for block in blocks:
        core.upper_layer.receive_data(block)
        while (event := core.next_event()) is not None:
            if isinstance(event, DataSetFragment):
                event = attrs.evolve(event, data=bytes(event.data))
            events.append(event)
    return events
