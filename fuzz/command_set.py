"""atheris target: a command set of any bytes decodes or is `MalformedCommand`; then it survives.

A value of odd length gets a NUL when it is encoded, and elements are put in order, so what is
compared is the second decoding with the third, and with the first but for that. See README.rst.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["dimse_trio.protocol"]):
    import attrs

    from dimse_trio.protocol.errors import MalformedCommand
    from dimse_trio.protocol.messages import Message, decode_command_untrusted, encode_command


def comparable(message: Message) -> Message:
    """The message with its unknown elements in order and of even length."""
    unknown = sorted((tag, raw + b"\0" * (len(raw) % 2)) for tag, raw in message.unknown)
    return attrs.evolve(message, unknown=tuple(unknown))


def check(data: bytes) -> None:
    """Decode, encode, decode again: nothing but `MalformedCommand`, and the same message twice."""
    try:
        message, has_data_set = decode_command_untrusted(data)
    except MalformedCommand:
        return
    encoded = encode_command(message, has_data_set=has_data_set)
    assert len(encoded) % 2 == 0
    again, still_has_data_set = decode_command_untrusted(encoded)
    assert still_has_data_set == has_data_set
    assert again == comparable(message), (message, again)
    assert encode_command(again, has_data_set=has_data_set) == encoded


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
