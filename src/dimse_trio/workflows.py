"""Whole workflows as methods of an association; their modules are imported when they are used."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Unpack, cast

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association
    from .availability import AvailabilityNotice
    from .commitment import Commitment, CommitmentListener
    from .exchange import Exchange
    from .normalized import NormalizedResult
    from .operations import FindOperation
    from .performed_steps import PerformedStep
    from .references import Referable
    from .worklist import WorklistKeys


class Workflows:
    """Worklist, performed procedure steps, storage commitment, and what else is a few messages."""

    _exchange: Exchange

    @property
    def _itself(self) -> Association:
        return cast("Association", self)

    def find_worklist(self, **keys: Unpack[WorklistKeys]) -> FindOperation:
        """`find(worklist_query(**keys))`: scheduled procedure steps (PS3.4 Annex K)."""
        from .worklist import worklist_query

        return self._itself.find(worklist_query(**keys))

    def find_relevant_patient(
        self, patient_id: str, about: str = "general", *, issuer: str = ""
    ) -> FindOperation:
        """C-FIND: relevant patient information, of which there is one match (PS3.4 Annex Q).

        Raises:
            QueryError: As `relevant_patient_query`.
            ContextNotAccepted: The peer does not accept that SOP class.
        """
        from .relevant_patient import relevant_patient_query

        sop_class_uid, identifier = relevant_patient_query(patient_id, about, issuer=issuer)
        return self._itself.find(identifier, model=sop_class_uid)

    def performed_procedure_step(
        self,
        scheduled: Dataset | Iterable[Dataset] = (),
        *,
        sop_instance_uid: str | None = None,
        **attributes: Any,
    ) -> AbstractAsyncContextManager[PerformedStep]:
        """A performed procedure step as a block: N-CREATE when it is entered (PS3.4 §F.7).

        Left by an exception or by cancellation, a step that has not ended is DISCONTINUED, for
        which it takes at most 5 s; if that fails, it is logged and noted in the exception. So is a
        step whose N-CREATE was cancelled when the peer had it already. Left otherwise, it stays as
        it is: one that is IN PROGRESS can be gone on with by its `uid`, and
        `resume_performed_step`.

        Args:
            scheduled: As `performed_step_attributes`.
            sop_instance_uid: The step's UID; by default a new one.
            attributes: As `performed_step_attributes`.

        Raises:
            LocalProtocolError: As `performed_step_attributes`.
            StatusError, ContextNotAccepted, AssociationError: As `n_create`.
        """
        from .performed_steps import performed_procedure_step

        return performed_procedure_step(self._itself, scheduled, sop_instance_uid, attributes)

    async def create_performed_step(
        self,
        scheduled: Dataset | Iterable[Dataset] = (),
        *,
        sop_instance_uid: str | None = None,
        **attributes: Any,
    ) -> PerformedStep:
        """As `performed_procedure_step`, for a step that outlives the block or the process."""
        from .performed_steps import create_performed_step

        return await create_performed_step(self._itself, scheduled, sop_instance_uid, attributes)

    def resume_performed_step(self, uid: str) -> PerformedStep:
        """A step that was begun on another association; nothing is sent."""
        from .performed_steps import PerformedStep

        return PerformedStep(self._itself, uid)

    def commit(
        self,
        references: Iterable[Referable],
        *,
        transaction_uid: str | None = None,
        listener: CommitmentListener | None = None,
    ) -> Commitment:
        """Storage commitment: have the peer say that instances are its to keep (PS3.4 Annex J).

            async with association.commit(paths) as commitment:
                result = await commitment.wait()

        Entering the block sends the request, by N-ACTION. Cancelled meanwhile, as `n_action`: the
        peer may have taken it all the same.

        Args:
            references: Paths of DICOM files, `Instance`s, data sets, pairs of SOP Class UID and SOP
                Instance UID; what is there twice is asked about once.
            transaction_uid: Names the transaction; by default a new UID.
            listener: Takes the report where the peer opens an association for it.

        Raises:
            LocalProtocolError: No reference is given, or one is none; the Transaction UID is none
                or is awaited already.
            OSError, InvalidFile, DataSetError: A reference's file or data set cannot be read.
            StatusError, ContextNotAccepted, AssociationError: As `n_action`.
        """
        from .commitment import Commitment

        return Commitment(self._itself, self._exchange, references, transaction_uid, listener)

    async def notify_availability(
        self, notice: AvailabilityNotice, *, sop_instance_uid: str | None = None
    ) -> NormalizedResult:
        """N-CREATE of Instance Availability Notification (PS3.4 Annex R).

        Args:
            notice: What can be retrieved, and from where.
            sop_instance_uid: The notification's UID; by default a new one.

        Raises:
            StatusError, ContextNotAccepted, AssociationError: As `n_create`.
        """
        from .availability import send_notice

        return await send_notice(self._itself, notice, sop_instance_uid)
