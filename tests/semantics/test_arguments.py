"""Options and arguments that cannot be: refused in words, before anything is opened."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.relay import Passage, open_relay
from dimse_trio.testing import associated_pair

from .script import CT


class Echo:
    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1:21112", 104, r"host='127\.0\.0\.1', port=21112"),
        ("pacs:", 104, r"host='pacs'$"),
        ("[::1]:104", 104, r"host='::1', port=104"),
        ("[::1]", 104, r"host='::1'$"),
        ("", 104, "host is a name or an address as text, not ''"),
        (None, 104, "host is a name or an address as text, not None"),
        ("pacs", "104", "port is a whole number, not '104': write port=104"),
        ("pacs", True, "port is a whole number, not True"),
        ("pacs", 0, "port is a number from 1 to 65535, not 0"),
        ("pacs", 104_104, "port is a number from 1 to 65535"),
    ],
)
async def test_a_host_and_a_port_are_given_each_by_itself(
    host: object, port: object, message: str
) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_association(host, port):  # type: ignore[arg-type]
            pass
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.RemoteAE("PACS", host, port)  # type: ignore[arg-type]
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.Destination(host, port)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["::1", "fe80::1%eth0", "pacs.example.org", "10.0.0.1"])
def test_names_and_addresses_are_hosts(host: str) -> None:
    assert dimse.Destination(host).host == host


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user_identity": "ada"}, r"user_identity is UserIdentity, not str; .*username\('ada'\)"),
        ({"timeouts": 5}, r"timeouts is Timeouts, not int; for example timeouts=Timeouts\("),
        ({"limits": 5}, r"limits is Limits, not int; for example limits=Limits\("),
        ({"instruments": dimse.Instrument()}, r"instruments=\[…\], not Instrument\(…\)"),
        ({"max_pdu_length": "x"}, "max_pdu_length is a whole number, not 'x'$"),
        ({"max_pdu_length": "65536"}, "not '65536': write max_pdu_length=65536"),
        ({"implementation": "x"}, r"implementation is Implementation, not str; for example"),
        ({"implementation": dimse.Implementation("1.2", 5)}, "version name 5 must"),  # type: ignore[arg-type]
        ({"implementation": dimse.Implementation(5, "X")}, "class UID 5 must"),  # type: ignore[arg-type]
    ],
)
async def test_options_are_of_their_kind(arguments: dict[str, Any], message: str) -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_association("127.0.0.1", 1, **arguments):
            pass
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.associate_over(ours, **arguments):
            pass
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.RemoteAE("PACS", "127.0.0.1", **arguments)
    if "user_identity" not in arguments:
        with pytest.raises(dimse.LocalProtocolError, match=message):
            async with dimse.open_server(Echo(), **arguments):
                pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dimse.Timeouts(response="5"), "response is a number, not '5'"),  # type: ignore[arg-type]
        (lambda: dimse.Timeouts(idle=None), "idle is a number, not None"),  # type: ignore[arg-type]
        (lambda: dimse.Timeouts(idle=True), "idle is a number, not True"),
        (lambda: dimse.Timeouts(idle=0), "idle must be more than 0"),
        (lambda: dimse.Limits(data_set=float("nan")), "data_set must be more than 0"),
        (lambda: dimse.Limits(data_set="1 GiB"), "data_set is a number, not '1 GiB'"),  # type: ignore[arg-type]
    ],
)
def test_times_and_limits_are_numbers(make: Callable[[], object], message: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        make()


async def test_counts_of_associations_are_numbers() -> None:
    with pytest.raises(dimse.LocalProtocolError, match=r"max_associations=4$"):
        async with dimse.open_server(Echo(), max_associations="4"):  # type: ignore[arg-type]
            pass


FOR_A_SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
FOR_A_CLIENT = dimse.tls_profile()


async def test_a_context_for_servers_is_none_to_connect_with() -> None:
    message = r"ssl_context is to connect with, .* for servers; .*ssl_context=tls_profile\(ca="
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_association("127.0.0.1", 1, ssl_context=FOR_A_SERVER):
            pass
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.RemoteAE("PACS", "127.0.0.1", ssl_context=FOR_A_SERVER)
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.Destination("127.0.0.1", ssl_context=FOR_A_SERVER)
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with open_relay("127.0.0.1", ssl_context=FOR_A_SERVER, on_passage=told):
            pass


async def test_a_context_for_clients_is_none_to_listen_with() -> None:
    message = r"ssl_context is to listen with, .* for clients; .*=tls_profile\(server=True"
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_server(Echo(), ssl_context=FOR_A_CLIENT):
            pass
    with pytest.raises(dimse.LocalProtocolError, match=f"listen_{message}"):
        dimse.RemoteAE("PACS", "127.0.0.1", listen_ssl_context=FOR_A_CLIENT)
    with pytest.raises(dimse.LocalProtocolError, match=f"server_{message}"):
        async with open_relay("127.0.0.1", server_ssl_context=FOR_A_CLIENT, on_passage=told):
            pass


async def told(passage: Passage) -> None:
    """What a relay tells of is nothing to us."""


class Told:
    async def __call__(self, passage: Passage) -> None:
        """As an object."""


@pytest.mark.parametrize("on_passage", [told, Told(), Told().__call__, partial(told)])
async def test_a_relay_tells_what_can_be_awaited(on_passage: Any) -> None:
    async with open_relay("127.0.0.1", on_passage=on_passage):
        pass


@pytest.mark.parametrize(
    ("on_passage", "message"),
    [
        (print, "must be an `async def`"),
        (lambda passage: None, "must be an `async def`"),
        (Told, "must be an `async def`"),
        (None, "must be an `async def`"),
        (partial(told, 1), "must take one argument"),
    ],
)
async def test_a_relay_is_refused_what_cannot_be_told(on_passage: Any, message: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=f"on_passage {message}"):
        async with open_relay("127.0.0.1", on_passage=on_passage):
            pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_connections": 0}, "max_connections must be at least 1"),
        ({"max_connections": "1"}, "max_connections is a whole number"),
        ({"data_set_limit": -1}, "data_set_limit must be at least 0"),
        ({"timeouts": 5}, "timeouts is Timeouts"),
        ({"host": "pacs:104"}, "host='pacs', port=104"),
    ],
)
async def test_a_relays_options_are_of_their_kind(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with open_relay(**{"host": "127.0.0.1", "on_passage": told, **arguments}):
            pass


@pytest.mark.parametrize("port", ["104", -1, None])
async def test_a_listeners_port_is_a_number(port: Any) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=r"host='127\.0\.0\.1', port=104"):
        async with dimse.open_server(Echo(), host="127.0.0.1:104"):
            pass
    with pytest.raises(dimse.LocalProtocolError, match="port is a"):
        async with dimse.open_server(Echo(), port):
            pass
    if port is not None:
        with pytest.raises(dimse.LocalProtocolError, match="listen_port is a"):
            dimse.RemoteAE("PACS", "127.0.0.1", listen_port=port)


@pytest.mark.parametrize("title", [None, 5, b"X", ["X"]])
async def test_an_ae_title_is_text(title: Any) -> None:
    with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
        dimse.RemoteAE(title, "127.0.0.1")
    with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
        dimse.RemoteAE("PACS", "127.0.0.1", calling_ae_title=title)
    with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
        async with dimse.open_association("127.0.0.1", 1, called_ae_title=title):
            pass
    with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
        async with dimse.open_server(Echo(), calling_ae_titles=[title]):
            pass
    if title is not None:
        with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
            async with dimse.open_server(Echo(), ae_title=title):
                pass


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        *((name, wrong) for name in ("keep_idle", "pause") for wrong in (math.nan, None, "2", -1)),
        *(("max_associations", wrong) for wrong in (1.5, math.nan, math.inf, None, 0)),
        *(("retries", wrong) for wrong in (None, 1.5, -1)),
    ],
)
def test_the_numbers_of_a_remote_ae_are_such(option: str, wrong: object) -> None:
    options: dict[str, Any] = {option: wrong}
    with pytest.raises(dimse.LocalProtocolError, match=option):
        dimse.RemoteAE("PACS", "127.0.0.1", **options)


@pytest.mark.parametrize("jobs", [None, math.nan, "2", 0])
async def test_jobs_are_a_whole_number(jobs: Any, tmp_path: Path) -> None:
    pacs = dimse.RemoteAE("PACS", "127.0.0.1")
    with pytest.raises(dimse.LocalProtocolError, match="jobs"):
        await pacs.store([], jobs=jobs)
    with pytest.raises(dimse.LocalProtocolError, match="jobs"):
        await pacs.retrieve(dimse.query("STUDY", StudyInstanceUID="1"), tmp_path, jobs=jobs)


@pytest.mark.parametrize("wrong", [None, "x", 5, ["x"], dimse.RoleSelection(CT, False, True)])
async def test_roles_are_role_selections(wrong: Any) -> None:
    with pytest.raises(dimse.LocalProtocolError, match="roles are several RoleSelection"):
        async with dimse.open_association("127.0.0.1", 1, roles=wrong):
            pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transfer_syntax_preference": None}, r"TransferSyntaxPreference\(.*not NoneType"),
        ({"transfer_syntax_preference": dimse.TransferSyntaxPreference}, "not type"),
        ({"calling_ae_titles": 5}, "calling_ae_titles are several, not int"),
    ],
)
async def test_options_of_another_kind_are_refused_at_once(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_server(Echo(), **options):
            pass


@pytest.mark.parametrize(("option", "hint"), [("aet", "; did you mean ae_title?"), ("colour", "")])
async def test_an_option_that_is_none_is_named_with_the_nearest(option: str, hint: str) -> None:
    options: dict[str, Any] = {option: "X"}
    message = f"open_server, serve and serve_stream have no option {option}{hint}"
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(TypeError) as refused:
        async with dimse.open_server(Echo(), 0, **options):
            pass
    assert str(refused.value) == message
    with pytest.raises(TypeError) as refused:
        await dimse.serve_stream(Echo(), ours, **options)
    assert str(refused.value) == message


@pytest.mark.parametrize("grace", [math.nan, None, "2"])
async def test_a_grace_that_is_no_time_stops_nothing(grace: Any) -> None:
    async def passed(passage: Passage) -> None: ...

    async with (
        dimse.open_server(Echo()) as server,
        open_relay("127.0.0.1", server.port, on_passage=passed) as relay,
    ):
        for stoppable in (relay, server):
            with pytest.raises(dimse.LocalProtocolError, match="grace is a number of seconds"):
                await stoppable.stop(grace)
        async with dimse.open_association("127.0.0.1", relay.port) as association:
            await association.echo()
        await relay.stop(-1)


async def test_a_rejection_for_a_reason_that_is_none_is_one_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refusing(dimse.EchoSCP):
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            raise dimse.Reject("no")  # type: ignore[arg-type]
            yield

    with pytest.raises(dimse.LocalProtocolError, match="takes a RejectResult, not 1"):
        dimse.Reject(result=1)  # type: ignore[arg-type]
    with pytest.raises(dimse.AssociationRejected) as rejected:
        async with associated_pair(Refusing()):
            pass
    assert rejected.value.result is dimse.RejectResult.TRANSIENT
    assert "Reject takes a RejectReason, not 'no': NO_REASON_GIVEN" in caplog.text


async def test_arguments_of_operations_that_cannot_be_sent_are_refused(
    autojump_clock: object,
) -> None:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CT, "1.2.3"

    class Taking(Echo):
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    commitment = dimse.uid_of("StorageCommitmentPushModel")
    contexts = [
        *dimse.default_contexts(),
        *dimse.contexts_for(image),
        *dimse.commitment_contexts(),
    ]
    async with associated_pair(Taking(), contexts=contexts) as association:
        for call in (
            association.store(image, priority=1.5),  # type: ignore[arg-type]
            association.store(image, move_originator=("AE", 1)),  # type: ignore[arg-type]
            association.store(image, move_originator=5),  # type: ignore[arg-type]
            association.n_action(commitment, "1.2", 1.5),  # type: ignore[arg-type]
        ):
            with pytest.raises(dimse.LocalProtocolError):
                await call
        with pytest.raises(OSError, match="a path has no NUL"):
            await association.store("\0")
        assert (await association.echo(check=False)).status == dimse.Status.SUCCESS
    with pytest.raises(OSError, match="a path has no NUL"):
        await dimse.scan_files("\0")


def test_a_number_is_no_file_of_a_certificate() -> None:
    readable, writable = os.pipe()
    with pytest.raises(dimse.LocalProtocolError, match="certificate is the path of a PEM file"):
        dimse.tls_profile(server=True, certificate=readable, verify=False)  # type: ignore[arg-type]
    for descriptor in (readable, writable):
        os.close(descriptor)  # it is open still
