"""A storage SCP that writes what it gets to a folder: `receive`, and `move --receive`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import dimse_trio as dimse

from .errors import describe

logger = logging.getLogger("dimse_trio.cli")


class Receiver:
    """Answers C-ECHO, and writes each instance to `<SOP Instance UID>.dcm`.

    Args:
        folder: Where to; it is made when there is something to write.
        on_received: Told about each instance, with its path.
    """

    def __init__(
        self,
        folder: Path,
        on_received: Callable[[dimse.StoreRequest, Path], Awaitable[None]] | None = None,
    ) -> None:
        self.received = 0
        self._folder = folder
        self._on_received = on_received

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        """C-ECHO: it is alive."""
        return dimse.Status.SUCCESS

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        """C-STORE: stored once it is in its place."""
        path = self._folder / request.file_name
        try:
            await request.save_as(path)
        except OSError as error:
            logger.warning("an instance could not be written: %s", describe(error))
            raise dimse.StatusError(
                dimse.Status.OUT_OF_RESOURCES, "the instance could not be written"
            ) from error
        self.received += 1
        if self._on_received is not None:
            await self._on_received(request, path)
        return dimse.Status.SUCCESS
