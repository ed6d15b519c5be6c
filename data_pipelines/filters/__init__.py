"""Which documents are kept: the table of rules by name, and the chain that applies those of a configuration in order.

A rule's module says what it is for; its settings stand under the same name in fmtrain.schema.rules. Who chooses the
rules, and what happens to what they drop, is not known here.
"""

from collections.abc import Callable
from typing import Any, cast

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.filters.base import Counting, Drop, Rule
from data_pipelines.filters.c4 import C4, BadWords
from data_pipelines.filters.classifier import Classifier
from data_pipelines.filters.code import Code
from data_pipelines.filters.datatrove_block import DatatroveBlock
from data_pipelines.filters.decontaminate import Decontaminate
from data_pipelines.filters.fineweb import FineWeb
from data_pipelines.filters.gopher import GopherQuality, GopherRepetition
from data_pipelines.filters.html import Html
from data_pipelines.filters.language import Language
from data_pipelines.filters.length import Length
from data_pipelines.filters.license import License
from data_pipelines.filters.notices import Notices
from data_pipelines.filters.pii import Pii
from data_pipelines.filters.toxicity import Toxicity
from data_pipelines.filters.unicode import Unicode
from data_pipelines.filters.url import Url
from data_pipelines.words import splitter
from fmtrain.schema import blocks, plugins
from fmtrain.schema import rules as s

RULES: dict[str, Callable[[Any], Rule]] = {
    "html": Html,
    "unicode": Unicode,
    "url": Url,
    "length": Length,
    "language": Language,
    "gopher_quality": GopherQuality,
    "gopher_repetition": GopherRepetition,
    "c4": C4,
    "fineweb": FineWeb,
    "notices": Notices,
    "bad_words": BadWords,
    "toxicity": Toxicity,
    "classifier": Classifier,
    "code": Code,
    "license": License,
    "decontaminate": Decontaminate,
    "pii": Pii,
}
EMPTY = Drop("empty.white_space")


def make(name: str, config: s.Filter) -> Rule:
    """The rule of that name with its settings: ours, a plug-in's or a block of datatrove's."""
    for block in blocks.chosen([name]):
        return DatatroveBlock(block, config.datatrove.get(block, {}))
    return cast(Rule, (RULES | plugins.RULES)[name](getattr(config, name)))


class Chain:
    """The rules of a configuration, applied in order, each accounted for as a level of the funnel."""

    def __init__(self, config: s.Filter, account: Account) -> None:
        self.split = splitter(config.words)
        self.rules = [(name, make(name, config)) for name in config.rules]
        self.empty = account.level("empty")
        self.levels = [account.level(name) for name, _ in self.rules]

    def __call__(self, doc: Document, size: int) -> Drop | None:
        """Why the document goes, or None; `size` is its text's bytes. Afterwards its text may be another: of one that
        goes it is what came to the rule that dropped it."""
        doc.split = self.split
        if (drop := self._pass(self.empty, None, doc, size)[0]) is not None:
            return drop
        for level, (_, rule) in zip(self.levels, self.rules, strict=True):
            drop, size = self._pass(level, rule, doc, size)
            if drop is not None:
                return drop
        return None

    def _pass(self, level: Any, rule: Rule | None, doc: Document, size: int) -> tuple[Drop | None, int]:
        """One level: the drop, and the size of the text after it."""
        before = doc.text
        level.documents_in += 1
        level.bytes_in += size
        drop = rule(doc) if rule is not None else (None if before.strip() else EMPTY)
        if drop is None and doc.text is not before:
            size = len(doc.text.encode())
            if not doc.text.strip():
                drop = Drop(f"{level.name}.nothing_left")
        if drop is not None:
            level.reasons[drop.rule] += 1
            doc.text = before
        else:
            level.documents_out += 1
            level.bytes_out += size
        return drop, size

    def reports(self) -> dict[str, int]:
        """What rules have to say beyond drops, e.g. the evaluation rows met: `RULE: WHAT` -> documents."""
        found: dict[str, int] = {}
        for name, rule in self.rules:
            if isinstance(rule, Counting):
                found |= {f"{name}: {what}": n for what, n in rule.counts().items()}
        return found
