"""Who is it? A listener that knows its users, and two who knock.

python identity.py
"""

import hmac
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

import dimse_trio as dimse


@attrs.define
class Ward:
    passcodes: dict[str, str]

    @asynccontextmanager
    async def handle_association(
        self, request: dimse.AssociationRequest
    ) -> AsyncGenerator[dimse.Admission]:
        user = request.user_identity
        if user is None or not self.knows(user):
            raise dimse.Reject(dimse.RejectReason.PROVIDER_NO_REASON_GIVEN)
        print(f"{user.name} came from {request.calling_ae_title}")
        yield dimse.Admission(user_identity_response=b"")
        print(f"{user.name} left")

    def knows(self, user: dimse.UserIdentity) -> bool:
        passcode = self.passcodes.get(user.name, "")
        return bool(passcode) and hmac.compare_digest(passcode.encode(), user.secondary)

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


async def knock(port: int, name: str, passcode: str) -> None:
    me = dimse.UserIdentity.username_and_passcode(name, passcode, response_requested=True)
    try:
        async with dimse.open_association("127.0.0.1", port, user_identity=me) as association:
            looked_at = association.negotiated.user_identity_response is not None
            print(f"{name}: {(await association.echo()).status}, identity looked at: {looked_at}")
    except dimse.AssociationRejected as rejected:
        print(f"{name}: {rejected}")


async def main() -> None:
    async with dimse.open_server(Ward({"ada": "correct horse"})) as server:
        await knock(server.port, "ada", "correct horse")
        await knock(server.port, "eve", "battery staple")
        await server.stop(grace=5)


trio.run(main)
