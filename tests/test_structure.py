"""The package as an artefact: its size, its names, its documentation, what importing it costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import attrs
import pytest

import dimse_trio

ROOT = Path(__file__).parent.parent
PACKAGE = Path(dimse_trio.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PUBLIC = (
    "dimse_trio",
    "dimse_trio.archive",
    "dimse_trio.instruments",
    "dimse_trio.matching",
    "dimse_trio.otel",
    "dimse_trio.relay",
    "dimse_trio.testing",
)

MAX_LINES = 450
TABLES = {"protocol/uids.py": "a table of SOP classes, a line each"}
"""Modules that may be longer, and why."""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_modules_are_short_enough_to_be_read_in_one_sitting() -> None:
    modules = {name_of(path): path for path in SOURCES} | {
        str(path.relative_to(ROOT)): path
        for folder in ("tests", "examples", "benchmarks", "fuzz", "tools")
        for path in (ROOT / folder).rglob("*.py")
    }
    long = {
        name: lines
        for name, path in modules.items()
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert {name: lines for name, lines in long.items() if name not in TABLES} == {}


def test_no_test_module_imports_another() -> None:
    importing = re.compile(r"^\s*(?:from|import)\s.*\btest_", re.MULTILINE)
    modules = sorted((ROOT / "tests").rglob("*.py"))
    assert [path.name for path in modules if importing.search(path.read_text())] == []


def test_modules_say_what_they_are_about() -> None:
    silent = [
        name_of(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_the_protocol_core_imports_only_the_standard_library_and_attrs() -> None:
    strangers = {
        f"{name_of(path)}: {module}"
        for path in (PACKAGE / "protocol").glob("*.py")
        for module in _imports(path)
        if module not in sys.stdlib_module_names and module != "attrs"
    }
    assert strangers == set()


def _imports(path: Path) -> Iterator[str]:
    """The packages that a module imports, relative imports inside its own left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module:
                yield node.module.partition(".")[0]
            elif node.level > 1:
                yield "a module outside of protocol"


# -- public names ----------------------------------------------------------------------------------


def public_names(module_name: str) -> dict[str, object]:
    """What a public module exports: its `__all__`, its re-exports, or what it defines."""
    module = importlib.import_module(module_name)
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    names = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    return {
        name: value
        for name, value in names.items()
        if not isinstance(value, ModuleType)
        and (getattr(value, "__module__", None) or "").startswith(module_name)
    }


def _reexports() -> list[ast.ImportFrom]:
    """What the package says to type checkers that it has."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]


def test_reexports_are_written_so_that_type_checkers_see_them() -> None:
    """`from .x import y as y` is the form for a package that has `py.typed` (PEP 484)."""
    hidden = [a.name for node in _reexports() for a in node.names if a.asname != a.name]
    assert hidden == []


def test_public_names_are_in_alphabetical_order_of_their_modules() -> None:
    modules = [n.module for n in _reexports() if n.module != "version"]
    assert modules == sorted(modules, key=str)


def test_a_public_name_is_imported_from_where_type_checkers_find_it() -> None:
    homes = {a.name: str(n.module) for n in _reexports() for a in n.names}
    del homes["__version__"]
    assert vars(dimse_trio)["_HOMES"] == homes


def test_importing_the_package_imports_little() -> None:
    """Nothing of it before it is used, and pydicom not before a data set is touched."""
    script = (
        "import sys, dimse_trio\n"
        "print(sorted(m for m in sys.modules if m.startswith('dimse_trio.')))\n"
        "dimse_trio.open_association, dimse_trio.serve, dimse_trio.query\n"
        "print(sorted({'pydicom', 'click', 'rich', 'sqlalchemy', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE)
    assert done.stdout.decode().splitlines() == ["['dimse_trio.version']", "[]"]


@pytest.mark.parametrize("module_name", PUBLIC)
def test_public_names_exist_and_have_docstrings(module_name: str) -> None:
    bare = [
        name
        for name, value in public_names(module_name).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and not value.__doc__
    ]
    assert bare == []


def _public_classes() -> Iterator[tuple[str, type]]:
    for name, value in public_names("dimse_trio").items():
        if inspect.isclass(value):
            yield name, value


def test_public_classes_are_final_or_meant_for_what_they_are() -> None:
    """Resources are final; the rest: values, enums, protocols, options, errors, or bases."""
    loose = [
        name
        for name, cls in _public_classes()
        if not (
            getattr(cls, "__final__", False)
            or attrs.has(cls)
            or typing.is_typeddict(cls)
            or issubclass(cls, BaseException | int)
            or hasattr(cls, "__members__")
            or getattr(cls, "_is_protocol", False)
            or cls
            in (
                dimse_trio.AvailabilityListener,
                dimse_trio.CommitmentListener,
                dimse_trio.EchoSCP,
                dimse_trio.Handler,
                dimse_trio.Instrument,
                dimse_trio.PerformedProcedureSteps,
                dimse_trio.StorageCommitmentProvider,
                dimse_trio.WorklistFolder,
            )
        )
    ]
    assert loose == []


def test_public_values_are_frozen() -> None:
    mutable = [
        name
        for name, cls in _public_classes()
        if attrs.has(cls) and cls.__setattr__ is object.__setattr__
    ]
    assert mutable == []


def test_errors_are_all_dimse_errors() -> None:
    others = [
        name
        for name, cls in _public_classes()
        if issubclass(cls, BaseException) and not issubclass(cls, dimse_trio.DimseError)
    ]
    assert others == []


# -- documentation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module_name", PUBLIC)
def test_every_public_name_is_in_the_reference(module_name: str) -> None:
    pages = "\n".join(p.read_text() for p in sorted((ROOT / "docs" / "reference").glob("*.rst")))
    documented = set(re.findall(r"^\s*\.\. (?:auto\w+|py:data):: ([\w.]+)", pages, re.MULTILINE))
    names = {name for name in public_names(module_name) if not name.startswith("_")}
    assert {n for n in names if f"{module_name}.{n}" not in documented} == set()


def test_every_example_is_in_the_documentation() -> None:
    pages = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.rst")))
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert {name for name in examples if f"examples/{name}" not in pages} == set()


def test_every_page_has_its_place_in_the_contents() -> None:
    docs = ROOT / "docs"
    pages = {
        p.relative_to(docs).with_suffix("").as_posix()
        for p in docs.rglob("*.rst")
        if "_build" not in p.parts
    }
    listed = {"index"}
    for index in (docs / "index.rst", docs / "reference" / "index.rst"):
        folder = index.parent.relative_to(docs)
        entries = re.findall(r"^   ([\w/]+)$", index.read_text(), re.MULTILINE)
        listed |= {(folder / entry).as_posix() for entry in entries}
    assert pages == listed


# -- what an import costs --------------------------------------------------------------------------


@pytest.mark.parametrize("module_name", ["dimse_trio", "dimse_trio.testing.plugin"])
def test_importing_loads_no_heavy_package(module_name: str) -> None:
    """pydicom when a data set is first looked into; click, rich and SQLAlchemy for their parts."""
    heavy = {"pydicom", "numpy", "click", "rich", "sqlalchemy", "opentelemetry", "asyncio"}
    code = f"import sys, {module_name}; print(*{heavy!r} & sys.modules.keys())"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
