"""A storage SCP that answers an instance with what its destinations have answered: `forward`.

An instance is written to a file as it comes and sent on from there, so that a destination may be
slower than the sender, and every one of them gets the same bytes. Its data set is not looked at.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import attrs
import trio

import dimse_trio as dimse

from .errors import describe
from .jobs import MismatchChoice

logger = logging.getLogger("dimse_trio.cli")

_RANDOM = 16
"""Bytes of the names of files that lie in the spool."""
_SPOOLED = re.compile(r"[0-9a-f]{32}\.dcm|\.[0-9a-f]{16}\.part")
_STATUSES: tuple[tuple[type[Exception], dimse.Status], ...] = (
    (dimse.ContextNotAccepted, dimse.Status.SOP_CLASS_NOT_SUPPORTED),
    (dimse.DataSetError, dimse.Status.CANNOT_UNDERSTAND),
    (Exception, dimse.Status.OUT_OF_RESOURCES),
)
"""What the sender is told of an instance that a destination has not answered: the first row that
fits. The last one is for a destination that is not to be reached, which a sender may try again."""

_SEVERITY = (dimse.StatusCategory.SUCCESS, dimse.StatusCategory.WARNING)
"""Every other category is worse."""


@attrs.frozen
class Forwarded:
    """What became of one instance at one destination."""

    destination: str
    outcome: dimse.StoreOutcome

    @property
    def status(self) -> dimse.Status:
        """The destination's, else what it amounts to that it has given none."""
        if self.outcome.status is not None:
            return self.outcome.status
        return next(s for kind, s in _STATUSES if isinstance(self.outcome.error, kind))

    @property
    def reason(self) -> str | None:
        """Why it has failed, in words that quote no data set and no peer's free text."""
        error = self.outcome.error
        if error is None:
            return None
        if isinstance(error, dimse.StatusError):
            return str(error.status)
        if isinstance(error, dimse.AssociationError | OSError):
            return describe(error)
        return type(error).__name__


def worst(statuses: Sequence[dimse.Status]) -> dimse.Status:
    """The first of the worst of them."""

    def severity(status: dimse.Status) -> int:
        category = status.category
        return _SEVERITY.index(category) if category in _SEVERITY else len(_SEVERITY)

    return max(statuses, key=severity)


def is_spooled(path: Path) -> bool:
    """Whether a file lies in a spool folder until it has been sent on, or is being written."""
    return _SPOOLED.fullmatch(path.name) is not None


class Forwarder:
    """Answers C-ECHO, and sends each instance on before it answers the C-STORE.

    Args:
        destinations: Whom to, by the name to call them by.
        spool: Where instances lie meanwhile.
        on_mismatch: What to do where a destination does not take an instance's transfer syntax.
        on_forwarded: Told about each instance, with what became of it and what is answered.
    """

    def __init__(
        self,
        destinations: dict[str, dimse.RemoteAE],
        spool: Path,
        on_mismatch: MismatchChoice,
        on_forwarded: Callable[
            [dimse.StoreRequest, dimse.Status, list[Forwarded]], Awaitable[None]
        ],
    ) -> None:
        self._destinations = destinations
        self._spool = spool
        self._on_mismatch: MismatchChoice = on_mismatch
        self._on_forwarded = on_forwarded

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        """C-ECHO: it is alive."""
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        """C-STORE: the worst status of the destinations; a failure leaves it the sender's to keep.

        Cancelled, because the sender is gone, it is sent on no further.
        """
        path = self._spool / f"{secrets.token_hex(_RANDOM)}.dcm"
        try:
            await request.save_as(path)
            forwarded = await self._send_on(dimse.Instance.from_file(path))
        except OSError as error:
            logger.warning("an instance could not be kept to be sent on: %s", describe(error))
            raise dimse.StatusError(
                dimse.Status.OUT_OF_RESOURCES, "the instance could not be written"
            ) from error
        finally:
            path.unlink(missing_ok=True)
        status = worst([each.status for each in forwarded])
        failed = [each for each in forwarded if each.outcome.error is not None]
        for each in failed:
            logger.warning("an instance was not sent on to %s: %s", each.destination, each.reason)
        await self._on_forwarded(request, status, forwarded)
        if failed:
            titles = ", ".join(each.destination for each in failed)
            raise dimse.StatusError(status, f"not sent on to {titles}")
        return status

    async def _send_on(self, instance: dimse.Instance) -> list[Forwarded]:
        """Send it to all destinations at once; what came of that, in their order."""
        outcomes: dict[str, Forwarded] = {}

        async def send(name: str, peer: dimse.RemoteAE) -> None:
            (outcome,) = await peer.store(instance, on_mismatch=self._on_mismatch)
            outcomes[name] = Forwarded(name, outcome)

        async with trio.open_nursery() as nursery:
            for name, peer in self._destinations.items():
                nursery.start_soon(send, name, peer)
        return [outcomes[name] for name in self._destinations]
