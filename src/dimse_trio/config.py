"""Timeouts and limits: one frozen value each, every default with its reason.

How long an operation as a whole may take is the caller's: wrap it in a cancel scope. What stands
here is what the library must bound itself, because no caller is there to do it.
"""

from __future__ import annotations

from typing import Any

import attrs

from .errors import LocalProtocolError


def _positive(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise LocalProtocolError(f"{attribute.name} is a number, not {value!r}")
    if not value > 0:
        raise LocalProtocolError(f"{attribute.name} must be more than 0 (math.inf for no limit)")


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long the library itself waits, in seconds; `math.inf` waits for ever.

    Raises:
        LocalProtocolError: One is no number above 0.
    """

    connect: float = attrs.field(default=10.0, validator=_positive)
    """The transport connection and the TLS handshake. A host on a hospital's network that takes
    longer is down; Orthanc's default is the same."""
    associate: float = attrs.field(default=30.0, validator=_positive)
    """The answer to A-ASSOCIATE-RQ, and ARTIM while waiting for one (PS3.8 §9.1.5 leaves it to the
    implementation). DCMTK, pynetdicom and Orthanc wait 30 s."""
    release: float = attrs.field(default=10.0, validator=_positive)
    """The answer to A-RELEASE-RQ; then A-ABORT. Nothing is at stake any more: fo-dicom's value."""
    network: float = attrs.field(default=60.0, validator=_positive)
    """One PDU, from its first byte to its last, either way. DCMTK's and pynetdicom's 60 s."""
    idle: float = attrs.field(default=600.0, validator=_positive)
    """An acceptor's association on which nothing is under way; then A-ABORT. A requestor may keep
    an association as long as it likes."""
    response: float = attrs.field(default=300.0, validator=_positive)
    """Nothing at all arrives for an operation that awaits its response; any PDU of the operation,
    a sub-operation's too, starts it anew. An archive that fetches from tape needs minutes."""
    cancel_grace: float = attrs.field(default=5.0, validator=_positive)
    """The final response after C-CANCEL-RQ; then A-ABORT. Also how long a cancelled task waits for
    the PDU that it is in the middle of writing."""
    linger: float = attrs.field(default=1.0, validator=_positive)
    """The peer closing the connection after our A-ABORT, A-ASSOCIATE-RJ or A-RELEASE-RP, which
    lets it read them (PS3.8 Sta13); then we close."""


@attrs.frozen(kw_only=True)
class Limits:
    """How much of a peer's data the library holds for one association, in bytes where not said.

    Of a PDU, the length is checked at its header, against what was announced as `max_pdu_length`
    and at least 1 MiB. Messages of one direction come one after the other (PS3.8 Annex E), so that
    at most one is unfinished; how many operations are under way is the negotiated window's.

    Raises:
        LocalProtocolError: One is no number above 0.
    """

    contexts: int = attrs.field(default=128, validator=_positive)
    """Presentation contexts in an A-ASSOCIATE-RQ; with more, it is rejected. 128, as many as there
    are context IDs."""
    command_set: int = attrs.field(default=1 << 16, validator=_positive)
    """The command set of one message. The longest of the standard have a few hundred bytes; an
    attribute identifier list of every attribute there is still fits in 64 KiB."""

    memory_per_message: int = attrs.field(default=1 << 20, validator=_positive)
    """Data set bytes of one message, or matches of one C-FIND, kept in memory while their reader
    lags. Beyond it the connection waits; if it must not, the rest goes to a temporary file."""
    stall: float = attrs.field(default=5.0, validator=_positive)
    """Seconds for which the connection waits for such a reader to take anything at all."""
    data_set: int = attrs.field(default=1 << 33, validator=_positive)
    """One instance in a C-STORE. 8 GiB: one element, the pixel data say, has at most 4."""
    identifier: int = attrs.field(default=4 << 20, validator=_positive)
    """The identifier of a query, a retrieve or a match. 4 MiB; it is decoded as a whole."""
    attributes: int = attrs.field(default=64 << 20, validator=_positive)
    """The attributes, or event or action information, of a DIMSE-N message. 64 MiB, which is an
    image to be printed; it is decoded as a whole."""
