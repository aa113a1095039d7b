"""TLS over sockets: what profiles let through, and what each failure says on both sides."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme

import dimse_trio as dimse
from dimse_trio.tls import handshake, tls_failure
from interop.samples import Sample
from interop.shelf import Shelf
from quirks.tools import listening, logged

FAST = dimse.Timeouts(connect=5, associate=5, linger=1)
HURRIED = dimse.Timeouts(connect=0.1, associate=5, linger=0.2)


@attrs.frozen
class PEM:
    """Files: an authority, a server's and a client's certificate with their keys, and odd ones."""

    folder: Path
    authority: trustme.CA

    def __getattr__(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def server(self, certificate: str = "server_pair", **options: Any) -> ssl.SSLContext:
        path = self.folder / f"{certificate}.pem"
        return dimse.tls_profile(server=True, certificate=path, **options)

    def client(self, **options: Any) -> ssl.SSLContext:
        return dimse.tls_profile(**{"ca": self.ca, **options})


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> PEM:
    pem = PEM(tmp_path_factory.mktemp("pem"), trustme.CA())
    past = datetime(2020, 1, 1, tzinfo=UTC)
    certificates = {
        "server": pem.authority.issue_cert("127.0.0.1"),
        "named": pem.authority.issue_cert("pacs.example"),
        "client": pem.authority.issue_cert("station.example"),
        "expired": pem.authority.issue_cert("127.0.0.1", not_before=past, not_after=past),
        "stranger": trustme.CA().issue_cert("127.0.0.1"),
    }
    pem.authority.cert_pem.write_to_path(pem.ca)
    for name, certificate in certificates.items():
        certificate.private_key_and_cert_chain_pem.write_to_path(pem.folder / f"{name}_pair.pem")
        certificate.cert_chain_pems[0].write_to_path(pem.folder / f"{name}_bare.pem")
        certificate.private_key_pem.write_to_path(pem.folder / f"{name}_key.pem")
    return pem


async def echo(port: int, context: ssl.SSLContext | None, **options: Any) -> dimse.Status | int:
    async with dimse.open_association(
        "127.0.0.1", port, ssl_context=context, timeouts=FAST, **options
    ) as association:
        return (await association.echo()).status


# -- profiles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", dimse.TLS_PROFILES)
@pytest.mark.parametrize("server", [False, True])
def test_a_profile_has_only_forward_secrecy_and_aead(pem: PEM, name: str, server: bool) -> None:
    certificate = pem.server_pair if server else None
    context = dimse.tls_profile(name, server=server, certificate=certificate)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    ciphers = context.get_ciphers()
    assert {cipher["protocol"] for cipher in ciphers} == {"TLSv1.2", "TLSv1.3"}
    for cipher in ciphers:
        assert cipher["aead"]
        if cipher["protocol"] == "TLSv1.2":
            assert cipher["name"].startswith(("ECDHE-", "DHE-"))
        if name == "bcp195":
            assert not cipher["name"].startswith("DHE-")


def test_the_extended_profile_has_the_cipher_suites_of_its_clause_and_no_others() -> None:
    ciphers = dimse.tls_profile("bcp195-extended").get_ciphers()
    assert {cipher["name"] for cipher in ciphers if cipher["protocol"] == "TLSv1.2"} == {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "DHE-RSA-AES128-GCM-SHA256",
        "DHE-RSA-AES256-GCM-SHA384",
    }


def test_who_must_show_a_certificate(pem: PEM) -> None:
    assert pem.client().verify_mode is ssl.CERT_REQUIRED
    assert pem.client().check_hostname
    assert pem.client(verify=False).verify_mode is ssl.CERT_NONE
    assert pem.server().verify_mode is ssl.CERT_NONE
    assert pem.server(ca=pem.ca).verify_mode is ssl.CERT_REQUIRED
    assert pem.server(ca=pem.ca, verify=False).verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "tls"}, "there are bcp195, "),
        ({"server": True}, "needs certificate"),
        ({"server": True, "certificate": "server_pair", "verify": True}, "needs ca"),
        ({"key": "server_key"}, "key needs certificate"),
        ({"ca": "missing"}, r"ca .*missing.pem: No such file"),
        ({"ca": "."}, "ca .*: Is a directory; name a PEM file"),
        ({"ca": "server_key"}, "ca .*: no certificates in PEM"),
        ({"certificate": "missing"}, r"certificate .*missing.pem: No such file"),
        ({"certificate": "text"}, "certificate .*: no certificate in PEM .* openssl"),
        ({"certificate": "server_bare"}, "no private key in PEM in it; give the file"),
        ({"certificate": "server_bare", "key": "missing"}, "key .*: No such file"),
        ({"certificate": "server_bare", "key": "text"}, "key .*: no private key in PEM"),
        ({"certificate": "server_bare", "key": "client_key"}, "key .*: not the key of"),
        ({"certificate": "server_bare", "key": "locked"}, "encrypted; give its password"),
        (
            {"certificate": "server_bare", "key": "locked", "password": "wrong"},
            "password of the key is wrong",
        ),
    ],
)
def test_a_wrong_file_is_named(pem: PEM, options: dict[str, Any], says: str) -> None:
    (pem.folder / "text.pem").write_text("no PEM")
    lock(pem)
    for name in ("ca", "certificate", "key"):
        if name in options:
            value = options[name]
            options = {**options, name: pem.folder if value == "." else getattr(pem, value)}
    with pytest.raises(dimse.LocalProtocolError, match=says):
        dimse.tls_profile(**options)


def lock(pem: PEM) -> None:
    """Encrypt the server's key with the password `sesame`."""
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(pem.server_key.read_bytes(), None)
    pem.locked.write_bytes(
        key.private_bytes(
            form.Encoding.PEM,
            form.PrivateFormat.PKCS8,
            form.BestAvailableEncryption(b"sesame"),
        )
    )


@pytest.mark.parametrize("password", ["sesame", b"sesame", lambda: "sesame"])
def test_a_key_with_a_password(pem: PEM, password: Any) -> None:
    lock(pem)
    pem.client(certificate=pem.server_bare, key=pem.locked, password=password)


# -- what works ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_mutual_tls(pem: PEM, version: ssl.TLSVersion) -> None:
    client = pem.client(certificate=pem.client_bare, key=pem.client_key)
    client.maximum_version = client.minimum_version = version
    async with dimse.open_server(Shelf(), ssl_context=pem.server(ca=pem.ca)) as server:
        assert await echo(server.port, client) == 0


async def test_the_server_name_is_asked_for_and_checked(pem: PEM) -> None:
    asked: list[str | None] = []
    context = pem.server("named_pair")
    context.sni_callback = lambda _connection, name, _context: asked.append(name)
    async with dimse.open_server(Shelf(), ssl_context=context) as server:
        assert await echo(server.port, pem.client(), tls_server_name="pacs.example") == 0
    assert asked == ["pacs.example"]


async def test_a_large_instance_goes_over_tls(pem: PEM, big: Sample) -> None:
    shelf = Shelf()
    async with (
        dimse.open_server(shelf, ssl_context=pem.server(ca=pem.ca)) as server,
        dimse.open_association(
            "127.0.0.1",
            server.port,
            contexts=dimse.contexts_for([big.path]),
            ssl_context=pem.client(certificate=pem.client_pair),
        ) as association,
    ):
        await association.store(big.path)
    assert shelf.received[0].data_set == big.data_set


async def test_a_move_to_a_tls_destination(pem: PEM, study: dict[str, Sample]) -> None:
    sample = study["JPEG2000Lossless"]
    shelf = Shelf()
    async with dimse.open_server(
        shelf, ae_title="KEEPER", ssl_context=pem.server("named_pair", ca=pem.ca)
    ) as keeper:
        destination = dimse.Destination(
            "127.0.0.1",
            keeper.port,
            ssl_context=pem.client(certificate=pem.client_pair),
            tls_server_name="pacs.example",
        )
        async with (
            dimse.open_server(Shelf([sample.path]), peers={"KEEPER": destination}) as server,
            dimse.open_association("127.0.0.1", server.port) as association,
        ):
            result = await association.move(
                dimse.query("IMAGE", SOPInstanceUID=sample.sop_instance_uid), destination="KEEPER"
            )
    assert result.completed == 1
    assert shelf.received[0].data_set == sample.data_set


# -- what does not, on both sides ------------------------------------------------------------------


def old(context: ssl.SSLContext) -> ssl.SSLContext:
    """A context that speaks TLS 1.1 only, as old peers do."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def cbc(context: ssl.SSLContext) -> ssl.SSLContext:
    """A context with ciphers that are no AEAD."""
    context.set_ciphers("AES128-SHA256:AES256-SHA256")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def tls12(context: ssl.SSLContext) -> ssl.SSLContext:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


CASES: dict[str, tuple[Any, Any, str, str]] = {
    "expired": (
        lambda pem: pem.server("expired_pair"),
        lambda pem: pem.client(),
        "certificate verify failed.*expired",
        "this side's certificate has expired",
    ),
    "wrong host": (
        lambda pem: pem.server("named_pair"),
        lambda pem: pem.client(),
        "another name.*tls_server_name",
        "refused this side's certificate",
    ),
    "unknown CA of the server": (
        lambda pem: pem.server("stranger_pair"),
        lambda pem: pem.client(),
        "its CA is not known here",
        "does not trust this side's certificate",
    ),
    "unknown CA of the client": (
        lambda pem: pem.server(ca=pem.ca),
        lambda pem: pem.client(certificate=pem.stranger_pair),
        "does not trust this side's certificate",
        "its CA is not known here",
    ),
    "no client certificate": (
        lambda pem: pem.server(ca=pem.ca),
        lambda pem: pem.client(),
        "demands a certificate of this side",
        "shown no certificate",
    ),
    "no client certificate, TLS 1.2": (
        lambda pem: tls12(pem.server(ca=pem.ca)),
        lambda pem: pem.client(),
        "demands a certificate of this side",
        "shown no certificate",
    ),
    "old server": (
        lambda pem: old(pem.server()),
        lambda pem: pem.client(),
        "no version of TLS in common",
        "no version of TLS in common",
    ),
    "old client": (
        lambda pem: pem.server(),
        lambda pem: old(pem.client()),
        "no version of TLS in common",
        "no version of TLS in common",
    ),
    "server without AEAD": (
        lambda pem: cbc(pem.server()),
        lambda pem: pem.client(),
        "no cipher suite in common",
        "no cipher suite in common",
    ),
    "client without AEAD": (
        lambda pem: pem.server(),
        lambda pem: cbc(pem.client()),
        "no cipher suite in common",
        "no cipher suite in common",
    ),
    "plain server": (
        lambda pem: None,
        lambda pem: pem.client(),
        "does not speak TLS; is it plain DICOM",
        "this is a TLS handshake",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_failure_says_what_is_wrong_on_both_sides(
    pem: PEM, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    ours, theirs, client_says, server_says = CASES[case]
    with logged(caplog, level=logging.INFO) as messages:
        async with dimse.open_server(Shelf(), ssl_context=ours(pem), timeouts=FAST) as server:
            with pytest.raises(dimse.ConnectionFailed, match=client_says):
                await echo(server.port, theirs(pem))
            await server.stop(grace=5)
            assert server.statistics().associations_accepted == 0
    assert any(server_says in message for message in messages), messages


async def test_a_plain_requestor_learns_that_the_port_expects_tls(
    pem: PEM, caplog: pytest.LogCaptureFixture
) -> None:
    with logged(caplog, level=logging.INFO) as messages:
        async with dimse.open_server(Shelf(), ssl_context=pem.server(), timeouts=FAST) as server:
            with pytest.raises(dimse.AssociationAborted, match="does this port expect TLS"):
                await echo(server.port, None)
    assert any("is it plain DICOM?" in message for message in messages)


async def test_a_peer_that_stalls_in_the_handshake_is_not_awaited_for_ever(pem: PEM) -> None:
    async def stall(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(stall) as port:
        with trio.fail_after(5), pytest.raises(dimse.AssociationTimeout, match="speak TLS"):
            async with dimse.open_association(
                "127.0.0.1", port, ssl_context=pem.client(), timeouts=HURRIED
            ):
                raise AssertionError("there is no association")


async def test_a_requestor_that_stalls_in_the_handshake_is_dropped(
    pem: PEM, caplog: pytest.LogCaptureFixture
) -> None:
    with logged(caplog, level=logging.WARNING) as messages:
        async with dimse.open_server(Shelf(), ssl_context=pem.server(), timeouts=HURRIED) as server:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            with trio.fail_after(5):
                assert await stream.receive_some() == b""
            await stream.aclose()
    assert any("TLS handshake was not complete in 0.1 s" in message for message in messages)


async def test_a_peer_that_hangs_up_in_the_handshake(pem: PEM) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with listening(hang_up) as port:
        with pytest.raises(dimse.ConnectionFailed, match="ended in the handshake"):
            await echo(port, pem.client())


async def test_a_peer_that_has_spoken_is_not_said_to_object_to_tls(pem: PEM) -> None:
    async def say_a_part(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, pem.server(), server_side=True)
        await secure.receive_some()
        await secure.send_all(b"\x02\0\0\0\1\0")  # of an A-ASSOCIATE-AC
        await stream.aclose()

    async with listening(say_a_part) as port:
        with pytest.raises(dimse.AssociationAborted, match="connection was lost") as lost:
            await echo(port, pem.client())
    assert "certificate" not in str(lost.value)


def test_an_end_in_the_handshake_is_said_to_be_one_however_ssl_calls_it() -> None:
    for error in (ssl.SSLEOFError(), ssl.SSLZeroReturnError("closed (EOF)")):
        assert "ended in the handshake" in tls_failure(error)


async def test_cancelling_a_handshake_closes_the_connection(pem: PEM) -> None:
    said_hello, closed = trio.Event(), trio.Event()

    async def listen(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        said_hello.set()
        while await stream.receive_some():
            pass
        closed.set()

    async with listening(listen) as port, trio.open_nursery() as nursery:
        nursery.start_soon(partial(echo, port, pem.client()))
        await said_hello.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(5):
            await closed.wait()


@attrs.define
class Damaging(trio.abc.Stream):
    """A connection that is whole until `damage`, and notes what is sent from then on."""

    stream: trio.SocketStream
    damage: bool = False
    sent: list[int] = attrs.field(factory=list)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.damage:
            self.sent.append(len(data))
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self.stream.receive_some(max_bytes))
        return data[:-1] + bytes([data[-1] ^ 1]) if self.damage and data else data

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_a_damaged_record_ends_the_association_and_no_abort_is_sent(pem: PEM) -> None:
    async with dimse.open_server(Shelf(), ssl_context=pem.server()) as server:
        connection = Damaging(await trio.open_tcp_stream("127.0.0.1", server.port))
        tls = await handshake(connection, pem.client(), server_hostname="127.0.0.1")
        with pytest.raises(dimse.AssociationAborted, match="connection was lost") as caught:
            async with dimse.associate_over(tls) as association:
                await association.echo()
                connection.damage = True
                await association.echo()
        assert (caught.value.source, caught.value.reason) == (None, None)
        assert len(connection.sent) == 1  # the C-ECHO
