"""The works, by the name that `--only` knows them by."""

from __future__ import annotations

from benchmarks.bench import Work

from .associations import associations
from .echo import echo, growth
from .retrieve import find, get
from .startup import startup
from .store import WORKS as STORES
from .streaming import streaming
from .window import window

WORKS: dict[str, Work] = {
    "echo": echo,
    **STORES,
    "find": find,
    "get": get,
    "associations": associations,
    "window": window,
    "streaming": streaming,
    "startup": startup,
    "growth": growth,
}


def choose(names: str | None) -> dict[str, Work]:
    """Those whose name is one of these, separated by commas, or begins with one and a hyphen.

    Raises:
        ValueError: There is none of a name.
    """
    if names is None:
        return WORKS
    chosen: dict[str, Work] = {}
    for name in names.split(","):
        found = {w: WORKS[w] for w in WORKS if w == name or w.startswith(f"{name}-")}
        if not found:
            raise ValueError(f"no work {name!r}; there are {', '.join(WORKS)}")
        chosen |= found
    return chosen
