"""`RemoteAE`: a peer described once, for whole jobs instead of single operations.

Each call proposes just the contexts that it needs. Inside the peer's own block associations are
kept while they are idle and used again; outside of it each call opens and releases its own.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack, final

import trio

from .association import Association
from .blocks import Entered, block
from .checks import (
    check_address,
    check_count,
    check_port,
    check_seconds,
    check_ssl_context,
    checked_limits,
    checked_timeouts,
)
from .client import (
    DEFAULT_AE_TITLE,
    DEFAULT_MAX_PDU_LENGTH,
    check_ae_title,
    open_association,
    own_user_information,
)
from .commitment import CommitmentResult
from .config import Limits, Timeouts
from .errors import LocalProtocolError
from .fetching import Fetching, Method, Retrieved, RetrieveProgress, commit
from .instruments import Instrument, checked_instruments
from .inventory import find_contexts, move_contexts
from .offers import AnyHandler
from .pool import Lease, Pool, open_pool, with_lease
from .protocol.messages import CEchoRSP
from .protocol.negotiation import PresentationContext
from .protocol.pdus import Implementation, UserIdentity
from .protocol.uids import VERIFICATION
from .queries import Query, query
from .references import Referable
from .remote_find import RemoteFind
from .retrieve_operations import RetrieveResult
from .sending import Sending, Source, StoreOutcome, StoreProgress, found_in
from .server import Server, open_server
from .storing import OnMismatch, check_policy
from .worklist import WorklistKeys, worklist_query


@final
class RemoteAE(Entered):
    """A peer, and how to talk to it.

    Use it as it is, or in a block, which keeps associations for the next call:

        async with RemoteAE("PACS", "127.0.0.1", 11112) as pacs:
            await pacs.store("folder", jobs=4)

    Leaving the block waits for the calls of other tasks that have an association or wait for one,
    and releases what is kept. Cancellation and exceptions abort it: these calls then raise
    `AssociationAborted`, or try again where they would, each on an association of its own.

    An association that the peer has closed while it was idle is replaced, which nobody notices. One
    that is idle makes way for the next where a peer takes few at a time: if the peer rejects that
    for now, or does not answer it for about a second. How many the peer takes is remembered in the
    block.

    Args:
        title: The peer's AE title.
        host: Its name or address.
        port: Its port.
        calling_ae_title: Ours.
        ssl_context: For TLS; the certificate is checked against `host`.
        tls_server_name: As for `open_association`.
        user_identity: A user identity to present.
        async_operations: The window to propose; `store` then has as many instances under way.
        max_pdu_length: The longest P-DATA-TF that the peer may send, in bytes; 0 without limit.
        timeouts: How long the library itself waits.
        limits: How much of the peer's data is held.
        strict: As for `open_association`.
        quick_ack: As for `open_association`, of the C-MOVE listener too.
        implementation: As for `open_association`.
        instruments: Told what happens on all associations, those of the C-MOVE listener too.
        max_associations: Most associations at a time, in a block; where there are as many, an idle
            one has been released before another is opened. A task that holds one, in the
            block of a `find`, needs another for the next operation; if all are held by tasks that
            wait so, that is a `LocalProtocolError`.
        keep_idle: Seconds for which an idle one is kept.
        retries: How often `store` and `retrieve` try again what may be done twice, when an
            association breaks or none can be opened. Not a rejection that is permanent, and not
            after a time-out: what was not answered has failed, and after two of these on end so has
            the rest.
        pause: Seconds before the first of these tries; twice as long before each next.
        listen_port: Where a C-MOVE by `retrieve` has the instances sent to, and reports to `commit`
            may come; the peer has to know our AE title with this host and port.
        listen_host: The address to listen on; `None` for all of this machine's.
        listen_ssl_context: For TLS on that listener.

    Raises:
        LocalProtocolError: An argument cannot be.
    """

    _usage = "async with RemoteAE(…) as pacs"

    def __init__(
        self,
        title: str,
        host: str,
        port: int = 104,
        *,
        calling_ae_title: str = DEFAULT_AE_TITLE,
        ssl_context: ssl.SSLContext | None = None,
        tls_server_name: str | None = None,
        user_identity: UserIdentity | None = None,
        async_operations: tuple[int, int] | None = None,
        max_pdu_length: int = DEFAULT_MAX_PDU_LENGTH,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        strict: bool = False,
        quick_ack: bool = True,
        implementation: Implementation | None = None,
        instruments: Iterable[Instrument] = (),
        max_associations: int = 8,
        keep_idle: float = 30.0,
        retries: int = 2,
        pause: float = 0.5,
        listen_port: int | None = None,
        listen_host: str | None = None,
        listen_ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        check_address(host, port)
        if listen_port is not None:
            check_port(listen_port, name="listen_port")
        timeouts, limits = checked_timeouts(timeouts), checked_limits(limits)
        own_user_information(
            max_pdu_length,
            async_operations=async_operations,
            user_identity=user_identity,
            implementation=implementation,
        )
        check_ssl_context(ssl_context)
        check_ssl_context(listen_ssl_context, name="listen_ssl_context", server=True)
        if listen_port is None and (listen_host is not None or listen_ssl_context is not None):
            raise LocalProtocolError("listen_host and listen_ssl_context are for a listen_port")
        check_count(max_associations, name="max_associations")
        check_count(retries, name="retries", least=0)
        check_seconds(keep_idle, name="keep_idle")
        check_seconds(pause, name="pause")
        instruments = checked_instruments(instruments)
        self.title = check_ae_title(title)
        self.host = host
        self.port = port
        self.calling_ae_title = check_ae_title(calling_ae_title)
        self._open: Callable[..., AbstractAsyncContextManager[Association]] = partial(
            open_association,
            host,
            port,
            called_ae_title=self.title,
            calling_ae_title=self.calling_ae_title,
            ssl_context=ssl_context,
            tls_server_name=tls_server_name,
            user_identity=user_identity,
            async_operations=async_operations,
            max_pdu_length=max_pdu_length,
            timeouts=timeouts,
            limits=limits,
            strict=strict,
            quick_ack=quick_ack,
            implementation=implementation,
            instruments=instruments,
        )
        self._listener: Callable[[AnyHandler], AbstractAsyncContextManager[Server]] | None = None
        self._listening = trio.Lock()
        if listen_port is not None:
            self._listener = partial(
                open_server,
                port=listen_port,
                host=listen_host,
                ae_title=self.calling_ae_title,
                ssl_context=listen_ssl_context,
                max_pdu_length=max_pdu_length,
                timeouts=timeouts,
                limits=limits,
                quick_ack=quick_ack,
                implementation=implementation,
                instruments=instruments,
            )
        self._max_associations = max_associations
        self._keep_idle = keep_idle
        self._retries = retries
        self._pause = pause
        self._block: AsyncExitStack | None = None
        self._pool: Pool | None = None

    def __repr__(self) -> str:
        return f"<RemoteAE {self.title!r} {self.host}:{self.port}>"

    # -- associations ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise LocalProtocolError(f"{self!r} is in its block already")
        self._block = AsyncExitStack()
        pool = open_pool(self._opener, size=self._max_associations, idle=self._keep_idle)
        self._pool = await self._block.enter_async_context(pool)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block, self._block, self._pool = self._block, None, None
        assert block is not None
        await block.__aexit__(kind, error, traceback)

    def _opener(
        self, contexts: Sequence[PresentationContext]
    ) -> AbstractAsyncContextManager[Association]:
        return self._open(contexts=contexts)

    @asynccontextmanager
    async def _lease(self, contexts: Sequence[PresentationContext]) -> AsyncGenerator[Lease]:
        """An association, of the pool or just for this."""
        if self._pool is not None:
            async with self._pool.lease(contexts) as lease:
                yield lease
        else:
            async with self._opener(contexts) as association:
                yield Lease(association, fresh=True)

    @asynccontextmanager
    async def _listen(self, handler: AnyHandler) -> AsyncGenerator[Server]:
        """The C-MOVE listener, of which there is one at a time: calls wait for each other."""
        assert self._listener is not None
        async with self._listening, self._listener(handler) as server:
            yield server

    @block("pacs.association(…) as association")
    async def association(
        self, contexts: Iterable[PresentationContext] | None = None
    ) -> AsyncGenerator[Association]:
        """An association of its own for the time of a block, as of `open_association`.

        It is not one of the `max_associations`, but idle ones of these make way for it.

        Raises:
            AssociationError: As `open_association`.
        """
        proposed = None if contexts is None else list(contexts)
        async with AsyncExitStack() as stack:

            async def open_one() -> Association:
                return await stack.enter_async_context(self._open(contexts=proposed))

            opening = open_one() if self._pool is None else self._pool.make_way(open_one)
            yield await opening

    # -- operations ------------------------------------------------------------------------------

    async def echo(self, *, check: bool = True) -> CEchoRSP:
        """C-ECHO: verify that the peer answers.

        Raises:
            StatusError: A failure status, unless `check=False`.
            AssociationError: As `open_association` and `Association.echo`.
        """

        async def use(association: Association) -> CEchoRSP:
            return await association.echo(check=check)

        return await with_lease(self._lease, [PresentationContext(VERIFICATION)], use)

    def find(
        self, what: Query, *, character_set: str | None = None, check: bool = True
    ) -> RemoteFind:
        """C-FIND: `await` it for all matches, or `async with` and `async for` for one at a time.

        Args:
            what: The query.
            character_set: As for `Association.find`.
            check: Whether a failure status is raised.
        """
        _check_query("find", what)
        ask = partial(Association.find, what=what, character_set=character_set, check=check)
        return RemoteFind(self._lease, find_contexts(what.model), ask)

    def find_patients(self, **keys: Any) -> RemoteFind:
        """`find(query("PATIENT", **keys))`."""
        return self.find(query("PATIENT", **keys))

    def find_studies(self, **keys: Any) -> RemoteFind:
        """`find(query("STUDY", **keys))`."""
        return self.find(query("STUDY", **keys))

    def find_series(self, **keys: Any) -> RemoteFind:
        """`find(query("SERIES", **keys))`."""
        return self.find(query("SERIES", **keys))

    def find_instances(self, **keys: Any) -> RemoteFind:
        """`find(query("IMAGE", **keys))`."""
        return self.find(query("IMAGE", **keys))

    def find_worklist(self, **keys: Unpack[WorklistKeys]) -> RemoteFind:
        """`find(worklist_query(**keys))`."""
        return self.find(worklist_query(**keys))

    async def move(self, what: Query, *, destination: str, check: bool = True) -> RetrieveResult:
        """C-MOVE: have the peer send instances to the AE `destination`.

        Raises:
            StatusError: A failure status, unless `check=False`.
            AssociationError: As `open_association`, or it ends before the final response.
        """
        _check_query("move", what)
        async with self._lease(move_contexts(what.model)) as lease:
            return await lease.association.move(what, destination=destination, check=check)

    async def store(
        self,
        instances: Source | Iterable[Source],
        *,
        jobs: int = 1,
        progress: StoreProgress | None = None,
        on_mismatch: OnMismatch = "error",
    ) -> list[StoreOutcome]:
        """C-STORE of files, folders with all below them, `Instance`s and data sets.

        Just their SOP classes and transfer syntaxes are proposed, over several associations one
        after the other where one cannot hold them. Whatever becomes of an instance is an outcome,
        not an exception. Cancelled, it leaves nothing half-sent; `progress` has said what was.

        Args:
            instances: What to send. Hidden files and DICOMDIRs in folders are left out; files that
                are cut off are not sent, as `scan_files` says.
            jobs: Associations at a time; a peer that takes fewer gets fewer.
            progress: Called with each outcome, how many there have been, and of how many.
            on_mismatch: As for `Association.store`. Unless it is "error", contexts are proposed to
                transcode to.

        Returns:
            An outcome for each file and data set: first files that cannot be sent, then the others
            in their order.
        """
        check_count(jobs, name="jobs")
        check_policy(on_mismatch)
        sendable, unreadable = await found_in(instances)
        sending = Sending(
            self._lease,
            jobs=jobs,
            retries=self._retries,
            pause=self._pause,
            progress=progress,
            on_mismatch=on_mismatch,
        )
        return await sending.run(sendable, unreadable)

    async def retrieve(
        self,
        what: Query,
        folder: str | os.PathLike[str],
        *,
        method: Method | None = None,
        jobs: int = 1,
        progress: RetrieveProgress | None = None,
    ) -> Retrieved:
        """Fetch instances into a folder, and see whether all of them came.

        The peer is asked first which instances there are. A query by more than unique keys is
        answered by retrieving each entity that matches it. What has not come after a C-GET or
        C-MOVE is asked for once more, unless all of it has failed. Of several retrieves by C-MOVE
        at once, one waits for the other.

        Cancelled, it ends the C-GET or C-MOVE with C-CANCEL or A-ABORT; the files that have come
        stay, each of them whole.

        Args:
            what: A query at any level.
            folder: Where `<SOP Instance UID>.dcm` go; made if need be.
            method: "C-GET" or "C-MOVE"; by default C-GET where the peer has it, else C-MOVE if
                there is a `listen_port`.
            jobs: Associations at a time, each for one series after the other; a peer that takes
                fewer gets fewer. With one, all is asked for at once.
            progress: Called with each file, how many there have been, and of how many if known.

        Raises:
            ContextNotAccepted: The peer has no C-GET, and there is no `listen_port`.
            LocalProtocolError: C-MOVE is asked for, and there is no `listen_port`.
            AssociationError: As `open_association`, or it breaks more often than `retries`.
            OSError: A file cannot be written, or `listen_port` is taken.
        """
        _check_query("retrieve", what)
        check_count(jobs, name="jobs")
        fetching = Fetching(
            self._lease,
            listen=None if self._listener is None else self._listen,
            destination=self.calling_ae_title,
            folder=Path(os.fspath(folder)),
            jobs=jobs,
            retries=self._retries,
            pause=self._pause,
            progress=progress,
        )
        return await fetching.run(what, method)

    async def commit(self, references: Iterable[Referable]) -> CommitmentResult:
        """Storage commitment: wait until the peer says which instances are its to keep.

        With a `listen_port` the report may come there too. Cancelled, it stops waiting.

        Args:
            references: As for `Association.commit`.

        Raises:
            StatusError, AssociationError: As `Association.commit` and `Commitment.wait`.
            OSError: A file cannot be read, or `listen_port` is taken.
        """
        listen = None if self._listener is None else self._listen
        return await commit(self._lease, listen, references)


def _check_query(method: str, what: object) -> None:
    if not isinstance(what, Query):
        raise TypeError(f"{method} takes a query(...), not {type(what).__name__}")
