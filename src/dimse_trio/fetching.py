"""Whole jobs with a listener of our own: a retrieve, and storage commitment.

A retrieve is what there is, C-GET or C-MOVE, and whether all of it came.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, get_args

import attrs
import trio

from .association import Association
from .commitment import CommitmentListener, CommitmentResult, commitment_contexts
from .errors import (
    AssociationRejected,
    ContextNotAccepted,
    DataSetError,
    DimseError,
    LocalProtocolError,
    StatusError,
)
from .inventory import (
    Inventory,
    by_unique_keys,
    find_contexts,
    move_contexts,
    retrievable,
    take_inventory,
)
from .offers import AnyHandler
from .pool import Lessor, with_lease
from .protocol.negotiation import PresentationContext
from .protocol.status import Status
from .queries import Query
from .references import Referable
from .requests import StoreRequest
from .retrieve_operations import RetrieveResult
from .server import Server

logger = logging.getLogger("dimse_trio")

T = TypeVar("T")

LISTENER_GRACE = 5.0
"""Seconds that the peer's last association to us has to end when it has sent what we wanted."""

Listen = Callable[[AnyHandler], AbstractAsyncContextManager[Server]]
"""Opens a listener with a handler."""

Method = Literal["C-GET", "C-MOVE"]
RetrieveProgress = Callable[[Path, int, int | None], None]
"""Told each file, how many there have been with it, and of how many, if that is known."""


@attrs.frozen
class Retrieved:
    """How a retrieve ended.

    Attributes:
        method: How it was done.
        files: What came, by SOP Instance UID.
        missing: SOP Instance UIDs that C-FIND had named and that did not come.
        failed: SOP Instance UIDs that the peer said it could not send, and that did not come.
        complete: Whether everything came, and that was something; `None` if the peer could not say
            what there is, and reported no failure.
        status: The first final status that was no success, else success.
    """

    method: Method
    files: dict[str, Path]
    missing: tuple[str, ...]
    failed: tuple[str, ...]
    complete: bool | None
    status: Status


class Fetching:
    """One call of `RemoteAE.retrieve`.

    Args:
        lessor: Gives associations.
        listen: Opens a listener whose handler this is, for C-MOVE; `None` if there is none to be.
        destination: That listener's AE title, as the peer knows it.
        folder: Where the files go.
        jobs: Associations at a time.
        retries: How often a retrieve is tried again whose association broke.
        pause: Seconds before the first of these tries; twice as long before each next.
        progress: Told each file.
    """

    def __init__(
        self,
        lessor: Lessor,
        *,
        listen: Listen | None,
        destination: str,
        folder: Path,
        jobs: int,
        retries: int,
        pause: float,
        progress: RetrieveProgress | None,
    ) -> None:
        self._lessor = lessor
        self._listen = listen
        self._destination = destination
        self._folder = folder
        self._jobs = jobs
        self._retries = retries
        self._pause = pause
        self._progress = progress
        self._files: dict[str, Path] = {}
        self._expected: Collection[str] | None = None
        self._status = Status(Status.SUCCESS)
        self._failed = False
        self._failed_uids: dict[str, None] = {}
        self._broken: Exception | None = None
        """What has gone wrong here while the peer was sending to our listener."""
        self._moving = trio.CancelScope()

    async def run(self, what: Query, method: Method | None) -> Retrieved:
        """Find what there is, fetch it, fetch what is missing once more, and say what came."""
        if method not in (None, *get_args(Method)):
            raise LocalProtocolError(f'method is "C-GET" or "C-MOVE", not {method!r}')
        queries = await self._by_unique_keys(what)
        inventory = await self._take_inventory(queries)
        if inventory is not None:
            self._expected = inventory.instances
            if self._jobs > 1 and inventory.instances:
                queries = inventory.queries_by_series(what.level)
        used = await self._fetch(queries, inventory or Inventory(what.model), method)
        missing: list[str] = []
        if inventory is not None:
            missing = inventory.without(self._files)
            if missing and (self._files or not self._failed):
                used = await self._fetch(inventory.queries_for(missing), inventory, used)
                missing = inventory.without(self._files)
        return Retrieved(
            method=used,
            files=self._files,
            missing=tuple(missing),
            failed=tuple(uid for uid in self._failed_uids if uid not in self._files),
            complete=self._complete(inventory, missing),
            status=self._status,
        )

    def _complete(self, inventory: Inventory | None, missing: Sequence[str]) -> bool | None:
        """Whether all came; that nothing did where nothing was named is no success."""
        if inventory is not None and inventory.instances:
            return not missing
        if self._failed:
            return False
        return None if inventory is None or self._files else False

    async def _by_unique_keys(self, what: Query) -> list[Query]:
        """What is wanted by unique keys alone, for each entity if they had to be found."""
        if (by_keys := retrievable(what)) is not None:
            return [by_keys]

        async def ask(association: Association) -> list[Query]:
            return await by_unique_keys(association, what)

        return await self._retrying(find_contexts(what.model), ask)

    async def _take_inventory(self, queries: Sequence[Query]) -> Inventory | None:
        """What the peer says there is; `None` if it cannot be asked."""
        if not queries:
            return Inventory(None)

        async def ask(association: Association) -> Inventory:
            return await take_inventory(association, *queries)

        try:
            return await self._retrying(find_contexts(queries[0].model), ask)
        except (ContextNotAccepted, StatusError, DataSetError) as error:
            logger.info("the peer cannot be asked what there is: %s", type(error).__name__)
            return None

    async def _retrying(
        self, contexts: Sequence[PresentationContext], use: Callable[[Association], Awaitable[T]]
    ) -> T:
        return await with_lease(
            self._lessor, contexts, use, retries=self._retries, pause=self._pause
        )

    # -- fetching --------------------------------------------------------------------------------

    async def _fetch(
        self,
        queries: Sequence[Query],
        inventory: Inventory,
        method: Method | None,
    ) -> Method:
        """C-GET where the peer has it, else C-MOVE, unless told which; the one that it was."""
        if method != "C-MOVE":
            try:
                contexts = inventory.get_contexts()
                await self._each(queries, contexts, self._get)
                return "C-GET"
            except ContextNotAccepted:
                if method == "C-GET" or self._listen is None:
                    raise
        if self._listen is None:
            raise LocalProtocolError(
                "C-MOVE needs a listener of ours: give RemoteAE a listen_port, and have the peer"
                f" know {self._destination!r} with this host and that port"
            )
        async with self._listen(self) as listener:
            with trio.CancelScope() as self._moving:
                await self._each(queries, move_contexts(inventory.model), self._move)
                await listener.stop(LISTENER_GRACE)
        if self._broken is not None:
            raise self._broken
        return "C-MOVE"

    async def _each(
        self,
        queries: Sequence[Query],
        contexts: Sequence[PresentationContext],
        use: Callable[[Query, Association], Awaitable[None]],
    ) -> None:
        """Do it for each query, over as many associations at a time as there are jobs.

        A peer that takes fewer gets fewer: its rejection counts only if nothing was done meanwhile.
        """
        queue = deque(queries)
        rejected: list[AssociationRejected] = []
        failures: list[Exception] = []

        async def work() -> None:
            while queue:
                each = queue.popleft()
                try:
                    await self._retrying(contexts, partial(use, each))
                except AssociationRejected as error:
                    queue.appendleft(each)
                    rejected.append(error)
                    return
                except Exception as error:  # raised below, not wrapped in a group
                    failures.append(error)
                    nursery.cancel_scope.cancel()
                    return

        while left := len(queue):
            async with trio.open_nursery() as nursery:
                for _ in range(min(self._jobs, left) - 1):
                    nursery.start_soon(work)
                await work()
            if failures:
                raise failures[0]
            if len(queue) == left:
                raise rejected[0]

    async def _get(self, what: Query, association: Association) -> None:
        async with association.get(what, check=False) as instances:
            async for instance in instances:
                await self._save(instance)
            self._judge(instances.result)

    async def _move(self, what: Query, association: Association) -> None:
        self._judge(await association.move(what, destination=self._destination, check=False))

    async def handle_store(self, request: StoreRequest) -> Status:
        """The listener's: take a sub-operation of our C-MOVE, and nothing that others send."""
        if (originator := request.move_originator) is not None:
            asked_for = originator.ae_title == self._destination
        else:  # some leave it out
            asked_for = self._expected is None or request.sop_instance_uid in self._expected
        if not asked_for:
            raise StatusError(Status.NOT_AUTHORIZED, "not asked for")
        try:
            await self._save(request)
        except DimseError:
            raise
        except Exception as error:  # ours, not the peer's: no use in asking for the rest
            self._broken = self._broken or error
            self._moving.cancel()
            raise StatusError(Status.OUT_OF_RESOURCES, "cannot be saved") from error
        return Status.SUCCESS

    async def _save(self, instance: StoreRequest) -> None:
        path = self._folder / instance.file_name
        await instance.save_as(path)
        self._files[instance.sop_instance_uid] = path
        if self._progress is not None:
            expected = None if self._expected is None else len(self._expected)
            self._progress(path, len(self._files), expected)

    def _judge(self, result: RetrieveResult) -> None:
        if result.status != Status.SUCCESS and self._status == Status.SUCCESS:
            self._status = result.status
        self._failed = self._failed or result.status.is_failure or bool(result.failed)
        self._failed_uids.update(dict.fromkeys(result.failed_sop_instance_uids))


async def commit(
    lessor: Lessor, listen: Listen | None, references: Iterable[Referable]
) -> CommitmentResult:
    """One call of `RemoteAE.commit`."""
    async with AsyncExitStack() as stack:
        listener = server = None
        if listen is not None:
            listener = CommitmentListener()
            server = await stack.enter_async_context(listen(listener))
        lease = await stack.enter_async_context(lessor(commitment_contexts()))
        commitment = lease.association.commit(references, listener=listener)
        result = await (await stack.enter_async_context(commitment)).wait()
        if server is not None:
            await server.stop(LISTENER_GRACE)  # the peer awaits its response
        return result
