"""C-GET and C-MOVE as this side asks for them, and how they ended."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, final

import attrs
import trio

from . import datasets
from .errors import AssociationError, LocalProtocolError, StatusError
from .invocations import Invocation
from .operations import ItemT, Operation
from .protocol.messages import CGetRQ, CGetRSP, CMoveRQ, CMoveRSP, Request
from .protocol.status import Status
from .queries import Query
from .requests import StoreRequest
from .sources import DataSource

if TYPE_CHECKING:
    from pydicom import Dataset

    from .exchange import Exchange


@attrs.frozen
class RetrieveResult:
    """How a C-GET or C-MOVE ended.

    The counts are those of the final response, `None` where the peer left one out; `files` are the
    files that a C-GET with `save_to` wrote.
    """

    status: Status
    completed: int | None
    failed: int | None
    warning: int | None
    remaining: int | None
    failed_sop_instance_uids: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


class _Retrieve(Operation[ItemT, RetrieveResult]):
    _files: tuple[Path, ...] = ()

    async def _result(self) -> RetrieveResult:
        async for _ in self:
            pass
        return self.result

    @property
    def result(self) -> RetrieveResult:
        """The counts and failed UIDs.

        Raises:
            LocalProtocolError: The final response has not come.
        """
        final = self.final
        if not isinstance(final, CGetRSP | CMoveRSP) or self._invocation is None:
            raise LocalProtocolError("the final response has not come yet")
        data = self._invocation.final_data
        failed = datasets.failed_uids(data, self._context.transfer_syntax) if data else ()
        return RetrieveResult(
            final.status,
            final.completed,
            final.failed,
            final.warning,
            final.remaining,
            failed,
            self._files,
        )


@final
class MoveOperation(_Retrieve[CMoveRSP]):
    """A C-MOVE: its items are the pending responses; a slow reader sees the latest."""

    _service_index = 1
    _method = "move"
    _advice = "write: result = await association.move(…)"
    _usage = "async with association.move(…) as responses: async for response in responses"

    def __init__(
        self,
        exchange: Exchange,
        what: Query | Dataset,
        model: str | None,
        *,
        destination: str,
        check: bool,
    ) -> None:
        if not isinstance(destination, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"move's destination is an AE title, not {type(destination).__name__}")
        super().__init__(exchange, what, model, check=check)
        self._destination = destination

    def _make(self, message_id: int) -> Request:
        return CMoveRQ(
            message_id=message_id,
            affected_sop_class_uid=self._context.abstract_syntax,
            move_destination=self._destination,
        )

    async def _next(self, invocation: Invocation) -> CMoveRSP | None:
        if await invocation.inbox.get() is None:
            return None
        assert isinstance(invocation.pending, CMoveRSP)
        return invocation.pending


@final
class GetOperation(_Retrieve[StoreRequest]):
    """A C-GET: its items are the instances, as they arrive (PS3.7 §9.1.3).

    An instance is acknowledged when the loop comes back for the next one or the block is left in
    peace; by an exception or cancellation it is refused. With `save_to` the instances are written
    to `<SOP Instance UID>.dcm` in that folder instead, and there are no items.
    """

    _service_index = 2
    _method = "get"
    _usage = "async with association.get(…) as instances: async for instance in instances"
    _advice = f"write: await association.get(…, save_to=…), or {_usage}: …"

    def __init__(
        self,
        exchange: Exchange,
        what: Query | Dataset,
        model: str | None,
        *,
        save_to: Path | None,
        check: bool,
    ) -> None:
        super().__init__(exchange, what, model, check=check)
        self._folder = save_to
        self._unsaved: list[OSError] = []
        self._offered: list[_Offer] = []
        self._current: _Offer | None = None
        self._task: trio.lowlevel.Task | None = None
        """Who iterates, or has entered the block and can be expected to."""

    def _make(self, message_id: int) -> Request:
        return CGetRQ(message_id=message_id, affected_sop_class_uid=self._context.abstract_syntax)

    async def _invoke(self, identifier: DataSource) -> None:
        self._task = trio.lowlevel.current_task()
        await self._exchange.invoke(
            self._context, self._make, identifier, self._begin, retrieval=self
        )

    @property
    def begun(self) -> bool:
        return self._invocation is not None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._settle(Status.SUCCESS if error is None else Status.OUT_OF_RESOURCES)
        self._left = True
        for offer in self._offered:
            offer.settle(Status.OUT_OF_RESOURCES)
        await super().__aexit__(kind, error, traceback)

    def holds(self, task: trio.lowlevel.Task) -> bool:
        return self._folder is None and self._task is task

    async def _result(self) -> RetrieveResult:
        if self._folder is None:
            raise LocalProtocolError(
                f"awaiting a C-GET needs save_to=…; to take the instances: {self._usage}: …"
            )
        try:
            async for _ in self:
                pass
        except AssociationError as error:
            raise error.with_partial(self._files) from error.__cause__
        return self.result

    def _check_final(self) -> None:
        if self._unsaved and self._check:
            raise self._unsaved[0]
        super()._check_final()

    async def _next(self, invocation: Invocation) -> StoreRequest | None:
        self._task = trio.lowlevel.current_task()
        self._settle(Status.SUCCESS)
        while await invocation.inbox.get() is not None:
            if self._offered:
                self._current = self._offered.pop(0)
                return self._current.request
        return None

    def _settle(self, status: Status) -> None:
        if self._current is not None:
            self._current.settle(status)
            self._current = None

    async def receive(self, request: StoreRequest) -> Status:
        assert self._invocation is not None
        self._invocation.last_activity = trio.current_time()
        if self._left:
            return Status.OUT_OF_RESOURCES
        if self._folder is not None:
            path = self._folder / request.file_name
            try:
                await request.save_as(path)
            except OSError as error:
                self._unsaved.append(error)
                raise StatusError(Status.OUT_OF_RESOURCES, "cannot be saved") from error
            self._files += (path,)
            return Status.SUCCESS
        offer = _Offer(request)
        self._offered.append(offer)
        self._invocation.inbox.put(b"")
        await offer.settled.wait()
        return offer.status


class _Offer:
    """An instance of a C-GET between its performance and the task that iterates."""

    def __init__(self, request: StoreRequest) -> None:
        self.request = request
        self.settled = trio.Event()
        self.status = Status.SUCCESS

    def settle(self, status: Status) -> None:
        if not self.settled.is_set():
            self.status = status
            self.settled.set()
