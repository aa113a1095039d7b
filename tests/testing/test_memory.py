"""`associated_pair` and `serve_stream`: associations without sockets, in jumping time."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf

import attrs
import pytest
import trio
import trio.testing
import trustme
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.testing import associated_pair

CT = dimse.uid_of("CTImageStorage")


@attrs.define
class Slow:
    """Answers C-ECHO at once, and C-FIND after `seconds`."""

    seconds: float = inf
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        try:
            await trio.sleep(self.seconds)
            yield request.identifier
        finally:
            self.ended.set()


async def test_operations_go_through(autojump_clock: trio.testing.MockClock) -> None:
    async with associated_pair(Slow(200)) as association:
        assert (await association.echo()).status == dimse.Status.SUCCESS
        with trio.fail_after(201):
            (match,) = await association.find_studies(PatientID="1")
    assert match.PatientID == "1"


async def test_time_outs_take_no_time(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(dimse.AssociationTimeout):
        async with associated_pair(Slow(), timeouts=dimse.Timeouts(response=7200)) as association:
            await association.find_studies()
    assert trio.current_time() >= 7200


async def test_titles_are_what_they_are_told_to_be() -> None:
    async with associated_pair(
        Slow(), called_ae_title="PACS", calling_ae_title="ME", ae_title="PACS"
    ) as association:
        assert (association.called_ae_title, association.calling_ae_title) == ("PACS", "ME")


async def test_contexts_are_what_they_are_told_to_be() -> None:
    contexts = [dimse.PresentationContext(dimse.uid_of("Verification"))]
    async with associated_pair(Slow(), contexts=contexts) as association:
        assert len(association.negotiated.accepted) == 1


async def test_the_body_s_exception_leaves_bare_and_the_handler_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slow = Slow()
    with pytest.raises(KeyError):
        async with associated_pair(slow) as association:
            with trio.move_on_after(1):
                async with association.find(dimse.query("STUDY")):
                    raise KeyError("from the body")
    assert slow.ended.is_set()


async def test_cancelled_from_outside(autojump_clock: trio.testing.MockClock) -> None:
    slow = Slow()
    with trio.move_on_after(5) as scope:
        async with associated_pair(slow) as association:
            await association.find_studies()
    assert scope.cancelled_caught
    assert slow.ended.is_set()


async def test_a_child_s_exception_comes_in_a_group() -> None:
    async def fail() -> None:
        raise KeyError("from a child")

    with pytest.raises(ExceptionGroup) as caught:
        async with associated_pair(Slow()) as association:
            association.start_soon(fail)
    assert caught.group_contains(KeyError)


async def test_a_rejection_leaves_bare() -> None:
    with pytest.raises(dimse.AssociationRejected) as caught:
        async with associated_pair(Slow(), ae_title="SOMEBODY"):
            pass
    assert caught.value.reason is dimse.RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED


async def test_a_handler_that_is_none_leaves_bare() -> None:
    class Wrong:
        def handle_echo(self) -> None: ...

    with pytest.raises(dimse.HandlerError, match="one argument"):
        async with associated_pair(Wrong()):
            pass


async def test_an_option_that_is_none_leaves_bare() -> None:
    with pytest.raises(TypeError, match="colour"):
        async with associated_pair(Slow(), colour="red"):
            pass


async def test_the_acceptor_can_request_too() -> None:
    """With the roles negotiated, the acceptor stores to the requestor."""
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = CT, "2.25.1"
    data_set.PatientID = "1"
    received = []

    class Sender:
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            response = await request.association.store(data_set)
            return response.status

        async def handle_get(self, request: dimse.GetRequest) -> AsyncIterator[Dataset]:
            yield data_set

    class Receiver:
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            received.append(await request.data_set())
            return dimse.Status.SUCCESS

    async with associated_pair(Sender(), requestor_handler=Receiver()) as association:
        await association.echo()
    assert [data_set.PatientID for data_set in received] == ["1"]


# -- serve_stream --------------------------------------------------------------------------------


async def test_serve_stream_closes_its_stream_and_returns() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        await nursery.start(dimse.serve_stream, Slow(), theirs)
        async with dimse.associate_over(ours) as association:
            await association.echo()
    with pytest.raises(trio.ClosedResourceError):
        await theirs.send_all(b"x")


async def test_serve_stream_does_not_raise_what_the_peer_does() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dimse.serve_stream, Slow(), theirs)
        await ours.send_all(b"GET / HTTP/1.1\r\n\r\n")
        assert (await ours.receive_some())[:1] == b"\x07"  # A-ABORT
        await ours.aclose()


async def test_serve_stream_refuses_a_handler_that_is_none() -> None:
    _, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(dimse.HandlerError):
        await dimse.serve_stream(type("Wrong", (), {"handle_echo": 1})(), theirs)
    with pytest.raises(trio.ClosedResourceError):
        await theirs.send_all(b"x")


async def test_serve_stream_cancelled_aborts(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dimse.serve_stream, Slow(), theirs)
        with trio.CancelScope(shield=True), pytest.raises(dimse.AssociationAborted) as caught:
            async with dimse.associate_over(ours) as association:
                nursery.cancel_scope.cancel()
                await association.find_studies()
    assert caught.value.source == 0


async def test_serve_stream_runs_admission_around_the_association() -> None:
    log: list[str] = []

    class Doorkeeper(Slow):
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncIterator[None]:
            log.append(f"{request.calling_ae_title} comes")
            yield
            log.append(f"{request.calling_ae_title} goes")

    async with associated_pair(Doorkeeper(), calling_ae_title="ME") as association:
        await association.echo()
        assert log == ["ME comes"]
    assert log == ["ME comes", "ME goes"]


async def test_serve_stream_over_tls() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("pacs.example").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(dimse.serve_stream, Slow(), theirs, ssl_context=server_context))
        stream = trio.SSLStream(ours, client_context, server_hostname="pacs.example")
        async with dimse.associate_over(stream) as association:
            assert (await association.echo()).status == dimse.Status.SUCCESS
