"""Which documents are kept: the table of filters by their name in the configuration, each a chain of datatrove filters.

A filter returns `(False, reason)` for what it drops and may leave a `detail` in the document's metadata. What a filter
is for stands in its module; who chooses it, and what happens to dropped documents, is not known here.
"""

from collections.abc import Callable
from typing import Any

from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter

from data_pipelines.filters.code import CodeLines, CodeSyntax
from data_pipelines.words import WORDS
from fmtrain.schema.corpus import CodeFilter, Filter, GopherFilter


def _code(config: CodeFilter) -> list[BaseFilter]:
    return [CodeLines(config), CodeSyntax(config)]


def _gopher(config: GopherFilter) -> list[BaseFilter]:
    return [
        GopherQualityFilter(
            min_doc_words=config.min_doc_words,
            max_doc_words=config.max_doc_words,
            min_avg_word_length=config.min_avg_word_length,
            max_avg_word_length=config.max_avg_word_length,
            max_symbol_word_ratio=config.max_symbol_word_ratio,
            max_bullet_lines_ratio=config.max_bullet_lines_ratio,
            max_ellipsis_lines_ratio=config.max_ellipsis_lines_ratio,
            max_non_alpha_words_ratio=config.max_non_alpha_words_ratio,
            min_stop_words=config.min_stop_words,
            language=WORDS,
        )
    ]


def _none(config: Filter) -> list[BaseFilter]:
    return []


FILTERS: dict[str, Callable[[Any], list[BaseFilter]]] = {"code": _code, "gopher": _gopher, "none": _none}


def make(config: Filter) -> list[BaseFilter]:
    """The chain of filters of a configuration."""
    return FILTERS[config.name](config)
