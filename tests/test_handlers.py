"""What a handler offers is what it has; what it has must be what its name says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.handlers import services_of


class Echo(dimse.Handler):
    async def handle_echo(self, request: dimse.EchoRequest, /) -> dimse.Status:
        return dimse.Status.SUCCESS


def test_inherited_methods_do_not_count() -> None:
    assert services_of(Echo()) == {dimse.Service.ECHO}
    assert services_of(dimse.Handler()) == frozenset()


def test_a_handler_need_not_inherit() -> None:
    class Finder:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            yield Dataset()

    assert services_of(Finder()) == {dimse.Service.FIND}


def test_an_object_of_functions_is_a_handler() -> None:
    class Plain:
        pass

    async def echo(request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    plain = Plain()
    plain.handle_echo = echo  # type: ignore[attr-defined]
    assert services_of(plain) == {dimse.Service.ECHO}


class NoArgument:
    async def handle_echo(self) -> dimse.Status:
        return dimse.Status.SUCCESS


class NotAsync:
    def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class NoGenerator:
    async def handle_find(self, request: dimse.FindRequest) -> list[Dataset]:
        return []


class Misspelt:
    async def handle_ehco(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class NoMethod:
    handle_echo = 5


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (NoArgument(), "one argument"),
        (NotAsync(), "async def"),
        (NoGenerator(), "async generator"),
        (Misspelt(), "handle_ehco"),
        (NoMethod(), "not a method"),
    ],
)
async def test_a_wrong_signature_is_refused_at_start_up(handler: object, message: str) -> None:
    with pytest.raises(dimse.HandlerError, match=message):
        async with dimse.open_server(handler):
            pass
