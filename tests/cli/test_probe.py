"""`dimse-trio probe`: what it finds out, and what it says to change."""

from __future__ import annotations

import csv
import io
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme
from cryptography import x509

import dimse_trio as dimse
from dimse_trio.cli.advice import advise
from dimse_trio.cli.certificate import read_certificate
from dimse_trio.cli.options import Client
from dimse_trio.cli.peers import TLSOptions, find_peer
from dimse_trio.cli.receiver import Receiver
from dimse_trio.testing import dcmtk as programs

from .program import Ended, Keeper, run, served

CT, MR = map(dimse.uid_of, ("CTImageStorage", "MRImageStorage"))
IMPLICIT, EXPLICIT, RLE = map(
    dimse.uid_of, ("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "RLELossless")
)
VERIFICATION = dimse.uid_of("Verification")


def classes_of(ended: Ended) -> dict[str, dict[str, Any]]:
    """What is said of each SOP class."""
    (found,) = ended.objects
    return {each["sop_class_uid"]: each for each in found["sop_classes"]}


def accepted_in(each: dict[str, Any]) -> list[str]:
    return [s["transfer_syntax_uid"] for s in each["transfer_syntaxes"] if s["result"] == 0]


# -- what a peer accepts ---------------------------------------------------------------------------


async def test_each_class_and_transfer_syntax_has_its_own_answer(tmp_path: Path) -> None:
    contexts = [
        dimse.PresentationContext(VERIFICATION),
        dimse.PresentationContext(CT, (EXPLICIT, RLE), scp=True),
        dimse.PresentationContext(MR, (IMPLICIT,)),
    ]
    async with served(Keeper(tmp_path), contexts=contexts) as peer:
        ended = await run("probe", *peer, "--json")
    classes = classes_of(ended.check_done())
    assert {uid for uid, each in classes.items() if each["accepted"]} == {VERIFICATION, CT, MR}
    assert accepted_in(classes[CT]) == [EXPLICIT, RLE]
    assert accepted_in(classes[MR]) == [IMPLICIT]
    assert (classes[CT]["scp_role"], classes[MR]["scp_role"]) == ("accepted", "accepted")
    meanings = {s["meaning"] for s in classes[MR]["transfer_syntaxes"]}
    assert meanings == {"acceptance", "transfer syntaxes not supported"}
    other = classes[dimse.uid_of("UltrasoundImageStorage")]
    assert {s["result"] for s in other["transfer_syntaxes"]} == {3}
    (found,) = ended.objects
    assert found["associations"] > 10
    assert (found["error"], found["hints"], found["tls"]) == (None, [], None)
    assert found["implementation_version_name"].startswith("DIMSETRIO")
    assert found["max_pdu_length"] == 1 << 17
    assert found["window"] == {"invoked": 1, "performed": 1}
    assert found["echo"]["status"] == 0
    assert found["echo"]["milliseconds"] > 0


class OneAtMost(dimse.EchoSCP):
    """Accepts one association, and leaves others without an answer."""

    def __init__(self) -> None:
        self._busy = False

    @asynccontextmanager
    async def handle_association(self, association: dimse.Association) -> AsyncGenerator[None]:
        if self._busy:
            await trio.sleep_forever()
        self._busy = True
        yield


async def test_what_was_found_out_is_said_when_the_time_is_over() -> None:
    async with served(OneAtMost()) as peer:
        ended = await run("probe", *peer, "--timeout", 3, "--json")
    ended.check(5, "timed out")
    (found,) = ended.objects
    assert found["echo"]["status"] == 0


async def test_only_what_is_asked_for_is_proposed(tmp_path: Path) -> None:
    proposed: set[tuple[str, tuple[str, ...]]] = set()
    most: list[int] = []

    class Watching(Keeper):
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            assert request.message is not None
            most.append(len(request.message.contexts))
            for context in request.message.contexts:
                proposed.add((context.abstract_syntax, context.transfer_syntaxes))
            yield

    async with served(Watching(tmp_path)) as peer:
        ended = await run(
            *("probe", *peer, "--json", "--max-contexts", 3, "--sop-class", "CT"),
            *("--sop-class", "1.2.3.4", "--transfer-syntax", "RLELossless"),
            *("--transfer-syntax", EXPLICIT, "--set", "verification"),
        )
    ended.check(1, "the peer does not accept 1.2.3.4")
    assert list(classes_of(ended)) == [CT, "1.2.3.4", VERIFICATION]
    alone = {
        (uid, (syntax,)) for uid in (CT, "1.2.3.4", VERIFICATION) for syntax in (RLE, EXPLICIT)
    }
    usual = dimse.PresentationContext(VERIFICATION).transfer_syntaxes
    assert proposed == alone | {(VERIFICATION, usual)}
    assert max(most) == 3


async def test_for_people_what_is_not_accepted_is_counted(tmp_path: Path) -> None:
    async with served(Keeper(tmp_path)) as peer:
        text = (await run("probe", *peer, "--aet", "US")).check_done().stdout
    assert text.startswith(f"peer:           KEEPER at {peer[0]}, connected in ")
    lines = text.splitlines()
    assert "TLS:            none" in lines
    assert "association:    accepted, for US" in lines
    assert any(line.startswith("CTImageStorage ") and " all 19 " in line for line in lines)
    assert lines[-1].endswith(" SOP classes: abstract syntax not supported (--csv names them)")


async def test_as_values_each_pair_is_a_line(tmp_path: Path) -> None:
    async with served(Receiver(tmp_path)) as peer:
        ended = await run("probe", *peer, "--csv", "--sop-class", CT, "--transfer-syntax", RLE)
    (row,) = csv.DictReader(io.StringIO(ended.check_done().stdout))
    assert (row["sop_class"], row["transfer_syntax"]) == ("CTImageStorage", "RLELossless")
    assert (row["result"], row["meaning"], row["scp_role"]) == ("0", "acceptance", "refused")


async def test_a_peer_that_takes_nothing_at_all_is_still_described() -> None:
    class Worklist:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncGenerator[Any]:
            yield None

    contexts = [dimse.PresentationContext("1.2.3")]
    async with served(Worklist(), contexts=contexts) as peer:
        ended = await run("probe", *peer, "--sop-class", "CT", "--json")
    ended.check(4, "none of the presentation contexts")
    (found,) = ended.objects
    assert found["implementation_version_name"].startswith("DIMSETRIO")
    assert found["echo"] is None
    assert "takes no C-ECHO" in found["hints"][0]
    assert {s["result"] for s in classes_of(ended)[CT]["transfer_syntaxes"]} == {3}


@pytest.mark.parametrize("looked_at", [True, False])
async def test_whether_the_user_identity_is_looked_at(tmp_path: Path, looked_at: bool) -> None:
    class Careful(Keeper):
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[dimse.Admission | None]:
            yield dimse.Admission(user_identity_response=b"") if looked_at else None

    async with served(Careful(tmp_path)) as peer:
        ended = await run("probe", *peer, "--set", "verification", "--user", "jane", "--json")
    (found,) = ended.check_done().objects
    assert found["user_identity"] == ("accepted" if looked_at else "not looked at by the peer")


@attrs.define
class Particular(Keeper):
    """Rejects associations that it does not like."""

    dislikes: Callable[[dimse.AssociationRequest], bool] = lambda _: False

    @asynccontextmanager
    async def handle_association(self, request: dimse.AssociationRequest) -> AsyncGenerator[None]:
        if self.dislikes(request):
            raise dimse.Reject
        yield


def many_contexts(request: dimse.AssociationRequest) -> bool:
    return len(request.abstract_syntaxes) > 64


def a_window(request: dimse.AssociationRequest) -> bool:
    message = request.message
    return message is not None and message.user_information.asynchronous_operations is not None


def roles(request: dimse.AssociationRequest) -> bool:
    return request.message is not None and bool(request.message.user_information.roles)


@pytest.mark.parametrize(
    ("dislikes", "hint"),
    [
        (many_contexts, "try --max-contexts with fewer"),
        (a_window, "do not propose one to this peer"),
        (roles, "C-GET, which needs it, will not work"),
    ],
)
async def test_what_only_some_associations_fail_by_is_a_hint(
    dislikes: Callable[[dimse.AssociationRequest], bool], hint: str, tmp_path: Path
) -> None:
    async with served(Particular(tmp_path, dislikes=dislikes)) as peer:
        ended = await run("probe", *peer, "--set", "storage", "--json")
        fewer = await run(
            *("probe", *peer, "--set", "storage", "--transfer-syntax", RLE, "--json"),
            *("--max-contexts", 60),
        )
    assert any(hint in each for each in ended.check_done().objects[0]["hints"])
    assert classes_of(ended)[CT]["accepted"] == (dislikes is not many_contexts)
    assert classes_of(fewer)[CT]["accepted"]
    if dislikes is many_contexts:
        assert fewer.objects[0]["hints"] == []
        (meaning, *_) = (s["meaning"] for s in classes_of(ended)[CT]["transfer_syntaxes"])
        assert meaning.startswith("not answered: association rejected")


@pytest.mark.interop
async def test_storescp_and_dcmqrscp_are_described(dcmtk: Any, tmp_path: Path) -> None:
    asked = ("--sop-class", "CT", "--json")
    async with dcmtk.storescp(tmp_path / "scp", accept=["+xr"]) as storescp:
        store = await run("probe", f"127.0.0.1:{storescp.port}", *asked)
    async with dcmtk.dcmqrscp(tmp_path / "qr") as archive:
        find = await run(
            *("probe", f"127.0.0.1:{archive.port}", "--aec", "DCMQRSCP", "--set", "query"), *asked
        )
        wrong = await run("probe", f"127.0.0.1:{archive.port}", "--aec", "OTHER")
    (found,) = store.check_done().objects
    assert found["implementation_version_name"].startswith("OFFIS_DCMTK")
    assert found["window"] is None
    assert RLE in accepted_in(classes_of(store)[CT])
    assert classes_of(find.check_done())[dimse.uid_of("StudyRootQueryRetrieveInformationModelGet")][
        "accepted"
    ]
    wrong.check(4, "called ae title not recognized")
    assert "hint: --aec TITLE: " in wrong.stdout


# -- what to change --------------------------------------------------------------------------------


def rejecting(reason: dimse.RejectReason) -> object:
    class Rejecting:
        @asynccontextmanager
        async def handle_association(
            self, request: dimse.AssociationRequest
        ) -> AsyncGenerator[None]:
            raise dimse.Reject(reason)
            yield

    return Rejecting()


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        (dimse.RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED, "it is not 'KEEPER'"),
        (dimse.RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED, "have 'US' and this machine's"),
        (dimse.RejectReason.NO_REASON_GIVEN, "the peer gives no reason"),
        (dimse.RejectReason.PROVIDER_NO_REASON_GIVEN, "it may want a --user, or another"),
        (dimse.RejectReason.LOCAL_LIMIT_EXCEEDED, "try again later"),
    ],
)
async def test_a_rejection_has_a_hint(reason: dimse.RejectReason, hint: str) -> None:
    async with served(rejecting(reason)) as peer:
        ended = await run("probe", *peer, "--aet", "US", "--json")
    ended.check(4, "association rejected")
    (found,) = ended.objects
    assert hint in found["hints"][0]
    assert found["error"].startswith("association rejected")
    assert found["sop_classes"] == []


async def test_nobody_listening_has_a_hint() -> None:
    ended = await run("probe", f"127.0.0.1:{programs.free_port()}")
    ended.check(3, "Connection refused")
    assert "hint: nothing listens at 127.0.0.1" in ended.stdout


@asynccontextmanager
async def answering(data: bytes | None) -> AsyncGenerator[str]:
    """A peer that answers these bytes and closes, or says nothing at all; its address."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if data is not None:
                await stream.send_all(data)
                return
            while await stream.receive_some():
                pass

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_connections_and_says_nothing_has_a_hint() -> None:
    async with answering(None) as address:
        client = Client(
            peer=find_peer(address, None),
            called_ae_title="X",
            calling_ae_title="US",
            timeout=None,
            timeouts=dimse.Timeouts(connect=0.2),
            max_pdu_length=None,
            ssl_context=None,
            tls=TLSOptions(),
            user_identity=None,
        )
        late = dimse.AssociationTimeout("no answer")
        silent = await advise(late, client, connected=True)
        unreachable = await advise(late, client, connected=False)
    assert silent is not None
    assert silent.startswith(f"{address} takes connections and does not answer")
    assert unreachable is not None
    assert unreachable.startswith(f"{address} cannot be reached")


async def test_what_is_no_dicom_application_has_a_hint() -> None:
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        ended = await run("probe", address)
    ended.check(4)
    assert "hint: the peer broke off: it may not be a DICOM application" in ended.stdout


# -- TLS -------------------------------------------------------------------------------------------


async def test_tls_is_described(pem: dict[str, Path], tmp_path: Path) -> None:
    tls = dimse.tls_profile(server=True, certificate=pem["server"])
    asked = ("--set", "verification")
    async with served(Keeper(tmp_path), ssl_context=tls) as peer:
        trusted = await run("probe", *peer, *asked, "--tls-ca", pem["ca"], "--json")
        unchecked = await run("probe", *peer, *asked, "--tls-insecure", "--json")
        text = await run("probe", *peer, *asked, "--tls-insecure")
        untrusted = await run("probe", *peer, *asked, "--tls", "--json")
        plain = await run("probe", *peer, *asked, "--json")
    (found,) = trusted.check_done().objects
    assert (found["tls"]["version"], found["tls"]["verified"]) == ("TLSv1.3", True)
    assert found["tls"]["cipher"].startswith("TLS_")
    certificate = found["tls"]["certificate"]
    assert certificate["subject"].startswith("O=trustme")
    assert certificate["current"]
    assert datetime.fromisoformat(certificate["not_after"]) > datetime.now(UTC)
    assert unchecked.check_done().objects[0]["tls"] == found["tls"] | {"verified": False}
    assert "certificate not verified" in text.check_done().stdout
    untrusted.check(3, "certificate verify failed")
    assert untrusted.objects[0]["tls"]["certificate"] == certificate
    assert "--tls-ca FILE" in untrusted.objects[0]["hints"][0]
    plain.check(4)
    assert "the port speaks TLS: give --tls" in plain.objects[0]["hints"][0]


async def test_tls_to_a_peer_without_has_a_hint(tmp_path: Path) -> None:
    async with served(Keeper(tmp_path)) as peer:
        ended = await run("probe", *peer, "--tls", "--json")
    ended.check(3, "no TLS connection")
    assert "the port speaks DICOM without TLS" in ended.objects[0]["hints"][0]


async def test_mutual_tls_without_a_certificate_has_a_hint(
    pem: dict[str, Path], tmp_path: Path
) -> None:
    tls = dimse.tls_profile(server=True, certificate=pem["server"], ca=pem["ca"])
    options = ("--set", "verification", "--json", "--tls-ca", pem["ca"])
    async with served(Keeper(tmp_path), ssl_context=tls) as peer:
        without = await run("probe", *peer, *options)
        (await run("probe", *peer, *options, "--tls-cert", pem["client"])).check_done()
    assert without.code in (3, 4)
    assert "--tls-cert FILE" in without.objects[0]["hints"][0]


async def test_tls_that_cannot_be_agreed_on_has_a_hint(
    pem: dict[str, Path], tmp_path: Path
) -> None:
    tls = dimse.tls_profile(server=True, certificate=pem["server"])
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # and the key is of another kind
    async with served(Keeper(tmp_path), ssl_context=tls) as peer:
        ended = await run("probe", *peer, "--tls-ca", pem["ca"], "--json")
    ended.check(3, "no TLS connection")
    assert "TLS cannot be agreed on" in ended.objects[0]["hints"][0]


def test_a_certificate_is_read_without_being_trusted() -> None:
    authority = trustme.CA(organization_name="Hôpital", organization_unit_name="Rädiologie")
    start, end = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2055, 6, 7, 8, 9, tzinfo=UTC)
    leaf = authority.issue_cert(
        "pacs.example", common_name="PACS", not_before=start, not_after=end
    ).cert_chain_pems[0]
    der = ssl.PEM_cert_to_DER_cert(leaf.bytes().decode())
    read = read_certificate(der)
    assert read is not None
    assert "CN=PACS" in read.subject
    assert read.issuer == "O=Hôpital, OU=Rädiologie"
    assert (read.not_before, read.not_after, read.is_current) == (start, end, True)
    assert x509.load_der_x509_certificate(der).not_valid_after_utc == end
    for length in range(len(der)):
        cut = read_certificate(der[:length])
        assert cut is None or cut == read
