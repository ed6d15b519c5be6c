"""Config of the corpus wing: where text comes from, what is kept of it, how it becomes tokens and examples."""

from dataclasses import dataclass, field
from typing import Annotated

from fmtrain.schema.dedup import Dedup
from fmtrain.schema.fields import MISSING, file, files, items, outside
from fmtrain.schema.limits import AboveZero, Count, Limits, Positive
from fmtrain.schema.rules import Filter
from fmtrain.schema.sources import Data


@dataclass
class Inputs:
    """Explicit pins of a stage's inputs, `NAME@vN`; None takes what this run makes."""

    corpus: str | None = None
    tokenizer: str | None = None
    tokens: str | None = None
    examples: str | None = None
    model: str | None = None
    reference: str | None = None


@dataclass
class Plugin:
    """A package of rules, readers or objectives outside this one, as it was when the run was planned."""

    module: str
    package: str
    version: str
    source: str  # SHA-256 of its modules' files


@dataclass
class Tokenizer:
    """A tokenizer to train, or one that stands already."""

    name: str = MISSING


@dataclass
class Bpe(Tokenizer):
    """Byte-level BPE (Sennrich et al. 2016; GPT-2's split): any text comes back as it was."""

    name: str = "bpe"
    vocab_size: Annotated[int, Limits(least=300, greatest=10_000_000)] = 4096
    spare_tokens: Annotated[int, Limits(least=0, greatest=100_000)] = 16


@dataclass
class Unigram(Tokenizer):
    """Byte-level Unigram (Kudo 2018), split as GPT-2 splits: any text comes back as it was."""

    name: str = "unigram"
    vocab_size: Annotated[int, Limits(least=300, greatest=10_000_000)] = 4096
    spare_tokens: Annotated[int, Limits(least=0, greatest=100_000)] = 16


@dataclass
class WordPiece(Tokenizer):
    """BERT's WordPiece (Devlin et al. 2019): white space is not kept, a word with an unknown character is <unk>."""

    name: str = "wordpiece"
    vocab_size: Annotated[int, Limits(least=300, greatest=10_000_000)] = 4096
    spare_tokens: Annotated[int, Limits(least=0, greatest=100_000)] = 16
    lowercase: bool = False  # also strips accents, as BERT's uncased models do
    alphabet: Positive = 1000  # of characters; rarer ones are unknown


@dataclass
class Existing(Tokenizer):
    """A Hugging Face tokenizer folder on this machine, taken as it is; identified by its files' content."""

    name: str = "hf"
    path: str | None = file()


@dataclass
class CorpusStage:
    """Read, filter, drop duplicates, set the held-out documents apart."""

    artifact: str = "corpus"
    shard_mb: Annotated[int, Limits(least=1, greatest=100_000)] = 128  # of text, a file of the artifact
    keep_dropped: bool = False  # the ledger also holds the text of what was dropped
    # None: one a processor, at least four; inline one to four, by size
    tasks: Annotated[int, Limits(least=1, greatest=1_000_000)] | None = outside(None)
    heartbeat_seconds: Positive = outside(600)  # a task silent for so long is ended and tried again
    inputs: Inputs = outside(Inputs)


@dataclass
class TokenizerStage:
    artifact: str = "tokenizer"
    inputs: Inputs = outside(Inputs)


@dataclass
class Mixture:
    """How much of each source becomes tokens. Without weights and tokens every document, once.

    A source is named as the corpus names it, or by a pattern (`web/*`); the first that fits a document counts. `tokens`
    without weights takes every source by its size; weights without `tokens` take what repeats no source.
    """

    weights: list[str] = items()  # SOURCE:WEIGHT, e.g. [web:0.7,code:0.3]; other sources are left out
    tokens: Positive | None = None
    max_epochs: AboveZero = 4.0  # Muennighoff et al. 2023: up to four epochs are nearly as good as new text
    epochs: list[str] = items()  # SOURCE:MAXIMUM where it is another for a source
    seed: Count = 1  # which documents make a part of an epoch


@dataclass
class TokensStage:
    """Flat token shards of the training documents."""

    artifact: str = "tokens"
    shard_tokens: Positive = 4_000_000
    megatron: bool = False  # the same documents also as megatron/text_document.bin and .idx
    from_megatron: list[str] = files()  # PREFIX.bin and PREFIX.idx of datasets, instead of a corpus
    mixture: Mixture = field(default_factory=Mixture)
    inputs: Inputs = outside(Inputs)


@dataclass
class ExamplesStage:
    """SFT rows and preference rows; lengths in characters."""

    artifact: str = "examples"
    min_prompt: Count = 40
    max_prompt: Positive = 1500
    min_response: Count = 60
    max_response: Positive = 2500
    max_sft_rows: Positive | None = None
    max_preference_rows: Positive | None = None
    max_heldout_rows: Positive | None = None
    inputs: Inputs = outside(Inputs)


@dataclass
class CorpusJob:
    """The frozen slice of a corpus stage."""

    seed: Count
    data: Data
    filter: Filter
    dedup: Dedup
    plugins: list[Plugin] = field(default_factory=list)
    stage: CorpusStage = field(default_factory=CorpusStage)


@dataclass
class TokenizerJob:
    tokenizer: Tokenizer
    stage: TokenizerStage = field(default_factory=TokenizerStage)


@dataclass
class TokensJob:
    stage: TokensStage = field(default_factory=TokensStage)


@dataclass
class ExamplesJob:
    seed: Count
    data: Data
    stage: ExamplesStage = field(default_factory=ExamplesStage)
