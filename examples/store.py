"""Send files, each as it is.

python store.py HOST PORT AE-TITLE FILE...
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, *paths = sys.argv[1:]
    contexts = dimse.contexts_for(paths)  # just what these files need
    async with dimse.open_association(
        host, int(port), called_ae_title=ae_title, contexts=contexts
    ) as assoc:
        for path in paths:
            print(path, (await assoc.store(path)).status)


trio.run(main)
