"""What the tests of storage commitment share: references, what is said of them, a provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio
import trio.testing
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import FailureReason, SOPReference
from dimse_trio.protocol.messages import NActionRQ, NActionRSP
from dimse_trio.testing import ScriptedPeer

COMMITMENT = dimse.uid_of("StorageCommitmentPushModel")


INSTANCE = "1.2.840.10008.1.20.1.1"
CT = dimse.uid_of("CTImageStorage")


CONTEXTS = [dimse.PresentationContext(COMMITMENT)]
AS_SCP = [dimse.PresentationContext(COMMITMENT, scp=True, scu=False)]

GOOD, BAD, UGLY = (SOPReference(CT, f"1.2.{n}") for n in (1, 2, 3))


def items(*references: SOPReference, reason: int | None = None) -> list[Dataset]:
    made: list[Dataset] = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        if reason is not None:
            item.FailureReason = reason
        made.append(item)
    return made


def information(uid: str | None, **sequences: object) -> Dataset:
    data_set = Dataset()
    if uid is not None:
        data_set.TransactionUID = uid
    for keyword, value in sequences.items():
        setattr(data_set, keyword, value)
    return data_set


def asked(uid: str | None, *references: SOPReference) -> Dataset:
    return information(uid, ReferencedSOPSequence=items(*references))


@attrs.define
class Keeper(dimse.StorageCommitmentProvider):
    """Commits to everything but what it was told."""

    failing: dict[str, FailureReason] = attrs.field(factory=dict)
    looked_at: list[SOPReference] = attrs.field(factory=list)
    looking: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint

    async def committed(self, reference: SOPReference, /) -> FailureReason | None:
        self.looked_at.append(reference)
        await self.looking()
        return self.failing.get(reference.sop_instance_uid)

    def retrieve_ae_title(self, request: dimse.NActionRequest, /) -> str | None:
        return "KEEPER"


async def answer(peer: ScriptedPeer, status: int = 0) -> None:
    context_id, message, _ = await peer.receive_message()
    assert isinstance(message, NActionRQ)
    assert message.requested_sop_instance_uid == INSTANCE
    assert message.action_type_id == 1
    response = NActionRSP(
        message_id_being_responded_to=message.message_id,
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=INSTANCE,
        status=dimse.Status(status),
        action_type_id=1,
    )
    await peer.send_message(context_id, response)
