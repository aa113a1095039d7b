"""Series as they come, for so many seconds at most: the time-out is a C-CANCEL.

python find_with_timeout.py HOST PORT AE-TITLE SECONDS
"""

import sys

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, seconds = sys.argv[1:]
    async with dimse.open_association(host, int(port), called_ae_title=ae_title) as assoc:
        with trio.move_on_after(float(seconds)) as scope:
            async with assoc.find(dimse.query("SERIES", Modality="")) as matches:
                async for match in matches:  # one at a time, with back-pressure
                    print(match.Modality, match.SeriesInstanceUID)
        if scope.cancelled_caught:
            print(f"that was all in {seconds} s")
        print("the association lives on:", (await assoc.echo()).status)


trio.run(main)
