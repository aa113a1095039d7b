"""One handler made of several: each request reaches the one that it is for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio.testing import associated_pair

from .performed_steps import UNSCHEDULED

CT = dimse.uid_of("CTImageStorage")
WORKLIST = dimse.uid_of("ModalityWorklistInformationModelFind")
FILM_SESSION = dimse.uid_of("BasicFilmSession")
GRAYSCALE_PRINT = dimse.uid_of("BasicGrayscalePrintManagementMeta")
COMMITMENT = dimse.uid_of("StorageCommitmentPushModel")
CONTEXTS = [
    *dimse.default_contexts()[:7],
    dimse.PresentationContext(WORKLIST),
    dimse.PresentationContext(CT),
    dimse.PresentationContext(GRAYSCALE_PRINT),
    dimse.PresentationContext(dimse.uid_of("ModalityPerformedProcedureStep")),
    dimse.PresentationContext(dimse.uid_of("InstanceAvailabilityNotification")),
    *dimse.commitment_contexts(),
    *dimse.procedure_step_contexts(),
]


def named(name: str) -> Dataset:
    match = Dataset()
    match.PatientName = name
    return match


class Worklist(dimse.EchoSCP):
    query_sop_classes = (WORKLIST,)

    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        yield named("scheduled")


class Pacs:
    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        yield named("stored")

    async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
        return dimse.Status.SUCCESS


class Printer:
    normalized_sop_classes = (GRAYSCALE_PRINT,)

    async def handle_n_create(self, request: dimse.NCreateRequest) -> dimse.Reply:
        return dimse.Reply(comment="printer")

    async def handle_n_get(self, request: dimse.NGetRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    handle_n_set = handle_n_action = handle_n_delete = handle_n_get


@attrs.define
class Notices(dimse.AvailabilityListener):
    taken: list[dimse.AvailabilityNotice] = attrs.field(factory=list)

    async def available(self, notice: dimse.AvailabilityNotice) -> None:
        self.taken.append(notice)


class Vault(dimse.StorageCommitmentProvider):
    async def committed(self, reference: dimse.SOPReference) -> dimse.FailureReason | None:
        return None


@asynccontextmanager
async def connected(handler: object, sockets: bool) -> AsyncGenerator[dimse.Association]:
    """An association with a handler, over memory streams or over TCP."""
    if not sockets:
        async with associated_pair(handler, contexts=CONTEXTS) as association:
            yield association
        return
    async with dimse.open_server(handler) as server:
        async with dimse.open_association(
            "127.0.0.1", server.port, contexts=CONTEXTS, calling_ae_title="STATION"
        ) as association:
            yield association
        await server.stop(grace=5)


@pytest.mark.parametrize("sockets", [False, True], ids=["memory", "sockets"])
async def test_each_request_reaches_the_handler_of_its_class(sockets: bool) -> None:
    notices = Notices()
    steps = dimse.PerformedProcedureSteps()
    async with dimse.ProcedureSteps() as scheduled:
        handler = dimse.Handlers(Pacs(), Worklist(), Printer(), steps, scheduled, notices, Vault())
        async with connected(handler, sockets) as association:
            refused = {each.abstract_syntax for each in association.negotiated.refused}
            assert {dimse.uid_name(uid)[-4:] for uid in refused} == {"Move", "lGet"}
            assert (await association.echo()).status == 0
            assert [match.PatientName for match in await association.find_studies()] == ["stored"]
            assert [match.PatientName for match in await association.find_worklist()] == [
                "scheduled"
            ]
            created = await association.n_create(FILM_SESSION, None, Dataset())
            assert created.response.error_comment == "printer"
            step = await association.create_performed_step(**UNSCHEDULED)
            assert step.uid
            ups = dimse.UnifiedProcedureSteps(association)
            uid = await ups.create("Step")
            assert [found.SOPInstanceUID for found in await ups.find()] == [uid]
            async with ups.watch(uid) as events:
                assert (await anext(events)).state is dimse.StepState.SCHEDULED
            reference = dimse.SOPReference(CT, "1.2.3")
            async with association.commit([reference]) as commitment:
                assert (await commitment.wait()).committed == (reference,)
            notice = dimse.AvailabilityNotice(
                "1.2",
                {
                    "1.2.3": (
                        dimse.AvailableInstance(
                            reference, dimse.InstanceAvailability.ONLINE, "PACS"
                        ),
                    )
                },
            )
            await association.notify_availability(notice)
    assert notices.taken == [notice]


async def test_a_class_that_none_is_for_is_not_offered() -> None:
    contexts = [dimse.PresentationContext(uid) for uid in (WORKLIST, COMMITMENT, CT)]
    async with associated_pair(dimse.Handlers(Vault()), contexts=contexts) as association:
        accepted = [c.abstract_syntax for c in association.negotiated.accepted.values()]
    assert accepted == [COMMITMENT]


@attrs.define
class Admitting(dimse.EchoSCP):
    """Admits those titles, to those classes."""

    titles: set[str]
    classes: tuple[str, ...] | None = None
    left: int = 0

    @asynccontextmanager
    async def handle_association(
        self, request: dimse.AssociationRequest
    ) -> AsyncGenerator[dimse.Admission | None]:
        if request.calling_ae_title not in self.titles:
            raise dimse.Reject
        yield None if self.classes is None else dimse.Admission(abstract_syntaxes=self.classes)
        self.left += 1


async def test_an_association_is_admitted_by_all_or_not_at_all() -> None:
    first, second = Admitting({"A", "B"}), Admitting({"B"}, (CT, WORKLIST))
    third = Admitting({"B"}, (CT,))
    handler = dimse.Handlers(first, second, third, Pacs(), Worklist())
    with pytest.raises(dimse.AssociationRejected):
        async with associated_pair(handler, contexts=CONTEXTS, calling_ae_title="A"):
            pass
    async with associated_pair(handler, contexts=CONTEXTS, calling_ae_title="B") as association:
        accepted = [c.abstract_syntax for c in association.negotiated.accepted.values()]
        assert accepted == [CT]
    assert (first.left, second.left, third.left) == (1, 1, 1)


@pytest.mark.parametrize(
    ("handlers", "message"),
    [
        ((Pacs(), Pacs()), "PatientRootQuery"),
        ((Worklist(), dimse.WorklistFolder(".")), "both be the SCP of ModalityWorklist"),
        ((Vault(), Vault()), "StorageCommitmentPushModel"),
        ((dimse.StepEvents(), dimse.StepEvents()), "told the events of"),
        ((Pacs(), object()), "no handle_"),
        ((Pacs,), "is a class"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(handlers: tuple[object, ...], message: str) -> None:
    with pytest.raises(dimse.HandlerError, match=message):
        dimse.Handlers(*handlers)


class Mixed(dimse.WorklistFolder, dimse.PerformedProcedureSteps):
    """Both are for one attribute each: nothing is hidden."""

    def __init__(self) -> None:
        dimse.WorklistFolder.__init__(self, ".")
        dimse.PerformedProcedureSteps.__init__(self)


class Hiding(dimse.PerformedProcedureSteps, Notices):
    pass


class Saying(Hiding):
    normalized_sop_classes = (*Notices.normalized_sop_classes,)


async def test_a_class_of_two_bases_says_itself_what_it_is_for() -> None:
    with pytest.raises(dimse.HandlerError, match=r"Handlers\(PerformedProcedureSteps"):
        async with dimse.open_server(Hiding()):
            pass
    for handler in (Mixed(), Saying()):
        async with dimse.open_server(handler) as server:
            await server.stop()


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (dimse.ProcedureSteps(), "in its block"),
        (dimse.WorklistFolder(Path("no/such/folder")), "no folder"),
        (dimse.AvailabilityListener(), "available"),
        (dimse.StorageCommitmentProvider(), "committed"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("among_others", [False, True])
async def test_what_cannot_serve_says_so_before_anybody_is_listened_to(
    handler: object, message: str, among_others: bool
) -> None:
    served = dimse.Handlers(Pacs(), handler) if among_others else handler
    with pytest.raises((dimse.HandlerError, dimse.LocalProtocolError), match=message):
        async with dimse.open_server(served):
            pass


def test_a_store_that_is_a_path_is_refused() -> None:
    with pytest.raises(dimse.HandlerError, match="PerformedStepFolder"):
        dimse.PerformedProcedureSteps(Path("steps"))  # type: ignore[arg-type]


async def test_handlers_that_query_are_for_patients_and_studies_unless_they_say_more() -> None:
    contexts = [*dimse.default_contexts()[:7], dimse.PresentationContext(WORKLIST)]
    async with associated_pair(Pacs(), contexts=contexts) as association:
        offered = {c.abstract_syntax for c in association.negotiated.accepted.values()}
    finds = (f"{root}RootQueryRetrieveInformationModelFind" for root in ("Patient", "Study"))
    assert offered == {dimse.uid_of(find) for find in finds}


class TwoBases(dimse.WorklistFolder, dimse.PerformedProcedureSteps):
    """The first base's `__init__` leaves the other's out."""


class OwnInit(dimse.PerformedProcedureSteps):
    def __init__(self) -> None:
        self.mine = True


class BothInits(TwoBases):
    def __init__(self, folder: Path) -> None:
        dimse.WorklistFolder.__init__(self, folder)
        dimse.PerformedProcedureSteps.__init__(self)


async def test_a_base_class_that_has_not_been_initialized_is_refused(tmp_path: Path) -> None:
    advice = (
        r"TwoBases has not been through PerformedProcedureSteps\.__init__: .*"
        r"Handlers\(WorklistFolder\(…\), PerformedProcedureSteps\(…\)\)"
    )
    with pytest.raises(dimse.HandlerError, match=advice):
        async with dimse.open_server(TwoBases(tmp_path)):
            pass
    with pytest.raises(dimse.HandlerError, match=r"call it in the __init__ of OwnInit$"):
        dimse.Handlers(OwnInit())
    async with dimse.open_server(BothInits(tmp_path)):
        pass


@attrs.frozen
class _Unready:
    async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
        return dimse.Status.SUCCESS

    def check_ready(self) -> None:
        raise dimse.HandlerError("not today")


async def test_a_handler_of_ones_own_may_say_that_it_is_not_ready() -> None:
    with pytest.raises(dimse.HandlerError, match="not today"):
        async with dimse.open_server(_Unready()):
            pass


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (WORKLIST, "collection"),
        (("ModalityWorklistInformationModelFind",), "no SOP Class UID"),
        ((CT,), "CTImageStorage has other services"),
        ((1,), "no SOP Class UID"),
    ],
)
@pytest.mark.parametrize("name", ["query_sop_classes", "normalized_sop_classes"])
async def test_what_a_handler_says_it_is_for_are_classes_that_it_could_be_for(
    name: str, classes: object, message: str
) -> None:
    handler = type("Odd", (Pacs,), {name: classes})()
    with pytest.raises(dimse.HandlerError, match=message):
        async with dimse.open_server(handler):
            pass


async def test_a_handler_is_asked_whether_it_is_ready_by_a_plain_function() -> None:
    class Asynchronous(Pacs):
        async def check_ready(self) -> None: ...

    with pytest.raises(dimse.HandlerError, match="plain `def`"):
        async with dimse.open_server(Asynchronous()):
            pass
    with pytest.raises(dimse.HandlerError, match="one at least"):
        dimse.Handlers()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"peers": [("TITLE", "host", 104)]}, "mapping"),
        ({"ssl_context": True}, "ssl_context is SSLContext, not bool"),
        ({"async_operations": 4}, "two numbers"),
        ({"async_operations": (4, "4")}, "two numbers"),
    ],
)
async def test_options_of_another_kind_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_server(Pacs(), **option):
            pass
    if "peers" not in option:
        with pytest.raises(dimse.LocalProtocolError, match=message):
            async with dimse.open_association("127.0.0.1", 104, **option):
                pass
