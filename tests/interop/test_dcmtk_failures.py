"""DCMTK refuses, aborts and dies: what our requestor makes of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import dimse_trio as dimse

from .samples import Sample

pytestmark = pytest.mark.interop

VERIFICATION = dimse.PresentationContext(dimse.uid_of("Verification"))


@pytest.mark.parametrize("program", ["storescp", "dcmqrscp", "wlmscpfs"])
async def test_refused(dcmtk: Any, tmp_path: Path, program: str) -> None:
    async with getattr(dcmtk, program)(tmp_path, options=["--refuse"]) as peer:
        with pytest.raises(dimse.AssociationRejected) as caught:
            async with dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title):
                pass
    assert caught.value.result is dimse.RejectResult.PERMANENT
    assert caught.value.source is dimse.RejectSource.SERVICE_USER
    assert caught.value.reason is dimse.RejectReason.NO_REASON_GIVEN
    assert not caught.value.is_transient


@pytest.mark.parametrize("program", ["dcmqrscp", "wlmscpfs"])
async def test_called_by_another_title(dcmtk: Any, tmp_path: Path, program: str) -> None:
    async with getattr(dcmtk, program)(tmp_path) as peer:
        with pytest.raises(dimse.AssociationRejected, match="not called 'SOMEBODY'") as caught:
            async with dimse.open_association(peer.host, peer.port, called_ae_title="SOMEBODY"):
                pass
    assert caught.value.reason is dimse.RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED


async def test_we_name_our_implementation(dcmtk: Any, tmp_path: Path) -> None:
    """`--reject` rejects who does not."""
    async with (
        dcmtk.storescp(tmp_path, options=["--reject"]) as peer,
        dimse.open_association(peer.host, peer.port) as association,
    ):
        assert association.negotiated.peer.implementation_version_name is not None
        await association.echo()


@pytest.mark.parametrize("when", ["--abort-during", "--abort-after"])
async def test_aborted_in_a_store(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path, when: str
) -> None:
    sample = study["ExplicitVRLittleEndian"]
    async with dcmtk.storescp(tmp_path, options=[when]) as peer:
        with pytest.raises(dimse.AssociationAborted, match="aborted by the peer") as caught:
            async with dimse.open_association(
                peer.host, peer.port, contexts=dimse.contexts_for([sample.path])
            ) as association:
                await association.store(sample.path)
        assert caught.value.source == 0
        # the listener takes the next association
        async with dimse.open_association(
            peer.host, peer.port, contexts=[VERIFICATION]
        ) as association:
            await association.echo()


async def test_the_peer_dies(dcmtk: Any, tmp_path: Path) -> None:
    async with AsyncExitStack() as peer_stack:
        peer = await peer_stack.enter_async_context(dcmtk.storescp(tmp_path))
        with pytest.raises(dimse.AssociationAborted, match="connection"):
            async with dimse.open_association(peer.host, peer.port) as association:
                await association.echo()
                await peer_stack.aclose()
                await association.echo()


async def test_nobody_listens(dcmtk: Any) -> None:
    with pytest.raises(dimse.ConnectionFailed, match="refused"):
        async with dimse.open_association("127.0.0.1", dcmtk.free_port()):
            pass


async def test_no_context_is_accepted(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    """dcmqrscp takes no compressed transfer syntax unless it is told to."""
    async with dcmtk.dcmqrscp(tmp_path) as peer:
        with pytest.raises(dimse.ContextNotAccepted, match="RLELossless"):
            async with dimse.open_association(
                peer.host,
                peer.port,
                called_ae_title=peer.ae_title,
                contexts=dimse.contexts_for([study["RLELossless"].path]),
            ):
                pass


async def test_a_transfer_syntax_that_was_not_proposed(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """The error says what to do, and the association lives on."""
    async with (
        dcmtk.storescp(tmp_path) as peer,
        dimse.open_association(peer.host, peer.port) as association,
    ):
        with pytest.raises(dimse.ContextNotAccepted, match=r"contexts_for\(paths\)"):
            await association.store(study["RLELossless"].path)
        await association.echo()


async def test_a_read_only_archive(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    sample = study["ExplicitVRLittleEndian"]
    async with (
        dcmtk.dcmqrscp(tmp_path, access="R") as peer,
        dimse.open_association(
            peer.host,
            peer.port,
            called_ae_title=peer.ae_title,
            contexts=[*dimse.contexts_for([sample.path]), VERIFICATION],
        ) as association,
    ):
        with pytest.raises(dimse.ContextNotAccepted, match="user rejection"):
            await association.store(sample.path)
        await association.echo()


async def test_an_archive_without_get(dcmtk: Any, tmp_path: Path) -> None:
    async with (
        dcmtk.dcmqrscp(tmp_path / "archive", options=["--disable-get"]) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        with pytest.raises(dimse.ContextNotAccepted, match="does not offer this service"):
            await association.get(
                dimse.query("STUDY", StudyInstanceUID="1.2"), save_to=tmp_path / "got"
            )


async def test_a_full_archive(dcmtk: Any, study: dict[str, Sample], tmp_path: Path) -> None:
    sample = study["ExplicitVRLittleEndian"]
    async with (
        dcmtk.dcmqrscp(tmp_path, quota=(1, "10kb")) as peer,
        dimse.open_association(
            peer.host,
            peer.port,
            called_ae_title=peer.ae_title,
            contexts=[*dimse.contexts_for([sample.path]), VERIFICATION],
        ) as association,
    ):
        with pytest.raises(dimse.StatusError) as caught:
            await association.store(sample.path)
        assert caught.value.status == dimse.Status.OUT_OF_RESOURCES
        response = await association.store(sample.path, check=False)
        assert response.status == dimse.Status.OUT_OF_RESOURCES
        await association.echo()


async def test_an_identifier_that_is_refused(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """`-XF` checks identifiers: a SERIES query needs its study."""
    async with (
        dcmtk.dcmqrscp(tmp_path, study["RLELossless"].path, options=["-XF"]) as peer,
        dimse.open_association(peer.host, peer.port, called_ae_title=peer.ae_title) as association,
    ):
        with pytest.raises(dimse.StatusError) as caught:
            await association.find(dimse.query("SERIES", return_keys=False))
        assert caught.value.status == dimse.Status.DATA_SET_MISMATCH
        await association.echo()
