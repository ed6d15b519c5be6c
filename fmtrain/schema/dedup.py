"""Config of deduplication: which documents, and which parts of them, count as copies of another."""

from dataclasses import dataclass

from fmtrain.schema.fields import MISSING, items

STEPS = ("exact", "normalised", "url", "minhash", "paragraphs", "lines", "substring")


@dataclass
class Dedup:
    """What is looked for, in order. Of copies the best stays: of training before held out, then by `keep`.

    A near copy goes only where its exact Jaccard similarity to a document that stays is at least `threshold`.
    """

    name: str = MISSING
    steps: list[str] = items()  # of exact, normalised, url, minhash, paragraphs, lines, substring
    keep: str = "longest"  # longest, newest (data.date_key) or score (filter.classifier)
    n_grams: int = 5  # words a shingle
    bands: int = 25
    rows: int = 5  # hashes a band; 25 x 5 compares pairs of Jaccard .5, .63, .75 with probability .55, .93, .999
    threshold: float = 0.5  # exact Jaccard of word n-grams; 5% of the words edited is about .63
    against: str | None = None  # an earlier corpus, NAME@vN: what copies a document of it goes
    min_paragraph_words: int = 5  # shorter paragraphs and lines are never counted as copies
    max_repeats: int = 1  # how often a paragraph or line may stand in the corpus
    substring_words: int = 50  # a span of so many words that stands elsewhere too is a copy (Lee et al. 2022)
    substring_action: str = "cut"  # cut the repeated span, or drop the document
    alarm_cluster: int = 1000  # copies of one document from which we say so
    alarm_source_share: float = 0.5  # share of a source removed as copies from which we say so
