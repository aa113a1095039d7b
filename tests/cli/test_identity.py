"""User identities of the command line, as a listener sees them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

import dimse_trio as dimse

from .program import run


@attrs.define
class Doorkeeper:
    """Lets everybody in but those with the wrong passcode, and remembers who it was."""

    seen: list[dimse.UserIdentity | None] = attrs.field(factory=list)

    @asynccontextmanager
    async def handle_association(self, request: dimse.AssociationRequest) -> AsyncGenerator[None]:
        self.seen.append(request.user_identity)
        if request.user_identity is not None and request.user_identity.passcode == "wrong":
            raise dimse.Reject(dimse.RejectReason.PROVIDER_NO_REASON_GIVEN)
        yield

    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


@pytest.mark.parametrize(
    ("option", "content", "identity"),
    [
        ("--passcode-file", "secret\nmore\n", ("me", "secret")),
        ("--kerberos", "ticket", dimse.UserIdentity.kerberos(b"ticket")),
        ("--saml", "<Assertion/>", dimse.UserIdentity.saml("<Assertion/>")),
        ("--jwt", "e30.e30.x\n", dimse.UserIdentity.jwt("e30.e30.x")),
    ],
)
async def test_each_form_of_identity_is_presented(
    option: str, content: str, identity: object, tmp_path: Path
) -> None:
    file = tmp_path / "identity"
    file.write_text(content)
    user = ("--user", "me") if option == "--passcode-file" else ()
    handler = Doorkeeper()
    async with dimse.open_server(handler) as server:
        ended = await run("echo", f"127.0.0.1:{server.port}", *user, option, str(file))
    assert ended.code == 0, ended
    if isinstance(identity, tuple):
        identity = dimse.UserIdentity.username_and_passcode(*identity)
    assert handler.seen == [identity]


async def test_the_passcode_may_be_in_the_environment() -> None:
    handler = Doorkeeper()
    async with dimse.open_server(handler) as server:
        peer = f"127.0.0.1:{server.port}"
        (await run("echo", peer, "--user", "me")).check_done()
        ended = await run("echo", peer, "--user", "me", DIMSE_TRIO_PASSCODE="wrong")
        ended.check(4, "service provider acse")
    assert handler.seen == [
        dimse.UserIdentity.username("me"),
        dimse.UserIdentity.username_and_passcode("me", "wrong"),
    ]
    assert "wrong" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--user", "me", "--jwt", "x"), "a user has one identity"),
        (("--passcode-file", "x"), "needs --user"),
        (("--user", "me", "--passcode-file", "/dev/zero"), "longer than 65535 bytes"),
        (("--tls-key-password-file", "/dev/zero"), "longer than 65535 bytes"),
        (("--saml", "/nonexistent/file"), "--saml /nonexistent/file: No such file"),
    ],
)
async def test_options_that_cannot_be(options: tuple[str, ...], says: str) -> None:
    (await run("echo", "127.0.0.1:1", *options)).check(2, says)
