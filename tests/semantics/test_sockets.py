"""The cancellation table again, over real sockets: no task and no descriptor is left behind."""

from __future__ import annotations

import errno
import gc
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import trustme
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.relay_sides import Side

from .script import instance, study, unwrapped_nursery

TIMEOUTS = dimse.Timeouts(cancel_grace=5, linger=2)


@attrs.define
class Patient:
    """A handler whose operations go on until they are cancelled, if they are asked to."""

    started: trio.Event = attrs.field(factory=trio.Event)
    cancelled: int = 0

    async def forever(self) -> None:
        self.started.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled += 1
            raise

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        if request.sop_instance_uid == "1.9":
            await self.forever()
        async for _ in request.chunks():
            pass
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        yield study()
        await self.forever()

    async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Dataset]:
        for number in range(20):
            yield instance(100_000, uid=f"1.2.{number}")


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def nothing_left() -> AsyncGenerator[None]:
    """What was open and running before the block is what is open and running after it."""
    async with dimse.open_server(Patient()) as server:  # so that what trio opens once is open
        async with dimse.open_association("127.0.0.1", server.port) as association:
            await association.echo()
    tasks, files = trio.lowlevel.current_statistics().tasks_living, descriptors()
    yield
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert descriptors() == files


async def echo_abandoned(association: dimse.Association, handler: Patient) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await association.echo()
    assert (await association.echo()).status == 0


async def find_cancelled(association: dimse.Association, handler: Patient) -> None:
    async with association.find(dimse.query("STUDY")) as matches:
        async for _ in matches:
            await handler.started.wait()
            break
    assert matches.final is not None
    assert matches.final.status == dimse.Status.CANCEL
    assert handler.cancelled == 1
    assert (await association.echo()).status == 0


async def store_abandoned(association: dimse.Association, handler: Patient) -> None:
    with trio.CancelScope() as scope:

        async def cancel() -> None:
            await handler.started.wait()
            scope.cancel()

        association.start_soon(cancel)
        await association.store(instance(uid="1.9"))
    assert scope.cancelled_caught
    assert association.is_open
    association.cancel_scope.cancel()  # its handler would never answer


async def store_cut(association: dimse.Association, handler: Patient) -> None:
    """Cancelled in the middle of an instance whose receiver has stopped reading."""
    with trio.move_on_after(0.3) as scope:
        await association.store(instance(60_000_000, uid="1.9"))
    assert scope.cancelled_caught
    assert not association.is_open
    with pytest.raises(dimse.AssociationAborted, match="not all sent"):
        await association.echo()


async def get_left(association: dimse.Association, handler: Patient) -> None:
    query = dimse.query("STUDY", StudyInstanceUID="1.2")
    async with association.get(query) as instances:
        async for received in instances:
            assert len(await received.data_set())
            break
    assert instances.result.status == dimse.Status.CANCEL
    assert (await association.echo()).status == 0


async def aborted(association: dimse.Association, handler: Patient) -> None:
    await association.abort()
    with pytest.raises(dimse.AssociationAborted):
        await association.echo()


async def scope_cancelled(association: dimse.Association, handler: Patient) -> None:
    association.start_soon(trio.sleep_forever)
    association.cancel_scope.cancel()


SCENARIOS: list[Callable[[dimse.Association, Patient], Awaitable[None]]] = [
    echo_abandoned,
    find_cancelled,
    store_abandoned,
    store_cut,
    get_left,
    aborted,
    scope_cancelled,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_nothing_is_left_behind_after(
    scenario: Callable[[dimse.Association, Patient], Awaitable[None]],
) -> None:
    handler = Patient()
    async with nothing_left(), dimse.open_server(handler, timeouts=TIMEOUTS) as server:
        async with dimse.open_association(
            "127.0.0.1", server.port, timeouts=TIMEOUTS
        ) as association:
            await scenario(association, handler)
        await server.stop(grace=5)
        assert server.statistics().associations_open == 0


async def test_nothing_is_left_behind_after_an_exception_in_the_body() -> None:
    async with nothing_left(), dimse.open_server(Patient()) as server:
        with pytest.raises(KeyError):
            async with dimse.open_association("127.0.0.1", server.port):
                raise KeyError
        await server.stop(grace=5)


async def test_a_peer_that_vanishes_leaves_nothing() -> None:
    handler = Patient()
    async with nothing_left(), dimse.open_server(handler) as server:
        with pytest.raises(trio.BrokenResourceError):
            async with dimse.open_association("127.0.0.1", server.port) as association:
                async with association.find(dimse.query("STUDY")):
                    await handler.started.wait()
                    await association._link.aclose()
                    await association.wait_over()
                await association.echo()
        await server.stop(grace=5)
        assert handler.cancelled == 1


async def test_serve_cancelled_aborts_fifty_associations_at_work() -> None:
    handler = Patient()
    ended: list[BaseException] = []
    ready = trio.Semaphore(0)

    async def work(port: int) -> None:
        try:
            async with (
                dimse.open_association("127.0.0.1", port) as association,
                association.find(dimse.query("STUDY")) as matches,
            ):
                async for _ in matches:
                    ready.release()
        except dimse.AssociationAborted as error:
            ended.append(error)

    async with nothing_left(), unwrapped_nursery() as nursery:
        serving = trio.CancelScope()

        async def serve(task_status: trio.TaskStatus[dimse.Server]) -> None:
            with serving:
                await dimse.serve(handler, 0, task_status=task_status)

        server = await nursery.start(serve)
        for _ in range(50):
            nursery.start_soon(work, server.port)
        for _ in range(50):
            await ready.acquire()
        assert server.statistics().associations_open == 50
        serving.cancel()
    assert len(ended) == 50
    assert handler.cancelled == 50


@pytest.mark.parametrize("grace", [0.0, 10.0])
async def test_stop_lets_the_running_end_within_its_grace(grace: float) -> None:
    class Slow(Patient):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            self.started.set()
            await trio.sleep(0.2)
            return dimse.Status.SUCCESS

    handler, outcomes = Slow(), list[object]()
    async with nothing_left(), unwrapped_nursery() as nursery:
        async with dimse.open_server(handler) as server:

            async def work() -> None:
                try:
                    async with dimse.open_association("127.0.0.1", server.port) as association:
                        outcomes.append((await association.echo()).status)
                except dimse.AssociationAborted as error:
                    outcomes.append(error)

            nursery.start_soon(work)
            await handler.started.wait()
            await server.stop(grace)
            with pytest.raises(dimse.ConnectionFailed):
                async with dimse.open_association("127.0.0.1", server.port):
                    pass
    (outcome,) = outcomes
    assert outcome == 0 if grace else isinstance(outcome, dimse.AssociationAborted)


async def test_normalized_services_and_what_was_negotiated_leave_nothing() -> None:
    """Every operation of DIMSE-N, an event each way, options and an identity, over TCP."""
    machine = dimse.uid_of("RTConventionalMachineVerification")
    find = dimse.uid_of("StudyRootQueryRetrieveInformationModelFind")
    seen: list[str] = []

    class Both(Patient):
        query_options = dimse.QueryOptions(relational=True)

        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[dimse.Admission]:
            assert request.user_identity is not None
            yield dimse.Admission(user_identity_response=request.user_identity.primary)

        async def handle_n_create(self, request: dimse.NCreateRequest) -> dimse.Status:
            seen.append("create")
            return dimse.Status.SUCCESS

        async def handle_n_set(self, request: dimse.NSetRequest) -> dimse.Status:
            seen.append("set")
            return dimse.Status.SUCCESS

        async def handle_n_get(self, request: dimse.NGetRequest) -> Dataset:
            seen.append("get")
            return study()

        async def handle_n_action(self, request: dimse.NActionRequest) -> dimse.Status:
            seen.append("action")
            await request.association.n_event_report(machine, "1.2", 1, study())
            return dimse.Status.SUCCESS

        async def handle_n_delete(self, request: dimse.NDeleteRequest) -> dimse.Status:
            seen.append("delete")
            return dimse.Status.SUCCESS

    class Events:
        async def handle_n_event_report(self, request: dimse.NEventReportRequest) -> dimse.Status:
            seen.append(f"event of {request.information.StudyInstanceUID}")
            return dimse.Status.SUCCESS

    async with nothing_left(), dimse.open_server(Both(), timeouts=TIMEOUTS) as server:
        async with dimse.open_association(
            "127.0.0.1",
            server.port,
            contexts=[
                dimse.PresentationContext(machine),
                dimse.PresentationContext(find, options=dimse.QueryOptions(relational=True)),
            ],
            user_identity=dimse.UserIdentity.jwt("token", response_requested=True),
            handler=Events(),
        ) as association:
            assert association.negotiated.user_identity_response == b"token"
            assert association.negotiated.query_options(find).relational
            await association.n_create(machine, "1.2", study())
            await association.n_set(machine, "1.2", study())
            got = await association.n_get(machine, "1.2", ["StudyInstanceUID"])
            assert got.data_set.StudyInstanceUID == "1.2.1"
            await association.n_action(machine, "1.2", 1)
            await association.n_delete(machine, "1.2")
        await server.stop(grace=5)
    assert seen == ["create", "set", "get", "action", "event of 1.2.1", "delete"]


# -- listening -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "error", "message"),
    [
        (
            "192.0.2.1",
            errno.EADDRNOTAVAIL,
            r"cannot listen on 192\.0\.2\.1, port 0: .*machine",
        ),
        ("a..b", None, r"cannot listen on a\.\.b, port 0: .*check how the host is spelt"),
    ],
)
async def test_who_cannot_listen_is_told_where_and_what_to_try(
    host: str, error: int | None, message: str
) -> None:
    with pytest.raises(OSError, match=message) as caught:
        async with dimse.open_server(Patient(), host=host):
            pass
    assert error is None or caught.value.errno == error


async def test_a_port_that_is_taken_is_named() -> None:
    async with dimse.open_server(Patient()) as server:
        message = rf"127\.0\.0\.1, port {server.port}: Address already in use; .*another port"
        with pytest.raises(OSError, match=message) as caught:
            await dimse.serve(Patient(), server.port)
        assert caught.value.errno == errno.EADDRINUSE
        pacs = dimse.RemoteAE(
            "PACS", "127.0.0.1", server.port, listen_host="127.0.0.1", listen_port=server.port
        )
        with pytest.raises(OSError, match=message) as caught:
            await pacs.commit([("1.2.840.10008.5.1.4.1.1.2", "1.2.3")])
        assert caught.value.errno == errno.EADDRINUSE


def system_acknowledges_at_once(connection: trio.socket.SocketType) -> bool:
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))


@pytest.mark.parametrize("quick_ack", [True, False])
@pytest.mark.parametrize("tls", [False, True])
async def test_what_is_received_is_acknowledged_at_once_if_that_is_wanted(
    quick_ack: bool, tls: bool
) -> None:
    """Where the system can: the option goes with each receiving, as the system forgets it."""
    authority = trustme.CA()
    ours = theirs = None
    if tls:
        theirs, ours = (
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
            ssl.create_default_context(),
        )
        authority.issue_cert("127.0.0.1").configure_cert(theirs)
        authority.configure_trust(ours)
    async with (
        dimse.open_server(Patient(), ssl_context=theirs) as server,
        await dimse.connect("127.0.0.1", server.port, ssl_context=ours) as stream,
        dimse.associate_over(stream, quick_ack=quick_ack) as association,
    ):
        bare: Any = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        for _ in range(3):
            bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            assert not system_acknowledges_at_once(bare.socket)
            await association.echo()
            assert system_acknowledges_at_once(bare.socket) is quick_ack


async def test_a_relay_acknowledges_at_once_too() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        theirs = await trio.testing.open_stream_to_socket_listener(listener)
        ours = await listener.accept()
    async with ours, theirs:
        side = Side(ours)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        await theirs.send_all(b"x")
        assert await side.receive() == b"x"
        assert system_acknowledges_at_once(ours.socket)


@pytest.mark.parametrize("tls", [False, True])
async def test_an_association_goes_over_a_socket_that_is_none_of_tcp(tls: bool) -> None:
    ours, theirs = (trio.SocketStream(each) for each in trio.socket.socketpair())
    one: trio.abc.Stream = ours
    other: trio.abc.Stream = theirs
    if tls:
        authority = trustme.CA()
        client = ssl.create_default_context()
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("pacs").configure_cert(server)
        authority.configure_trust(client)
        one = trio.SSLStream(ours, client, server_hostname="pacs")
        other = trio.SSLStream(theirs, server, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dimse.serve_stream, Patient(), other)
        async with dimse.associate_over(one) as association:
            assert (await association.echo()).status == dimse.Status.SUCCESS
