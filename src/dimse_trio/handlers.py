"""The SCP's side as protocols: a handler is any object with `handle_*` methods.

One narrow protocol per service, and `Handler`, a base class with all of them. What a handler
*has* decides what is accepted; the methods that a subclass of `Handler` merely inherits do not
count. `isinstance` against these protocols cannot tell the two apart, `method_of` can.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .errors import StatusError
from .part10 import Instance
from .protocol.messages import (
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
    Request,
)
from .protocol.status import Status
from .protocol.uids import Service

if TYPE_CHECKING:
    import os

    from pydicom import Dataset

    from .client import Destination
    from .normalized_requests import (
        NActionRequest,
        NCreateRequest,
        NDeleteRequest,
        NEventReportRequest,
        NGetRequest,
        NSetRequest,
        Reply,
    )
    from .requests import (
        AssociationRequest,
        EchoRequest,
        FindRequest,
        GetRequest,
        MoveRequest,
        StoreRequest,
    )

    Sendable = str | os.PathLike[str] | Instance | Dataset


class SupportsEcho(Protocol):
    """Verification (PS3.4 Annex A)."""

    async def handle_echo(self, request: EchoRequest, /) -> Status:
        """Answer a C-ECHO with a status."""
        ...


class SupportsStore(Protocol):
    """Storage (PS3.4 Annex B)."""

    async def handle_store(self, request: StoreRequest, /) -> Status:
        """Take an instance; `Status.SUCCESS` says that it is now this side's to keep."""
        ...


class SupportsFind(Protocol):
    """Query (PS3.4 Annexes C and K)."""

    def handle_find(self, request: FindRequest, /) -> AsyncIterator[Dataset]:
        """Yield the matches. C-CANCEL arrives as `trio.Cancelled`."""
        ...


class SupportsGet(Protocol):
    """Retrieve on the same association (PS3.4 §C.4.3)."""

    def handle_get(self, request: GetRequest, /) -> AsyncIterator[Sendable]:
        """Yield the instances to send: paths of DICOM files, `Instance`s, or data sets.

        They are counted before the first is sent; of files only the header is read until then.
        """
        ...


class SupportsMove(Protocol):
    """Retrieve to a third party (PS3.4 §C.4.2)."""

    def handle_move(self, request: MoveRequest, /) -> AsyncIterator[Sendable]:
        """Yield the instances to send: paths of DICOM files, `Instance`s, or data sets.

        They are counted before the first is sent; of files only the header is read until then.
        """
        ...


class SupportsDestinations(Protocol):
    """Where a C-MOVE goes, for a handler that knows better than a map of peers."""

    async def resolve_destination(self, ae_title: str, /) -> Destination | None:
        """The destination of that AE title; `None` if it is unknown (0xA801)."""
        ...


class SupportsNEventReport(Protocol):
    """Events of an SCP, such as the report of storage commitment (PS3.7 §10.1.1).

    They come to the side that is the SCU of the class: usually the requestor of an association,
    to the `handler` of `open_association`, and at any time; or on a new association, to a listener.
    """

    async def handle_n_event_report(
        self, request: NEventReportRequest, /
    ) -> Status | Dataset | Reply:
        """Take an event."""
        ...


class SupportsNGet(Protocol):
    """Values of attributes (PS3.7 §10.1.2)."""

    async def handle_n_get(self, request: NGetRequest, /) -> Status | Dataset | Reply:
        """Return the instance's attributes; what was not asked for is left out of them."""
        ...


class SupportsNSet(Protocol):
    """Changes of attributes (PS3.7 §10.1.3)."""

    async def handle_n_set(self, request: NSetRequest, /) -> Status | Dataset | Reply:
        """Change an instance."""
        ...


class SupportsNAction(Protocol):
    """Actions (PS3.7 §10.1.4)."""

    async def handle_n_action(self, request: NActionRequest, /) -> Status | Dataset | Reply:
        """Do what is asked for, or see to it that it will be done."""
        ...


class SupportsNCreate(Protocol):
    """New instances (PS3.7 §10.1.5)."""

    async def handle_n_create(self, request: NCreateRequest, /) -> Status | Dataset | Reply:
        """Make an instance; the response names `request.sop_instance_uid` if the reply does not."""
        ...


class SupportsNDelete(Protocol):
    """The end of instances (PS3.7 §10.1.6)."""

    async def handle_n_delete(self, request: NDeleteRequest, /) -> Status | Dataset | Reply:
        """Delete an instance."""
        ...


class SupportsAssociation(Protocol):
    """Admission, and what lives as long as an association."""

    def handle_association(
        self, request: AssociationRequest, /
    ) -> AbstractAsyncContextManager[object]:
        """Entered before acceptance (raise `Reject` to refuse), left when the association ends."""
        ...


class Handler:
    """A base class with every method: each refuses, none is offered until it is overridden."""

    async def handle_echo(self, request: EchoRequest, /) -> Status:
        """See `SupportsEcho`."""
        raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED)

    async def handle_store(self, request: StoreRequest, /) -> Status:
        """See `SupportsStore`."""
        raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED)

    def handle_find(self, request: FindRequest, /) -> AsyncIterator[Dataset]:
        """See `SupportsFind`."""
        raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED)

    def handle_get(self, request: GetRequest, /) -> AsyncIterator[Sendable]:
        """See `SupportsGet`."""
        raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED)

    def handle_move(self, request: MoveRequest, /) -> AsyncIterator[Sendable]:
        """See `SupportsMove`."""
        raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED)

    async def handle_n_event_report(
        self, request: NEventReportRequest, /
    ) -> Status | Dataset | Reply:
        """See `SupportsNEventReport`."""
        raise StatusError(Status.UNRECOGNIZED_OPERATION)

    async def handle_n_get(self, request: NGetRequest, /) -> Status | Dataset | Reply:
        """See `SupportsNGet`."""
        raise StatusError(Status.UNRECOGNIZED_OPERATION)

    async def handle_n_set(self, request: NSetRequest, /) -> Status | Dataset | Reply:
        """See `SupportsNSet`."""
        raise StatusError(Status.UNRECOGNIZED_OPERATION)

    async def handle_n_action(self, request: NActionRequest, /) -> Status | Dataset | Reply:
        """See `SupportsNAction`."""
        raise StatusError(Status.UNRECOGNIZED_OPERATION)

    async def handle_n_create(self, request: NCreateRequest, /) -> Status | Dataset | Reply:
        """See `SupportsNCreate`."""
        raise StatusError(Status.UNRECOGNIZED_OPERATION)

    async def handle_n_delete(self, request: NDeleteRequest, /) -> Status | Dataset | Reply:
        """See `SupportsNDelete`."""
        raise StatusError(Status.UNRECOGNIZED_OPERATION)

    async def resolve_destination(self, ae_title: str, /) -> Destination | None:
        """See `SupportsDestinations`."""
        raise NotImplementedError

    def handle_association(
        self, request: AssociationRequest, /
    ) -> AbstractAsyncContextManager[object]:
        """See `SupportsAssociation`."""
        raise NotImplementedError


class EchoSCP:
    """A base class that answers C-ECHO with success."""

    _from_init: ClassVar[str]
    """Of a base class whose `__init__` is needed: an attribute that only this sets."""

    async def handle_echo(self, request: EchoRequest, /) -> Status:
        """See `SupportsEcho`."""
        return Status.SUCCESS


METHODS: dict[Service, str] = {
    Service.ECHO: "handle_echo",
    Service.STORAGE: "handle_store",
    Service.FIND: "handle_find",
    Service.GET: "handle_get",
    Service.MOVE: "handle_move",
}
NORMALIZED_METHODS: dict[type[Request], str] = {
    NEventReportRQ: "handle_n_event_report",
    NGetRQ: "handle_n_get",
    NSetRQ: "handle_n_set",
    NActionRQ: "handle_n_action",
    NCreateRQ: "handle_n_create",
    NDeleteRQ: "handle_n_delete",
}


def method_of(handler: object, name: str) -> Callable[..., Any] | None:
    """A handler's own method of that name; `None` if it has none or only inherits `Handler`'s."""
    method: Callable[..., Any] | None = getattr(handler, name, None)
    if method is None or getattr(method, "__func__", None) is getattr(Handler, name, None):
        return None
    return method
