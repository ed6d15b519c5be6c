"""The data card of a corpus: what a reader needs to trust it or not, as markdown (card.md) and as one page (card.html).

Everything stands in card.json, which the stage writes; this lays it out and computes nothing but shares.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fmtrain import show
from fmtrain.artifacts.storage import write_text
from fmtrain.schema.load import hints_of
from fmtrain.schema.options import chosen as option
from fmtrain.schema.rules import Filter

_TOP = 20  # rows of a table that may be long
_WIDTH = 520.0  # of the funnel's widest bar, in SVG units


@dataclass(frozen=True)
class Bar:
    """One level of the funnel as the chart has it: widths in SVG units, shares of what was read."""

    name: str
    documents: int
    bytes: int
    document_width: float
    byte_width: float
    document_share: float
    lost: int


@dataclass(frozen=True)
class Section:
    """What a rule looked for, and how many documents it found what in; `looked_for` is None if it was not applied."""

    rule: str
    title: str
    looked_for: list[str] | None
    found: list[tuple[str, int]]


def write(folder: Path, card: dict[str, Any]) -> None:
    """card.md and card.html beside the card.json that `card` is."""
    facts: dict[str, Any] = {
        "c": card,
        "bars": funnel(card),
        "sources": _largest(card["sources"], "bytes"),
        "licenses": licenses(card),
        "languages": _most(card["languages"]),
        "reasons": [(level["name"], r, n) for level in card["levels"] for r, n in _most(level["reasons"])],
        "sections": (parts := sections(card)),
        "other_counts": _others({**card["counts"], **card["reports"]}, [part.rule for part in parts]),
        "config": json.dumps(_used(card["config"]), indent=1, ensure_ascii=False),
    }
    for name, html in (("card.md", False), ("card.html", True)):
        environment = Environment(
            loader=PackageLoader("data_pipelines", "."),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=html,
            finalize=show.visible if html else show.inert,  # sources, licences, ids come from whoever wrote the input
        )
        environment.filters |= {"size": size, "percent": percent, "number": number, "fenced": show.fenced}
        write_text(folder / name, environment.get_template(f"{name}.jinja").render(facts))


def funnel(card: dict[str, Any]) -> list[Bar]:
    """What was read, and what was left after each level."""
    records, read = max(card["records"], 1), max(card["bytes"], 1)
    steps = [("records read", card["records"], card["bytes"]), ("readable", card["documents"], card["bytes"])]
    steps += [(level["name"], level["documents_out"], level["bytes_out"]) for level in card["levels"]]
    bars, before = [], card["records"]
    for name, documents, amount in steps:
        widths = _WIDTH * documents / records, _WIDTH * min(amount / read, 1.0)
        bars.append(Bar(name, documents, amount, *widths, documents / records, before - documents))
        before = documents
    return bars


def sections(card: dict[str, Any]) -> list[Section]:
    """A section for each rule that says so, whether it was applied or not."""
    chosen = card["config"]["filter"]
    made = []
    for name, rule in hints_of(option(Filter, chosen)).items():
        title = getattr(rule, "card", "")
        if title and name in chosen:  # of a plug-in's rule there are settings only where it is applied
            looked_for = [value for setting in rule.looked_for for value in chosen[name][setting]]
            found = _of_rule(card["counts"], f"{name}.") | _of_rule(card["reports"], f"{name}: ")
            made.append(Section(name, show.Inert(title), looked_for if name in chosen["rules"] else None, _most(found)))
    return made


def _of_rule(table: dict[str, int], prefix: str) -> dict[str, int]:
    return {k.removeprefix(prefix): n for k, n in table.items() if k.startswith(prefix)}


def _others(table: dict[str, int], told: list[str]) -> dict[str, int]:
    """What rules without a section count and report."""
    return {k: n for k, n in sorted(table.items()) if not k.startswith(tuple(f"{r}{s}" for r in told for s in ".:"))}


def _used(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the settings of rules that were not applied; card.json has those too."""
    rules = config["filter"]
    applied = {rule.partition(":")[0] for rule in rules["rules"]}  # datatrove:NAME stands under datatrove
    kept = {k: v for k, v in rules.items() if not isinstance(v, dict) or k in applied}
    return {**config, "filter": kept}


def licenses(card: dict[str, Any]) -> list[tuple[str, int, int, int]]:
    """Of the kept documents by licence, over all sources: the licence, documents, bytes, words; the largest first."""
    found: dict[str, list[int]] = {}
    for source in card["sources"].values():
        for n, key in enumerate(("licenses", "license_bytes", "license_words")):
            for name, value in source[key].items():
                found.setdefault(name, [0, 0, 0])[n] += value
    rows = [(name, documents, size, words) for name, (documents, size, words) in found.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0]))[:_TOP]


def _largest(table: dict[str, dict[str, Any]], key: str) -> list[tuple[str, dict[str, Any]]]:
    return sorted(table.items(), key=lambda item: (-item[1][key], item[0]))[:_TOP]


def _most(table: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(table.items(), key=lambda item: (-item[1], item[0]))[:_TOP]


def size(n: float) -> show.Inert:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return show.Inert(f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}")
        n /= 1000
    return show.Inert(f"{n:.2f} TB")


def percent(share: float) -> show.Inert:
    return show.Inert(f"{share:.1%}")


def number(n: int) -> show.Inert:
    return show.Inert(f"{n:,}")
