"""Storage commitment with Orthanc, which is its SCP and its SCU."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from pydicom.data import get_testdata_file

import dimse_trio as dimse
from dimse_trio.testing import served_archive

from .orthanc_peer import free_ports, orthanc

pytestmark = pytest.mark.interop

CT = Path(str(get_testdata_file("CT_small.dcm")))
MR = Path(str(get_testdata_file("MR_small.dcm")))


async def test_orthanc_reports_to_our_listener_what_it_has(tmp_path: Path) -> None:
    [ours] = free_ports(1)
    missing = (dimse.uid_of("CTImageStorage"), "1.2.3.4")
    with trio.fail_after(60):
        async with orthanc(tmp_path, us=("DIMSE-TRIO", ours)) as peer:
            pacs = dimse.RemoteAE(peer.ae_title, "127.0.0.1", peer.port, listen_port=ours)
            outcomes = await pacs.store([CT, MR])
            assert all(outcome.stored for outcome in outcomes)
            whole = await pacs.commit([CT, MR])
            part = await pacs.commit([CT, missing])
    assert whole.complete
    assert [each.sop_instance_uid for each in whole.committed] == [
        dimse.Instance.from_file(path).sop_instance_uid for path in (CT, MR)
    ]
    assert len(part.committed) == 1
    [failed] = part.failed
    assert failed.reference == dimse.SOPReference(*missing)
    assert failed.reason == dimse.FailureReason.NO_SUCH_OBJECT_INSTANCE
    assert part.unreported == ()


async def test_orthanc_is_told_what_our_archive_has(tmp_path: Path) -> None:
    instances = [dimse.Instance.from_file(path) for path in (CT, MR)]
    known = [(each.sop_class_uid, each.sop_instance_uid) for each in instances]
    [theirs] = free_ports(1)
    with trio.fail_after(60):
        async with served_archive(
            tmp_path / "archive", CT, MR, peers={"ORTHANC": ("127.0.0.1", theirs)}
        ) as archive:
            async with orthanc(tmp_path, port=theirs, archive=("ARCHIVE", archive.port)) as peer:
                whole = await peer.committed("archive", known)
                part = await peer.committed("archive", [known[0], (known[0][0], "1.2.3.4")])
    assert whole["Status"] == "Success"
    assert {each["SOPInstanceUID"] for each in whole["Success"]} == {uid for _, uid in known}
    assert part["Status"] == "Failure"
    [failure] = part["Failures"]
    assert failure["SOPInstanceUID"] == "1.2.3.4"
    assert failure["Description"].endswith("was not available")
