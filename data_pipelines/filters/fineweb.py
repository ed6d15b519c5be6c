"""FineWeb's own rules (Penedo et al. 2024, section 3.6): how lines end, how short and how often repeated they are.

They decide exactly as datatrove's FineWebQualityFilter does with the same splitter.
"""

from datatrove.utils.text import TERMINAL_PUNCTUATION

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.gopher import duplicates
from fmtrain.schema import rules

_STOPS = frozenset(TERMINAL_PUNCTUATION)  # single characters, of many scripts


class FineWeb:
    """Lines that end in no full stop, short lines, repeated lines, and more lines than words allow: lists and menus."""

    def __init__(self, config: rules.FineWeb) -> None:
        self.config = config

    def __call__(self, doc: Document) -> Drop | None:
        config, doc = self.config, doc.seen(self.config.view)
        text = doc.text
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if not lines:
            return Drop("fineweb.empty", 0, 1)
        share = sum([line[-1] in _STOPS for line in lines]) / len(lines)
        if share < config.line_punct_thr and (share or not config.line_punct_exclude_zero):
            return Drop("fineweb.line_punct", share, config.line_punct_thr)
        share = sum([len(line) <= config.short_line_length for line in lines]) / len(lines)
        if share > config.short_line_thr:
            return Drop("fineweb.short_lines", share, config.short_line_thr)
        ends = text.count("\n")
        share = duplicates(lines)[1] / (len(text) - ends)
        if share > config.char_duplicates_ratio:
            return Drop("fineweb.char_duplicates", share, config.char_duplicates_ratio)
        share = ends / len(doc.words)
        if share > config.new_line_ratio:
            return Drop("fineweb.new_lines", share, config.new_line_ratio)
        return None
