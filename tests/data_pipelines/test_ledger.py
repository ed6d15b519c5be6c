"""Questions to a ledger: by id or address, and the text that a rule judged rather than the one that was read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import ledger
from fmtrain.errors import ConfigError
from fmtrain.kinds.corpus import CorpusJob, CorpusStage
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.rules import Filter, GopherQuality
from fmtrain.schema.sources import Local

PROSE = "It was the best of times, it was the worst of times, that we have to be at with the rest of them. "


def page(text: str) -> str:
    return f"<html><head><title>A page</title></head><body><article><p>{text}</p></article></body></html>"


ROWS = [
    {"id": "short", "url": "https://www.example.org/short/?utm_source=feed", "text": page("Two words are few.")},
    {"id": "long", "url": "https://example.org/long", "text": page(PROSE * 5)},
    {"id": "copy", "url": "https://example.org/copy", "text": page(PROSE * 5)},
    {"id": "again", "url": "https://example.org/short", "text": page(PROSE * 4 + "Another end. ")},
    {"id": "nowhere", "text": page("No address.")},
]


@pytest.fixture
def corpus(make_corpus: Any, tmp_path: Path) -> Path:
    (path := tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    rules = Filter("none", ["html", "gopher_quality"], gopher_quality=GopherQuality(min_doc_words=20))
    stage = CorpusStage(keep_dropped=True)
    job = CorpusJob(Local(heldout_modulus=0), rules, Dedup("exact", ["exact"]), stage=stage)
    run = make_corpus(job, [path], tmp_path)
    run.run()
    out: Path = run.out
    return out


def said(corpus: Path, asked: str, *more: str) -> str:
    command = [sys.executable, "-m", "data_pipelines.ledger", str(corpus), "why", *more, "--", asked]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_text_that_was_judged_is_kept(corpus: Path) -> None:
    (row,) = ledger.why(corpus, "short")
    assert row["rule"] == "gopher_quality.too_few_words" and row["text"] == "Two words are few."
    assert row["bytes"] == len("Two words are few.") and row["url"] == ROWS[0]["url"]
    (row,) = [*ledger.why(corpus, "copy"), *ledger.why(corpus, "long")]  # one of the two stays
    assert row["rule"] == "dedup.exact" and row["text"].startswith("It was the best") and "<p>" not in row["text"]
    assert row["url"] in ("https://example.org/copy", "https://example.org/long")
    (row,) = ledger.why(corpus, "nowhere")
    assert row["url"] is None


def test_an_address_is_found_as_it_was_read_and_otherwise(corpus: Path) -> None:
    assert "short: dropped by gopher_quality.too_few_words: 4 against 20" in said(corpus, ROWS[0]["url"])
    for other in ("http://example.org/short/", "https://www.example.org/short?utm_source=x"):
        told = said(corpus, other)
        assert "short: dropped by gopher_quality" in told and "again: kept, in train" in told
    told = said(corpus, "https://example.org/copy") + said(corpus, "https://example.org/long")
    assert told.count("dropped by dedup.exact") == 1 and told.count("kept, in train") == 1
    assert json.loads(said(corpus, "short", "--json"))[0]["url"] == ROWS[0]["url"]


@pytest.mark.parametrize("asked", ["https://example.org/other", "a.txt", "example.org/short"])
def test_what_is_nowhere_is_said_with_what_ids_are(corpus: Path, asked: str) -> None:
    with pytest.raises(ConfigError, match=r"no document has the id or address .*of a text file FILE, of a piece"):
        ledger._why(corpus, asked, False)
