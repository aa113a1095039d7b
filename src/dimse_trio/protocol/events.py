"""What the core tells its driver: indications and confirmations as frozen values.

The upper layer's events are PS3.8 §7's primitives; the DIMSE layer adds whole commands and the
fragments of data sets (`dimse.py`).
"""

from __future__ import annotations

import attrs

from .errors import RemoteProtocolError
from .messages import Message
from .pdus import PDV, AssociateAC, AssociateRJ, AssociateRQ


@attrs.frozen
class AssociateRequested:
    """A-ASSOCIATE indication: the peer asks for an association; answer accept or reject."""

    request: AssociateRQ


@attrs.frozen
class AssociateAccepted:
    """A-ASSOCIATE confirmation, accepted."""

    accept: AssociateAC


@attrs.frozen
class AssociateRejected:
    """A-ASSOCIATE confirmation, rejected. The transport connection is to be closed."""

    reject: AssociateRJ


@attrs.frozen
class PDataReceived:
    """P-DATA indication. The fragments are views that are valid until the next `receive_data`."""

    pdvs: tuple[PDV, ...]


@attrs.frozen
class ReleaseRequested:
    """A-RELEASE indication. `collision`: this side has asked for release too."""

    collision: bool


@attrs.frozen
class ReleaseConfirmed:
    """A-RELEASE confirmation. After a collision an acceptor has still to respond."""


@attrs.frozen
class Aborted:
    """A-ABORT or A-P-ABORT indication: the peer aborted."""

    source: int
    reason: int


@attrs.frozen
class ProviderAborted:
    """A-P-ABORT indication from this side: the peer broke the protocol, or is gone.

    `error` says which rule it broke; `None` is a lost transport connection.
    """

    error: RemoteProtocolError | None


@attrs.frozen
class Refused:
    """A connection that never asked for an association ended: what was wrong with it.

    The standard has no indication here (AA-1, AE-6 in Sta2); this one is for the log.
    """

    error: RemoteProtocolError


@attrs.frozen
class MessageReceived:
    """A whole command set. If `has_data_set`, `DataSetFragment`s follow before anything else."""

    context_id: int
    message: Message
    has_data_set: bool


@attrs.frozen
class DataSetFragment:
    """A fragment of the data set of the last `MessageReceived`: a view, see `PDataReceived`."""

    data: bytes | memoryview
    is_last: bool


UpperLayerEvent = (
    AssociateRequested
    | AssociateAccepted
    | AssociateRejected
    | PDataReceived
    | ReleaseRequested
    | ReleaseConfirmed
    | Aborted
    | ProviderAborted
    | Refused
)

DimseEvent = (
    AssociateRequested
    | AssociateAccepted
    | AssociateRejected
    | MessageReceived
    | DataSetFragment
    | ReleaseRequested
    | ReleaseConfirmed
    | Aborted
    | ProviderAborted
    | Refused
)
