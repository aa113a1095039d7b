"""Every numbered quirk has a test, and every test of a quirk its number."""

from __future__ import annotations

import ast
import re
from pathlib import Path

QUIRKS = range(1, 70)


def names() -> list[str]:
    """The names of the test functions in this folder's other modules."""
    return [
        node.name
        for path in sorted(Path(__file__).parent.glob("test_*_quirks.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_")
    ]


def test_every_quirk_has_a_test_and_every_test_a_quirk() -> None:
    tested: set[int] = set()
    for name in names():
        numbers = re.match(r"test_quirk((?:_\d\d)+)_[a-z]", name)
        assert numbers is not None, name
        tested |= {int(number) for number in numbers[1].split("_")[1:]}
    assert tested == set(QUIRKS)


def test_no_two_tests_in_a_module_have_the_same_name() -> None:
    assert len(names()) == len(set(names()))
