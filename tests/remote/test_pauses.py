"""What `RemoteAE.store` waits for between its tries."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from .peers import Taker, remote


@pytest.mark.parametrize(("retries", "pauses"), [(0, []), (1, [1]), (3, [1, 2, 4])])
async def test_each_pause_is_twice_as_long_as_the_one_before(
    retries: int, pauses: list[int], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dimse_trio as dimse

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("dimse_trio.sending.trio.sleep", sleep)
    async with dimse.open_server(Taker(breaks={"1.2.3.0": 9})) as server:
        peer = remote(server.port, retries=retries, pause=1)
        [outcome] = await peer.store(files[0])
    assert not outcome.stored
    assert slept == pauses
