"""Documents with too many words of a list, or that a local fastText-style model calls toxic.

Dolma (Soldaini et al. 2024, section 3.2) uses such models, trained on Jigsaw's comments. No list or model is bundled.
Words, and phrases of several, are compared lower-cased and without punctuation. Scripts without spaces need a model.
"""

import numpy as np

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.fasttext_model import Model
from data_pipelines.filters.texts import entries
from data_pipelines.grams import Sequences, grams, plain_words
from fmtrain.errors import ConfigError
from fmtrain.schema import rules


class Toxicity:
    """toxicity.words: the share of words inside listed words and phrases; toxicity.score: the model's for `label`."""

    def __init__(self, config: rules.Toxicity) -> None:
        self.config = config
        words = [plain_words(entry) for path in config.lists for entry in entries(path)]
        words = [w for w in words if len(w)]
        if config.lists and not words:
            raise ConfigError(f"rule toxicity: no word in {', '.join(config.lists)}")
        self._listed: Sequences | None = None
        if words:
            hashes = np.unique(np.concatenate([grams(w, len(w)) for w in words]))
            self._listed = Sequences(hashes, [len(w) for w in words])
        self._model = Model(config.model) if config.model else None

    def __call__(self, doc: Document) -> Drop | None:
        if self._listed is not None:
            share = self._share(self._listed, doc.text)
            if share > self.config.max_share:
                return Drop("toxicity.words", round(share, 6), self.config.max_share)
        if self._model is not None:
            score = self._model.scores(doc.text).get(self.config.label, 0.0)
            doc.meta["toxicity_score"] = round(score, 4)
            if score > self.config.max_score:
                return Drop("toxicity.score", round(score, 4), self.config.max_score)
        return None

    def _share(self, listed: Sequences, text: str) -> float:
        words = plain_words(text)
        _, starts, lengths = listed.find(words)
        inside = np.zeros(len(words), bool)
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            inside[start : start + length] = True
        return float(inside.sum()) / max(len(words), 1)
