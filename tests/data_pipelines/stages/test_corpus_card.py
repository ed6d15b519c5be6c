"""The data card of a corpus whose sources, licences, ids and file names are an attack on whoever reads it."""

import json
import re
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from fmtrain.kinds.corpus import CorpusJob
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.rules import Decontaminate, Filter
from fmtrain.schema.sources import Local
from tests.hostile import EVIL, Elements


def card(make_corpus: Any, folder: Path, evil: str, name: str) -> Path:
    folder.mkdir()
    rows = [{"id": f"{n}{evil}", "text": f"a text of its own {n}", "source": f"s{evil}", "license": f"l{evil}"}
            for n in range(30)]  # fmt: skip
    rows += [{"id": f"again{n}{evil}", "text": "a text of its own 3", "source": f"s{evil}"} for n in range(3)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"set{evil[:60].replace('/', '')}.txt").write_text("no row of it is met\n")
    rules = Decontaminate(files=[str(p) for p in folder.glob("*.txt")])
    wanted = CorpusJob(Local(), Filter("none", ["decontaminate"], decontaminate=rules), Dedup("exact", ["exact"]))
    wanted.dedup.alarm_source_share = 0.01
    beside = next(folder.glob("*.txt"))
    run = make_corpus(wanted, [folder / "rows.jsonl"], folder, name=name, beside=beside)
    run.run()
    out: Path = run.out
    return out


def test_a_card_obeys_nothing_that_its_documents_say(make_corpus: Any, tmp_path: Path) -> None:
    evil, plain = (card(make_corpus, tmp_path / n, t, f"run-{n}") for n, t in (("evil", EVIL), ("plain", "x")))
    kinds = []
    for folder in (evil, plain):
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse((folder / "card.md").read_text())
        kinds.append([t.type for t in tokens])
        inside = {child.type for t in tokens for child in t.children or []}
        assert inside <= {"text", "code_inline", "softbreak", "strong_open", "strong_close"}, inside
    assert kinds[0] == kinds[1]  # the same headings, tables and cells, whatever the documents say
    assert "Warning" in (evil / "card.md").read_text()
    pages = [Elements((folder / "card.html").read_text()).found for folder in (evil, plain)]
    assert pages[0] == pages[1] and not {"script", "img", "a"} & {tag for tag, _ in pages[0]}
    for name in ("card.md", "card.html"):
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", (evil / name).read_text())
