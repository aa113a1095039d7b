"""What a work is given: peers, files, counts, and how often to repeat."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from .data import SMALL, write_instances
from .measuring import Contender, Report, Sample
from .peers import Kind, Operation, Peers, measured, missing, pair_name
from .processes import PeerFailed


@attrs.frozen
class Bench:
    """The options of a run."""

    folder: Path
    quick: bool
    repeats: int
    stack: ExitStack
    _common: list[Peers] = attrs.field(factory=list)

    def pick(self, full: int, quick: int) -> int:
        """A count: the one of this kind of run."""
        return quick if self.quick else full

    def files(self, size: tuple[int, int], count: int) -> list[Path]:
        """Instances of a size; made once."""
        return write_instances(self.folder / f"files-{size[0]}-{size[1]}", size, count)

    @property
    def common(self) -> Peers:
        """Processes that several works share, for all that is not about memory."""
        if not self._common:
            self._common.append(self._peers(self.stack))
        return self._common[0]

    @contextmanager
    def fresh(self) -> Generator[Peers]:
        """Processes that have done nothing yet."""
        with ExitStack() as stack:
            yield self._peers(stack)

    def _peers(self, stack: ExitStack) -> Peers:
        return Peers(stack, self.folder, self.files(SMALL, 1)[0])

    def pair(
        self,
        peers: Peers,
        report: Report,
        scu: Kind,
        scp: Kind,
        operation: Operation,
        count: int,
        *,
        saving: bool = False,
        options: tuple[str, ...] = (),
    ) -> list[Contender]:
        """Two peers as a contender; none if one is not installed, which the report says."""
        for kind in (scu, scp):
            if reason := missing(kind):
                note = f"skipped what needs it: {reason}"
                if note not in report.notes:
                    report.notes.append(note)
                return []
        try:
            one, other = peers.scu(scu), peers.scp(scp, *options, saving=saving)
        except PeerFailed as error:
            report.notes.append(f"{pair_name(scu, scp)} failed: {error}")
            return []

        def run(count: int) -> Sample:
            if saving:
                other.empty_sink()
                os.sync()
            return measured(one, other, operation, count)

        return [Contender(pair_name(scu, scp), run, count)]


Work = Callable[[Bench], Generator[Report]]
