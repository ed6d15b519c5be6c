"""Does `filter=docs` keep documentation and drop boilerplate? Shares by preset, on PEPs, RFCs and pieces of pages.

python benchmarks/docs_filter.py [--show] [--choose] [FOLDER ...]

Boilerplate is cut out of real pages: the elements of the WARC files' pages that are named for navigation, heads, feet,
forms, side bars, cookies and the like; all of them of a page together; and texts and paragraphs of extracted web data
that are nothing else. Which of these are boilerplate was decided by reading each: `docs_filter_boilerplate.tsv` holds a
label and the first 12 digits of a piece's SHA-256 a line, and no text. `--choose` lists the candidates, `--show` what
`docs` decides wrongly. Files of the FOLDERs that end in `.md` or `.rst`, outside of tests and of 150 words or more, are
counted too: documentation on which nothing was chosen. It leaves with 1 where less than 80% of the PEPs or RFCs is
kept, or less than 80% of the boilerplate dropped.
"""

import argparse
import gzip
import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import lxml.html
import yaml
from peers import need
from warcio.archiveiterator import ArchiveIterator

from data_pipelines import filters
from data_pipelines.document import Document
from data_pipelines.sources.warc import decode
from fmtrain.schema import rules
from fmtrain.schema.load import filled, load

FOLDER = Path(__file__).resolve().parent
DATA = FOLDER.parents[1] / "shared/data"
LABELS = FOLDER / "docs_filter_boilerplate.tsv"
PRESETS = ("docs", "gopher", "fineweb")
DOCUMENTS = {"PEPs": "pretrain/peps.jsonl.gz", "RFCs": "pretrain/rust_rfcs.jsonl.gz"}
TEXTS = ("web/c4_demo/c4_demo.jsonl.gz", "web/dclm_quality_labels/majority_data.jsonl.gz")
ENOUGH = 0.8
LEAST = 150  # words of a file: shorter ones are notes
ALL, LONG = "all boilerplate", 50  # Gopher's least number of words drops shorter pieces whatever they say
_ELEMENTS = ("nav", "header", "footer", "aside", "form", "dialog")
_NAMED = re.compile(
    r"nav|menu|footer|header|cookie|consent|banner|login|sign-?in|sidebar|breadcrumb|search|widget|share|social|"
    r"subscribe|newsletter|comment|error|404|modal|popup|related|pagination",
    re.IGNORECASE,
)
_NOTICE = re.compile(
    r"cookie|log ?in\b|sign ?in\b|password|404|not found|your browser|rights reserved|subscribe|terms of|no results",
    re.IGNORECASE,
)


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def texts(name: str) -> list[str]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def pages() -> Iterator[lxml.html.HtmlElement]:
    """The pages of the WARC files without what no reader sees."""
    parser = lxml.html.HTMLParser(encoding="utf-8")
    for path in sorted((DATA / "web/dolma/warc").glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream):
                kind = record.http_headers and record.http_headers.get_header("Content-Type")
                if record.rec_type != "response" or "html" not in (kind or ""):
                    continue
                page = lxml.html.fromstring(decode(record.content_stream().read(), "").encode(), parser=parser)
                for hidden in page.xpath("//script|//style|//noscript|//svg|//template"):
                    hidden.drop_tree()
                yield page


def said(element: lxml.html.HtmlElement) -> str:
    """An element's text, a line a piece."""
    return "\n".join(line for piece in element.itertext() if (line := " ".join(piece.split())))


def blocks(page: lxml.html.HtmlElement) -> Iterator[str]:
    """The texts of elements that may be boilerplate, each once."""
    found = {}
    for element in page.iter():
        if isinstance(element.tag, str):
            names = " ".join(filter(None, map(element.get, ("id", "class", "role", "aria-label"))))
            if element.tag in _ELEMENTS or (element.tag in ("div", "section", "ul", "ol") and _NAMED.search(names)):
                found[said(element)] = None
    yield from (text for text in found if len(text) >= 40)


def candidates() -> Iterator[tuple[str, str]]:
    """(what it is cut from, text) of all that may be boilerplate."""
    for page in pages():
        for block in blocks(page):
            yield "block", block
    for name in TEXTS:
        for text in texts(name):
            yield "text", text
            for line in text.split("\n"):
                if _NOTICE.search(line) and len(line.split()) >= 8:
                    yield "paragraph", line.strip()


def boilerplate() -> dict[str, list[str]]:
    """Label -> pieces; `around`: all that is labelled in a page together."""
    labels = dict(line.split("\t")[::-1] for line in LABELS.read_text().splitlines() if line[0] != "#")
    found: dict[str, dict[str, None]] = {}
    for _, text in candidates():
        if label := labels.get(key(text)):
            found.setdefault(label, {})[text] = None
    for page in pages():
        chosen = [text for text in blocks(page) if key(text) in labels]
        whole = [text for text in chosen if not any(text != other and text in other for other in chosen)]
        if len(whole) > 1:
            found.setdefault("around", {})["\n\n".join(whole)] = None
    return {label: list(pieces) for label, pieces in found.items()}


def others(folders: list[Path]) -> dict[str, list[str]]:
    """Documentation below the folders, by its ending."""
    found: dict[str, dict[str, None]] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        fixture = any(part.startswith("test") for part in path.parts)
        if path.suffix in (".md", ".rst") and path.is_file() and not fixture:
            text = path.read_bytes().decode("utf-8", "replace")
            if len(text.split()) >= LEAST:
                found.setdefault(f"other {path.suffix}", {})[text] = None
    return {label: list(texts) for label, texts in found.items()}


def preset(name: str) -> Callable[[str], str]:
    """Why a text goes under the option `filter=NAME`, its rules on addresses and pages apart; empty where it stays."""
    option = yaml.safe_load((FOLDER.parent / f"conf/filter/{name}.yaml").read_text())
    config = load(rules.Filter, filled(rules.Filter, option))
    chain = [filters.make(rule, config) for rule in config.rules if rule not in ("url", "html")]

    def why(text: str) -> str:
        doc = Document("text", text)
        return next((drop.rule for rule in chain if (drop := rule(doc)) is not None), "")

    return why


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--show", action="store_true", help="what docs decides wrongly")
    parser.add_argument(
        "--choose", action="store_true", help="the candidates for boilerplate, with what they are cut from"
    )
    parser.add_argument("folders", nargs="*", type=Path, help="where other documentation is")
    given = parser.parse_args()
    need(data=DATA)
    if given.choose:
        for kind, text in candidates():
            print(f"{key(text)}\t{kind}\t{len(text.split())}\t{text[:300]!r}")
        return
    documents = {label: texts(name) for label, name in DOCUMENTS.items()} | others(given.folders)
    junk = boilerplate()
    every = [text for pieces in junk.values() for text in pieces]
    long = [text for text in every if len(text.split()) >= LONG]
    sets = documents | junk | {ALL: every, f"of them {LONG} words or more": long}
    kept: dict[tuple[str, str], float] = {}
    reasons: dict[str, Counter[str]] = {}
    for name in PRESETS:
        why = preset(name)
        begun = time.process_time()
        for label, pieces in sets.items():
            found = [why(text) for text in pieces]
            kept[name, label] = found.count("") / len(pieces)
            if label in documents:
                reasons.setdefault(name, Counter()).update(filter(None, found))
            if given.show and name == "docs":
                wrong = [
                    (text, reason)
                    for text, reason in zip(pieces, found, strict=True)
                    if bool(reason) == (label in documents)
                ]
                for text, reason in wrong:
                    print(label, reason, len(text.split()), repr(text[:200]))
        size = sum(len(text.encode("utf-8", "replace")) for pieces in sets.values() for text in pieces) / 1e6
        print(f"{name}: {size / (time.process_time() - begun):.1f} MB a CPU second")
    print(f"\n| | documents |{''.join(f' {name} |' for name in PRESETS)}\n|---|---|{'---|' * len(PRESETS)}")
    for label, pieces in sets.items():
        shares = [kept[name, label] if label in documents else 1 - kept[name, label] for name in PRESETS]
        verb = "kept" if label in documents else "dropped"
        print(f"| {label}, {verb} | {len(pieces)} |{''.join(f' {share:.3f} |' for share in shares)}")
    for name in PRESETS:
        print(f"\ndocuments dropped by {name}: {', '.join(f'{n} {rule}' for rule, n in reasons[name].most_common(6))}")
    bad = [label for label in DOCUMENTS if kept["docs", label] < ENOUGH]
    sys.exit(bool(bad) or 1 - kept["docs", ALL] < ENOUGH)


if __name__ == "__main__":
    main()
