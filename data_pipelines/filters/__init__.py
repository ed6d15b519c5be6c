"""Which documents are kept: the table of rules by name, and the chain that applies those of a configuration in order.

A rule's module says what it is for and is imported only where the rule is used. Who chooses the rules, and what happens
to what they drop, is not known here.
"""

from collections.abc import Callable
from typing import Any, cast

from data_pipelines.account import Account
from data_pipelines.document import Document
from data_pipelines.filters.base import Counting, Drop, Rule
from data_pipelines.words import splitter
from fmtrain.errors import ConfigError
from fmtrain.schema import plugins
from fmtrain.schema import rules as s


def _html(settings: s.Html) -> Rule:
    from data_pipelines.filters.html import Html

    return Html(settings)


def _unicode(settings: s.Unicode) -> Rule:
    from data_pipelines.filters.unicode import Unicode

    return Unicode(settings)


def _url(settings: s.Url) -> Rule:
    from data_pipelines.filters.url import Url

    return Url(settings)


def _length(settings: s.Length) -> Rule:
    from data_pipelines.filters.length import Length

    return Length(settings)


def _language(settings: s.Language) -> Rule:
    from data_pipelines.filters.language import Language

    return Language(settings)


def _gopher_quality(settings: s.GopherQuality) -> Rule:
    from data_pipelines.filters.gopher import GopherQuality

    return GopherQuality(settings)


def _gopher_repetition(settings: s.GopherRepetition) -> Rule:
    from data_pipelines.filters.gopher import GopherRepetition

    return GopherRepetition(settings)


def _c4(settings: s.C4) -> Rule:
    from data_pipelines.filters.c4 import C4

    return C4(settings)


def _bad_words(settings: s.BadWords) -> Rule:
    from data_pipelines.filters.c4 import BadWords

    return BadWords(settings)


def _fineweb(settings: s.FineWeb) -> Rule:
    from data_pipelines.filters.fineweb import FineWeb

    return FineWeb(settings)


def _classifier(settings: s.Classifier) -> Rule:
    from data_pipelines.filters.classifier import Classifier

    return Classifier(settings)


def _code(settings: s.Code) -> Rule:
    from data_pipelines.filters.code import Code

    return Code(settings)


def _license(settings: s.License) -> Rule:
    from data_pipelines.filters.license import License

    return License(settings)


def _toxicity(settings: s.Toxicity) -> Rule:
    from data_pipelines.filters.toxicity import Toxicity

    return Toxicity(settings)


def _pii(settings: s.Pii) -> Rule:
    from data_pipelines.filters.pii import Pii

    return Pii(settings)


def _decontaminate(settings: s.Decontaminate) -> Rule:
    from data_pipelines.filters.decontaminate import Decontaminate

    return Decontaminate(settings)


RULES: dict[str, Callable[[Any], Rule]] = {
    "html": _html,
    "unicode": _unicode,
    "url": _url,
    "length": _length,
    "language": _language,
    "gopher_quality": _gopher_quality,
    "gopher_repetition": _gopher_repetition,
    "c4": _c4,
    "bad_words": _bad_words,
    "fineweb": _fineweb,
    "classifier": _classifier,
    "code": _code,
    "license": _license,
    "toxicity": _toxicity,
    "pii": _pii,
    "decontaminate": _decontaminate,
}
EMPTY = Drop("empty.white_space")


def make(name: str, config: s.Filter) -> Rule:
    """The rule of that name with its settings, ours or a plug-in's."""
    if name in RULES:
        return RULES[name](getattr(config, name))
    if name in plugins.RULES:
        return cast(Rule, plugins.RULES[name](getattr(config, name)))
    known = ", ".join([*RULES, *plugins.RULES])
    raise ConfigError(f"filter.rules: there is no rule {name!r}; there are {known}")


class Chain:
    """The rules of a configuration, applied in order, each accounted for as a level of the funnel."""

    def __init__(self, config: s.Filter, account: Account) -> None:
        self.split = splitter(config.words)
        self.rules = [(name, make(name, config)) for name in config.rules]
        self.empty = account.level("empty")
        self.levels = [account.level(name) for name, _ in self.rules]

    def __call__(self, doc: Document, size: int) -> Drop | None:
        """Why the document goes, or None; `size` is its text's bytes. Its text may be another afterwards."""
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
