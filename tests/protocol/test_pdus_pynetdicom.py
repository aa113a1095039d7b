"""PDUs as pynetdicom reads and writes them: an encoder and a decoder that are not ours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom import pdu as theirs
from pynetdicom import pdu_primitives as primitives
from pynetdicom.presentation import build_context

from dimse_trio.protocol.decode import decode_pdu_untrusted
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.pdus import (
    APPLICATION_CONTEXT,
    PDU,
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    AsynchronousOperations,
    ContextResult,
    PDataTF,
    ProposedContext,
    ReleaseRP,
    ReleaseRQ,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserIdentity,
    UserInformation,
)

from .strategies import uids

# What pynetdicom takes without complaint, and has in its model at all.
ae_titles = st.from_regex(r"[A-Z0-9_]([A-Z0-9_ .-]{0,14}[A-Z0-9])?", fullmatch=True)
context_ids = st.integers(0, 127).map(lambda n: 2 * n + 1)
uid_tuples = st.lists(uids, min_size=1, max_size=3).map(tuple)
unique_roles = st.lists(
    st.builds(RoleSelection, uids, st.booleans(), st.booleans()),
    max_size=2,
    unique_by=lambda role: role.sop_class_uid,
).map(tuple)
shared: dict[str, st.SearchStrategy[Any]] = {
    "maximum_length": st.integers(0, 0xFFFFFFFF),
    "implementation_class_uid": uids,
    "implementation_version_name": st.from_regex(r"[A-Z0-9_]{1,16}", fullmatch=True),
    "asynchronous_operations": st.none()
    | st.builds(AsynchronousOperations, st.integers(0, 65535), st.integers(0, 65535)),
    "roles": unique_roles,
    "sop_class_extended": st.lists(
        st.builds(SOPClassExtended, uids, st.binary(min_size=1, max_size=9)), max_size=2
    ).map(tuple),
}
user_identities = st.builds(
    UserIdentity, st.just(2), st.binary(min_size=1, max_size=9), st.binary(min_size=1, max_size=9)
)
rqs = st.builds(
    AssociateRQ,
    ae_titles,
    ae_titles,
    st.lists(st.builds(ProposedContext, context_ids, uids, uid_tuples), max_size=3).map(tuple),
    st.builds(
        UserInformation,
        **shared,
        sop_class_common_extended=st.lists(
            st.builds(SOPClassCommonExtended, uids, uids, st.lists(uids, max_size=2).map(tuple)),
            max_size=2,
        ).map(tuple),
        user_identity=st.none() | user_identities,
    ),
)
acs = st.builds(
    AssociateAC,
    ae_titles,
    ae_titles,
    st.lists(
        st.builds(ContextResult, context_ids, st.integers(0, 4), uids), min_size=1, max_size=3
    ).map(tuple),
    st.builds(
        UserInformation,
        **shared,
        user_identity_response=st.none() | st.binary(min_size=1, max_size=9),
    ),
)
data_pdus = st.builds(
    PDataTF,
    st.lists(
        st.builds(PDV, context_ids, st.booleans(), st.booleans(), st.binary(min_size=1)),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
rejects = st.builds(AssociateRJ, st.integers(1, 2), st.integers(1, 3), st.integers(1, 2))
aborts = st.builds(Abort, st.sampled_from([0, 2]), st.integers(0, 6))


def user_information_of(item: Any) -> UserInformation:
    """Their user information item in our terms, field by field."""
    window, identity = item.async_ops_window, item.user_identity
    sub_items = [sub for sub in item.user_data if hasattr(sub, "response")]
    return UserInformation(
        maximum_length=item.maximum_length,
        implementation_class_uid=item.implementation_class_uid,
        implementation_version_name=item.implementation_version_name,
        asynchronous_operations=window
        and AsynchronousOperations(
            window.maximum_number_operations_invoked, window.maximum_number_operations_performed
        ),
        roles=tuple(
            RoleSelection(role.uid, bool(role.scu_role), bool(role.scp_role))
            for role in item.role_selection.values()
        ),
        sop_class_extended=tuple(SOPClassExtended(sub.uid, sub.app_info) for sub in item.ext_neg),
        sop_class_common_extended=tuple(
            SOPClassCommonExtended(
                sub.sop_class_uid,
                sub.service_class_uid,
                tuple(sub.related_general_sop_class_identification),
            )
            for sub in item.common_ext_neg
        ),
        user_identity=UserIdentity(
            identity.id_type, identity.primary, identity.secondary, identity.response_requested
        )
        if identity is not None and not sub_items
        else None,
        user_identity_response=sub_items[0].response if sub_items else None,
    )


def in_our_terms(pdu: Any) -> PDU:
    """Their PDU in our terms, field by field."""
    match pdu:
        case theirs.A_ASSOCIATE_RQ():
            return AssociateRQ(
                pdu.called_ae_title.strip(),
                pdu.calling_ae_title.strip(),
                tuple(
                    ProposedContext(c.context_id, c.abstract_syntax, tuple(c.transfer_syntax))
                    for c in pdu.presentation_context
                ),
                user_information_of(pdu.user_information),
                application_context=pdu.application_context_name,
                protocol_version=pdu.protocol_version,
            )
        case theirs.A_ASSOCIATE_AC():
            return AssociateAC(
                pdu.reserved_aet.strip(),
                pdu.reserved_aec.strip(),
                tuple(
                    ContextResult(c.context_id, c.result, c.transfer_syntax)
                    for c in pdu.presentation_context
                ),
                user_information_of(pdu.user_information),
                application_context=pdu.application_context_name,
                protocol_version=pdu.protocol_version,
            )
        case theirs.A_ASSOCIATE_RJ():
            return AssociateRJ(pdu.result, pdu.source, pdu.reason_diagnostic)
        case theirs.P_DATA_TF():
            return PDataTF(
                tuple(
                    PDV(
                        item.context_id,
                        bool(item.data[0] & 1),
                        bool(item.data[0] & 2),
                        item.data[1:],
                    )
                    for item in pdu.presentation_data_value_items
                )
            )
        case theirs.A_RELEASE_RQ():
            return ReleaseRQ()
        case theirs.A_RELEASE_RP():
            return ReleaseRP()
        case theirs.A_ABORT_RQ():
            return Abort(pdu.source, pdu.reason_diagnostic)
        case _:
            raise AssertionError(pdu)


PAIRS: dict[type, tuple[type, st.SearchStrategy[Any]]] = {
    AssociateRQ: (theirs.A_ASSOCIATE_RQ, rqs),
    AssociateAC: (theirs.A_ASSOCIATE_AC, acs),
    AssociateRJ: (theirs.A_ASSOCIATE_RJ, rejects),
    PDataTF: (theirs.P_DATA_TF, data_pdus),
    ReleaseRQ: (theirs.A_RELEASE_RQ, st.just(ReleaseRQ())),
    ReleaseRP: (theirs.A_RELEASE_RP, st.just(ReleaseRP())),
    Abort: (theirs.A_ABORT_RQ, aborts),
}


@pytest.mark.parametrize("pdu_class", PAIRS, ids=lambda c: c.__name__)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_pynetdicom_reads_what_we_write_and_we_read_it_written_by_pynetdicom(
    pdu_class: type, data: st.DataObject
) -> None:
    their_class, values = PAIRS[pdu_class]
    pdu = data.draw(values)
    read = their_class()
    read.decode(encode_pdu(pdu))
    assert in_our_terms(read) == pdu

    written = read.encode()
    assert decode_pdu_untrusted(written[0], written[6:]) == pdu


def associate_primitive() -> primitives.A_ASSOCIATE:
    """A request as pynetdicom's own application would make it."""
    request = primitives.A_ASSOCIATE()
    request.application_context_name = APPLICATION_CONTEXT
    request.calling_ae_title = "PYNETDICOM"
    request.called_ae_title = "TRIO"
    first = build_context("1.2.840.10008.1.1", "1.2.840.10008.1.2")
    second = build_context(
        "1.2.840.10008.5.1.4.1.1.2", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
    )
    first.context_id, second.context_id = 1, 3
    request.presentation_context_definition_list = [first, second]
    maximum = primitives.MaximumLengthNotification()
    maximum.maximum_length_received = 16382
    implementation = primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    window = primitives.AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 2
    window.maximum_number_operations_performed = 3
    role = primitives.SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = "1.2.840.10008.5.1.4.1.1.2"
    role.scu_role, role.scp_role = False, True
    common = primitives.SOPClassCommonExtendedNegotiation()
    common.sop_class_uid, common.service_class_uid = "1.2.3", "1.2.840.10008.4.2"
    common.related_general_sop_class_identification = ["1.2.3.1", "1.2.3.22"]
    identity = primitives.UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.primary_field, identity.secondary_field = b"ada", b"lovelace"
    identity.positive_response_requested = True
    request.user_information = [maximum, implementation, window, role, common, identity]
    return request


def test_a_request_made_by_pynetdicom_is_read_as_it_was_meant() -> None:
    pdu = theirs.A_ASSOCIATE_RQ()
    pdu.from_primitive(associate_primitive())
    data = pdu.encode()
    assert decode_pdu_untrusted(data[0], data[6:]) == AssociateRQ(
        called_ae_title="TRIO",
        calling_ae_title="PYNETDICOM",
        contexts=(
            ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),
            ProposedContext(
                3, "1.2.840.10008.5.1.4.1.1.2", ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
            ),
        ),
        user_information=UserInformation(
            maximum_length=16382,
            implementation_class_uid="1.2.3.4",
            asynchronous_operations=AsynchronousOperations(2, 3),
            roles=(RoleSelection("1.2.840.10008.5.1.4.1.1.2", False, True),),
            sop_class_common_extended=(
                SOPClassCommonExtended("1.2.3", "1.2.840.10008.4.2", ("1.2.3.1", "1.2.3.22")),
            ),
            user_identity=UserIdentity(2, b"ada", b"lovelace", True),
        ),
    )
