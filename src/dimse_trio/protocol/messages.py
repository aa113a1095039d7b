"""The 23 DIMSE messages as frozen values, and the command set codec (PS3.7 §9.3, §10.3).

Each class lists its command elements as attributes in the standard's names; an attribute that is
`None` is absent from the command set. CommandDataSetType is no attribute: it is derived from
whether a data set follows. Elements that a message does not know are kept in `unknown`.

The classes share their elements by inheritance from several bases, which slots do not allow.

Only what an answer cannot do without is demanded of a peer: the Message ID of a request, the
Message ID Being Responded To and the Status of a response.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import attrs

from .elements import (
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    DATA_SET_PRESENT,
    ELEMENTS,
    NO_DATA_SET,
    CommandElement,
    decode_elements_untrusted,
    encode_elements,
)
from .errors import LocalProtocolError, MalformedCommand
from .status import Status

RESPONSE_BIT = 0x8000


def _element(keyword: str, **kwargs: Any) -> Any:
    return attrs.field(metadata={"element": ELEMENTS[keyword]}, **kwargs)


def _optional(keyword: str) -> Any:
    return _element(keyword, default=None)


@attrs.frozen(kw_only=True, slots=False)
class Message:
    """What every message has. `unknown`: further command elements as (tag, bytes)."""

    command_field: ClassVar[int]
    name: ClassVar[str]
    normalized: ClassVar[bool] = False
    """Whether it is of a DIMSE-N service (PS3.7 §7.5)."""

    unknown: tuple[tuple[int, bytes], ...] = ()


@attrs.frozen(kw_only=True, slots=False)
class Request(Message):
    """A request: its Message ID names it until the final response."""

    response: ClassVar[type[Response]]

    message_id: int = _element("MessageID")


@attrs.frozen(kw_only=True, slots=False)
class Response(Message):
    """A response to the request with that Message ID (PS3.7 §C, statuses)."""

    message_id_being_responded_to: int = _element("MessageIDBeingRespondedTo")
    status: Status = _element("Status", converter=Status)
    offending_element: tuple[int, ...] | None = _optional("OffendingElement")
    error_comment: str | None = _optional("ErrorComment")
    error_id: int | None = _optional("ErrorID")


@attrs.frozen(kw_only=True, slots=False)
class _AffectedClass(Message):
    affected_sop_class_uid: str | None = _optional("AffectedSOPClassUID")


@attrs.frozen(kw_only=True, slots=False)
class _AffectedInstance(_AffectedClass):
    affected_sop_instance_uid: str | None = _optional("AffectedSOPInstanceUID")


@attrs.frozen(kw_only=True, slots=False)
class _RequestedInstance(Message):
    requested_sop_class_uid: str | None = _optional("RequestedSOPClassUID")
    requested_sop_instance_uid: str | None = _optional("RequestedSOPInstanceUID")


@attrs.frozen(kw_only=True, slots=False)
class _Priority(Message):
    priority: int | None = _element("Priority", default=0)
    """0 medium, 1 high, 2 low."""


@attrs.frozen(kw_only=True, slots=False)
class _SubOperations(Message):
    """Counts of sub-operations; a peer may leave any of them out."""

    remaining: int | None = _optional("NumberOfRemainingSuboperations")
    completed: int | None = _optional("NumberOfCompletedSuboperations")
    failed: int | None = _optional("NumberOfFailedSuboperations")
    warning: int | None = _optional("NumberOfWarningSuboperations")


@attrs.frozen(kw_only=True, slots=False)
class CStoreRQ(Request, _AffectedInstance, _Priority):
    """C-STORE-RQ (PS3.7 §9.3.1.1)."""

    move_originator_ae_title: str | None = _optional("MoveOriginatorApplicationEntityTitle")
    move_originator_message_id: int | None = _optional("MoveOriginatorMessageID")


@attrs.frozen(kw_only=True, slots=False)
class CStoreRSP(Response, _AffectedInstance):
    """C-STORE-RSP (PS3.7 §9.3.1.2)."""


@attrs.frozen(kw_only=True, slots=False)
class CFindRQ(Request, _AffectedClass, _Priority):
    """C-FIND-RQ (PS3.7 §9.3.2.1)."""


@attrs.frozen(kw_only=True, slots=False)
class CFindRSP(Response, _AffectedClass):
    """C-FIND-RSP (PS3.7 §9.3.2.2)."""


@attrs.frozen(kw_only=True, slots=False)
class CCancelRQ(Message):
    """C-CANCEL-RQ, the same for C-FIND, C-GET and C-MOVE (PS3.7 §9.3.2.3)."""

    message_id_being_responded_to: int = _element("MessageIDBeingRespondedTo")


@attrs.frozen(kw_only=True, slots=False)
class CGetRQ(Request, _AffectedClass, _Priority):
    """C-GET-RQ (PS3.7 §9.3.3.1)."""


@attrs.frozen(kw_only=True, slots=False)
class CGetRSP(Response, _AffectedClass, _SubOperations):
    """C-GET-RSP (PS3.7 §9.3.3.2)."""


@attrs.frozen(kw_only=True, slots=False)
class CMoveRQ(Request, _AffectedClass, _Priority):
    """C-MOVE-RQ (PS3.7 §9.3.4.1)."""

    move_destination: str | None = _optional("MoveDestination")


@attrs.frozen(kw_only=True, slots=False)
class CMoveRSP(Response, _AffectedClass, _SubOperations):
    """C-MOVE-RSP (PS3.7 §9.3.4.2)."""


@attrs.frozen(kw_only=True, slots=False)
class CEchoRQ(Request, _AffectedClass):
    """C-ECHO-RQ (PS3.7 §9.3.5.1)."""


@attrs.frozen(kw_only=True, slots=False)
class CEchoRSP(Response, _AffectedClass):
    """C-ECHO-RSP (PS3.7 §9.3.5.2)."""


@attrs.frozen(kw_only=True, slots=False)
class NEventReportRQ(Request, _AffectedInstance):
    """N-EVENT-REPORT-RQ (PS3.7 §10.3.1.1)."""

    event_type_id: int | None = _optional("EventTypeID")


@attrs.frozen(kw_only=True, slots=False)
class NEventReportRSP(Response, _AffectedInstance):
    """N-EVENT-REPORT-RSP (PS3.7 §10.3.1.2)."""

    event_type_id: int | None = _optional("EventTypeID")


@attrs.frozen(kw_only=True, slots=False)
class NGetRQ(Request, _RequestedInstance):
    """N-GET-RQ (PS3.7 §10.3.2.1)."""

    attribute_identifier_list: tuple[int, ...] | None = _optional("AttributeIdentifierList")


@attrs.frozen(kw_only=True, slots=False)
class NGetRSP(Response, _AffectedInstance):
    """N-GET-RSP (PS3.7 §10.3.2.2)."""

    attribute_identifier_list: tuple[int, ...] | None = _optional("AttributeIdentifierList")


@attrs.frozen(kw_only=True, slots=False)
class NSetRQ(Request, _RequestedInstance):
    """N-SET-RQ (PS3.7 §10.3.3.1)."""


@attrs.frozen(kw_only=True, slots=False)
class NSetRSP(Response, _AffectedInstance):
    """N-SET-RSP (PS3.7 §10.3.3.2)."""

    attribute_identifier_list: tuple[int, ...] | None = _optional("AttributeIdentifierList")


@attrs.frozen(kw_only=True, slots=False)
class NActionRQ(Request, _RequestedInstance):
    """N-ACTION-RQ (PS3.7 §10.3.4.1)."""

    action_type_id: int | None = _optional("ActionTypeID")


@attrs.frozen(kw_only=True, slots=False)
class NActionRSP(Response, _AffectedInstance):
    """N-ACTION-RSP (PS3.7 §10.3.4.2)."""

    action_type_id: int | None = _optional("ActionTypeID")


@attrs.frozen(kw_only=True, slots=False)
class NCreateRQ(Request, _AffectedInstance):
    """N-CREATE-RQ (PS3.7 §10.3.5.1)."""


@attrs.frozen(kw_only=True, slots=False)
class NCreateRSP(Response, _AffectedInstance):
    """N-CREATE-RSP (PS3.7 §10.3.5.2)."""

    attribute_identifier_list: tuple[int, ...] | None = _optional("AttributeIdentifierList")


@attrs.frozen(kw_only=True, slots=False)
class NDeleteRQ(Request, _RequestedInstance):
    """N-DELETE-RQ (PS3.7 §10.3.6.1)."""


@attrs.frozen(kw_only=True, slots=False)
class NDeleteRSP(Response, _AffectedInstance):
    """N-DELETE-RSP (PS3.7 §10.3.6.2)."""


_SERVICES: tuple[tuple[int, str, type[Request], type[Response]], ...] = (
    (0x0001, "C-STORE", CStoreRQ, CStoreRSP),
    (0x0010, "C-GET", CGetRQ, CGetRSP),
    (0x0020, "C-FIND", CFindRQ, CFindRSP),
    (0x0021, "C-MOVE", CMoveRQ, CMoveRSP),
    (0x0030, "C-ECHO", CEchoRQ, CEchoRSP),
    (0x0100, "N-EVENT-REPORT", NEventReportRQ, NEventReportRSP),
    (0x0110, "N-GET", NGetRQ, NGetRSP),
    (0x0120, "N-SET", NSetRQ, NSetRSP),
    (0x0130, "N-ACTION", NActionRQ, NActionRSP),
    (0x0140, "N-CREATE", NCreateRQ, NCreateRSP),
    (0x0150, "N-DELETE", NDeleteRQ, NDeleteRSP),
)
"""Command fields (PS3.7 §E.1-1, Command Field): the response's has the highest bit set."""

MESSAGES: dict[int, type[Message]] = {0x0FFF: CCancelRQ}
"""Message class by command field."""

CCancelRQ.command_field = 0x0FFF
CCancelRQ.name = "C-CANCEL-RQ"
for _field, _name, _request, _response in _SERVICES:
    _request.command_field, _request.name, _request.response = _field, f"{_name}-RQ", _response
    _response.command_field, _response.name = _field | RESPONSE_BIT, f"{_name}-RSP"
    _request.normalized = _response.normalized = _name.startswith("N-")
    MESSAGES[_field] = _request
    MESSAGES[_field | RESPONSE_BIT] = _response


@attrs.frozen
class _Layout:
    """The command elements of one message class, ready for the codec."""

    encoders: tuple[tuple[str, int, Callable[[Any], bytes]], ...]
    decoders: dict[int, tuple[str, Callable[[bytes], Any]]]
    required: tuple[tuple[str, CommandElement], ...]

    @classmethod
    def of(cls, message_class: type[Message]) -> _Layout:
        rows = [
            (field, field.metadata["element"])
            for field in attrs.fields(message_class)
            if "element" in field.metadata
        ]
        return cls(
            tuple((field.name, element.tag, element.coding.encode) for field, element in rows),
            {element.tag: (field.name, element.coding.decode) for field, element in rows},
            tuple((f.name, element) for f, element in rows if f.default is attrs.NOTHING),
        )


_LAYOUTS = {message_class: _Layout.of(message_class) for message_class in MESSAGES.values()}

M = TypeVar("M", bound=Message)


def encode_command(message: Message, *, has_data_set: bool) -> bytes:
    """The command set of a message, Implicit VR Little Endian (PS3.7 §6.3.1).

    Raises:
        LocalProtocolError: A value does not fit its element.
    """
    values: list[tuple[int, bytes]] = [
        (COMMAND_FIELD, message.command_field.to_bytes(2, "little")),
        (
            COMMAND_DATA_SET_TYPE,
            (DATA_SET_PRESENT if has_data_set else NO_DATA_SET).to_bytes(2, "little"),
        ),
        *message.unknown,
    ]
    try:
        for name, tag, encode in _LAYOUTS[type(message)].encoders:
            value = getattr(message, name)
            if value is not None:
                values.append((tag, encode(value)))
        return encode_elements(values)
    except (AttributeError, TypeError, ValueError, struct.error) as error:
        raise LocalProtocolError(f"{message.name} cannot be encoded: {error}") from error


def decode_command_untrusted(data: bytes) -> tuple[Message, bool]:
    """The message in a command set, and whether a data set follows it.

    Raises:
        MalformedCommand: The bytes are no command set, of no known message, or lack what an
            answer needs.
    """
    elements = decode_elements_untrusted(data)
    command_field = int.from_bytes(elements.pop(COMMAND_FIELD, b"")[:2], "little")
    message_class = MESSAGES.get(command_field)
    if message_class is None:
        raise MalformedCommand(f"command field {command_field:#06x} is no DIMSE message")
    data_set_type = int.from_bytes(elements.pop(COMMAND_DATA_SET_TYPE, b"\x01\x01")[:2], "little")
    layout = _LAYOUTS[message_class]
    values: dict[str, Any] = {}
    unknown: list[tuple[int, bytes]] = []
    for tag, raw in elements.items():
        if tag in layout.decoders:
            name, decode = layout.decoders[tag]
            if (value := decode(raw)) is not None:
                values[name] = value
        else:
            unknown.append((tag, raw))
    for name, element in layout.required:
        if name not in values:
            raise MalformedCommand(f"{message_class.name} without {element.keyword}")
    return message_class(**values, unknown=tuple(unknown)), data_set_type != NO_DATA_SET
