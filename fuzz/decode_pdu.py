"""atheris target: a PDU of any bytes decodes or is `MalformedPDU`; what decodes survives encoding.

The input is one PDU, header included, of which the length is not looked at: a decoder gets whatever
is there. See README.rst.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["dimse_trio.protocol"]):
    from dimse_trio.protocol.decode import decode_pdu_untrusted
    from dimse_trio.protocol.encode import encode_pdu
    from dimse_trio.protocol.errors import MalformedPDU

HEADER = 6


def check(data: bytes) -> None:
    """Decode, encode, decode again: nothing but `MalformedPDU`, and the same value twice."""
    if not data:
        return
    try:
        pdu = decode_pdu_untrusted(data[0], data[HEADER:])
    except MalformedPDU:
        return
    encoded = encode_pdu(pdu)
    assert encoded[0] == data[0]
    assert int.from_bytes(encoded[2:HEADER], "big") == len(encoded) - HEADER
    again = decode_pdu_untrusted(encoded[0], encoded[HEADER:])
    assert again == pdu, (pdu, again)


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
