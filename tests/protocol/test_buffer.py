"""The receive buffer: what goes in comes out, in whatever pieces, and whoever holds what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dimse_trio.protocol.buffer import ReceiveBuffer


@given(
    st.lists(st.binary(max_size=9)),
    st.lists(st.integers(0, 12)),
    st.lists(st.integers(0, 20), min_size=1),
)
def test_bytes_come_out_in_order_and_stay_until_more_come_in(
    blocks: list[bytes], sizes: list[int], rooms: list[int]
) -> None:
    buffer = ReceiveBuffer()
    expected = b"".join(blocks)
    taken = b""
    for number, block in enumerate(blocks):
        if number % 2:
            buffer.append(block)
        else:
            room = buffer.space(len(block) + rooms[number % len(rooms)])
            room[: len(block)] = block
            buffer.filled(len(block))
        held: list[tuple[memoryview, bytes]] = []
        while sizes and (view := buffer.take(sizes[-1])) is not None:
            sizes.pop()
            taken += view
            held.append((view, bytes(view)))
        assert len(taken) + len(buffer) <= len(expected)
        assert all(view == copy for view, copy in held)
    rest = buffer.take(len(buffer))
    assert rest is not None
    assert taken + bytes(rest) == expected


def test_peek_leaves_the_bytes_where_they_are() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"abc")
    assert buffer.peek(2) == b"ab"
    assert buffer.peek(4) is None
    assert buffer.take(4) is None
    assert buffer.take(3) == b"abc"
    assert len(buffer) == 0


def test_what_is_received_is_handed_out_without_a_copy() -> None:
    buffer = ReceiveBuffer()
    room = buffer.space(10)
    room[:] = b"0123456789"
    buffer.filled(10)
    view = buffer.take(4)
    assert view is not None
    assert view.obj is room.obj


def test_an_unfinished_pdu_is_all_that_is_moved() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"abcdefgh")
    assert buffer.take(6) == b"abcdef"
    room = buffer.space(6)
    room[:] = b"ijklmn"
    buffer.filled(6)
    assert buffer.take(8) == b"ghijklmn"


def test_a_large_buffer_is_given_back_when_little_is_asked_for() -> None:
    buffer = ReceiveBuffer()
    large = buffer.space(1 << 18).obj
    assert buffer.space(1 << 17).obj is large
    assert len(buffer.space(1 << 12).obj) == 1 << 12  # type: ignore[arg-type]


def test_a_callers_bytearray_is_neither_kept_nor_changed() -> None:
    block = bytearray(b"abcd")
    buffer = ReceiveBuffer()
    buffer.append(block)
    assert buffer.take(1) == b"a"
    block[:] = b"XXXX"  # the caller reads its next block into it
    buffer.append(memoryview(b"ef"))
    assert block == b"XXXX"
    assert buffer.take(5) == b"bcdef"


def test_a_callers_memoryview_is_not_kept() -> None:
    block = bytearray(b"abcd")
    buffer = ReceiveBuffer()
    buffer.append(memoryview(block))
    block[:] = b"XXXX"
    assert buffer.take(4) == b"abcd"


def test_after_clear_nothing_is_left() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"ab")
    buffer.append(b"cd")
    buffer.clear()
    assert len(buffer) == 0
    buffer.append(b"ef")
    assert buffer.take(2) == b"ef"
