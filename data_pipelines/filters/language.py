"""Documents by their language, as FineWeb (Penedo et al. 2024, section 3.1) and CCNet (Wenzek et al. 2020) do.

The detector is fastText's lid.176.ftz, which comes with a package: nothing is downloaded. Any fastText-style model may
take its place by path (lid.176.bin, GlotLID); its labels are then what `languages` names.
"""

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.fasttext_model import Model, embedded
from fmtrain.schema import rules


class Language:
    """Keeps a document where one of `languages` scores `min_score`; sets language and language_score in meta."""

    def __init__(self, config: rules.Language) -> None:
        self.config, self._wanted = config, frozenset(config.languages)
        self._model = Model(config.model or embedded())
        # scores add up to 1: where more than half is asked for, only the best label can have it
        self._labels = 1 if config.min_score > 0.5 and config.model is None else -1

    def __call__(self, doc: Document) -> Drop | None:
        scores = self._model.scores(doc.text, self._labels)
        if not scores:  # nothing but white space
            return Drop("language.other", "none")
        best = next(iter(scores))
        doc.meta["language"], doc.meta["language_score"] = best, round(scores[best], 4)
        wanted = max((score for label, score in scores.items() if label in self._wanted), default=0.0)
        if wanted >= self.config.min_score:
            return None
        if best in self._wanted:
            return Drop("language.score", round(scores[best], 4), self.config.min_score)
        return Drop("language.other", best)
