"""Two associations joined in memory: requestor and acceptor, no sockets, no waiting.

Under pytest-trio's `autojump_clock` every timeout of the library passes in no time, as nothing
here waits for the outside world.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from functools import partial
from typing import Any

import trio
import trio.testing

from dimse_trio.association import Association
from dimse_trio.blocks import block
from dimse_trio.client import associate_over
from dimse_trio.config import Limits, Timeouts
from dimse_trio.instruments import Instrument
from dimse_trio.offers import AnyHandler
from dimse_trio.protocol.negotiation import PresentationContext
from dimse_trio.protocol.pdus import Implementation, UserIdentity
from dimse_trio.server import serve_stream


@block("associated_pair(…) as association")
async def associated_pair(
    handler: AnyHandler,
    *,
    contexts: Iterable[PresentationContext] | None = None,
    called_ae_title: str = "ARCHIVE",
    calling_ae_title: str = "STATION",
    async_operations: tuple[int, int] | None = None,
    requestor_handler: AnyHandler | None = None,
    user_identity: UserIdentity | None = None,
    implementation: Implementation | None = None,
    requestor_instruments: Iterable[Instrument] = (),
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    **server_options: Any,
) -> AsyncGenerator[Association]:
    """An association, as its requestor has it, with an acceptor that serves `handler`.

    Leaving the block releases the association, or aborts it, and waits until the acceptor has done
    with it: its handlers have ended then.

    Args:
        handler: The acceptor's handler, as for `open_server`.
        contexts: What the requestor proposes; by default `default_contexts()`.
        called_ae_title: What the requestor calls the acceptor.
        calling_ae_title: The requestor's AE title.
        async_operations: The window that the requestor proposes, and the acceptor agrees to.
        requestor_handler: Performs what the acceptor requests of the requestor.
        user_identity: What the requestor presents.
        implementation: How the requestor names its implementation.
        requestor_instruments: Told what happens on the requestor's side.
        timeouts: For both sides.
        limits: For both sides.
        server_options: Everything else that `open_server` takes, beside `host` and `port`.

    Raises:
        HandlerError, LocalProtocolError: As `open_server`.
        AssociationError: As `open_association`.
    """
    ours, theirs = trio.testing.memory_stream_pair()
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            if async_operations is not None:
                server_options["async_operations"] = async_operations[::-1]
            await nursery.start(
                partial(_serve, handler, theirs, timeouts=timeouts, limits=limits, **server_options)
            )
            async with associate_over(
                ours,
                called_ae_title=called_ae_title,
                calling_ae_title=calling_ae_title,
                contexts=contexts,
                async_operations=async_operations,
                user_identity=user_identity,
                implementation=implementation,
                timeouts=timeouts,
                limits=limits,
                handler=requestor_handler,
                instruments=requestor_instruments,
            ) as association:
                yield association
        except BaseException as error:  # raised again below, not wrapped in a group
            failure = error
    if failure is not None:
        raise failure


async def _serve(
    handler: AnyHandler,
    stream: trio.abc.Stream,
    *,
    task_status: trio.TaskStatus[None],
    **options: Any,
) -> None:
    """The acceptor, which ends when the requestor does: cancellation reaches it that way only."""
    with trio.CancelScope(shield=True):
        await serve_stream(handler, stream, task_status=task_status, **options)
