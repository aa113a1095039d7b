"""Orthanc as a peer: a process of its own on free ports of this machine, with its REST API."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

PROGRAM = "Orthanc"
AE_TITLE = "ORTHANC"
PATIENCE = 30.0
"""Seconds for it to start, and for what it does to be done."""


@attrs.frozen
class Orthanc:
    """A running one."""

    port: int
    http_port: int
    ae_title: str = AE_TITLE

    def _ask(self, path: str, body: bytes | None) -> Any:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as response:
            return json.load(response)

    async def ask(self, path: str, body: Any = None) -> Any:
        """GET from its REST API; with a body, POST that, as JSON unless it is bytes."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return await trio.to_thread.run_sync(self._ask, path, body)

    async def committed(self, modality: str, instances: list[tuple[str, str]]) -> dict[str, Any]:
        """Have it ask a modality for storage commitment; what it then knows."""
        wanted = [{"SOPClassUID": c, "SOPInstanceUID": i} for c, i in instances]
        path = f"/modalities/{modality}/storage-commitment"
        started = await self.ask(path, {"DicomInstances": wanted})
        deadline = time.monotonic() + PATIENCE
        while True:
            found: dict[str, Any] = await self.ask(started["Path"])
            if found["Status"] != "Pending":
                return found
            assert time.monotonic() < deadline, found
            await trio.sleep(0.05)  # it can only be asked again and again


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@asynccontextmanager
async def orthanc(
    folder: Path, *, port: int = 0, **modalities: tuple[str, int]
) -> AsyncGenerator[Orthanc]:
    """Run one that knows these peers: name to AE title and port."""
    free, http_port = free_ports(2)
    port = port or free
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "DicomCheckCalledAet": True,
        "DicomModalities": {
            name: {
                "AET": title,
                "Host": "127.0.0.1",
                "Port": there,
                "AllowStorageCommitment": True,
            }
            for name, (title, there) in modalities.items()
        },
        "Plugins": [],
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [PROGRAM, "--verbose", str(path)], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            served = Orthanc(port, http_port)
            await _answers(served, process)
            yield served
        finally:
            with trio.CancelScope(shield=True):
                process.terminate()
                with trio.move_on_after(10):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def _answers(served: Orthanc, process: trio.Process) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            await served.ask("/system")
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "Orthanc has ended"
            assert time.monotonic() < deadline, "Orthanc does not answer"
            await trio.sleep(0.05)
        else:
            return
