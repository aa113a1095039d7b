"""Send files to a peer that may not take their transfer syntax: decompress, but not everything.

python transcode.py HOST PORT AE-TITLE FILE-OR-FOLDER...

Decompression takes the extra: pip install "dimse-trio[transcode]"
"""

import sys

import trio

import dimse_trio as dimse

LOSSY = {dimse.uid_of(name) for name in ("JPEGBaseline8Bit", "JPEGExtended12Bit")}


def policy(mismatch: dimse.Mismatch) -> str | None:
    """What has lost detail before is not to look as if it had not; the rest may be decompressed."""
    return None if mismatch.transfer_syntax_uid in LOSSY else "transcode"


async def main() -> None:
    host, port, ae_title, *paths = sys.argv[1:]
    peer = dimse.RemoteAE(ae_title, host, int(port))
    for outcome in await peer.store(paths, on_mismatch=policy):
        if outcome.transfer_syntax_uid is None:
            print(outcome.source, "not sent:", outcome.error)
        else:
            how = "transcoded to" if outcome.transcoded else "sent in"
            print(outcome.source, how, dimse.uid_name(outcome.transfer_syntax_uid))


trio.run(main)
