"""Which DIMSE-N services the SOP classes are made of, as one table (PS3.4, a clause for each).

A row says what the SCP of a class performs, whether it reports events to its SCU, and in which
other classes' presentation contexts its messages may travel: those of the Print Management meta
classes carry their members (PS3.4 §H.3), and all of Unified Procedure Step is one SOP class in five
contexts (PS3.4 §CC.3.1).
"""

from __future__ import annotations

import attrs

from .messages import (
    CFindRQ,
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NGetRQ,
    NSetRQ,
    Request,
)
from .uids import uid_of

_REQUESTS: dict[str, type[Request]] = {
    "find": CFindRQ,
    "get": NGetRQ,
    "set": NSetRQ,
    "action": NActionRQ,
    "create": NCreateRQ,
    "delete": NDeleteRQ,
}

_PRINT = "BasicGrayscalePrintManagementMeta BasicColorPrintManagementMeta"
_UPS = (
    "UnifiedProcedureStepPush UnifiedProcedureStepPull UnifiedProcedureStepWatch"
    " UnifiedProcedureStepEvent"
)

_TABLE: tuple[tuple[str, str, str], ...] = (
    # class, what its SCP performs ("event": sends events), contexts that also carry its messages
    ("StorageCommitmentPushModel", "action event", ""),  # PS3.4 Annex J
    ("ProceduralEventLogging", "action", ""),  # PS3.4 Annex P
    ("SubstanceAdministrationLogging", "action", ""),  # PS3.4 Annex V
    ("ModalityPerformedProcedureStep", "create set", ""),  # PS3.4 §F.7
    ("ModalityPerformedProcedureStepRetrieve", "get", ""),  # PS3.4 §F.8
    ("ModalityPerformedProcedureStepNotification", "event", ""),  # PS3.4 §F.9
    ("BasicFilmSession", "create set action delete", _PRINT),  # PS3.4 §H.4.1
    ("BasicFilmBox", "create set action delete", _PRINT),  # PS3.4 §H.4.2
    ("BasicGrayscaleImageBox", "set", "BasicGrayscalePrintManagementMeta"),  # PS3.4 §H.4.3.1
    ("BasicColorImageBox", "set", "BasicColorPrintManagementMeta"),  # PS3.4 §H.4.3.2
    ("BasicGrayscalePrintManagementMeta", "create set action delete get event", ""),
    ("BasicColorPrintManagementMeta", "create set action delete get event", ""),
    ("PrintJob", "get event", ""),  # PS3.4 §H.4.5
    ("BasicAnnotationBox", "set", ""),  # PS3.4 §H.4.4
    ("Printer", "get event", _PRINT),  # PS3.4 §H.4.6
    ("VOILUTBox", "create set delete", ""),  # PS3.4 §H.4.7
    ("PresentationLUT", "create delete", ""),  # PS3.4 §H.4.9
    ("PrinterConfigurationRetrieval", "get", ""),  # PS3.4 §H.4.11
    ("MediaCreationManagement", "create action get", ""),  # PS3.4 Annex S
    ("DisplaySystem", "get", ""),  # PS3.4 Annex EE
    ("InventoryCreation", "create action get event", ""),  # PS3.4 Annex KK
    ("InstanceAvailabilityNotification", "create", ""),  # PS3.4 Annex R
    ("UnifiedProcedureStepPush", "create action get", _UPS),  # PS3.4 §CC.3.1
    ("UnifiedProcedureStepPull", "find get set action", _UPS),
    ("UnifiedProcedureStepWatch", "find get action", _UPS),
    ("UnifiedProcedureStepEvent", "event", _UPS),
    ("RTConventionalMachineVerification", "create set get action delete event", ""),  # Annex DD
    ("RTIonMachineVerification", "create set get action delete event", ""),
)


@attrs.frozen
class NormalizedClass:
    """A SOP class of DIMSE-N.

    Attributes:
        uid: Its UID.
        performed: The requests that its SCP performs.
        reports: Whether its SCP sends N-EVENT-REPORT, which the SCU performs.
        carriers: Abstract syntaxes whose contexts carry its messages, its own first.
    """

    uid: str
    performed: frozenset[type[Request]]
    reports: bool
    carriers: tuple[str, ...]


def _row(keyword: str, services: str, carriers: str) -> NormalizedClass:
    words = services.split()
    return NormalizedClass(
        uid_of(keyword),
        frozenset(_REQUESTS[word] for word in words if word != "event"),
        "event" in words,
        tuple(dict.fromkeys(map(uid_of, (keyword, *carriers.split())))),
    )


NORMALIZED_CLASSES: dict[str, NormalizedClass] = {
    row.uid: row for row in (_row(*entry) for entry in _TABLE)
}
"""By UID."""


def carriers_of(sop_class_uid: str) -> tuple[str, ...]:
    """The abstract syntaxes whose contexts carry messages of a class, its own first."""
    row = NORMALIZED_CLASSES.get(sop_class_uid)
    return (sop_class_uid,) if row is None else row.carriers
