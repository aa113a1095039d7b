"""What instruments are told, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio.instruments import (
    AssociationEnd,
    AssociationInfo,
    AssociationRefusal,
    ConnectionEnd,
    Instrument,
    MessageInfo,
    OperationEnd,
    OperationInfo,
    OperationRole,
    PDUInfo,
    PDUType,
    Role,
    StateChange,
    WireData,
)
from dimse_trio.protocol.headers import PDUHeaders
from dimse_trio.testing import associated_pair

from .hospital import PATIENT_ID, STUDY_UID, Hospital, Keeping, all_operations, record


def ends(keeping: Keeping, *hooks: str) -> list[tuple[Any, ...]]:
    """Finished operations as name, role and status."""
    return [
        (end.operation.name, end.operation.role, end.status)
        for end in keeping.of(*(hooks or ("operation_finished", "sub_operation_finished")))
        if isinstance(end, OperationEnd)
    ]


async def test_an_echo_is_told_from_connection_to_connection() -> None:
    ours, theirs = Keeping(), Keeping()
    async with associated_pair(
        Hospital([]), instruments=[theirs], requestor_instruments=[ours]
    ) as a:
        await a.echo()
    for keeping, role in ((ours, Role.REQUESTOR), (theirs, Role.ACCEPTOR)):
        hooks = [hook for hook, _ in keeping.told if not hook.startswith(("bytes", "state"))]
        sent, received = ("sent", "received") if role is Role.REQUESTOR else ("received", "sent")
        assert hooks[0] == "connection_opened"
        assert hooks[1:4] == [f"pdu_{sent}", f"pdu_{received}", "association_opened"]
        assert set(hooks) >= {
            f"message_{sent}",
            f"message_{received}",
            "operation_started",
            "operation_finished",
        }
        assert hooks.index("operation_started") < hooks.index("operation_finished")
        assert hooks.index("operation_finished") < hooks.index("association_closed")
        assert hooks[-1] == "connection_closed"
        (association,) = keeping.of("association_opened")
        assert isinstance(association, AssociationInfo)
        assert association.connection.role is role
        assert (association.calling_ae_title, association.called_ae_title) == ("STATION", "ARCHIVE")
        (end,) = keeping.of("association_closed")
        assert isinstance(end, AssociationEnd)
        assert end.association is association
        assert end.released


async def test_pdus_are_told_by_type_and_length_and_their_bytes_add_up() -> None:
    ours = Keeping()
    async with associated_pair(Hospital([]), requestor_instruments=[ours]) as association:
        await association.echo()
    types = [(hook, pdu.pdu_type) for hook, pdu in ours.told if isinstance(pdu, PDUInfo)]
    assert types == [
        ("pdu_sent", PDUType.ASSOCIATE_RQ),
        ("pdu_received", PDUType.ASSOCIATE_AC),
        ("pdu_sent", PDUType.P_DATA_TF),
        ("pdu_received", PDUType.P_DATA_TF),
        ("pdu_sent", PDUType.RELEASE_RQ),
        ("pdu_received", PDUType.RELEASE_RP),
    ]
    (end,) = ours.of("connection_closed")
    assert isinstance(end, ConnectionEnd)
    for direction, total in (("sent", end.bytes_sent), ("received", end.bytes_received)):
        pdus = [pdu for pdu in ours.of(f"pdu_{direction}") if isinstance(pdu, PDUInfo)]
        assert sum(6 + pdu.length for pdu in pdus) == total
        wire = [data for data in ours.of(f"bytes_{direction}") if isinstance(data, WireData)]
        assert sum(len(data.data) for data in wire) == total


async def test_states_are_those_of_the_standard() -> None:
    ours, theirs = Keeping(), Keeping()
    async with associated_pair(Hospital([]), instruments=[theirs], requestor_instruments=[ours]):
        pass
    for keeping, states in (
        (ours, ["Sta4", "Sta5", "Sta6", "Sta7", "Sta1"]),
        (theirs, ["Sta2", "Sta3", "Sta6", "Sta8", "Sta13", "Sta1"]),
    ):
        changes = [c for c in keeping.of("state_changed") if isinstance(c, StateChange)]
        assert [change.after.value for change in changes] == states


async def test_messages_have_context_status_and_the_length_of_their_data_set(
    files: list[Path],
) -> None:
    ours = Keeping()
    async with associated_pair(Hospital(files), requestor_instruments=[ours]) as association:
        await association.find_studies(PatientID=PATIENT_ID)
    messages = [
        (hook.removeprefix("message_"), m.name, m.status, m.data_set_length is not None)
        for hook, m in ours.told
        if isinstance(m, MessageInfo)
    ]
    assert messages == [
        ("sent", "C-FIND-RQ", None, True),
        ("received", "C-FIND-RSP", 0xFF00, True),
        ("received", "C-FIND-RSP", 0x0000, False),
    ]
    assert all(m.data_set is None for m in ours.of("message_sent", "message_received"))  # type: ignore[attr-defined]


async def test_data_sets_are_given_to_who_asks_for_them_up_to_the_limit(files: list[Path]) -> None:
    asking, modest = Keeping(data_set_limit=1 << 16), Keeping(data_set_limit=16)
    async with associated_pair(
        Hospital(files), instruments=[modest], requestor_instruments=[asking]
    ) as association:
        await association.find_studies(PatientID=PATIENT_ID)
        await association.store(files[0])
    for message in asking.of("message_sent", "message_received"):
        assert isinstance(message, MessageInfo)
        if message.data_set_length is None:
            assert message.data_set is None
        else:
            assert message.data_set is not None
            assert len(message.data_set) == message.data_set_length
            assert PATIENT_ID.encode() in message.data_set
    assert all(m.data_set is None for m in modest.of("message_sent", "message_received"))  # type: ignore[attr-defined]


async def test_data_sets_are_given_to_nobody_else(files: list[Path]) -> None:
    all_of_them = Keeping(), Keeping(data_set_limit=16), Keeping(data_set_limit=1 << 16)
    async with associated_pair(
        Hospital(files), instruments=all_of_them, requestor_instruments=all_of_them
    ) as association:
        await association.find_studies(PatientID=PATIENT_ID)
        await association.store(files[0])
    given = [
        [m.data_set for m in each.of("message_sent", "message_received")]  # type: ignore[attr-defined]
        for each in all_of_them
    ]
    assert [any(data_sets) for data_sets in given] == [False, False, True]


async def test_operations_and_sub_operations_have_role_status_and_bytes(
    files: list[Path], tmp_path: Path
) -> None:
    ours, theirs = Keeping(), Keeping()
    async with associated_pair(
        Hospital(files), instruments=[theirs], requestor_instruments=[ours]
    ) as association:
        await all_operations(association, files, tmp_path / "got")
    named = ["C-ECHO", "C-FIND", "C-STORE", "C-STORE", "C-GET", "C-MOVE"]
    statuses = [0, 0, 0, 0xA700, 0, 0xA801]
    for keeping, role, other in (
        (ours, OperationRole.INVOKED, OperationRole.PERFORMED),
        (theirs, OperationRole.PERFORMED, OperationRole.INVOKED),
    ):
        assert ends(keeping, "operation_finished") == [
            (name, role, status) for name, status in zip(named, statuses, strict=True)
        ]
        assert ends(keeping, "sub_operation_finished") == [("C-STORE", other, 0)] * 2
        for end in keeping.of("sub_operation_finished"):
            assert isinstance(end, OperationEnd)
            assert end.operation.parent is not None
            assert end.operation.parent.name == "C-GET"
        started = keeping.of("operation_started", "sub_operation_started")
        finished = keeping.of("operation_finished", "sub_operation_finished")
        assert {id(o) for o in started} == {id(end.operation) for end in finished}  # type: ignore[attr-defined]
    find, store = (ours.of("operation_finished")[index] for index in (1, 2))
    assert isinstance(find, OperationEnd)
    assert isinstance(store, OperationEnd)
    assert (find.pending, find.bytes_sent > 0, find.bytes_received > 0) == (1, True, True)
    instance = dimse.Instance.from_file(files[0])
    assert (store.bytes_sent, store.bytes_received) == (instance.length, 0)


async def test_the_sub_operations_of_a_move_belong_to_it(files: list[Path]) -> None:
    theirs, destination = Keeping(), Keeping()
    async with dimse.open_server(Hospital([]), instruments=[destination]) as station:
        peers = {"STATION": ("127.0.0.1", station.port)}
        async with (
            dimse.open_server(Hospital(files), peers=peers, instruments=[theirs]) as server,
            dimse.open_association("127.0.0.1", server.port) as association,
        ):
            await association.move(
                dimse.query("STUDY", StudyInstanceUID=STUDY_UID), destination="STATION"
            )
    (move,) = theirs.of("operation_started")
    subs = theirs.of("sub_operation_finished")
    assert ends(theirs, "sub_operation_finished") == [("C-STORE", OperationRole.INVOKED, 0)] * 2
    assert all(isinstance(end, OperationEnd) and end.operation.parent is move for end in subs)
    parents = [a.parent for a in theirs.of("association_opened") if isinstance(a, AssociationInfo)]
    assert parents == [None, move]
    assert ends(destination) == [("C-STORE", OperationRole.PERFORMED, 0)] * 2


async def test_normalized_operations_are_operations() -> None:
    class Manager:
        async def handle_n_create(self, request: dimse.NCreateRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

        async def handle_n_set(self, request: dimse.NSetRequest) -> dimse.Status:
            return dimse.Status.SUCCESS

    step = dimse.uid_of("ModalityPerformedProcedureStep")
    ours, theirs = Keeping(), Keeping()
    async with associated_pair(
        Manager(),
        contexts=[dimse.PresentationContext(step)],
        instruments=[theirs],
        requestor_instruments=[ours],
    ) as association:
        await association.n_create(step, "1.2.3", record())
    for keeping in (ours, theirs):
        (end,) = keeping.of("operation_finished")
        assert isinstance(end, OperationEnd)
        assert (end.operation.name, end.operation.sop_class_uid) == ("N-CREATE", step)
        assert end.bytes_sent + end.bytes_received > 0
        assert PATIENT_ID not in repr(keeping.told)


async def test_what_a_handler_puts_in_context_variables_is_its_operation(
    files: list[Path],
) -> None:
    tasks: list[trio.lowlevel.Task] = []

    class Performing(Instrument):
        def operation_performing(self, operation: OperationInfo, /) -> None:
            tasks.append(trio.lowlevel.current_task())

    class Handler(Hospital):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            tasks.append(trio.lowlevel.current_task())
            return dimse.Status.SUCCESS

    async with associated_pair(Handler(files), instruments=[Performing()]) as association:
        await association.echo()
    assert tasks[0] is tasks[1]


async def test_a_cancelled_operation_says_so(files: list[Path], autojump_clock: object) -> None:
    class Endless(Hospital):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            await trio.sleep(3)
            return dimse.Status.SUCCESS

        async def handle_find(self, request: dimse.FindRequest) -> Any:
            await trio.sleep_forever()
            yield

    ours, theirs = Keeping(), Keeping()
    async with associated_pair(
        Endless(files), instruments=[theirs], requestor_instruments=[ours]
    ) as association:
        with trio.move_on_after(2):
            await association.find_studies(PatientID="1")
        with trio.move_on_after(1):  # a C-ECHO cannot be cancelled: it ends with its answer
            await association.echo()
        await trio.sleep(10)
    for keeping in (ours, theirs):
        find, echo = (end for end in keeping.of("operation_finished"))
        assert isinstance(find, OperationEnd)
        assert isinstance(echo, OperationEnd)
        assert (find.cancelled, find.status) == (True, dimse.Status.CANCEL)
        assert find.duration == pytest.approx(2)
        assert (echo.cancelled, echo.status) == (False, dimse.Status.SUCCESS)
        assert echo.duration == pytest.approx(3)


async def test_an_association_that_is_aborted_ends_its_operations(files: list[Path]) -> None:
    class Stuck(Hospital):
        async def handle_echo(self, request: dimse.EchoRequest) -> dimse.Status:
            await request.association.abort()
            return dimse.Status.SUCCESS

    ours, theirs = Keeping(), Keeping()
    with pytest.raises(dimse.AssociationAborted):
        async with associated_pair(
            Stuck(files), instruments=[theirs], requestor_instruments=[ours]
        ) as association:
            await association.echo()
    for keeping in (ours, theirs):
        (operation,), (association_end,) = (
            keeping.of("operation_finished"),
            keeping.of("association_closed"),
        )
        assert isinstance(operation, OperationEnd)
        assert isinstance(association_end, AssociationEnd)
        assert operation.status is None
        assert isinstance(operation.error, dimse.AssociationAborted)
        assert operation.error is association_end.error
        assert not association_end.released
        hooks = [hook for hook, _ in keeping.told]
        assert hooks.index("operation_finished") < hooks.index("association_closed")


async def test_a_rejection_is_told_to_both_sides() -> None:
    ours, theirs = Keeping(), Keeping()
    with pytest.raises(dimse.AssociationRejected):
        async with associated_pair(
            Hospital([]),
            ae_title="ELSEWHERE",
            instruments=[theirs],
            requestor_instruments=[ours],
        ):
            raise AssertionError
    for keeping in (ours, theirs):
        (refusal,) = keeping.of("association_rejected")
        assert isinstance(refusal, AssociationRefusal)
        assert (refusal.called_ae_title, refusal.result, refusal.source, refusal.reason) == (
            "ARCHIVE",
            1,
            1,
            7,
        )
        assert refusal.why.reason is dimse.RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED
        assert keeping.of("association_opened", "association_closed") == []
        assert [hook for hook, _ in keeping.told][-1] == "connection_closed"


async def test_an_association_without_contexts_is_opened_and_closed() -> None:
    ours = Keeping()
    with pytest.raises(dimse.ContextNotAccepted):
        async with associated_pair(
            Hospital([]),
            contexts=[dimse.PresentationContext("1.2.3.4")],
            requestor_instruments=[ours],
        ):
            raise AssertionError
    (end,) = ours.of("association_closed")
    assert isinstance(end, AssociationEnd)
    assert not end.released


async def test_a_remote_ae_takes_instruments_for_all_of_its_associations(
    files: list[Path], tmp_path: Path
) -> None:
    ours = Keeping()
    async with dimse.open_server(Hospital(files)) as server:
        remote = dimse.RemoteAE("PACS", "127.0.0.1", server.port, instruments=iter([ours]))
        await remote.echo()
        async with remote:
            await remote.store(files, jobs=2)
    names = [name for name, _, _ in ends(ours)]
    assert sorted(names) == ["C-ECHO", "C-STORE", "C-STORE"]
    assert len(ours.of("connection_closed")) == len(ours.of("connection_opened")) >= 2


async def test_connections_have_addresses_where_there_are_some() -> None:
    ours, theirs, memory = Keeping(), Keeping(), Keeping()
    async with dimse.open_server(Hospital([]), instruments=[theirs]) as server:
        async with dimse.open_association("127.0.0.1", server.port, instruments=[ours]):
            pass
        port = server.port
    (one,), (other,) = ours.of("connection_opened"), theirs.of("connection_opened")
    assert one.peer_address == other.local_address == ("127.0.0.1", port)  # type: ignore[attr-defined]
    assert one.local_address == other.peer_address  # type: ignore[attr-defined]
    async with associated_pair(Hospital([]), requestor_instruments=[memory]):
        pass
    (third,) = memory.of("connection_opened")
    assert third.local_address is third.peer_address is None  # type: ignore[attr-defined]


def test_pdus_are_found_in_bytes_that_are_cut_anywhere() -> None:
    stream = bytes.fromhex("0400 00000003 0102030500 00000004 000000000700 00000000")
    whole = [(PDUType.P_DATA_TF, 3), (PDUType.RELEASE_RQ, 4), (PDUType.ABORT, 0)]
    for size in range(1, len(stream) + 1):
        headers = PDUHeaders()
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        assert [pdu for piece in pieces for pdu in headers.feed_untrusted(piece)] == whole
    assert list(PDUHeaders().feed_untrusted(b"GET / HTTP/1.1\r\n\r\n" + stream)) == []


async def test_what_was_negotiated_is_one_line_and_as_text_all_of_it(files: list[Path]) -> None:
    async with associated_pair(Hospital(files)) as association:
        negotiated = association.negotiated
    short, whole = repr(negotiated), str(negotiated).splitlines()
    proposed = len(negotiated.accepted) + len(negotiated.refused)
    assert f"'STATION' -> 'ARCHIVE' {len(negotiated.accepted)} of {proposed} contexts" in short
    assert len(short) < 200
    assert whole[0] == short
    assert len(whole) == 1 + proposed
    assert any(line.endswith(": accepted as SCU") for line in whole)
    assert any(line.endswith(": accepted as SCU and SCP") for line in whole)
