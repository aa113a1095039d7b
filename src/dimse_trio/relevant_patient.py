"""Relevant patient information: what is known of a patient, as one report (PS3.4 Annex Q)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .character_sets import set_character_set
from .errors import QueryError
from .protocol.uids import uid_of

if TYPE_CHECKING:
    from pydicom import Dataset

RELEVANT_PATIENT_MODELS = {
    "general": (uid_of("GeneralRelevantPatientInformationQuery"), "9007"),
    "breast": (uid_of("BreastImagingRelevantPatientInformationQuery"), "9000"),
    "cardiac": (uid_of("CardiacRelevantPatientInformationQuery"), "3802"),
}
"""SOP Class UID and root template of PS3.16, by what the report is about (PS3.4 §Q.3)."""


def relevant_patient_query(
    patient_id: str, about: str = "general", *, issuer: str = ""
) -> tuple[str, Dataset]:
    """The SOP class and the identifier of a query for relevant patient information.

    Args:
        patient_id: Patient ID, which must match exactly one patient.
        about: "general", "breast" or "cardiac".
        issuer: Issuer of Patient ID, where the same ID may be two patients' (Table Q.4-1).

    Raises:
        QueryError: There is no such report, or no Patient ID.
    """
    from pydicom import Dataset

    if about not in RELEVANT_PATIENT_MODELS:
        raise QueryError(f"nothing about {about!r}; there is {', '.join(RELEVANT_PATIENT_MODELS)}")
    if not patient_id or any(char in patient_id for char in "*?\\"):
        raise QueryError("relevant patient information needs one Patient ID, without wildcards")
    sop_class_uid, template = RELEVANT_PATIENT_MODELS[about]
    content = Dataset()
    content.MappingResource = "DCMR"
    content.TemplateIdentifier = template
    identifier = Dataset()
    identifier.PatientID = patient_id
    identifier.IssuerOfPatientID = issuer
    for keyword in (
        "PatientName PatientBirthDate PatientSex ObservationDateTime ValueType".split()  # noqa: SIM905
    ):
        setattr(identifier, keyword, None)
    identifier.ConceptNameCodeSequence = []
    identifier.ContentSequence = []
    identifier.ContentTemplateSequence = [content]
    set_character_set(identifier)
    return sop_class_uid, identifier
