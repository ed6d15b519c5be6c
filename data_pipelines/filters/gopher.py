"""Gopher's rules (Rae et al. 2021, appendix A1.1): quality by words and lines, repetition by lines and n-grams.

They decide exactly as datatrove's GopherQualityFilter and GopherRepetitionFilter do with the same splitter.
"""

import functools
import re
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from datatrove.utils.text import PUNCTUATION_SET

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.ngrams import first_broken
from data_pipelines.words import WORD, Words, classes, word_hash
from fmtrain.schema import rules

_BULLETS, _ELLIPSES = ("•", "-"), ("...", "…")
_PARAGRAPHS, _LINES = re.compile(r"\n{2,}"), re.compile(r"\n+")
_LETTER, _MARK = 1, 2  # traits of code points: str.isalpha; datatrove's punctuation, control characters among it


class GopherQuality:
    """Numbers of words, their lengths, symbols, bullets, ellipses, letters and stop words. A limit of 0 is none."""

    def __init__(self, config: rules.GopherQuality) -> None:
        self.config = config
        self.stop_words = np.array(sorted({word_hash(word) for word in config.stop_words}), np.uint64)

    def __call__(self, doc: Document) -> Drop | None:
        doc = doc.seen(self.config.view)
        words, text = doc.words, doc.text
        if not len(words):
            return Drop("gopher_quality.too_few_words", 0, max(self.config.min_doc_words, 1))
        ellipses = text.count("...") + text.count("…")
        plain, characters, lettered = _word_counts(words.codes, words.starts, words.ends, _traits())
        return (
            self._lengths(plain, characters)
            or self._symbols(text, ellipses, len(words))
            or self._lines(text, ellipses)
            or self._language(words, lettered)
        )

    def _lengths(self, plain: int, characters: int) -> Drop | None:
        """`plain` words, those that are more than punctuation, of `characters` in all."""
        config = self.config
        if config.min_doc_words and plain < config.min_doc_words:
            return Drop("gopher_quality.too_few_words", plain, config.min_doc_words)
        if config.max_doc_words and plain > config.max_doc_words:
            return Drop("gopher_quality.too_many_words", plain, config.max_doc_words)
        if plain:
            mean = characters / plain
            if config.min_avg_word_length and mean < config.min_avg_word_length:
                return Drop("gopher_quality.short_words", mean, config.min_avg_word_length)
            if config.max_avg_word_length and mean > config.max_avg_word_length:
                return Drop("gopher_quality.long_words", mean, config.max_avg_word_length)
        return None

    def _symbols(self, text: str, ellipses: int, words: int) -> Drop | None:
        limit = self.config.max_symbol_word_ratio
        if limit and (share := text.count("#") / words) > limit:
            return Drop("gopher_quality.hashes", share, limit)
        if limit and (share := ellipses / words) > limit:
            return Drop("gopher_quality.ellipses", share, limit)
        return None

    def _lines(self, text: str, ellipses: int) -> Drop | None:
        lines = text.splitlines()
        limit = self.config.max_bullet_lines_ratio
        # A line that begins with a mark holds one: where there are too few marks, no line need be looked at.
        if limit and sum(map(text.count, _BULLETS)) / len(lines) > limit:
            share = sum(line.lstrip().startswith(_BULLETS) for line in lines) / len(lines)
            if share > limit:
                return Drop("gopher_quality.bullet_lines", share, limit)
        limit = self.config.max_ellipsis_lines_ratio
        if limit and ellipses / len(lines) > limit:
            share = sum(line.rstrip().endswith(_ELLIPSES) for line in lines) / len(lines)
            if share > limit:
                return Drop("gopher_quality.ellipsis_lines", share, limit)
        return None

    def _language(self, words: Words, lettered: int) -> Drop | None:
        config, share = self.config, lettered / len(words)
        if config.max_non_alpha_words_ratio and share < config.max_non_alpha_words_ratio:
            return Drop("gopher_quality.few_alpha_words", share, config.max_non_alpha_words_ratio)
        if config.min_stop_words:
            found = _distinct(words.hashes, self.stop_words, config.min_stop_words)
            if found < config.min_stop_words:
                return Drop("gopher_quality.few_stop_words", found, config.min_stop_words)
        return None


class GopherRepetition:
    """Shares of repeated paragraphs and lines (a limit of 0 is none), and of characters in repeated n-grams."""

    def __init__(self, config: rules.GopherRepetition) -> None:
        self.config = config
        self.top = np.array(config.top_n_grams, np.float64)
        self.repeated = np.array(config.dup_n_grams, np.float64)

    def __call__(self, doc: Document) -> Drop | None:
        doc = doc.seen(self.config.view)
        text = doc.text
        if not text:
            return Drop("gopher_repetition.empty", 0, 1)
        return self._parts(text) or self._n_grams(doc.words, len(text))

    def _parts(self, text: str) -> Drop | None:
        config, gaps = self.config, "\n\n" in text
        if gaps:
            paragraphs = _PARAGRAPHS.split(text.strip())
            repeated, characters = duplicates(paragraphs)
            if config.dup_para_frac and (share := repeated / len(paragraphs)) > config.dup_para_frac:
                return Drop("gopher_repetition.dup_para_frac", share, config.dup_para_frac)
            if config.dup_para_char_frac and (share := characters / len(text)) > config.dup_para_char_frac:
                return Drop("gopher_repetition.dup_para_char_frac", share, config.dup_para_char_frac)
        lines = _LINES.split(text) if gaps else text.split("\n")
        repeated, characters = duplicates(lines)
        if config.dup_line_frac and (share := repeated / len(lines)) > config.dup_line_frac:
            return Drop("gopher_repetition.dup_line_frac", share, config.dup_line_frac)
        if config.dup_line_char_frac and (share := characters / len(text)) > config.dup_line_char_frac:
            return Drop("gopher_repetition.dup_line_char_frac", share, config.dup_line_char_frac)
        return None

    def _n_grams(self, words: Words, characters: int) -> Drop | None:
        n, found = first_broken(words, characters, self.top, self.repeated)
        if not n:
            return None
        name, limit = ("top", self.top[n - 2]) if n < 5 else ("dup", self.repeated[n - 5])
        return Drop(f"gopher_repetition.{name}_{n}_gram", found / characters, float(limit))


def duplicates(parts: list[str]) -> tuple[int, int]:
    """How many parts stood before, and their characters."""
    unique = set(parts)
    if len(unique) == len(parts):
        return 0, 0
    return len(parts) - len(unique), sum(map(len, parts)) - sum(map(len, unique))


@functools.cache
def _traits() -> npt.NDArray[np.uint8]:
    """(0x110000,) the traits of every code point. Letters are a part of what \\w matches."""
    table = np.zeros(0x110000, np.uint8)
    letters = [code for code in np.flatnonzero(classes() == WORD).tolist() if chr(code).isalpha()]
    table[letters] = _LETTER
    table[[ord(mark) for mark in PUNCTUATION_SET]] |= _MARK
    return table


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _word_counts(codes: Any, starts: Any, ends: Any, traits: Any) -> tuple[int, int, int]:
    """Words that are more than marks, their characters, and words with a letter."""
    plain, characters, lettered = 0, 0, 0
    for n in range(len(starts)):
        more, letter = False, False
        for i in range(starts[n], ends[n]):
            more |= traits[codes[i]] & 2 == 0
            if traits[codes[i]] & 1:
                letter = True
            if more and letter:
                break
        if more:
            plain += 1
            characters += ends[n] - starts[n]
        lettered += letter
    return plain, characters, lettered


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _distinct(hashes: Any, wanted: Any, enough: int) -> int:
    """How many of `wanted` occur; it stops at `enough`."""
    seen, found = np.zeros(len(wanted), np.bool_), 0
    for h in hashes:
        for i in range(len(wanted)):
            if wanted[i] == h and not seen[i]:
                seen[i] = True
                found += 1
                if found >= enough:
                    return found
    return found
