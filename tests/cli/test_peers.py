"""How peers are named and reached on the command line: peers files, addresses, titles, TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

import dimse_trio as dimse

from .program import Ended, Keeper, Running, run

# -- peers -----------------------------------------------------------------------------------------


def write_peers(path: Path, port: int, **more: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["[KEEPER]", 'host = "127.0.0.1"', f"port = {port}"]
    path.write_text("\n".join(lines + [f"{key} = {value}" for key, value in more.items()]))
    return path


@pytest.mark.parametrize("found", ["option", "variable", "folder", "settings"])
async def test_a_peer_by_name(found: str, tmp_path: Path) -> None:
    async with dimse.open_server(Keeper(tmp_path), ae_title="KEEPER") as server:
        settings = tmp_path / "settings"
        place = {
            "folder": tmp_path / "peers.toml",
            "settings": settings / "dimse-trio" / "peers.toml",
        }.get(found, tmp_path / "other.toml")
        path = write_peers(place, server.port)
        arguments = ("--peers-file", path) if found == "option" else ()
        env = {"DIMSE_TRIO_PEERS": str(path)} if found == "variable" else {}
        ended = await run(
            "echo", "KEEPER", *arguments, cwd=tmp_path, XDG_CONFIG_HOME=str(settings), **env
        )
    assert "Success" in ended.check_done().stdout


async def test_titles_of_a_peer_and_of_the_command_line(tmp_path: Path) -> None:
    class Watching(Keeper):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            association = request.association
            titles.append((association.called_ae_title, association.calling_ae_title))
            return dimse.Status.SUCCESS

    titles: list[tuple[str, str]] = []
    async with dimse.open_server(Watching(tmp_path)) as server:
        path = write_peers(
            tmp_path / "p.toml", server.port, ae_title='"CALLED"', calling_ae_title='"US"'
        )
        (await run("echo", "KEEPER", "--peers-file", path)).check_done()
        (await run("echo", "KEEPER", "--peers-file", path, "--aec", "A", "--aet", "B")).check_done()
        (await run("echo", f"127.0.0.1:{server.port}")).check_done()
    assert titles == [("CALLED", "US"), ("A", "B"), ("ANY-SCP", "DIMSE-TRIO")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[A]\nport = 1", "[A] lacks host"),
        ("[A]\nhost = 'x'\nprot = 1", "no key 'prot'"),
        ("[A]\nhost = 'x'\nport = '1'", "port must be an integer"),
        ("[A]\nhost = 'x'\nport = 0", "port"),
        ("A = 1", "outside of a [NAME] table"),
        ("[A", "not TOML"),
        ("[A]\nhost = 'x'\ntls_ca = 'missing.pem'", "missing.pem: No such file"),
    ],
)
def test_a_wrong_peers_file(
    text: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_here: Callable[..., Ended],
) -> None:
    (tmp_path / "peers.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    run_here("echo", "A").check(2, says)


async def test_a_wrong_entry_of_a_peers_file_is_no_matter_to_others(tmp_path: Path) -> None:
    async with dimse.open_server(Keeper(tmp_path), ae_title="KEEPER") as server:
        path = write_peers(tmp_path / "peers.toml", server.port)
        path.write_text(path.read_text() + "\n[WRONG]\nport = 1\n")
        (await run("echo", "KEEPER", "--peers-file", path)).check_done()
        (await run("echo", "WRONG", "--peers-file", path)).check(2, "[WRONG] lacks host")


async def test_a_name_that_is_in_no_peers_file_gets_a_hint(tmp_path: Path) -> None:
    write_peers(tmp_path / "peers.toml", 1)
    ended = await run("echo", "KEEPR.invalid", cwd=tmp_path)
    ended.check(3, "peers.toml has no peer KEEPR.invalid; it has KEEPER")


async def test_a_name_without_any_peers_file_gets_a_hint(tmp_path: Path) -> None:
    ended = await run("echo", "PACS", cwd=tmp_path, XDG_CONFIG_HOME=str(tmp_path))
    ended.check(
        3, "if PACS is a peer's name: there is no peers file", "./peers.toml", "dimse-trio/"
    )


async def test_an_ipv6_address_is_in_brackets(tmp_path: Path) -> None:
    async with dimse.open_server(Keeper(tmp_path), host="::1") as server:
        (await run("echo", f"[::1]:{server.port}")).check_done()


async def test_a_listener_without_a_title_takes_any_that_it_is_called_by(tmp_path: Path) -> None:
    receive = ("receive", tmp_path / "in", "--port", 0)
    async with await Running.start(*receive) as program:
        line = await program.line()
        assert line.endswith(" as DIMSE-TRIO")
        address = line.split()[2]
        (await run("echo", address)).check_done()
        (await run("echo", address, "--aec", "ELSE")).check_done()
    async with await Running.start(*receive, "--aet", "OURS") as program:
        address = f"127.0.0.1:{await program.listening()}"
        (await run("echo", address)).check(4, "the peer is not called 'ANY-SCP'")
        (await run("echo", address, "--aec", "OURS")).check_done()
    async with await Running.start(*receive, "--aet", "OURS", "--accept-any-called-aet") as program:
        (await run("echo", f"127.0.0.1:{await program.listening()}")).check_done()


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async with dimse.open_server(Keeper(tmp_path)) as server:
        ended = await run("receive", tmp_path / "in", "--port", server.port)
    ended.check(1, f"cannot listen on 127.0.0.1, port {server.port}: ")


# -- TLS -------------------------------------------------------------------------------------------


async def test_tls_checks_the_peers_certificate(pem: dict[str, Path], tmp_path: Path) -> None:
    async with await Running.start(
        "receive", tmp_path / "in", "--port", 0, "--tls-cert", pem["server"]
    ) as program:
        address = f"127.0.0.1:{await program.listening()}"
        title = ("--aec", "DIMSE-TRIO")
        (await run("echo", address, *title, "--tls-ca", pem["ca"])).check_done()
        (await run("echo", address, *title, "--tls-insecure")).check_done()
        ended = await run("echo", address, *title, "--tls")
        ended.check(3, "no TLS connection", "certificate verify failed", "add it to --tls-ca")


async def test_tls_on_both_sides(pem: dict[str, Path], tmp_path: Path) -> None:
    async with await Running.start(
        *("receive", tmp_path / "in", "--port", 0),
        *("--tls-cert", pem["server"], "--tls-ca", pem["ca"]),
    ) as program:
        port = await program.listening()
        peers = write_peers(
            tmp_path / "peers.toml",
            port,
            ae_title='"DIMSE-TRIO"',
            tls="true",
            tls_ca='"ca.pem"',
            tls_cert='"bare.pem"',
            tls_key='"key.pem"',
        )
        (await run("echo", "KEEPER", "--peers-file", peers)).check_done()
        address = (f"127.0.0.1:{port}", "--aec", "DIMSE-TRIO")
        (
            await run("echo", *address, "--tls-ca", pem["ca"], "--tls-cert", pem["client"])
        ).check_done()
        names = (f"localhost:{port}", *address[1:], "--tls-server-name", "127.0.0.1")
        ended = await run("echo", *names, "--tls-ca", pem["ca"])
        ended.check(3, f"no TLS connection to localhost:{port}: ", "give --tls-cert")


async def test_tls_with_a_profile_a_server_name_and_a_password(
    pem: dict[str, Path], tmp_path: Path
) -> None:
    locked, password = tmp_path / "locked.pem", tmp_path / "password"
    key = serialization.load_pem_private_key(pem["key"].read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
    )
    password.write_text("sesame\n")
    async with await Running.start(
        *("receive", tmp_path / "in", "--port", 0, "--tls-profile", "bcp195-modified"),
        *("--tls-cert", pem["bare"], "--tls-key", locked, "--tls-key-password-file", password),
        *("--tls-ca", pem["ca"], "--tls-no-client-cert"),
    ) as program:
        address = f"127.0.0.1:{await program.listening()}"
        options = ("--aec", "DIMSE-TRIO", "--tls-ca", pem["ca"])
        (await run("echo", address, *options, "--tls-server-name", "client.example")).check_done()
        (await run("echo", address, *options)).check(3, "--tls-server-name")
