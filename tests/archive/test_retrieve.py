"""C-GET and C-MOVE: which instances are meant (PS3.4 §C.4.2.2.1, §C.4.3.2.1)."""

from __future__ import annotations

from typing import Any

import pytest

from dimse_trio import Status, StatusError
from dimse_trio.archive import Archive

from .instances import instance, retrieved, store


@pytest.fixture
async def filled(archive: Archive) -> Archive:
    """Two patients, three studies, four series, eight instances."""
    for study, series, patient in (
        ("1.1", "1.1.1", "P1"),
        ("1.1", "1.1.2", "P1"),
        ("1.2", "1.2.1", "P1"),
        ("1.3", "1.3.1", "P2"),
    ):
        for number in (1, 2):
            await store(archive, instance(study, series, f"{series}.{number}", PatientID=patient))
    return archive


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize(
    ("level", "keys", "series"),
    [
        ("PATIENT", {"PatientID": "P1"}, "1.1.1 1.1.2 1.2.1"),
        ("STUDY", {"StudyInstanceUID": "1.1"}, "1.1.1 1.1.2"),
        ("STUDY", {"StudyInstanceUID": ["1.1", "1.3"]}, "1.1.1 1.1.2 1.3.1"),
        ("STUDY", {"StudyInstanceUID": "1.1", "PatientID": "P1"}, "1.1.1 1.1.2"),
        ("STUDY", {"StudyInstanceUID": "1.1", "PatientID": "P2"}, ""),
        ("STUDY", {"StudyInstanceUID": "1.9"}, ""),
        ("STUDY", {"StudyInstanceUID": "1.*"}, ""),
        ("STUDY", {"PatientID": "P2"}, "1.3.1"),
        ("STUDY", {"StudyInstanceUID": "1.1", "PatientName": "ignored"}, "1.1.1 1.1.2"),
        ("SERIES", {"SeriesInstanceUID": "1.1.2"}, "1.1.2"),
        ("SERIES", {"SeriesInstanceUID": ["1.1.2", "1.3.1"], "StudyInstanceUID": "1.3"}, "1.3.1"),
        ("series", {"SeriesInstanceUID": "1.1.2", "StudyInstanceUID": ""}, "1.1.2"),
    ],
)
async def test_which_are_meant(
    filled: Archive, move: bool, level: str, keys: dict[str, Any], series: str
) -> None:
    items = await retrieved(filled, level, model="PATIENT", move=move, **keys)
    uids = [f"{uid}.{number}" for uid in series.split() for number in (1, 2)]
    assert [item.sop_instance_uid for item in items] == uids
    assert all(item.path.exists() for item in items)


async def test_single_instances(filled: Archive) -> None:
    keys = {"SOPInstanceUID": ["1.1.1.1", "1.3.1.2"]}
    for level in ("IMAGE", "instance"):
        items = await retrieved(filled, level, **keys)
        assert [item.sop_instance_uid for item in items] == ["1.1.1.1", "1.3.1.2"]


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("PATIENT", {}),
        ("PATIENT", {"PatientID": ""}),
        ("STUDY", {"StudyInstanceUID": "", "PatientID": ""}),
        ("STUDY", {"StudyDate": "20260131"}),
        ("STUDY", {"SeriesInstanceUID": "1.1.1"}),
        ("IMAGE", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}),
        (None, {"StudyInstanceUID": "1.1"}),
        ("FRAME", {"StudyInstanceUID": "1.1"}),
    ],
)
async def test_never_the_whole_archive(
    filled: Archive, level: str | None, keys: dict[str, Any]
) -> None:
    with pytest.raises(StatusError) as caught:
        await retrieved(filled, level, model="PATIENT", **keys)
    assert caught.value.status == Status.DATA_SET_MISMATCH


async def test_many_instances_in_order(archive: Archive) -> None:
    uids = [f"1.1.1.{number}" for number in range(350)]
    await store(archive, *(instance("1.1", "1.1.1", uid) for uid in uids))
    items = await retrieved(archive, "STUDY", StudyInstanceUID="1.1")
    assert [item.sop_instance_uid for item in items] == uids
