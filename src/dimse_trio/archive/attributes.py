"""The attributes that the index keeps, by level (PS3.4 §C.6.1.1, §C.6.2.1).

Those of the levels' tables that are unique or required, the optional ones that workstations ask
for, and those that are no attributes of any instance but counted or known by the archive. A key
that is not here is answered without a value, and does not restrict what matches, as §C.2.2.1.3
has it for optional keys that an SCP does not support.
"""

from __future__ import annotations

import attrs
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
"""The levels from the top."""

_KEYWORDS = {
    "PATIENT": """
        PatientID IssuerOfPatientID PatientName PatientBirthDate PatientBirthTime PatientSex
        OtherPatientIDs OtherPatientNames EthnicGroup PatientComments
    """,
    "STUDY": """
        StudyInstanceUID StudyDate StudyTime AccessionNumber StudyID StudyDescription
        ReferringPhysicianName NameOfPhysiciansReadingStudy AdmittingDiagnosesDescription
        PatientAge PatientSize PatientWeight Occupation AdditionalPatientHistory
    """,
    "SERIES": """
        SeriesInstanceUID Modality SeriesNumber SeriesDescription SeriesDate SeriesTime
        BodyPartExamined Laterality ProtocolName PatientPosition FrameOfReferenceUID
        PerformingPhysicianName OperatorsName Manufacturer ManufacturerModelName StationName
        InstitutionName InstitutionalDepartmentName PerformedProcedureStepStartDate
        PerformedProcedureStepStartTime PerformedProcedureStepID
        PerformedProcedureStepDescription
    """,
    "IMAGE": """
        SOPInstanceUID SOPClassUID InstanceNumber InstanceCreationDate InstanceCreationTime
        AcquisitionDate AcquisitionTime AcquisitionDateTime AcquisitionNumber ContentDate
        ContentTime ImageType ImageComments NumberOfFrames Rows Columns BitsAllocated BitsStored
        SamplesPerPixel PhotometricInterpretation CompletionFlag VerificationFlag DocumentTitle
        ContentLabel ContentDescription ContentCreatorName
    """,
}

_COMPUTED = {
    "PATIENT": """
        NumberOfPatientRelatedStudies NumberOfPatientRelatedSeries NumberOfPatientRelatedInstances
        InstanceAvailability
    """,
    "STUDY": """
        ModalitiesInStudy SOPClassesInStudy NumberOfStudyRelatedSeries
        NumberOfStudyRelatedInstances
    """,
    "SERIES": "NumberOfSeriesRelatedInstances",
    "IMAGE": "AvailableTransferSyntaxUID",
}


@attrs.frozen
class Attribute:
    """One attribute of the index; `is_single` says that it has one value at most."""

    keyword: str
    tag: int
    vr: str
    level: str
    is_single: bool


def _attributes(keywords: dict[str, str]) -> dict[str, tuple[Attribute, ...]]:
    made: dict[str, tuple[Attribute, ...]] = {}
    for level, words in keywords.items():
        tags = [(word, int(tag_for_keyword(word) or 0)) for word in words.split()]
        made[level] = tuple(
            Attribute(word, tag, dictionary_VR(tag), level, dictionary_VM(tag) == "1")
            for word, tag in tags
        )
    return made


STORED = _attributes(_KEYWORDS)
"""By level, what is read from instances and stored; the unique key comes first."""

COMPUTED = _attributes(_COMPUTED)
"""By level, what is made out when somebody asks."""

WANTED = {attribute.tag: attribute for level in LEVELS for attribute in STORED[level]}
"""What is read from an instance, by tag."""


def above(level: str) -> tuple[str, ...]:
    """A level and those above it, from the top."""
    return LEVELS[: LEVELS.index(level) + 1]
