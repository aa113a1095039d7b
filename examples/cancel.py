"""Three ways to stop, and what each leaves behind.

python cancel.py HOST PORT AE-TITLE
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title = sys.argv[1:]
    async with dimse.open_association(host, int(port), called_ae_title=ae_title) as assoc:
        # leaving the block early is C-CANCEL: the peer stops searching
        async with assoc.find(dimse.query("IMAGE")) as matches:
            async for match in matches:
                print("one is enough:", match.SOPInstanceUID)
                break

        # so is a cancel scope, here or in any caller; the association can be used again
        with trio.CancelScope() as scope:
            async with assoc.find(dimse.query("IMAGE")) as matches:
                async for _ in matches:
                    scope.cancel()
        print("after C-CANCEL:", (await assoc.echo()).status)

        # the association's own scope ends all of it: A-ABORT
        assoc.cancel_scope.cancel()
    print("after A-ABORT: open is", assoc.is_open)


trio.run(main)
