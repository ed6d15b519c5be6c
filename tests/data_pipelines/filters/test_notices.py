"""Notices of a site go, texts that mention them stay; and the preset for documentation does both on real ones."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

from data_pipelines.document import Document
from data_pipelines.filters import make
from data_pipelines.filters.base import Drop
from data_pipelines.filters.notices import Notices
from fmtrain.schema import rules
from tests.needs import REPOSITORY

PROSE = "The committee met on Tuesday to discuss the harbour, and its members agreed that the wall must be mended. "
NOTICES = [
    "We use cookies to give you the best experience on our site. By continuing you agree to our use of cookies, as our "
    "privacy policy says.",
    "Sign in to your account. Enter your username and password. Forgot your password? Create an account.",
    "Page not found. The page you are looking for is no longer available. Please try again, or contact us.",
    "Your browser does not support what this site needs. Please enable JavaScript.",
]


def test_notices_go() -> None:
    rule = Notices(rules.Notices())
    for notice in NOTICES:
        drop = rule(Document("a", notice))
        assert drop is not None and drop.rule == "notices.share" and drop.threshold == 0.4, notice
    assert rule(Document("a", PROSE * 5 + NOTICES[0])) is None
    assert rule(Document("a", "")) is None


def test_phrases_begin_words() -> None:
    rule = Notices(rules.Notices(phrases=["Stone (c)"], max_share=0.5))
    assert rule(Document("a", "A stone (c) is here.")) == Drop("notices.share", 1.0, 0.5)
    assert rule(Document("a", "A milestone (c) is here.")) is None


def test_documentation_is_kept_and_boilerplate_dropped(shared_data: Path) -> None:
    """At least 80% of the PEPs and RFCs, and 80% of the pieces of pages: the script leaves with 1 below that."""
    script = REPOSITORY / "benchmarks/docs_filter.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "all boilerplate, dropped" in done.stdout


def test_views_judge_and_leave_the_text(shared_data: Path) -> None:
    """A view is asked of each rule alone; the text is never changed by it."""
    with gzip.open(shared_data / "pretrain/rust_rfcs.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in list(lines)[:60]]
    for name in ("gopher_quality", "gopher_repetition", "fineweb"):
        config = rules.Filter(name="x", rules=[name])
        getattr(config, name).view = "prose"
        rule, plain = make(name, config), make(name, rules.Filter(name="x"))
        for text in texts:
            doc = Document("a", text)
            assert rule(doc) == plain(Document("a", doc.prose.text)) and doc.text == text
