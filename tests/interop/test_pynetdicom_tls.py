"""TLS with pynetdicom, both ways, with certificates on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

import dimse_trio as dimse

from .pynetdicom_peer import request
from .shelf import Shelf

pytestmark = pytest.mark.interop

EXPLICIT = dimse.uid_of("ExplicitVRLittleEndian")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate with its key for both sides, and its authority."""
    authority = trustme.CA()
    pair, ca = tmp_path / "pair.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pair)
    authority.cert_pem.write_to_path(ca)
    return pair, ca


async def test_pynetdicom_connects(files: tuple[Path, Path]) -> None:
    pair, ca = files
    ours = dimse.tls_profile(server=True, certificate=pair, ca=ca)
    theirs = dimse.tls_profile(certificate=pair, ca=ca)
    async with dimse.open_server(Shelf(), ssl_context=ours) as server:
        status = await request(
            server.port,
            Association.send_c_echo,
            [(dimse.uid_of("Verification"), EXPLICIT)],
            tls_args=(theirs, "127.0.0.1"),
        )
    assert status.Status == 0x0000


async def test_we_connect(files: tuple[Path, Path]) -> None:
    pair, ca = files
    ae = AE()
    ae.add_supported_context(Verification)
    theirs = dimse.tls_profile(server=True, certificate=pair, ca=ca)
    peer = ae.start_server(("127.0.0.1", 0), block=False, ssl_context=theirs)
    assert peer is not None
    try:
        async with dimse.open_association(
            "127.0.0.1",
            peer.socket.getsockname()[1],
            ssl_context=dimse.tls_profile(certificate=pair, ca=ca),
        ) as association:
            assert (await association.echo()).status == 0
    finally:
        ae.shutdown()
