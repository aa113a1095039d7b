"""Options in extended negotiation: bytes to values and back (PS3.4 §B.3.1, §C.5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimse_trio.protocol.extended import (
    ElementCoercion,
    QueryOptions,
    StorageLevel,
    StorageOptions,
    answer_options,
    decode_query_options,
    decode_storage_options,
    encode_options,
)
from dimse_trio.protocol.pdus import SOPClassExtended
from dimse_trio.protocol.uids import (
    MODALITY_WORKLIST_FIND,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    uid_of,
)

CT = uid_of("CTImageStorage")
WORKLISTS = [
    MODALITY_WORKLIST_FIND,
    uid_of("UnifiedProcedureStepPull"),
    uid_of("UnifiedProcedureStepWatch"),
    uid_of("UnifiedProcedureStepQuery"),
]

NAMES = "relational date_time fuzzy_names timezone enhanced_conversion empty_values multiple_values"
query_options = st.builds(QueryOptions, **dict.fromkeys(NAMES.split(), st.booleans()))


@pytest.mark.parametrize(
    ("uid", "options", "information"),
    [
        (STUDY_ROOT_FIND, QueryOptions(), b"\0"),
        (STUDY_ROOT_FIND, QueryOptions(relational=True), b"\1"),
        (STUDY_ROOT_FIND, QueryOptions(fuzzy_names=True), b"\0\0\1"),
        (STUDY_ROOT_FIND, QueryOptions(relational=True, timezone=True), b"\1\0\0\1"),
        (STUDY_ROOT_FIND, QueryOptions(multiple_values=True), b"\0\0\0\0\0\0\1"),
        (STUDY_ROOT_MOVE, QueryOptions(relational=True, fuzzy_names=True), b"\1"),
        (STUDY_ROOT_GET, QueryOptions(enhanced_conversion=True), b"\0\1"),
        (CT, StorageOptions(), b"\3\0\0\0\2\0"),
        (
            CT,
            StorageOptions(
                level=StorageLevel.FULL, signature_level=3, coercion=ElementCoercion.MAY_COERCE
            ),
            b"\2\0\3\0\1\0",
        ),
        ("1.2.3", b"anything", b"anything"),
    ],
)
def test_options_are_these_bytes(uid: str, options: object, information: bytes) -> None:
    assert encode_options(uid, options) == SOPClassExtended(uid, information)  # type: ignore[arg-type]


@pytest.mark.parametrize("uid", WORKLISTS)
@pytest.mark.parametrize(
    ("options", "information"),
    [
        (QueryOptions(), b"\1\1\0"),
        (QueryOptions(fuzzy_names=True), b"\1\1\1"),
        (QueryOptions(timezone=True), b"\1\1\0\1"),
        (QueryOptions(relational=True, date_time=True, empty_values=True), b"\1\1\0"),
    ],
)
def test_options_of_worklists_have_three_bytes_or_four_and_begin_with_ones(
    uid: str, options: QueryOptions, information: bytes
) -> None:
    assert encode_options(uid, options).information == information


@pytest.mark.parametrize("uid", WORKLISTS)
@pytest.mark.parametrize(
    ("asked", "offered", "answered"),
    [
        (b"\1\1\1", QueryOptions(), b"\1\1\0"),
        (b"\1\1\1", QueryOptions(fuzzy_names=True, timezone=True), b"\1\1\1"),
        (b"\1\1\1\1", QueryOptions(fuzzy_names=True), b"\1\1\1\0"),
        (b"\1\1\0\1", QueryOptions(timezone=True), b"\1\1\0\1"),
        (b"\0\0\1", QueryOptions(fuzzy_names=True), b"\1\1\1"),
        (b"\1\1\1\1\1\1", QueryOptions(relational=True), b"\1\1\0\0"),
        (b"", QueryOptions(), b"\1\1\0"),
    ],
)
def test_a_worklist_answers_as_many_bytes_as_were_proposed(
    uid: str, asked: bytes, offered: QueryOptions, answered: bytes
) -> None:
    answer = answer_options(SOPClassExtended(uid, asked), offered)
    assert answer is not None
    assert answer.information == answered


@pytest.mark.parametrize("information", [b"", b"\0\0\0", b"\1\1\0"])
@pytest.mark.parametrize("uid", WORKLISTS)
def test_a_worklist_is_relational_and_combines_dates_with_times_whatever_a_peer_says(
    uid: str, information: bytes
) -> None:
    item = SOPClassExtended(uid, information)
    assert decode_query_options(item) == QueryOptions(relational=True, date_time=True)


def test_query_retrieve_answers_only_the_bytes_that_say_something() -> None:
    answer = answer_options(
        SOPClassExtended(STUDY_ROOT_FIND, b"\1\1\1\1"), QueryOptions(relational=True)
    )
    assert answer is not None
    assert answer.information == b"\1"


@given(query_options)
def test_query_options_come_back(options: QueryOptions) -> None:
    assert decode_query_options(encode_options(STUDY_ROOT_FIND, options)) == options


@given(
    st.binary(max_size=20),
    st.sampled_from([STUDY_ROOT_FIND, STUDY_ROOT_MOVE, MODALITY_WORKLIST_FIND, CT, "1.2"]),
)
def test_any_bytes_mean_something(information: bytes, uid: str) -> None:
    item = SOPClassExtended(uid, information)
    decode_query_options(item)
    decode_storage_options(item)
    for offered in (None, QueryOptions(relational=True), StorageOptions(), b"x"):
        answer_options(item, offered)


@given(query_options, query_options)
def test_the_answer_is_what_both_have(asked: QueryOptions, offered: QueryOptions) -> None:
    answer = answer_options(encode_options(STUDY_ROOT_FIND, asked), offered)
    assert answer is not None
    agreed = decode_query_options(answer)
    assert agreed == asked & offered
    assert agreed & asked == agreed
