"""Seeds for the targets: what our own encoder writes, and what pynetdicom and pydicom write.

`python fuzz/make_corpus.py FOLDER` fills FOLDER/decode_pdu, FOLDER/command_set and
FOLDER/server_core, one file a seed, named by its content.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import attrs
from pydicom.dataset import Dataset
from pynetdicom import dimse_messages, dimse_primitives, pdu, pdu_primitives
from pynetdicom.dsutils import encode as encode_data_set
from pynetdicom.presentation import build_context

from dimse_trio.protocol.elements import ELEMENTS
from dimse_trio.protocol.encode import encode_pdu
from dimse_trio.protocol.messages import (
    MESSAGES,
    CCancelRQ,
    CEchoRQ,
    CEchoRSP,
    CFindRQ,
    CFindRSP,
    CStoreRQ,
    Message,
    encode_command,
)
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
    UnknownItem,
    UserIdentity,
    UserInformation,
)

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

FULL = UserInformation(
    maximum_length=16384,
    implementation_class_uid="1.2.3",
    implementation_version_name="SEED",
    asynchronous_operations=AsynchronousOperations(0, 5),
    roles=(RoleSelection(CT, True, True),),
    sop_class_extended=(SOPClassExtended(FIND, b"\1\0\1"),),
    sop_class_common_extended=(SOPClassCommonExtended(CT, "1.2.840.10008.4.2", ("1.2", "1.3")),),
    user_identity=UserIdentity(2, b"user", b"secret", True),
    unknown=(UnknownItem(0x5A, b"?"),),
)
RQ = AssociateRQ(
    called_ae_title="ARCHIVE",
    calling_ae_title="SEED",
    contexts=(
        ProposedContext(1, VERIFICATION, (IMPLICIT,)),
        ProposedContext(3, CT, (IMPLICIT, EXPLICIT)),
        ProposedContext(5, FIND, (IMPLICIT,)),
    ),
    user_information=FULL,
    unknown=(UnknownItem(0x77, b"!!"),),
)
AC = AssociateAC(
    called_ae_title="ARCHIVE",
    calling_ae_title="SEED",
    results=(ContextResult(1, 0, IMPLICIT), ContextResult(3, 4, None)),
    user_information=attrs.evolve(
        FULL, user_identity=None, user_identity_response=b"ticket", unknown=()
    ),
)

TEXT = {"UI": "1.2.3.4", "AE": "TITLE", "LO": "a comment", "US": 7, "AT": (0x00100010, 0x0020000D)}


def messages() -> Iterator[Message]:
    """One message of each class with every element, and one with no more than it must have."""
    for kind in MESSAGES.values():
        fields = [field for field in attrs.fields(kind) if "element" in field.metadata]
        values = {field.name: TEXT[field.metadata["element"].vr] for field in fields}
        yield kind(**values)
        yield kind(**{f.name: values[f.name] for f in fields if f.default is attrs.NOTHING})


def message_pdus(context_id: int, message: Message, data: bytes | None = None) -> list[PDU]:
    """The PDUs of a message."""
    command = encode_command(message, has_data_set=data is not None)
    made: list[PDU] = [PDataTF((PDV(context_id, True, True, command),))]
    if data is not None:
        half = len(data) // 2
        made.append(PDataTF((PDV(context_id, False, False, data[:half]),)))
        made.append(PDataTF((PDV(context_id, False, True, data[half:]),)))
    return made


def own_pdus() -> Iterator[bytes]:
    """Every PDU as our encoder writes it."""
    bare = UserInformation(maximum_length=0)
    several = PDataTF((PDV(1, True, True, b"abcd"), PDV(3, False, False, b"")))
    for value in (
        RQ,
        attrs.evolve(RQ, contexts=(), user_information=bare, unknown=()),
        AC,
        attrs.evolve(AC, results=(), user_information=bare),
        AssociateRJ(1, 3, 2),
        several,
        PDataTF(()),
        *message_pdus(1, CEchoRQ(message_id=1)),
        ReleaseRQ(),
        ReleaseRP(),
        Abort(2, 6),
    ):
        yield encode_pdu(value)


def identifier() -> Dataset:
    """A query, as pydicom has it."""
    data_set = Dataset()
    data_set.QueryRetrieveLevel = "STUDY"
    data_set.PatientName = "SEED*"
    data_set.StudyInstanceUID = ""
    return data_set


def their_associate() -> pdu_primitives.A_ASSOCIATE:
    """A request as pynetdicom's application makes it."""
    primitive = pdu_primitives.A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title, primitive.called_ae_title = "PYNETDICOM", "ARCHIVE"
    contexts = [
        build_context(uid, [IMPLICIT, EXPLICIT]) for uid in (VERIFICATION, CT, FIND, "1.2.3.4")
    ]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    maximum = pdu_primitives.MaximumLengthNotification()
    maximum.maximum_length_received = 16382
    implementation = pdu_primitives.ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    role = pdu_primitives.SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CT, True, True
    primitive.user_information = [maximum, implementation, role]
    return primitive


def their_primitives() -> Iterator[tuple[Any, Any]]:
    """DIMSE messages as pynetdicom makes them: message and filled primitive."""
    echo = dimse_primitives.C_ECHO()
    echo.MessageID, echo.AffectedSOPClassUID = 7, VERIFICATION
    yield dimse_messages.C_ECHO_RQ(), echo
    store = dimse_primitives.C_STORE()
    store.MessageID, store.AffectedSOPClassUID, store.Priority = 8, CT, 2
    store.AffectedSOPInstanceUID = "1.2.3"
    store.MoveOriginatorApplicationEntityTitle, store.MoveOriginatorMessageID = "MOVER", 3
    store.DataSet = BytesIO(encode_data_set(identifier(), True, True) or b"")
    yield dimse_messages.C_STORE_RQ(), store
    find = dimse_primitives.C_FIND()
    find.MessageID, find.AffectedSOPClassUID, find.Priority = 9, FIND, 1
    find.Identifier = BytesIO(encode_data_set(identifier(), True, True) or b"")
    yield dimse_messages.C_FIND_RQ(), find
    cancel = dimse_primitives.C_CANCEL()
    cancel.MessageIDBeingRespondedTo = 9
    yield dimse_messages.C_CANCEL_RQ(), cancel
    moved = dimse_primitives.C_MOVE()
    moved.MessageIDBeingRespondedTo, moved.AffectedSOPClassUID, moved.Status = 3, FIND, 0xFF00
    moved.NumberOfRemainingSuboperations, moved.NumberOfCompletedSuboperations = 4, 1
    moved.NumberOfFailedSuboperations = moved.NumberOfWarningSuboperations = 0
    yield dimse_messages.C_MOVE_RSP(), moved
    action = dimse_primitives.N_ACTION()
    action.MessageID, action.RequestedSOPClassUID, action.ActionTypeID = 11, "1.2.840.1.1", 1
    action.RequestedSOPInstanceUID = "1.2.3"
    yield dimse_messages.N_ACTION_RQ(), action


def their_pdus() -> Iterator[bytes]:
    """PDUs as pynetdicom writes them: an association's, and its DIMSE messages'."""
    associate = pdu.A_ASSOCIATE_RQ()
    associate.from_primitive(their_associate())
    yield associate.encode()
    release = pdu.A_RELEASE_RQ()
    yield release.encode()
    context = {"C_ECHO_RQ": 1, "C_STORE_RQ": 3}
    for message, primitive in their_primitives():
        message.primitive_to_message(primitive)
        number = context.get(type(message).__name__, 5)
        for data in message.encode_msg(number, 16382):
            p_data = pdu.P_DATA_TF()
            p_data.from_primitive(data)
            yield p_data.encode()


def command_sets() -> Iterator[bytes]:
    """Command sets as we, pynetdicom and pydicom write them."""
    for message in messages():
        yield encode_command(message, has_data_set=False)
        yield encode_command(message, has_data_set=True)
    for message, primitive in their_primitives():
        message.primitive_to_message(primitive)
        yield encode_data_set(message.command_set, True, True) or b""
    odd = [(ELEMENTS["CommandField"].tag, b"\x30\0"), (ELEMENTS["MessageID"].tag, b"\1\0")]
    odd += [(ELEMENTS["AffectedSOPClassUID"].tag, b"1.2  "), (0x00091001, b"x")]
    yield b"".join(struct.pack("<HHL", t >> 16, t & 0xFFFF, len(v)) + v for t, v in odd)


def conversations() -> Iterator[bytes]:
    """What a peer may say to a core, behind the two bytes that set the target up."""
    data = encode_data_set(identifier(), True, True) or b""
    find = message_pdus(5, CFindRQ(message_id=9, affected_sop_class_uid=FIND), data)
    store = CStoreRQ(message_id=4, affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.3")
    echo = message_pdus(1, CEchoRQ(message_id=1))
    cancel = message_pdus(5, CCancelRQ(message_id_being_responded_to=9))
    answer = message_pdus(1, CEchoRSP(message_id_being_responded_to=1, status=0))
    pending = message_pdus(5, CFindRSP(message_id_being_responded_to=9, status=0xFF00), data)
    one_pdu: list[PDU] = [PDataTF(tuple(v for p in (*find, *cancel, *echo) for v in p.pdvs))]
    scripts: list[list[PDU]] = [
        [*echo, ReleaseRQ()],
        [*find, *cancel, *echo],
        one_pdu,
        [*message_pdus(3, store, data * 9), *echo, Abort(0, 0)],
        [*pending, *answer, ReleaseRQ(), ReleaseRP()],
        [ReleaseRQ(), ReleaseRP(), *echo],
        [AC, *answer],
        [AssociateRJ(1, 1, 1)],
        [PDataTF(()), *echo],
    ]
    for script in scripts:
        wire = b"".join(map(encode_pdu, script))
        for mode in range(64):
            started = mode & 3 >= 2
            prefix = b"" if started else encode_pdu(RQ)
            yield bytes((mode, 255 if mode & 8 else mode)) + prefix + wire
    theirs = list(their_pdus())
    for mode in (0, 1, 4, 5, 13, 37):
        yield bytes((mode, 255)) + b"".join(theirs)


def write(folder: Path, seeds: Iterator[bytes]) -> int:
    """Write each seed once; how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    names = set()
    for seed in seeds:
        name = hashlib.sha256(seed).hexdigest()[:16]
        (folder / name).write_bytes(seed)
        names.add(name)
    return len(names)


def main() -> None:
    """Fill the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the three folders of seeds are made")
    folder: Path = parser.parse_args().folder
    for name, seeds in (
        ("decode_pdu", (seed for make in (own_pdus, their_pdus) for seed in make())),
        ("command_set", command_sets()),
        ("server_core", conversations()),
    ):
        print(f"{folder / name}: {write(folder / name, seeds)} seeds")


if __name__ == "__main__":
    main()
