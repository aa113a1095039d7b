"""An association as a nursery: operations are its methods, its children end before it is released.

`Association` is what users see; what goes on behind it is its `Exchange`. How an association ends
is decided in one place, `Association.run` (PS3.8 §7.2, §7.3).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast, final

import trio

from .contexts import context_for
from .errors import AssociationError, LocalProtocolError, leaves
from .exchange import Exchange
from .link import Link
from .normalized import NormalizedServices
from .operations import FindOperation
from .part10 import Instance, path_of
from .performance import Environment
from .protocol.messages import CEchoRQ, CEchoRSP, CStoreRQ, CStoreRSP
from .protocol.negotiation import Negotiated
from .protocol.uids import VERIFICATION
from .protocol.upper_layer import Role
from .queries import Query, query
from .requests import MoveOriginator
from .retrieve_operations import GetOperation, MoveOperation
from .storing import TRANSCODED_AT_ONCE, OnMismatch, StoreResult, prepare
from .workflows import Workflows

if TYPE_CHECKING:
    import os

    from pydicom import Dataset


@final
class Association(NormalizedServices, Workflows):
    """An association with a peer. Made by `open_association`, `associate_over` and the server.

    It is a nursery: `start_soon`, `start` and `cancel_scope` behave as on `trio.Nursery`; leaving
    the block waits for the children, then releases the association. Operations may be called from
    several of its tasks at once; they wait for their turn where the asynchronous operations window,
    which is 1 unless negotiated, is full (PS3.7 §D.3.3.3). Of C-GETs there is one at a time in any
    case; while it is under way, all instances that the peer sends are taken for those of it. What
    would wait for the block that it is in, of a C-GET without `save_to`, is a `LocalProtocolError`.
    """

    def __init__(self, link: Link, *, environment: Environment) -> None:
        self._link = link
        self._exchange = Exchange(self, link, environment)
        self._exchange.on_end = self._on_end
        self._exchange.on_outlasted = self._cut
        link.on_left = self._on_left
        self._nursery: trio.Nursery | None = None
        self._raise_end = False
        self._service: trio.Nursery | None = None
        self._room_for_transcoded = trio.Semaphore(TRANSCODED_AT_ONCE)

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
        return self._link.established and self._exchange.end is None

    @property
    def end(self) -> AssociationError | None:
        """How it ended: `AssociationClosed` after a release, else what broke it; `None` before."""
        return self._exchange.end

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

    async def echo(self, *, check: bool = True) -> CEchoRSP:
        """C-ECHO: verify that the peer answers (PS3.7 §9.1.5).

        Cancelled, it leaves the association usable: the late response is dropped.

        Raises:
            StatusError: A failure status, unless `check=False`.
            ContextNotAccepted: The peer does not accept Verification.
            AssociationError: The association is over, or ends before the response.
        """
        context = context_for(self.negotiated, VERIFICATION)
        invocation = await self._exchange.request(
            context,
            lambda message_id: CEchoRQ(
                message_id=message_id, affected_sop_class_uid=context.abstract_syntax
            ),
            check=check,
        )
        return cast("CEchoRSP", invocation.final)

    async def store(
        self,
        instance: str | os.PathLike[str] | Instance | Dataset,
        *,
        check: bool = True,
        priority: int = 0,
        move_originator: MoveOriginator | None = None,
        on_mismatch: OnMismatch = "error",
    ) -> StoreResult:
        """C-STORE: send an instance (PS3.7 §9.1.1).

        A file is sent as it is, from disk, where the peer accepts its transfer syntax; whether it
        is cut off is not looked at here, but by `scan_files`, and so by `RemoteAE.store`. A file or
        data set in a native transfer syntax is re-encoded where it accepts only another native one,
        which changes no pixel. Beyond that `on_mismatch` decides: "error" raises
        `ContextNotAccepted`; "transcode" decompresses, or compresses without loss; a policy is
        asked. Two transcoded instances at a time are held in memory for one association.

        Cancelled before its first PDU or after its last, it leaves the association usable, and the
        late response is dropped; in between the association is aborted, as half a message cannot
        be taken back. It may block after cancellation for as long as one write takes, or the
        transcoding of one frame.

        Args:
            instance: The path of a DICOM file, an `Instance`, or a pydicom data set.
            check: Whether a failure status is raised; a warning is always returned.
            priority: 0 medium, 1 high, 2 low; most peers take no notice.
            move_originator: Whose C-MOVE this is a sub-operation of.
            on_mismatch: What to do about a transfer syntax that the peer does not accept: "error",
                "transcode", or a function that is given the `Mismatch` and says.

        Raises:
            StatusError: A failure status, unless `check=False`.
            ContextNotAccepted: The peer accepts no context that this instance could be sent on, or
                the policy has refused it.
            TranscodingError: It could not be transcoded, or the policy failed.
            InvalidFile, DataSetError: The instance cannot be sent.
            LocalProtocolError: Another argument is not what it should be.
            OSError: The file cannot be read, or is a folder.
            AssociationError: The association is over, or ends before the response.
        """
        originator = MoveOriginator(None, None) if move_originator is None else move_originator
        if not isinstance(originator, MoveOriginator):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise LocalProtocolError("move_originator is MoveOriginator(ae_title, message_id)")
        outgoing = await prepare(self.negotiated, instance, on_mismatch, self._room_for_transcoded)
        try:
            invocation = await self._exchange.request(
                outgoing.context,
                lambda message_id: CStoreRQ(
                    message_id=message_id,
                    affected_sop_class_uid=outgoing.sop_class_uid,
                    affected_sop_instance_uid=outgoing.sop_instance_uid,
                    priority=priority,
                    move_originator_ae_title=originator.ae_title,
                    move_originator_message_id=originator.message_id,
                ),
                outgoing.source,
                check=check,
            )
        finally:
            outgoing.close()
        return StoreResult.of(cast("CStoreRSP", invocation.final), outgoing)

    def find(
        self,
        what: Query | Dataset,
        *,
        model: str | None = None,
        character_set: str | None = None,
        check: bool = True,
    ) -> FindOperation:
        """C-FIND: `await` it for all matches, or `async with` and `async for` for one at a time.

        Args:
            what: A query, or an identifier as a pydicom data set.
            model: The information model's SOP class UID, where an identifier needs another than
                Study Root.
            character_set: The Specific Character Set of matches that name none, for a peer that
                leaves it out; such as "ISO_IR 192".
            check: Whether a failure status is raised.

        Raises:
            ContextNotAccepted: The peer does not accept the information model.
        """
        return FindOperation(self._exchange, what, model, character_set=character_set, check=check)

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

        It waits for the end of another one on this association; inside the block of that it raises
        `LocalProtocolError`, unless that one saves by itself.
        """
        return GetOperation(self._exchange, what, model, save_to=path_of(save_to), check=check)

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
        return MoveOperation(self._exchange, what, model, destination=destination, check=check)

    # -- the end ---------------------------------------------------------------------------------

    async def abort(self) -> None:
        """A-ABORT, source service-user; nothing if the association is over.

        Operations under way raise `AssociationAborted`. Shielded; it may block for
        `Timeouts.linger` seconds.
        """
        await self._exchange.abort()

    async def wait_over(self) -> None:
        """Wait until the association has ended, in whatever way."""
        await self._exchange.over.wait()

    def _on_end(self, unexpected: bool) -> None:
        """The association is over: end the block too. Who awaits an operation hears it there."""
        if self._link.observer is not None and self.end is not None:
            self._link.observer.ended(self.end)
        if self._nursery is not None:
            self._raise_end = unexpected
            for tell in self._exchange.outlasting:
                tell()
            self._cut()

    def _cut(self) -> None:
        """End the block of an association that is over, unless somebody in it outlasts that.

        Who has brought that about by leaving an operation is let out of it first: else the block's
        cancellation would hide theirs from their own scope.
        """
        if self.end is None or self._nursery is None or self._link.left:
            return
        if not self._exchange.outlasting:
            self._nursery.cancel_scope.cancel()

    def _on_left(self) -> None:
        """Somebody has left the operation that this brings to an end: they know, the others go."""

        async def cut() -> None:  # runs when they wait again, out of their scope
            self._cut()

        self._exchange.told = True
        if self._service is not None:
            self._service.start_soon(cut)

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[Association]:
        """The life of an established association, from its first task to its last."""
        exchange = self._exchange
        failure: BaseException | None = None
        in_body: BaseException | None = None
        cut = False
        async with trio.open_nursery() as service:
            self._service = service
            service.start_soon(exchange.run, service)
            try:
                async with trio.open_nursery() as children:
                    self._nursery = children
                    try:
                        yield self
                    except BaseException as error:
                        in_body = error
                        raise
                self._nursery = None
                cut = children.cancel_scope.cancelled_caught
                await exchange.close(release=not children.cancel_scope.cancel_called)
            except BaseException as error:
                failure = error
                self._nursery = None
                await exchange.close(release=False)
            await exchange.stop()
            service.cancel_scope.cancel()
        if failure is not None:
            raise _bare(failure, in_body)
        if self._raise_end and exchange.end is not None and (cut or not exchange.told):
            raise exchange.end


def _bare(failure: BaseException, in_body: BaseException | None) -> BaseException:
    """The body's own exception, if the children's nursery wrapped no other beside it.

    Of a group, it is what the nursery left of it: without the cancellation that was its own.
    """
    if in_body is None:
        return failure
    own = tuple(leaves(in_body))
    for error in leaves(failure):
        if error not in own and not isinstance(error, trio.Cancelled):
            return failure
    if isinstance(in_body, BaseExceptionGroup):
        left: tuple[BaseException, ...] = getattr(failure, "exceptions", ())
        return left[0] if len(left) == 1 else failure
    return in_body
