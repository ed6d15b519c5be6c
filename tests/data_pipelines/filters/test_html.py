"""Pages to text: datatrove's Trafilatura is the peer, a page at a time."""

import gzip
import os
from pathlib import Path

import pytest

from data_pipelines.document import Document
from data_pipelines.filters import html as module
from data_pipelines.filters.html import Html, title_of
from fmtrain.schema import rules

PROSE = "The committee met on Tuesday to discuss the harbour, and its members agreed that the old wall must be mended. "
PAGE = f"""<html><head><title>Harbour &amp; wall
 news</title></head><body><nav><a href=/>Home</a> <a href=/a>Archive</a></nav>
<article><h1>The harbour</h1><p>{PROSE * 3}</p><p>{PROSE[::-1]}{PROSE}</p></article>
<footer>Copyright</footer></body></html>"""


@pytest.fixture(scope="module")
def html() -> Html:
    return Html(rules.Html())


def test_main_text_and_title(html: Html) -> None:
    doc = Document("a", PAGE)
    assert html(doc) is None
    assert "old wall must be mended" in doc.text and "<p>" not in doc.text and "Archive" not in doc.text
    assert doc.meta["title"] == "Harbour & wall news"


def test_reasons(html: Html) -> None:
    for page in ("", "  \n", "<html><body></body></html>"):
        drop = html(Document("a", page))
        assert drop is not None and drop.rule == "html.empty"
    drop = Html(rules.Html(min_length=10_000))(Document("a", PAGE))
    assert drop is not None and drop.rule == "html.too_short" and drop.threshold == 10_000


@pytest.mark.parametrize(
    "text",
    [
        f"{PROSE * 20} Mail <joe@example.com> or see <https://example.org/x>.",
        "if a<b && c>d then stop",
        "List<String> and Map<K, V>",
        f"{PROSE * 9} The tag <p> begins a paragraph, </p> ends it, and <body> holds them.",
        "# A title\n\n    <name of author>\n\n" + PROSE * 3,
    ],
)
def test_text_is_left_as_it_is(html: Html, text: str) -> None:
    doc = Document("a", text)
    assert html(doc) is None and doc.text == text and doc.counts == {"html.no_markup": 1}


def test_when(html: Html) -> None:
    note = "# Notes\n\n<!-- toc -->\n\nSee <br> the *wall*.\n"
    for when, text, touched in [
        ("never", PAGE, False),
        ("auto", PAGE, True),
        ("auto", note, False),
        ("always", note, True),
    ]:
        doc = Document("a", text)
        dropped = Html(rules.Html(when=when))(doc)
        assert (dropped is not None or doc.text != text) == touched, (when, text)


@pytest.mark.parametrize(
    ("kind", "text", "touched"),
    [
        ("text/html; charset=utf-8", f"# A title\n\n{PROSE * 5}<br>", True),
        ("application/xhtml+xml", PAGE, True),
        ("TEXT/HTML", PROSE, False),  # what has no markup has nothing to extract
        ("text/plain", PAGE, False),
        ("text/markdown", PAGE, False),
        ("application/xml", PAGE, False),
        ("application/rss+xml", PAGE, False),
        ("application/octet-stream", PAGE, True),
        ("article", PAGE, True),
        ("", PAGE, True),
    ],
)
def test_a_content_type_is_believed(html: Html, kind: str, text: str, touched: bool) -> None:
    doc = Document("a", text, meta={"content_type": kind})
    dropped = html(doc)
    assert (dropped is not None or doc.text != text) == touched
    assert ("content_type" in doc.meta) == (doc.text == text), "the text that was extracted is no page"


def test_as_datatrove_extracts(shared_data: Path) -> None:
    from datatrove.pipeline.extractors import Trafilatura

    peer, ours = Trafilatura(deduplicate=False), Html(rules.Html(deduplicate=False))
    for page in pages(shared_data):
        doc = Document("a", page)
        dropped = ours(doc)
        assert (peer.extract(page) or "") == ("" if dropped else doc.text)


def test_a_page_does_not_depend_on_the_pages_before(shared_data: Path) -> None:
    ours, chosen = Html(rules.Html()), list(pages(shared_data))[:8]

    def texts(order: list[str]) -> dict[str, str]:
        docs = [Document("a", page) for page in order]
        return {page: "" if ours(doc) else doc.text for page, doc in zip(order, docs, strict=True)}

    assert texts(chosen) == texts(chosen[::-1])


def test_odd_pages(html: Html) -> None:
    for page in ("\ud800<p>x</p>", "<" * 10_000, "<?xml version='1.0' encoding='utf-16'?><html><p>x</p></html>", "\0"):
        html(Document("a", page))
    assert html(Document("a", PAGE)) is None


def test_a_page_has_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORKER", worker(tmp_path, "while page: pass"))
    ours = Html(rules.Html(max_seconds=1))
    drop = ours(Document("a", PAGE))
    assert drop is not None and (drop.rule, drop.threshold) == ("html.timeout", 1)
    assert ours(Document("a", "quick")) is None


def test_a_page_that_kills_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORKER", worker(tmp_path, "os.abort()"))
    ours = Html(rules.Html())
    drop = ours(Document("a", PAGE))
    assert drop is not None and (drop.rule, drop.value) == ("html.failed", "exit code -6")
    assert ours(Document("a", "quick")) is None


def test_a_worker_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "worker.py"
    path.write_text("raise SystemExit(3)")
    monkeypatch.setattr(module, "WORKER", path)
    with pytest.raises(RuntimeError, match="exit code 3"):
        Html(rules.Html())(Document("a", PAGE))


def test_the_child_goes_with_its_rule() -> None:
    ours = Html(rules.Html())
    ours(Document("a", PAGE))
    assert ours._child is not None
    pid = ours._child.pid
    del ours
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_settings() -> None:
    assert title_of("<TITLE lang=en> a\n b </TITLE>") == "a b" and title_of("<p>") == ""


def worker(folder: Path, fault: str) -> Path:
    """The worker, with a fault in place of the extraction of any page but "quick"."""
    source = module.WORKER.read_text()
    faulty = f"import os\ndef extract(page, **_):\n    if page != 'quick':\n        {fault}\n    return 'text'"
    assert "from trafilatura import extract" in source
    path = folder / "worker.py"
    path.write_text(source.replace("from trafilatura import extract", faulty))
    return path


def pages(shared_data: Path) -> list[str]:
    """The HTML of the responses of a WARC file."""
    from warcio.archiveiterator import ArchiveIterator

    found = []
    with gzip.open(shared_data / "web/dolma/warc/sample-0000.warc.gz") as stream:
        for record in ArchiveIterator(stream):
            if record.rec_type == "response" and "html" in (record.http_headers.get_header("Content-Type") or ""):
                found.append(record.content_stream().read().decode("utf-8", "replace"))
    assert found
    return found
