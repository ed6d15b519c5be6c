"""Every figure of README.md and docs/ stands in benchmarks/results/; every other number there is one of the code's.

A *block* is a paragraph, an item of a list, or a table with the paragraph before it. It is *measured* where it names
something of benchmarks/, or uses a word of measuring. Its figures, numbers with a unit or a fraction (where benchmarks
are named, every number but a digit), must stand in what the block names, digit by digit: in the results file, or in the
sections of results files that name the script. In other blocks such a number must be a constant of the code: a limit, a
default. What is no figure anywhere: code, links, dates, versions, sections of papers, the shapes of bands, a setting's
default in a table of settings.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.needs import REPOSITORY
from tests.test_layers import modules

RESULTS = REPOSITORY / "benchmarks" / "results"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PAGES.remove(REPOSITORY / "docs" / "settings.md")  # made of the code: tests/fmtrain/schema/test_describe.py

MEASURING = re.compile(
    r"\b(t(ook|akes?) (about |some )?[\d.]|measured|CPU seconds?|processor seconds?|MB/s|tokens/s|"
    r"times (as|the|slower|faster)|precision|recall|accuracy|AUC|bits per byte|agree(s|ment)?)\b",
    re.IGNORECASE,
)
NAMED = re.compile(r"benchmarks/([\w/]+\.(?:py|md))")
NUMBER = r"\d[\d,]*\d(?:\.\d+)?|\d(?:\.\d+)?|\.\d+"
UNIT = (
    r"%|times\b|x(?![\w])|s\b|ms\b|h\b|min\b|minutes\b|hours\b|seconds\b|kB\b|MB\b|GB\b|TB\b|KiB\b|MiB\b|GiB\b|bytes\b"
)
FIGURE = re.compile(rf"(?<![\w.,/#^-])({NUMBER})(?![\w]*[-/^]\d)(?:\s?({UNIT}))?(?![\d.]*\d)")
# Not figures, whatever stands around them.
NO_FIGURE = [
    r"```.*?```", r"(?m)^    .*$", r"`[^`\n]*`", r"\]\([^)\n]*\)", r"\d{4}-\d\d-\d\d",
    r"(?:sections?|appendix|table|eq\.|RFC|version|ZeRO|SPDX|BY(?:-SA)?|ISO) [A-Z]?[\d.]+", r"\b\d+(?:\.\d+){2,}",
    r"(?:Python|torch|Ray|DeepSpeed|datatrove) \d[\d.]*(?: or \d[\d.]*)?",
    r"\b(?:19|20)\d\d\b", r"\b\d+ ?x ?\d+\b", r"\b\d+ cores?\b", r"\b\d+/\d+\b", r"(?m)^ *\d+\. ", r"lid\.176",
    r"(?:n =|in|of) \d(?:, \d)*\b(?![.,]\d)", r"10\^\d+", r"2\^\d+",
]  # fmt: skip
# Numbers that are neither measured here nor a constant of the code: (page, block begins, number) -> why.
EXCEPTIONS = {
    ("docs/corpus/dedup.md", "Near copies: MinHash-LSH", "*"): "the formula's: test_the_table_of_bands_is_the_formula",
    ("docs/corpus/dedup.md", "1. **Signatures.**", "*"): "the same",
    ("docs/corpus/rules-heuristic.md", "For Python source, after The Stack", "3"): "stands in the title of a paper",
    ("docs/corpus/tokens.md", "A source that the corpus does not have", "*"): "of the example above",
    ("docs/decisions.md", "- **An input of more than 2 MiB", "10"): "a size that is imagined",
}
SCALE = {
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "%": 0.01, "minutes": 60,
    "min": 60, "hours": 3600, "h": 3600, "ms": 1e-3,
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    page: str
    text: str  # with its table

    @property
    def begins(self) -> str:
        return " ".join(self.text.split())[:40]

    @property
    def bare(self) -> str:
        """Without what is no figure; of tables of settings without the defaults."""
        text = "\n".join(self.text.split("\n"))
        lines, settings = [], False
        for line in text.split("\n"):
            if line.startswith("|") and re.search(r"\|\s*(default|setting)\s*\|", line):
                settings = True
            settings = settings and line.startswith("|")
            lines.append("" if settings else line)
        text = "\n".join(lines)
        text = re.sub(r"(`[^`\n]+`) \(-?[\d.,]+%?\)", r"\1", text)  # a setting and its default
        for pattern in NO_FIGURE:
            text = re.sub(pattern, " ", text, flags=re.DOTALL)
        return text

    @property
    def is_measured(self) -> bool:
        return bool(NAMED.search(self.text) or MEASURING.search(re.sub(r"`[^`\n]*`", "", self.text)))


def blocks(path: Path) -> list[Block]:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    found: list[str] = []
    for part in re.split(r"\n\s*\n", text):
        items = re.split(r"\n(?=\d+\. |- )", part)
        table = part.lstrip().startswith("|") and found and not found[-1].startswith("#")
        if table and not found[-1].lstrip().startswith("|"):
            found[-1] += "\n" + part
        else:
            found += items
    return [Block(str(path.relative_to(REPOSITORY)), one) for one in found]


BLOCKS = [block for page in PAGES for block in blocks(page)]


@cache
def evidence(name: str) -> str:
    """What a page may quote of what it names: a results file, or the sections of those that name a script."""
    if name.startswith("results/"):
        return (RESULTS.parent / name).read_text()
    parts = []
    for path in sorted(RESULTS.glob("*.md")):
        text = path.read_text()
        if not re.search(r"^## ", text, re.MULTILINE):
            parts += [text] if name in text else []
        else:
            parts += [section for section in re.split(r"(?m)^(?=## )", text) if name in section]
    return "\n".join(parts)


def stands(number: str, text: str) -> bool:
    """Digit by digit; or rounded, of three digits and more, where the file has more of them."""
    plain = re.sub(r"^\.", "0.", number.replace(",", ""))
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))  # .965 is 0.965
    if re.search(rf"(?<![\d.]){re.escape(plain)}(?!\d|\.\d)", text):
        return True
    digits = len(plain.replace(".", "").lstrip("0"))
    decimals = len(plain.partition(".")[2])
    longer = re.findall(r"\d*\.\d+", text)
    return (
        digits >= 3
        and decimals > 0
        and any(
            len(one.partition(".")[2]) > decimals and f"{float(one):.{decimals}f}" == f"{float(plain):.{decimals}f}"
            for one in longer
        )
    )


@cache
def constants() -> frozenset[float]:
    """Every number of the source, those that are worked out of others too: 64 << 20, 2 * _MIB."""
    found = set[float]()
    for path in modules().values():
        tree = ast.parse(path.read_text())
        named: dict[str, float] = {}
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = _value(node.value, named)
                named |= {node.targets[0].id: value} if value is not None else {}
        values = [_value(node, named) for node in ast.walk(tree) if isinstance(node, (ast.Constant, ast.BinOp))]
        found |= {round(float(value), 12) for value in values if value is not None}
    return frozenset(found)


def _value(node: ast.expr, named: dict[str, float]) -> float | None:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value if abs(node.value) < 1e15 else None
    if isinstance(node, ast.Name):
        return named.get(node.id)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, named), _value(node.right, named)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.LShift) and isinstance(left, int) and isinstance(right, int) and 0 <= right < 64:
            return left << right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Pow) and abs(right) < 64:
            return float(left) ** right
    return None


def figures(block: Block) -> list[tuple[str, str]]:
    """(number, unit) of those that count: what has a unit or a fraction; where benchmarks are named all but digits."""
    every = bool(NAMED.search(block.text))
    found = [(m[1], m[2] or "") for m in FIGURE.finditer(block.bare)]
    return [(n, u) for n, u in found if u or "." in n or (every and len(n) > 1)]


MEASURED = [block for block in BLOCKS if block.is_measured and figures(block)]
OTHERS = [block for block in BLOCKS if not block.is_measured and figures(block)]


def excused(block: Block, number: str) -> bool:
    return any(p == block.page and block.begins.startswith(b) and n in (number, "*") for p, b, n in EXCEPTIONS)


@pytest.mark.parametrize("block", MEASURED, ids=lambda block: f"{block.page}: {block.begins}")
def test_a_figure_stands_in_the_results(block: Block) -> None:
    names = NAMED.findall(block.text)
    lost = [n for n, _ in figures(block) if not excused(block, n)]
    assert names or not lost, f"measured? name the file of benchmarks/results or the script that has {lost}"
    for name in names:
        assert (RESULTS.parent / name).is_file(), f"there is no benchmarks/{name}"
        assert evidence(name), f"no file of benchmarks/results names {name}"
    text = "\n".join(map(evidence, names))
    lost = [n for n in lost if not stands(n, text)]
    assert not lost, f"not in what {', '.join(names)} gave: {lost}. Measure again and record it, or take it away"


@pytest.mark.parametrize("block", OTHERS, ids=lambda block: f"{block.page}: {block.begins}")
def test_a_number_that_nobody_measured_is_one_of_the_code_s(block: Block) -> None:
    for number, unit in figures(block):
        value = round(float(number.replace(",", "")) * SCALE.get(unit, 1), 12)
        assert value in constants() or excused(block, number), (
            f"{number} {unit}: no limit or default of the code. If it was measured, name the results"
        )


def test_no_exception_is_left_over() -> None:
    used = {
        key
        for key in EXCEPTIONS
        for block in BLOCKS
        if block.page == key[0] and block.begins.startswith(key[1]) and key[2] in {"*", *(n for n, _ in figures(block))}
    }
    assert not EXCEPTIONS.keys() - used


def test_the_table_of_bands_is_the_formula() -> None:
    """docs/corpus/dedup.md: what share of the copies of a Jaccard similarity a shape of bands finds, and of which share
    of edited words that is the similarity of the 5-grams."""
    text = (REPOSITORY / "docs/corpus/dedup.md").read_text()
    (head,) = re.findall(r"\| Jaccard \(words edited\) (.*)", text)
    likeness = [(float(j), int(p or 0)) for j, p in re.findall(r"(\.\d+)(?: \((\d+)%\))?", head)]
    for jaccard, percent in likeness:
        same = (1 - percent / 100) ** 5  # of the grams
        assert not percent or f"{same / (2 - same):.2f}" == f"{jaccard:.2f}"
    for bands, rows, cells in re.findall(r"\| (\d+) x (\d+)[^|]*\| (.*) \|", text):
        for (jaccard, _), cell in zip(likeness, cells.split(" | "), strict=True):
            found = 1 - (1 - jaccard ** int(rows)) ** int(bands)
            assert abs(found - float(cell)) < 10 ** -len(cell.partition(".")[2]), (bands, rows, jaccard, found)
    assert len(likeness) == 5


def test_what_would_be_refused() -> None:
    """The rules themselves: what counts for a figure, and when it stands in a file."""
    assert stands("1,763", "of 1763 rows") and stands("1.763", "1.7629164") and stands(".912", "| .912 |")
    assert not stands("36", "35.6 and 136 and 36.5") and not stands("1.8", "1.7629")
    block = Block("x", "It took 12 s on 2 cores, `--n 17`, and 4.5 times the memory (Rae et al. 2021, section 3.1).")
    assert block.is_measured and figures(block) == [("12", "s"), ("4.5", "times")]
    other = Block("x", "A line over `max_line_mb` (64) is a fault; the first 64 KiB stay, torch 2.13 or not.")
    assert not other.is_measured and figures(other) == [("64", "KiB")]
    assert {64 * 2**10, 64 * 2**20, 0.001} <= constants()
    assert len(MEASURED) > 10 and len(OTHERS) > 10
