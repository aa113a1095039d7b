"""The exchange of messages on an established association: who waits for what, and who answers.

Three kinds of task meet here. The receive task is alone in reading and never waits for a handler;
users' tasks invoke operations; performing tasks, one for each request of the peer, answer it. They
share two tables by Message ID: `Invocation`s, which this side has asked for, and `Performance`s,
which the peer has (PS3.7 §6.2, §D.3.3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio

from .errors import (
    AssociationAborted,
    AssociationClosed,
    AssociationError,
    AssociationTimeout,
    LocalProtocolError,
    StatusError,
)
from .incoming import Bell, Inbox, IncomingDataSet, gathering
from .invocations import Invocation, Invocations, Retrieval
from .link import Link, Silence
from .performance import Environment, EventTaker, Performance
from .protocol.errors import RemoteProtocolError
from .protocol.events import (
    Aborted,
    DataSetFragment,
    MessageReceived,
    ProviderAborted,
    ReleaseConfirmed,
    ReleaseRequested,
)
from .protocol.messages import CCancelRQ, CStoreRQ, Message, Request, Response
from .protocol.negotiation import AcceptedContext
from .protocol.state import State
from .protocol.status import Status
from .protocol.upper_layer import Role
from .sources import DataSource

if TYPE_CHECKING:
    from .association import Association


class Exchange:
    """See the module. One for each `Association`, which owns it."""

    def __init__(self, association: Association, link: Link, environment: Environment) -> None:
        self.link = link
        self.over = trio.Event()
        """Set when the association has ended, in whatever way; `end` then says how."""
        self.end: AssociationError | None = None
        self.told = False
        """Whether an operation has raised `end`."""
        self.on_end: Callable[[bool], None] = lambda _: None
        """Called when it ends, every operation told; says whether the user could not expect it."""
        self.event_takers: list[EventTaker] = []
        """Who awaits an N-EVENT-REPORT of an operation, asked before the handler is."""
        self.outlasting: list[Callable[[], None]] = []
        """Told of the end, in place of the body being cancelled before they have left."""
        self.on_outlasted: Callable[[], None] = lambda: None
        self._association = association
        self._environment = environment
        self._limits = link.limits
        self._invocations = Invocations(link.negotiated.max_invoked)
        self.wait_abandoned = self._invocations.wait_abandoned
        self._performances: dict[int, Performance] = {}
        self._sink: Callable[[bytes | memoryview, bool], None] | None = None
        self._filling: Inbox | None = None
        self._performed = Bell()
        self._receiving = trio.CancelScope(shield=True)
        self._received = trio.Event()
        self._releasing = False
        self._last_activity = trio.current_time()
        link.due = self._due

    # -- requests of this side -------------------------------------------------------------------

    async def request(
        self,
        context: AcceptedContext,
        make: Callable[[int], Request],
        source: DataSource | None = None,
        *,
        check: bool,
        begun: Callable[[Invocation], None] = lambda _: None,
    ) -> Invocation:
        """One request with one response, which the invocation then has."""
        invocation = await self.invoke(context, make, source, begun)
        if not invocation.done.is_set():  # what is known already is not lost to cancellation
            try:
                await invocation.done.wait()
            except trio.Cancelled:
                invocation.inbox.discard()
                raise
        invocation.raise_failure()
        assert invocation.final is not None
        status = invocation.final.status
        if check and (status.is_failure or status == Status.CANCEL):  # nobody has asked for that
            raise StatusError.of(invocation.final, invocation.request)
        return invocation

    async def invoke(
        self,
        context: AcceptedContext,
        make: Callable[[int], Request],
        source: DataSource | None = None,
        begun: Callable[[Invocation], None] = lambda _: None,
        retrieval: Retrieval | None = None,
    ) -> Invocation:
        """Await a place in the window and send a request; cancelled in here, nothing is due.

        `begun` is called before anything is sent, as the peer may answer before this returns. A
        C-GET, which is the `retrieval`, awaits the end of the one before it, too.
        """
        self.check_open()
        await self._invocations.take_place(partial(self._before_waiting, retrieval), retrieval)
        try:
            self.check_open()
            request = make(self.link.core.next_message_id())
        except BaseException:
            self._invocations.give_place_back(retrieval)
            raise
        memory_limit = self._limits.memory_per_message
        invocation = Invocation(request, context, memory_limit, retrieval)
        self._invocations.add(invocation)
        self._stir()  # its response must come past what a handler has not read
        begun(invocation)
        try:
            await self.send(context.context_id, request, source)
        except BaseException:
            self._invocations.remove(request.message_id)
            raise
        invocation.last_activity = trio.current_time()
        return invocation

    def _before_waiting(self, retrieval: Retrieval | None) -> None:
        """There is no room: refuse to wait for ourselves, and let nobody else hold us up."""
        waits_for_it = retrieval is not None or self._invocations.window == 1
        under_way = self._invocations.retrieval
        if waits_for_it and under_way and under_way.holds(trio.lowlevel.current_task()):
            raise LocalProtocolError(
                "this task is inside the block of a C-GET of the same association, which ends only"
                " when the loop over it does: use another association, or save_to for that C-GET"
            )
        self._stir()

    async def send(
        self, context_id: int, message: Message, source: DataSource | None = None
    ) -> None:
        """Send a message; if the connection breaks, raise what ended the association."""
        try:
            await self.link.send_message(context_id, message, source)
        except AssociationError as error:
            with trio.CancelScope(shield=True), trio.move_on_after(2 * self.link.timeouts.linger):
                await self.over.wait()
            if self.end is None:
                raise
            raise self.end from error

    async def cancel_invocation(self, invocation: Invocation) -> None:
        """C-CANCEL, then drop what comes until the final response or, too late, A-ABORT.

        Shielded; bounded by `Timeouts.cancel_grace` and one write (PS3.7 §9.3.2.3).
        """
        invocation.inbox.discard()
        if invocation.done.is_set() or self.over.is_set():
            return
        cancel = CCancelRQ(message_id_being_responded_to=invocation.request.message_id)
        grace = self.link.timeouts.cancel_grace
        with trio.CancelScope(shield=True):
            with trio.move_on_after(grace):
                try:
                    await self.link.send_message(invocation.context.context_id, cancel)
                    await invocation.done.wait()
                except AssociationError:
                    return
            if not invocation.done.is_set():
                await self.link.abort(
                    AssociationAborted(
                        f"the peer did not end {invocation.request.name} within {grace:g} s of"
                        " C-CANCEL; the association was aborted"
                    ),
                    left=True,
                )
                self.link.let_out()

    def check_open(self) -> None:
        """Raise if nothing can be asked for any more."""
        if self.end is not None or not self.link.established:
            self.told = True
            raise self.end or self.link.failure or AssociationClosed("the association is over")

    async def abort(self, why: AssociationError | None = None) -> None:
        """A-ABORT, source service-user; bounded, and nothing if the association is over."""
        self._releasing = self._releasing or why is None  # the user's wish is no surprise to them
        await self.link.abort(why or AssociationAborted("this side aborted the association"))

    @property
    def _storing(self) -> Retrieval | None:
        """The C-GET whose sub-operations are arriving."""
        retrieval = self._invocations.retrieval
        return retrieval if retrieval is not None and retrieval.begun else None

    # -- the receive task ------------------------------------------------------------------------

    async def run(self, service: trio.Nursery) -> None:
        """The receive task; starts performing tasks in `service`.

        It is shielded: what cancels the association must not keep the peer from reading our
        A-ABORT. It ends with the connection, or is ended by `stop`.
        """
        self._tasks = service
        with self._receiving:
            await self._receive()
        self._received.set()

    async def stop(self) -> None:
        """Wait for the end of the connection, but not for long, and end the receive task."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(2 * self.link.timeouts.linger):
                await self._received.wait()
            self._receiving.cancel()

    async def _receive(self) -> None:
        link = self.link
        end: AssociationError | None = None
        try:
            while True:
                event = await link.next_event()
                self._last_activity = trio.current_time()
                match event:
                    case MessageReceived():
                        self._on_message(event)
                    case DataSetFragment(data=data, is_last=is_last):
                        await self._on_fragment(data, is_last)
                    case ReleaseRequested():
                        self._tasks.start_soon(self._answer_release)
                    case ReleaseConfirmed() if link.state is State.COLLISION_ACCEPTOR_LOCAL:
                        await link.respond_to_release()
                    case Aborted() | ProviderAborted() if not self._releasing:
                        end = end or link.end_of(event)
                        self._finish(end, unexpected=not self._was_left(event))
                    case Silence():
                        await self._on_silence()
                    case None:
                        break
                    case _:
                        pass
        finally:
            end = end or link.failure or AssociationClosed("the association is over")
            self._finish(end, unexpected=link.failure is not None and not self._releasing)

    def _was_left(self, event: Aborted | ProviderAborted) -> bool:
        """Whether a requestor left without A-RELEASE, as many do, when all had been answered."""
        busy = self._performances or self.link.core.receiving or getattr(event, "error", None)
        return self.link.core.upper_layer.role is Role.ACCEPTOR and not busy

    def _due(self) -> float:
        """Until when the peer must say something: about what we asked for, or, idle, at all.

        While an instance of our C-GET is being taken, it is not the peer who is silent.
        """
        timeouts = self.link.timeouts
        if self._storing and self._performances:
            return inf
        if (silent := self._invocations.most_silent) is not None:
            return silent.last_activity + timeouts.response
        if not self._performances and self.link.core.upper_layer.role is Role.ACCEPTOR:
            return self._last_activity + timeouts.idle
        return inf

    async def _on_silence(self) -> None:
        timeouts = self.link.timeouts
        why = f"nothing happened for {timeouts.idle:g} s (Timeouts.idle)"
        if (silent := self._invocations.most_silent) is not None:
            what = silent.request.name
            why = f"nothing came for {what} in {timeouts.response:g} s (Timeouts.response)"
        await self.abort(AssociationTimeout(f"{why}; the association was aborted"))

    def _on_message(self, event: MessageReceived) -> None:
        message = event.message
        context = self.link.negotiated.accepted[event.context_id]
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
                self._gather(message, lambda data: self._perform(context, message, data))
            case Request():
                self._perform(context, message, b"")
            case Response() if event.has_data_set:
                self._gather(message, lambda data: self._on_response(message, data))
            case Response():
                self._on_response(message, None)
            case _:
                pass

    def _gather(self, message: Message, then: Callable[[bytes], None]) -> None:
        """Collect the data set that follows, up to the limit, and go on with it."""
        limit = self._limits.attributes if message.normalized else self._limits.identifier
        self._sink = gathering(limit, then)

    async def _on_fragment(self, data: bytes | memoryview, is_last: bool) -> None:
        if self._sink is not None:
            try:
                self._sink(data, is_last)
            except RemoteProtocolError as error:
                self._sink = None
                self.link.core.upper_layer.violated(error)
        if self._filling is not None:
            await self._hold_back(self._filling)
        if is_last:
            self._sink = self._filling = None

    def _on_response(self, response: Response, data: bytes | None) -> None:
        message_id = response.message_id_being_responded_to
        invocation = self._invocations.get(message_id)
        if invocation is None or not isinstance(response, invocation.request.response):
            return  # the core has said so
        invocation.deliver(response, data)
        if invocation.done.is_set():
            self._invocations.remove(message_id)
        elif invocation.inbox.full:
            self._filling = invocation.inbox

    async def _hold_back(self, inbox: Inbox) -> None:
        """Let the peer wait for a reader that lags, while nothing else needs the connection.

        If the reader takes nothing for `Limits.stall` seconds, the rest goes to a temporary file:
        an abort or C-CANCEL behind it must be seen.
        """
        while inbox.worth_waiting_for and self._alone:
            await inbox.wait_moved(self._limits.stall)

    @property
    def _alone(self) -> bool:
        """Whether one operation has the connection to itself; a C-GET and its C-STOREs are one."""
        if self._invocations.crowded:
            return False
        performing = len(self._performances)
        if self._storing:
            performing = max(performing - 1, 0)
        return len(self._invocations) + performing <= 1

    def _stir(self) -> None:
        """Something else needs the connection: wake a receive task that holds back."""
        if self._filling is not None:
            self._filling.wake_receiver()

    # -- requests of the peer --------------------------------------------------------------------

    def _perform(
        self, context: AcceptedContext, request: Request, data: bytes | IncomingDataSet
    ) -> None:
        performance = Performance(
            self, self._association, self._environment, context, request, data, self._storing
        )
        self._performances[request.message_id] = performance
        self._tasks.start_soon(self._run_performance, performance)

    async def _run_performance(self, performance: Performance) -> None:
        from .services import perform

        try:
            await perform(performance)
        except AssociationError:
            pass  # there is nobody left to answer
        except trio.Cancelled:  # the whole association is: the peer would wait for an answer
            await performance.give_up()
            raise
        finally:
            self.answered(performance)

    def answered(self, performance: Performance) -> None:
        """The final response is about to be sent: its Message ID may be used again."""
        if self._performances.get(performance.request.message_id) is performance:
            del self._performances[performance.request.message_id]
            self._invocations.touch()
            self._last_activity = trio.current_time()
            self._performed.ring()

    async def _await_performances(self) -> None:
        while self._performances:
            await self._performed.wait()

    async def _answer_release(self) -> None:
        """Let what the peer asked for end, then agree to its A-RELEASE (PS3.8 §7.2.2)."""
        if self.link.state is State.COLLISION_ACCEPTOR_PEER:
            return  # A-RELEASE-RP comes first: see _receive
        with trio.move_on_after(self.link.timeouts.release):
            await self._await_performances()
        for performance in self._performances.values():
            performance.cancel()
        collision = self.link.state is not State.AWAITING_LOCAL_RELEASE
        try:
            await self.link.respond_to_release()
        except AssociationError:
            return
        if not collision:
            self._finish(
                AssociationClosed("the peer released the association"),
                unexpected=self.link.core.upper_layer.role is Role.REQUESTOR,
            )

    # -- the end ---------------------------------------------------------------------------------

    def _finish(self, error: AssociationError, *, unexpected: bool = False) -> None:
        """The association is over: tell every operation, performance and, if need be, the body."""
        if self.over.is_set():
            return
        self.end = error
        self.over.set()
        self.told = self._invocations.fail(error) or self.told
        for performance in self._performances.values():
            performance.abandon(error)
        self._stir()
        self.on_end(unexpected)

    async def close(self, *, release: bool) -> None:
        """Release, or abort what cannot be released; then wait for the peer to close."""
        try:
            if release and not self.over.is_set():
                with trio.move_on_after(self.link.timeouts.release):
                    await self._await_performances()
                    self._releasing = True
                    await self.link.release()
                    await self.over.wait()
                    await self._await_performances()  # of events that came in the meantime
        except AssociationError:
            pass  # it ended by itself
        finally:
            await self.abort()
