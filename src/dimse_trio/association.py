"""An association as a nursery: operations are its methods, its children end before it is released.

Three kinds of task work on one association: the receive task, which is alone in reading and never
waits for a handler; the tasks of the user's nursery, which call operations; and the performing
tasks, one for each request of the peer. They meet in two tables by Message ID: `Invocation`s, which
this side has asked for, and `Performance`s, which the peer has (`services.py`).

How it ends is decided in one place, `Association.run` (PS3.8 §7.2, §7.3).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, final

import trio

from . import datasets
from .config import Limits
from .contexts import context_for, storage_context
from .errors import (
    AssociationAborted,
    AssociationClosed,
    AssociationError,
    AssociationTimeout,
    LocalProtocolError,
    StatusError,
    leaves,
)
from .incoming import Inbox, IncomingDataSet
from .link import BytesSource, DataSource, Link, source_of
from .operations import FindOperation, GetOperation, Invocation, MoveOperation
from .part10 import Instance, path_of
from .protocol.errors import AbortReason, RemoteProtocolError
from .protocol.events import (
    Aborted,
    DataSetFragment,
    MessageReceived,
    ProviderAborted,
    ReleaseConfirmed,
    ReleaseRequested,
)
from .protocol.messages import CCancelRQ, CEchoRQ, CStoreRQ, CStoreRSP, Request, Response
from .protocol.negotiation import AcceptedContext, Negotiated
from .protocol.state import State
from .protocol.uids import VERIFICATION
from .protocol.upper_layer import Role
from .queries import Query, query
from .services import Environment, Performance

if TYPE_CHECKING:
    import os

    from pydicom import Dataset

logger = logging.getLogger("dimse_trio")

T = TypeVar("T")


@final
class Association:
    """An association with a peer. Made by `open_association`, `associate_over` and the server.

    It is a nursery: `start_soon`, `start` and `cancel_scope` behave as on `trio.Nursery`; leaving
    the block waits for the children, then releases the association. Operations may be called from
    several of its tasks at once; they wait for their turn where the asynchronous operations window,
    which is 1 unless negotiated, is full (PS3.7 §D.3.3.3).
    """

    def __init__(self, link: Link, *, environment: Environment, limits: Limits) -> None:
        self._link = link
        self._limits = limits
        self._environment = environment
        self._nursery: trio.Nursery | None = None
        self._service: trio.Nursery | None = None
        window = link.negotiated.max_invoked or 0xFFFF
        self._slots = trio.Semaphore(window, max_value=window)
        self._waiting_for_slot = 0
        self._invocations: dict[int, Invocation] = {}
        self._performances: dict[int, Performance] = {}
        self._retrieving: list[GetOperation] = []
        self._sink: Callable[[bytes | memoryview, bool], None] | None = None
        self._filling: Inbox | None = None
        self._activity = trio.Event()
        self._performed = trio.Event()
        self._releasing = False
        self._over = trio.Event()
        self._end: AssociationError | None = None
        self._raise_end = False

    def __repr__(self) -> str:
        return (
            f"<Association {self.calling_ae_title!r} -> {self.called_ae_title!r}"
            f" {self.peer_address} {self._link.state.name}>"
        )

    # -- what it is ------------------------------------------------------------------------------

    @property
    def negotiated(self) -> Negotiated:
        """Accepted and refused contexts, the peer's maximum length, the window, its user items."""
        return self._link.negotiated

    @property
    def called_ae_title(self) -> str:
        return self.negotiated.called_ae_title

    @property
    def calling_ae_title(self) -> str:
        return self.negotiated.calling_ae_title

    @property
    def peer_ae_title(self) -> str:
        """The other side's AE title."""
        requestor = self._link.core.upper_layer.role is Role.REQUESTOR
        return self.called_ae_title if requestor else self.calling_ae_title

    @property
    def peer_address(self) -> str:
        """The peer's `host:port`; empty over a stream that has none."""
        return self._link.peer_address

    @property
    def is_open(self) -> bool:
        """Whether operations can be asked for."""
        return self._link.established and self._end is None

    # -- the nursery -----------------------------------------------------------------------------

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """Cancels body and children; the association is then aborted."""
        return self._children.cancel_scope

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """As `trio.Nursery.start_soon`: the child may use the association and ends before it."""
        self._children.start_soon(function, *args)

    async def start(self, function: Callable[..., Awaitable[object]], *args: Any) -> Any:
        """As `trio.Nursery.start`."""
        return await self._children.start(function, *args)

    @property
    def _children(self) -> trio.Nursery:
        if self._nursery is None:
            raise LocalProtocolError("the association's block has been left")
        return self._nursery

    # -- operations ------------------------------------------------------------------------------

    async def echo(self, *, check: bool = True) -> Response:
        """C-ECHO: verify that the peer answers (PS3.7 §9.1.5).

        Cancelled, it leaves the association usable: the late response is dropped.

        Raises:
            StatusError: A failure status, unless `check=False`.
            ContextNotAccepted: The peer does not accept Verification.
            AssociationError: The association is over, or ends before the response.
        """
        context = context_for(self.negotiated, VERIFICATION)
        return await self._request(
            context,
            lambda message_id: CEchoRQ(
                message_id=message_id, affected_sop_class_uid=context.abstract_syntax
            ),
            check=check,
        )

    async def store(
        self,
        instance: str | os.PathLike[str] | Instance | Dataset,
        *,
        check: bool = True,
        priority: int = 0,
    ) -> CStoreRSP:
        """C-STORE: send an instance (PS3.7 §9.1.1).

        A file is sent as it is, from disk, where the peer accepts its transfer syntax. A file or
        data set in a native transfer syntax is re-encoded where it accepts only another native one.

        Cancelled before its first PDU or after its last, it leaves the association usable, and the
        late response is dropped; in between the association is aborted, as half a message cannot
        be taken back. It may block after cancellation for as long as one write takes.

        Args:
            instance: The path of a DICOM file, an `Instance`, or a pydicom data set.
            check: Whether a failure status is raised; a warning is always returned.
            priority: 0 medium, 1 high, 2 low; most peers take no notice.

        Raises:
            StatusError: A failure status, unless `check=False`.
            ContextNotAccepted: The peer accepts no context that this instance could be sent on.
            InvalidFile, DataSetError: The instance cannot be sent.
            OSError: The file cannot be read.
            AssociationError: The association is over, or ends before the response.
        """
        if (path := path_of(instance)) is not None:
            instance = Instance.from_file(path)
        assert not isinstance(instance, str)
        return await self.store_as(instance, check=check, priority=priority)  # type: ignore[arg-type]

    async def store_as(
        self,
        instance: Instance | Dataset,
        *,
        check: bool = True,
        priority: int = 0,
        move_originator_ae_title: str | None = None,
        move_originator_message_id: int | None = None,
    ) -> CStoreRSP:
        """`store` for C-MOVE's sub-operations, which name their originator (PS3.7 §9.1.1.1)."""
        if isinstance(instance, Instance):
            sop_class, sop_instance = instance.sop_class_uid, instance.sop_instance_uid
            syntax: str | None = instance.transfer_syntax_uid
        else:
            sop_class, sop_instance = datasets.sop_uids(instance)
            syntax = datasets.original_transfer_syntax(instance)
        context = storage_context(self.negotiated, sop_class, syntax)
        source = self._source(instance, context)
        try:
            response = await self._request(
                context,
                lambda message_id: CStoreRQ(
                    message_id=message_id,
                    affected_sop_class_uid=sop_class,
                    affected_sop_instance_uid=sop_instance,
                    priority=priority,
                    move_originator_ae_title=move_originator_ae_title,
                    move_originator_message_id=move_originator_message_id,
                ),
                source,
                check=check,
            )
        finally:
            source.close()
        assert isinstance(response, CStoreRSP)
        return response

    def find(
        self, what: Query | Dataset, *, model: str | None = None, check: bool = True
    ) -> FindOperation:
        """C-FIND: `await` it for all matches, or `async with` and `async for` for one at a time.

        Args:
            what: A query, or an identifier as a pydicom data set.
            model: The information model's SOP class UID, where an identifier needs another than
                Study Root.
            check: Whether a failure status is raised.

        Raises:
            ContextNotAccepted: The peer does not accept the information model.
        """
        return FindOperation(self, what, model, check=check)

    def find_patients(self, **keys: Any) -> FindOperation:
        """`find(query("PATIENT", **keys))`."""
        return self.find(query("PATIENT", **keys))

    def find_studies(self, **keys: Any) -> FindOperation:
        """`find(query("STUDY", **keys))`."""
        return self.find(query("STUDY", **keys))

    def find_series(self, **keys: Any) -> FindOperation:
        """`find(query("SERIES", **keys))`."""
        return self.find(query("SERIES", **keys))

    def find_instances(self, **keys: Any) -> FindOperation:
        """`find(query("IMAGE", **keys))`."""
        return self.find(query("IMAGE", **keys))

    def get(
        self,
        what: Query | Dataset,
        *,
        save_to: str | os.PathLike[str] | None = None,
        model: str | None = None,
        check: bool = True,
    ) -> GetOperation:
        """C-GET: retrieve instances on this association (PS3.7 §9.1.3).

        `await` it with `save_to`, a folder that is made if need be, for files; or `async with` and
        `async for` for the instances as they come, each with `save_as`, `chunks` and `data_set`. An
        instance is acknowledged to the peer when the loop comes back for the next.
        """
        return GetOperation(self, what, model, save_to=path_of(save_to), check=check)

    def move(
        self,
        what: Query | Dataset,
        *,
        destination: str,
        model: str | None = None,
        check: bool = True,
    ) -> MoveOperation:
        """C-MOVE: have the peer send instances to the AE `destination` (PS3.7 §9.1.4).

        `await` it for the result, or `async with` and `async for` for the pending responses.
        """
        return MoveOperation(self, what, model, destination=destination, check=check)

    # -- requests that this side makes -----------------------------------------------------------

    def _source(self, instance: Instance | Dataset, context: AcceptedContext) -> DataSource:
        if isinstance(instance, Instance):
            if instance.transfer_syntax_uid == context.transfer_syntax:
                return source_of(instance)
            return BytesSource(datasets.convert(instance, context.transfer_syntax))
        return BytesSource(datasets.encode(instance, context.transfer_syntax))

    async def _request(
        self,
        context: AcceptedContext,
        make: Callable[[int], Request],
        source: DataSource | None = None,
        *,
        check: bool,
    ) -> Response:
        """One request with one response."""
        invocation = await self.invoke(context, make, source)
        try:
            await self.watch(invocation, invocation.done.wait)
        except trio.Cancelled:
            invocation.inbox.discard()
            raise
        assert invocation.final is not None
        if check and invocation.final.status.is_failure:
            raise StatusError.of(invocation.final)
        return invocation.final

    async def invoke(
        self,
        context: AcceptedContext,
        make: Callable[[int], Request],
        source: DataSource | None = None,
    ) -> Invocation:
        """Await a place in the window and send a request; cancelled in here, nothing is due."""
        self.check_open()
        await self._acquire_slot()
        sent = False
        try:
            self.check_open()
            request = make(self._link.core.next_message_id())
            invocation = Invocation(request, context, self._limits.memory_per_message)
            self._invocations[request.message_id] = invocation
            try:
                await self.send(context.context_id, request, source)
                sent = True
            finally:
                if not sent:
                    del self._invocations[request.message_id]
        finally:
            if not sent:
                self._slots.release()
        return invocation

    async def _acquire_slot(self) -> None:
        task = trio.lowlevel.current_task()
        if self._slots.value == 0 and any(get.holds(task) for get in self._retrieving):
            raise LocalProtocolError(
                "this task is inside `async for` over a C-GET of the same association, which goes"
                " on only when the loop does: use another association, or save_to"
            )
        self._waiting_for_slot += 1
        self._stir()
        timeout = self._link.timeouts.response
        try:
            while True:
                with trio.move_on_at(self._last_activity + timeout):
                    await self._slots.acquire()
                    return
                if trio.current_time() >= self._last_activity + timeout:
                    error = AssociationTimeout(
                        f"nothing came for the outstanding operations in {timeout:g} s;"
                        " the association was aborted"
                    )
                    await self.abort(error)
                    raise error
        finally:
            self._waiting_for_slot -= 1

    @property
    def _last_activity(self) -> float:
        """When the peer last sent something for an outstanding operation."""
        times = (invocation.last_activity for invocation in self._invocations.values())
        return max(times, default=trio.current_time())

    async def send(self, context_id: int, message: Any, source: DataSource | None = None) -> None:
        """Send a message; if the connection breaks, raise what ended the association."""
        try:
            await self._link.send_message(context_id, message, source)
        except AssociationError as error:
            with trio.CancelScope(shield=True), trio.move_on_after(2 * self._link.timeouts.linger):
                await self._over.wait()
            if self._end is None:
                raise
            raise self._end from error

    async def watch(
        self, invocation: Invocation, wait: Callable[[], Awaitable[T]], within: float = inf
    ) -> T:
        """Await something of an invocation as long as the peer does not fall silent over it."""
        while True:
            timeout = min(self._link.timeouts.response, within)
            with trio.move_on_at(invocation.last_activity + timeout):
                result = await wait()
                invocation.raise_failure()
                return result
            if trio.current_time() >= invocation.last_activity + timeout:
                error = AssociationTimeout(
                    f"nothing came for {invocation.request.name} in {timeout:g} s;"
                    " the association was aborted"
                )
                await self.abort(error)
                raise error

    async def cancel_invocation(self, invocation: Invocation) -> None:
        """C-CANCEL, then drop what comes until the final response or, too late, A-ABORT.

        Shielded; bounded by `Timeouts.cancel_grace` and one write (PS3.7 §9.3.2.3).
        """
        invocation.inbox.discard()
        if invocation.done.is_set() or self._over.is_set():
            return
        cancel = CCancelRQ(message_id_being_responded_to=invocation.request.message_id)
        grace = self._link.timeouts.cancel_grace
        with trio.CancelScope(shield=True):
            with trio.move_on_after(grace):
                try:
                    await self._link.send_message(invocation.context.context_id, cancel)
                    await invocation.done.wait()
                except AssociationError:
                    return
            if not invocation.done.is_set():
                await self.abort(
                    AssociationAborted(
                        f"the peer did not end {invocation.request.name} within {grace:g} s of"
                        " C-CANCEL; the association was aborted"
                    )
                )

    def check_open(self) -> None:
        """Raise if nothing can be asked for any more."""
        if self._end is not None:
            raise self._end
        if not self._link.established:
            raise self._link.failure or AssociationClosed("the association is over")

    async def abort(self, why: AssociationError | None = None) -> None:
        """A-ABORT, source service-user; bounded, and nothing if the association is over."""
        await self._link.abort(why or AssociationAborted("this side aborted the association"))

    def retrieving(self, operation: GetOperation, active: bool) -> None:
        """A C-GET begins or ends; the last one to begin takes the sub-operations that arrive."""
        if active:
            self._retrieving.append(operation)
        else:
            self._retrieving.remove(operation)

    @property
    def storing_operation(self) -> GetOperation | None:
        """The C-GET whose sub-operations are arriving."""
        return self._retrieving[-1] if self._retrieving else None

    # -- the receive task ------------------------------------------------------------------------

    async def _receive(self) -> None:
        """Take what the peer sends, until the connection is over."""
        link = self._link
        end: AssociationError | None = None
        try:
            while True:
                requestor = link.core.upper_layer.role is Role.REQUESTOR
                busy = requestor or self._invocations or self._performances
                event = await link.next_event(inf if busy else link.timeouts.idle)
                match event:
                    case MessageReceived():
                        self._on_message(event)
                    case DataSetFragment(data=data, is_last=is_last):
                        await self._on_fragment(data, is_last)
                    case ReleaseRequested():
                        self._service_nursery.start_soon(self._answer_release)
                    case ReleaseConfirmed() if link.state is State.COLLISION_ACCEPTOR_LOCAL:
                        await link.respond_to_release()
                    case Aborted() | ProviderAborted() if not self._releasing:
                        end = end or link.end_of(event)
                        self._finish(end, unexpected=True)
                    case None:
                        break
                    case _:
                        pass
        finally:
            self._finish(end or link.failure or AssociationClosed("the association is over"))

    def _on_message(self, event: MessageReceived) -> None:
        message = event.message
        context = self.negotiated.accepted[event.context_id]
        self._sink = self._filling = None
        match message:
            case CCancelRQ(message_id_being_responded_to=message_id):
                if message_id in self._performances:
                    self._performances[message_id].cancel()
            case CStoreRQ():
                data = IncomingDataSet(
                    memory_limit=self._limits.memory_per_message, size_limit=self._limits.data_set
                )
                if event.has_data_set:
                    self._sink, self._filling = data.feed, data.inbox
                else:
                    data.end()
                self._perform(context, message, data)
            case Request() if event.has_data_set:
                self._gather(lambda data: self._perform(context, message, data))
            case Request():
                self._perform(context, message, b"")
            case Response() if event.has_data_set:
                self._gather(lambda data: self._on_response(message, data))
            case Response():
                self._on_response(message, None)
            case _:
                pass

    def _gather(self, then: Callable[[bytes], None]) -> None:
        """Collect the data set that follows, up to the limit, and go on with it."""
        gathered = bytearray()

        def sink(data: bytes | memoryview, is_last: bool) -> None:
            if len(gathered) + len(data) > self._limits.identifier:
                self._link.core.upper_layer.violated(
                    RemoteProtocolError(
                        f"an identifier of more than {self._limits.identifier} bytes",
                        AbortReason.NOT_SPECIFIED,
                    )
                )
                self._sink = None
                return
            gathered.extend(data)
            if is_last:
                then(bytes(gathered))

        self._sink = sink

    async def _on_fragment(self, data: bytes | memoryview, is_last: bool) -> None:
        if self._sink is not None:
            self._sink(data, is_last)
        if self._filling is not None:
            await self._hold_back(self._filling)
        if is_last:
            self._sink = self._filling = None

    def _on_response(self, response: Response, data: bytes | None) -> None:
        message_id = response.message_id_being_responded_to
        invocation = self._invocations.get(message_id)
        if invocation is None:
            logger.warning("%r: %s to no request of ours", self, response.name)
            return
        invocation.deliver(response, data)
        if invocation.done.is_set():
            del self._invocations[message_id]
            self._slots.release()
        elif invocation.inbox.full:
            self._filling = invocation.inbox

    async def _hold_back(self, inbox: Inbox) -> None:
        """Let the peer wait for a reader that lags, while nothing else needs the connection.

        If the reader takes nothing for `Limits.stall` seconds, the rest goes to a temporary file:
        an abort or C-CANCEL behind it must be seen.
        """
        while inbox.full and self._alone:
            progress = inbox.progress
            with trio.move_on_after(self._limits.stall):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_first, inbox.reader_moved.wait, nursery.cancel_scope)
                    nursery.start_soon(_first, self._activity.wait, nursery.cancel_scope)
            if inbox.progress == progress:
                return

    @property
    def _alone(self) -> bool:
        """Whether one operation has the connection to itself; a C-GET and its C-STOREs are one."""
        if self._waiting_for_slot:
            return False
        performing = len(self._performances)
        if self._retrieving:
            performing = max(performing - 1, 0)
        return len(self._invocations) + performing <= 1

    def _stir(self) -> None:
        """Something else needs the connection: wake a receive task that holds back."""
        self._activity.set()
        self._activity = trio.Event()

    # -- requests of the peer --------------------------------------------------------------------

    def _perform(
        self, context: AcceptedContext, request: Request, data: bytes | IncomingDataSet
    ) -> None:
        performance = Performance(self, self._environment, context, request, data)
        self._performances[request.message_id] = performance
        self._service_nursery.start_soon(self._run_performance, performance)

    async def _run_performance(self, performance: Performance) -> None:
        try:
            await performance.run()
        except AssociationError:
            pass  # there is nobody left to answer
        finally:
            if self._performances.get(performance.request.message_id) is performance:
                del self._performances[performance.request.message_id]
            self._performed.set()
            self._performed = trio.Event()

    def answered(self, performance: Performance) -> None:
        """The final response is about to be sent: its Message ID may be used again."""
        if self._performances.get(performance.request.message_id) is performance:
            del self._performances[performance.request.message_id]

    async def _await_performances(self) -> None:
        while self._performances:
            await self._performed.wait()

    async def _answer_release(self) -> None:
        """Let what the peer asked for end, then agree to its A-RELEASE (PS3.8 §7.2.2)."""
        if self._link.state is State.COLLISION_ACCEPTOR_PEER:
            return  # A-RELEASE-RP comes first: see _receive
        with trio.move_on_after(self._link.timeouts.release):
            await self._await_performances()
        for performance in self._performances.values():
            performance.cancel()
        collision = self._link.state is not State.AWAITING_LOCAL_RELEASE
        try:
            await self._link.respond_to_release()
        except AssociationError:
            return
        if not collision:
            self._finish(
                AssociationClosed("the peer released the association"),
                unexpected=self._link.core.upper_layer.role is Role.REQUESTOR,
            )

    # -- the end ---------------------------------------------------------------------------------

    @property
    def _service_nursery(self) -> trio.Nursery:
        assert self._service is not None
        return self._service

    def _finish(self, error: AssociationError, *, unexpected: bool = False) -> None:
        """The association is over: tell every operation, performance and, if need be, the body."""
        if self._over.is_set():
            return
        self._end = error
        self._over.set()
        told = False
        for invocation in self._invocations.values():
            told = invocation.fail(error) or told
        for performance in self._performances.values():
            performance.abandon(error)
        self._stir()
        if unexpected and not told and self._nursery is not None:
            self._raise_end = True
        if self._nursery is not None and not told:
            self._nursery.cancel_scope.cancel()

    async def wait_over(self) -> None:
        """Wait until the association has ended, in whatever way."""
        await self._over.wait()

    async def _close(self, *, release: bool) -> None:
        """Release, or abort what cannot be released; then wait for the peer to close."""
        timeouts = self._link.timeouts
        try:
            if release and not self._over.is_set():
                with trio.move_on_after(timeouts.release):
                    await self._await_performances()
                    self._releasing = True
                    await self._link.release()
                    await self._over.wait()
        except AssociationError:
            pass  # it ended by itself
        finally:
            await self.abort()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Association]:
        """The life of an established association, from its first task to its last."""
        failure: BaseException | None = None
        in_body: BaseException | None = None
        async with trio.open_nursery() as service:
            self._service = service
            service.start_soon(self._receive)
            try:
                async with trio.open_nursery() as children:
                    self._nursery = children
                    try:
                        yield self
                    except BaseException as error:
                        in_body = error
                        raise
                cancelled = children.cancel_scope.cancel_called
                self._nursery = None
                await self._close(release=not cancelled)
            except BaseException as error:
                failure = error
                self._nursery = None
                await self._close(release=False)
            with trio.CancelScope(shield=True), trio.move_on_after(2 * self._link.timeouts.linger):
                await self._over.wait()
            service.cancel_scope.cancel()
        if failure is not None:
            raise _bare(failure, in_body)
        if self._raise_end and self._end is not None:
            raise self._end


async def _first(wait: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()


def _bare(failure: BaseException, in_body: BaseException | None) -> BaseException:
    """The body's own exception, if the children's nursery wrapped no other beside it."""
    if in_body is None:
        return failure
    others = (e for e in leaves(failure) if e is not in_body and not isinstance(e, trio.Cancelled))
    if isinstance(in_body, BaseExceptionGroup):
        return failure if any(e not in tuple(leaves(in_body)) for e in others) else in_body
    return in_body if next(others, None) is None else failure
