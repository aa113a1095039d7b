"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

INI = """
[pytest]
filterwarnings =
    error
    ignore:.*:trio.TrioDeprecationWarning:pytest_trio
"""
QUERY = """
    import trio
    import dimse_trio as dimse

    async def query(archive):
        async with dimse.open_association(
            archive.host, archive.port, called_ae_title=archive.ae_title
        ) as association:
            return await association.find_studies()
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs pytest over one module; `apart`, in a process of its own, if it is to import much."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run_module(source: str, *options: str, apart: bool = False) -> pytest.RunResult:
        pytester.makeini(INI)
        pytester.makepyfile(source)
        run_pytest = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess
        return run_pytest("-p", "no:cacheprovider", "-rsf", *options)

    return run_module


NEEDS_DCMTK = """
    def test_needs_dcmtk(dcmtk):
        assert dcmtk.available()
"""


def test_without_dcmtk_a_test_is_skipped_with_the_reason(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(NEEDS_DCMTK)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines("*SKIPPED*DCMTK is not installed: apt-get install dcmtk*")


def test_without_dcmtk_a_test_fails_in_ci(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    result = run(NEEDS_DCMTK)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines("*DCMTK is not installed: apt-get install dcmtk*")


@pytest.mark.interop
def test_with_dcmtk_it_runs(run: Any, dcmtk: Any) -> None:
    run(NEEDS_DCMTK).assert_outcomes(passed=1)


def test_an_archive_with_pytest_trio(run: Any, study: dict[str, Any]) -> None:
    files = [str(study[keyword].path) for keyword in ("RLELossless", "JPEG2000")]
    result = run(
        QUERY
        + f"""
    async def test_two_archives(dimse_archive):
        async with dimse_archive(*{files}) as full, dimse_archive(ae_title="EMPTY") as empty:
            (study,) = await query(full)
            assert study.NumberOfStudyRelatedInstances == 2
            assert empty.ae_title == "EMPTY"
            assert full.folder != empty.folder
            assert await query(empty) == []
            assert full.server.statistics().associations_accepted == 1
        """,
        "-o",
        "trio_mode=true",
        apart=True,
    )
    result.assert_outcomes(passed=1)


def test_an_archive_without_pytest_trio(run: Any, study: dict[str, Any]) -> None:
    result = run(
        QUERY
        + f"""
    def test_archive(dimse_archive):
        async def main():
            async with dimse_archive({str(study["RLELossless"].path)!r}) as archive:
                return await query(archive)

        assert len(trio.run(main)) == 1
        """,
        "-p",
        "no:trio",
        "-p",
        "no:pytest_trio",
        apart=True,
    )
    result.assert_outcomes(passed=1)


def test_the_fixtures_have_docstrings(run: Any) -> None:
    result = run("", "--fixtures")
    result.stdout.fnmatch_lines(["dcmtk -- *plugin.py*", "*the runners for DCMTK's programs*"])
    result.stdout.fnmatch_lines(["dimse_archive -- *plugin.py*", "*Opens embedded archives*"])


def test_loading_the_plugin_imports_nothing_else() -> None:
    """It is loaded in every run of pytest where the package is installed."""
    code = (
        "import sys, pytest, dimse_trio; before = set(sys.modules);"
        "import dimse_trio.testing.plugin; print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["dimse_trio.testing", "dimse_trio.testing.plugin"]


def test_names_of_the_package_are_found_when_asked_for() -> None:
    import dimse_trio.testing as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = package.missing
