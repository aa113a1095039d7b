"""Many instances to one peer: over several associations, retried where that is safe.

C-STORE may be repeated: an instance that the peer has already got is the same instance. So what was
under way when an association broke goes back into the queue; only what the peer has refused, or
what has taken too many associations with it, or has not been answered in time, has failed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import attrs
import trio

from .association import Association
from .contexts import contexts_for, split_instances
from .datasets import sop_uids
from .errors import (
    AssociationError,
    AssociationTimeout,
    ContextNotAccepted,
    DataSetError,
    InvalidFile,
    StatusError,
)
from .files import scan_files
from .part10 import Instance, path_of
from .pool import Lease, Lessor, worth_retrying
from .protocol.negotiation import PresentationContext
from .protocol.status import Status
from .storing import OnMismatch, StoreResult, check_policy

if TYPE_CHECKING:
    from pydicom import Dataset

Source: TypeAlias = "str | os.PathLike[str] | Instance | Dataset"
"""What can be sent: a file, a folder with all below it, an instance, a data set."""
MAX_TIMEOUTS = 2
"""Instances on end, without an answer in time, after which a peer is taken to give none at all."""
_MOST_DOUBLED = 60
"""How often a pause is doubled at most: more than anybody waits for."""
MAX_IN_FLIGHT = 32
"""Instances on one association at a time, where the peer's window has no limit."""


def _source_repr(source: object) -> str:
    return repr(source) if isinstance(source, Path) else f"<{type(source).__name__}>"


@attrs.frozen
class StoreOutcome:
    """What became of one instance that was to be stored.

    Attributes:
        source: The file's path, or the data set that was given.
        sop_instance_uid: Empty where the file is no instance.
        status: The peer's, if it answered.
        error: Why it was not stored; `None` if it was, perhaps with a warning as its status.
        transfer_syntax_uid: What it was sent in; `None` where the peer did not answer.
        transcoded: Whether its pixel data were decompressed or compressed for that.
    """

    source: Path | Dataset = attrs.field(repr=_source_repr)
    sop_instance_uid: str
    status: Status | None
    error: Exception | None
    transfer_syntax_uid: str | None = None
    transcoded: bool = False

    @property
    def stored(self) -> bool:
        return self.error is None


StoreProgress = Callable[[StoreOutcome, int, int], None]
"""Told each outcome, how many there have been with it, and of how many."""


@attrs.define(eq=False)
class _Item:
    index: int
    instance: Instance | Dataset
    attempts: int = 0


async def found_in(
    sources: Source | Iterable[Source],
) -> tuple[list[Instance | Dataset], list[StoreOutcome]]:
    """What there is to send, files looked for in folders, and outcomes of what cannot be read."""
    single = isinstance(sources, str | os.PathLike | Instance) or hasattr(sources, "iterall")
    sendable: list[Instance | Dataset] = []
    unreadable: list[StoreOutcome] = []
    for item in cast("Iterable[Source]", [sources] if single else sources):
        path = path_of(item)
        if path is None:
            sendable.append(cast("Instance | Dataset", item))
            continue
        found, bad = await scan_files(path)
        sendable += found
        unreadable += (StoreOutcome(each.path, "", None, each.error) for each in bad)
    return sendable, unreadable


class Sending:
    """One call of `RemoteAE.store`.

    Args:
        lessor: Gives associations.
        jobs: Associations at a time.
        retries: How often an instance, or opening an association, is tried again.
        pause: Seconds before the first of these tries; twice as long before each next.
        progress: Told each outcome.
        on_mismatch: As for `Association.store`.
    """

    def __init__(
        self,
        lessor: Lessor,
        *,
        jobs: int,
        retries: int,
        pause: float,
        progress: StoreProgress | None,
        on_mismatch: OnMismatch = "error",
    ) -> None:
        self._lessor = lessor
        self._jobs = jobs
        self._retries = retries
        self._pause = pause
        self._progress = progress
        self._on_mismatch: OnMismatch = check_policy(on_mismatch)
        self._queue: deque[_Item] = deque()
        self._outcomes: dict[int, StoreOutcome] = {}
        self._total = 0
        self._over: AssociationError | None = None
        self._opening: set[trio.CancelScope] = set()
        self._in_flight = 0
        self._timeouts = 0
        """Instances on end that were not answered in time."""
        self._failure: Exception | None = None
        """What `progress` has raised."""
        self._nursery: trio.Nursery | None = None

    async def run(
        self,
        instances: Sequence[Instance | Dataset],
        unreadable: Iterable[StoreOutcome] = (),
    ) -> list[StoreOutcome]:
        """Store them all; what came of each, in their order, behind what could not be read."""
        unreadable = list(unreadable)
        sendable: list[Instance | Dataset] = []
        for instance in instances:
            try:
                contexts_for(instance)
            except DataSetError as error:
                unreadable.append(StoreOutcome(_source_of(instance), "", None, error))
            else:
                sendable.append(instance)
        self._total = len(sendable) + len(unreadable)
        for position, outcome in enumerate(unreadable):
            self._settle(position - len(unreadable), outcome)
        index = 0
        transcode = self._on_mismatch != "error"
        for group in split_instances(sendable, transcode=transcode):
            self._queue.extend(_Item(index + n, item) for n, item in enumerate(group))
            index += len(group)
            contexts = contexts_for(group, transcode=transcode)
            await self._send_group(contexts, min(self._jobs, len(group)))
        return [self._outcomes[index] for index in sorted(self._outcomes)]

    def _settle(self, index: int, outcome: StoreOutcome) -> None:
        self._outcomes[index] = outcome
        if self._progress is None:
            return
        try:
            self._progress(outcome, len(self._outcomes), self._total)
        except Exception as error:  # raised when all jobs have ended, not wrapped in their groups
            if self._nursery is None:
                raise
            self._failure = self._failure or error
            self._nursery.cancel_scope.cancel()

    def _fail(self, item: _Item, error: Exception) -> None:
        """What became of an instance that the peer did not answer about."""
        outcome = StoreOutcome(_source_of(item.instance), _uid_of(item.instance), None, error)
        self._settle(item.index, outcome)

    def _answered(self, item: _Item, response: StoreResult) -> None:
        self._timeouts = 0
        outcome = StoreOutcome(
            _source_of(item.instance),
            _uid_of(item.instance),
            response.status,
            None if response.stored else StatusError.of(response),
            response.transfer_syntax_uid,
            response.transcoded,
        )
        self._settle(item.index, outcome)

    async def _send_group(self, contexts: list[PresentationContext], jobs: int) -> None:
        """Send what fits the contexts of one association, over as many as there are jobs.

        A peer that takes fewer associations is no failure as long as one of them sends the rest.
        """
        errors: list[AssociationError] = []
        if self._over is None:
            async with trio.open_nursery() as self._nursery:
                for _ in range(jobs):
                    self._nursery.start_soon(self._job, contexts, errors)
            self._nursery = None
            if self._failure is not None:
                raise self._failure
        error = self._over or next(iter(errors), None)
        while self._queue:
            assert error is not None  # every job has ended, with an error or with nothing left
            item = self._queue.popleft()
            untried = isinstance(error, AssociationTimeout) and self._timeouts and not item.attempts
            self._fail(item, AssociationTimeout(f"not tried: {error}") if untried else error)
            if not isinstance(error, ContextNotAccepted):  # the next group has other contexts
                self._over = error

    async def _job(
        self, contexts: list[PresentationContext], errors: list[AssociationError]
    ) -> None:
        """Send from the queue over one association after the other until it is empty.

        One that is still being opened when the others have sent everything is given up.
        """
        tries = 0
        with trio.CancelScope() as opening:
            while self._queue:
                lease: Lease | None = None
                self._opening.add(opening)
                try:
                    async with self._lessor(contexts) as lease:
                        self._opening.discard(opening)
                        await self._send_over(lease)
                        return
                except AssociationError as error:
                    if lease is not None and self._timeouts < MAX_TIMEOUTS:
                        tries = 0  # it could be opened; what broke it is the instances' affair
                    elif tries == self._retries or not worth_retrying(error):
                        errors.append(error)
                        return
                finally:
                    self._opening.discard(opening)
                if self._queue and (lease is None or lease.fresh):
                    before = max(tries, self._queue[0].attempts - 1)
                    await trio.sleep(self._pause * 2 ** min(before, _MOST_DOUBLED))
                    tries += 1

    def _give_up_opening(self) -> None:
        """All is sent: nobody needs another association."""
        for opening in self._opening:
            opening.cancel()

    async def _send_over(self, lease: Lease) -> None:
        """Send as many at once as the window allows, until the queue is empty.

        What was under way when an association broke is sent alone, to see whether it did that.
        """
        window = min(lease.association.negotiated.max_invoked or MAX_IN_FLIGHT, MAX_IN_FLIGHT)
        broken: list[AssociationError] = []
        while self._queue and not broken:
            suspect = self._queue[0].attempts > 0
            async with trio.open_nursery() as nursery:
                width = 1 if suspect else window
                for _ in range(width):
                    nursery.start_soon(self._send_some, lease, suspect, width == 1, broken)
        if broken:
            raise broken[0]

    async def _send_some(
        self, lease: Lease, suspect: bool, alone: bool, broken: list[AssociationError]
    ) -> None:
        while self._queue and not broken and (self._queue[0].attempts > 0) is suspect:
            item = self._queue.popleft()
            self._in_flight += 1
            try:
                await self._send(lease.association, item)
            except AssociationError as error:
                broken.append(error)
                timed_out = isinstance(error, AssociationTimeout)
                item.attempts += lease.fresh  # one that had been idle may have been over before
                if item.attempts > self._retries or (timed_out and alone):
                    self._timeouts += timed_out
                    self._fail(item, error)
                else:
                    self._queue.appendleft(item)
            finally:
                self._in_flight -= 1
        if not self._queue and not self._in_flight:
            self._give_up_opening()

    async def _send(self, association: Association, item: _Item) -> None:
        try:
            response = await association.store(
                item.instance, check=False, on_mismatch=self._on_mismatch
            )
        except (ContextNotAccepted, DataSetError, InvalidFile) as error:
            self._fail(item, error)
        except AssociationError:
            raise
        except OSError as error:
            self._fail(item, error)
        else:
            self._answered(item, response)


def _source_of(instance: Instance | Dataset) -> Path | Dataset:
    return instance.path if isinstance(instance, Instance) else instance


def _uid_of(instance: Instance | Dataset) -> str:
    if isinstance(instance, Instance):
        return instance.sop_instance_uid
    try:
        return sop_uids(instance)[1]
    except DataSetError:
        return ""
