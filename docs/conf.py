"""How the documentation is built: `sphinx-build -n -W docs docs/_build`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

_DOCS = Path(__file__).parent
# The extension beside this file, and a checkout that is not installed.
sys.path[:0] = [str(_DOCS / "_ext"), str(_DOCS.parent)]

_metadata = tomllib.loads((_DOCS.parent / "pyproject.toml").read_text())["project"]

project = "agenttrace"
author = "The agenttrace authors"
project_copyright = "The agenttrace authors"
version = release = _metadata["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "agenttrace_docs",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "agenttrace"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
# Docstrings write `name` for code, as Markdown does.
default_role = "code"
# Public names have to resolve.  Those of modules below are types in signatures, which
# are no promise; those of others would need their inventories, and with them the
# network, in every build.
nitpick_ignore_regex = [(r"py:.*", r"(?!agenttrace\.\w+$).*")]
