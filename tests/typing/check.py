"""Hold mypy and pyright to what they must let pass, and to what they must object to.

In `passes` neither may report an error. In `fails` both must report one on each line that ends in
`# error`, and none elsewhere.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

Line = tuple[str, int]


def run(*arguments: str) -> str:
    """The output of a checker; it may find errors, but must not break down."""
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):
        sys.exit(f"{' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def mypy(folder: Path) -> Iterator[tuple[Line, str]]:
    """The lines that mypy objects to, with what it says."""
    output = run("mypy", "--strict", "--no-error-summary", str(folder))
    for path, line, text in re.findall(r"(?m)^(.+?):(\d+): error: (.*)$", output):
        yield (Path(path).name, int(line)), text


def pyright(folder: Path) -> Iterator[tuple[Line, str]]:
    """The lines that pyright objects to, with what it says."""
    output = run("pyright", "--pythonpath", sys.executable, "--outputjson", str(folder))
    for found in json.loads(output)["generalDiagnostics"]:
        if found["severity"] == "error":
            line = found["range"]["start"]["line"] + 1
            yield (Path(found["file"]).name, line), found["message"]


def marked(folder: Path) -> set[Line]:
    """The lines that must be objected to."""
    return {
        (path.name, number)
        for path in folder.glob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.endswith("# error")
    }


def main() -> int:
    """Compare; every difference is a line of output."""
    wrong = 0
    for folder in (HERE / "passes", HERE / "fails"):
        expected = marked(folder)
        for checker in (mypy, pyright):
            found = dict(checker(folder))
            for name, line in sorted(expected ^ found.keys()):
                said = found.get((name, line), "no error, though there should be one")
                print(f"{folder.name}/{name}:{line}: {checker.__name__}: {said}")
                wrong += 1
            print(f"{folder.name}: {checker.__name__} objects to {len(found)} lines")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
