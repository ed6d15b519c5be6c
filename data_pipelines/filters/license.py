"""Documents by their licence: SPDX identifiers and expressions (SPDX 2.3, annex D) against an allow-list.

The decision has three values. In `A OR B` the better one counts, in `A AND B`, and in a list, the worse one; what is
missing or says nothing is unknown, and `unknown` decides. Reads doc.meta["license"], a text or a list of texts.
"""

import re
from enum import IntEnum

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from fmtrain.schema import rules

SAYS_NOTHING = frozenset(("", "noassertion", "none", "null", "unknown", "other", "n/a", "no license", "no_license"))
_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")


class Verdict(IntEnum):
    DENIED = 0
    UNKNOWN = 1
    ALLOWED = 2


class License:
    """Drops what is not allowed, and what is unknown where `unknown` is drop."""

    def __init__(self, config: rules.License) -> None:
        self.config = config
        self._allow = frozenset(" ".join(name.lower().split()) for name in config.allow)
        self._known: dict[str, Verdict] = {}

    def __call__(self, doc: Document) -> Drop | None:
        given = doc.meta.get("license")
        parts = [str(part or "") for part in (given if isinstance(given, list | tuple) else [given])] or [""]
        verdict = min(self._verdict(part) for part in parts)
        if verdict is Verdict.ALLOWED or (verdict is Verdict.UNKNOWN and self.config.unknown == "keep"):
            return None
        what = ", ".join(parts)
        return Drop("license.unknown" if verdict is Verdict.UNKNOWN else "license.not_allowed", what or None)

    def _verdict(self, text: str) -> Verdict:
        text = " ".join(text.lower().split())
        if text not in self._known:
            self._known[text] = Verdict.ALLOWED if text in self._allow else expression(text, self._allow)
        return self._known[text]


def expression(text: str, allow: frozenset[str]) -> Verdict:
    """The verdict on a lower-case SPDX expression; one that cannot be read names something, and that is not allowed."""
    if text in SAYS_NOTHING:
        return Verdict.UNKNOWN
    tokens = [match.group(1) for match in _TOKEN.finditer(text)]
    try:
        verdict, rest = _either(tokens, allow)
    except IndexError:  # it ends where an identifier should stand
        return Verdict.DENIED
    return Verdict.DENIED if rest else verdict


def _either(tokens: list[str], allow: frozenset[str]) -> tuple[Verdict, list[str]]:
    """all ("or" all)*; the verdict and the tokens left."""
    verdict, rest = _all(tokens, allow)
    while rest[:1] == ["or"]:
        other, rest = _all(rest[1:], allow)
        verdict = max(verdict, other)
    return verdict, rest


def _all(tokens: list[str], allow: frozenset[str]) -> tuple[Verdict, list[str]]:
    """one ("and" one)*"""
    verdict, rest = _one(tokens, allow)
    while rest[:1] == ["and"]:
        other, rest = _one(rest[1:], allow)
        verdict = min(verdict, other)
    return verdict, rest


def _one(tokens: list[str], allow: frozenset[str]) -> tuple[Verdict, list[str]]:
    """An expression in brackets, or an identifier, with its exception: an exception only adds permissions."""
    first, rest = tokens[0], tokens[1:]
    if first == "(":
        verdict, rest = _either(rest, allow)
        if rest[0] != ")":
            return Verdict.DENIED, rest
        return verdict, rest[1:]
    names = {first, first.removesuffix("+"), first.removesuffix("-or-later"), first.removesuffix("-only")}
    if rest[:1] == ["with"]:
        names.add(f"{first} with {rest[1]}")
        rest = rest[2:]
    if first in SAYS_NOTHING:
        return Verdict.UNKNOWN, rest
    return (Verdict.ALLOWED if names & allow else Verdict.DENIED), rest
