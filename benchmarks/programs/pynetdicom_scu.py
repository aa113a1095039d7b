"""pynetdicom's SCU, as a driver."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from benchmarks.data import FIND_KEYS, STUDY
from benchmarks.processes import HOST, answer_commands, memory

from .pynetdicom_scp import STUDY_ROOT_FIND, STUDY_ROOT_GET, VERIFICATION

Answer = dict[str, Any]


def check(status: Any) -> None:
    if not status or status.Status not in (0x0000, 0xFF00):
        raise RuntimeError(f"status {status.get('Status', 'missing: no answer')}")


def associate(port: int, *contexts: str, **options: Any) -> Any:
    ae = AE()
    for context in contexts:
        ae.add_requested_context(context, *[ExplicitVRLittleEndian] * (context == CTImageStorage))
    association = ae.associate(HOST, port, **options)
    if not association.is_established:
        raise RuntimeError("no association")
    return association


@contextmanager
def associated(port: int, *contexts: str, **options: Any) -> Generator[Any]:
    association = associate(port, *contexts, **options)
    try:
        yield association
    finally:
        association.release()


def echo(port: int, count: int) -> Answer:
    with associated(port, VERIFICATION) as association:
        start = perf_counter()
        for _ in range(count):
            check(association.send_c_echo())
        return {"seconds": perf_counter() - start}


def store(port: int, files: list[str]) -> Answer:
    with associated(port, CTImageStorage) as association:
        start = perf_counter()
        for file in files:
            check(association.send_c_store(Path(file)))
        return {"seconds": perf_counter() - start}


def find(port: int, count: int) -> Answer:
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    for keyword in FIND_KEYS:
        setattr(query, keyword, "")
    query.PatientID = str(count)
    found = 0
    with associated(port, STUDY_ROOT_FIND) as association:
        start = perf_counter()
        for status, match in association.send_c_find(query, STUDY_ROOT_FIND):
            check(status)
            found += bool(match and match.StudyInstanceUID)
        return {"seconds": perf_counter() - start, "count": found}


def get(port: int, count: int) -> Answer:
    got = 0

    def received(event: Any) -> int:
        nonlocal got
        got += 1
        return 0x0000

    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = f"{STUDY}.{count}"
    options = {
        "ext_neg": [build_role(CTImageStorage, scp_role=True)],
        "evt_handlers": [(evt.EVT_C_STORE, received)],
    }
    with associated(port, STUDY_ROOT_GET, CTImageStorage, **options) as association:
        start = perf_counter()
        for status, _ in association.send_c_get(query, STUDY_ROOT_GET):
            check(status)
        return {"seconds": perf_counter() - start, "count": got}


def hold_in_turn(port: int, count: int, server: int) -> Answer:
    echo(port, 1)
    before = memory(), memory(server)
    start = perf_counter()
    associations = [associate(port, VERIFICATION) for _ in range(count)]
    try:
        opened = perf_counter() - start
        start = perf_counter()
        for association in associations:
            check(association.send_c_echo())
        asked = perf_counter() - start
        scu, scp = memory(), memory(server)
    finally:
        for association in associations:
            association.release()
    return {
        "seconds": opened,
        "echo": asked / count,
        "scu_added": scu.now - before[0].now,
        "scp_added": scp.now - before[1].now,
        "scu_threads": scu.threads,
        "scp_threads": scp.threads,
    }


if __name__ == "__main__":
    works = (echo, store, find, get, hold_in_turn)
    answer_commands({work.__name__: work for work in works})
