"""Quirks 33 and 34: other protocols on the port, and TLS that just ends."""

from __future__ import annotations

import logging
import ssl

import attrs
import pytest
import trio
import trustme

import dimse_trio as dimse
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.messages import CEchoRQ, CEchoRSP, CStoreRQ
from dimse_trio.protocol.pdus import AssociateRQ, UserInformation
from dimse_trio.testing.scripted import ScriptedPeer
from semantics.script import CONTEXTS, ECHO, LE, STORE, TIMEOUTS, encoded, instance

from .tools import VERIFY, Everything, listening, logged

A_REQUEST = encode_pdu(AssociateRQ("ARCHIVE", "STATION", (VERIFY,), UserInformation()))
FAST = attrs.evolve(TIMEOUTS, connect=5, linger=0.2)


@attrs.frozen
class Certificates:
    """Both sides of TLS on this machine."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Certificates(server, client)


def client_hello() -> bytes:
    """What a TLS client says first."""
    sent = ssl.MemoryBIO()
    context = ssl.create_default_context()
    connection = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return sent.read()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", "this is HTTP"),
        (b"\x0bMSH|^~\\&|RIS|||\r\x1c\r", "this is HL7"),
        (client_hello(), "this is a TLS handshake"),
        (b"SSH-2.0-OpenSSH\r\n", "unrecognized PDU type 0x53"),
    ],
    ids=["HTTP", "HL7", "TLS", "SSH"],
)
async def test_quirk_33_another_protocol_on_a_plain_port(
    caplog: pytest.LogCaptureFixture, data: bytes, said: str
) -> None:
    with logged(caplog) as messages:
        async with dimse.open_server(Everything(), timeouts=FAST) as server:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(data)
            with trio.fail_after(10):
                async for _ in stream:  # A-ABORT, as Table 9-10 has it, then the end
                    pass
            await stream.aclose()
            assert server.statistics().associations_open == 0
            async with dimse.open_association("127.0.0.1", server.port) as association:
                await association.echo()
    [message] = [message for message in messages if said in message]
    assert message.startswith("127.0.0.1:")
    assert [r.levelname for r in caplog.records if said in r.getMessage()] == ["WARNING"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (A_REQUEST, "is it plain DICOM?"),
        (b"GET / HTTP/1.1\r\n\r\n", "the other side speaks HTTP"),
    ],
    ids=["DICOM", "HTTP"],
)
async def test_quirk_33_another_protocol_on_a_tls_port(
    caplog: pytest.LogCaptureFixture, certificates: Certificates, data: bytes, said: str
) -> None:
    options = {"ssl_context": certificates.server, "timeouts": FAST}
    with logged(caplog, level=logging.WARNING) as messages:
        async with dimse.open_server(Everything(), **options) as server:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(data)
            with trio.fail_after(10):
                assert await stream.receive_some() in (b"", b"\x15\x03\x01\x00\x02\x02\x46")
            await stream.aclose()
    assert any(said in message for message in messages)


async def test_quirk_33_a_plain_requestor_is_told_of_tls(certificates: Certificates) -> None:
    async def alert(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"\x15\x03\x03\0\2\2\x46")  # what OpenSSL's own servers send

    async with listening(alert) as port:
        with pytest.raises(dimse.AssociationAborted, match="the peer expects TLS"):
            async with dimse.open_association("127.0.0.1", port, timeouts=FAST):
                raise AssertionError("there is no association")


async def test_quirk_33_a_tls_requestor_is_told_of_a_plain_port(
    certificates: Certificates,
) -> None:
    async with dimse.open_server(Everything(), timeouts=FAST) as server:
        with pytest.raises(dimse.ConnectionFailed, match=r"is it plain DICOM\?"):
            async with dimse.open_association(
                "127.0.0.1", server.port, ssl_context=certificates.client, timeouts=FAST
            ):
                raise AssertionError("there is no association")


async def tls_peer(port: int, context: ssl.SSLContext) -> tuple[ScriptedPeer, trio.SocketStream]:
    """A requestor over TLS, with the TCP connection below it."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    return ScriptedPeer(
        trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)
    ), stream


@pytest.mark.parametrize("released", [False, True])
async def test_quirk_34_tls_that_ends_without_close_notify(
    caplog: pytest.LogCaptureFixture, certificates: Certificates, released: bool
) -> None:
    options = {"ssl_context": certificates.server, "timeouts": FAST}
    with logged(caplog, level=logging.WARNING) as messages:
        async with dimse.open_server(Everything(), **options) as server:
            peer, stream = await tls_peer(server.port, certificates.client)
            await peer.associate(CONTEXTS)
            await peer.send_message(ECHO, CEchoRQ(message_id=1))
            assert (await peer.expect_message(CEchoRSP)).status == 0
            if released:
                await peer.release()
            await stream.aclose()  # the socket, not the TLS connection
            await server.stop(grace=10)
            assert server.statistics() == dimse.ServerStatistics(0, 1, 0)
    assert messages == []


async def test_quirk_34_tls_that_ends_inside_a_message(certificates: Certificates) -> None:
    handler = Everything()
    async with dimse.open_server(handler, ssl_context=certificates.server, timeouts=FAST) as server:
        peer, stream = await tls_peer(server.port, certificates.client)
        await peer.associate(CONTEXTS)
        store = CStoreRQ(message_id=1, affected_sop_instance_uid="1.2.3.4")
        pdus = peer.message_pdus(STORE, store, encoded(instance(100_000)))
        await peer.send(*pdus[:-1])
        await stream.aclose()
        await server.stop(grace=10)
    assert len(handler.stores) <= 1
    assert handler.received == []


async def test_quirk_34_an_acceptor_that_ends_tls_without_close_notify(
    certificates: Certificates,
) -> None:
    async def accept(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, certificates.server, server_side=True)
        peer = ScriptedPeer(tls)
        await peer.accept(LE)
        await peer.respond_to_release()
        await stream.aclose()

    async with listening(accept) as port:
        async with dimse.open_association(
            "127.0.0.1", port, contexts=CONTEXTS, ssl_context=certificates.client
        ) as association:
            pass
        assert isinstance(association.end, dimse.AssociationClosed)
