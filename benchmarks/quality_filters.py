"""Do quality filters agree with people? AUC and F1 on DCLM's human labels, beside the length of a text alone.

python benchmarks/quality_filters.py [FILE] (default ../shared/data/web/dclm_quality_labels/majority_data.jsonl.gz)

The classifier is cross-validated: every text is scored by a model that has not seen it. A rule keeps or drops, so its
AUC is that of one cut. Rows are JSON lines with `text` and `label` (1: good).
"""

import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from peers import need

from data_pipelines import filters, train_classifier
from data_pipelines.document import Document
from data_pipelines.filters import classifier
from fmtrain.schema import rules

DEFAULT = Path(__file__).resolve().parents[2] / "shared/data/web/dclm_quality_labels/majority_data.jsonl.gz"
CHAINS = [
    ["gopher_quality"],
    ["gopher_repetition"],
    ["c4"],
    ["fineweb"],
    ["gopher_repetition", "gopher_quality", "c4", "fineweb"],
]


def keeps(names: list[str]) -> Callable[[str], bool]:
    """Whether a chain with its papers' defaults keeps a text."""
    chain = [filters.make(name, rules.Filter(name="benchmark")) for name in names]

    def kept(text: str) -> bool:
        doc = Document("text", text)
        return all(rule(doc) is None for rule in chain)

    return kept


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    need(data=path)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        pairs = [(row["text"], str(row["label"])) for row in map(json.loads, lines)]
    labels = np.array([label == "1" for _, label in pairs])
    print(f"{path.name}: {len(pairs)} texts, {int(labels.sum())} good by people\n")
    print(f"{'':48}{'AUC':>7}{'F1':>7}{'kept':>7}")
    begun = time.process_time()
    rows = classifier.read(pairs, "1")
    for name, measured in train_classifier.validate(rows).items():
        print(f"{name:48}{measured['auc']:7.3f}{measured['f1']:7.3f}")
    seconds = time.process_time() - begun
    for names in CHAINS:
        kept = keeps(names)
        decided = np.array([kept(text) for text, _ in pairs])
        area, measure = train_classifier.auc(labels, decided.astype(float)), train_classifier.f1(labels, decided)
        print(f"{' + '.join(names):48}{area:7.3f}{measure:7.3f}{decided.mean():7.2f}")
    model = classifier.fit(rows)
    begun, size = time.process_time(), sum(len(text.encode("utf-8", "replace")) for text, _ in pairs) / 1e6
    for text, _ in pairs:
        model.score(Document("text", text).words)
    speed = size / (time.process_time() - begun)
    print(f"\ncross-validation {seconds:.1f} CPU s; scoring {speed:.1f} MB per CPU second with splitting into words")


if __name__ == "__main__":
    main()
