"""Is a document HTML, or text that holds some markup? The confusion table of the rule `html` on a labelled set.

python benchmarks/html_kind.py [--most 300] [--part A|B|C|D] [--wrong] [FOLDER ...]

HTML are pages (responses of WARC files, `.html` files of installed documentation) and cuts of them at random places,
200 to 20,000 characters long, that may begin inside a tag or a script. A cut counts as a fragment of a page where at
least MARKUP whole tags stand in it outside of scripts, styles and drawings, by Python's own HTML parser on the whole
page. With fewer it is left out, a page too: nobody can tell it from text, and there is nothing to extract it from.

Text are whole documents: PEPs, RFCs, extracted web text, books, and files of the machine by their endings: Markdown,
reStructuredText, XML, drawings, source code. A template that makes pages is source code, an `.html` file with
statements or many fields in braces among them; one without any mark of a template cannot be told from a fragment and
is left out. So is prose and markup in folders of tests: a fixture's ending says little of what it holds. Without a
FOLDER files are looked for in this Python's folders, in /usr and in toolchains at home: the set is as broad as the
machine.

Part A is what the thresholds were chosen on. B and C (what comes after A and B in an order by hash, other cuts, pages
of toolchains at home) were counted when that was done, and their errors led to more rules. D are the files of the
FOLDERs, by themselves. Texts without any `<` are right whatever is done, so that wrong ones are held against those that
hold one, and pages. It leaves with 1 where more than one of 200 is wrong in any part.
"""

import argparse
import gzip
import hashlib
import itertools
import json
import math
import os
import random
import re
import site
import sys
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from peers import need
from warcio.archiveiterator import ArchiveIterator

from data_pipelines.filters.markup import is_html
from data_pipelines.sources.warc import decode

DATA = Path(__file__).resolve().parents[2] / "shared/data"
MARKUP = 2  # whole tags in a cut
TAGS_A_FIELD = 20  # fewer tags for each `{{` and it is a template
CUTS, CUTS_A_RESPONSE = 4, 24
SHORTEST, LONGEST = 200, 20_000  # characters of a cut
_WITHIN = 60  # files of a folder that are looked at, for breadth
_MOST_BYTES = 1_000_000
PAGES = (".html", ".htm", ".xhtml")
KINDS = {
    "Markdown": (".md", ".markdown"),
    "reStructuredText": (".rst",),
    "XML": (".xml", ".svg", ".xsl", ".xslt", ".xsd", ".rng", ".docbook", ".xhtml", ".plist", ".omex"),
    "templates": (".j2", ".jinja", ".jinja2", ".tmpl", ".tpl", ".ptl", ".php", ".erb", ".mako", ".vue", ".jsp", ".ejs"),
    "Python": (".py", ".pyi", ".pyx"),
    "JavaScript": (".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx"),
    "C and others": (
        ".h",
        ".hpp",
        ".c",
        ".cpp",
        ".cc",
        ".cu",
        ".java",
        ".go",
        ".rs",
        ".cs",
        ".pm",
        ".pl",
        ".rb",
        ".sh",
    ),
    "data": (".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".css", ".csv", ".po", ".tex", ".cmake"),
    "plain": (".txt", ".1", ".text"),
}
_PROSE = KINDS["Markdown"] + KINDS["reStructuredText"] + KINDS["XML"] + KINDS["templates"] + KINDS["plain"]
_STATEMENT = re.compile(r"\{%.{1,200}?%\}|\{#|<%\w|<\?(?!xml)\w", re.DOTALL)
_FIELD = re.compile(r"\{\{.{1,200}?\}\}|\$\{?\w|@\w|<[?%]", re.DOTALL)
PARTS = "ABCD"
_SKIPPED = ("script", "style", "svg")


@dataclass(frozen=True)
class Labelled:
    kind: str
    text: str
    html: bool
    place: str
    part: str


class _Tags(HTMLParser):
    """Where the whole tags of a page stand that are in no script, style or drawing."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=False)
        self.lines = list(itertools.accumulate((len(line) for line in page.split("\n")), lambda a, b: a + b + 1))
        self.spans: list[tuple[int, int]] = []
        self.inside = ""
        self.page = page
        self.feed(page)

    def _at(self) -> int:
        line, column = self.getpos()
        return (self.lines[line - 2] + 1 if line > 1 else 0) + column

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if not self.inside:
            self.spans.append((self._at(), self._at() + len(self.get_starttag_text() or "")))
        if tag in _SKIPPED:
            self.inside = self.inside or tag

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        if not self.inside:
            self.spans.append((self._at(), self._at() + len(self.get_starttag_text() or "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""
        elif not self.inside:
            end = self.page.find(">", self._at())
            self.spans.append((self._at(), end + 1 if end >= 0 else len(self.page)))


def cuts(page: str, number: int, seed: str) -> Iterator[str]:
    """Fragments of a page, at places and of lengths drawn by `seed`."""
    draw, spans = random.Random(seed), _Tags(page).spans
    for _ in range(number):
        length = round(math.exp(draw.uniform(math.log(SHORTEST), math.log(LONGEST))))
        start = draw.randrange(max(1, len(page) - SHORTEST))
        end = start + length
        if sum(start <= a and b <= end for a, b in spans) >= MARKUP:
            yield page[start:end]


def part(place: str) -> str:
    return "AB"[hashlib.sha256(place.encode()).digest()[0] % 2]


def responses() -> Iterator[tuple[str, str]]:
    """(address, HTML) of the pages in the WARC files."""
    for path in sorted((DATA / "web/dolma/warc").glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream):
                kind = record.http_headers and record.http_headers.get_header("Content-Type")
                if record.rec_type == "response" and "html" in (kind or ""):
                    yield record.rec_headers.get_header("WARC-Target-URI"), decode(record.content_stream().read(), "")


def rows() -> Iterator[Labelled]:
    """Texts of the data sets."""
    names = {
        "PEPs": "pretrain/peps.jsonl.gz",
        "RFCs": "pretrain/rust_rfcs.jsonl.gz",
        "books": "pretrain/gutenberg.jsonl.gz",
        "web text": "web/c4_demo/c4_demo.jsonl.gz",
        "web text, labelled": "web/dclm_quality_labels/majority_data.jsonl.gz",
    }
    for kind, name in names.items():
        with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                place = f"{name}:{number}"
                yield Labelled(kind, json.loads(line)["text"], False, place, part(place))


def folders() -> dict[Path, str]:
    """Where files are looked for -> the part that they are for, if for one alone."""
    own = [*site.getsitepackages(), sysconfig.get_path("stdlib"), *(p for p in sys.path if "site-packages" in p)]
    named = dict.fromkeys([*own, "/usr/share", "/usr/lib", "/usr/include"], "")
    named |= dict.fromkeys([str(Path.home() / ".rustup"), str(Path.home() / ".cargo")], "C")
    return {path: only for name, only in named.items() if (path := Path(name)).is_dir()}


def files(root: Path) -> Iterator[Path]:
    """Files below the root, a few of each folder, in an order that is always the same."""
    for at, below, names in os.walk(root):
        below.sort()
        found = sorted(name for name in names if not name.startswith("."))
        yield from (Path(at) / name for name in sorted(found, key=_hash)[:_WITHIN])


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def machine(roots: dict[Path, str], most: int) -> Iterator[Labelled]:
    """Labelled files by kind: `most` that hold a `<`, and a third as many without, then as many again for part C."""
    endings = {ending: kind for kind, all in KINDS.items() for ending in all} | dict.fromkeys(PAGES, "pages")
    by_kind: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for root, only in roots.items():
        for path in files(root):
            if kind := endings.get(path.suffix.lower()):
                by_kind[kind].append((path, only))
    for kind, paths in by_kind.items():
        paths.sort(key=lambda pair: (pair[1], _hash("/".join(pair[0].parts[-3:]))))
        taken = Counter[tuple[str, bool]]()
        for path, only in dict(paths).items():
            if _is_fixture(path) or not (text := _read(path)).strip() or not (named := _kind(kind, text)):
                continue
            holds, enough = "<" in text, most if "<" in text else most // 3
            named_part = only or ("C" if taken["", holds] >= enough else "")
            if taken[named_part, holds] < enough:
                taken[named_part, holds] += 1
                yield Labelled(named, text, named == "pages", str(path), named_part or part(str(path.parent)))


def _kind(kind: str, text: str) -> str:
    """What a file is, given what its ending says; empty where nobody can tell."""
    if kind == "pages":
        tags = len(_Tags(text).spans)
        if _STATEMENT.search(text) or text.count("{{") * TAGS_A_FIELD > tags:
            return "templates"
        return kind if tags >= MARKUP else ""
    return "" if kind == "templates" and not _STATEMENT.search(text) and not _FIELD.search(text) else kind


def _is_fixture(path: Path) -> bool:
    """Whether it is test data of some program: its ending says little of what it holds, often it is odd on purpose."""
    tested = any(part.startswith("test") for part in path.parent.parts)
    return tested and path.suffix.lower() in _PROSE + PAGES


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES or path.is_symlink():
            return ""
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""


def labelled(roots: dict[Path, str], most: int) -> Iterator[Labelled]:
    for address, page in responses():
        yield Labelled("pages of WARC files", page, True, address, part(address))
        for cut in cuts(page, CUTS_A_RESPONSE, address):
            yield Labelled("cuts of WARC pages", cut, True, address, part(address))
        for cut in cuts(page, CUTS_A_RESPONSE, f"{address} again"):
            yield Labelled("cuts of WARC pages", cut, True, address, "C")
    yield from rows()
    for one in machine(roots, most):
        yield one
        if one.kind == "pages":
            for cut in cuts(one.text, CUTS, one.place):
                yield Labelled("cuts of pages", cut, True, one.place, one.part)


def table(title: str, found: list[tuple[Labelled, bool]]) -> tuple[int, int]:
    """Print the confusion table; (wrong, all) of those that hold a `<`."""
    hold = [(one, said) for one, said in found if "<" in one.text]
    cells, every = Counter((one.html, said) for one, said in hold), Counter((one.html, said) for one, said in found)
    print(f"\n{title}\n\n| | said HTML | said text | of them without any `<` |\n|---|---|---|---|")
    for name, label in (("pages and fragments", True), ("text", False)):
        without = sum(every[label, said] - cells[label, said] for said in (True, False))
        print(f"| {name} | {cells[label, True]} | {cells[label, False] + without} | {without} |")
    wrong = cells[True, False] + cells[False, True]
    rate = f"1 in {len(hold) / wrong:.0f}" if wrong else "none"
    print(f"\nwrong: {wrong} of {len(hold)} that hold a `<` ({rate}), of {len(found)} in all")
    return wrong, len(hold)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=300, help="files of a kind and part that hold a `<`")
    parser.add_argument("--part", choices=PARTS, help="this part alone")
    parser.add_argument("--wrong", action="store_true", help="name what is wrong")
    parser.add_argument("folders", nargs="*", type=Path)
    given = parser.parse_args()
    need(data=DATA)
    roots = dict.fromkeys(given.folders, "D") or folders()
    parts = given.part or PARTS
    found = [(one, is_html(one.text)) for one in labelled(roots, given.most) if one.part in parts]
    print(f"| kind | documents | that hold a `<` |{''.join(f' wrong in {name} |' for name in parts)}")
    print("|---|---|---|" + "---|" * len(parts))
    for kind in dict.fromkeys(one.kind for one, _ in found):
        mine = [(one, said) for one, said in found if one.kind == kind]
        wrong = Counter(one.part for one, said in mine if one.html != said)
        hold = sum("<" in one.text for one, _ in mine)
        print(f"| {kind} | {len(mine)} | {hold} |{''.join(f' {wrong[name]} |' for name in parts)}")
    by_part = {name: [pair for pair in found if pair[0].part == name] for name in parts}
    counts = [table(f"Part {name}", pairs) for name, pairs in by_part.items() if pairs]
    if given.wrong:
        for one, said in found:
            if said != one.html:
                print(f"said {'HTML' if said else 'text'}: {one.kind}, {one.part}, {one.place} {one.text[:150]!r}")
    sys.exit(any(bad * 200 > total for bad, total in counts))


if __name__ == "__main__":
    main()
