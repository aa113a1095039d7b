"""Errors of the sans-I/O core: one class per blame.

`LocalProtocolError` is a mistake of the code that drives the core, `RemoteProtocolError` one of the
peer. Whatever bytes a peer sends, the core raises nothing else; the reason code that our A-ABORT
will carry travels with the error (PS3.8 §9.3.8).
"""

from __future__ import annotations

import enum


class AbortSource(enum.IntEnum):
    """Who aborted (PS3.8 §9.3.8, Table 9-26)."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(enum.IntEnum):
    """Why a service-provider aborted (PS3.8 §9.3.8, Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER_VALUE = 6


class DimseError(Exception):
    """Base of every error that dimse-trio raises on purpose."""


class ProtocolError(DimseError):
    """Base of the two protocol errors; raised only as one of them."""


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol does not allow now. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the association is aborted with `abort_reason`."""

    def __init__(
        self, message: str, abort_reason: AbortReason = AbortReason.INVALID_PDU_PARAMETER_VALUE
    ) -> None:
        super().__init__(message)
        self.abort_reason = abort_reason


class MalformedPDU(RemoteProtocolError):
    """Bytes from the peer that do not form a PDU (PS3.8 §9.3)."""


class MalformedCommand(RemoteProtocolError):
    """A command set from the peer that is no DIMSE message (PS3.7 §6.3)."""
