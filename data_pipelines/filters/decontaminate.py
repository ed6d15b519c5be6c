"""Documents that hold rows of an evaluation set.

Word n-grams after GPT-3 (Brown et al. 2020, appendix C): 13 lower-cased words without punctuation. A row without a text
of that length is looked for whole. Every row that was met is counted, also where a document holds several.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.texts import rows as evaluation_rows
from data_pipelines.grams import Hashes, Sequences, grams, plain_words
from fmtrain.errors import ConfigError
from fmtrain.schema import rules


class Decontaminate:
    """Drops a document with `min_hits` distinct n-grams of evaluation rows, or with a short row whole."""

    def __init__(self, config: rules.Decontaminate) -> None:
        self.config = config
        self.hits: Counter[str] = Counter()  # row -> documents dropped that hold it
        self._index = Index(config)

    def __call__(self, doc: Document) -> Drop | None:
        numbers, lengths = self._index.find(plain_words(doc.text))
        whole = numbers[lengths < self.config.n_grams]
        enough = len(numbers) - len(whole) >= self.config.min_hits
        if not enough and not len(whole):
            return None
        met = self._index.rows(numbers if enough else whole)
        for row in met:
            self.hits[row] += 1
        best = next(iter(met))
        return Drop("decontaminate.n_gram" if enough else "decontaminate.short_row", best, self.config.min_hits)

    def counts(self) -> dict[str, int]:
        """FILE:ROW -> documents dropped that hold something of that evaluation row."""
        return dict(self.hits)


class Index:
    """What to look for, and the rows that each sequence of words belongs to."""

    def __init__(self, config: rules.Decontaminate) -> None:
        self._files, self._n, self._min = config.files, config.n_grams, config.min_words
        self._names = [Path(file).name for file in self._files]
        if len(set(self._names)) < len(self._names):  # two files of one name: the whole path tells them apart
            self._names = list(self._files)
        found: list[tuple[Hashes, int]] = []
        places: list[tuple[int, int]] = []  # file, row
        lengths: set[int] = set()
        for file, number, words in self._rows():
            for length in {len(w) for w in words}:
                lengths.add(min(length, self._n))
            found += [(grams(w, min(len(w), self._n)), len(places)) for w in words]
            places.append((file, number))
        if not places:
            raise ConfigError(f"rule decontaminate: no text of {self._min} words or more in {', '.join(self._names)}")
        hashes = np.concatenate([h for h, _ in found])
        owners = np.repeat([row for _, row in found], [len(h) for h, _ in found]).astype(np.int32)
        order = np.lexsort((owners, hashes))
        hashes, owners = hashes[order], owners[order]
        new = np.ones(len(hashes), bool)  # a row that holds one n-gram twice owns it once
        new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        hashes, self._owners = hashes[new], owners[new]
        self._begin = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
        self._end = np.append(self._begin[1:], len(hashes))
        self._places = places
        self._sequences = Sequences(hashes[self._begin], sorted(lengths))

    def _rows(self) -> Iterator[tuple[int, int, list[Hashes]]]:
        """(file, row, the texts to look for): those of n words or more; where there is none, the longest.

        A short text beside a longer one, an answer to choose say, proves nothing alone.
        """
        for at, file in enumerate(self._files):
            for number, row in evaluation_rows(file):
                words = [plain_words(text) for text in row]
                longest = max(map(len, words), default=0)
                if longest >= self._min:
                    yield at, number, [w for w in words if len(w) >= min(longest, self._n)]

    def find(self, words: Hashes) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """(numbers, lengths) of the distinct sequences in `words`."""
        numbers, _, lengths = self._sequences.find(words)
        numbers, first = np.unique(numbers, return_index=True)
        return numbers, lengths[first]

    def rows(self, numbers: npt.NDArray[np.int32]) -> dict[str, int]:
        """Row -> how many of these sequences are its own, most first, then in the order of the files."""
        owners: Counter[int] = Counter()
        for number in numbers:
            owners.update(self._owners[self._begin[number] : self._end[number]].tolist())
        ordered = sorted(owners.items(), key=lambda item: (-item[1], item[0]))
        return {f"{self._names[self._places[row][0]]}:{self._places[row][1]}": n for row, n in ordered}
