"""The seven PDUs and their items as frozen values (PS3.8 §9.3, Annex D; PS3.7 Annex D).

A value holds what the field means, not how it is padded: AE titles and UIDs are stripped, reserved
fields do not appear. Numbers that the peer chose (results, sources, reasons) stay plain integers,
so that a value outside the standard survives; the enums beside them name the standard's ones.
Items that nobody here knows are kept as `UnknownItem`.
"""

from __future__ import annotations

import enum

import attrs

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""The DICOM application context name (PS3.7 §A.2.1)."""


class PDUType(enum.IntEnum):
    """First byte of a PDU (PS3.8 §9.3)."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class ItemType(enum.IntEnum):
    """First byte of an item or sub-item (PS3.8 §9.3.2, §9.3.3, Annex D; PS3.7 §D.3.3)."""

    APPLICATION_CONTEXT = 0x10
    PRESENTATION_CONTEXT_RQ = 0x20
    PRESENTATION_CONTEXT_AC = 0x21
    ABSTRACT_SYNTAX = 0x30
    TRANSFER_SYNTAX = 0x40
    USER_INFORMATION = 0x50
    MAXIMUM_LENGTH = 0x51
    IMPLEMENTATION_CLASS_UID = 0x52
    ASYNCHRONOUS_OPERATIONS = 0x53
    ROLE_SELECTION = 0x54
    IMPLEMENTATION_VERSION_NAME = 0x55
    SOP_CLASS_EXTENDED = 0x56
    SOP_CLASS_COMMON_EXTENDED = 0x57
    USER_IDENTITY_RQ = 0x58
    USER_IDENTITY_AC = 0x59


class ContextResultReason(enum.IntEnum):
    """Answer to one proposed presentation context (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


class UserIdentityType(enum.IntEnum):
    """Form of a user identity (PS3.7 Table D.3-14)."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


@attrs.frozen
class UnknownItem:
    """An item or sub-item of a type not in the standard, kept as it came."""

    item_type: int
    data: bytes


@attrs.frozen
class ProposedContext:
    """One presentation context of an A-ASSOCIATE-RQ (PS3.8 §9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@attrs.frozen
class ContextResult:
    """The answer to one presentation context in an A-ASSOCIATE-AC (PS3.8 §9.3.3.2)."""

    context_id: int
    result: int
    transfer_syntax: str | None


@attrs.frozen
class AsynchronousOperations:
    """The asynchronous operations window; 0 means unlimited (PS3.7 §D.3.3.3)."""

    invoked: int
    performed: int


@attrs.frozen
class RoleSelection:
    """SCP/SCU role selection for one SOP class, seen from the requestor (PS3.7 §D.3.3.4)."""

    sop_class_uid: str
    scu: bool
    scp: bool


@attrs.frozen
class SOPClassExtended:
    """SOP class extended negotiation: service-class application information (PS3.7 §D.3.3.5)."""

    sop_class_uid: str
    information: bytes


@attrs.frozen
class SOPClassCommonExtended:
    """SOP class common extended negotiation (PS3.7 §D.3.3.6)."""

    sop_class_uid: str
    service_class_uid: str
    related_general_sop_classes: tuple[str, ...] = ()


@attrs.frozen
class Implementation:
    """How an implementation names itself to its peers (PS3.7 §D.3.3.2).

    Attributes:
        class_uid: Implementation Class UID.
        version_name: Implementation Version Name, 1 to 16 characters.
    """

    class_uid: str
    version_name: str


@attrs.frozen
class UserIdentity:
    """A user identity (PS3.7 §D.3.3.7). What it says never shows in its repr.

    `username`, `username_and_passcode`, `kerberos`, `saml` and `jwt` make one. With
    `response_requested` the acceptor is asked to answer, which those that do not look at identities
    leave out: see `Negotiated.user_identity_response`.

    Attributes:
        identity_type: A `UserIdentityType`, or another number of a peer.
        primary: User name in UTF-8, Kerberos service ticket, SAML assertion, or JSON web token.
        secondary: Passcode in UTF-8; empty for other types than 2.
        response_requested: Whether a positive response is asked for.
    """

    identity_type: int
    primary: bytes = attrs.field(repr=False)
    secondary: bytes = attrs.field(default=b"", repr=False)
    response_requested: bool = False

    @classmethod
    def username(cls, name: str, *, response_requested: bool = False) -> UserIdentity:
        """A user name, on trust."""
        return cls(UserIdentityType.USERNAME, name.encode(), b"", response_requested)

    @classmethod
    def username_and_passcode(
        cls, name: str, passcode: str, *, response_requested: bool = False
    ) -> UserIdentity:
        """A user name and passcode; use TLS, or they can be read on the way."""
        kind = UserIdentityType.USERNAME_AND_PASSCODE
        return cls(kind, name.encode(), passcode.encode(), response_requested)

    @classmethod
    def kerberos(cls, ticket: bytes, *, response_requested: bool = False) -> UserIdentity:
        """A Kerberos service ticket."""
        return cls(UserIdentityType.KERBEROS, ticket, b"", response_requested)

    @classmethod
    def saml(cls, assertion: str, *, response_requested: bool = False) -> UserIdentity:
        """A SAML assertion."""
        return cls(UserIdentityType.SAML, assertion.encode(), b"", response_requested)

    @classmethod
    def jwt(cls, token: str, *, response_requested: bool = False) -> UserIdentity:
        """A JSON web token."""
        return cls(UserIdentityType.JWT, token.encode(), b"", response_requested)

    @property
    def name(self) -> str:
        """The user name; empty for types that have none."""
        named = (UserIdentityType.USERNAME, UserIdentityType.USERNAME_AND_PASSCODE)
        return self.primary.decode(errors="replace") if self.identity_type in named else ""

    @property
    def passcode(self) -> str:
        """The passcode; empty where there is none."""
        return self.secondary.decode(errors="replace")


@attrs.frozen
class UserInformation:
    """The user information item of an A-ASSOCIATE-RQ or -AC (PS3.8 Annex D; PS3.7 §D.3.3).

    `maximum_length` is the longest P-DATA-TF variable field that the sender of this item will
    receive, in bytes; 0 means no limit, `None` that the item was absent.
    """

    maximum_length: int | None = None
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None
    asynchronous_operations: AsynchronousOperations | None = None
    roles: tuple[RoleSelection, ...] = ()
    sop_class_extended: tuple[SOPClassExtended, ...] = ()
    sop_class_common_extended: tuple[SOPClassCommonExtended, ...] = ()
    user_identity: UserIdentity | None = None
    user_identity_response: bytes | None = None
    unknown: tuple[UnknownItem, ...] = ()


@attrs.frozen
class AssociateRQ:
    """A-ASSOCIATE-RQ (PS3.8 §9.3.2)."""

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[ProposedContext, ...]
    user_information: UserInformation
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    unknown: tuple[UnknownItem, ...] = ()


@attrs.frozen
class AssociateAC:
    """A-ASSOCIATE-AC (PS3.8 §9.3.3). The AE titles repeat those of the request, untested."""

    called_ae_title: str
    calling_ae_title: str
    results: tuple[ContextResult, ...]
    user_information: UserInformation
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    unknown: tuple[UnknownItem, ...] = ()


@attrs.frozen
class AssociateRJ:
    """A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""

    result: int
    source: int
    reason: int


@attrs.frozen
class PDV:
    """A presentation data value: a fragment of a command or data set (PS3.8 §9.3.5.1)."""

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes | memoryview


@attrs.frozen
class PDataTF:
    """P-DATA-TF (PS3.8 §9.3.5)."""

    pdvs: tuple[PDV, ...]


@attrs.frozen
class ReleaseRQ:
    """A-RELEASE-RQ (PS3.8 §9.3.6)."""


@attrs.frozen
class ReleaseRP:
    """A-RELEASE-RP (PS3.8 §9.3.7)."""


@attrs.frozen
class Abort:
    """A-ABORT (PS3.8 §9.3.8)."""

    source: int = 0
    reason: int = 0


PDU = AssociateRQ | AssociateAC | AssociateRJ | PDataTF | ReleaseRQ | ReleaseRP | Abort
