"""How `make docs` builds the site: the pages of this folder, and the API from the docstrings."""

from importlib.metadata import version as version_of

project = "squeezekit"
author = "the squeezekit authors"
copyright = "the squeezekit authors, Apache-2.0"
version = release = version_of("squeezekit")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Docstrings write code in single backticks, as Markdown does.
default_role = "code"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "squeezekit"
smartquotes = False  # code in docstrings has straight ones


def mark_examples(app, what, name, obj, options, lines):
    """Docstrings show examples as indented lines, as Markdown does; say so in reStructuredText."""
    marked, inside = [], False
    for i, line in enumerate(lines):
        if line.endswith(":") and not line.startswith(" "):  # "Args:", and what follows it
            marked += lines[i:]
            break
        starts = line.startswith("    ") and not inside and (i == 0 or not lines[i - 1].strip())
        if starts:
            marked += [".. code-block:: python", ""]
        inside = starts or (inside and (line.startswith("    ") or not line.strip()))
        marked.append(line)
    lines[:] = marked


def setup(app):
    """Connect what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", mark_examples, priority=400)
