"""Sphinx configuration."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import dimse_trio

project = "dimse-trio"
author = "the dimse-trio contributors"
project_copyright = author
release = version = dimse_trio.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "sphinx_click",
    "public_names",
    "protocol_tables",
    "conformance_tables",
]
exclude_patterns = ["_build"]
nitpicky = True

default_role = "name"  # from public_names: a link where the name is known, else code
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
autodoc_type_aliases = {"AnyHandler": "dimse_trio.AnyHandler"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Links into other projects' documentation need the network; the build itself must not.
if os.environ.get("READTHEDOCS") or os.environ.get("DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
        "pydicom": ("https://pydicom.github.io/pydicom/stable", None),
    }

html_theme = "furo"
html_title = f"dimse-trio {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

doctest_global_setup = """
import datetime as dt
import dimse_trio as dimse
"""
