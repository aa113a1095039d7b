"""DIMSE-N as this side asks for it: the association's `n_*` methods (PS3.7 §10.1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs
import trio

from . import datasets
from .character_sets import set_character_set
from .contexts import normalized_context
from .errors import LocalProtocolError
from .protocol.messages import (
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
    Request,
    Response,
)
from .protocol.negotiation import AcceptedContext, refuse_keyword
from .protocol.status import Status, StatusCategory
from .requests import decode_aside, is_uid
from .sources import BytesSource

if TYPE_CHECKING:
    from pydicom import Dataset

    from .exchange import Exchange
    from .invocations import Invocation

logger = logging.getLogger("dimse_trio.normalized")

_NOT_ALL_TAKEN = (Status.ATTRIBUTE_LIST_ERROR, 0x0116)
MANY_ITEMS = 500
"""A data set with a sequence of more items is encoded in a worker thread."""


@attrs.frozen
class NormalizedResult:
    """The response to a request of DIMSE-N.

    Attributes:
        status: Its status: success, or a warning.
        sop_instance_uid: Affected SOP Instance UID, or where the peer left it out the request's:
            after `n_create` without one, the UID that the peer has given the instance.
        data_set: Its Attribute List, Event Reply or Action Reply; empty where the peer sent none.
        response: The response message itself.
    """

    status: Status
    sop_instance_uid: str
    data_set: Dataset = attrs.field(repr=False)
    response: Response = attrs.field(repr=False)

    @property
    def not_taken(self) -> tuple[str, ...]:
        """Attributes that the peer names beside a warning, as it has not taken them as they were.

        By keyword, or as "(gggg,eeee)". With 0x0107 they were not set at all; with 0x0116 other
        values were (PS3.7 §C.4). Not every peer says which they are.
        """
        if self.status.category is not StatusCategory.WARNING:
            return ()
        tags: tuple[int, ...] | None = getattr(self.response, "attribute_identifier_list", None)
        return datasets.attribute_names(tags or ())


class NormalizedServices:
    """The `n_*` methods, which share what follows.

    A response with a failure status raises `StatusError`, unless `check=False`; a warning is
    returned. `context` is the abstract syntax on whose presentation context the message travels,
    where that is not the SOP class itself; Print Management's meta SOP classes and the siblings of
    Unified Procedure Step are found without it.

    Cancelled before the request is sent, nothing happens; inside it the association is aborted;
    afterwards it stays usable, the late response is dropped, and whether the peer has acted is not
    known.

    Raises:
        StatusError: A failure status, unless `check=False`.
        ContextNotAccepted: The peer accepts the SOP class on no presentation context.
        DataSetError: The data set cannot be encoded, or the peer's cannot be read.
        AssociationError: The association is over, or ends before the response.
    """

    _exchange: Exchange

    async def n_event_report(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        event_type_id: int,
        information: Dataset | None = None,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> NormalizedResult:
        """N-EVENT-REPORT: tell the SCU of a class of an event (PS3.7 §10.1.1).

        It is the SCP of a class that reports. An acceptor is that; a requestor becomes it with
        `PresentationContext(sop_class_uid, scp=True, scu=False)`.
        """
        return await self._normalized(
            sop_class_uid,
            sop_instance_uid,
            lambda message_id: NEventReportRQ(
                message_id=message_id,
                affected_sop_class_uid=sop_class_uid,
                affected_sop_instance_uid=sop_instance_uid,
                event_type_id=event_type_id,
            ),
            information,
            context,
            check,
            as_scp=True,
        )

    async def n_get(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        attributes: Iterable[str | int] = (),
        *,
        context: str | None = None,
        check: bool = True,
    ) -> NormalizedResult:
        """N-GET: ask for attributes of an instance, all by default (PS3.7 §10.1.2).

        Args:
            sop_class_uid: The class.
            sop_instance_uid: The instance, or the class's well-known one.
            attributes: Keywords or tags of top-level attributes.
            context: See `NormalizedServices`.
            check: See `NormalizedServices`.
        """
        tags = datasets.attribute_tags(attributes) or None
        return await self._normalized(
            sop_class_uid,
            sop_instance_uid,
            lambda message_id: NGetRQ(
                message_id=message_id,
                requested_sop_class_uid=sop_class_uid,
                requested_sop_instance_uid=sop_instance_uid,
                attribute_identifier_list=tags,
            ),
            None,
            context,
            check,
        )

    async def n_set(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        modifications: Dataset,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> NormalizedResult:
        """N-SET: change attributes of an instance (PS3.7 §10.1.3)."""
        return await self._normalized(
            sop_class_uid,
            sop_instance_uid,
            lambda message_id: NSetRQ(
                message_id=message_id,
                requested_sop_class_uid=sop_class_uid,
                requested_sop_instance_uid=sop_instance_uid,
            ),
            modifications,
            context,
            check,
        )

    async def n_action(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        action_type_id: int,
        information: Dataset | None = None,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> NormalizedResult:
        """N-ACTION: have something done (PS3.7 §10.1.4)."""
        return await self._normalized(
            sop_class_uid,
            sop_instance_uid,
            lambda message_id: NActionRQ(
                message_id=message_id,
                requested_sop_class_uid=sop_class_uid,
                requested_sop_instance_uid=sop_instance_uid,
                action_type_id=action_type_id,
            ),
            information,
            context,
            check,
        )

    async def n_create(
        self,
        sop_class_uid: str,
        sop_instance_uid: str | None = None,
        attributes: Dataset | None = None,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> NormalizedResult:
        """N-CREATE: have an instance made (PS3.7 §10.1.5).

        Without `sop_instance_uid` the peer gives the instance its UID, which the result names. Not
        every SOP class allows that.
        """
        return await self._normalized(
            sop_class_uid,
            sop_instance_uid,
            lambda message_id: NCreateRQ(
                message_id=message_id,
                affected_sop_class_uid=sop_class_uid,
                affected_sop_instance_uid=sop_instance_uid,
            ),
            attributes,
            context,
            check,
        )

    async def n_delete(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        *,
        context: str | None = None,
        check: bool = True,
    ) -> NormalizedResult:
        """N-DELETE: have an instance deleted (PS3.7 §10.1.6)."""
        return await self._normalized(
            sop_class_uid,
            sop_instance_uid,
            lambda message_id: NDeleteRQ(
                message_id=message_id,
                requested_sop_class_uid=sop_class_uid,
                requested_sop_instance_uid=sop_instance_uid,
            ),
            None,
            context,
            check,
        )

    async def _normalized(
        self,
        sop_class_uid: str,
        sop_instance_uid: str | None,
        make: Callable[[int], Request],
        data_set: Dataset | None,
        via: str | None,
        check: bool,
        *,
        as_scp: bool = False,
        begun: Callable[[Invocation], None] = lambda _: None,
    ) -> NormalizedResult:
        _check_uids(sop_class_uid, sop_instance_uid)
        context = normalized_context(
            self._exchange.link.negotiated, sop_class_uid, via, as_scp=as_scp
        )
        source = None
        if data_set is not None:
            encoded = await _aside(lambda: _encoded(data_set, context), data_set)
            source = BytesSource(encoded)
        invocation = await self._exchange.request(context, make, source, check=check, begun=begun)
        response: Any = invocation.final
        data, syntax = invocation.final_data or b"", context.transfer_syntax
        result = NormalizedResult(
            response.status,
            sop_instance_uid or response.affected_sop_instance_uid or "",
            await decode_aside(lambda: datasets.decode_attributes(data, syntax), data, syntax),
            response,
        )
        if response.status.category is StatusCategory.WARNING:
            attributes = ", ".join(result.not_taken)
            if response.status in _NOT_ALL_TAKEN and not attributes:
                attributes = "the peer does not say of which attributes"
            logger.warning(
                "%s answered %s%s",
                invocation.request.name,
                response.status,
                f": {attributes}" if attributes else "",
            )
        return result


def _check_uids(sop_class_uid: object, sop_instance_uid: object) -> None:
    for name, uid in (("sop_class_uid", sop_class_uid), ("sop_instance_uid", sop_instance_uid)):
        if uid is None and name == "sop_instance_uid":
            continue
        if not isinstance(uid, str):
            raise TypeError(f"{name} is a UID as text, not {type(uid).__name__}")
        if name == "sop_class_uid":
            refuse_keyword(name, uid)
        if not is_uid(uid):
            raise LocalProtocolError(f"{name} {uid[:80]!r} is not a UID")


async def _aside(encode: Callable[[], bytes], data_set: Dataset) -> bytes:
    """Call `encode`, which encodes a data set, where it holds nobody up: a long one in a thread."""
    if (
        not hasattr(data_set, "iterall")
        or isinstance(data_set, type)
        or all(
            element.VR != "SQ" or len(element.value or ()) <= MANY_ITEMS
            for element in data_set.values()
        )
    ):
        return encode()
    return await trio.to_thread.run_sync(encode, abandon_on_cancel=True)


def _encoded(data_set: Dataset, context: AcceptedContext) -> bytes:
    if not hasattr(data_set, "iterall") or isinstance(data_set, type):
        raise TypeError(f"a pydicom Dataset is needed, not {type(data_set).__name__}")
    set_character_set(data_set)
    return datasets.encode(data_set, context.transfer_syntax)
