"""The receive buffer: what goes in comes out, in whatever pieces, and whoever holds what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dimse_trio.protocol.buffer import ReceiveBuffer


@given(st.lists(st.binary(max_size=9)), st.lists(st.integers(0, 12)), st.booleans())
def test_bytes_come_out_in_order_even_while_views_are_held(
    blocks: list[bytes], sizes: list[int], hold: bool
) -> None:
    buffer = ReceiveBuffer()
    expected = b"".join(blocks)
    taken = b""
    held: list[tuple[memoryview, bytes]] = []
    for block in blocks:
        buffer.append(block)
        while sizes and (view := buffer.take(sizes[-1])) is not None:
            sizes.pop()
            taken += view
            if hold:
                held.append((view, bytes(view)))
        assert len(taken) + len(buffer) <= len(expected)
    rest = buffer.take(len(buffer))
    assert rest is not None
    assert taken + bytes(rest) == expected
    assert all(view == copy for view, copy in held)


def test_peek_leaves_the_bytes_where_they_are() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"abc")
    assert buffer.peek(2) == b"ab"
    assert buffer.peek(4) is None
    assert buffer.take(4) is None
    assert buffer.take(3) == b"abc"
    assert len(buffer) == 0


def test_one_block_is_handed_out_without_a_copy() -> None:
    block = b"0123456789"
    buffer = ReceiveBuffer()
    buffer.append(block)
    view = buffer.take(4)
    assert view is not None
    assert view.obj is block


def test_a_view_outlives_bytes_that_arrive_later() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"ab")
    buffer.append(b"cdef")
    view = buffer.take(3)
    buffer.append(b"gh")
    assert view == b"abc"
    assert buffer.take(5) == b"defgh"


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
