"""Sphinx's configuration; `make docs` builds the site into docs/_build."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

import auxlight

project = "auxlight"
author = "The auxlight authors"
release = version = auxlight.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"auxlight {release}"
html_static_path = ["_static"]
default_role = "py:obj"  # a link where there is such a name, plain text where there is none
exclude_patterns = ["_build", "results/*"]
# What a class takes stands in its own docstring, under Args.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def _inline(translator: Any, node: nodes.Node) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _display(translator: Any, node: nodes.Node) -> None:
    translator.body.append(f"<p>{convert(node.astext(), display='block')}</p>")
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Equations become MathML, which browsers show by themselves: the site needs no network."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))


html_math_renderer = "mathml"
