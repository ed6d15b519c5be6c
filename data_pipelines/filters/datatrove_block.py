"""A block of datatrove's as a rule: it really runs, document by document, and its reasons are the ledger's.

Made once a task from the class that `filter.rules=[datatrove:NAME]` names. A filter may change the text and what is
known of a document; a formatter only changes the text. Its own reader, writer and executor have no part in it.
"""

import importlib
from typing import Any

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from fmtrain.errors import ConfigError
from fmtrain.schema import blocks


class DatatroveBlock:
    """The rule; ConfigError where the block cannot be made of these settings, or lacks a package."""

    def __init__(self, name: str, given: dict[str, Any], key: str = "filter") -> None:
        from datatrove.data import Document as Theirs

        block = blocks.find(name, f"{key}.rules")
        self.name, self.is_filter, self.theirs = f"{blocks.PREFIX}{name}", block.is_filter, Theirs
        try:
            self.block = getattr(importlib.import_module(block.module), name)(**blocks.as_arguments(block, given))
        except ImportError as e:
            raise ConfigError(f"{key}.rules: datatrove's {name} lacks something here: {e}") from e
        except (ValueError, TypeError, AssertionError) as e:
            raise ConfigError(f"{key}.datatrove.{name}={given}: datatrove's {name} refuses them: {e}") from e

    def __call__(self, doc: Document) -> Drop | None:
        if not self.is_filter:
            _put(doc, self.block.format(doc.text))
            return None
        theirs = self.theirs(text=doc.text, id=doc.id, metadata=dict(doc.meta))
        found = self.block.filter(theirs)
        kept, reason = found if isinstance(found, tuple) else (found, None)
        _put(doc, theirs.text)
        doc.meta |= theirs.metadata
        return None if kept else Drop(f"{self.name}.{reason or 'dropped'}")


def _put(doc: Document, text: str) -> None:
    """A text that is the same stays: its words are known already, and a chain counts what has changed."""
    if text != doc.text:
        doc.text = text
