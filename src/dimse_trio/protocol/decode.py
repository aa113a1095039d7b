"""Bytes to PDU values (PS3.8 §9.3), over a cursor that checks every length before it reads.

Functions that end in `_untrusted` see a peer's bytes and raise `MalformedPDU`, nothing else.
Reserved fields are skipped unread; AE titles and UIDs lose the spaces and NULs around them; text
is read as latin-1, which cannot fail.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from .errors import AbortReason, MalformedPDU
from .pdus import (
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    AsynchronousOperations,
    ContextResult,
    ItemType,
    PDataTF,
    PDUType,
    ProposedContext,
    ReleaseRP,
    ReleaseRQ,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UnknownItem,
    UserIdentity,
    UserInformation,
)

_PDV_HEADER = struct.Struct(">LBB")

MAX_ITEMS = 1 << 14
"""Most items, sub-items included, or PDVs taken in one PDU: 128 contexts with every transfer syntax
have half as many. A peer's items cost far more than their bytes, in time and memory."""


class ByteReader:
    """A cursor over one PDU or item. `what` names it in errors, `budget` holds the items left."""

    __slots__ = ("_budget", "_end", "_position", "_view", "_what")

    def __init__(
        self, data: bytes | memoryview, what: str, budget: list[int] | None = None
    ) -> None:
        self._view = memoryview(data)
        self._budget = budget
        self._position = 0
        self._end = len(self._view)
        self._what = what

    def __bool__(self) -> bool:
        return self._position < self._end

    def view(self, length: int, field: str) -> memoryview:
        """The next `length` bytes, not copied."""
        start = self._position
        if length > self._end - start:
            raise MalformedPDU(
                f"{self._what}: {field} needs {length} bytes, {self._end - start} are left"
            )
        self._position = start + length
        return self._view[start : self._position]

    def raw(self, length: int, field: str) -> bytes:
        return bytes(self.view(length, field))

    def number(self, length: int, field: str) -> int:
        return int.from_bytes(self.view(length, field), "big")

    def text(self, length: int, field: str) -> str:
        return str(self.view(length, field), "latin-1").strip(" \0")

    def sized(self, field: str) -> bytes:
        """Bytes behind a 16-bit length."""
        return self.raw(self.number(2, f"length of {field}"), field)

    def sized_text(self, field: str) -> str:
        return self.text(self.number(2, f"length of {field}"), field)

    def rest(self) -> bytes:
        return self.raw(self._end - self._position, "rest")

    def rest_text(self) -> str:
        return self.text(self._end - self._position, "text")

    def items(self) -> Iterator[tuple[int, ByteReader]]:
        """The items up to the end: type and a cursor over the content (PS3.8 §9.3.1)."""
        if self._budget is None:
            self._budget = [MAX_ITEMS]
        while self:
            self.spend()
            item_type = self.number(1, "item type")
            self.view(1, "reserved byte")
            length = self.number(2, f"length of item {item_type:#04x}")
            content = self.view(length, f"item {item_type:#04x}")
            yield (
                item_type,
                ByteReader(content, f"{self._what}, item {item_type:#04x}", self._budget),
            )

    def spend(self) -> None:
        """Count one more item of the PDU."""
        if self._budget is not None:
            self._budget[0] -= 1
            if self._budget[0] < 0:
                raise MalformedPDU(f"{self._what}: more than {MAX_ITEMS} items in one PDU")


def decode_pdu_untrusted(pdu_type: int, body: bytes | memoryview) -> PDU:
    """The PDU of the given type whose bytes after the 6-byte header are `body`.

    The fragments of a P-DATA-TF are views into `body`; everything else is copied.
    """
    decoder = _PDU_DECODERS.get(pdu_type)
    if decoder is None:
        raise MalformedPDU(f"unrecognized PDU type {pdu_type:#04x}", AbortReason.UNRECOGNIZED_PDU)
    what, decode = decoder
    return decode(ByteReader(body, what))


def _associate_untrusted(
    reader: ByteReader, context_type: ItemType, decode_context: Callable[[ByteReader], Any]
) -> dict[str, Any]:
    """The fields that A-ASSOCIATE-RQ and -AC share, contexts under the key `contexts`."""
    version = reader.number(2, "protocol version")
    reader.view(2, "reserved")
    called = reader.text(16, "called AE title")
    calling = reader.text(16, "calling AE title")
    reader.view(32, "reserved")
    application_context = ""
    contexts: list[Any] = []
    unknown: list[UnknownItem] = []
    user_information = UserInformation()
    for item_type, item in reader.items():
        if item_type == ItemType.APPLICATION_CONTEXT:
            application_context = item.rest_text()
        elif item_type == context_type:
            contexts.append(decode_context(item))
        elif item_type == ItemType.USER_INFORMATION:
            user_information = _user_information_untrusted(item)
        else:
            unknown.append(UnknownItem(item_type, item.rest()))
    return {
        "protocol_version": version,
        "called_ae_title": called,
        "calling_ae_title": calling,
        "application_context": application_context,
        "user_information": user_information,
        "unknown": tuple(unknown),
        "contexts": tuple(contexts),
    }


def _associate_rq_untrusted(reader: ByteReader) -> AssociateRQ:
    return AssociateRQ(
        **_associate_untrusted(
            reader, ItemType.PRESENTATION_CONTEXT_RQ, _proposed_context_untrusted
        )
    )


def _associate_ac_untrusted(reader: ByteReader) -> AssociateAC:
    fields = _associate_untrusted(
        reader, ItemType.PRESENTATION_CONTEXT_AC, _context_result_untrusted
    )
    return AssociateAC(results=fields.pop("contexts"), **fields)


def _proposed_context_untrusted(reader: ByteReader) -> ProposedContext:
    context_id = reader.number(1, "presentation context ID")
    reader.view(3, "reserved")
    abstract_syntax = ""
    transfer_syntaxes: list[str] = []
    for item_type, item in reader.items():
        if item_type == ItemType.ABSTRACT_SYNTAX:
            abstract_syntax = item.rest_text()
        elif item_type == ItemType.TRANSFER_SYNTAX:
            transfer_syntaxes.append(item.rest_text())
    return ProposedContext(context_id, abstract_syntax, tuple(transfer_syntaxes))


def _context_result_untrusted(reader: ByteReader) -> ContextResult:
    context_id = reader.number(1, "presentation context ID")
    reader.view(1, "reserved")
    result = reader.number(1, "result")
    reader.view(1, "reserved")
    transfer_syntax = None
    for item_type, item in reader.items():
        if item_type == ItemType.TRANSFER_SYNTAX:
            transfer_syntax = item.rest_text()
    return ContextResult(context_id, result, transfer_syntax)


def _user_information_untrusted(reader: ByteReader) -> UserInformation:
    fields: dict[str, Any] = {}
    repeated: dict[str, list[Any]] = {}
    unknown: list[UnknownItem] = []
    for item_type, item in reader.items():
        if item_type in _SINGLE_SUB_ITEMS:
            field, decode = _SINGLE_SUB_ITEMS[item_type]
            fields[field] = decode(item)
        elif item_type in _REPEATED_SUB_ITEMS:
            field, decode = _REPEATED_SUB_ITEMS[item_type]
            repeated.setdefault(field, []).append(decode(item))
        else:
            unknown.append(UnknownItem(item_type, item.rest()))
    fields |= {field: tuple(values) for field, values in repeated.items()}
    return UserInformation(**fields, unknown=tuple(unknown))


def _role_selection_untrusted(item: ByteReader) -> RoleSelection:
    return RoleSelection(
        item.sized_text("SOP class UID"),
        bool(item.number(1, "SCU role")),
        bool(item.number(1, "SCP role")),
    )


def _common_extended_untrusted(item: ByteReader) -> SOPClassCommonExtended:
    """Bytes after the list of related classes are allowed and skipped (PS3.7 Table D.3-12)."""
    sop_class = item.sized_text("SOP class UID")
    service_class = item.sized_text("service class UID")
    related = ByteReader(item.sized("related general SOP classes"), "related general SOP classes")
    classes: list[str] = []
    while related:
        item.spend()
        classes.append(related.sized_text("related general SOP class UID"))
    return SOPClassCommonExtended(sop_class, service_class, tuple(classes))


def _user_identity_untrusted(item: ByteReader) -> UserIdentity:
    identity_type = item.number(1, "user identity type")
    response_requested = bool(item.number(1, "positive response requested"))
    primary = item.sized("primary field")
    secondary = item.sized("secondary field") if item else b""
    return UserIdentity(identity_type, primary, secondary, response_requested)


def _window_untrusted(item: ByteReader) -> AsynchronousOperations:
    return AsynchronousOperations(
        item.number(2, "operations invoked"), item.number(2, "operations performed")
    )


def _extended_untrusted(item: ByteReader) -> SOPClassExtended:
    return SOPClassExtended(item.sized_text("SOP class UID"), item.rest())


_SINGLE_SUB_ITEMS: dict[int, tuple[str, Callable[[ByteReader], Any]]] = {
    ItemType.MAXIMUM_LENGTH: ("maximum_length", lambda item: item.number(4, "maximum length")),
    ItemType.IMPLEMENTATION_CLASS_UID: ("implementation_class_uid", ByteReader.rest_text),
    ItemType.ASYNCHRONOUS_OPERATIONS: ("asynchronous_operations", _window_untrusted),
    ItemType.IMPLEMENTATION_VERSION_NAME: ("implementation_version_name", ByteReader.rest_text),
    ItemType.USER_IDENTITY_RQ: ("user_identity", _user_identity_untrusted),
    ItemType.USER_IDENTITY_AC: (
        "user_identity_response",
        lambda item: item.sized("server response"),
    ),
}
_REPEATED_SUB_ITEMS: dict[int, tuple[str, Callable[[ByteReader], Any]]] = {
    ItemType.ROLE_SELECTION: ("roles", _role_selection_untrusted),
    ItemType.SOP_CLASS_EXTENDED: ("sop_class_extended", _extended_untrusted),
    ItemType.SOP_CLASS_COMMON_EXTENDED: ("sop_class_common_extended", _common_extended_untrusted),
}


def _associate_rj_untrusted(reader: ByteReader) -> AssociateRJ:
    reader.view(1, "reserved")
    return AssociateRJ(
        reader.number(1, "result"), reader.number(1, "source"), reader.number(1, "reason")
    )


def _p_data_tf_untrusted(reader: ByteReader) -> PDataTF:
    pdvs: list[PDV] = []
    while reader:
        if len(pdvs) == MAX_ITEMS:
            raise MalformedPDU(f"P-DATA-TF: more than {MAX_ITEMS} PDVs in one PDU")
        length, context_id, header = _PDV_HEADER.unpack(reader.view(6, "PDV header"))
        if length < 2:
            raise MalformedPDU(f"P-DATA-TF: a PDV of {length} bytes has no message control header")
        data = reader.view(length - 2, "PDV fragment")
        pdvs.append(PDV(context_id, header & 1 == 1, header & 2 == 2, data))
    return PDataTF(tuple(pdvs))


def _abort_untrusted(reader: ByteReader) -> Abort:
    reader.view(2, "reserved")
    return Abort(reader.number(1, "source"), reader.number(1, "reason"))


_PDU_DECODERS: dict[int, tuple[str, Callable[[ByteReader], PDU]]] = {
    PDUType.ASSOCIATE_RQ: ("A-ASSOCIATE-RQ", _associate_rq_untrusted),
    PDUType.ASSOCIATE_AC: ("A-ASSOCIATE-AC", _associate_ac_untrusted),
    PDUType.ASSOCIATE_RJ: ("A-ASSOCIATE-RJ", _associate_rj_untrusted),
    PDUType.P_DATA_TF: ("P-DATA-TF", _p_data_tf_untrusted),
    PDUType.RELEASE_RQ: ("A-RELEASE-RQ", lambda _: ReleaseRQ()),
    PDUType.RELEASE_RP: ("A-RELEASE-RP", lambda _: ReleaseRP()),
    PDUType.ABORT: ("A-ABORT", _abort_untrusted),
}
