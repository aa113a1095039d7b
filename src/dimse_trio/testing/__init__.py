"""For tests: associations without sockets, DCMTK's programs, the embedded archive, scripted peers.

pytest loads the plugin of this package in every run, so nothing here is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import dcmtk as dcmtk
    from .archive import ArchivePeer as ArchivePeer
    from .archive import served_archive as served_archive
    from .memory import associated_pair as associated_pair
    from .scripted import ScriptedPeer as ScriptedPeer
    from .scripted import UnexpectedPDU as UnexpectedPDU

__all__ = [
    "ArchivePeer",
    "ScriptedPeer",
    "UnexpectedPDU",
    "associated_pair",
    "dcmtk",
    "served_archive",
]

_HOMES = {
    "ArchivePeer": "archive",
    "ScriptedPeer": "scripted",
    "UnexpectedPDU": "scripted",
    "associated_pair": "memory",
    "served_archive": "archive",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name == "dcmtk":
        return import_module(".dcmtk", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
