"""Keys of a C-FIND that stand below its level, which peers leave out of the matching.

Only relational queries give them a meaning (PS3.4 §C.4.1.2.2.1), and few peers negotiate these: so
this is a hint, and the query is sent as it is.
"""

from __future__ import annotations

from collections.abc import Iterable

from .keys import LEVELS, Key

_LEVEL_OF = {
    keyword: level
    for level, keywords in {
        "study": "StudyInstanceUID StudyDate StudyTime AccessionNumber StudyID StudyDescription"
        " ReferringPhysicianName ModalitiesInStudy SOPClassesInStudy NumberOfStudyRelatedSeries"
        " NumberOfStudyRelatedInstances",
        "series": "SeriesInstanceUID Modality SeriesNumber SeriesDescription SeriesDate SeriesTime"
        " BodyPartExamined Laterality ProtocolName OperatorsName PerformingPhysicianName"
        " NumberOfSeriesRelatedInstances",
        "image": "SOPInstanceUID SOPClassUID InstanceNumber ContentDate ContentTime ImageType"
        " NumberOfFrames Rows Columns",
    }.items()
    for keyword in keywords.split()
}
"""The tables of PS3.4 §C.6.1.1 and §C.6.2.1, and what is usual besides."""
_INSTEAD = {
    ("study", "Modality"): "ModalitiesInStudy",
    ("study", "SOPClassUID"): "SOPClassesInStudy",
}
"""What asks for nearly the same at a level."""


def level_hint(level: str, keys: Iterable[Key]) -> str:
    """What to say of keys below a query's level; empty if there are none."""
    level = level.lower()
    if level not in LEVELS:  # a worklist has none
        return ""
    hints: list[str] = []
    for name in dict.fromkeys(key.attribute.name for key in keys if key.value is not None):
        own = _LEVEL_OF.get(name, LEVELS[0])
        if LEVELS.index(own) <= LEVELS.index(level):
            continue
        instead = _INSTEAD.get((level, name))
        advice = f"did you mean {instead}?" if instead else f"ask with --level {own}"
        hints.append(f"{name} is a key of the level {own}: {advice}")
    if not hints:
        return ""
    return f"peers may ignore keys below the level {level}: {'; '.join(hints)}"
