"""Peers that connect and do nothing, or a byte a second: ARTIM ends them, others do not notice.

`python tests/soak/loris.py` opens idle connections and slow ones against a server in another
process whose ARTIM is short, all the while opening new associations and timing C-ECHO on them.
Then it lets peers claim PDUs of 4 GiB, before and on an association, and looks at the server's
memory. Exit status 1 if a connection was not closed in time, an echo took a second, or claims cost
memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys

import attrs
import trio
from measuring import MIB, ServerProcess, serve_and_report, server_process

import dimse_trio as dimse
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.negotiation import propose
from dimse_trio.protocol.pdus import UserInformation

CONTEXTS = [dimse.PresentationContext(dimse.uid_of("Verification"))]
TOLERANCE = 2.0
"""Seconds by which a connection may outlive ARTIM: the machine is busy with the others."""
SLOWEST_ECHO = 1.0
CLAIM = b"\xff\xff\xff\xff"
CLAIMS = {
    "A-ASSOCIATE-RQ of 4 GiB": b"\x01\0" + CLAIM,
    "A-ASSOCIATE-RQ of 1 MiB": b"\x01\0\0\x10\0\0",
    "P-DATA-TF of 4 GiB": b"\x04\0" + CLAIM,
    "A-ABORT of 4 GiB": b"\x07\0" + CLAIM,
}
GROWTH = 8 * MIB
"""How much the server's memory may grow by for all claims together."""

REQUEST = encode_pdu(
    propose(
        CONTEXTS,
        called_ae_title="LORIS",
        calling_ae_title="LORIS",
        user_information=UserInformation(maximum_length=16384),
    )
)


class Echo:
    """The server's handler."""

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


async def run_server(artim: float) -> None:
    """The other process. A PDU on an association may take as long as a request for one."""
    timeouts = dimse.Timeouts(associate=artim, network=artim, linger=1)
    await serve_and_report(Echo(), timeouts=timeouts, max_associations=1000, max_unassociated=1000)


@attrs.define
class Figures:
    """What was seen."""

    idle: list[float] = attrs.field(factory=list[float])
    slow: list[float] = attrs.field(factory=list[float])
    established: list[float] = attrs.field(factory=list[float])
    echoes: list[float] = attrs.field(factory=list[float])


async def until_closed(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some(4096):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def idle(port: int, lives: list[float]) -> None:
    """Connect, say nothing, and see how long that is suffered."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    start = trio.current_time()
    async with stream:
        await until_closed(stream)
    lives.append(trio.current_time() - start)


async def slow(port: int, lives: list[float], *, established: bool) -> None:
    """One byte a second of a request, or on an association of a P-DATA-TF."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    rest = REQUEST
    async with stream, trio.open_nursery() as nursery:
        if established:
            await stream.send_all(REQUEST)
            await stream.receive_some(4096)
            rest = b"\x04\0\0\0\x10\0" + bytes(4096)
        start = trio.current_time()

        async def drip() -> None:
            try:
                for index in range(len(rest)):
                    await stream.send_all(rest[index : index + 1])
                    await trio.sleep(1)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        nursery.start_soon(drip)
        await until_closed(stream)
        lives.append(trio.current_time() - start)
        nursery.cancel_scope.cancel()


async def echoes(port: int, times: list[float]) -> None:
    """New associations, one after the other, each with one C-ECHO: all of it is timed."""
    while True:
        start = trio.current_time()
        async with dimse.open_association("127.0.0.1", port, contexts=CONTEXTS) as association:
            await association.echo()
            times.append(trio.current_time() - start)
        await trio.sleep(0.05)


async def attack(server: ServerProcess, idle_ones: int, slow_ones: int) -> Figures:
    """Everything at once; over when the last of them has been closed."""
    figures = Figures()
    pick = random.Random(1)

    async def one_idle() -> None:
        await trio.sleep(pick.random())
        await idle(server.port, figures.idle)

    async def one_slow(established: bool) -> None:
        await trio.sleep(pick.random())
        lives = figures.established if established else figures.slow
        await slow(server.port, lives, established=established)

    async with trio.open_nursery() as background:
        background.start_soon(echoes, server.port, figures.echoes)
        async with trio.open_nursery() as peers:
            for _ in range(idle_ones):
                peers.start_soon(one_idle)
            for index in range(slow_ones):
                peers.start_soon(one_slow, index % 2 == 1)
        background.cancel_scope.cancel()
    return figures


async def claim(server: ServerProcess, count: int) -> dict[str, int]:
    """Resident bytes that so many claims of each kind cost while they are held."""
    costs: dict[str, int] = {}
    for name, header in CLAIMS.items():
        before = (await server.holdings()).rss
        streams: list[trio.SocketStream] = []
        for index in range(count):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            streams.append(stream)
            if index % 2:
                await stream.send_all(REQUEST)
                await stream.receive_some(4096)
            await stream.send_all(header)
        await trio.sleep(0.3)
        costs[name] = (await server.holdings()).rss - before
        for stream in streams:
            await trio.aclose_forcefully(stream)
    return costs


def span(lives: list[float]) -> str:
    return f"{min(lives):.2f} to {max(lives):.2f} s" if lives else "none"


async def loris(artim: float, idle_ones: int, slow_ones: int) -> int:
    async with server_process(__file__, "--serve", "--artim", str(artim)) as server:
        start = await server.holdings()
        figures = await attack(server, idle_ones, slow_ones)
        await trio.sleep(2)
        after = await server.holdings()
        costs = await claim(server, 50)
    late = [
        life
        for lives in (figures.idle, figures.slow, figures.established)
        for life in lives
        if not artim - 0.1 <= life <= artim + TOLERANCE
    ]
    ok = {
        "all closed by ARTIM": not late
        and len(figures.idle) == idle_ones
        and len(figures.slow) + len(figures.established) == slow_ones,
        "echoes in time": max(figures.echoes) < SLOWEST_ECHO,
        "nothing left": (start.tasks, start.fds) == (after.tasks, after.fds),
        "claims cost nothing": sum(costs.values()) <= GROWTH,
    }
    print(f"ARTIM {artim:g} s; {idle_ones} idle connections closed after {span(figures.idle)}")
    print(f"{len(figures.slow)} slow requests closed after {span(figures.slow)}")
    print(f"{len(figures.established)} slow P-DATA-TF aborted after {span(figures.established)}")
    times = sorted(figures.echoes)
    print(
        f"{len(times)} associations with C-ECHO meanwhile: median {times[len(times) // 2]:.3f} s,"
        f" slowest {times[-1]:.3f} s"
    )
    print(f"server at start {attrs.asdict(start)}, after {attrs.asdict(after)}")
    for name, cost in costs.items():
        print(f"50 claims of {name}: {cost / MIB:+.2f} MiB")
    print(json.dumps(ok))
    return int(not all(ok.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artim", type=float, default=5, help="seconds; the server's")
    parser.add_argument("--idle", type=int, default=500, help="connections that say nothing")
    parser.add_argument("--slow", type=int, default=100, help="connections that say little")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    if arguments.serve:
        trio.run(run_server, arguments.artim)
        return 0
    return trio.run(loris, arguments.artim, arguments.idle, arguments.slow)


if __name__ == "__main__":
    sys.exit(main())
