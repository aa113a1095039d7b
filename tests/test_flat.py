"""What is encoded without pydicom's writer is what that would have written, byte for byte."""

from __future__ import annotations

from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dimse_trio.flat import encode_flat
from interop.samples import TEST_FILES

ASCII = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\=^"))
TEXT = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters="\\=^\x7f")
)
UIDS = st.from_regex(r"[12](\.(0|[1-9][0-9]{0,5})){1,6}", fullmatch=True)
NAMES = st.lists(st.lists(TEXT, max_size=5).map("^".join), max_size=3).map("=".join)


def one_or_more(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.just("") | values | st.lists(values, min_size=2, max_size=3)


ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "SpecificCharacterSet": st.sampled_from(["", "ISO_IR 100", "ISO_IR 192", "ISO_IR 144"]),
    "ImageType": one_or_more(st.sampled_from(["ORIGINAL", "PRIMARY", "X"])),
    "SOPClassUID": UIDS,
    "StudyDate": st.sampled_from(["", "20260101", "20260101-20261231"]),
    "StudyTime": st.sampled_from(["", "1200", "120000.5"]),
    "AccessionNumber": TEXT,
    "RetrieveAETitle": one_or_more(ASCII),
    "ModalitiesInStudy": one_or_more(st.sampled_from(["CT", "MR", "OT"])),
    "StudyDescription": TEXT,
    "PatientName": NAMES,
    "OtherPatientNames": one_or_more(NAMES),
    "PatientID": TEXT,
    "PatientAge": st.sampled_from(["", "040Y", None]),
    "PatientComments": TEXT,
    "PatientWeight": st.none() | st.sampled_from(["70.5", "70", 70.25, 1]),
    "OtherPatientIDs": one_or_more(TEXT),
    "StudyInstanceUID": st.none() | UIDS | st.lists(UIDS, min_size=2, max_size=3),
    "SeriesNumber": st.none() | st.integers(-9, 99999) | st.sampled_from(["7", " 7", "07"]),
    "ImagePositionPatient": one_or_more(st.sampled_from(["1.50", "-3", "1e-3"])),
    "Rows": st.none() | st.integers(0, 65535),
    "RetrieveURL": ASCII,
    "TimezoneOffsetFromUTC": st.sampled_from(["", "+0100"]),
    "SimpleFrameList": st.none() | st.lists(st.integers(0, 1 << 31), min_size=2, max_size=3),
    "ScheduledProcedureStepSequence": st.just([]),
}


def by_pydicom(data_set: Dataset, *, implicit_vr: bool) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit_vr, True
    write_dataset(buffer, data_set)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")  # pydicom's, about values that hypothesis makes up
@settings(max_examples=400)
@given(st.fixed_dictionaries({}, optional=ELEMENTS), st.booleans())
def test_flat_data_sets_are_encoded_as_pydicom_does_it(
    values: dict[str, Any], implicit_vr: bool
) -> None:
    data_set = Dataset()
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    encoded = encode_flat(data_set, implicit_vr=implicit_vr)
    if encoded is not None:
        assert encoded == by_pydicom(data_set, implicit_vr=implicit_vr)


@pytest.mark.parametrize("implicit_vr", [False, True])
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "test-SR.dcm"])
def test_the_flat_part_of_files_is_encoded_as_pydicom_does_it(name: str, implicit_vr: bool) -> None:
    data_set = Dataset()
    for element in pydicom.dcmread(TEST_FILES / name):
        if element.VR not in ("SQ", "OB", "OW", "UN", "OB or OW", "AT", "FD", "FL"):
            data_set[element.tag] = element
    encoded = encode_flat(data_set, implicit_vr=implicit_vr)
    assert encoded == by_pydicom(data_set, implicit_vr=implicit_vr)
    assert len(data_set) > 20


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ScheduledProcedureStepSequence", [Dataset()]),
        ("SpecificCharacterSet", "ISO_IR 144"),
        ("SpecificCharacterSet", ["", "ISO 2022 IR 87"]),
        ("PatientName", "Müller"),  # in the default character set
        ("StudyDescription", "x" * 0x10000),
        ("PixelData", b"1234"),
        ("EventTimeOffset", 1.5),
    ],
)
def test_what_is_not_flat_text_is_left_to_pydicom(keyword: str, value: object) -> None:
    data_set = Dataset()
    setattr(data_set, keyword, value)
    assert encode_flat(data_set, implicit_vr=False) is None


def test_elements_that_were_not_decoded_are_left_to_pydicom() -> None:
    data_set = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    assert encode_flat(data_set, implicit_vr=False) is None
