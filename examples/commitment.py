"""Store files, and delete only those that the archive says are safe with it.

python commitment.py HOST PORT AE-TITLE OUR-AE-TITLE OUR-PORT FILE...
"""

import sys
from pathlib import Path

import trio

import dimse_trio as dimse


async def main() -> None:
    host, port, ae_title, our_title, our_port, *files = sys.argv[1:]
    # the archive may report on an association of its own, to our listener
    pacs = dimse.RemoteAE(
        ae_title, host, int(port), calling_ae_title=our_title, listen_port=int(our_port)
    )
    await pacs.store(files)
    with trio.fail_after(600):
        result = await pacs.commit(files)
    for path in map(Path, files):
        instance = dimse.Instance.from_file(path)
        reference = dimse.SOPReference(instance.sop_class_uid, instance.sop_instance_uid)
        if reference in result.committed:
            path.unlink()
            print(f"{path} is safe, and deleted here")
    for failed in result.failed:
        print(f"{failed.reference.sop_instance_uid} is kept: {failed.meaning}")


trio.run(main)
