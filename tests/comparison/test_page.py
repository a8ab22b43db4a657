"""The HTML report says what the Markdown one says, and needs no other file."""

import re
from base64 import b64decode
from html.parser import HTMLParser

from auxlight.comparison.page import html_page
from auxlight.comparison.report import write_report
from tests.comparison.test_compare import comparison, pretend


class Seen(HTMLParser):
    """Rows of tables, words outside of them, and what the page fetches."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.text, self.sources, self.path = [], "", [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag != "meta":  # the one that has no end
            self.path.append(tag)

    def handle_endtag(self, tag):
        assert self.path.pop() == tag  # well-formed

    def handle_data(self, data):
        if {"td", "th"} & set(self.path):
            self.rows[-1][-1] += data
        elif "style" not in self.path and "head" not in self.path:
            self.text += data


def test_both_reports_have_the_same_tables_words_and_plots(tmp_path):
    study = comparison(tmp_path, "single", "uniform", "human", seeds=range(3))
    for run in study.runs():
        pretend(run, 0.6 + 0.01 * run.seed + 0.1 * (run.method == "human"))
    markdown = write_report(study).read_text()
    seen = Seen((tmp_path / "report.html").read_text())
    lines = [line for line in markdown.splitlines() if line.startswith("|") and not line.startswith("|-")]
    assert seen.rows == [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] and len(lines) == 4
    words = "\n".join(line for line in markdown.splitlines() if not line.startswith(("|", "![")))
    assert seen.text.split() == re.sub(r"^(#+|-) |\*\*", "", words, flags=re.MULTILINE).split()
    plots = [tmp_path / name for name in re.findall(r"!\[.*\]\((.*)\)", markdown)]
    assert len(plots) == 2 and seen.sources == [source for source in seen.sources if source.startswith("data:")]
    pictures = [b64decode(source.removeprefix("data:image/png;base64,")) for source in seen.sources]
    assert pictures == [plot.read_bytes() for plot in plots]


def test_names_are_text_and_never_markup(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"picture")
    page = html_page("# A & B\n\n<script>alert(1)</script>\n\n| a |\n|---|\n| x < y |\n\n![a b](a%20b.png)\n", tmp_path)
    seen = Seen(page)
    assert "<script" not in page and "<title>A &amp; B</title>" in page
    assert seen.rows == [["a"], ["x < y"]]
    assert [b64decode(source.split(",")[1]) for source in seen.sources] == [b"picture"]
