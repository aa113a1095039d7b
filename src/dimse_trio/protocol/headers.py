"""Where PDUs begin and end in bytes that nobody has decoded (PS3.8 §9.3.1)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .pdus import PDUType
from .upper_layer import HEADER_LENGTH

_LENGTH = struct.Struct(">xxL")
_TYPES = frozenset(PDUType)


class PDUHeaders:
    """Finds the PDUs in one direction's bytes, which may be cut anywhere."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self._lost = False

    def feed_untrusted(self, data: bytes | memoryview) -> Iterator[tuple[PDUType, int]]:
        """Type and PDU-length of each PDU whose last byte is in `data`.

        After a type that there is not, nothing that follows is taken for a PDU.
        """
        view = memoryview(data)
        while len(view) and not self._lost:
            if len(self._header) < HEADER_LENGTH:
                wanted = HEADER_LENGTH - len(self._header)
                self._header += view[:wanted]
                view = view[wanted:]
                if len(self._header) < HEADER_LENGTH:
                    return
                (self._left,) = _LENGTH.unpack(self._header)
                self._lost = self._header[0] not in _TYPES
            taken = min(self._left, len(view))
            self._left -= taken
            view = view[taken:]
            if not self._left and not self._lost:
                pdu_type = PDUType(self._header[0])
                (length,) = _LENGTH.unpack(self._header)
                self._header.clear()
                yield pdu_type, length
