"""What a rule is: a callable that looks at a document, may change its text, and says why it goes, if it goes.

A rule is made once a task from its settings, so what is costly (models, lists) is loaded there. Rules know nothing of
each other, of files or of the ledger.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from data_pipelines.document import Document


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a document goes: `rule` is RULE.REASON, e.g. gopher_quality.too_few_words; `value` broke `threshold`.

    Values are numbers where the rule compares, else a short text (the language found, the marker met).
    """

    rule: str
    value: float | str | None = None
    threshold: float | str | None = None


class Rule(Protocol):
    """One step of a chain."""

    def __call__(self, doc: Document) -> Drop | None:
        """None where the document stays; its text may have been changed."""


@runtime_checkable
class Counting(Rule, Protocol):
    """A rule that gathers what no single document tells, e.g. which evaluation rows were met.

    `counts` is optional: the read step asks `isinstance(rule, Counting)` at the end of a task, and adds up over tasks.
    """

    def counts(self) -> dict[str, int]:
        """What was gathered since the rule was made: name -> number of documents."""
