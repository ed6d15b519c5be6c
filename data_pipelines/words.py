"""The word splitter of every block that counts words: a regex, since spaCy is the bottleneck of any chain it is in.

It changes decisions (measured against spaCy: Gopher quality agrees on .93 to .955 of documents), so it has a version
and that version is recorded with the corpus. Pass `WORDS` as datatrove's `language=`.
"""

import re

from datatrove.utils.word_tokenizers import WordTokenizer, simple_span_tokenize

VERSION = "regex-1"

_WORD = re.compile(r"\w+(?:['’.\-]\w+)*|[^\w\s]+")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*|[.!?\n]+")


class RegexWords(WordTokenizer):  # type: ignore[misc]
    """Words with inner apostrophes, dots and hyphens; runs of symbols are words of their own."""

    def word_tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [s for m in _SENTENCE.finditer(text) if (s := m.group().strip())]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return list(simple_span_tokenize(text, self.sent_tokenize(text)))


WORDS = RegexWords()
