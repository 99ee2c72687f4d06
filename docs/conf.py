"""How the site is built: `uv run --group docs sphinx-build -W docs site`, without the network."""

import re
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "_ext")]

project = "Weft"
author = "the authors of Weft"
copyright = "the authors of Weft"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "notebooks",
    "reference",
]
nitpicky = True
html_theme = "furo"
html_title = "Weft"
pygments_dark_style = "monokai"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "attrs_inline"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # shapes and dtypes stand in the text; hints are for type checkers
autodoc_member_order = "bysource"
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"


def mark_columns(app, doctree):
    """Marks output that stands in columns, the lines of which must not wrap."""
    from docutils.nodes import literal_block

    for block in doctree.findall(literal_block):
        if block.get("language") == "text" and re.search(r"│|\S {2,}\S", block.astext()):
            block["classes"].append("columns")


def setup(app):
    app.connect("doctree-read", mark_columns)
