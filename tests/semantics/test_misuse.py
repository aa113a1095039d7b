"""What callers get wrong, and what they are told: before anything is sent, and in words."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.contexts import context_for, normalized_context, storage_context
from dimse_trio.protocol.messages import CFindRQ, CFindRSP
from dimse_trio.protocol.negotiation import AcceptedContext, Negotiated, RefusedContext
from dimse_trio.protocol.pdus import UserInformation
from dimse_trio.protocol.uids import (
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    uid_of,
)
from dimse_trio.testing.scripted import ScriptedPeer
from interop.samples import Sample

from .script import CT, FIND, scripted


class Echo:
    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


async def releases(peer: ScriptedPeer) -> None:
    await peer.respond_to_release()


@pytest.mark.parametrize("what", [{"PatientID": "1"}, "STUDY", None])
async def test_an_operation_takes_a_query_or_an_identifier(
    autojump_clock: object, what: object
) -> None:
    kind = type(what).__name__
    async with scripted(releases) as association:
        with pytest.raises(TypeError, match=rf"find takes a query\(…\).*Dataset, not {kind}"):
            association.find(what)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"get takes a query"):
            association.get(what)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"move takes a query"):
            association.move(what, destination="X")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="destination is an AE title, not int"):
            association.move(Dataset(), destination=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sop_class", "message"),
    [
        ("BasicFilmSession", r"is a keyword: write uid_of\('BasicFilmSession'\)"),
        ("BasicFilmSesion", "did you mean BasicFilmSession"),
        ("1.2.x", "is not a UID"),
    ],
)
async def test_a_class_of_dimse_n_is_named_by_its_uid(
    autojump_clock: object, sop_class: str, message: str
) -> None:
    async with scripted(releases) as association:
        with pytest.raises(dimse.LocalProtocolError, match=message):
            await association.n_get(sop_class, "1.2.3")
        with pytest.raises(dimse.LocalProtocolError, match="did you mean PatientName"):
            await association.n_get("1.2.3", "1.2.3", ["PatientsName"])


# -- contexts and folders --------------------------------------------------------------------------


def test_contexts_for_takes_a_single_instance(sample: Sample) -> None:
    expected = dimse.contexts_for([sample.path])
    assert dimse.contexts_for(str(sample.path)) == expected
    assert dimse.contexts_for(sample.path) == expected
    assert dimse.contexts_for(dimse.Instance.from_file(sample.path)) == expected


def test_contexts_for_takes_a_single_data_set() -> None:
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = CT, "1.2.3"
    assert dimse.contexts_for(data_set) == dimse.contexts_for([data_set])


async def test_a_folder_is_no_instance(autojump_clock: object, tmp_path: Path) -> None:
    advice = r"is a folder: .*scan_files.*RemoteAE\.store"
    with pytest.raises(IsADirectoryError, match=advice):
        dimse.contexts_for(tmp_path)
    with pytest.raises(FileNotFoundError):
        dimse.contexts_for(tmp_path / "missing.dcm")
    async with scripted(releases) as association:
        with pytest.raises(IsADirectoryError, match=advice):
            await association.store(tmp_path)
        with pytest.raises(FileNotFoundError):
            await association.store(tmp_path / "missing.dcm")


@pytest.mark.parametrize(
    ("contexts", "message"),
    [
        ([VERIFICATION], rf"is str: write PresentationContext\('{VERIFICATION}'\)"),
        (VERIFICATION, rf"write PresentationContext\('{VERIFICATION}'\)"),
        ([5], "5 is int"),
        (5, "not 5"),
    ],
)
async def test_contexts_are_presentation_contexts(contexts: object, message: str) -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.associate_over(ours, contexts=contexts):  # type: ignore[arg-type]
            pass
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_server(Echo(), contexts=contexts):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("peer", ["host:104", ("host",), ("host", "104"), None])
async def test_peers_are_destinations(peer: object) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=r"'X', has .*: write Destination"):
        async with dimse.open_server(Echo(), peers={"X": peer}):  # type: ignore[dict-item]
            pass


NOTHING = Negotiated("CALLED", "CALLING", {}, (), 0, 1, 1, UserInformation())


@pytest.mark.parametrize("sop_class", [VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_MOVE])
def test_a_service_that_was_not_proposed_is_told_how_to_be(sop_class: str) -> None:
    with pytest.raises(dimse.ContextNotAccepted) as caught:
        context_for(NOTHING, sop_class)
    assert f"PresentationContext({sop_class!r})" in str(caught.value)
    assert "default_contexts()" in str(caught.value)
    assert "contexts_for(paths)" not in str(caught.value)


def test_a_model_that_no_default_has_is_proposed_by_its_uid() -> None:
    uid = uid_of("HangingProtocolInformationModelFind")
    with pytest.raises(dimse.ContextNotAccepted) as caught:
        context_for(NOTHING, uid)
    assert f"PresentationContext({uid!r})" in str(caught.value)
    assert "default_contexts" not in str(caught.value)


@pytest.mark.parametrize(
    ("keyword", "helper"),
    [
        ("UnifiedProcedureStepPush", "procedure_step_contexts"),
        ("UnifiedProcedureStepQuery", "procedure_step_contexts"),
        ("ModalityPerformedProcedureStepRetrieve", "performed_step_contexts"),
        ("StorageCommitmentPushModel", "commitment_contexts"),
        ("InstanceAvailabilityNotification", "availability_contexts"),
    ],
)
def test_a_workflow_that_was_not_proposed_is_told_what_makes_its_contexts(
    keyword: str, helper: str
) -> None:
    with pytest.raises(dimse.ContextNotAccepted, match=rf"contexts={helper}\(\)$"):
        normalized_context(NOTHING, uid_of(keyword))
    made = getattr(dimse, helper)()
    assert uid_of(keyword) in [context.abstract_syntax for context in made]


async def test_a_peer_that_refuses_everything_is_told_in_few_words() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        verification = [dimse.PresentationContext("1.2.3")]
        nursery.start_soon(partial(dimse.serve_stream, Echo(), theirs, contexts=verification))
        with pytest.raises(dimse.ContextNotAccepted) as caught:
            async with dimse.associate_over(ours):
                pass
    more = len(dimse.default_contexts()) - 3
    assert f" and {more} more: abstract syntax not supported; check that" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_retrieve_and_a_storage_class_are_told_their_own_contexts() -> None:
    with pytest.raises(dimse.ContextNotAccepted, match="retrieve_contexts"):
        context_for(NOTHING, STUDY_ROOT_GET)
    with pytest.raises(dimse.ContextNotAccepted, match=r"contexts_for\(paths\)"):
        storage_context(NOTHING, CT, None)


RLE = uid_of("RLELossless")


@pytest.mark.parametrize(
    ("result", "advice"),
    [
        (1, "the peer's log may say why"),
        (3, "the peer does not offer this service to us"),
        (
            4,
            (
                "propose other transfer syntaxes to which store can transcode (contexts_for(paths,"
                ' transcode=True), on_mismatch="transcode"), or convert the file'
            ),
        ),
    ],
)
def test_each_refusal_has_its_own_advice(result: int, advice: str) -> None:
    context = RefusedContext(1, CT, (RLE,), result)
    with pytest.raises(dimse.ContextNotAccepted) as caught:
        storage_context(attrs.evolve(NOTHING, refused=(context,)), CT, RLE)
    assert str(caught.value).endswith(f"; {advice}")


@pytest.mark.parametrize("transfer_syntax", [None, RLE])
def test_a_missing_role_is_not_taken_for_a_transfer_syntax(transfer_syntax: str | None) -> None:
    context = AcceptedContext(1, CT, RLE, scu=False, scp=True)
    negotiated = attrs.evolve(NOTHING, accepted={1: context})
    with pytest.raises(dimse.ContextNotAccepted) as caught:
        storage_context(negotiated, CT, transfer_syntax)
    assert "retrieve_contexts(sop_class_uids)" in str(caught.value)
    assert "lenient_roles=True" in str(caught.value)
    assert "convert" not in str(caught.value)
    find = attrs.evolve(context, abstract_syntax=STUDY_ROOT_FIND)
    with pytest.raises(dimse.ContextNotAccepted, match=r"which has the SCU role$"):
        context_for(attrs.evolve(NOTHING, accepted={1: find}), STUDY_ROOT_FIND)


# -- forgotten await -------------------------------------------------------------------------------


def operations(association: dimse.Association) -> list[tuple[Callable[[], object], str]]:
    query = dimse.query("STUDY", StudyInstanceUID="1.2")
    return [
        (association.find_studies, "C-FIND"),
        (lambda: association.get(query), "C-GET"),
        (lambda: association.move(query, destination="X"), "C-MOVE"),
        (dimse.RemoteAE("PACS", "127.0.0.1").find_studies, "C-FIND"),
    ]


async def test_an_operation_that_is_never_awaited_says_so(autojump_clock: object) -> None:
    async with scripted(releases) as association:
        for make, name in operations(association):
            with pytest.warns(RuntimeWarning, match=f"{name} was never awaited: nothing was sent"):
                drop(make)


async def test_a_loop_without_await_is_told_to_have_one(autojump_clock: object) -> None:
    async with scripted(releases) as association:
        for make, name in operations(association):
            with pytest.raises(TypeError, match=rf"{name} is asynchronous; write: .*await \w+\."):
                list(make())  # type: ignore[call-overload]
            gc_collect_harder()


async def test_an_operation_that_was_used_or_could_not_be_made_is_silent(
    autojump_clock: object,
) -> None:
    async def script(peer: ScriptedPeer) -> None:
        request = await peer.expect_message(CFindRQ)
        response = CFindRSP(message_id_being_responded_to=request.message_id, status=0)
        await peer.send_message(FIND, response)
        await peer.respond_to_release()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with scripted(script) as association:
            assert await association.find_studies() == []
            with pytest.raises(dimse.ContextNotAccepted):
                association.find(dimse.query("WORKLIST"))
            with pytest.raises(dimse.LocalProtocolError, match="inside the operation's block"):
                async for _ in association.find_studies():
                    pass
            with pytest.raises(TypeError):
                association.find({})  # type: ignore[arg-type]
        with pytest.raises(dimse.LocalProtocolError, match="inside the operation's block"):
            async for _ in dimse.RemoteAE("PACS", "127.0.0.1").find_studies():
                pass
        with pytest.raises(dimse.ConnectionFailed):
            await dimse.RemoteAE("PACS", "127.0.0.1", 1, retries=0).find_studies()
        gc_collect_harder()
    assert [str(warning.message) for warning in caught] == []


async def test_a_loop_outside_of_its_block_is_told_the_right_operation(
    autojump_clock: object,
) -> None:
    async with scripted(releases) as association:
        query = dimse.query("STUDY", StudyInstanceUID="1.2")
        for operation, name in (
            (association.find(query), "find"),
            (association.get(query), "get"),
            (association.move(query, destination="X"), "move"),
        ):
            with pytest.raises(
                dimse.LocalProtocolError, match=rf"async with association\.{name}\("
            ):
                async for _ in operation:
                    pass


# -- blocks ----------------------------------------------------------------------------------------


def blocks(association: dimse.Association) -> list[tuple[Any, str]]:
    pacs = dimse.RemoteAE("PACS", "127.0.0.1")
    stream, _ = trio.testing.memory_stream_pair()
    ups = dimse.UnifiedProcedureSteps(association)
    return [
        (dimse.open_association("127.0.0.1"), r"open_association\(…\) as association"),
        (dimse.associate_over(stream), r"associate_over\(…\) as association"),
        (dimse.open_server(Echo()), r"open_server\(…\) as server"),
        (pacs, r"RemoteAE\(…\) as pacs"),
        (pacs.association(), r"pacs\.association\(…\) as association"),
        (association.commit([]), r"association\.commit\(…\) as commitment"),
        (association.performed_procedure_step(), r"association\.performed_procedure_step\(…\) as"),
        (ups.watch("1.2"), r"ups\.watch\(…\) as events"),
        (ups.claim("1.2"), r"ups\.claim\(…\) as work"),
    ]


async def test_a_block_that_is_awaited_says_how_it_is_entered(autojump_clock: object) -> None:
    async with scripted(releases) as association:
        for each, usage in blocks(association):
            with pytest.raises(TypeError, match=rf"for async with; write: async with {usage}"):
                await each


async def test_a_block_that_is_entered_by_a_plain_with_is_told_the_async(
    autojump_clock: object,
) -> None:
    async with scripted(releases) as association:
        entered: list[tuple[Any, str]] = [
            *blocks(association),
            (association.find_studies(), r"association\.find\(…\) as matches"),
        ]
        for each, usage in entered:
            with pytest.raises(TypeError, match=rf"write: async with {usage}"), each:
                pass
        gc_collect_harder()


async def test_what_is_used_without_its_block_is_told_to_enter_it() -> None:
    association: Any = dimse.open_association("127.0.0.1")
    with pytest.raises(AttributeError, match=r"echo .*: async with open_association\(…\) as assoc"):
        await association.echo()
    server: Any = dimse.open_server(Echo())
    with pytest.raises(AttributeError, match=r"port .*: async with open_server\(…\) as server"):
        _ = server.port
    assert not hasattr(server, "__len__")


def drop(make: Callable[[], object]) -> None:
    make()
    gc_collect_harder()


def gc_collect_harder() -> None:
    for _ in range(3):
        gc.collect()
