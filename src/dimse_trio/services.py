"""The SCP's side of the services: one table from message to the function that performs it.

Each function turns a request into what its handler method takes and what that gives into responses
(PS3.7 §9.1). C-GET and C-MOVE, which make sub-operations of it, are in `retrieve.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .character_sets import encode_answer
from .errors import DataSetError, HandlerError, StatusError
from .normalized_services import NORMALIZED_PERFORMERS
from .performance import Performance, Performer, is_final
from .protocol.messages import (
    CEchoRQ,
    CFindRQ,
    CGetRQ,
    CMoveRQ,
    CStoreRQ,
    NEventReportRQ,
    Request,
)
from .protocol.negotiation import AcceptedContext
from .protocol.normalized import NORMALIZED_CLASSES, carriers_of
from .protocol.status import Status
from .protocol.uids import SOP_CLASSES, Service
from .requests import EchoRequest, FindRequest, StoreRequest, is_uid
from .retrieve import perform_get, perform_move

if TYPE_CHECKING:
    from pydicom import Dataset


async def _perform_echo(performance: Performance) -> int:
    request = performance.request
    assert isinstance(request, CEchoRQ)
    method = performance.method("handle_echo")
    return _status(
        method,
        await performance.step(
            method, EchoRequest(performance.association, performance.context, request)
        ),
    )


async def _perform_store(performance: Performance) -> int:
    message = performance.request
    assert isinstance(message, CStoreRQ)
    request = StoreRequest(
        performance.association, performance.context, message, performance.data_set
    )
    if not performance.environment.accept_invalid_uids and not is_uid(request.sop_instance_uid):
        raise StatusError(Status.INVALID_SOP_INSTANCE, "SOP Instance UID is not a UID")
    retrieval = performance.retrieval
    method = performance.method("handle_store") if retrieval is None else retrieval.receive
    status = _status(method, await performance.step(method, request))
    request.check_awaited()
    return status


def _status(method: Callable[..., Any], returned: object) -> int:
    if is_final(returned):
        return returned
    raise HandlerError(
        f"{method.__qualname__} returned {returned!r}; it must return a final Status"
    )


async def _perform_find(performance: Performance) -> int:
    message = performance.request
    assert isinstance(message, CFindRQ)
    request = FindRequest(
        performance.association, performance.context, performance.identifier, message=message
    )
    await performance.step(
        request.prepare
    )  # so that bytes that are none are answered before the handler runs
    method = performance.method("handle_find")
    syntax = performance.context.transfer_syntax

    async def respond(match: Dataset) -> None:
        if not hasattr(match, "iterall"):
            raise HandlerError(
                f"{method.__qualname__} yielded a {type(match).__name__}; matches are pydicom data"
                " sets"
            )
        try:
            data = encode_answer(match, syntax)
        except DataSetError as error:
            raise HandlerError(f"{method.__qualname__} yielded what cannot be encoded") from error
        await performance.respond(Status.PENDING, data=data)

    await performance.each(method(request), respond)
    return Status.SUCCESS


_PERFORMERS: dict[type[Request], Performer] = {
    CEchoRQ: _perform_echo,
    CStoreRQ: _perform_store,
    CFindRQ: _perform_find,
    CGetRQ: perform_get,
    CMoveRQ: perform_move,
    **NORMALIZED_PERFORMERS,
}


_SERVICES: dict[type[Request], Service] = {
    CEchoRQ: Service.ECHO,
    CStoreRQ: Service.STORAGE,
    CFindRQ: Service.FIND,
    CGetRQ: Service.GET,
    CMoveRQ: Service.MOVE,
}
_WHATEVER_ROLE = (CEchoRQ, CStoreRQ, NEventReportRQ)
"""Requests that peers are known to send without having negotiated the role for them."""


def _fits(request: Request, context: AcceptedContext) -> bool:
    """Whether a request is one that its presentation context was accepted for.

    Of a context whose class is in no table nothing is known, and a message of DIMSE-N may be about
    a class in no table.
    """
    if not context.scp and not isinstance(request, _WHATEVER_ROLE):
        return False
    entry = SOP_CLASSES.get(context.abstract_syntax)
    if entry is None:
        return True
    if not request.normalized:
        row = NORMALIZED_CLASSES.get(context.abstract_syntax)  # Unified Procedure Step has C-FIND
        if row is not None:
            return type(request) in row.performed
        return entry.service is _SERVICES.get(type(request))
    about = getattr(request, "affected_sop_class_uid", None) or getattr(
        request, "requested_sop_class_uid", None
    )
    if entry.service is not Service.NORMALIZED:
        return False
    return about not in NORMALIZED_CLASSES or context.abstract_syntax in carriers_of(about)


async def _refuse(performance: Performance) -> int:
    raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED, "not on this presentation context")


async def perform(performance: Performance) -> None:
    """Perform a request of the peer; one that is in no table is an unrecognized operation."""
    performer = _PERFORMERS.get(type(performance.request))
    if performer is not None and not _fits(performance.request, performance.context):
        performer = _refuse
    await performance.run(performer)
