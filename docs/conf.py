"""Sphinx's configuration; `make docs` builds the site into docs/_build."""

import auxlight

project = "auxlight"
author = "The auxlight authors"
release = version = auxlight.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"auxlight {release}"
html_static_path = ["_static"]
default_role = "py:obj"  # a link where there is such a name, plain text where there is none
exclude_patterns = ["_build"]
# What a class takes stands in its own docstring, under Args.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
