"""Peers that take no compressed instances are sent what they can read."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.filereader import read_dataset
from pydicom.uid import ImplicitVRLittleEndian

import dimse_trio as dimse
from dimse_trio.protocol.uids import NATIVE_TRANSFER_SYNTAXES

from .pynetdicom_peer import archive
from .samples import Sample

pytestmark = pytest.mark.interop


def compressed(samples: dict[str, Sample]) -> dict[str, Sample]:
    return {
        sample.sop_instance_uid: sample
        for sample in samples.values()
        if sample.transfer_syntax not in NATIVE_TRANSFER_SYNTAXES
    }


def assert_same(came: pydicom.Dataset, sample: Sample) -> None:
    sent = pydicom.dcmread(sample.path)
    assert np.array_equal(came.pixel_array, sent.pixel_array)
    assert came.PatientID == sent.PatientID


@pytest.mark.parametrize("accept", ["+xi", "+xe"])
async def test_storescp_that_takes_no_compression(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path, accept: str
) -> None:
    """It reads each data set and writes it anew."""
    sent = compressed(study)
    async with dcmtk.storescp(tmp_path, accept=[accept], bit_preserving=False) as peer:
        remote = dimse.RemoteAE("ANY-SCP", peer.host, peer.port)
        paths = [sample.path for sample in sent.values()]
        refused = await remote.store(paths)
        outcomes = await remote.store(paths, on_mismatch="transcode", jobs=2)
        came = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, peer.files())}
    assert not any(outcome.stored for outcome in refused)
    assert [(o.stored, o.transcoded) for o in outcomes] == [(True, True)] * len(sent)
    assert came.keys() == sent.keys()
    for uid, data_set in came.items():
        assert_same(data_set, sent[uid])


async def test_storescp_that_takes_only_jpeg_2000(
    dcmtk: Any, study: dict[str, Sample], tmp_path: Path
) -> None:
    """`+xv` is JPEG 2000 Lossless beside the native ones, which are not proposed here."""
    sample = study["ExplicitVRLittleEndian"]
    jpeg_2000 = dimse.uid_of("JPEG2000Lossless")
    contexts = [dimse.PresentationContext(sample.sop_class_uid, (jpeg_2000,))]
    async with dcmtk.storescp(tmp_path, accept=["+xv"]) as peer:
        async with dimse.open_association(peer.host, peer.port, contexts=contexts) as association:
            result = await association.store(sample.path, on_mismatch="transcode")
        (file,) = peer.files()
    assert (result.transfer_syntax_uid, result.transcoded) == (jpeg_2000, True)
    assert_same(pydicom.dcmread(file), sample)


async def test_pynetdicom_that_takes_only_implicit_vr(study: dict[str, Sample]) -> None:
    sent = compressed(study)
    with archive([], [study["ImplicitVRLittleEndian"], *of_implicit(sent)]) as peer:
        remote = dimse.RemoteAE(peer.ae_title, peer.host, peer.port)
        paths = [sample.path for sample in sent.values()]
        outcomes = await remote.store(paths, on_mismatch="transcode")
    assert all(outcome.stored and outcome.transcoded for outcome in outcomes)
    for received in peer.received:
        assert received.transfer_syntax == ImplicitVRLittleEndian
        data_set = read_dataset(BytesIO(received.data_set), True, True)
        data_set.file_meta = pydicom.dataset.FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        assert_same(data_set, sent[received.sop_instance_uid])


def of_implicit(samples: dict[str, Sample]) -> list[Sample]:
    """The same SOP classes, in Implicit VR Little Endian."""
    return [
        Sample(s.path, str(ImplicitVRLittleEndian), s.sop_class_uid, s.sop_instance_uid)
        for s in samples.values()
    ]
