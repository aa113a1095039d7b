"""PDU values to bytes (PS3.8 §9.3). Reserved fields are written 0, UIDs are never padded.

Only this side's own values come here, so a value that does not fit its field is a
`LocalProtocolError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from .errors import LocalProtocolError
from .pdus import (
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    ContextResult,
    ItemType,
    PDataTF,
    PDUType,
    ProposedContext,
    ReleaseRP,
    ReleaseRQ,
    UnknownItem,
    UserInformation,
)

_PDU_HEADER = struct.Struct(">BxL")
_ITEM_HEADER = struct.Struct(">BxH")
_PDV_HEADER = struct.Struct(">LBB")
_PDATA_HEADER = struct.Struct(">BxLLBB")

PDV_OVERHEAD = 6
"""Bytes of a PDV before its fragment: item length, context ID, message control header."""


def encode_pdu(pdu: PDU) -> bytes:
    """The bytes of one PDU, header included.

    Raises:
        LocalProtocolError: A value does not fit its field.
    """
    try:
        return _ENCODERS[type(pdu)](pdu)
    except (ValueError, OverflowError, struct.error) as error:
        raise LocalProtocolError(f"{type(pdu).__name__} cannot be encoded: {error}") from error


def pdata_header(context_id: int, length: int, *, is_command: bool, is_last: bool) -> bytes:
    """The 12 bytes before a fragment of `length` bytes that is alone in its P-DATA-TF PDU."""
    flags = is_command | is_last << 1
    try:
        return _PDATA_HEADER.pack(
            PDUType.P_DATA_TF, length + PDV_OVERHEAD, length + 2, context_id, flags
        )
    except struct.error as error:
        raise LocalProtocolError(
            f"no P-DATA-TF for {length} bytes on presentation context {context_id}: {error}"
        ) from error


def _pdu(pdu_type: PDUType, body: bytes) -> bytes:
    return _PDU_HEADER.pack(pdu_type, len(body)) + body


def _item(item_type: int, body: bytes) -> bytes:
    if len(body) > 0xFFFF:
        raise LocalProtocolError(
            f"item {item_type:#04x} would have {len(body)} bytes; its length field ends at 65535"
        )
    return _ITEM_HEADER.pack(item_type, len(body)) + body


def _uid(value: str) -> bytes:
    return value.encode("latin-1")


def _sized(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise LocalProtocolError(f"a field of {len(data)} bytes has a 16-bit length")
    return len(data).to_bytes(2, "big") + data


def _ae_title(value: str) -> bytes:
    data = value.encode("latin-1")
    if len(data) > 16:
        raise LocalProtocolError(f"AE title {value!r} is longer than 16 characters")
    return data.ljust(16)


def _proposed_context(context: ProposedContext) -> bytes:
    return _item(
        ItemType.PRESENTATION_CONTEXT_RQ,
        bytes((context.context_id, 0, 0, 0))
        + _item(ItemType.ABSTRACT_SYNTAX, _uid(context.abstract_syntax))
        + b"".join(_item(ItemType.TRANSFER_SYNTAX, _uid(t)) for t in context.transfer_syntaxes),
    )


def _context_result(result: ContextResult) -> bytes:
    syntax = b""
    if result.transfer_syntax is not None:
        syntax = _item(ItemType.TRANSFER_SYNTAX, _uid(result.transfer_syntax))
    return _item(
        ItemType.PRESENTATION_CONTEXT_AC, bytes((result.context_id, 0, result.result, 0)) + syntax
    )


def _user_information(info: UserInformation) -> bytes:
    """Sub-items in ascending order of type: some peers read them in no other."""
    items: list[bytes] = []
    if info.maximum_length is not None:
        items.append(_item(ItemType.MAXIMUM_LENGTH, info.maximum_length.to_bytes(4, "big")))
    if info.implementation_class_uid is not None:
        items.append(_item(ItemType.IMPLEMENTATION_CLASS_UID, _uid(info.implementation_class_uid)))
    if (window := info.asynchronous_operations) is not None:
        items.append(
            _item(
                ItemType.ASYNCHRONOUS_OPERATIONS,
                struct.pack(">HH", window.invoked, window.performed),
            )
        )
    items += [
        _item(ItemType.ROLE_SELECTION, _sized(_uid(r.sop_class_uid)) + bytes((r.scu, r.scp)))
        for r in info.roles
    ]
    if info.implementation_version_name is not None:
        items.append(
            _item(
                ItemType.IMPLEMENTATION_VERSION_NAME,
                info.implementation_version_name.encode("latin-1"),
            )
        )
    items += [
        _item(ItemType.SOP_CLASS_EXTENDED, _sized(_uid(e.sop_class_uid)) + e.information)
        for e in info.sop_class_extended
    ]
    items += [
        _item(
            ItemType.SOP_CLASS_COMMON_EXTENDED,
            _sized(_uid(c.sop_class_uid))
            + _sized(_uid(c.service_class_uid))
            + _sized(b"".join(_sized(_uid(u)) for u in c.related_general_sop_classes)),
        )
        for c in info.sop_class_common_extended
    ]
    if (identity := info.user_identity) is not None:
        items.append(
            _item(
                ItemType.USER_IDENTITY_RQ,
                bytes((identity.identity_type, identity.response_requested))
                + _sized(identity.primary)
                + _sized(identity.secondary),
            )
        )
    if info.user_identity_response is not None:
        items.append(_item(ItemType.USER_IDENTITY_AC, _sized(info.user_identity_response)))
    return _item(ItemType.USER_INFORMATION, b"".join(items) + _unknown(info.unknown))


def _unknown(items: Iterable[UnknownItem]) -> bytes:
    return b"".join(_item(item.item_type, item.data) for item in items)


def _associate(pdu: AssociateRQ | AssociateAC, pdu_type: PDUType, contexts: bytes) -> bytes:
    return _pdu(
        pdu_type,
        pdu.protocol_version.to_bytes(2, "big")
        + bytes(2)
        + _ae_title(pdu.called_ae_title)
        + _ae_title(pdu.calling_ae_title)
        + bytes(32)
        + _item(ItemType.APPLICATION_CONTEXT, _uid(pdu.application_context))
        + contexts
        + _user_information(pdu.user_information)
        + _unknown(pdu.unknown),
    )


def _associate_rq(pdu: AssociateRQ) -> bytes:
    return _associate(pdu, PDUType.ASSOCIATE_RQ, b"".join(map(_proposed_context, pdu.contexts)))


def _associate_ac(pdu: AssociateAC) -> bytes:
    return _associate(pdu, PDUType.ASSOCIATE_AC, b"".join(map(_context_result, pdu.results)))


def _associate_rj(pdu: AssociateRJ) -> bytes:
    return _pdu(PDUType.ASSOCIATE_RJ, bytes((0, pdu.result, pdu.source, pdu.reason)))


def _pdv(pdv: PDV) -> bytes:
    header = _PDV_HEADER.pack(len(pdv.data) + 2, pdv.context_id, pdv.is_command | pdv.is_last << 1)
    return header + bytes(pdv.data)


def _p_data_tf(pdu: PDataTF) -> bytes:
    return _pdu(PDUType.P_DATA_TF, b"".join(map(_pdv, pdu.pdvs)))


def _release_rq(_: ReleaseRQ) -> bytes:
    return _pdu(PDUType.RELEASE_RQ, bytes(4))


def _release_rp(_: ReleaseRP) -> bytes:
    return _pdu(PDUType.RELEASE_RP, bytes(4))


def _abort(pdu: Abort) -> bytes:
    return _pdu(PDUType.ABORT, bytes((0, 0, pdu.source, pdu.reason)))


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    AssociateRQ: _associate_rq,
    AssociateAC: _associate_ac,
    AssociateRJ: _associate_rj,
    PDataTF: _p_data_tf,
    ReleaseRQ: _release_rq,
    ReleaseRP: _release_rp,
    Abort: _abort,
}
