"""HTML or text: kinds of documents by example, real ones, and the labelled set of benchmarks/html_kind.py in part."""

import gzip
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from data_pipelines.filters.markup import is_html
from data_pipelines.sources import warc
from tests.needs import REPOSITORY

PROSE = "The committee met on Tuesday to discuss the harbour, and its members agreed that the old wall must be mended. "
TEXTS = {
    "prose that names tags": f"{PROSE * 9} The tag <p> begins a paragraph, </p> ends it, and <body> holds them.",
    "an address": f"{PROSE * 20} Mail <joe@example.com> or see <https://example.org/x>.",
    "code": "if a<b && c>d then stop",
    "generics": "List<String> and Map<K, V>",
    "Markdown after a comment": f"<!-- toc -->\n- [Summary](#summary)\n<!-- /toc -->\n\n## Summary\n\n{PROSE * 3}",
    "Markdown after an element": f"<h1 align=center>\n<img src=logo.png>\n</h1>\n\n## Use\n\n{PROSE}\n\n- a\n- b\n",
    "Markdown with details": f"# A\n\n<details><summary>B</summary>{PROSE}</details>\n\n| a | b<br>c |\n|---|---|\n",
    "a page in a fence": f"Write this:\n\n```html\n<html><body><p>{PROSE}</p></body></html>\n```\n\n{PROSE}",
    "Markdown with an HTML table": "Sizes\n\n<table>\n<tr><td>1</td></tr>\n</table>\n\n"
    + f"[See](https://a.org). **{PROSE}**\n" * 3,
    "reStructuredText": f"Title\n=====\n\n.. raw:: html\n\n   <p>x</p>\n\n{PROSE}",
    "a PEP": f"PEP: 1\nTitle: A\nAuthor: B\n    C\n\n<p>{PROSE}</p><p>x</p>",
    "XML": "<?xml version='1.0'?>\n<!-- ours -->\n<feed><title>a</title><p>b</p></feed>",
    "XML without a declaration": "<component>\n<name>a</name><p>b</p><ul><li>c</li></ul>\n</component>",
    "a drawing": "<svg viewBox='0 0 1 1'><g><path d='M0 0'/></g></svg>",
    "Jinja": "<ul>\n{% for x in xs %}\n  <li>{{ x }}</li>\n{% endfor %}\n</ul>",
    "a page to be filled in": "<!DOCTYPE html><html><title>{{ a }}</title><body><p>{{ b }}</p></body></html>",
    "PHP": "<div>\n<?php echo $x; ?>\n</div><p>a</p>",
    "JSON": json.dumps({"text": "<p>One</p><p>two</p>" * 9}),
    "JavaScript": "(function() {\n  const rows = '<li><a href=\\\"a\\\">a</a></li><li><a>b</a></li>';\n})();",
    "Python": "import re\n\ndef page():\n    return '<p>a</p><b>c</b>'\n",
    "JSX": "import R from 'react';\n\nexport default () => (\n  <div className={a}>\n    <p>{b}</p>\n  </div>\n);\n",
    "C": "/* <b>bold</b> <i>x</i> */\nint main(void) { return 0; }",
}
PAGES = {
    "a page": f"<!doctype html><html><head><title>a</title></head><body><p>{PROSE}</p></body></html>",
    "a saved page": f"\ufeff\n<!-- saved --><html><p>{PROSE}",
    "XHTML": f"<?xml version='1.0'?>\n<!DOCTYPE html><html xmlns='x'><body><p>{PROSE}</p></body></html>",
    "paragraphs": f"<p>{PROSE * 3}</p>\n\n<p>{PROSE * 4}</p>",
    "an attribute": f"<div class='a' hidden>{PROSE}",
    "capitals": f"<P ALIGN=left>{PROSE}",
    "breaks": f"Hello<br/>{PROSE[:80]}<b>you</b>",
    "a piece that begins in a tag": f"ass='x'>{PROSE}</p><p>{PROSE}</p><ul><li>a</li></ul>",
    "a piece that begins in a script": "x = 1;\n  if (y) { z(); }\n}</script></head><body><p>a</p><div>b</div>",
    "a piece that ends in a script": f"<h2>News</h2><p>{PROSE}</p><script>var a = {{b: 1}};\n" + "f(a);\n" * 30,
    "code shown": f"<p>{PROSE}</p><pre>#include &lt;a.h&gt;\nint main() {{\n}}\n# x\n</pre><p>{PROSE}</p>",
    "a page on templates": f"<html><p>{PROSE}</p><pre>{{% if a %}}</pre><p>And <code>{{{{ b }}}}</code></p></html>",
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    assert not is_html(TEXTS[name])


@pytest.mark.parametrize("name", PAGES)
def test_pages(name: str) -> None:
    assert is_html(PAGES[name])


@hypothesis.given(
    strategies.lists(
        strategies.sampled_from(
            [
                PROSE,
                "## A heading",
                "- a [link](https://a.org)\n- **bold**",
                "<!-- a comment -->",
                "a<br>b",
                '<img src="a.png">',
                "<details><summary>More</summary>",
                "```html\n<ul><li>a</li></ul>\n```",
                "| a | b |\n|---|---|\n| `<p>` | c |",
            ]
        ),
        min_size=1,
        max_size=12,
    )
)
def test_markdown_of_all_sorts(parts: list[str]) -> None:
    """As the documents were that the rule had emptied: a title, then anything in any order."""
    assert not is_html("\n\n".join(["# A title", *parts, PROSE]))


def test_real_documents_and_pieces_of_real_pages(shared_data: Path) -> None:
    texts = []
    for name in ("peps", "rust_rfcs"):
        with gzip.open(shared_data / f"pretrain/{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    assert sum(map(is_html, texts)) * 200 <= len(texts) > 1000
    draw, wrong, cuts = random.Random(1), 0, 0
    for page in pages(shared_data):
        assert is_html(page)
        for _ in range(20):
            at = draw.randrange(len(page))
            piece = page[at : at + 3000]
            if piece.count("</p>") + piece.count("</div>") + piece.count("</a>") >= 3:
                cuts, wrong = cuts + 1, wrong + (not is_html(piece))
    assert wrong * 200 <= cuts > 300


def test_one_in_two_hundred_of_the_labelled_set(shared_data: Path) -> None:
    """On what every machine has: the data, and the files of this Python's packages."""
    script = REPOSITORY / "benchmarks/html_kind.py"
    packages = Path(pytest.__file__).parents[1]
    command = [sys.executable, str(script), "--most", "100", "--wrong", str(packages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "cuts of WARC pages" in done.stdout and "Part D" in done.stdout


@pytest.mark.parametrize(
    "unit",
    ["<", "<a ", '<a x="', "`", " ", "\n", "<!--", "<script>", "<pre>", "</pre>", "<p> ", "a: b\n", "{{a", "|", "](",
     "<p a a a", "<svg><svg>", "<?xml?>", "```\n", "<a x = ", '<a x="y"', "[a](b", "<code>x</code>", "\t\n"],
)  # fmt: skip
def test_time_is_linear(unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit)) + "<b"
        begun = time.process_time()
        is_html(text)
        return time.process_time() - begun

    assert seconds(800_000) < 8 * seconds(200_000) + 0.5


def pages(shared_data: Path) -> list[str]:
    """The HTML of the responses of the WARC files."""
    from warcio.archiveiterator import ArchiveIterator

    found = []
    for path in sorted((shared_data / "web/dolma/warc").glob("*.gz")):
        with gzip.open(path) as stream:
            for record in ArchiveIterator(stream):
                if record.rec_type == "response" and "html" in (record.http_headers.get_header("Content-Type") or ""):
                    found.append(warc.decode(record.content_stream().read(), ""))
    assert found
    return found
