"""Config of deduplication: which documents, and which parts of them, count as copies of another."""

from dataclasses import dataclass
from typing import Annotated

from fmtrain.schema.fields import MISSING, items, outside
from fmtrain.schema.limits import Count, Limits, Positive, Share
from fmtrain.schema.options import options

STEPS = ("exact", "normalised", "url", "minhash", "paragraphs", "lines", "substring")


@dataclass
class Dedup:
    """What is looked for, in order. Of copies the best stays: of training before held out, then by `keep`.

    A near copy goes only where its exact Jaccard similarity to a document that stays is at least `threshold`.
    """

    name: str = outside(MISSING)  # the option that it began as
    steps: list[Annotated[str, Limits(choices=STEPS)]] = items()
    # newest: by data.date_key; score: of filter.classifier
    keep: Annotated[str, Limits(choices=("longest", "newest", "score"))] = "longest"
    n_grams: Annotated[int, Limits(least=1, greatest=1000)] = 5  # words a shingle
    bands: Annotated[int, Limits(least=1, greatest=1000)] = 25
    # hashes a band; 25 x 5 compares pairs of Jaccard .5, .63, .75 with probability .55, .93, .999
    rows: Annotated[int, Limits(least=1, greatest=1000)] = 5
    # exact Jaccard of word n-grams; 5% of the words edited is about .63
    threshold: Annotated[float, Limits(above=0, greatest=1)] = 0.5
    against: str | None = None  # an earlier corpus, NAME@vN: what copies a document of it goes
    min_paragraph_words: Positive = 5  # shorter paragraphs and lines are never counted as copies
    max_repeats: Positive = 1  # how often a paragraph or line may stand in the corpus
    # a span of so many words that stands elsewhere too is a copy (Lee et al. 2022)
    substring_words: Annotated[int, Limits(least=5, greatest=1_000_000)] = 50
    # cut the repeated span, or drop the document
    substring_action: Annotated[str, Limits(choices=("cut", "drop"))] = "cut"
    seed: Count = 1  # of the hashes
    alarm_cluster: Positive = 1000  # copies of one document from which we say so
    alarm_source_share: Share = 0.5  # share of a source removed as copies from which we say so


options(Dedup, **dict.fromkeys(("none", "exact", "minhash", "web"), Dedup))
