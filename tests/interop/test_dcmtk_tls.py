"""TLS with DCMTK, both ways; its default profile is BCP 195 (TLS 1.2 and 1.3)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

import dimse_trio as dimse

from .samples import Sample, data_set_of
from .shelf import Shelf

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_options(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A key and certificate for DCMTK's programs, and whom they trust."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    return (
        "+tls",
        str(folder / "key.pem"),
        str(folder / "certificate.pem"),
        "+cf",
        str(folder / "authority.pem"),
    )


def context(authority: trustme.CA, purpose: ssl.Purpose) -> ssl.SSLContext:
    """Our side, which shows a certificate and asks for one."""
    ours = ssl.create_default_context(purpose)
    authority.issue_cert("127.0.0.1").configure_cert(ours)
    authority.configure_trust(ours)
    ours.verify_mode = ssl.CERT_REQUIRED
    return ours


async def test_dcmtk_connects(
    dcmtk: Any, study: dict[str, Sample], authority: trustme.CA, tls_options: tuple[str, ...]
) -> None:
    sample = study["JPEG2000Lossless"]
    shelf = Shelf()
    async with dimse.open_server(
        shelf, ssl_context=context(authority, ssl.Purpose.CLIENT_AUTH)
    ) as server:
        await dcmtk.echoscu(server.port, options=tls_options)
        await dcmtk.storescu(
            server.port,
            sample.path,
            transfer_syntax=sample.transfer_syntax,
            options=["-R", *tls_options],
        )
    assert shelf.received[0].data_set == sample.data_set


async def test_dcmtk_without_tls_is_turned_away(dcmtk: Any, authority: trustme.CA) -> None:
    async with dimse.open_server(
        Shelf(), ssl_context=context(authority, ssl.Purpose.CLIENT_AUTH)
    ) as server:
        result = await dcmtk.echoscu(server.port, check=False)
        assert result.returncode != 0
        assert server.statistics().associations_accepted == 0


async def test_we_connect(
    dcmtk: Any,
    study: dict[str, Sample],
    authority: trustme.CA,
    tls_options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    sample = study["JPEG2000Lossless"]
    async with dcmtk.storescp(tmp_path, options=tls_options) as peer:
        async with dimse.open_association(
            peer.host,
            peer.port,
            contexts=dimse.contexts_for([sample.path]),
            ssl_context=context(authority, ssl.Purpose.SERVER_AUTH),
        ) as association:
            await association.store(sample.path)
        (file,) = peer.files()
    assert data_set_of(file) == sample.data_set


async def test_we_move_over_tls(
    dcmtk: Any,
    study: dict[str, Sample],
    authority: trustme.CA,
    tls_options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """The sub-operations of a C-MOVE go over TLS where the destination asks for it."""
    sample = study["JPEG2000Lossless"]
    async with dcmtk.storescp(tmp_path, options=tls_options) as peer:
        destination = dimse.Destination(
            peer.host, peer.port, ssl_context=context(authority, ssl.Purpose.SERVER_AUTH)
        )
        async with (
            dimse.open_server(Shelf([sample.path]), peers={"STORESCP": destination}) as server,
            dimse.open_association("127.0.0.1", server.port) as association,
        ):
            result = await association.move(
                dimse.query("IMAGE", SOPInstanceUID=sample.sop_instance_uid),
                destination="STORESCP",
            )
        assert result.completed == 1
        (file,) = peer.files()
    assert data_set_of(file) == sample.data_set


@pytest.mark.parametrize(
    ("flag", "profile"),
    [
        ("+py", "bcp195"),
        ("+px", "bcp195"),
        ("+py", "bcp195-non-downgrading"),
        ("+pz", "bcp195-extended"),
        ("+py", "bcp195-modified"),
    ],
)
async def test_each_profile_of_dcmtk_meets_ours(
    flag: str,
    profile: str,
    dcmtk: Any,
    authority: trustme.CA,
    tls_options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "ours.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files: dict[str, Any] = {"certificate": tmp_path / "ours.pem", "ca": tmp_path / "ca.pem"}
    server_side = dimse.tls_profile(profile, server=True, **files)
    async with dimse.open_server(Shelf(), ssl_context=server_side) as server:
        await dcmtk.echoscu(server.port, options=[*tls_options, flag])
    client_side = dimse.tls_profile(profile, **files)
    async with dcmtk.storescp(tmp_path, options=[*tls_options, flag]) as peer:
        async with dimse.open_association(
            "127.0.0.1", peer.port, ssl_context=client_side, tls_server_name="localhost"
        ) as association:
            await association.echo()
