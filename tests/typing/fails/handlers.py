"""Handlers that are wrong: a type checker must object to each marked line, and to no other."""

from collections.abc import AsyncIterator

import trio
from pydicom import Dataset

import dimse_trio as dimse


class NotAsync:
    def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class NoStatus:
    async def handle_store(self, request: dimse.StoreRequest) -> None:
        return None


class OtherRequest:
    async def handle_store(self, request: dimse.FindRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class TooManyArguments:
    async def handle_store(self, request: dimse.StoreRequest, path: str) -> dimse.Status:
        return dimse.Status.SUCCESS


class Misspelt:
    async def handle_storage(self, request: dimse.StoreRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class WholeList:
    async def handle_find(self, request: dimse.FindRequest) -> list[Dataset]:
        return []


class YieldsNames:
    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[str]:
        yield "DOE^JANE"


class WrongOverride(dimse.Handler):
    async def handle_echo(self, request: dimse.StoreRequest) -> dimse.Status:  # error
        return dimse.Status.SUCCESS


not_async: dimse.SupportsStore = NotAsync()  # error
no_status: dimse.SupportsStore = NoStatus()  # error
other_request: dimse.SupportsStore = OtherRequest()  # error
too_many_arguments: dimse.SupportsStore = TooManyArguments()  # error
misspelt: dimse.SupportsStore = Misspelt()  # error
whole_list: dimse.SupportsFind = WholeList()  # error
yields_names: dimse.SupportsFind = YieldsNames()  # error


async def serves(stream: trio.abc.Stream) -> None:
    await dimse.serve(NotAsync())  # error
    await dimse.serve(NoStatus())  # error
    await dimse.serve(OtherRequest())  # error
    await dimse.serve(TooManyArguments())  # error
    await dimse.serve(Misspelt())  # error
    await dimse.serve(WholeList())  # error
    await dimse.serve(YieldsNames())  # error
    await dimse.serve(object())  # error
    await dimse.serve(dimse.EchoSCP)  # error
    await dimse.serve_stream(OtherRequest(), stream)  # error
    async with dimse.open_server(OtherRequest(), 0):  # error
        pass
    async with dimse.open_association("127.0.0.1", handler=OtherRequest()):  # error
        pass
