"""What deduplication finds, and what it should not: planted copies, and the SPDX licences by degree of similarity.

python benchmarks/dedup_quality.py [--megabytes 12]. Beside datatrove's MinHash (its default 14 x 8 and 20 x 5, with our
splitter) and rensa's RMinHash. A planted copy is found where it or its original goes. A removal is false where the
originals of the two families have an exact Jaccard of word 5-grams below the threshold: copies that were in the corpus
before any was planted are no mistakes. Exits with 1 where a target of ours is missed.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from dedup_common import DATA, KINDS, Removed, alike, datatrove, ours, passages, plant, pretrain, read, rensa, sets
from dedup_common import similarity as exact_similarity
from peers import need

from fmtrain.schema.dedup import Dedup

TARGETS = {"exact": 1.0, "white space": 1.0, "1%": 1.0, "3%": 0.98, "5%": 0.90}  # at a threshold of .5
PRECISION = 0.995
EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
Tool = Callable[[Sequence[str]], Removed]


def tools(threshold: float) -> dict[str, Tool]:
    return {
        f"fmtrain {Dedup.bands}x{Dedup.rows}, threshold {threshold}": lambda texts: ours(texts, threshold),
        "datatrove 14x8": lambda texts: datatrove(texts, 14, 8),
        "datatrove 20x5": datatrove,
        f"rensa RMinHash 20x5, threshold {threshold}": lambda texts: rensa(texts, threshold),
    }


def planted(megabytes: float) -> bool:
    pieces = passages(pretrain(megabytes))
    texts, families, kinds = plant(pieces)
    originals = sets(pieces)
    print(f"\nplanted: {len(pieces)} documents, {len(texts) - len(pieces)} copies; recall by kind")
    print(f"{'':44s}precision " + " ".join(f"{kind:>14s}" for kind in KINDS))
    good = True
    for threshold in (0.5, 0.7):
        for name, tool in tools(threshold).items():
            if threshold != 0.5 and "threshold" not in name:
                continue
            removed = tool(texts)
            false = 0
            for number, keeper in removed.items():
                a, b = families[number], families[keeper] if keeper is not None else -1
                false += a != b and (b < 0 or exact_similarity(originals[a], originals[b]) < threshold)
            gone = {families[number] for number in removed}
            asked = Counter(kinds)
            found = Counter(kind for family, kind in zip(families, kinds, strict=True) if kind and family in gone)
            recall = {kind: found[kind] / max(1, asked[kind]) for kind in KINDS}
            precision = 1 - false / max(1, len(removed))
            print(f"{name:44s}{precision:9.4f} " + " ".join(f"{recall[kind]:14.4f}" for kind in KINDS), flush=True)
            if name.startswith("fmtrain") and threshold == 0.5:
                good = precision >= PRECISION and all(recall[kind] >= least for kind, least in TARGETS.items())
    return good


def by_band(name: str, texts: list[str], threshold: float = 0.5) -> None:
    """Recall: of the pairs in a band of similarity, those of which not both stay. Precision: removed documents that
    have one that stays in their band; the last column is of those with none at the threshold."""
    pairs = alike(texts, 0.3)
    bands = [f"{low:.1f}-" for low in EDGES]
    some = sum(value >= threshold for value in pairs.values())
    print(f"\n{name}: {len(texts)} documents; pairs at {threshold} or more: {some}")
    print(f"{'':44s}{'':>10s}" + " ".join(f"{band:>7s}" for band in bands) + "   below")
    for tool_name, tool in tools(threshold).items():
        removed = tool(texts)
        all_pairs, found, nearest = Counter[int](), Counter[int](), Counter[int]()
        closest = dict.fromkeys(removed, 0.0)
        for (i, j), value in pairs.items():
            band = sum(value >= low for low in EDGES) - 1
            all_pairs[band] += 1
            found[band] += i in removed or j in removed
            for a, b in ((i, j), (j, i)):
                if a in removed and b not in removed:
                    closest[a] = max(closest[a], value)
        nearest.update(sum(value >= low for low in EDGES) - 1 for value in closest.values())
        recall = [f"{found[k] / all_pairs[k]:7.3f}" if all_pairs[k] else "      -" for k in range(len(EDGES))]
        print(f"{tool_name:44s}{'recall':>10s}" + " ".join(recall))
        counts = " ".join(f"{nearest[k]:7d}" for k in range(len(EDGES)))
        precise = 1 - nearest[-1] / max(1, len(removed))
        print(f"{'':44s}{'removed':>10s}{counts} {nearest[-1]:7d}   precision {precise:.4f}", flush=True)


def articles(name: str) -> None:
    """The planted pairs of shared data's articles: how many of them are found, and what else goes."""
    import gzip

    with gzip.open(DATA / "dedup" / f"{name}.train.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split(" ", 1) for line in lines if line.strip()]
    with gzip.open(DATA / "dedup" / f"{name}.truth.gz", "rt", encoding="utf-8") as lines:
        truth = [tuple(line.split()) for line in lines if line.strip()]
    number = {id_: at for at, (id_, _) in enumerate(rows)}
    print(f"\n{name}: {len(rows)} documents, {len(truth)} pairs")
    for tool_name, tool in tools(0.5).items():
        removed = tool([text for _, text in rows])
        found = sum(number[a] in removed or number[b] in removed for a, b in truth)
        print(f"{tool_name:44s} found {found}/{len(truth)}, removed {len(removed)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=12)
    options = parser.parse_args()
    need("rensa", data=DATA)
    good = planted(options.megabytes)
    by_band("spdx_licenses", [row["text"] for row in read(DATA / "dedup" / "spdx_licenses.jsonl.gz")])
    for name in ("articles_100", "articles_1000", "articles_2500"):
        articles(name)
    print("\ntargets met" if good else "\nTARGETS MISSED")
    sys.exit(not good)


if __name__ == "__main__":
    main()
