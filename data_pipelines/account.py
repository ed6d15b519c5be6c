"""The account of a corpus: how many documents and bytes came in, what each rule took, what is left, by source.

Every task keeps one; they are added up. Always in = kept + dropped + quarantined, else the stage fails. Bytes are of
text in UTF-8. Knows nothing of files or of how the account is shown.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Self, cast

from data_pipelines.sources.records import Hashes

Numbers = Counter[str]


@dataclass
class Level:
    """One rule or step of the funnel: what came to it and what it let through, and its reasons for the rest."""

    name: str
    documents_in: int = 0
    documents_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    reasons: Numbers = field(default_factory=Counter)

    def add(self, other: "Level") -> None:
        self.documents_in += other.documents_in
        self.documents_out += other.documents_out
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.reasons.update(other.reasons)


@dataclass
class SourceAccount:
    """What one source gave: documents and bytes read and kept, by licence as well."""

    documents: int = 0
    bytes: int = 0
    dropped: int = 0
    copies: int = 0  # of those dropped, by deduplication
    kept: int = 0
    kept_bytes: int = 0
    kept_words: int = 0  # of the fast splitter; a tokenizer's tokens are counted where there is one
    licenses: Numbers = field(default_factory=Counter)  # of the kept documents
    license_bytes: Numbers = field(default_factory=Counter)
    license_words: Numbers = field(default_factory=Counter)


@dataclass
class Account:
    """All of it. `counts` are what rules did short of dropping (pii.email ..), `reports` what they say."""

    records: int = 0  # lines, files, responses: what could have been a document
    documents: int = 0
    bytes: int = 0
    levels: list[Level] = field(default_factory=list)
    faults: Numbers = field(default_factory=Counter)
    sources: dict[str, SourceAccount] = field(default_factory=dict)
    languages: Numbers = field(default_factory=Counter)  # of the kept documents
    counts: Numbers = field(default_factory=Counter)
    reports: Numbers = field(default_factory=Counter)  # e.g. decontaminate: evaluation row -> documents
    hashes: Hashes = field(default_factory=Hashes)  # input file -> SHA-256 of the bytes read

    def level(self, name: str) -> Level:
        """The level of that name, made where there is none yet."""
        for level in self.levels:
            if level.name == name:
                return level
        self.levels.append(Level(name))
        return self.levels[-1]

    def source(self, name: str) -> SourceAccount:
        return self.sources.setdefault(name, SourceAccount())

    def add(self, other: Self) -> None:
        self.records += other.records
        self.documents += other.documents
        self.bytes += other.bytes
        for level in other.levels:
            self.level(level.name).add(level)
        for name, source in other.sources.items():
            mine = self.source(name)
            for key, value in vars(source).items():
                if isinstance(value, Counter):
                    getattr(mine, key).update(value)
                else:
                    setattr(mine, key, getattr(mine, key) + value)
        for name in ("faults", "languages", "counts", "reports"):
            getattr(self, name).update(getattr(other, name))
        for name, sha256 in other.hashes.items():
            self.hashes.add(name, sha256)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers (`asdict` would take a Counter for a sequence)."""
        return cast(dict[str, Any], _plain(self))


def account_from(data: dict[str, Any]) -> Account:
    """What `as_json` gave, back."""
    levels = [Level(**{**level, "reasons": Counter(level["reasons"])}) for level in data["levels"]]
    sources = {
        name: SourceAccount(**cast(Any, {k: Counter(v) if isinstance(v, dict) else v for k, v in source.items()}))
        for name, source in data["sources"].items()
    }
    numbers = {name: Counter(data[name]) for name in ("faults", "languages", "counts", "reports")}
    return Account(**{**data, **numbers, "levels": levels, "sources": sources, "hashes": Hashes(data["hashes"])})


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {key: _plain(inner) for key, inner in vars(value).items()}
    if isinstance(value, dict):  # sorted: the order of reading leaves no trace
        return {key: _plain(value[key]) for key in sorted(value)}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def total(accounts: Iterable[Account]) -> Account:
    """The sum of the tasks' accounts."""
    whole = Account()
    for account in accounts:
        whole.add(account)
    return whole
