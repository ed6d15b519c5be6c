"""The word splitters of every rule and of deduplication.

    \\w+(?:['’.\\-]\\w+)*|[^\\w\\s]+

`FAST` finds this regex's words by a compiled pass over code points. spaCy is the bottleneck of any chain it is in; the
regex changes decisions (measured against it: Gopher quality agrees on .93 to .955 of documents), so it has a version,
recorded with the corpus. spaCy's blank pipelines are the choice for scripts that put no spaces between words.

datatrove's own blocks (`filter.rules=[datatrove:NAME]`) split words as datatrove does: by spaCy for most languages.
"""

import functools
import re
from dataclasses import dataclass
from typing import Any, Protocol

import numba
import numpy as np
import numpy.typing as npt
from datatrove.utils.word_tokenizers import SpaCyTokenizer, simple_span_tokenize

from fmtrain.errors import ConfigError

VERSION = "regex-1"
PATTERN = re.compile(r"\w+(?:['’.\-]\w+)*|[^\w\s]+")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*|[.!?\n]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
SPACE, WORD, JOINER, SYMBOL = 0, 1, 2, 3  # classes of code points; a joiner between two words makes them one
_JOINERS = "'’.-"


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text of n words: where they stand, in code points, and what they are.

    `starts`, `ends` (n,) int32; `hashes` (n,) uint64 of their code points; `symbols` (n,) bool: no letter, no digit;
    `codes` (len(text),) uint32: the text's code points, which the words are cut from.
    """

    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]
    symbols: npt.NDArray[np.bool_]
    codes: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.starts)


class Splitter(Protocol):
    """What cuts a text into words and into sentences."""

    def __call__(self, text: str) -> Words: ...

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where the sentences stand."""


def split(text: str) -> Words:
    """The words of `text`, as `PATTERN.findall` gives them. A lone surrogate counts as a symbol."""
    codes = code_points(text)
    for room in (len(codes) // 3 + 16, len(codes)):  # enough for nearly all; for any
        starts, ends = np.empty(room, np.int32), np.empty(room, np.int32)
        hashes, symbols = np.empty(room, np.uint64), np.empty(room, np.bool_)
        n = _split(codes, classes(), starts, ends, hashes, symbols)
        if n >= 0:
            break
    return Words(starts[:n], ends[:n], hashes[:n], symbols[:n], codes)


def word_hash(word: str) -> int:
    """The hash that a splitter gives `word`."""
    return int(_hash(code_points(word), 0, len(word)))


def code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@functools.cache
def classes() -> npt.NDArray[np.uint8]:
    """(0x110000,) the class of every code point, by the `re` module's own \\w and \\s."""
    table = np.full(0x110000, SYMBOL, np.uint8)
    every = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    for found, kind in ((re.finditer(r"\w+", every), WORD), (re.finditer(r"\s+", every), SPACE)):
        for match in found:
            table[match.start() : match.end()] = kind
    for joiner in _JOINERS:
        table[ord(joiner)] = JOINER
    return table


def sentences(text: str) -> list[str]:
    """Sentences end at runs of `.!?` and at line ends."""
    return [s for m in _SENTENCE.finditer(text) if (s := m.group().strip())]


class FastWords:
    """`split` and `sentences`."""

    def __call__(self, text: str) -> Words:
        return split(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return list(simple_span_tokenize(text, sentences(text)))


class SpacyWords(SpaCyTokenizer):  # type: ignore[misc]
    """The words and sentences of spaCy's blank pipeline for a language, as datatrove's blocks use it."""

    def __call__(self, text: str) -> Words:
        codes, clean, at = code_points(text), _without_surrogates(text), 0
        starts, ends = list[int](), list[int]()
        for token in self.word_tokenize(clean):
            found = clean.find(token, at)
            if found < 0:  # datatrove takes "IS_ALPHA", which spaCy fails on, out of the text
                continue
            at = found + len(token)
            starts.append(found)
            ends.append(at)
        begin, end = np.array(starts, np.int32), np.array(ends, np.int32)
        hashes, symbols = _describe(codes, classes(), begin, end)
        return Words(begin, end, hashes, symbols, codes)

    def _do_tokenize(self, text: str) -> Any:
        return super()._do_tokenize(_without_surrogates(text))


def _without_surrogates(text: str) -> str:
    """spaCy fails on lone surrogates. What stands in their place is as long."""
    return _SURROGATE.sub("\ufffd", text)


FAST = FastWords()


@functools.cache
def splitter(name: str) -> Splitter:
    """`fast`, or `spacy-LANGUAGE` (spacy-zh, spacy-th): a splitter by its name in the configuration."""
    if name == "fast":
        return FAST
    language = name.removeprefix("spacy-")
    if language == name:
        raise ConfigError(f"filter.words: {name!r} is no word splitter; expected fast or spacy-LANGUAGE, e.g. spacy-zh")
    try:
        words = SpacyWords(language)
        words.tokenizer  # noqa: B018  # made at its first use, which is now
    except ImportError as e:
        raise ConfigError(
            f"filter.words={name}: {e}\nInstall spaCy and what it needs for this language, or take filter.words=fast"
        ) from e
    return words


def version(name: str) -> str:
    """What a corpus records of the splitter that its rules counted words with."""
    if name == "fast":
        return VERSION
    import spacy

    return f"{name}-{spacy.__version__}"


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def mix(h: Any) -> Any:
    """murmur3's finaliser: every bit of the result depends on every bit of `h`, an uint64."""
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    h ^= h >> np.uint64(33)
    return h


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hash(codes: Any, start: int, end: int) -> Any:
    """FNV-1a over code points, then murmur3's finaliser: every bit of the result depends on every code point."""
    h = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        h = (h ^ np.uint64(codes[i])) * np.uint64(0x100000001B3)
    return mix(h)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _split(codes: Any, table: Any, starts: Any, ends: Any, hashes: Any, symbols: Any) -> int:
    """Fill the four arrays; the number of words, or -1 where there are more than the arrays have room for."""
    n, i, size, room = 0, 0, len(codes), len(starts)
    while i < size:
        kind = table[codes[i]]
        if kind == 0:
            i += 1
            continue
        if n == room:
            return -1
        start = i
        if kind == 1:
            i += 1
            while i < size:
                at = table[codes[i]]
                if at == 1 or (at == 2 and i + 1 < size and table[codes[i + 1]] == 1):
                    i += 1
                else:
                    break
        else:
            while i < size and table[codes[i]] >= 2:
                i += 1
        starts[n], ends[n], symbols[n] = start, i, kind != 1
        hashes[n] = _hash(codes, start, i)
        n += 1
    return n


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _describe(codes: Any, table: Any, starts: Any, ends: Any) -> Any:
    """Hashes of words found elsewhere, and which of them are symbols."""
    hashes, symbols = np.empty(len(starts), np.uint64), np.empty(len(starts), np.bool_)
    for n in range(len(starts)):
        hashes[n], symbols[n] = _hash(codes, starts[n], ends[n]), True
        for i in range(starts[n], ends[n]):
            symbols[n] &= table[codes[i]] != 1
    return hashes, symbols
