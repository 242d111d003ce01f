"""Configuration of Sphinx; `make docs` builds the pages into docs/_build without a network."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from sphinx.application import Sphinx

import algebraformer

project = "Algebraformer"
author = copyright = "The Algebraformer developers"
release = version = algebraformer.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_parser"]
exclude_patterns = ["_build", "api"]
html_theme = "furo"
smartquotes = False  # u' is a derivative
html_title = f"Algebraformer {release}"

myst_heading_anchors = 3

autosummary_generate = False  # the members stand on the same page
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say more than annotations: shapes, dtypes, units
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True


def add_module_references(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Append to a docstring the references that it cites from the docstring of its module."""
    cited = set(re.findall(r"\[(\d+)\]_", "\n".join(lines)))
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    if what == "module" or not cited or module is None or "References" in lines:
        return
    listed = inspect.getdoc(module) or ""
    entries = re.findall(r"^(\.\. \[(\d+)\] .*(?:\n   .*)*)", listed, re.MULTILINE)
    lines += ["", "References", "----------"]
    for text, number in entries:
        if number in cited:
            lines += text.splitlines()


def escape_bars(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep |x| an absolute value: docstrings here never mean reStructuredText's substitutions."""
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else line.replace("|", "\\|") for line in lines]


def setup(app: Sphinx) -> None:
    """Connect both hooks before numpydoc's own, which has priority 500."""
    app.connect("autodoc-process-docstring", add_module_references, priority=400)
    app.connect("autodoc-process-docstring", escape_bars, priority=401)
