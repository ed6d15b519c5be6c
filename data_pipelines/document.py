"""A document on its way through the corpus wing: its text, where it came from, what is known of it.

Knows nothing of files, rules or the form on disk. The words of a text are found once, however many rules ask.
"""

from typing import Any

from data_pipelines.prose import prose
from data_pipelines.words import FAST, Splitter, Words


class Document:
    """One document. `source` is what it is accounted under; `file` and `line` its place: where its
    record begins in the decompressed file, in bytes, or its row; unique in the file, 0 for a whole one. `piece` is its
    number from 1 where it is a piece of a text (`data.split`), else 0.

    `meta` holds what is known of it: url, date (seconds since 1970), license, content_type (of its text as it was
    read), language, score. `counts` holds what rules did to it short of dropping it, e.g. {"pii.email": 2}: numbers
    that are added up over the corpus.
    """

    __slots__ = (
        "_prose", "_split", "_text", "_words", "counts", "file", "group", "id", "line", "meta", "piece", "source",
    )  # fmt: skip

    def __init__(
        self,
        id: str,
        text: str,
        group: str = "",
        source: str = "",
        file: str = "",
        line: int = 0,
        meta: dict[str, Any] | None = None,
        piece: int = 0,
    ) -> None:
        self.piece = piece
        self.id, self.group, self.source, self.file, self.line = id, group or id, source or file, file, line
        self.meta: dict[str, Any] = meta if meta is not None else {}
        self.counts: dict[str, int] = {}
        self._text, self._words, self._prose = text, None, None  # type: str, Words | None, Document | None
        self._split: Splitter = FAST

    @property
    def text(self) -> str:
        return self._text

    @text.setter
    def text(self, text: str) -> None:
        self._text, self._words, self._prose = text, None, None

    @property
    def prose(self) -> "Document":
        """Its paragraphs, one a line, to be judged in its place; made once for a text."""
        if self._prose is None:
            self._prose = Document(self.id, prose(self._text))
            self._prose.split = self._split
        return self._prose

    def seen(self, view: str) -> "Document":
        """What a rule of that view looks at; it changes nothing of it."""
        return self.prose if view == "prose" else self

    @property
    def words(self) -> Words:
        if self._words is None:
            self._words = self._split(self._text)
        return self._words

    @property
    def split(self) -> Splitter:
        """What cuts this document into words and sentences."""
        return self._split

    @split.setter
    def split(self, split: Splitter) -> None:
        if split is not self._split:
            self._split, self._words, self._prose = split, None, None

    def count(self, what: str, n: int = 1) -> None:
        if n:
            self.counts[what] = self.counts.get(what, 0) + n
