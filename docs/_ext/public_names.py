"""Names in the documentation: short code in the text, and types in signatures.

`role` makes `single backticks` a link where they hold a name that the reference has, and code
otherwise; `translate` has docstrings use it, in which backticks stand as in Markdown. Signatures
name classes by the module that defines them; `resolve` finds the public name. Names of other
packages stay text unless intersphinx has found them first.
"""

from __future__ import annotations

import builtins
import importlib
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PUBLIC_MODULES = (
    "dimse_trio",
    "dimse_trio.archive",
    "dimse_trio.instruments",
    "dimse_trio.matching",
    "dimse_trio.otel",
    "dimse_trio.testing",
    "dimse_trio.testing.dcmtk",
)
"""Modules whose public names have a page."""

INTERNAL = re.compile(r"dimse_trio\.protocol\..*|([\w.]*\.)?(_\w+|\w*T)")
"""What signatures may name without a page: the protocol core's, private names, type variables."""

_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*(\(\))?")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))")


def aliases() -> dict[str, str]:
    """Every way in which a public object may be called, to the name it is documented under."""
    known: dict[str, str] = {}
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", dir(module)):
            value = getattr(module, name)
            home = getattr(value, "__module__", None) or ""
            if name.startswith("_") or not home.startswith("dimse_trio"):
                continue
            public = f"{module_name}.{name}"
            for alias in (name, public, f"{home}.{name}"):
                known.setdefault(alias, public)
    return known


def role(
    _name: str, rawtext: str, text: str, lineno: int, inliner: Any, *_: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """The default role."""
    code = nodes.literal(rawtext, text, classes=["code"])
    if _NAME.fullmatch(text) is None:
        return [code], []
    reference = addnodes.pending_xref(
        rawtext,
        code,
        refdomain="py",
        reftype="obj",
        reftarget=text.removesuffix("()"),
        refexplicit=True,
        may_be_code=True,
    )
    return [reference], []


def translate(
    _app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Markdown's code in a docstring, in words and in fences, as reStructuredText."""

    def code(match: re.Match[str]) -> str:
        text, follows = match.groups()
        name = _NAME.fullmatch(text) is not None
        return (f":name:`{text}`" if name else f"``{text}``") + ("\\ " if follows else "")

    translated: list[str] = []
    fenced = False
    for line in _CODE.sub(code, "\n".join(lines)).split("\n"):
        if line.strip().startswith("```"):
            fenced = not fenced
            indent = line[: len(line) - len(line.lstrip())]
            translated += [f"{indent}.. code-block:: python", ""] if fenced else [""]
        else:
            translated.append(f"   {line}" if fenced else line)
    lines[:] = translated


def _candidates(target: str, known: dict[str, str]) -> Iterator[str]:
    if target in known:
        yield known[target]
    owner, _, member = target.rpartition(".")
    if owner in known:
        yield f"{known[owner]}.{member}"
    yield f"dimse_trio.Association.{target}"  # its methods are called by their bare names


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Resolve what Sphinx could not: by public name, or as plain text where that is right."""
    if node.get("refdomain") != "py":
        return None
    target: str = node["reftarget"]
    domain = env.domains["py"]
    known = app.config.public_aliases
    if not node.get("refexplicit") or not hasattr(builtins, target):
        for candidate in _candidates(target, known):
            if candidate in domain.objects:
                return domain.resolve_xref(
                    env, node["refdoc"], app.builder, "obj", candidate, node, content
                )
    ours = target.startswith("dimse_trio") or target in known
    if node.get("may_be_code") or not ours or INTERNAL.fullmatch(target):
        return content
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("public_aliases", aliases(), "")
    app.add_role("name", role)
    app.connect("autodoc-process-docstring", translate, priority=400)  # before napoleon
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
