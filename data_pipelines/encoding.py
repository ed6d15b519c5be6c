"""Documents to token ids, in batches of bounded memory. Knows the tokenizer; knows nothing of files or mixtures.

An encoder holds some 100 bytes a token while it works, so a document of many megabytes is cut where the tokenizer cuts
anyway: its ids are those of the whole.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from data_pipelines.corpus_reader import BATCH_CHARACTERS, Document, batches
from data_pipelines.folder import Marks

# Before a space or a line's end that follows anything else. GPT-2's and BERT's splits begin a new word there; Python's
# \S is contained in what their \S and \s call no white space.
_SAFE = re.compile(r"(?<=\S)(?=[ \n])")
Ids = npt.NDArray[np.unsignedinteger[Any]]


class Encoder:
    """Encodes documents as `start ids end`."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, marks: Marks, longest: int = BATCH_CHARACTERS) -> None:
        self.tokenizer, self.longest = tokenizer, longest
        self.vocab_size = tokenizer.get_vocab_size()
        self.dtype = np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")
        self._start = [] if marks.start is None else [marks.start]
        self._end = [marks.end]
        self.marks_per_document = len(self._start) + 1
        self._splits = _splits_at_spaces(tokenizer)

    def __call__(self, documents: Iterable[Document]) -> Iterator[tuple[Document, Ids]]:
        """Each document and its ids, (tokens,)."""
        for batch in batches(documents):
            if len(batch) == 1 and self._splits and len(batch[0].text) > self.longest:
                ids = [self._ids(self.tokenizer.encode_batch_fast([p], False)[0].ids) for p in self.pieces(batch[0])]
                yield batch[0], np.concatenate([self._ids(self._start), *ids, self._ids(self._end)])
                continue
            texts = [document.text for document in batch]
            for document, encoding in zip(batch, self.tokenizer.encode_batch_fast(texts, False), strict=True):
                yield document, self._ids([*self._start, *encoding.ids, *self._end])

    def pieces(self, document: Document) -> Iterator[str]:
        """The document's text in pieces of about `longest` characters, cut where the tokenizer cuts."""
        text, start = document.text, 0
        while len(text) - start > self.longest and (found := _SAFE.search(text, start + self.longest)):
            yield text[start : found.start()]
            start = found.start()
        yield text[start:]

    def _ids(self, ids: list[int]) -> Ids:
        return np.array(ids, self.dtype)


def _splits_at_spaces(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether the tokenizer is known to begin a new word at a space: GPT-2's split without normalising, or BERT's."""
    data = json.loads(tokenizer.to_str())
    normalizer, splitter = data["normalizer"], data["pre_tokenizer"] or {}
    if not all(token["special"] for token in data["added_tokens"]):
        return False  # a token that is found in text may reach over the cut
    if normalizer is None and splitter.get("type") == "ByteLevel":
        return bool(splitter["use_regex"]) and not splitter["add_prefix_space"]
    bert = normalizer is None or normalizer["type"] == "BertNormalizer"
    return bert and splitter.get("type") == "BertPreTokenizer"
