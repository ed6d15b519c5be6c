"""Documents that are the notices of a site and not its text: cookies, logging in, pages that are not there.

No paper's rule: C4 takes lines with some of these phrases out of every text, which documentation would not survive.
Here a document goes whole, or stays as it is.
"""

import re

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from fmtrain.schema import rules


class Notices:
    """Share of the words in sentences with one of the phrases, among those of the document's prose."""

    def __init__(self, config: rules.Notices) -> None:
        self.config = config
        either = "|".join(re.escape(phrase.lower()) for phrase in config.phrases)
        self.phrase = re.compile(rf"(?<!\w)(?:{either})")

    def __call__(self, doc: Document) -> Drop | None:
        text = doc.prose.text
        words, told = 0, 0
        for start, end in doc.split.span_tokenize(text):
            size = len(text[start:end].split())
            words += size
            told += size if self.phrase.search(text[start:end].lower()) else 0
        if told > self.config.max_share * words:
            return Drop("notices.share", told / words, self.config.max_share)
        return None
