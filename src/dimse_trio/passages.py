"""What a relay tells of: connections, PDUs and messages that go by, as frozen values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from . import datasets
from .protocol.messages import Message
from .protocol.negotiation import AcceptedContext, Negotiated
from .protocol.overheard import NotUnderstood
from .protocol.pdus import Abort, AssociateAC, AssociateRJ, AssociateRQ, ReleaseRP, ReleaseRQ
from .protocol.upper_layer import Role

if TYPE_CHECKING:
    from pydicom import Dataset


@attrs.frozen
class ConnectionRelayed:
    """A client has connected, and the peer has been connected to for it.

    Attributes:
        connection: Counts the relay's connections, from 1.
        client: The client's `host:port`.
    """

    connection: int
    client: str


@attrs.frozen
class PDURelayed:
    """A PDU other than P-DATA-TF, or what is none.

    Attributes:
        connection: On which connection.
        sender: Which side has sent it: the client is the requestor.
        pdu: What it says. `NotUnderstood` once, where a side's bytes are not DICOM: they are passed
            on, and not read.
        negotiated: With an A-ASSOCIATE-AC, what the two agree on, as the peer sees it.
    """

    connection: int
    sender: Role
    pdu: AssociateRQ | AssociateAC | AssociateRJ | ReleaseRQ | ReleaseRP | Abort | NotUnderstood
    negotiated: Negotiated | None = attrs.field(default=None, repr=False)


@attrs.frozen
class MessageRelayed:
    """A DIMSE message, with its data set.

    Attributes:
        connection: On which connection.
        sender: Which side has sent it.
        context_id: Its presentation context.
        context: What was agreed for that; `None` if nothing was.
        data_set_length: Bytes of its data set; `None` if it has none.
        message: Its command set. Not in the repr: it has SOP Instance UIDs and comments.
        data_set: The data set, up to the relay's `data_set_limit`. Not in the repr.
    """

    connection: int
    sender: Role
    context_id: int
    context: AcceptedContext | None
    data_set_length: int | None
    message: Message = attrs.field(repr=False)
    data_set: bytes | None = attrs.field(default=None, repr=False)

    def decode(self) -> Dataset | None:
        """The data set, where there is one and it was kept.

        Raises:
            DataSetError: It is none of its transfer syntax.
        """
        if self.data_set is None or self.context is None:
            return None
        return datasets.decode(self.data_set, self.context.transfer_syntax)


@attrs.frozen
class RelayEnd:
    """A connection is over on both sides: the last that is told of it, once, however it came about.

    Attributes:
        connection: Which one.
        bytes_from_client: What the client has sent.
        bytes_from_peer: What the peer has sent.
        duration: Seconds.
        error: Why it did not come about, or was cut off, if only because the relay was stopped;
            `None` where both sides closed it.
    """

    connection: int
    bytes_from_client: int
    bytes_from_peer: int
    duration: float
    error: str | None = None


Passage = ConnectionRelayed | PDURelayed | MessageRelayed | RelayEnd
"""What a relay tells of."""
