"""What this side has asked for and not been answered finally: a table, and the window it must fit.

The asynchronous operations window bounds how many operations may be outstanding (PS3.7 §D.3.3.3).
A place in it is taken before a request is sent and given back with the final response, even if
nobody waits for that any more: the peer's own count goes by it.

A C-GET waits until no other is outstanding, too: its C-STORE sub-operations do not say whose they
are (PS3.7 §9.1.3), so that an instance can only be told to be of the one C-GET that there is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from .incoming import Inbox
from .protocol.messages import CFindRQ, Request, Response
from .protocol.negotiation import AcceptedContext
from .protocol.status import Status

if TYPE_CHECKING:
    from .requests import StoreRequest


class Invocation:
    """A request of this side until its final response, as the receive task sees it."""

    def __init__(
        self,
        request: Request,
        context: AcceptedContext,
        memory_limit: int,
        retrieval: Retrieval | None = None,
    ) -> None:
        self.request = request
        self.context = context
        self.retrieval = retrieval
        self.inbox = Inbox(memory_limit)
        self.pending: Response | None = None
        self.final: Response | None = None
        self.final_data: bytes | None = None
        self.done = trio.Event()
        self.last_activity = inf
        """When the peer last said something of it, or it was sent; until then nothing is due."""
        self._failure: BaseException | None = None

    @property
    def may_be_done(self) -> bool:
        """Whether the peer may have done what it asks for: it has gone out, and is not refused."""
        status = Status.SUCCESS if self.final is None else self.final.status
        refused = status.is_failure or status == Status.CANCEL
        return self.last_activity < inf and not refused

    def deliver(self, response: Response, data: bytes | None) -> None:
        """Take a response and its data set."""
        self.last_activity = trio.current_time()
        if not response.status.is_pending:
            self.final, self.final_data = response, data
            self.inbox.end()
            self.done.set()
            return
        self.pending = response
        if isinstance(self.request, CFindRQ):
            if data is not None:  # some peers send a pending response without identifier
                self.inbox.put(data)
        else:
            self.inbox.put(b"")  # what counts is `pending`; a data set here is against PS3.4

    def fail(self, error: BaseException) -> bool:
        """The association is over; whether somebody is there to be told."""
        listening = not self.inbox.discarding
        self._failure = error
        self.inbox.fail(error)
        self.done.set()
        return listening

    def raise_failure(self) -> None:
        """Raise what ended the association, if it did before the final response."""
        if self._failure is not None:
            raise self._failure


class Retrieval(Protocol):
    """A C-GET of this side, which takes the instances that arrive."""

    @property
    def begun(self) -> bool:
        """Whether it has, or is just about to be, requested."""
        ...

    def holds(self, task: trio.lowlevel.Task) -> bool:
        """Whether it can only go on when that task comes back for the next instance."""
        ...

    async def receive(self, request: StoreRequest) -> Status:
        """Take a sub-operation's instance, for its performance; the status is for the peer."""
        ...


@attrs.define(eq=False)
class _Waiting:
    """A task that waits for a place, for a C-GET or for anything else."""

    retrieval: Retrieval | None
    admitted: trio.Event = attrs.field(factory=trio.Event)


class Invocations:
    """The outstanding operations by Message ID.

    Args:
        window: How many there may be; 0 is no limit.
    """

    def __init__(self, window: int) -> None:
        self.window = window or 0xFFFF
        self.retrieval: Retrieval | None = None
        """The C-GET that has a place."""
        self._table: dict[int, Invocation] = {}
        self._places = self.window
        self._waiting: OrderedDict[_Waiting, None] = OrderedDict()
        """In their order; of many, any may go in no time."""

    def __len__(self) -> int:
        return len(self._table)

    def get(self, message_id: int) -> Invocation | None:
        """The operation of that Message ID."""
        return self._table.get(message_id)

    @property
    def crowded(self) -> bool:
        """Whether tasks wait for a place, and not just for the end of the C-GET that has one."""
        return any(not (each.retrieval and self.retrieval) for each in self._waiting)

    async def take_place(
        self, before_waiting: Callable[[], None], retrieval: Retrieval | None = None
    ) -> None:
        """Wait for a place in the window; the caller gives it back.

        First come, first served, but that a C-GET lets others pass while it waits for another.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._take(retrieval):
            return
        before_waiting()
        waiting = _Waiting(retrieval)
        self._waiting[waiting] = None
        try:
            await waiting.admitted.wait()
        except BaseException:
            if waiting.admitted.is_set():  # after it was cancelled, before it ran
                self.give_place_back(retrieval)
            else:
                del self._waiting[waiting]
            raise

    def _take(self, retrieval: Retrieval | None) -> bool:
        """Take a place if there is one; nobody who could have it waits then."""
        if not self._places or (retrieval and self.retrieval):
            return False
        self._places -= 1
        self.retrieval = self.retrieval or retrieval
        return True

    def give_place_back(self, retrieval: Retrieval | None = None) -> None:
        """A place that was taken is free again."""
        self._places += 1
        if retrieval is not None:
            self.retrieval = None
        while self._places:
            first = next((each for each in self._waiting if self._take(each.retrieval)), None)
            if first is None:
                break
            del self._waiting[first]
            first.admitted.set()

    def add(self, invocation: Invocation) -> None:
        """An operation takes the place that its task has taken."""
        self._table[invocation.request.message_id] = invocation

    def remove(self, message_id: int) -> None:
        """An operation is over, or could not be asked for: its place is free again."""
        if (invocation := self._table.pop(message_id, None)) is not None:
            self.give_place_back(invocation.retrieval)

    def touch(self) -> None:
        """Nobody can be called silent until now."""
        now = trio.current_time()
        for invocation in self._table.values():
            invocation.last_activity = max(invocation.last_activity, now)

    async def wait_abandoned(self) -> None:
        """Wait for the late responses: in a window, what undoes a request must not overtake it."""
        for invocation in [each for each in self._table.values() if each.inbox.discarding]:
            await invocation.done.wait()

    @property
    def most_silent(self) -> Invocation | None:
        """The operation that nothing has come for the longest."""
        return min(self._table.values(), key=lambda i: i.last_activity, default=None)

    def fail(self, error: BaseException) -> bool:
        """The association is over: fail every operation; whether somebody is there to be told.

        Their places are free then, so that who waits for one learns that there is none.
        """
        told = False
        for message_id, invocation in list(self._table.items()):
            told = invocation.fail(error) or told
            self.remove(message_id)
        return told
