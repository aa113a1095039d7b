"""`PcapngWriter`: what goes over associations, as a capture that Wireshark and tshark read.

What is written are the DICOM bytes, so that TLS is no obstacle, in synthetic Ethernet, IP and TCP
with the addresses and ports of the connection. The format is pcapng (draft-ietf-opsawg-pcapng);
IP is RFC 791 and RFC 8200, TCP RFC 9293.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Self, final

import attrs

from .instruments import Address, ConnectionEnd, ConnectionInfo, Instrument, Role, WireData
from .version import __version__

logger = logging.getLogger("dimse_trio.capture")

MAX_SEGMENT = 60_000
"""Bytes of DICOM in one packet: an IP packet has at most 65,535."""
ACKNOWLEDGED = 1 << 20
"""Bytes of one direction after which the other one says that it has them."""
FIRST_PORT = 49152
"""Where the ports begin that are made up, the dynamic ones (RFC 6335)."""

_SECTION_HEADER, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_COMMENT, _APPLICATION, _TIME_RESOLUTION = 1, 4, 9
_ETHERNET = 1
_FIN, _SYN, _PSH, _ACK = 0x01, 0x02, 0x08, 0x10
_TCP = 6
_TCP_OPTIONS = struct.pack(">BBHBBBB", 2, 4, MAX_SEGMENT, 1, 3, 3, 14)
"""Of a SYN: the longest segment, and a window that is large enough for any PDU."""
_MADE_UP = {Role.REQUESTOR: "192.0.2.1", Role.ACCEPTOR: "192.0.2.2"}
"""Addresses for documentation (RFC 5737), for streams that have none."""


@final
class PcapngWriter(Instrument):
    """Writes what its associations send and receive to a pcapng file, for Wireshark and tshark.

    It holds everything, patient data too; it can be read by its owner only, where the system knows
    that. Every packet is on its way to the disk when its hook returns: after a crash the capture is
    readable up to there. Use it in a block, or call `close`.

    Addresses and ports are the connection's, made up where it has none, as over memory streams. A
    connection with addresses whose two sides have the same writer is written once.

    Args:
        path: The file, which is overwritten; or a pipe whose reader, a running Wireshark say, keeps
            up: every write waits for it.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600
        )
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        if hasattr(os, "fchmod"):  # it may have been there already
            os.fchmod(descriptor, 0o600)
        self._path = os.fspath(path)
        self._said_closed = False
        self._flows: dict[ConnectionInfo, _Flow] = {}
        self._ends: set[frozenset[_End]] = set()
        self._file.write(_section_header() + _interface())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file.

        What associations that are still open send and receive is not in it, which is logged once.
        """
        self._flows.clear()
        self._file.close()

    def connection_opened(self, connection: ConnectionInfo, /) -> None:
        """Write TCP's handshake."""
        flow = _Flow.of(connection)
        # both sides may be in this process, and tell of the same packets
        if self._is_closed() or flow.ends in self._ends:
            return
        self._flows[connection] = flow
        self._ends.add(flow.ends)
        how = f", {connection.tls}, decrypted" if connection.tls else ""
        comment = f"connection {connection.number} of a {connection.role.value}{how}"
        self._write(
            _packet(flow.segment(Role.REQUESTOR, _SYN), comment),
            _packet(flow.segment(Role.ACCEPTOR, _SYN | _ACK)),
            _packet(flow.segment(Role.REQUESTOR, _ACK)),
        )

    def bytes_sent(self, sent: WireData, /) -> None:
        """Write what this side sends."""
        self._data(sent, sent.connection.role)

    def bytes_received(self, received: WireData, /) -> None:
        """Write what the peer sends."""
        self._data(received, _other(received.connection.role))

    def connection_closed(self, end: ConnectionEnd, /) -> None:
        """Write TCP's end."""
        flow = self._flows.pop(end.connection, None)
        if flow is None:
            return
        self._ends.discard(flow.ends)
        us = end.connection.role
        self._write(
            _packet(flow.segment(us, _FIN | _ACK)),
            _packet(flow.segment(_other(us), _FIN | _ACK)),
            _packet(flow.segment(us, _ACK)),
        )

    def _is_closed(self) -> bool:
        """Whether the file is closed; who still tells of something then is told so, once."""
        if self._file.closed and not self._said_closed:
            self._said_closed = True
            logger.warning(
                "the capture %s has been closed: what is sent and received from now on is not in"
                " it; close it after the associations and servers that it is given to",
                self._path,
            )
        return self._file.closed

    def _data(self, wire: WireData, sender: Role) -> None:
        flow = self._flows.get(wire.connection)
        if self._is_closed() or flow is None:
            return
        data = memoryview(wire.data)
        packets: list[bytes] = []
        for start in range(0, len(data), MAX_SEGMENT):
            segment = bytes(data[start : start + MAX_SEGMENT])
            packets.append(_packet(flow.segment(sender, _PSH | _ACK, segment)))
            if flow.unacknowledged(sender) >= ACKNOWLEDGED:
                packets.append(_packet(flow.segment(_other(sender), _ACK)))
        self._write(*packets)

    def _write(self, *packets: bytes) -> None:
        """Write whole packets in one go, so that a crash cuts none."""
        rest = memoryview(b"".join(packets))
        whole = self._file.tell() if self._file.seekable() else None  # it may be a pipe
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError:  # the disk is full: what is there ends with a whole packet
            if whole is not None:
                self._file.truncate(whole)
            raise


# -- TCP -------------------------------------------------------------------------------------------


@attrs.frozen
class _End:
    """One end of a connection: whose address and port packets bear."""

    address: IPv4Address | IPv6Address
    port: int


@attrs.define(eq=False)
class _Flow:
    """A TCP connection: who is at its ends, and how much each has sent."""

    of_role: dict[Role, _End]
    ends: frozenset[_End] = attrs.field(init=False)
    _next: dict[Role, int] = attrs.field(init=False, factory=lambda: dict.fromkeys(Role, 0))
    _acknowledged: dict[Role, int] = attrs.field(init=False, factory=lambda: dict.fromkeys(Role, 0))

    def __attrs_post_init__(self) -> None:
        self.ends = frozenset(self.of_role.values())

    @classmethod
    def of(cls, connection: ConnectionInfo) -> Self:
        """The flow of a connection; what is not known of it is made up."""
        peer = _other(connection.role)
        made_up = {
            Role.REQUESTOR: FIRST_PORT + connection.number % (0x10000 - FIRST_PORT),
            Role.ACCEPTOR: 104,
        }
        ends = {
            role: _end(address or (_MADE_UP[role], made_up[role]), role)
            for role, address in (
                (connection.role, connection.local_address),
                (peer, connection.peer_address),
            )
        }
        if ends[Role.REQUESTOR].address.version != ends[Role.ACCEPTOR].address.version:
            ends = {role: _end((_MADE_UP[role], end.port), role) for role, end in ends.items()}
        return cls(ends)

    def segment(self, sender: Role, flags: int, data: bytes = b"") -> bytes:
        """The Ethernet frame of the next segment of `sender`, which acknowledges all so far."""
        receiver = _other(sender)
        source, destination = self.of_role[sender], self.of_role[receiver]
        acknowledged = 0
        if flags & _ACK:
            acknowledged = self._acknowledged[receiver] = self._next[receiver]
        options = _TCP_OPTIONS if flags & _SYN else b""
        tcp = struct.pack(
            ">HHIIBBHHH",
            source.port,
            destination.port,
            self._next[sender] & 0xFFFFFFFF,
            acknowledged & 0xFFFFFFFF,
            (20 + len(options)) << 2,
            flags,
            0xFFFF,
            0,
            0,
        )
        self._next[sender] += len(data) + bool(flags & (_SYN | _FIN))
        addresses = source.address.packed + destination.address.packed
        return _frame(sender, addresses, tcp + options + data)

    def unacknowledged(self, sender: Role) -> int:
        """Bytes that the other side has not said that it has."""
        return self._next[sender] - self._acknowledged[sender]


def _end(address: Address, role: Role) -> _End:
    try:
        ip = ip_address(address[0].partition("%")[0])
    except ValueError:
        ip = ip_address(_MADE_UP[role])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return _End(ip, address[1])


def _other(role: Role) -> Role:
    return Role.ACCEPTOR if role is Role.REQUESTOR else Role.REQUESTOR


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): the one's complement of the sum of 16-bit words."""
    padded = data + b"\0" * (len(data) % 2)
    return 0xFFFF - int.from_bytes(padded, "big") % 0xFFFF


def _frame(sender: Role, addresses: bytes, tcp: bytes) -> bytes:
    """TCP in IP in Ethernet, with checksums. `addresses` are source and destination."""
    pseudo_header = addresses + struct.pack(">IHH", len(tcp), 0, _TCP)
    if len(addresses) == 8:
        pseudo_header = addresses + struct.pack(">BBH", 0, _TCP, len(tcp))
        fixed = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, _TCP, 0)
        check = struct.pack(">H", _checksum(fixed + addresses))
        header = fixed[:10] + check + addresses
    else:
        header = struct.pack(">IHBB", 6 << 28, len(tcp), _TCP, 64) + addresses
    check = struct.pack(">H", _checksum(pseudo_header + tcp))
    hosts = [b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"]  # locally administered; the requestor's is ...1
    if sender is Role.REQUESTOR:
        hosts.reverse()
    ether_type = b"\x08\x00" if len(addresses) == 8 else b"\x86\xdd"
    return b"".join((*hosts, ether_type, header, tcp[:16], check, tcp[18:]))


# -- pcapng ----------------------------------------------------------------------------------------


def _block(block_type: int, body: bytes, *options: tuple[int, bytes]) -> bytes:
    """A block: type, length, body and options, length again; all in 32-bit words."""
    body = _padded(body)
    for code, value in options:
        body += struct.pack("<HH", code, len(value)) + _padded(value)
    if options:
        body += struct.pack("<HH", 0, 0)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", block_type) + length + body + length


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _section_header() -> bytes:
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    return _block(_SECTION_HEADER, body, (_APPLICATION, f"dimse-trio {__version__}".encode()))


def _interface() -> bytes:
    """One interface: Ethernet, packets of any length, time in nanoseconds."""
    return _block(_INTERFACE, struct.pack("<HHI", _ETHERNET, 0, 0), (_TIME_RESOLUTION, b"\x09"))


def _packet(frame: bytes, comment: str = "", now: Callable[[], int] = time.time_ns) -> bytes:
    high, low = divmod(now(), 1 << 32)
    header = struct.pack("<IIIII", 0, high, low, len(frame), len(frame))
    options = [(_COMMENT, comment.encode())] if comment else []
    return _block(_PACKET, header + frame, *options)
