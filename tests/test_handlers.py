"""What a handler offers is what it has; what it has must be what its name says."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any
from unittest import mock

import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.offers import services_of


class Echo(dimse.Handler):
    async def handle_echo(self, request: dimse.EchoRequest, /) -> dimse.Status:
        return dimse.Status.SUCCESS


def test_inherited_methods_do_not_count() -> None:
    assert services_of(Echo()) == {dimse.Service.ECHO}
    with pytest.raises(dimse.HandlerError, match=r"Handler has no handle_\* method"):
        services_of(dimse.Handler())


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


class Storage:
    async def handle_storage(self, request: dimse.StoreRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class Unlike:
    async def handle_query(self, request: dimse.FindRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class Destinations(Echo):
    async def resolve_destinations(self, ae_title: str) -> None:
        return None


class OnlyDestinations:
    async def resolve_destination(self, ae_title: str) -> None:
        return None


class Undecorated(Echo):
    async def handle_association(  # type: ignore[override]
        self, request: dimse.AssociationRequest
    ) -> AsyncIterator[None]:
        yield


class Coroutine(Echo):
    async def handle_association(  # type: ignore[override]
        self, request: dimse.AssociationRequest
    ) -> None:
        return None


class Synchronous(Echo):
    @contextmanager
    def handle_association(  # type: ignore[override]
        self, request: dimse.AssociationRequest
    ) -> Iterator[None]:
        yield


class Admits:
    @asynccontextmanager
    async def handle_association(self, request: dimse.AssociationRequest) -> AsyncIterator[None]:
        yield


class PlainGenerator:
    def handle_find(self, request: dimse.FindRequest) -> Iterator[Dataset]:
        yield Dataset()


class OtherRequest:
    async def handle_store(self, request: dimse.FindRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class OtherAdmission(Echo):
    @asynccontextmanager
    async def handle_association(  # type: ignore[override]
        self, request: dimse.EchoRequest
    ) -> AsyncIterator[None]:
        yield


class OtherUnresolved:
    async def handle_n_set(self, request: dimse.NGetRequest) -> Absent:  # type: ignore[name-defined]  # noqa: F821
        return None


async def method(self: object, request: object) -> dimse.Status:
    return dimse.Status.SUCCESS


def having(base: type, name: str, value: object = method) -> object:
    """A handler with a method or attribute of that name."""
    return type("Mine", (base,), {name: value})()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("handel_store", "handle_store"),
        ("hanlde_store", "handle_store"),
        ("handleStore", "handle_store"),
        ("handel_get", "handle_get"),
        ("handler_move", "handle_move"),
        ("hande_n_action", "handle_n_action"),
        ("handel_echo", "handle_echo"),
        ("handle_assocation", "handle_association"),
        ("resolve_destinaton", "resolve_destination"),
        ("resolveDestination", "resolve_destination"),
        ("checkReady", "check_ready"),
    ],
)
@pytest.mark.parametrize("base", [Echo, dimse.EchoSCP])
def test_a_misspelt_method_is_refused(base: type, name: str, meant: str) -> None:
    with pytest.raises(dimse.HandlerError, match=rf"Mine has {name}, .*did you mean {meant}\?"):
        services_of(having(base, name))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("query_sop_clases", "query_sop_classes"),
        ("query_sop_class", "query_sop_classes"),
        ("normalised_sop_classes", "normalized_sop_classes"),
        ("query_option", "query_options"),
        ("storageOptions", "storage_options"),
    ],
)
def test_a_misspelt_attribute_is_refused(name: str, meant: str) -> None:
    with pytest.raises(dimse.HandlerError, match=rf"Mine has {name}, .*did you mean {meant}\?"):
        services_of(having(Echo, name, ("1.2.3",)))


@pytest.mark.parametrize(
    "name",
    [
        "handler",
        "handlers",
        "handles",
        "handled",
        "handle",
        "handleTimeout",
        "store",
        "find_patients",
        "find_destination",
        "resolve",
        "sop_classes",
        "storage_sop_classes",
        "storage_locations",
        "storage_actions",
        "queries",
        "check_header",
        "is_ready",
        "_handle_store",
    ],
)
def test_other_names_are_the_handlers_own_affair(name: str) -> None:
    assert services_of(having(Echo, name)) == {dimse.Service.ECHO}
    assert services_of(having(Echo, name, ("1.2.3",))) == {dimse.Service.ECHO}


def test_a_method_beside_the_real_one_may_be_called_almost_that() -> None:
    class Helped(Echo):
        async def handle_store(self, request: dimse.StoreRequest, /) -> dimse.Status:
            return await self.handled_store(request)

        async def handled_store(self, request: dimse.StoreRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    assert services_of(Helped()) == {dimse.Service.ECHO, dimse.Service.STORAGE}


class Unresolved:
    """Annotations that say nothing at run time, or as much as is right."""

    async def handle_store(self, request: Absent) -> Absent:  # type: ignore[name-defined]  # noqa: F821
        return None

    async def handle_n_get(self, request: dimse.NGetRequest) -> Absent:  # type: ignore[name-defined]  # noqa: F821
        return None

    handle_n_set = handle_n_get

    async def handle_n_create(self, request: dimse.NCreateRequest | dimse.NSetRequest) -> Absent:  # type: ignore[name-defined]  # noqa: F821
        return None

    async def handle_n_delete(self, request: 1 / 0) -> None:  # type: ignore[valid-type]
        return None


def test_annotations_that_cannot_be_read_are_let_be() -> None:
    assert services_of(Unresolved()) == {dimse.Service.STORAGE, dimse.Service.NORMALIZED}


def test_admission_alone_is_a_handler() -> None:
    assert services_of(Admits()) == frozenset()


def test_an_association_may_be_handled_by_a_context_manager_of_any_making() -> None:
    class Made(Echo):
        def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AbstractAsyncContextManager[None]:
            return nullcontext()

    assert services_of(Made()) == {dimse.Service.ECHO}


def test_a_method_beside_resolve_destination_may_be_called_almost_that() -> None:
    class Both(Destinations):
        async def resolve_destination(self, ae_title: str) -> None:
            return await self.resolve_destinations(ae_title)

    assert services_of(Both()) == {dimse.Service.ECHO}


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (Echo, r"Echo is a class; pass an instance: Echo\(\)"),
        (object(), r"object has no handle_\* method"),
        (None, r"NoneType has no handle_\* method"),
        (OnlyDestinations(), r"no handle_\* method"),
        (Storage(), r"handle_storage, .*did you mean handle_store\?"),
        (Unlike(), "handle_query, .*there are handle_echo, handle_store"),
        (Destinations(), r"resolve_destinations, .*did you mean resolve_destination\?"),
        (Undecorated(), "decorate it with @contextlib.asynccontextmanager"),
        (Coroutine(), "decorate it with @contextlib.asynccontextmanager"),
        (Synchronous(), "decorate it with @contextlib.asynccontextmanager"),
        (NoArgument(), "one argument"),
        (NotAsync(), "async def"),
        (NoGenerator(), "async generator"),
        (Misspelt(), "handle_ehco"),
        (NoMethod(), "not a method"),
        (PlainGenerator(), "handle_find must be an async generator"),
        (OtherRequest(), "handle_store takes FindRequest .*, but is given StoreRequest"),
        (OtherAdmission(), "handle_association takes EchoRequest .* given AssociationRequest"),
        (OtherUnresolved(), "handle_n_set takes NGetRequest by its annotation"),
    ],
)
async def test_a_wrong_signature_is_refused_at_start_up(handler: object, message: str) -> None:
    with pytest.raises(dimse.HandlerError, match=message):
        async with dimse.open_server(handler):
            pass


def _injecting(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def wrapper(self: object, request: object) -> object:
        return await method(self, "database", request)

    return wrapper


def _passing_on(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(*args: object) -> object:
        return method(*args)

    return wrapper


def test_a_decorator_may_give_a_method_more_than_its_request() -> None:
    class Injected:
        @_injecting
        async def handle_store(self, db: str, request: dimse.StoreRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    class Patched:
        @mock.patch("os.getcwd")
        async def handle_store(self, request: dimse.StoreRequest, getcwd: object) -> dimse.Status:
            return dimse.Status.SUCCESS

    assert services_of(Injected()) == services_of(Patched()) == {dimse.Service.STORAGE}


def test_what_a_decorator_takes_is_looked_at() -> None:
    class TakesMore:
        @_injecting
        async def handle_store(self, db: str, request: dimse.FindRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    class PassedOn:
        @_passing_on
        async def handle_store(self, request: dimse.FindRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    class TakesNothing:
        @_passing_on
        async def handle_store() -> dimse.Status:  # type: ignore[misc]
            return dimse.Status.SUCCESS

    class Plain:
        @_passing_on
        def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    for wrong in (TakesMore(), PassedOn()):
        with pytest.raises(dimse.HandlerError, match="takes FindRequest by its annotation"):
            services_of(wrong)
    with pytest.raises(dimse.HandlerError, match="must be an `async def`"):
        services_of(Plain())
    assert services_of(TakesNothing()) == {dimse.Service.STORAGE}  # the decorator knows


def test_an_object_that_is_called_like_a_method_is_one() -> None:
    class Storing:
        async def __call__(self, request: dimse.StoreRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    class Finding:
        async def __call__(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            yield Dataset()

    class Made:
        def __init__(self, **methods: object) -> None:
            vars(self).update(methods)

    made = Made(handle_store=Storing(), handle_find=Finding(), handle_echo=mock.AsyncMock())
    assert services_of(made) == {dimse.Service.STORAGE, dimse.Service.FIND, dimse.Service.ECHO}
    with pytest.raises(dimse.HandlerError, match="handle_store must be an `async def`"):
        services_of(Made(handle_store=Finding()))
    with pytest.raises(dimse.HandlerError, match="handle_find must be an async generator"):
        services_of(Made(handle_find=Storing()))
    for wrong in (Storing(), Finding()):
        with pytest.raises(dimse.HandlerError, match="return an async context manager"):
            services_of(Made(handle_association=wrong))


def test_no_property_is_read_for_its_name() -> None:
    class Counting(Echo):
        @property
        def handled_find(self) -> int:
            raise RuntimeError("nothing is open")

        @property
        def handle_hook(self) -> object:
            raise RuntimeError("nothing is open")

    class Misspelt(Echo):
        @classmethod
        def handel_find(cls, request: object) -> None: ...

    assert services_of(Counting()) == {dimse.Service.ECHO}
    with pytest.raises(dimse.HandlerError, match="did you mean handle_find"):
        services_of(Misspelt())
