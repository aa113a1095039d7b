"""The DICOM files of the tests: pydicom's own, as they are and as one study."""

from __future__ import annotations

from pathlib import Path

import attrs
import pydicom
from pydicom import Dataset
from pydicom.uid import UID

from dimse_trio import Instance

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"

SAMPLES = {
    "ImplicitVRLittleEndian": "MR_small_implicit.dcm",
    "ExplicitVRLittleEndian": "CT_small.dcm",
    "ExplicitVRBigEndian": "MR_small_bigendian.dcm",
    "DeflatedExplicitVRLittleEndian": "image_dfl.dcm",
    "RLELossless": "MR_small_RLE.dcm",
    "JPEGBaseline8Bit": "SC_rgb_jpeg_dcmtk.dcm",
    "JPEGExtended12Bit": "JPGExtended.dcm",
    "JPEGLosslessSV1": "SC_rgb_jpeg_gdcm.dcm",
    "JPEGLSLossless": "MR_small_jpeg_ls_lossless.dcm",
    "JPEGLSNearLossless": "SC_rgb_jls_lossy_line.dcm",
    "JPEG2000Lossless": "MR_small_jp2klossless.dcm",
    "JPEG2000": "693_J2KI.dcm",
}
"""One file for each transfer syntax: some are native, some encapsulated, one is of odd length."""

STUDY_UID = "2.25.4711"
"""The study that `study` is, of one patient, with a series for each SOP class."""
PATIENT_ID = "TRIO-1"


@attrs.frozen
class Sample:
    """A file, and what it is found by."""

    path: Path
    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str

    @classmethod
    def of(cls, path: Path) -> Sample:
        instance = Instance.from_file(path)
        return cls(
            path, instance.transfer_syntax_uid, instance.sop_class_uid, instance.sop_instance_uid
        )

    @property
    def data_set(self) -> bytes:
        """The data set as it has to arrive: even in length (PS3.5 §7.1.1, §A.5)."""
        data = data_set_of(self.path)
        return data + b"\0" * (len(data) % 2)


def data_set_of(path: Path) -> bytes:
    """The bytes of a file behind its File Meta Information."""
    instance = Instance.from_file(path)
    return path.read_bytes()[instance.offset : instance.offset + instance.length]


def write_study(folder: Path, samples: dict[str, Sample]) -> dict[str, Sample]:
    """The samples made one study of: same patient, own UIDs; by transfer syntax again.

    They are in the form that DCMTK writes, with sequences of explicit length, encapsulated pixel
    data as OB and no padding at the end, so that they stay as they are when it sends them.
    """
    series = {
        uid: n for n, uid in enumerate(sorted({s.sop_class_uid for s in samples.values()}), 1)
    }
    made: dict[str, Sample] = {}
    for number, (keyword, sample) in enumerate(samples.items(), 1):
        data_set = pydicom.dcmread(sample.path)
        data_set.PatientID = PATIENT_ID
        data_set.PatientName = "Interop^Study"
        data_set.StudyInstanceUID = UID(STUDY_UID)
        data_set.StudyDate = "20260102"
        data_set.StudyTime = "101112"
        data_set.StudyID = "S1"
        data_set.AccessionNumber = "A1"
        data_set.SeriesInstanceUID = UID(f"{STUDY_UID}.{series[sample.sop_class_uid]}")
        data_set.SeriesNumber = series[sample.sop_class_uid]
        data_set.Modality = {1: "CT", 2: "MR"}.get(series[sample.sop_class_uid], "OT")
        data_set.InstanceNumber = number
        data_set.SOPInstanceUID = UID(f"{data_set.SeriesInstanceUID}.{number}")
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        data_set.pop("DataSetTrailingPadding", None)
        if data_set["PixelData"].is_undefined_length:
            data_set["PixelData"].VR = "OB"
        _give_explicit_lengths(data_set)
        path = folder / f"{number:02d}-{keyword}.dcm"
        data_set.save_as(path)
        made[keyword] = Sample.of(path)
    return made


def _give_explicit_lengths(data_set: Dataset) -> None:
    for element in data_set:
        if element.VR == "SQ":
            element.is_undefined_length = False
            for item in element.value:
                item.is_undefined_length_sequence_item = False
                _give_explicit_lengths(item)
