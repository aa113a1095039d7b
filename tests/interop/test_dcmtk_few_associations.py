"""DCMTK's programs where they take one association at a time: `RemoteAE` makes way for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

import dimse_trio as dimse

from .samples import Sample

pytestmark = pytest.mark.interop


async def test_storescp_leaves_the_second_request_unanswered_and_is_found_out(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    one, other = (study[syntax].path for syntax in ("ExplicitVRLittleEndian", "RLELossless"))
    took: list[float] = []
    async with (
        dcmtk.storescp(tmp_path, fork=False) as peer,
        dimse.RemoteAE(peer.ae_title, peer.host, peer.port) as remote,
    ):
        for path in (one, other, one, other):
            started = trio.current_time()
            [outcome] = await remote.store(path)
            took.append(trio.current_time() - started)
            assert outcome.stored
    assert 1 <= took[1] < 10
    assert took[2] < 1 > took[3]


@pytest.mark.parametrize("most", [1, 8])
async def test_dcmqrscp_rejects_the_second_until_it_has_noticed_the_end_of_the_first(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path, most: int
) -> None:
    path = study["ExplicitVRLittleEndian"].path
    async with (
        dcmtk.dcmqrscp(tmp_path, path, max_associations=1) as peer,
        dimse.RemoteAE(peer.ae_title, peer.host, peer.port, max_associations=most) as remote,
    ):
        for _ in range(2):
            await remote.echo()
            assert len(await remote.find_studies()) == 1
            async with remote.association() as association:
                await association.echo()
