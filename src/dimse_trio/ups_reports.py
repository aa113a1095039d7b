"""Event reports of the Unified Procedure Step's SCP on their way to those who subscribed.

Each receiving AE has a queue and a task of its own: its reports keep their order, and an AE that is
slow or gone holds nobody up (PS3.4 §CC.2.4.3).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import attrs
import trio

from .client import DEFAULT_AE_TITLE, Destination, open_association
from .config import Timeouts
from .errors import ContextNotAccepted, DimseError
from .protocol.negotiation import PresentationContext
from .protocol.ups import UPS_EVENT, UPS_PUSH, StepEventType

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association

logger = logging.getLogger("dimse_trio")

Peers = Mapping[str, "Destination | tuple[str, int]"]
Resolve = Callable[[str], Awaitable["Destination | None"]]


@attrs.frozen
class Report:
    """One N-EVENT-REPORT to be sent, once `after` is set."""

    sop_instance_uid: str
    type: StepEventType
    information: Dataset = attrs.field(repr=False)
    after: trio.Event | None = attrs.field(default=None, repr=False)

    @property
    def may_be_sent(self) -> bool:
        """Whether what it has to wait for has come."""
        return self.after is None or self.after.is_set()


@attrs.frozen(kw_only=True)
class ReportOptions:
    """How reports are delivered.

    Attributes:
        peers: Where the AEs are that reports may go to, or a function that says so.
        ae_title: What we are called on an association that is opened to report.
        held: Reports that wait for one AE; beyond, the oldest are dropped.
        within: Seconds for delivering one report, opening the association included.
        retries: How often a report is tried again on a new association.
        pause: Seconds before the first of these tries; twice as long before each next.
        timeouts: Of the associations that are opened.
    """

    peers: Peers | Resolve
    ae_title: str = DEFAULT_AE_TITLE
    held: int = 20_000
    within: float = 30.0
    retries: int = 2
    pause: float = 1.0
    timeouts: Timeouts = attrs.field(factory=Timeouts)

    async def resolve(self, ae_title: str) -> Destination | None:
        """Where an AE is; `None` if that is not known."""
        if callable(self.peers):
            return await self.peers(ae_title)
        peer = self.peers.get(ae_title)
        return Destination(*peer) if isinstance(peer, tuple) else peer


class Reporter:
    """Delivers reports, in tasks of `nursery`.

    An AE's open association that has a context for UPS Event is used, else one is opened to where
    it is. What cannot be delivered is logged and dropped: the standard asks for no more.
    """

    def __init__(self, options: ReportOptions, nursery: trio.Nursery) -> None:
        self._options = options
        self._nursery = nursery
        self._queues: dict[str, deque[Report]] = {}
        self._open: dict[str, list[Association]] = {}
        self._dropping: set[str] = set()
        self._failing: set[str] = set()
        """The AEs whose last report could not be delivered, which has been said."""

    def saw(self, association: Association) -> None:
        """A request came on that association: it may be there for reports."""
        if not association.is_open or not _takes_reports(association):
            return
        opened = self._open.setdefault(association.peer_ae_title, [])
        if association in opened:
            return
        opened.append(association)
        self._nursery.start_soon(self._forget, association)

    async def _forget(self, association: Association) -> None:
        title = association.peer_ae_title
        try:
            await association.wait_over()
        finally:
            self._open[title].remove(association)
            if not self._open[title]:
                del self._open[title]

    async def knows(self, ae_title: str) -> bool:
        """Whether there is a way to an AE now."""
        return bool(self._open.get(ae_title)) or await self._where(ae_title) is not None

    async def _where(self, ae_title: str) -> Destination | None:
        try:
            return await self._options.resolve(ae_title)
        except Exception as error:  # the user's own function
            logger.error("cannot find out where %s is", ae_title, exc_info=error)
            return None

    def report(self, ae_title: str, report: Report) -> None:
        """Have a report delivered after those before it."""
        queue = self._queues.get(ae_title)
        if queue is None:
            queue = self._queues[ae_title] = deque(maxlen=self._options.held)
            self._nursery.start_soon(self._deliver_all, ae_title, queue)
        if len(queue) == queue.maxlen and ae_title not in self._dropping:
            self._dropping.add(ae_title)
            logger.warning("too many event reports wait for %s: the oldest are dropped", ae_title)
        queue.append(report)

    async def _deliver_all(self, ae_title: str, queue: deque[Report]) -> None:
        """Deliver what is in a queue; it is gone when nothing is left."""
        try:
            while queue:
                report = queue.popleft()
                if report.after is not None:
                    with trio.move_on_after(self._options.within):
                        await report.after.wait()
                if await self._deliver(ae_title, report, queue):
                    self._failing.discard(ae_title)
                else:
                    self._cannot_deliver(ae_title)
        finally:
            del self._queues[ae_title]
            self._dropping.discard(ae_title)

    def _cannot_deliver(self, ae_title: str) -> None:
        """Say so, once until one is delivered again."""
        if ae_title not in self._failing:
            logger.warning("event reports to %s cannot be delivered", ae_title)
        self._failing.add(ae_title)

    async def _deliver(self, ae_title: str, report: Report, queue: deque[Report]) -> bool:
        """Whether the AE has it."""
        options = self._options
        for association in list(self._open.get(ae_title, ())):
            with trio.move_on_after(options.within):
                if await self._send(association, report):
                    return True
        pause = options.pause
        for attempt in range(options.retries + 1):
            if attempt:
                await trio.sleep(pause)
                pause *= 2
            delivered = await self._try_new(ae_title, report, queue)
            if delivered:
                return True
            if delivered is None:
                break
        return False

    async def _try_new(self, ae_title: str, report: Report, queue: deque[Report]) -> bool | None:
        """Open an association and report on it; what has been queued meanwhile, too.

        Each report has its own time. One that was answered is delivered, however the association
        ends. `None` if there is no way to the AE.
        """
        within, delivered = self._options.within, False
        try:
            with trio.move_on_after(within) as limit:
                destination = await self._where(ae_title)
                if destination is None:
                    return None
                async with self._open_to(ae_title, destination) as association:
                    delivered = await self._send(association, report)
                    while delivered and queue and queue[0].may_be_sent:
                        limit.deadline = trio.current_time() + within
                        following = queue[0]
                        if not await self._send(association, following):
                            break
                        if queue and queue[0] is following:  # it was not dropped meanwhile
                            queue.popleft()
        except DimseError as error:
            if not delivered:
                logger.info("no event report to %s: %s", ae_title, error)
                if isinstance(error, ContextNotAccepted):
                    return None
        return delivered

    def _open_to(
        self, ae_title: str, destination: Destination
    ) -> AbstractAsyncContextManager[Association]:
        return open_association(
            destination.host,
            destination.port,
            called_ae_title=destination.ae_title or ae_title,
            calling_ae_title=self._options.ae_title,
            contexts=[PresentationContext(UPS_EVENT, scp=True, scu=False)],
            ssl_context=destination.ssl_context,
            tls_server_name=destination.tls_server_name,
            timeouts=self._options.timeouts,
        )

    async def _send(self, association: Association, report: Report) -> bool:
        """Whether the AE has taken it. One that refuses may have another association for it."""
        try:
            result = await association.n_event_report(
                UPS_PUSH, report.sop_instance_uid, report.type, report.information, check=False
            )
        except ContextNotAccepted:
            raise
        except DimseError as error:
            logger.info("%r: no event report: %s", association, error)
            return False
        if result.status.is_failure:
            logger.info("%r: event report answered %s", association, result.status)
        return not result.status.is_failure


def _takes_reports(association: Association) -> bool:
    return any(context.scp for context in association.negotiated.contexts_for(UPS_EVENT))
