"""Items of a worklist."""

from __future__ import annotations

from pydicom import Dataset


def step(**values: object) -> Dataset:
    made = Dataset()
    defaults = {
        "Modality": "CT",
        "ScheduledStationAETitle": "SCANNER",
        "ScheduledProcedureStepStartDate": "20260102",
        "ScheduledProcedureStepStartTime": "0900",
        "ScheduledPerformingPhysicianName": "Who^Doctor",
        "ScheduledProcedureStepID": "S1",
    }
    for keyword, value in (defaults | values).items():
        setattr(made, keyword, value)
    return made


def item(name: str, *steps: Dataset, **values: object) -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientName, made.PatientID = f"{name}^X", name
    made.StudyInstanceUID = "2.25.7"
    made.ScheduledProcedureStepSequence = list(steps)
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made
