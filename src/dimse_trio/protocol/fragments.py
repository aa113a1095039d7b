"""Messages to PDVs and back (PS3.8 §9.3.5.1, Annex E; PS3.7 §6.3).

Out: one PDV per P-DATA-TF, every fragment of even length. In: PDVs however the peer cut them; the
fragments of a command set are gathered up to a bound, those of a data set are passed on as they
come. Messages on one association do not interleave, so there is one `Assembler` per direction.
"""

from __future__ import annotations

from collections.abc import Iterator

from .encode import PDV_OVERHEAD
from .errors import AbortReason, MalformedCommand, RemoteProtocolError
from .events import DataSetFragment, MessageReceived
from .messages import decode_command_untrusted
from .pdus import PDV

MAX_FRAGMENT = (1 << 17) - PDV_OVERHEAD
"""Longest fragment sent, in bytes, to a peer that takes more or any length: beyond 128 KiB a PDU
saves no further system calls worth having, and it is what DCMTK can receive."""
MIN_FRAGMENT = 2
DEFAULT_MAX_COMMAND_LENGTH = 1 << 16
"""Longest command set taken, in bytes. The longest of the standard has a few hundred; an attribute
identifier list of every attribute there is would still fit."""


def fragment_length(peer_maximum: int | None) -> int:
    """How many bytes of a message go into one P-DATA-TF, given the peer's maximum length.

    Some peers count the 6 bytes of the PDU header too, hence 12 and not 6 bytes less.
    """
    if not peer_maximum:
        return MAX_FRAGMENT
    length = min(peer_maximum - PDV_OVERHEAD - 6, MAX_FRAGMENT)
    return max(length - length % 2, MIN_FRAGMENT)


def split(data: bytes | memoryview, length: int) -> Iterator[tuple[memoryview, bool]]:
    """Fragments of at most `length` bytes, each with whether it is the last; at least one."""
    view = memoryview(data)
    total = len(view)
    for start in range(0, max(total, 1), length):
        yield view[start : start + length], start + length >= total


class Assembler:
    """Gathers the PDVs of one direction into messages.

    Args:
        max_command_length: Longest command set taken, in bytes.
    """

    __slots__ = ("_command", "_context_id", "_in_data_set", "_max_command_length")

    def __init__(self, max_command_length: int = DEFAULT_MAX_COMMAND_LENGTH) -> None:
        self._max_command_length = max_command_length
        self._command = bytearray()
        self._context_id: int | None = None
        self._in_data_set = False

    @property
    def idle(self) -> bool:
        """Whether the last message is complete and no other has begun."""
        return self._context_id is None

    def feed_untrusted(self, pdv: PDV) -> MessageReceived | DataSetFragment | None:
        """Take the next PDV; `None` while a command set is incomplete.

        Raises:
            RemoteProtocolError: The PDV does not continue the message in hand.
        """
        if self._context_id is not None and pdv.context_id != self._context_id:
            raise RemoteProtocolError(
                f"a fragment for presentation context {pdv.context_id} inside a message on"
                f" context {self._context_id}",
                AbortReason.UNEXPECTED_PDU_PARAMETER,
            )
        if pdv.is_command is self._in_data_set:
            raise RemoteProtocolError(
                "a command fragment inside a data set"
                if pdv.is_command
                else "a data set fragment without a command before it",
                AbortReason.UNEXPECTED_PDU_PARAMETER,
            )
        self._context_id = pdv.context_id
        if self._in_data_set:
            if pdv.is_last:
                self._reset()
            return DataSetFragment(pdv.data, pdv.is_last)
        if len(self._command) + len(pdv.data) > self._max_command_length:
            raise MalformedCommand(f"a command set of more than {self._max_command_length} bytes")
        self._command += pdv.data
        if not pdv.is_last:
            return None
        message, has_data_set = decode_command_untrusted(bytes(self._command))
        self._reset()
        if has_data_set:
            self._context_id = pdv.context_id
            self._in_data_set = True
        return MessageReceived(pdv.context_id, message, has_data_set)

    def _reset(self) -> None:
        self._command.clear()
        self._context_id = None
        self._in_data_set = False
