"""DCMTK's network programs as peers in tests: listeners on free ports of this machine, and clients.

A listener runs until its block is left, a client to its end::

    async with dcmtk.storescp(tmp_path) as peer:
        async with dimse.open_association(peer.host, peer.port) as association:
            await association.store("image.dcm")
        assert len(peer.files()) == 1

    await dcmtk.findscu(server.port, {"QueryRetrieveLevel": "STUDY", "PatientName": "DOE*"})

Every program gets time-outs, as DCMTK's default is to wait for ever. They are real processes: do
not use them under an autojump clock, which makes time jump while they work.
"""

from __future__ import annotations

from .clients import echoscu as echoscu
from .clients import findscu as findscu
from .clients import getscu as getscu
from .clients import movescu as movescu
from .clients import storescu as storescu
from .listeners import dcmqrscp as dcmqrscp
from .listeners import storescp as storescp
from .listeners import wlmscpfs as wlmscpfs
from .options import TRANSFER_SYNTAXES as TRANSFER_SYNTAXES
from .programs import HOST as HOST
from .programs import HOW_TO_INSTALL as HOW_TO_INSTALL
from .programs import Completed as Completed
from .programs import DcmtkError as DcmtkError
from .programs import Listener as Listener
from .programs import ProgramFailed as ProgramFailed
from .programs import ProgramMissing as ProgramMissing
from .programs import find_program as find_program
from .programs import free_port as free_port

PROGRAMS = (
    "dcmqridx",
    "dcmqrscp",
    "echoscu",
    "findscu",
    "getscu",
    "movescu",
    "storescp",
    "storescu",
    "wlmscpfs",
)


def available() -> bool:
    """Whether all programs that this module runs are installed, and are DCMTK's."""
    try:
        for name in PROGRAMS:
            find_program(name)
    except ProgramMissing:
        return False
    return True
