"""The tokenizer stage: a byte-level BPE trained on the corpus's training documents, as a Hugging Face folder.

The special tokens and the chat template belong to the tokenizer's identity. It normalises nothing and adds no token by
itself, so that any text comes back byte for byte. Whether text may spell a special token is the encoder's choice: see
`load`, which says no.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from data_pipelines.corpus_reader import batches, documents
from fmtrain.errors import ConfigError, InputError
from fmtrain.run.stage import Stage
from fmtrain.run.storage import sha256_file, write_json, write_text
from fmtrain.run.worker import Progress, Result
from fmtrain.schema.corpus import Bpe, TokenizerJob

SPECIAL_TOKENS = ("bos", "eos", "pad", "unk", "mask", "cls", "sep", "user", "assistant", "system")
_NAMED = SPECIAL_TOKENS[:7]  # those that Hugging Face has a setting for
_BYTES = 256
TEMPLATE = Path(__file__).parent.parent / "chat_template.jinja"


def special_tokens(config: Bpe) -> list[str]:
    """The reserved tokens in id order: the ten named ones, then the spares."""
    return [f"<{name}>" for name in SPECIAL_TOKENS] + [f"<spare_{i}>" for i in range(config.spare_tokens)]


def train(texts: Iterator[str], config: Bpe) -> tokenizers.Tokenizer:
    """A byte-level BPE (Sennrich et al. 2016; GPT-2's split) of at most `config.vocab_size` tokens, all counted in.

    The result is a function of the multiset of texts: ties between merges are broken by token id.
    """
    reserved = special_tokens(config)
    if config.vocab_size < len(reserved) + _BYTES:
        raise ConfigError(
            f"tokenizer.vocab_size: {config.vocab_size} leaves no room for the {len(reserved)} special tokens and the "
            f"{_BYTES} bytes; give at least {len(reserved) + _BYTES}, or fewer tokenizer.spare_tokens"
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in reserved],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def load(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of an artifact, set to read text as text: a literal `<eos>` in it becomes ordinary tokens."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # the library's name for "special tokens are split like any other text"
    return tokenizer


def write(tokenizer: tokenizers.Tokenizer, folder: Path, config: Bpe) -> None:
    """The files that `transformers.AutoTokenizer` and `tokenizers` load, in `folder`."""
    named = {f"{name}_token": f"<{name}>" for name in _NAMED}
    extra = [t for t in special_tokens(config) if t not in named.values()]
    settings = {
        # The class that takes tokenizer.json as it is; a model's own class (LlamaTokenizer) would rebuild the
        # pipeline from the vocabulary alone, with another split.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "additional_special_tokens": extra,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,  # Hugging Face's "no limit"; the length is the model's affair
        "padding_side": "right",
    }
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", {**named, "additional_special_tokens": extra})
    write_text(folder / "chat_template.jinja", TEMPLATE.read_text(encoding="utf-8"))


def run(stage: Stage) -> Result:
    """Train on the corpus's training documents, measure on the held-out ones."""
    config = stage.job_as(TokenizerJob).tokenizer
    assert isinstance(config, Bpe), config
    corpus, progress = stage.input("corpus"), Progress(stage, "documents")
    counts = {"documents": 0, "bytes": 0}

    def texts() -> Iterator[str]:
        for document in documents(corpus, "train"):
            counts["documents"] += 1
            counts["bytes"] += len(document.text.encode())
            progress.update(counts["documents"])
            yield document.text

    tokenizer = train(texts(), config)
    if not counts["documents"]:
        raise InputError(f"{corpus} has no training documents to learn a vocabulary from; loosen the corpus's filter")
    write(tokenizer, stage.out, config)
    heldout_bytes, heldout_tokens = measure(load(stage.out), corpus)
    progress.update(counts["documents"], force=True)
    return Result(
        counts={
            "vocab_size": tokenizer.get_vocab_size(),
            "vocab_size_asked": config.vocab_size,
            **counts,
            "heldout_bytes": heldout_bytes,
            "heldout_tokens": heldout_tokens,
        },
        metrics={
            "bytes_per_token": round(heldout_bytes / heldout_tokens, 4) if heldout_tokens else None,
            "tokenizer_sha256": sha256_file(stage.out / "tokenizer.json"),
            "chat_template_sha256": hashlib.sha256(TEMPLATE.read_bytes()).hexdigest(),
        },
        numerics={"tokenizers": tokenizers.__version__},
    )


def measure(tokenizer: tokenizers.Tokenizer, corpus: Path) -> tuple[int, int]:
    """Bytes and tokens of the held-out documents."""
    total_bytes = total_tokens = 0
    for texts in batches(documents(corpus, "heldout")):
        total_bytes += sum(len(text.encode()) for text in texts)
        total_tokens += sum(len(e.ids) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    return total_bytes, total_tokens


def token_id(tokenizer: tokenizers.Tokenizer, token: str) -> int:
    """The id of a token that must be there; ConfigError where a tokenizer of another make lacks it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ConfigError(f"the tokenizer has no token {token}; use a tokenizer that this stage graph trained")
    return int(found)
