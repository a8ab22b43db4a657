"""The report as one HTML file that needs nothing else: no network, no other file."""

from base64 import b64encode
from html import escape
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 64rem; margin: 2rem auto;
       padding: 0 1rem; }
h1, h2 { font-weight: 600; line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.875rem;
        font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th { border-bottom-color: #888; }
img { max-width: 100%; }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""


def html_page(markdown: str, folder: Path) -> str:
    """A page of the same content.

    Args:
        markdown: the report; its first line is the title.
        folder: that its PNG images lie in; they become part of the page.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in (child for parent in tokens for child in parent.children or []):
        if token.type == "image":
            picture = (folder / unquote(str(token.attrs["src"]))).read_bytes()
            token.attrs["src"] = f"data:image/png;base64,{b64encode(picture).decode()}"
    body = parser.renderer.render(tokens, parser.options, {})
    title = escape(markdown.partition("\n")[0].lstrip("# "))
    return PAGE.format(title=title, style=STYLE, body=body)
