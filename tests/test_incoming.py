"""What arrives before its reader wants it: order, bounds, and nothing lost on the way to disk."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dimse_trio.errors import DataSetTooLarge, DimseError
from dimse_trio.incoming import Inbox, IncomingDataSet, Spool


@given(
    st.lists(st.one_of(st.none(), st.binary(max_size=20)), max_size=60),
    st.integers(min_value=1, max_value=40),
)
def test_a_spool_is_first_in_first_out_and_holds_its_limit_in_memory(
    steps: list[bytes | None], limit: int
) -> None:
    spool, expected = Spool(limit), deque[bytes]()
    for step in steps:
        if step is None:
            assert spool.popleft() == (expected.popleft() if expected else None)
        else:
            spool.append(step)
            expected.append(step)
        assert spool.in_memory < limit + 20
    while expected:
        assert spool.popleft() == expected.popleft()
    assert spool.popleft() is None
    spool.close()


async def test_a_reader_gets_what_came_before_the_failure_and_then_the_failure() -> None:
    inbox = Inbox(100)
    inbox.put(b"one")
    inbox.fail(DimseError("gone"))
    assert await inbox.get() == b"one"
    with pytest.raises(DimseError, match="gone"):
        await inbox.get()


async def test_a_waiting_reader_is_woken_by_data_and_by_the_end(autojump_clock: object) -> None:
    inbox = Inbox(100)
    got: list[bytes | None] = []

    async def read() -> None:
        got.append(await inbox.get())
        got.append(await inbox.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        inbox.put(b"data")
        await trio.testing.wait_all_tasks_blocked()
        inbox.end()
    assert got == [b"data", None]


async def test_a_discarded_inbox_keeps_nothing_and_is_never_full() -> None:
    inbox = Inbox(2)
    inbox.put(b"1234")
    assert inbox.full
    inbox.discard()
    inbox.put(b"5678")
    inbox.end()
    assert not inbox.full
    with pytest.raises(DimseError, match="too late"):
        await inbox.get()


async def test_a_data_set_over_its_limit_fails_its_reader_but_arrives_whole() -> None:
    data_set = IncomingDataSet(memory_limit=100, size_limit=4)
    data_set.feed(b"123", False)
    data_set.feed(b"456", False)
    data_set.feed(b"789", True)
    await data_set.wait_complete()
    with pytest.raises(DataSetTooLarge):
        await data_set.read()


async def test_a_data_set_can_be_taken_once() -> None:
    data_set = IncomingDataSet(memory_limit=4, size_limit=100)
    for fragment in (b"1234", b"5678", b""):
        data_set.feed(fragment, fragment == b"")
    assert await data_set.read() == b"12345678"
    with pytest.raises(DimseError, match="read already"):
        await data_set.read()
    data_set.inbox.discard()
