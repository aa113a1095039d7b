"""Does the peer answer?

python echo.py HOST PORT AE-TITLE
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title = sys.argv[1:]
    async with dimse.open_association(host, int(port), called_ae_title=ae_title) as assoc:
        print((await assoc.echo()).status)


trio.run(main)
