"""Hypothesis strategies for every PDU, item and sub-item, and for the 23 messages."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st

from dimse_trio.protocol.messages import MESSAGES, Message
from dimse_trio.protocol.pdus import (
    PDV,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    AsynchronousOperations,
    ContextResult,
    ItemType,
    PDataTF,
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

byte = st.integers(0, 0xFF)
uint16 = st.integers(0, 0xFFFF)
uint32 = st.integers(0, 0xFFFFFFFF)
blob = st.binary(max_size=40)

uids = st.from_regex(r"(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){1,7}", fullmatch=True)
"""Valid UIDs of PS3.5 §9.1."""


def latin_text(max_size: int) -> st.SearchStrategy[str]:
    """Any latin-1 text that has no padding of its own."""
    return st.text(st.characters(max_codepoint=0xFF), max_size=max_size).filter(
        lambda text: text == text.strip(" \0")
    )


def element_text(max_size: int) -> st.SearchStrategy[str]:
    """A value of an AE or LO element: no backslash, no control character, no padding."""
    characters = st.characters(
        max_codepoint=0xFF, exclude_categories=["Cc"], exclude_characters="\\"
    )
    return st.text(characters, max_size=max_size).filter(lambda text: text == text.strip())


ae_titles = latin_text(16)
syntaxes = uids | latin_text(70)
"""What a peer may put where a UID belongs."""

proposed_contexts = st.builds(
    ProposedContext, byte, syntaxes, st.lists(syntaxes, max_size=3).map(tuple)
)
context_results = st.builds(ContextResult, byte, byte, st.none() | syntaxes)
windows = st.builds(AsynchronousOperations, uint16, uint16)
role_selections = st.builds(RoleSelection, syntaxes, st.booleans(), st.booleans())
sop_class_extended = st.builds(SOPClassExtended, syntaxes, blob)
sop_class_common_extended = st.builds(
    SOPClassCommonExtended, syntaxes, syntaxes, st.lists(syntaxes, max_size=3).map(tuple)
)
user_identities = st.builds(UserIdentity, byte, blob, blob, st.booleans())

_SUB_ITEM_TYPES = frozenset(range(ItemType.MAXIMUM_LENGTH, ItemType.USER_IDENTITY_AC + 1))


def unknown_items(known: frozenset[int]) -> st.SearchStrategy[tuple[UnknownItem, ...]]:
    """Items of any type but those that are known where they stand."""
    item_type = byte.filter(lambda number: number not in known)
    return st.lists(st.builds(UnknownItem, item_type, blob), max_size=2).map(tuple)


user_informations = st.builds(
    UserInformation,
    maximum_length=st.none() | uint32,
    implementation_class_uid=st.none() | syntaxes,
    implementation_version_name=st.none() | latin_text(20),
    asynchronous_operations=st.none() | windows,
    roles=st.lists(role_selections, max_size=2).map(tuple),
    sop_class_extended=st.lists(sop_class_extended, max_size=2).map(tuple),
    sop_class_common_extended=st.lists(sop_class_common_extended, max_size=2).map(tuple),
    user_identity=st.none() | user_identities,
    user_identity_response=st.none() | blob,
    unknown=unknown_items(_SUB_ITEM_TYPES),
)

associate_rqs = st.builds(
    AssociateRQ,
    called_ae_title=ae_titles,
    calling_ae_title=ae_titles,
    contexts=st.lists(proposed_contexts, max_size=3).map(tuple),
    user_information=user_informations,
    application_context=syntaxes,
    protocol_version=uint16,
    unknown=unknown_items(frozenset({0x10, 0x20, 0x50})),
)
associate_acs = st.builds(
    AssociateAC,
    called_ae_title=ae_titles,
    calling_ae_title=ae_titles,
    results=st.lists(context_results, max_size=3).map(tuple),
    user_information=user_informations,
    application_context=syntaxes,
    protocol_version=uint16,
    unknown=unknown_items(frozenset({0x10, 0x21, 0x50})),
)
associate_rjs = st.builds(AssociateRJ, byte, byte, byte)
pdvs = st.builds(PDV, byte, st.booleans(), st.booleans(), blob)
p_data_tfs = st.builds(PDataTF, st.lists(pdvs, max_size=3).map(tuple))
aborts = st.builds(Abort, byte, byte)

pdus = st.one_of(
    associate_rqs,
    associate_acs,
    associate_rjs,
    p_data_tfs,
    st.just(ReleaseRQ()),
    st.just(ReleaseRP()),
    aborts,
)

_tags = st.lists(uint32, max_size=3).map(tuple)
_VALUES: dict[str, st.SearchStrategy[object]] = {
    "UI": uids,
    "AE": element_text(16),
    "LO": element_text(64),
    "US": uint16,
    "AT": _tags,
}
"""Values of a command element, by VR."""


def messages_of(message_class: type[Message]) -> st.SearchStrategy[Message]:
    """Messages of one class, every optional element present or absent."""
    fields: dict[str, st.SearchStrategy[object]] = {}
    for field in attrs.fields(message_class):
        if "element" not in field.metadata:
            continue
        values = _VALUES[field.metadata["element"].vr]
        fields[field.name] = st.none() | values if field.default is None else values
    return st.builds(message_class, **fields)


messages = st.one_of([messages_of(message_class) for message_class in MESSAGES.values()])
