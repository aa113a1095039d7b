"""`ScriptedPeer`: the other side of an association, played by the test, PDU by PDU.

It does what it is told, in either role, and nothing by itself: refuse, abort, stall, flood, lie
about lengths, answer out of order. It shares the codec with the library and nothing else: no state
machine stops it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, final

import trio

from dimse_trio.protocol.acceptance import Policy, answer
from dimse_trio.protocol.decode import decode_pdu_untrusted
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.messages import Message, decode_command_untrusted, encode_command
from dimse_trio.protocol.negotiation import (
    DEFAULT_TRANSFER_SYNTAXES,
    PresentationContext,
    propose,
)
from dimse_trio.protocol.pdus import (
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    ReleaseRP,
    ReleaseRQ,
    UserInformation,
)

PDUT = TypeVar("PDUT", bound=PDU)
MessageT = TypeVar("MessageT", bound=Message)


class UnexpectedPDU(AssertionError):
    """The other side sent something else than the script expects."""


@final
class ScriptedPeer:
    """A misbehaving peer over any stream. Close the stream yourself.

    Attributes:
        stream: The stream; write raw bytes to it for what is no PDU at all.
        request: The A-ASSOCIATE-RQ, once one was sent or received.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.request: AssociateRQ | None = None
        self._buffer = bytearray()
        self._pdvs: list[PDV] = []

    @classmethod
    async def connect(cls, host: str, port: int) -> ScriptedPeer:
        """A peer on a TCP connection of its own, which has said nothing yet."""
        return cls(await trio.open_tcp_stream(host, port))

    # -- PDUs ------------------------------------------------------------------------------------

    async def send(self, *pdus: PDU) -> None:
        """Send PDUs in one write."""
        await self.stream.send_all(b"".join(map(encode_pdu, pdus)))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes."""
        await self.stream.send_all(data)

    async def receive(self) -> PDU | None:
        """The next PDU; `None` at the end of the stream, clean or not."""
        while len(self._buffer) < 6 or len(self._buffer) < 6 + self._length:
            try:
                data = await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._buffer += data
        end = 6 + self._length
        body = bytes(self._buffer[6:end])
        pdu = decode_pdu_untrusted(self._buffer[0], body)
        del self._buffer[:end]
        return pdu

    @property
    def _length(self) -> int:
        return int.from_bytes(self._buffer[2:6], "big")

    async def expect(self, kind: type[PDUT]) -> PDUT:
        """The next PDU, which is of this kind.

        Raises:
            UnexpectedPDU: It is not, or the stream has ended.
        """
        pdu = await self.receive()
        if not isinstance(pdu, kind):
            raise UnexpectedPDU(f"{kind.__name__} expected, {pdu!r} received")
        return pdu

    async def expect_end(self) -> None:
        """The stream ends with nothing before its end.

        Raises:
            UnexpectedPDU: A PDU came.
        """
        if (pdu := await self.receive()) is not None:
            raise UnexpectedPDU(f"end of stream expected, {pdu!r} received")

    # -- association -----------------------------------------------------------------------------

    async def accept(
        self,
        transfer_syntaxes: Sequence[str] = DEFAULT_TRANSFER_SYNTAXES,
        *,
        user_information: UserInformation | None = None,
        max_performed: int = 1,
    ) -> AssociateRQ:
        """As acceptor: take the A-ASSOCIATE-RQ and accept every context, with all roles."""
        self.request = await self.expect(AssociateRQ)
        abstract_syntaxes = {c.abstract_syntax for c in self.request.contexts}
        policy = Policy(
            dict.fromkeys(abstract_syntaxes, transfer_syntaxes),
            role_scu=abstract_syntaxes,
            max_performed=max_performed,
        )
        await self.send(
            answer(
                self.request,
                policy,
                user_information=user_information or UserInformation(maximum_length=16384),
            )
        )
        return self.request

    async def reject(self, result: int, source: int, reason: int) -> None:
        """As acceptor: take the A-ASSOCIATE-RQ and reject it."""
        self.request = await self.expect(AssociateRQ)
        await self.send(AssociateRJ(result, source, reason))

    async def associate(
        self,
        contexts: Iterable[PresentationContext],
        *,
        called_ae_title: str = "ANY-SCP",
        calling_ae_title: str = "SCRIPT",
        user_information: UserInformation | None = None,
    ) -> AssociateAC:
        """As requestor: ask for an association and take the acceptance."""
        self.request = propose(
            contexts,
            called_ae_title=called_ae_title,
            calling_ae_title=calling_ae_title,
            user_information=user_information or UserInformation(maximum_length=16384),
        )
        await self.send(self.request)
        return await self.expect(AssociateAC)

    async def release(self) -> None:
        """Ask for release and take the answer."""
        await self.send(ReleaseRQ())
        await self.expect(ReleaseRP)

    async def respond_to_release(self) -> None:
        """Take an A-RELEASE-RQ and answer it."""
        await self.expect(ReleaseRQ)
        await self.send(ReleaseRP())

    async def abort(self, source: int = 0, reason: int = 0) -> None:
        """Send A-ABORT."""
        await self.send(Abort(source, reason))

    # -- messages --------------------------------------------------------------------------------

    @staticmethod
    def message_pdus(
        context_id: int, message: Message, data: bytes | None = None, *, fragment: int = 16000
    ) -> list[PDataTF]:
        """The P-DATA-TF PDUs of a message, one PDV each, to be sent as the script likes."""
        command = encode_command(message, has_data_set=data is not None)
        pdus = [PDataTF((PDV(context_id, True, True, command),))]
        if data is not None:
            for start in range(0, max(len(data), 1), fragment):
                piece = data[start : start + fragment]
                last = start + fragment >= len(data)
                pdus.append(PDataTF((PDV(context_id, False, last, piece),)))
        return pdus

    async def send_message(
        self, context_id: int, message: Message, data: bytes | None = None
    ) -> None:
        """Send a whole message."""
        await self.send(*self.message_pdus(context_id, message, data))

    async def receive_message(self) -> tuple[int, Message, bytes | None]:
        """The next message: context ID, command, and data set if there is one.

        Raises:
            UnexpectedPDU: Another PDU than P-DATA-TF came.
        """
        command = b""
        while True:
            pdv = await self._receive_pdv()
            command += pdv.data
            if pdv.is_last:
                break
        message, has_data_set = decode_command_untrusted(command)
        if not has_data_set:
            return pdv.context_id, message, None
        data = b""
        while True:
            pdv = await self._receive_pdv()
            data += pdv.data
            if pdv.is_last:
                return pdv.context_id, message, data

    async def expect_message(self, kind: type[MessageT]) -> MessageT:
        """The next message, which is of this kind; its data set is dropped.

        Raises:
            UnexpectedPDU: It is not.
        """
        _, message, _ = await self.receive_message()
        if not isinstance(message, kind):
            raise UnexpectedPDU(f"{kind.__name__} expected, {message!r} received")
        return message

    async def _receive_pdv(self) -> PDV:
        while not self._pdvs:
            self._pdvs += (await self.expect(PDataTF)).pdvs
        return self._pdvs.pop(0)
