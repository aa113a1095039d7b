"""pynetdicom as a peer: an archive in threads of its own, and a requestor to be run in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pydicom
import trio
from pydicom import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from dimse_trio import MoveOriginator

from .samples import Sample
from .shelf import LEVEL_KEYS, Received, answer_to, matches

T = TypeVar("T")

ENDLESS = 50_000
"""The number of sub-operations announced where they do not end."""

LE = "1.2.840.10008.1.2.1"
FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove
SERVICES = (
    Verification,
    FIND,
    GET,
    MOVE,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
)


_serve_request = Association._serve_request


def _serve_request_or_give_back(association: Association, message: Any, context_id: int) -> None:
    """Give a response that pynetdicom's reactor took by mistake back to whoever waits for it.

    A send_c_* waits until the reactor thread says that it pauses, but that has not paused yet when
    it says so: a quick response ends up there and is dropped (pynetdicom#875). Ours are quick.
    """
    if message.is_valid_request:
        _serve_request(association, message, context_id)
        return
    queue = association.dimse.msg_queue
    with queue.mutex:
        queue.queue.appendleft((context_id, message))
        queue.not_empty.notify()


Association._serve_request = _serve_request_or_give_back  # type: ignore[method-assign]


@attrs.define
class Archive:
    """pynetdicom's counterpart of `Shelf`, on a port of this machine.

    `endless` makes queries and retrieves go on until they are cancelled; `cancelled` counts those
    that were.
    """

    host = "127.0.0.1"
    ae_title = "PYNETDICOM"
    files: list[Path]
    port: int = 0
    received: list[Received] = attrs.field(factory=list)
    destinations: dict[str, tuple[str, int]] = attrs.field(factory=dict)
    endless: bool = False
    cancelled: int = 0

    def _found(self, event: evt.Event) -> list[Dataset]:
        identifier = event.identifier
        return [d for d in map(pydicom.dcmread, self.files) if matches(d, identifier)]

    def store(self, event: evt.Event) -> int:
        request = event.request
        title = request.MoveOriginatorApplicationEntityTitle
        originator = title and MoveOriginator(title, request.MoveOriginatorMessageID)
        self.received.append(
            Received(
                str(request.AffectedSOPClassUID),
                str(request.AffectedSOPInstanceUID),
                str(event.context.transfer_syntax),
                request.DataSet.getvalue(),
                str(event.assoc.requestor.ae_title),
                originator,
            )
        )
        return 0x0000

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        identifier = event.identifier
        unique = LEVEL_KEYS[identifier.QueryRetrieveLevel]
        seen: set[str] = set()
        found = self._found(event)
        for record in chain.from_iterable(repeat(found)) if self.endless else found:
            if event.is_cancelled:
                self.cancelled += 1
                yield 0xFE00, None
                return
            if self.endless or record[unique].value not in seen:
                seen.add(record[unique].value)
                yield 0xFF00, answer_to(record, identifier)

    def get(self, event: evt.Event) -> Iterator[Any]:
        yield from self._instances(event)

    def move(self, event: evt.Event) -> Iterator[Any]:
        destination = self.destinations.get(event.move_destination)
        if destination is None:
            yield None, None
            return
        pairs = {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in self._found(event)}
        yield (*destination, {"contexts": [build_context(*pair) for pair in sorted(pairs)]})
        yield from self._instances(event)

    def _instances(self, event: evt.Event) -> Iterator[Any]:
        found = self._found(event)
        yield ENDLESS if self.endless else len(found)
        for data_set in chain.from_iterable(repeat(found)) if self.endless else found:
            if event.is_cancelled:
                self.cancelled += 1
                yield 0xFE00, None
                return
            yield 0xFF00, data_set


@contextmanager
def archive(files: list[Path], samples: list[Sample]) -> Iterator[Archive]:
    """Serve an archive that takes the classes and transfer syntaxes of `samples`."""
    ae = AE(ae_title=Archive.ae_title)
    ae.require_called_aet = True
    ae.maximum_associations = 50
    for service in SERVICES:
        ae.add_supported_context(service)
    syntaxes = sorted({sample.transfer_syntax for sample in samples})
    for sop_class in sorted({sample.sop_class_uid for sample in samples}):
        ae.add_supported_context(sop_class, syntaxes, scu_role=True, scp_role=True)
    served = Archive(files)
    server = ae.start_server(
        (served.host, 0),
        block=False,
        evt_handlers=[
            (evt.EVT_C_STORE, served.store),
            (evt.EVT_C_FIND, served.find),
            (evt.EVT_C_GET, served.get),
            (evt.EVT_C_MOVE, served.move),
        ],
    )
    assert server is not None
    served.port = server.socket.getsockname()[1]
    try:
        yield served
    finally:
        ae.shutdown()


async def request(
    port: int,
    function: Callable[[Association], T],
    contexts: list[tuple[str, str]],
    *,
    called_ae_title: str = "ANY-SCP",
    **options: Any,
) -> T:
    """Open an association with pynetdicom, do something with it, and release it, in a thread.

    `contexts` are abstract and transfer syntaxes; `options` are of `AE.associate`.
    """

    def run() -> T:
        ae = AE(ae_title="PYNETDICOM")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        for abstract_syntax, transfer_syntax in contexts:
            ae.add_requested_context(abstract_syntax, transfer_syntax)
        association = ae.associate("127.0.0.1", port, ae_title=called_ae_title, **options)
        assert association.is_established, "no association"
        try:
            return function(association)
        finally:
            association.release()

    return await trio.to_thread.run_sync(run)


def attributes(**values: object) -> Dataset:
    data_set = Dataset()
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return data_set


@contextmanager
def listener(*sop_classes: str, store: dict[str, Dataset] | None = None) -> Iterator[int]:
    """pynetdicom's SCP of all six, on a port of this machine."""
    instances = {} if store is None else store

    def create(event: evt.Event) -> tuple[int, Dataset]:
        uid = event.request.AffectedSOPInstanceUID or "1.2.3.4"
        instances[uid] = made = event.attribute_list
        made.AffectedSOPInstanceUID = uid
        return 0x0000, made

    def change(event: evt.Event) -> tuple[int, Dataset]:
        instances[event.request.RequestedSOPInstanceUID].update(event.modification_list)
        return 0x0000, event.modification_list

    def get(event: evt.Event) -> tuple[int, Dataset | None]:
        found = instances.get(event.request.RequestedSOPInstanceUID)
        return (0x0000, found) if found is not None else (0x0112, None)

    def act(event: evt.Event) -> tuple[int, Dataset]:
        return 0x0000, attributes(
            PatientID=f"{event.action_type} {event.action_information[0x100020].value}"
        )

    def delete(event: evt.Event) -> int:
        return 0x0000 if instances.pop(event.request.RequestedSOPInstanceUID, None) else 0x0112

    ae = AE(ae_title="PYNETDICOM")
    for sop_class in sop_classes:
        ae.add_supported_context(sop_class, LE, scu_role=True, scp_role=True)
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_N_CREATE, create),
            (evt.EVT_N_SET, change),
            (evt.EVT_N_GET, get),
            (evt.EVT_N_ACTION, act),
            (evt.EVT_N_DELETE, delete),
            (evt.EVT_N_EVENT_REPORT, lambda event: (0x0000, event.event_information)),
        ],
    )
    assert server is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        ae.shutdown()
