"""Fixtures that all tests may use: DICOM files in twelve transfer syntaxes."""

from __future__ import annotations

import pydicom
import pytest

from dimse_trio import uid_of
from interop.samples import SAMPLES, TEST_FILES, Sample, write_study


@pytest.fixture(scope="session")
def samples() -> dict[str, Sample]:
    """Files as they come, by the keyword of their transfer syntax."""
    found = {keyword: Sample.of(TEST_FILES / name) for keyword, name in SAMPLES.items()}
    assert {k: s.transfer_syntax for k, s in found.items()} == {k: uid_of(k) for k in SAMPLES}
    return found


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest, samples: dict[str, Sample]) -> Sample:
    """Each of `samples` in turn."""
    return samples[request.param]


@pytest.fixture(scope="session")
def study(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, Sample]
) -> dict[str, Sample]:
    """The samples made one study of, by transfer syntax again: see `write_study`."""
    return write_study(tmp_path_factory.mktemp("study"), samples)


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory, study: dict[str, Sample]) -> Sample:
    """An instance of 32 MiB."""
    data_set = pydicom.dcmread(study["ExplicitVRLittleEndian"].path)
    data_set.NumberOfFrames = 64
    data_set.Rows = data_set.Columns = 512
    data_set.PixelData = bytes(range(256)) * (1 << 17)
    path = tmp_path_factory.mktemp("big") / "big.dcm"
    data_set.save_as(path)
    return Sample.of(path)
