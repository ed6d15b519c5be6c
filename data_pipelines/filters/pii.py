"""Personal data and secrets replaced by a placeholder each, as StarCoder's are (Li et al. 2023, section 4).

datatrove's PIIFormatter covers e-mail and public IPv4 alone. The patterns stand in pii_patterns.py. Names and postal
addresses need a model and are not looked for.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.pii_patterns import api_keys, cards, emails, ibans, ips, phones, private_keys
from fmtrain.schema import rules

PLACEHOLDERS = {  # where two kinds claim the same characters, the earlier takes them
    "private_key": "<PRIVATE_KEY>",
    "api_key": "<API_KEY>",
    "email": "<EMAIL>",
    "iban": "<IBAN>",
    "card": "<CARD>",
    "ip": "<IP_ADDRESS>",
    "phone": "<PHONE>",
}


class Span(NamedTuple):
    """text[start:end] is personal data of this kind."""

    start: int
    end: int
    kind: str


class Pii:
    """Replaces what it finds and counts it as pii.KIND; drops nothing."""

    def __init__(self, config: rules.Pii) -> None:
        self._find = finders(config.kinds, config.private_ips)

    def __call__(self, doc: Document) -> Drop | None:
        text = doc.text
        while found := self.find(text):  # again, for what a replacement has laid bare; each round leaves less to find
            for span in found:
                doc.count(f"pii.{span.kind}")
            text = replace(text, found)
        if text is not doc.text:
            doc.text = text
        return None

    def find(self, text: str) -> list[Span]:
        """What is personal in `text`, in order, none over another."""
        taken, spans = bytearray(len(text)), list[Span]()
        for kind, finder in self._find.items():
            for start, end in finder(text):
                if taken.find(1, start, end) < 0:
                    taken[start:end] = b"\1" * (end - start)
                    spans.append(Span(start, end, kind))
        return sorted(spans)


def finders(kinds: Iterable[str], private_ips: bool) -> dict[str, Callable[[str], Iterable[tuple[int, int]]]]:
    """Kind -> function from a text to spans, in the order of PLACEHOLDERS."""
    every: dict[str, Callable[[str], Iterable[tuple[int, int]]]] = {
        "private_key": private_keys,
        "api_key": api_keys,
        "email": emails,
        "iban": ibans,
        "card": cards,
        "ip": lambda text: ips(text, private_ips),
        "phone": phones,
    }
    chosen = set(kinds)
    return {kind: every[kind] for kind in PLACEHOLDERS if kind in chosen}


def replace(text: str, spans: list[Span]) -> str:
    """`text` with a placeholder for each span."""
    parts, at = [], 0
    for start, end, kind in spans:
        parts += [text[at:start], PLACEHOLDERS[kind]]
        at = end
    return "".join([*parts, text[at:]])
