"""How a client command runs: until it is done, interrupted, terminated or out of time.

Whatever stops it first does so politely: the scopes in which operations run are cancelled, so that
C-FIND, C-GET and C-MOVE send C-CANCEL, and the associations around them are then released. An
association that is still being opened is given up. The second signal cancels everything, which is
A-ABORT.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import attrs
import trio

import dimse_trio as dimse

from .errors import ExitCode, report, report_failure

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@attrs.frozen
class Stop:
    """Why a command stopped before its end; without a message nothing is said about it."""

    code: ExitCode
    message: str = ""


INTERRUPTED = Stop(ExitCode.INTERRUPTED, "interrupted")
TERMINATED = Stop(ExitCode.TERMINATED, "terminated")
CLOSED_OUTPUT = Stop(ExitCode.CLOSED_OUTPUT)
TO_RELEASE = 2.0
"""Seconds that a peer has to release its association with a command that has been stopped."""


class Stopped(Exception):
    """The command was stopped before there was an association to work with."""


class Work:
    """What a running command hangs its associations on."""

    def __init__(self) -> None:
        self.stopped: Stop | None = None
        self.awaits = ""
        """What is said besides if the time is over: what has not come."""
        self._polite: list[trio.CancelScope] = []
        self._releasing: list[trio.CancelScope] = []
        """Around associations whose blocks are over."""
        self._everything = trio.CancelScope()

    def stop(self, why: Stop) -> None:
        """Cancel what can be cancelled politely; asked a second time, everything."""
        if self.stopped is not None:
            self._everything.cancel()
            return
        self.stopped = why
        for scope in self._polite:
            scope.cancel()
        for scope in self._releasing:
            scope.deadline = trio.current_time() + TO_RELEASE

    def output_closed(self) -> None:
        """Nobody reads what is printed: there is nothing left to work for."""
        if self.stopped is None:
            self.stop(CLOSED_OUTPUT)

    @contextmanager
    def interruptible(self) -> Generator[None]:
        """A block that `stop` cancels. It ends quietly then: see `stopped`."""
        with trio.CancelScope() as scope:
            self._add(scope)
            try:
                yield
            finally:
                self._polite.remove(scope)

    @asynccontextmanager
    async def association(
        self, opening: AbstractAsyncContextManager[dimse.Association]
    ) -> AsyncGenerator[dimse.Association]:
        """An association, in a block that `stop` cancels; it is released even then, if soon.

        The block ends quietly when it is stopped.

        Raises:
            Stopped: It is stopped before there is an association.
        """
        opened = False
        with trio.CancelScope() as whole:
            self._add(whole)
            try:
                async with opening as association:
                    opened = True
                    self._polite.remove(whole)
                    with self.interruptible():
                        yield association
                    self._releasing.append(whole)
                    if self.stopped is not None:  # it may owe us an answer
                        whole.deadline = trio.current_time() + TO_RELEASE
            finally:
                for scopes in (self._polite, self._releasing):
                    if whole in scopes:
                        scopes.remove(whole)
        if not opened:
            raise Stopped

    def _add(self, scope: trio.CancelScope) -> None:
        if self.stopped is not None:
            scope.cancel()
        self._polite.append(scope)

    async def run(
        self, command: Callable[[Work], Awaitable[ExitCode]], timeout: float | None
    ) -> ExitCode:
        """Run a command to its end, and say on standard error what else than that came."""
        code = ExitCode.DONE
        failure: Exception | None = None
        async with trio.open_nursery() as watchers:
            await watchers.start(self._watch_signals)
            if timeout is not None:
                watchers.start_soon(self._watch_clock, timeout)
            try:
                with self._everything:
                    code = await command(self)
            except Exception as error:
                failure = error
            watchers.cancel_scope.cancel()
        if self.stopped is not None:
            if self.stopped.message:
                report(self.stopped.message)
            return self.stopped.code
        return code if failure is None else report_failure(failure)

    async def _watch_signals(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            task_status.started()
            async for number in signals:
                self.stop(INTERRUPTED if number == signal.SIGINT else TERMINATED)

    async def _watch_clock(self, timeout: float) -> None:
        await trio.sleep(timeout)
        why = f"timed out after {timeout:g} s"
        self.stop(Stop(ExitCode.TIMED_OUT, f"{why}: {self.awaits}" if self.awaits else why))


def run(
    command: Callable[[Work], Awaitable[ExitCode]], *, timeout: float | None = None
) -> ExitCode:
    """Run a client command under Trio, within `timeout` seconds."""
    return trio.run(Work().run, command, timeout)
