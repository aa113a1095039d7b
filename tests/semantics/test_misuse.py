"""What callers get wrong, and what they are told: before anything is sent, and in words."""

from __future__ import annotations

import datetime as dt
import gc
import math
import ssl
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

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
from dimse_trio.relay import Passage, open_relay
from dimse_trio.testing import associated_pair
from dimse_trio.testing.scripted import ScriptedPeer
from dimse_trio.ups_attributes import date_time
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
    with pytest.raises(dimse.LocalProtocolError, match=r"'X': write Destination\(host, port\)"):
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


# -- addresses and other arguments -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1:21112", 104, r"host='127\.0\.0\.1', port=21112"),
        ("pacs:", 104, r"host='pacs'$"),
        ("[::1]:104", 104, r"host='::1', port=104"),
        ("[::1]", 104, r"host='::1'$"),
        ("", 104, "host is a name or an address as text, not ''"),
        (None, 104, "host is a name or an address as text, not None"),
        ("pacs", "104", "port is a whole number, not '104': write port=104"),
        ("pacs", True, "port is a whole number, not True"),
        ("pacs", 0, "port is a number from 1 to 65535, not 0"),
        ("pacs", 104_104, "port is a number from 1 to 65535"),
    ],
)
async def test_a_host_and_a_port_are_given_each_by_itself(
    host: object, port: object, message: str
) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_association(host, port):  # type: ignore[arg-type]
            pass
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.RemoteAE("PACS", host, port)  # type: ignore[arg-type]
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.Destination(host, port)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["::1", "fe80::1%eth0", "pacs.example.org", "10.0.0.1"])
def test_names_and_addresses_are_hosts(host: str) -> None:
    assert dimse.Destination(host).host == host


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user_identity": "ada"}, r"user_identity is UserIdentity, not str; .*username\('ada'\)"),
        ({"timeouts": 5}, r"timeouts is Timeouts, not int; for example timeouts=Timeouts\("),
        ({"limits": 5}, r"limits is Limits, not int; for example limits=Limits\("),
        ({"instruments": dimse.Instrument()}, r"instruments=\[…\], not Instrument\(…\)"),
        ({"max_pdu_length": "x"}, "max_pdu_length is a whole number, not 'x'$"),
        ({"max_pdu_length": "65536"}, "not '65536': write max_pdu_length=65536"),
        ({"implementation": "x"}, r"implementation is Implementation, not str; for example"),
        ({"implementation": dimse.Implementation("1.2", 5)}, "version name 5 must"),  # type: ignore[arg-type]
        ({"implementation": dimse.Implementation(5, "X")}, "class UID 5 must"),  # type: ignore[arg-type]
    ],
)
async def test_options_are_of_their_kind(arguments: dict[str, Any], message: str) -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_association("127.0.0.1", 1, **arguments):
            pass
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.associate_over(ours, **arguments):
            pass
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.RemoteAE("PACS", "127.0.0.1", **arguments)
    if "user_identity" not in arguments:
        with pytest.raises(dimse.LocalProtocolError, match=message):
            async with dimse.open_server(Echo(), **arguments):
                pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dimse.Timeouts(response="5"), "response is a number, not '5'"),  # type: ignore[arg-type]
        (lambda: dimse.Timeouts(idle=None), "idle is a number, not None"),  # type: ignore[arg-type]
        (lambda: dimse.Timeouts(idle=True), "idle is a number, not True"),
        (lambda: dimse.Timeouts(idle=0), "idle must be more than 0"),
        (lambda: dimse.Limits(data_set=float("nan")), "data_set must be more than 0"),
        (lambda: dimse.Limits(data_set="1 GiB"), "data_set is a number, not '1 GiB'"),  # type: ignore[arg-type]
    ],
)
def test_times_and_limits_are_numbers(make: Callable[[], object], message: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        make()


async def test_counts_of_associations_are_numbers() -> None:
    with pytest.raises(dimse.LocalProtocolError, match=r"max_associations=4$"):
        async with dimse.open_server(Echo(), max_associations="4"):  # type: ignore[arg-type]
            pass


FOR_A_SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
FOR_A_CLIENT = dimse.tls_profile()


async def test_a_context_for_servers_is_none_to_connect_with() -> None:
    message = r"ssl_context is to connect with, .* for servers; .*ssl_context=tls_profile\(ca="
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_association("127.0.0.1", 1, ssl_context=FOR_A_SERVER):
            pass
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.RemoteAE("PACS", "127.0.0.1", ssl_context=FOR_A_SERVER)
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.Destination("127.0.0.1", ssl_context=FOR_A_SERVER)
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with open_relay("127.0.0.1", ssl_context=FOR_A_SERVER, on_passage=told):
            pass


async def test_a_context_for_clients_is_none_to_listen_with() -> None:
    message = r"ssl_context is to listen with, .* for clients; .*=tls_profile\(server=True"
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_server(Echo(), ssl_context=FOR_A_CLIENT):
            pass
    with pytest.raises(dimse.LocalProtocolError, match=f"listen_{message}"):
        dimse.RemoteAE("PACS", "127.0.0.1", listen_ssl_context=FOR_A_CLIENT)
    with pytest.raises(dimse.LocalProtocolError, match=f"server_{message}"):
        async with open_relay("127.0.0.1", server_ssl_context=FOR_A_CLIENT, on_passage=told):
            pass


async def told(passage: Passage) -> None:
    """What a relay tells of is nothing to us."""


class Told:
    async def __call__(self, passage: Passage) -> None:
        """As an object."""


@pytest.mark.parametrize("on_passage", [told, Told(), Told().__call__, partial(told)])
async def test_a_relay_tells_what_can_be_awaited(on_passage: Any) -> None:
    async with open_relay("127.0.0.1", on_passage=on_passage):
        pass


@pytest.mark.parametrize(
    ("on_passage", "message"),
    [
        (print, "must be an `async def`"),
        (lambda passage: None, "must be an `async def`"),
        (Told, "must be an `async def`"),
        (None, "must be an `async def`"),
        (partial(told, 1), "must take one argument"),
    ],
)
async def test_a_relay_is_refused_what_cannot_be_told(on_passage: Any, message: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=f"on_passage {message}"):
        async with open_relay("127.0.0.1", on_passage=on_passage):
            pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_connections": 0}, "max_connections must be at least 1"),
        ({"max_connections": "1"}, "max_connections is a whole number"),
        ({"data_set_limit": -1}, "data_set_limit must be at least 0"),
        ({"timeouts": 5}, "timeouts is Timeouts"),
        ({"host": "pacs:104"}, "host='pacs', port=104"),
    ],
)
async def test_a_relays_options_are_of_their_kind(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with open_relay(**{"host": "127.0.0.1", "on_passage": told, **arguments}):
            pass


@pytest.mark.parametrize("port", ["104", -1, None])
async def test_a_listeners_port_is_a_number(port: Any) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=r"host='127\.0\.0\.1', port=104"):
        async with dimse.open_server(Echo(), host="127.0.0.1:104"):
            pass
    with pytest.raises(dimse.LocalProtocolError, match="port is a"):
        async with dimse.open_server(Echo(), port):
            pass
    if port is not None:
        with pytest.raises(dimse.LocalProtocolError, match="listen_port is a"):
            dimse.RemoteAE("PACS", "127.0.0.1", listen_port=port)


def test_an_available_instance_is_of_its_kinds() -> None:
    reference = dimse.SOPReference(CT, "1.2.3")
    with pytest.raises(dimse.LocalProtocolError, match=r"InstanceAvailability\.ONLINE.*'ONLINE'"):
        dimse.AvailableInstance(reference, "ONLINE", "PACS")  # type: ignore[arg-type]
    with pytest.raises(dimse.LocalProtocolError, match=r"write SOPReference\("):
        dimse.AvailableInstance(
            (CT, "1.2.3"),  # type: ignore[arg-type]
            dimse.InstanceAvailability.ONLINE,
            "PACS",
        )


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


# -- workflows -------------------------------------------------------------------------------------

WHO = {"Modality": "CT", "PerformedStationAETitle": "SCANNER"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: dimse.performed_step_attributes(PerformedProcedureStepStartDate="gestern"),
            "PerformedProcedureStepStartDate is none of its VR DA, such as",
        ),
        (lambda: dimse.performed_step_attributes(Modality="lower case"), "Modality .* VR CS"),
        (lambda: dimse.performed_step_attributes("item"), "scheduled is a pydicom Dataset"),
        (lambda: dimse.performed_step_attributes([{}]), "scheduled is a pydicom Dataset"),
        (lambda: dimse.PerformedSeries("abc", "HEAD").item(), "SeriesInstanceUID .* UI"),
        (lambda: dimse.PerformedSeries("1.2", "HEAD", ["1.2.3"]).item(), "refers to an instance"),
        (
            lambda: dimse.PerformedSeries("1.2", "H", [("1.2.3", CT)]).item(),
            "other way round",
        ),
        (
            lambda: dimse.PerformedSeries("1.2", "H", [("CT", "1.2")]).item(),
            "refers to an instance",
        ),
    ],
)
def test_a_performed_step_of_what_is_none_is_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message) as refused:
        make()
    assert "gestern" not in str(refused.value)


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("SeriesDescription", 4711, "SeriesDescription is text, not int"),
        ("StudyDate", 4711, r"AttributeError at StudyDate \(0008,0020\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
async def test_what_cannot_be_encoded_is_named_without_its_value(
    keyword: str, value: Any, message: str
) -> None:
    nested, data_set = Dataset(), Dataset()
    setattr(nested, keyword, value)
    data_set.ReferencedSeriesSequence = [nested]
    contexts = dimse.performed_step_contexts()
    async with associated_pair(dimse.PerformedProcedureSteps(), contexts=contexts) as association:
        with pytest.raises(dimse.DataSetError, match=message) as refused:
            await association.n_set(dimse.uid_of("ModalityPerformedProcedureStep"), "1", data_set)
    assert "4711" not in str(refused.value)


WORKITEM = dimse.Code("110001", "DCM", "Image Processing")


async def test_a_procedure_step_of_what_is_none_is_refused() -> None:
    async with dimse.ProcedureSteps() as steps:
        contexts = dimse.procedure_step_contexts()
        async with associated_pair(steps, contexts=contexts) as association:
            ups: Any = dimse.UnifiedProcedureSteps(association)
            for call, message in (
                (ups.create("Step", workitem="110001"), "workitem is a code"),
                (ups.create("Step", start="tomorrow"), "VR DT, such as"),
                (ups.create("Step" * 20), "ProcedureStepLabel .* VR LO"),
                (ups.create("Step", {"PatientName": "X"}), "attributes is a pydicom Dataset"),
                (ups.update("1.2", {"PatientName": "X"}), "attributes is a pydicom Dataset"),
                (ups.update("1.2"), "an update changes something"),
                (ups.update("1.2", PatientNam="X"), "PatientNam"),
                (ups.subscribe(matching="PatientName"), "attributes is a pydicom Dataset"),
                (ups.create("Step", AdmissionID=dimse.Code("1", "L")), "AdmissionID .* VR LO"),
                (ups.create("Step", SliceThickness=object()), "SliceThickness .* VR DS"),
                (ups.create("Step", InstanceNumber=1.5), "InstanceNumber .* VR IS"),
                (ups.create("Step", Rows="7"), "Rows .* VR US"),
                (ups.create("Step", PatientNam="X"), "PatientNam"),
                (ups.create("Step", ScheduledProcedureStepPriority="so so"), "VR CS"),
                (association.notify_availability("x"), "AvailabilityNotice"),  # type: ignore[arg-type]
            ):
                with pytest.raises(dimse.LocalProtocolError, match=message):
                    await call
            with pytest.raises(dimse.QueryError, match="PatientNam"):
                await ups.subscribe(matching={"PatientNam": "X"})
            uid = await ups.create("Step")
            async with ups.claim(uid) as work:
                with pytest.raises(dimse.LocalProtocolError, match="ReasonForCancellation"):
                    await work.cancel(dimse.Code("110514", "DCM"))
                await work.cancel(code=("110514", "DCM", "Incorrect worklist entry selected"))
            assert steps.states == {uid: dimse.StepState.CANCELED}
            for wrong in (
                lambda work: work.update(progress=50, description=5),
                lambda work: work.update(progress="half"),
                lambda work: work.complete(workitem="110001"),
                lambda work: work.complete(workitem=WORKITEM, station="here"),
                lambda work: work.complete(performed="x"),
                lambda work: work.complete(workitem=WORKITEM, outputs=["x"]),
                lambda work: work.cancel(5),
                lambda work: work.update(ContactURI=5),
            ):
                uid = await ups.create("Step")
                with pytest.raises(dimse.LocalProtocolError):
                    async with ups.claim(uid) as work:
                        await wrong(work)
                assert steps.states[uid] is dimse.StepState.CANCELED
            uid = await ups.create("Step", workitem=WORKITEM)
            async with ups.claim(uid) as work:
                with pytest.raises(dimse.LocalProtocolError):
                    await work.update(progress=50, description=5)
                await work.update(progress=60)
                await work.complete()
            with pytest.raises(dimse.LocalProtocolError, match="ReasonForCancellation"):
                await ups.request_cancel(uid, reason=5)
    for wrong in ("127.0.0.1", None):
        with pytest.raises(dimse.LocalProtocolError, match="procedure_step_contexts"):
            dimse.UnifiedProcedureSteps(wrong)  # type: ignore[arg-type]


async def test_a_step_is_completed_with_series_and_with_nothing_else() -> None:
    steps = dimse.PerformedProcedureSteps()
    contexts = dimse.performed_step_contexts()
    async with associated_pair(steps, contexts=contexts) as association:
        step: Any = await association.create_performed_step(**WHO)
        with pytest.raises(dimse.LocalProtocolError, match="series are PerformedSeries"):
            await step.complete("1.2.3")
        assert step.status == "IN PROGRESS"


async def test_a_rejection_for_a_reason_that_is_none_is_one_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refusing(dimse.EchoSCP):
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            raise dimse.Reject("no")  # type: ignore[arg-type]
            yield

    with pytest.raises(dimse.LocalProtocolError, match="takes a RejectResult, not 1"):
        dimse.Reject(result=1)  # type: ignore[arg-type]
    with pytest.raises(dimse.AssociationRejected) as rejected:
        async with associated_pair(Refusing()):
            pass
    assert rejected.value.result is dimse.RejectResult.TRANSIENT
    assert "Reject takes a RejectReason, not 'no': NO_REASON_GIVEN" in caplog.text


async def test_values_of_another_data_set_are_taken_as_they_are() -> None:
    source = Dataset()
    source.OtherPatientIDs = ["a", "b"]
    source.OperatorsName = ["A^B", "Ä^Ö"]
    source.ImagerPixelSpacing = [0.1, 0.2]
    given = {each.keyword: each.value for each in source}
    contexts = [*dimse.performed_step_contexts(), *dimse.procedure_step_contexts()]
    async with dimse.ProcedureSteps() as steps:
        handler = dimse.Handlers(dimse.PerformedProcedureSteps(), steps)
        async with associated_pair(handler, contexts=contexts) as association:
            step = await association.create_performed_step(**{**WHO, **given})
            kept = (await association.n_get(MPPS_RETRIEVE, step.uid)).data_set
            uid = await dimse.UnifiedProcedureSteps(association).create("Step", **given)
    assert all(kept[each.tag] == each == steps.step(uid)[each.tag] for each in source)
    assert dimse.PerformedSeries("1.2", "HEAD", attributes=given).item().OtherPatientIDs[1] == "b"


@pytest.mark.parametrize("uid", [5, "x", "1..2"])
async def test_a_step_is_of_a_study_whose_uid_is_one(uid: Any) -> None:
    with pytest.raises(dimse.LocalProtocolError, match="StudyInstanceUID"):
        dimse.performed_step_attributes(StudyInstanceUID=uid, **WHO)
    with pytest.raises(dimse.LocalProtocolError, match="ProtocolName"):
        dimse.PerformedSeries("1.2", "x" * 70).item()


MPPS_RETRIEVE = dimse.uid_of("ModalityPerformedProcedureStepRetrieve")


@pytest.mark.parametrize(
    "wrong",
    [
        {"ExposureTime": [1, None]},
        {"OperatorsName": ["A", None]},
        {"AffectedSOPInstanceUID": "1.2"},
        {"TransferSyntaxUID": "1.2"},
        {"": 1},
    ],
)
async def test_what_would_be_sent_as_something_else_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(dimse.LocalProtocolError):
        dimse.performed_step_attributes(**{**WHO, **wrong})


async def test_a_number_is_sent_in_the_sixteen_bytes_that_it_may_have() -> None:
    made = dimse.performed_step_attributes(PatientWeight=1 / 3, PatientSize=1.5, **WHO)
    assert str(made.PatientWeight) == "0.33333333333333"
    assert str(made.PatientSize) == "1.5"
    with pytest.raises(dimse.LocalProtocolError, match=r"datetime.datetime or a DT, not date"):
        date_time(dt.date(2026, 1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("uid", [5, "x", ""])
def test_a_notice_names_a_study_and_series_by_their_uids(uid: Any) -> None:
    for notice in (
        dimse.AvailabilityNotice(uid, {"1.2": ()}),
        dimse.AvailabilityNotice("1.2", {uid: ()}),
        dimse.AvailabilityNotice("1.2", [uid]),  # type: ignore[arg-type]
    ):
        with pytest.raises(dimse.LocalProtocolError):
            notice.to_data_set()


def test_steps_are_kept_in_a_folder_and_in_no_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(dimse.HandlerError, match="no folder"):
        dimse.PerformedStepFolder(file)


async def test_what_a_base_class_needs_is_a_coroutine_function() -> None:
    class Listener(dimse.AvailabilityListener):
        def available(self, notice: Any) -> None:  # type: ignore[override]
            pass

    class Provider(dimse.StorageCommitmentProvider):
        def committed(self, reference: Any) -> None:  # type: ignore[override]
            pass

    for handler in (Listener(), Provider()):
        with pytest.raises(dimse.HandlerError, match="async def"):
            async with dimse.open_server(handler):
                pass


@pytest.mark.parametrize("title", [None, 5, b"X", ["X"]])
async def test_an_ae_title_is_text(title: Any) -> None:
    with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
        dimse.RemoteAE(title, "127.0.0.1")
    with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
        dimse.RemoteAE("PACS", "127.0.0.1", calling_ae_title=title)
    with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
        async with dimse.open_association("127.0.0.1", 1, called_ae_title=title):
            pass
    with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
        async with dimse.open_server(Echo(), calling_ae_titles=[title]):
            pass
    if title is not None:
        with pytest.raises(dimse.LocalProtocolError, match="AE title is text, not"):
            async with dimse.open_server(Echo(), ae_title=title):
                pass


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        *((name, wrong) for name in ("keep_idle", "pause") for wrong in (math.nan, None, "2", -1)),
        *(("max_associations", wrong) for wrong in (1.5, math.nan, math.inf, None, 0)),
        *(("retries", wrong) for wrong in (None, 1.5, -1)),
    ],
)
def test_the_numbers_of_a_remote_ae_are_such(option: str, wrong: object) -> None:
    options: dict[str, Any] = {option: wrong}
    with pytest.raises(dimse.LocalProtocolError, match=option):
        dimse.RemoteAE("PACS", "127.0.0.1", **options)


@pytest.mark.parametrize("jobs", [None, math.nan, "2", 0])
async def test_jobs_are_a_whole_number(jobs: Any, tmp_path: Path) -> None:
    pacs = dimse.RemoteAE("PACS", "127.0.0.1")
    with pytest.raises(dimse.LocalProtocolError, match="jobs"):
        await pacs.store([], jobs=jobs)
    with pytest.raises(dimse.LocalProtocolError, match="jobs"):
        await pacs.retrieve(dimse.query("STUDY", StudyInstanceUID="1"), tmp_path, jobs=jobs)


@pytest.mark.parametrize("wrong", [None, "x", 5, ["x"], dimse.RoleSelection(CT, False, True)])
async def test_roles_are_role_selections(wrong: Any) -> None:
    with pytest.raises(dimse.LocalProtocolError, match="roles are several RoleSelection"):
        async with dimse.open_association("127.0.0.1", 1, roles=wrong):
            pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transfer_syntax_preference": None}, r"TransferSyntaxPreference\(.*not NoneType"),
        ({"transfer_syntax_preference": dimse.TransferSyntaxPreference}, "not type"),
        ({"calling_ae_titles": 5}, "calling_ae_titles are several, not int"),
    ],
)
async def test_options_of_another_kind_are_refused_at_once(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_server(Echo(), **options):
            pass


@pytest.mark.parametrize(("option", "hint"), [("aet", "; did you mean ae_title?"), ("colour", "")])
async def test_an_option_that_is_none_is_named_with_the_nearest(option: str, hint: str) -> None:
    options: dict[str, Any] = {option: "X"}
    message = f"open_server, serve and serve_stream have no option {option}{hint}"
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(TypeError) as refused:
        async with dimse.open_server(Echo(), 0, **options):
            pass
    assert str(refused.value) == message
    with pytest.raises(TypeError) as refused:
        await dimse.serve_stream(Echo(), ours, **options)
    assert str(refused.value) == message


@pytest.mark.parametrize("grace", [math.nan, None, "2"])
async def test_a_grace_that_is_no_time_stops_nothing(grace: Any) -> None:
    async def passed(passage: Passage) -> None: ...

    async with (
        dimse.open_server(Echo()) as server,
        open_relay("127.0.0.1", server.port, on_passage=passed) as relay,
    ):
        for stoppable in (relay, server):
            with pytest.raises(dimse.LocalProtocolError, match="grace is a number of seconds"):
                await stoppable.stop(grace)
        async with dimse.open_association("127.0.0.1", relay.port) as association:
            await association.echo()
        await relay.stop(-1)


def test_what_keeps_steps_has_methods_that_are_awaited() -> None:
    class Plain:
        def load(self, *_: object) -> list[Dataset]:
            return []

        async def save(self, *_: object) -> None: ...
        async def remove(self, *_: object) -> None: ...

    @attrs.frozen
    class Whole:
        async def load(self, *_: object) -> list[Dataset]:
            return []

        async def save(self, *_: object) -> None: ...
        async def remove(self, *_: object) -> None: ...

    class Called:
        async def __call__(self, *_: object) -> None: ...

    wrong: Any
    for wrong in (Plain(), Whole, "steps", mock.Mock()):
        with pytest.raises(dimse.LocalProtocolError, match="load, save and remove are `async def`"):
            dimse.ProcedureSteps(wrong)
    for wrong in (Plain(), Whole, 5, mock.Mock()):
        with pytest.raises(dimse.HandlerError, match="load and save are `async def`"):
            dimse.PerformedProcedureSteps(wrong)
    awaited = {name: mock.AsyncMock() for name in ("load", "save", "remove")}
    called = dict.fromkeys(awaited, Called())
    fitting: Any
    for fitting in (Whole(), mock.Mock(**awaited), mock.Mock(**called)):
        dimse.ProcedureSteps(storage=fitting)
        dimse.PerformedProcedureSteps(fitting)


@pytest.mark.parametrize("option", ["max_steps", "max_subscribers", "retries"])
def test_the_numbers_of_procedure_steps_are_such(option: str) -> None:
    for wrong in (None, -1, 1.5):
        options: dict[str, Any] = {option: wrong}
        with pytest.raises(dimse.LocalProtocolError, match=option):
            dimse.ProcedureSteps(**options)
