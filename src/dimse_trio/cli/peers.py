"""Who is meant by `PEER`: `HOST:PORT`, a host, or a name in `peers.toml`."""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import attrs
import click

DEFAULT_PORT = 104
"""The port registered for DICOM (PS3.8 §9.1.2)."""
FILE_NAME = "peers.toml"


@attrs.frozen
class TLSOptions:
    """What is known of TLS for one peer or listener; file names, nothing is read yet."""

    enabled: bool = False
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    insecure: bool = False
    password_file: str | None = None
    profile: str | None = None
    server_name: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether TLS is to be used: asked for, or implied by what else was given."""
        return self != TLSOptions()

    def over(self, known: TLSOptions) -> TLSOptions:
        """These where they are given, else those that are known."""
        given = {name: value for name, value in attrs.asdict(self).items() if value}
        if self.certificate:
            known = attrs.evolve(known, key=None)  # which is that of another certificate
        return attrs.evolve(known, **given)


@attrs.frozen
class Peer:
    """A peer as far as its name tells.

    `hint` is what to say besides if there is no connection to it.
    """

    host: str
    port: int = DEFAULT_PORT
    ae_title: str | None = None
    calling_ae_title: str | None = None
    tls: TLSOptions = TLSOptions()
    hint: str = ""


def parse_address(text: str) -> tuple[str, int | None]:
    """Host and port of `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.

    Raises:
        click.UsageError: It is none of these.
    """
    if "/" in text or "@" in text:
        raise click.UsageError(
            f"{text!r}: write HOST:PORT, and nothing more; the AE title of a peer is --aec"
        )
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise click.UsageError(f"{text!r}: an IPv6 address is written as [::1]:11112")
        port = rest[1:] if rest else None
    elif text.count(":") > 1:
        raise click.UsageError(f"{text!r}: put an IPv6 address in brackets, as in [::1]:11112")
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    if not host or any(c.isspace() for c in host):
        raise click.UsageError(f"{text!r} has no host; write HOST:PORT")
    return host, None if port is None else _port(port, text)


def _port(port: str, text: str) -> int:
    if port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16:
        return int(port)
    raise click.UsageError(f"{text!r}: the port must be a number from 1 to 65535")


def find_peers_file(given: str | None) -> Path | None:
    """The peers file: given, `$DIMSE_TRIO_PEERS`, `./peers.toml`, or the user's own.

    Raises:
        click.UsageError: One was named and is not there.
    """
    for named, by in (
        (given, "--peers-file"),
        (os.environ.get("DIMSE_TRIO_PEERS"), "DIMSE_TRIO_PEERS"),
    ):
        if named:
            path = Path(named)
            if not path.is_file():
                raise click.UsageError(f"{by}: there is no file {named}")
            return path
    for path in (Path(FILE_NAME), config_folder() / FILE_NAME):
        if path.is_file():
            return path
    return None


def config_folder() -> Path:
    """Where the platform keeps a user's settings of this program."""
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or "~/AppData/Roaming"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "dimse-trio"


def _entries(path: Path) -> dict[str, object]:
    """What a peers file has by name; whether an entry can be is seen when it is wanted.

    Raises:
        click.UsageError: It cannot be read, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: not TOML: {error}") from error


_KEYS: dict[str, type] = {
    "host": str,
    "port": int,
    "ae_title": str,
    "calling_ae_title": str,
    "tls": bool,
    "tls_ca": str,
    "tls_cert": str,
    "tls_key": str,
    "tls_insecure": bool,
    "tls_key_password_file": str,
    "tls_profile": str,
    "tls_server_name": str,
}

_TOML_NAMES = {str: "a string", int: "an integer", bool: "true or false"}


def _peer(path: Path, name: str, entry: object) -> Peer:
    where = f"{path}: [{name}]"
    if not isinstance(entry, dict):
        raise click.UsageError(f"{path}: {name} stands outside of a [NAME] table")
    values = cast("dict[str, Any]", entry)
    for key, value in values.items():
        if key not in _KEYS:
            raise click.UsageError(f"{where} has no key {key!r}; there are {', '.join(_KEYS)}")
        if type(value) is not _KEYS[key]:
            raise click.UsageError(f"{where} {key} must be {_TOML_NAMES[_KEYS[key]]}")
    if not values.get("host"):
        raise click.UsageError(f"{where} lacks host")

    def file(key: str) -> str | None:
        """A file name, beside the peers file unless it is absolute."""
        return None if key not in values else str(path.parent / Path(values[key]).expanduser())

    return Peer(
        host=values["host"],
        port=_port(str(values.get("port", DEFAULT_PORT)), where),
        ae_title=values.get("ae_title", name),
        calling_ae_title=values.get("calling_ae_title"),
        tls=TLSOptions(
            enabled=values.get("tls", False),
            ca=file("tls_ca"),
            certificate=file("tls_cert"),
            key=file("tls_key"),
            insecure=values.get("tls_insecure", False),
            password_file=file("tls_key_password_file"),
            profile=values.get("tls_profile"),
            server_name=values.get("tls_server_name"),
        ),
    )


def find_peer(text: str, peers_file: str | None) -> Peer:
    """The peer that a command line names.

    Raises:
        click.UsageError: It is neither an address nor a name that can be looked up, or the entry
            of that name is wrong.
    """
    path = find_peers_file(peers_file)
    peers = {} if path is None else _entries(path)
    if path is not None and text in peers:
        return _peer(path, text, peers[text])
    host, port = parse_address(text)
    hint = ""
    if path is not None and port is None:
        near = difflib.get_close_matches(text, peers, n=3, cutoff=0.5) or sorted(peers)[:8]
        hint = f"{path} has no peer {text}; it has {', '.join(near) or 'none'}"
    elif port is None and host != "localhost" and not set(host) & set(".:"):
        # it looks as a name in a peers file does
        places = f"./{FILE_NAME} nor {config_folder() / FILE_NAME}"
        hint = f"if {text} is a peer's name: there is no peers file, neither {places}"
    return Peer(host, DEFAULT_PORT if port is None else port, hint=hint)


def find_titled_peer(text: str, peers_file: str | None, said_as: str) -> tuple[str, Peer]:
    """An AE title and the peer that is meant by it, of `TITLE=HOST:PORT`, `TITLE=NAME` or `NAME`.

    Args:
        text: One of these.
        peers_file: As for `find_peer`.
        said_as: Where the command line has it, for the error.

    Raises:
        click.UsageError: It is none of these, or the peers file has no such name.
    """
    title, equals, name = text.partition("=")
    peer = find_peer(name if equals else title, peers_file)
    if not equals and peer.ae_title is None:
        raise click.UsageError(
            f"{said_as} {text}: write TITLE=HOST:PORT, or name one in a peers file"
        )
    return title.strip() if equals else peer.ae_title or "", peer
