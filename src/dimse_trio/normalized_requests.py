"""What a DIMSE-N handler is given, and what it may answer (PS3.7 §10.1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from . import datasets
from .errors import ConnectionFailed, StatusError
from .protocol.messages import (
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
)
from .protocol.status import Status
from .protocol.uids import new_uid
from .requests import RequestWithDataSet

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association
    from .performance import Environment
    from .protocol.negotiation import PresentationContext


@attrs.frozen
class Reply:
    """What a DIMSE-N handler answers, where a status or a data set alone does not say it.

    Attributes:
        status: The final status; a warning, or a failure that has a data set.
        data_set: Event Reply, Attribute List or Action Reply.
        sop_instance_uid: Affected SOP Instance UID, where it is not the request's: of an instance
            that N-CREATE has made under another UID.
        attribute_identifiers: Tags of the attributes that a failure or warning is about: those that
            an N-SET or N-CREATE could not take (0x0107), or an N-GET does not know.
        comment: Error Comment, of which the first 64 characters reach the peer.
        error_id: Error ID, a number of the SOP class's or one's own.
    """

    status: int = Status.SUCCESS
    data_set: Dataset | None = attrs.field(default=None, repr=False)
    sop_instance_uid: str | None = attrs.field(default=None, kw_only=True)
    attribute_identifiers: Collection[int] = attrs.field(default=(), kw_only=True)
    comment: str | None = attrs.field(default=None, kw_only=True)
    error_id: int | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class NormalizedRequest(RequestWithDataSet):
    """Common part of the six requests of DIMSE-N.

    Attributes:
        association: The association; operations of it may be used in the handler, and tasks started
            in it that live as long as it does.
        context: The presentation context, whose abstract syntax may be another class than the
            request's: a Print Management meta SOP class, a sibling in Unified Procedure Step.
        responded: Set when the final response has been sent, or cannot be any more. A task that
            reports what came of a request awaits it first, as peers expect that order.
    """

    responded: trio.Event = attrs.field(kw_only=True, repr=False)
    _environment: Environment = attrs.field(kw_only=True, repr=False)

    def start_beyond(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task that may outlive the association, but not the listener.

        `Server.stop` lets it end within its grace period. On an association that this side has
        opened, it ends with that.
        """
        (self._environment.nursery or self.association).start_soon(function, *args)

    @asynccontextmanager
    async def associate_back(
        self, contexts: Iterable[PresentationContext]
    ) -> AsyncGenerator[Association]:
        """A new association to the AE that has sent the request, for reports that come late.

        Where that AE is, the listener's `peers` say, or the handler's `resolve_destination`.

        Raises:
            ConnectionFailed: They do not.
            AssociationError: As `open_association`.
        """
        title = self.association.peer_ae_title
        resolve = self._environment.resolve_destination
        destination = None if resolve is None else await resolve(title)
        if destination is None or self._environment.open_sub_association is None:
            raise ConnectionFailed(f"no address is known for {title}: have it in peers")
        async with self._environment.open_sub_association(
            destination, title, list(contexts)
        ) as association:
            yield association

    @staticmethod
    def _decode(data: bytes, transfer_syntax_uid: str) -> Dataset:
        return datasets.decode_attributes(data, transfer_syntax_uid)

    def check(self) -> None:
        """Refuse what lacks a parameter that no handler could do without.

        Raises:
            StatusError: With the status that PS3.7 Annex C has for it.
        """


@attrs.frozen
class _Affected(NormalizedRequest):
    message: NEventReportRQ | NCreateRQ = attrs.field(kw_only=True)

    @property
    def sop_class_uid(self) -> str:
        """Affected SOP Class UID, or the context's where the peer left it out."""
        return self.message.affected_sop_class_uid or self.context.abstract_syntax


@attrs.frozen
class _Requested(NormalizedRequest):
    message: NGetRQ | NSetRQ | NActionRQ | NDeleteRQ = attrs.field(kw_only=True)

    @property
    def sop_class_uid(self) -> str:
        """Requested SOP Class UID, or the context's where the peer left it out."""
        return self.message.requested_sop_class_uid or self.context.abstract_syntax

    @property
    def sop_instance_uid(self) -> str:
        """Requested SOP Instance UID."""
        return self.message.requested_sop_instance_uid or ""


@attrs.frozen
class NEventReportRequest(_Affected):
    """An N-EVENT-REPORT: the SCP of a class tells its SCU of an event (PS3.7 §10.1.1)."""

    message: NEventReportRQ = attrs.field(kw_only=True)

    @property
    def sop_instance_uid(self) -> str:
        """Affected SOP Instance UID."""
        return self.message.affected_sop_instance_uid or ""

    @property
    def event_type_id(self) -> int:
        """What kind of event it is, by the SOP class."""
        return self.message.event_type_id or 0

    @property
    def information(self) -> Dataset:
        """Event Information; empty where the peer sent none."""
        return self._data_set

    def check(self) -> None:
        if self.message.event_type_id is None:
            raise StatusError(Status.NO_SUCH_EVENT_TYPE, "Event Type ID is missing")


@attrs.frozen
class NGetRequest(_Requested):
    """An N-GET: the values of attributes are asked for (PS3.7 §10.1.2)."""

    message: NGetRQ = attrs.field(kw_only=True)

    @property
    def attribute_identifiers(self) -> tuple[int, ...]:
        """Tags of the attributes that are asked for; empty for all.

        What a handler returns is reduced to these.
        """
        return self.message.attribute_identifier_list or ()


@attrs.frozen
class NSetRequest(_Requested):
    """An N-SET: values are to be changed (PS3.7 §10.1.3)."""

    message: NSetRQ = attrs.field(kw_only=True)

    @property
    def modifications(self) -> Dataset:
        """Modification List: the attributes to change, with their new values."""
        return self._data_set


@attrs.frozen
class NActionRequest(_Requested):
    """An N-ACTION: something is to be done (PS3.7 §10.1.4)."""

    message: NActionRQ = attrs.field(kw_only=True)

    @property
    def action_type_id(self) -> int:
        """What is to be done, by the SOP class."""
        return self.message.action_type_id or 0

    @property
    def information(self) -> Dataset:
        """Action Information; empty where the peer sent none."""
        return self._data_set

    def check(self) -> None:
        if self.message.action_type_id is None:
            raise StatusError(Status.NO_SUCH_ACTION, "Action Type ID is missing")


@attrs.frozen
class NCreateRequest(_Affected):
    """An N-CREATE: an instance is to be made (PS3.7 §10.1.5)."""

    message: NCreateRQ = attrs.field(kw_only=True)
    _assigned: str = attrs.field(init=False, factory=new_uid, repr=False)

    @property
    def sop_instance_uid(self) -> str:
        """The UID for the instance: the peer's, or where it leaves that to us, a new one.

        The response names it, unless the handler's `Reply` names another.
        """
        return self.message.affected_sop_instance_uid or self._assigned

    @property
    def attributes(self) -> Dataset:
        """Attribute List: the attributes to make the instance with."""
        return self._data_set


@attrs.frozen
class NDeleteRequest(_Requested):
    """An N-DELETE: an instance is to be deleted (PS3.7 §10.1.6)."""

    message: NDeleteRQ = attrs.field(kw_only=True)
