"""The SCP's side of DIMSE-N: one table, and one function that performs all six (PS3.7 §10.1)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

from . import datasets
from .character_sets import encode_answer
from .errors import DataSetError, HandlerError, StatusError
from .handlers import NORMALIZED_METHODS
from .normalized_requests import (
    NActionRequest,
    NCreateRequest,
    NDeleteRequest,
    NEventReportRequest,
    NGetRequest,
    NormalizedRequest,
    NSetRequest,
    Reply,
)
from .performance import Final, Performance, Performer, is_final
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
from .requests import is_uid

MAX_TAGS = 4096
"""Attribute identifiers in one message: what every peer's command sets have room for."""

_REQUESTS: dict[type[Request], Callable[..., NormalizedRequest]] = {
    NEventReportRQ: NEventReportRequest,
    NGetRQ: NGetRequest,
    NSetRQ: NSetRequest,
    NActionRQ: NActionRequest,
    NCreateRQ: NCreateRequest,
    NDeleteRQ: NDeleteRequest,
}


async def perform_normalized(performance: Performance) -> Final:
    """Perform a request of DIMSE-N: check it, ask the handler, make a response of its reply."""
    message = performance.request
    request = _REQUESTS[type(message)](
        performance.association,
        performance.context,
        performance.identifier,
        responded=performance.responded,
        environment=performance.environment,
        message=message,
    )
    request.check()
    instance: str = getattr(request, "sop_instance_uid", "")
    if not performance.environment.accept_invalid_uids and not is_uid(instance):
        raise StatusError(Status.INVALID_SOP_INSTANCE, "SOP Instance UID is not a UID")
    await performance.step(request.prepare)
    if isinstance(request, NEventReportRequest):
        for take in [*performance.exchange.event_takers]:
            if (taken := await take(request)) is not None:
                return Final(taken, {"event_type_id": request.event_type_id})
    method = performance.method(NORMALIZED_METHODS[type(message)])
    reply = _reply(method, await performance.step(method, request))
    status = Status(reply.status)
    fields: dict[str, Any] = {}
    if isinstance(message, NCreateRQ) and not status.is_failure:
        fields["affected_sop_instance_uid"] = reply.sop_instance_uid or instance
    elif reply.sop_instance_uid is not None:
        fields["affected_sop_instance_uid"] = reply.sop_instance_uid
    if isinstance(message, NEventReportRQ | NActionRQ) and not status.is_failure:
        name = "event_type_id" if isinstance(message, NEventReportRQ) else "action_type_id"
        fields[name] = getattr(message, name)
    if reply.attribute_identifiers and not isinstance(message, NActionRQ | NEventReportRQ):
        fields["attribute_identifier_list"] = tuple(reply.attribute_identifiers)
    if reply.error_id is not None:
        fields["error_id"] = reply.error_id
    if reply.data_set is not None:
        fields["data"] = _encode(performance, request, reply, method)
    return Final(status, fields, reply.comment)


def _reply(method: Callable[..., Any], returned: object) -> Reply:
    """What a handler returned, as a `Reply`: a status, a data set, or one already."""
    reply: Reply | None = None
    if isinstance(returned, Reply):
        reply = returned
    elif is_final(returned):
        reply = Reply(returned)
    elif hasattr(returned, "iterall"):
        reply = Reply(data_set=cast("Any", returned))
    if reply is None or not is_final(reply.status):
        raise HandlerError(
            f"{method.__qualname__} returned {type(returned).__name__}; it must return a final"
            " Status, a data set, or a Reply"
        )
    for name, fits in _REPLY.items():
        value: object = getattr(reply, name)
        if value is not None and not fits(value):
            raise HandlerError(f"{method.__qualname__}: a Reply with a {name} that cannot be")
    return reply


def _are_tags(value: object) -> bool:
    tags = tuple(cast("Collection[object]", value))
    return len(tags) <= MAX_TAGS and all(isinstance(tag, int) for tag in tags)


_REPLY: dict[str, Callable[[object], bool]] = {
    "sop_instance_uid": lambda value: isinstance(value, str) and is_uid(value),
    "attribute_identifiers": _are_tags,
    "comment": lambda value: isinstance(value, str),
}
"""What the fields of a reply must be, where there is something in them."""


def _encode(
    performance: Performance,
    request: NormalizedRequest,
    reply: Reply,
    method: Callable[..., Any],
) -> bytes:
    data_set = reply.data_set
    if not hasattr(data_set, "iterall") or data_set is None:
        raise HandlerError(f"{method.__qualname__}: a Reply's data_set must be a pydicom data set")
    if isinstance(request, NGetRequest):
        data_set = datasets.select(data_set, request.attribute_identifiers)
    try:
        return encode_answer(data_set, performance.context.transfer_syntax)
    except DataSetError as error:
        raise HandlerError(f"{method.__qualname__} returned what cannot be encoded") from error


NORMALIZED_PERFORMERS: dict[type[Request], Performer] = dict.fromkeys(_REQUESTS, perform_normalized)
