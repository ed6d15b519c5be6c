"""Documents that are too short or too long, in characters or in words."""

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from fmtrain.schema import rules


class Length:
    """Limits of the whole document; a maximum of 0 is none."""

    def __init__(self, config: rules.Length) -> None:
        self.config = config

    def __call__(self, doc: Document) -> Drop | None:
        config = self.config
        found = self._outside("chars", len(doc.text), config.min_chars, config.max_chars)
        if found is None and (config.min_words or config.max_words):
            found = self._outside("words", len(doc.words), config.min_words, config.max_words)
        return found

    def _outside(self, what: str, value: int, least: int, most: int) -> Drop | None:
        if value < least:
            return Drop(f"length.too_few_{what}", value, least)
        if most and value > most:
            return Drop(f"length.too_many_{what}", value, most)
        return None
