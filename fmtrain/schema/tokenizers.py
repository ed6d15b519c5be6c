"""Config of tokenizers: trained, or one that stands already."""

from dataclasses import dataclass
from typing import Annotated

from fmtrain.schema.fields import MISSING, file
from fmtrain.schema.limits import Limits, Positive
from fmtrain.schema.options import options


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
class OfModel(Tokenizer):
    """That of the model that training starts from, as it is."""

    name: str = "model"


# auto: the model's where one is given, else bpe; whoever composes a configuration puts it in its place
options(Tokenizer, auto=Bpe, model=OfModel, bpe=Bpe, unigram=Unigram, wordpiece=WordPiece, hf=Existing)
