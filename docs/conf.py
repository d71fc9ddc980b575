"""Configuration of the documentation build."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "phyxius-migration"
author = "the phyxius-migration authors"
copyright = f"2026, {author}"
release = version = version_of("phyxius-migration")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# A single backtick in a docstring is code, as it is in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# The build does not go to the network, so only references to our own names can be, and are, checked.
nitpick_ignore_regex = [
    ("py:.*", r"(?!phyxius\b).*"),
    ("py:.*", r"phyxius\..*\._\w+\.[A-Z](_co|_contra)?"),  # type variables
]


def _resolve_public(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Point a reference at a private module (``phyxius.clock._instant.Instant``) to its public face."""
    public = re.sub(r"\._\w+(?=\.)", "", node.get("reftarget", ""))
    if node.get("refdomain") != "py" or public == node["reftarget"]:
        return None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, node["reftype"], public, node, contnode)


def setup(app: Sphinx) -> None:
    """Register the resolver."""
    app.connect("missing-reference", _resolve_public)
