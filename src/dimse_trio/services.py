"""The SCP's side of the services: one table from message to the function that performs it.

Each function turns a request into what its handler method takes and what that gives into responses
(PS3.7 §9.1). C-GET and C-MOVE, which make sub-operations of it, are in `retrieve.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import datasets
from .errors import HandlerError, StatusError
from .normalized_services import NORMALIZED_PERFORMERS
from .performance import Performance, Performer, is_final
from .protocol.messages import CEchoRQ, CFindRQ, CGetRQ, CMoveRQ, CStoreRQ, Request
from .protocol.status import Status
from .queries import set_character_set
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
    operation = performance.exchange.storing_operation
    method = performance.method("handle_store") if operation is None else operation.receive
    return _status(method, await performance.step(method, request))


def _status(method: Callable[..., Any], returned: object) -> int:
    if isinstance(returned, int) and is_final(returned):
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
            set_character_set(match)
            data = datasets.encode(match, syntax)
        except datasets.DataSetError as error:
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


async def perform(performance: Performance) -> None:
    """Perform a request of the peer; one that is in no table is an unrecognized operation."""
    await performance.run(_PERFORMERS.get(type(performance.request)))
