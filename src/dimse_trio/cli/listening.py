"""How a listener runs: until SIGINT or SIGTERM, then for a grace period, then not.

The first signal lets running associations end within the grace period and aborts what is left; the
second one aborts at once. Either is the proper end of a listener: exit code 0.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Literal

import trio

import dimse_trio as dimse

from .errors import ExitCode, report_failure
from .options import Listener
from .output import Format, Output
from .running import SIGNALS

Peers = Mapping[str, dimse.Destination | tuple[str, int]]


class Standing:
    """Something that goes on until a signal stops it."""

    def __init__(self) -> None:
        self._everything = trio.CancelScope()
        self._stop = trio.Event()
        self._serving = False

    def stop(self) -> None:
        """Stop politely; asked again, or before there is anything to stop, at once."""
        if self._stop.is_set() or not self._serving:
            self._everything.cancel()
        self._stop.set()

    def output_closed(self) -> None:
        """Nobody reads what is printed; the listener is for whoever sends, and goes on."""

    async def run(self, serve: Callable[[], Awaitable[None]]) -> ExitCode:
        """Serve until it is stopped."""
        failure: Exception | None = None
        async with trio.open_nursery() as watchers:
            await watchers.start(self._watch_signals)
            try:
                with self._everything:
                    await serve()
            except Exception as error:
                failure = error
            watchers.cancel_scope.cancel()
        return ExitCode.DONE if failure is None else report_failure(failure)

    async def stand(
        self, where: tuple[str | None, int], what: str, port_file: str | None, output: Output
    ) -> None:
        """Say that it listens, and wait until it is to stop.

        Args:
            where: Address and port that it listens on.
            what: As what it does.
            port_file: Where the port is written.
            output: Where it is said.
        """
        self._serving = True
        host, port = where[0] or "*", where[1]
        if port_file is not None:
            _write_port(Path(port_file), port)
        try:
            if output.format is Format.JSON:
                await output.json({"event": "listening", "host": host, "port": port})
            else:
                address = f"[{host}]" if ":" in host else host
                await output.line(f"listening on {address}:{port} {what}")
            await self._stop.wait()
        finally:
            if port_file is not None:
                with suppress(OSError):
                    os.unlink(port_file)

    async def _watch_signals(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            task_status.started()
            async for _ in signals:
                self.stop()


class Listening(Standing):
    """A listener while it runs."""

    def __init__(
        self, listener: Listener, on_mismatch: Literal["error", "transcode"], output: Format
    ) -> None:
        super().__init__()
        self._listener = listener
        self._output = output
        self._on_mismatch: Literal["error", "transcode"] = on_mismatch

    async def serve(
        self,
        make_handler: Callable[[Listening], AbstractAsyncContextManager[dimse.AnyHandler]],
        peers: Peers | None,
    ) -> None:
        """Serve with a handler until it is stopped."""
        async with make_handler(self) as handler:
            await self._serve(handler, peers)

    async def _serve(self, handler: dimse.AnyHandler, peers: Peers | None) -> None:
        listener = self._listener
        async with dimse.open_server(
            handler,
            listener.port,
            host=listener.host,
            ae_title=listener.ae_title,
            accept_any_called_ae_title=listener.accept_any_called_ae_title,
            accept_unknown_storage=listener.accept_unknown_storage,
            ssl_context=listener.ssl_context,
            peers=peers,
            on_mismatch=self._on_mismatch,
            max_associations=listener.max_associations,
            max_associations_per_peer=listener.max_associations_per_peer,
            max_pdu_length=listener.max_pdu_length,
            timeouts=listener.timeouts,
            instruments=listener.instruments,
        ) as server:
            output = Output(self.output_closed, self._output)
            where, title = (listener.host, server.port), listener.ae_title
            await self.stand(where, f"as {title}", listener.port_file, output)
            await server.stop(listener.grace)


def _write_port(path: Path, port: int) -> None:
    """Write the port so that whoever waits for the file finds it complete."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(f"{port}\n", encoding="ascii")
    part.replace(path)


def listen(
    listener: Listener,
    make_handler: Callable[[Listening], AbstractAsyncContextManager[dimse.AnyHandler]],
    peers: Peers | None = None,
    *,
    on_mismatch: Literal["error", "transcode"] = "error",
    output: Format = Format.TABLE,
) -> ExitCode:
    """Listen under Trio until SIGINT or SIGTERM.

    Args:
        listener: What the command line says.
        make_handler: Opens the handler, and closes it when no association is left.
        peers: Where a C-MOVE may go.
        on_mismatch: What C-GET and C-MOVE do about transfer syntaxes that are not taken.
        output: How it is said that it listens.
    """
    listening = Listening(listener, on_mismatch, output)
    return trio.run(listening.run, lambda: listening.serve(make_handler, peers))
