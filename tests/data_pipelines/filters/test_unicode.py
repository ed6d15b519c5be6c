"""ftfy, line by line: datatrove's FTFYFormatter is the peer."""

import gzip
import json
from pathlib import Path

import ftfy
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.document import Document
from data_pipelines.filters.unicode import Unicode
from fmtrain.schema import rules

AS_DATATROVE = Unicode(rules.Unicode(normalization="none"))
PIECES = [
    "schÃ¶n",
    "âœ”",
    "&amp;",
    "&lt;p&gt;",
    "<b>",
    "\n",
    "\r\n",
    " ",
    "naïve",
    "l’été",
    "ﬁ",
    "\x07",
    "\x85",
    "e\u0301",
    "a" * 9,
]


def mended(rule: Unicode, text: str) -> str:
    doc = Document("a", text)
    assert rule(doc) is None
    assert doc.counts == ({"unicode.mended": 1} if doc.text != text else {})
    return doc.text


def test_mojibake() -> None:
    assert mended(Unicode(rules.Unicode()), "schÃ¶n âœ” fine") == "schön ✔ fine"
    assert mended(Unicode(rules.Unicode()), "plain text\nof ASCII") == "plain text\nof ASCII"


def test_settings() -> None:
    assert mended(Unicode(rules.Unicode()), "“a” e\u0301 ﬁ") == "“a” é ﬁ"
    assert mended(Unicode(rules.Unicode(uncurl_quotes=True)), "“a”") == '"a"'
    assert mended(Unicode(rules.Unicode(normalization="NFKC")), "ﬁ") == "fi"
    assert mended(Unicode(rules.Unicode(fix_entities=False)), "a &amp; b") == "a &amp; b"


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join))
def test_lines_that_are_passed_over_need_nothing(text: str) -> None:
    assert mended(AS_DATATROVE, text) == ftfy.fix_text(text, AS_DATATROVE.config)


def test_as_datatrove_mends(shared_data: Path) -> None:
    from datatrove.pipeline.formatters import FTFYFormatter

    peer = FTFYFormatter()
    with gzip.open(shared_data / "multilingual/udhr.jsonl.gz") as rows:
        texts = [json.loads(row)["text"][:1500] for row in rows]
    texts += [text.encode().decode("latin-1") for text in texts[::4]]
    assert [mended(AS_DATATROVE, text) for text in texts] == [peer.format(text) for text in texts]
