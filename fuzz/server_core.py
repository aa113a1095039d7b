"""atheris target: a whole core, upper layer or DIMSE, that is fed a peer's bytes and answers them.

The first byte of an input says which core and in what state, the second how the rest is cut:

==== ========================================================================
bits first byte
==== ========================================================================
0-1  0 bare `UpperLayer`, 1 `DimseConnection` before any request, 2 the same
     after a valid A-ASSOCIATE-RQ, 3 a requestor after A-ASSOCIATE-AC
2    whether requests, releases and the like are answered
3    whether the asynchronous operations window is unlimited
4    whether this side has asked for release before
5    whether the peer closes the connection at the end, or ARTIM expires
==== ========================================================================

The mutator mostly keeps frames whole, so that what is behind a PDU's length is reached. What must
hold is in `watch`. See README.rst.
"""

from __future__ import annotations

import random
import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["dimse_trio.protocol"]):
    from dimse_trio.protocol.acceptance import Policy, answer
    from dimse_trio.protocol.decode import decode_pdu_untrusted
    from dimse_trio.protocol.dimse import DimseConnection
    from dimse_trio.protocol.encode import encode_pdu
    from dimse_trio.protocol.errors import LocalProtocolError
    from dimse_trio.protocol.events import (
        AssociateAccepted,
        AssociateRequested,
        MessageReceived,
        ReleaseConfirmed,
        ReleaseRequested,
    )
    from dimse_trio.protocol.messages import Request
    from dimse_trio.protocol.pdus import (
        AssociateRQ,
        AsynchronousOperations,
        ProposedContext,
        UserInformation,
    )
    from dimse_trio.protocol.state import State
    from dimse_trio.protocol.status import Status
    from dimse_trio.protocol.upper_layer import MIN_PDATA_LIMIT, Role, UpperLayer

HEADER = 6
VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT = "1.2.840.10008.1.2"
UNLIMITED = AsynchronousOperations(0, 0)
MAX_PDU_LENGTH = 16384


def request(window: AsynchronousOperations | None) -> AssociateRQ:
    """What the requestor of a prefix asks for: contexts 1, 3, 5, of which all are accepted."""
    return AssociateRQ(
        called_ae_title="ARCHIVE",
        calling_ae_title="FUZZ",
        contexts=tuple(
            ProposedContext(number, uid, (IMPLICIT,))
            for number, uid in ((1, VERIFICATION), (3, CT), (5, FIND))
        ),
        user_information=UserInformation(
            maximum_length=MAX_PDU_LENGTH,
            implementation_class_uid="1.2.3",
            asynchronous_operations=window,
        ),
    )


OWN = UserInformation(maximum_length=MAX_PDU_LENGTH, implementation_class_uid="1.2.3")


def policy(*, unlimited: bool) -> Policy:
    """All three contexts, a window of 1 or none."""
    window = 0 if unlimited else 1
    supported = dict.fromkeys((VERIFICATION, CT, FIND), (IMPLICIT,))
    return Policy(supported, max_invoked=window, max_performed=window)


PREFIXES = {unlimited: request(UNLIMITED if unlimited else None) for unlimited in (False, True)}
ENCODED_RQ = {unlimited: encode_pdu(rq) for unlimited, rq in PREFIXES.items()}
ENCODED_AC = {
    unlimited: encode_pdu(answer(rq, policy(unlimited=unlimited), user_information=OWN))
    for unlimited, rq in PREFIXES.items()
}


class Peer:
    """One run: a core, what it has emitted, and whether it is answered for."""

    def __init__(self, mode: int) -> None:
        self.answers = bool(mode & 4)
        self.unlimited = bool(mode & 8)
        self.dimse: DimseConnection | None = None
        self.largest = 0
        kind = mode & 3
        role = Role.REQUESTOR if kind == 3 else Role.ACCEPTOR
        if kind == 0:
            self.core = UpperLayer(role, max_pdu_length=MAX_PDU_LENGTH)
        else:
            self.dimse = DimseConnection(role, max_pdu_length=MAX_PDU_LENGTH)
            self.core = self.dimse.upper_layer
        if kind == 3:
            assert self.dimse is not None
            self.dimse.associate(PREFIXES[self.unlimited])
            self.feed(ENCODED_AC[self.unlimited])
            assert self.core.state is State.ESTABLISHED
        else:
            self.core.transport_connected()
        if kind == 2:
            answers, self.answers = self.answers, True
            self.feed(ENCODED_RQ[self.unlimited])
            self.answers = answers
            assert self.core.state is State.ESTABLISHED
        if mode & 16 and self.core.state is State.ESTABLISHED:
            self.core.release()

    def feed(self, data: bytes) -> None:
        """Bytes from the peer, the events they cause, and the answers to those."""
        self.core.receive_data(data)
        self.largest = max(self.largest, len(data))
        next_event = self.core.next_event if self.dimse is None else self.dimse.next_event
        while (event := next_event()) is not None:
            if self.answers:
                with suppress(LocalProtocolError):  # the peer has changed the state since
                    self.answer(event)
            self.watch()
        self.watch()

    def answer(self, event: object) -> None:
        match event:
            case AssociateRequested(request=rq):
                accept = answer(rq, policy(unlimited=self.unlimited), user_information=OWN)
                (self.dimse or self.core).accept(accept)
            case ReleaseRequested():
                if self.core.state is not State.COLLISION_ACCEPTOR_PEER:
                    self.core.respond_to_release()
            case ReleaseConfirmed() if self.core.state is State.COLLISION_ACCEPTOR_LOCAL:
                self.core.respond_to_release()
            case MessageReceived(context_id=context_id, message=Request() as rq):
                assert self.dimse is not None
                response = rq.response(
                    message_id_being_responded_to=rq.message_id, status=Status.SUCCESS
                )
                self.dimse.command_pdus(context_id, response, has_data_set=False)
            case AssociateAccepted():
                assert self.dimse is None or self.dimse.negotiated.accepted is not None
            case _:
                pass

    def watch(self) -> None:
        """What holds at any time, whatever the peer sends."""
        core = self.core
        assert core.artim_running == (
            core.state in (State.AWAITING_REQUEST, State.AWAITING_CLOSE)
        ), core.state
        assert len(core._buffer) <= MIN_PDATA_LIMIT + HEADER + self.largest
        data = core.data_to_send()
        while data:
            end = HEADER + int.from_bytes(data[2:HEADER], "big")
            assert end <= len(data)
            decode_pdu_untrusted(data[0], data[HEADER:end])
            data = data[end:]

    def end(self, *, by_artim: bool) -> None:
        """The connection ends, and the core with it."""
        if by_artim:
            if not self.core.artim_running:
                if self.core.state is State.IDLE:
                    return
                self.core.abort()
            self.core.artim_expired()
        else:
            self.core.receive_eof()
        self.feed(b"")
        assert self.core.state is State.IDLE
        assert not self.core.artim_running


def check(data: bytes) -> None:
    """Run one input."""
    if len(data) < 2:
        return
    mode, cut = data[0], data[1]
    peer = Peer(mode)
    size = 1 << 17 if cut >= 128 else max(cut % 61 + 1, len(data) // 12)
    for start in range(2, len(data), size):
        peer.feed(data[start : start + size])
    peer.end(by_artim=bool(mode & 32))


def frames_of(data: bytes) -> list[bytes]:
    """The PDUs in some bytes; the last one may be cut."""
    frames: list[bytes] = []
    while data:
        end = HEADER + int.from_bytes(data[2:HEADER], "big")
        frames.append(data[:end])
        data = data[end:]
    return frames


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change one frame and set its length right, or move frames about, or anything at all."""
    pick = random.Random(seed)
    frames = frames_of(data[2:])
    kind = pick.randrange(8)
    if kind == 0 or not frames:
        return bytes(atheris.Mutate(data, len(data)))
    head = bytearray(data[:2])
    index = pick.randrange(len(frames))
    frame = frames[index]
    if kind == 1:
        head[pick.randrange(2)] = pick.randrange(256)
    elif kind == 2:
        frames.insert(pick.randrange(len(frames) + 1), frame)
    elif kind == 3:
        del frames[index]
    elif kind == 4:
        other = pick.randrange(len(frames))
        frames[index], frames[other] = frames[other], frame
    elif len(frame) > HEADER:
        body = bytes(atheris.Mutate(frame[HEADER:], len(frame) + 16))
        kind_of_pdu = pick.randrange(1, 8) if pick.randrange(16) == 0 else frame[0]
        frames[index] = bytes((kind_of_pdu, 0)) + len(body).to_bytes(4, "big") + body
    return (bytes(head) + b"".join(frames))[:max_size]


if __name__ == "__main__":
    atheris.Setup(sys.argv, check, custom_mutator=mutate)
    atheris.Fuzz()
