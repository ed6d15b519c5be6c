"""Main text of an HTML page, by trafilatura (Barbaresi 2021), as FineWeb does (Penedo et al. 2024, section 3.2).

The work is done by html_worker.py in a process of its own, a child for each rule, started with the first page.
"""

import contextlib
import dataclasses
import html
import json
import re
import signal
import subprocess
import sys
import weakref
from pathlib import Path

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.html_worker import READY, receive, send
from data_pipelines.filters.markup import is_html, says_html
from fmtrain.schema import rules

WORKER = Path(__file__).with_name("html_worker.py")
_TITLE = re.compile(r"<title(?:\s[^>]{0,200})?>([^<]{1,1000})", re.IGNORECASE)
_ANY_TAG = re.compile(r"<[^<>]*>")
_CALLED = re.compile(r"<(?:!doctype|html|head|body)\b", re.IGNORECASE)
_TITLE_WITHIN = 100_000  # characters from the page's start


class Html:
    """Puts the page's main text in the place of its HTML and its title in meta; drops pages without text.

    A document that is no page and no fragment of one is text already, and is left as it is: Markdown with a table of
    HTML, XML, a template, source code. `when=auto` believes a content type, else judges by the text.
    """

    def __init__(self, config: rules.Html) -> None:
        self.config = config
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, doc: Document) -> Drop | None:
        page = doc.text
        if not page.strip():
            return Drop("html.empty")
        if not self._is_page(doc):
            doc.count("html.no_markup")
            return None  # text already: there is nothing to extract it from
        try:
            text = self._extract(page)
        except ChildDied as e:
            if e.code == -signal.SIGXCPU:
                return Drop("html.timeout", f"{len(page)} characters", self.config.max_seconds)
            return Drop("html.failed", f"exit code {e.code}")
        if not text and self._judged(doc) and mostly_text(page):
            doc.count("html.kept_as_text")
            return None  # some markup, and nothing that trafilatura takes for a page's text
        if not text:
            return Drop("html.empty")
        if len(text) < self.config.min_length:
            return Drop("html.too_short", len(text), self.config.min_length)
        if title := title_of(page):
            doc.meta.setdefault("title", title)
        doc.text = text
        doc.meta.pop("content_type", None)  # that of the page
        return None

    def _judged(self, doc: Document) -> bool:
        """Whether nobody has said what it is."""
        return self.config.when == "auto" and says_html(str(doc.meta.get("content_type") or "")) is None

    def _is_page(self, doc: Document) -> bool:
        if self.config.when != "auto":
            return self.config.when == "always"
        said = says_html(str(doc.meta.get("content_type") or ""))
        if said:
            return "<" in doc.text  # plain text, which many a server calls HTML, has nothing to extract
        return is_html(doc.text) if said is None else False

    def _extract(self, page: str) -> str:
        """The page's text, empty where trafilatura finds none."""
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        try:
            send(child.stdin, page)
            text = receive(child.stdout)
        except BrokenPipeError:
            text = None
        if text is None:
            self._child = None
            raise ChildDied(child.wait())
        return text

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", str(WORKER), json.dumps(dataclasses.asdict(self.config))]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        weakref.finalize(self, _stop, child)
        if receive(child.stdout) != READY:
            raise RuntimeError(f"{WORKER} did not start (exit code {child.wait()}); its error stands in the log above")
        self._child = child
        return child


class ChildDied(Exception):
    """The worker ended while it had a page; `code` as in Popen.returncode."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def mostly_text(page: str) -> bool:
    """Whether a text that does not call itself a page is more than its tags."""
    bare = _ANY_TAG.sub("", page)
    return not _CALLED.search(page) and 2 * len("".join(bare.split())) > len("".join(page.split()))


def title_of(page: str) -> str:
    """What stands in the page's <title>, on one line; empty where there is none near its start."""
    match = _TITLE.search(page, 0, _TITLE_WITHIN)
    return " ".join(html.unescape(match.group(1)).split()) if match else ""
