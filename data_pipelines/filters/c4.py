"""C4's rules (Raffel et al. 2020, section 2.2): bad lines go, then documents that are no text; and lists of bad words.

`C4` decides exactly as datatrove's C4QualityFilter does with the same splitter, and leaves the same text. `BadWords`
finds what its C4BadWordsFilter finds, in lists of your own.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.texts import entries
from data_pipelines.words import Splitter
from fmtrain.schema import rules

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_ENDS = (".", "?", "!", '"', "'")
_LOREM, _JAVASCRIPT = "lorem ipsum", "javascript"
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_PHRASES = tuple(phrase.encode() for phrase in (_LOREM, _JAVASCRIPT, *_POLICY))
_WORD = re.compile(r"\w+")
# C4's lists are named by language; these have no spaces, so their words are found anywhere, except the commonest.
_LANGUAGE = re.compile(
    r"(ar|cs|da|de|en|eo|es|fa|fi|fil|fr|hi|hu|it|ja|kab|ko|nl|no|pl|pt|ru|sv|th|tlh|tr|zh)(-[A-Z].*)?"
)
_UNSPACED, _ALLOWED = frozenset({"ja", "th", "zh"}), frozenset({"sm", "グロ", "女の子", "性"})


class C4:
    """Takes lines out of the text, and drops documents with lorem ipsum, a curly bracket or too few sentences."""

    def __init__(self, config: rules.C4) -> None:
        self.config = config

    def __call__(self, doc: Document) -> Drop | None:
        config, text = self.config, doc.text
        kept, removed = list[str](), dict[str, int]()
        sentences, check = 0, _holds_phrase(text)
        for line in text.splitlines():
            line, why, edited = self._shape(line)
            if not why and (check or edited or "{" in line):
                found = self._content(line)
                if isinstance(found, Drop):
                    return found
                why = found
            if why:
                removed[why] = removed.get(why, 0) + 1
                continue
            if sentences < config.min_num_sentences:  # enough is enough
                sentences += count_sentences(line, doc.split)
            kept.append(line)
        if sentences < config.min_num_sentences:
            return Drop("c4.too_few_sentences", sentences, config.min_num_sentences)
        if (text := "\n".join(kept).strip()) != doc.text:
            doc.text = text
        for why, n in removed.items():
            doc.count(f"c4.lines.{why}", n)
        return None

    def _shape(self, line: str) -> tuple[str, str, bool]:
        """The line without citations, why it goes ("" if it stays), and whether it had any."""
        config, line = self.config, line.strip()
        words, edited = None, False
        if 0 < config.max_word_length < len(line):
            words = line.split()
            if max(map(len, words)) > config.max_word_length:
                return line, "long_word", False
        enough = len(words or line.split(None, max(config.min_words_per_line, 0))) >= config.min_words_per_line
        if config.remove_citations and "[" in line:
            line, edits = _CITATION.subn("", line)
            edited = edits > 0
        if config.filter_no_terminal_punct and (not line.endswith(_ENDS) or line.endswith("...")):
            return line, "no_terminal_punct", edited
        return line, "" if enough else "few_words", edited

    def _content(self, line: str) -> str | Drop:
        """Why the line goes, or the whole document; "" if it stays."""
        config, low = self.config, line.lower()
        if config.filter_lorem_ipsum and _LOREM in low:
            return Drop("c4.lorem_ipsum", _LOREM)
        if config.filter_javascript and _JAVASCRIPT in low:
            return "javascript"
        if config.filter_curly_bracket and "{" in line:
            return Drop("c4.curly_bracket", "{")
        if config.filter_policy and any(phrase in low for phrase in _POLICY):
            return "policy"
        return ""


def _holds_phrase(text: str) -> bool:
    """Whether a phrase that C4 looks for may stand in the text, in any case.

    Bytes are lowered much faster than characters. Only two characters beyond ASCII have a lower case with ASCII in it.
    """
    if "\u0130" in text or "\u212a" in text:
        return True
    low = text.encode("utf-8", "surrogatepass").lower()
    return any(phrase in low for phrase in _PHRASES)


def count_sentences(text: str, splitter: Splitter) -> int:
    """As datatrove counts them: a text without any is one."""
    return max(1, len(splitter.span_tokenize(text)))


class BadWords:
    """Documents with more than `max_hits` words of the lists, in lower case and between characters of no word.

    A list that is named by a language (en, or ja.txt) is asked of documents in that language and in none that is known.
    """

    def __init__(self, config: rules.BadWords) -> None:
        self.config = config
        self.lists = [WordList(_language(path), entries(path)) for path in config.lists]

    def __call__(self, doc: Document) -> Drop | None:
        most, language = self.config.max_hits, doc.meta.get("language")
        low = doc.text.lower()
        words = _WORD.findall(low)
        lists = [one for one in self.lists if not language or one.language in ("", language)]
        hits = list(islice((hit for one in lists for hit in one.hits(low, words)), most + 1))
        if len(hits) <= most:
            return None
        if chance(doc.id) < self.config.keep_fraction:
            doc.count("bad_words.kept")
            return None
        return Drop("bad_words.found", hits[-1], most)


class WordList:
    """Words and phrases to find. An expression of all of them would be tried at every word; most words begin none."""

    def __init__(self, language: str, entries: Iterable[str]) -> None:
        self.language, spaced = language, language not in _UNSPACED
        self.words, self.phrases, others = set[str](), dict[str, re.Pattern[str]](), list[str]()
        heads = dict[str, list[str]]()
        for entry in {entry.lower() for entry in entries} - (set() if spaced else _ALLOWED):
            head = _WORD.match(entry) if spaced else None
            if head is None:
                others.append(entry)
            elif head.group() == entry:
                self.words.add(entry)
            else:
                heads.setdefault(head.group(), []).append(entry)
        self.phrases = {head: _any_of(phrases, spaced) for head, phrases in heads.items()}
        self.others = _any_of(others, spaced) if others else None

    def hits(self, low: str, words: list[str]) -> Iterator[str]:
        """Every entry in `low`, as often as it occurs; `words` are what `_WORD` finds there."""
        distinct = set(words)
        for word in sorted(self.words & distinct):
            yield from [word] * words.count(word)
        for head in sorted(self.phrases.keys() & distinct):
            yield from self.phrases[head].findall(low)
        if self.others is not None:
            yield from self.others.findall(low)


def _any_of(entries: list[str], spaced: bool) -> re.Pattern[str]:
    """The longest of `entries` first; between characters of no word where the script has spaces."""
    either = "|".join(map(re.escape, sorted(entries, key=lambda entry: (-len(entry), entry))))
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)" if spaced else either)


def _language(path: str) -> str:
    """The language that a list is named by: `en` of en.txt, `fr` of fr-CA.gz; "" if it is none of C4's."""
    named = _LANGUAGE.fullmatch(Path(path).name.split(".")[0])
    return named[1] if named else ""


def chance(id: str) -> float:
    """A number in [0, 1) that is always the same for an id."""
    return int.from_bytes(hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()[:7]) / 2**56
