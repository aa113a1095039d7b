"""Whose an X.509 certificate is, and until when, whether or not it is trusted.

Python's `ssl` says that only of a certificate that has been verified, which is of no help where it
has not. So as much of its DER is read here as that takes (RFC 5280 §4.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import attrs

_VERSION = 0xA0
_ATTRIBUTES = {
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
}
"""Those of a name that are shown, by object identifier."""
_TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
_ENCODINGS = {0x1E: "utf-16-be", 0x14: "latin-1"}


@attrs.frozen
class Certificate:
    """A certificate as far as it is shown."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime

    @property
    def is_current(self) -> bool:
        """Whether it is valid by this machine's clock."""
        return self.not_before <= datetime.now(UTC) <= self.not_after


def read_certificate(der: bytes) -> Certificate | None:
    """The certificate in these bytes; `None` if they are none."""
    try:
        (_, certificate), *_ = _elements(der)
        (_, to_be_signed), *_ = _elements(certificate)
        fields = [each for each in _elements(to_be_signed) if each[0] != _VERSION]
        _, _, (_, issuer), (_, validity), (_, subject), *_ = fields
        start, end = (_time(tag, value) for tag, value in _elements(validity))
        return Certificate(_name(subject), _name(issuer), start, end)
    except (ValueError, IndexError, KeyError):
        return None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements in these bytes, tag and content of each."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size])
            position += size
        content = data[position : position + length]
        if len(content) < length:
            raise ValueError("an element goes beyond its end")
        yield tag, content
        position += length


def _name(name: bytes) -> str:
    parts: list[str] = []
    for _, relative in _elements(name):
        for _, attribute in _elements(relative):
            (_, identifier), (tag, value) = _elements(attribute)
            if identifier in _ATTRIBUTES:
                text = value.decode(_ENCODINGS.get(tag, "utf-8"), "replace")
                parts.append(f"{_ATTRIBUTES[identifier]}={text}")
    return ", ".join(parts)


def _time(tag: int, value: bytes) -> datetime:
    return datetime.strptime(value.decode("ascii"), _TIMES[tag]).replace(tzinfo=UTC)
