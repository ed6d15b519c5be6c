"""The tokenizer stage: trained on the corpus's training documents, or taken from a folder; as a Hugging Face folder.

The special tokens and the chat template belong to the tokenizer's identity. A trained one adds no token by itself.
Whether text may spell a special token is the encoder's choice: see `folder.load`, which says no.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers

from data_pipelines import folder, vocabulary
from data_pipelines.corpus_reader import batches, documents
from data_pipelines.folder import load
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import sha256_file
from fmtrain.artifacts.worker import Progress, Result
from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.tokenizer import TokenizerJob
from fmtrain.schema.tokenizers import Existing, OfModel

__all__ = ["load", "measure", "run"]


def run(stage: Stage) -> Result:
    """Train or copy, then measure on the held-out documents where there is a corpus."""
    config = stage.job_as(TokenizerJob).tokenizer
    if isinstance(config, OfModel):
        counts = _take(stage.input("model"), stage.out)
    elif isinstance(config, Existing):
        if config.path is None:
            raise ConfigError("tokenizer.path was not given; e.g. tokenizer=hf tokenizer.path=DIR")
        counts = _take(Path(config.path).expanduser(), stage.out)
    else:
        assert isinstance(config, vocabulary.Trained), config
        counts = _train(stage, config)
    tokenizer = load(stage.out)
    folder.marks(stage.out, tokenizer)  # a folder that documents cannot be written with is refused here
    corpus = stage.input("corpus") if "corpus" in stage.inputs else None
    heldout_bytes, heldout_tokens = measure(tokenizer, corpus) if corpus else (0, 0)
    template = folder.chat_template(stage.out)
    return Result(
        counts={
            "vocab_size": tokenizer.get_vocab_size(),
            **counts,
            "heldout_bytes": heldout_bytes,
            "heldout_tokens": heldout_tokens,
        },
        metrics={
            "bytes_per_token": round(heldout_bytes / heldout_tokens, 4) if heldout_tokens else None,
            "tokenizer_sha256": sha256_file(stage.out / "tokenizer.json"),
            "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest() if template else None,
        },
        numerics={"tokenizers": tokenizers.__version__},
    )


def _take(source: Path, out: Path) -> dict[str, Any]:
    added = folder.copy(source, out)
    return {"special_tokens": folder.roles(out), "chat_template_added": int(added)}


def _train(stage: Stage, config: vocabulary.Trained) -> dict[str, Any]:
    corpus, progress = stage.input("corpus"), Progress(stage, "documents")
    counts = {"vocab_size_asked": config.vocab_size, "documents": 0, "bytes": 0}

    def texts() -> Iterator[str]:
        counts["documents"] = counts["bytes"] = 0
        for document in documents(corpus, "train"):
            counts["documents"] += 1
            counts["bytes"] += len(document.text.encode())
            progress.update(counts["documents"])
            yield document.text

    tokenizer = vocabulary.train(texts, config)
    if not counts["documents"]:
        raise InputError(f"{corpus} has no training documents to learn a vocabulary from; loosen the corpus's filter")
    folder.write(tokenizer, stage.out, config)
    progress.update(counts["documents"], force=True)
    return counts


def measure(tokenizer: tokenizers.Tokenizer, corpus: Path) -> tuple[int, int]:
    """Bytes and tokens of the held-out documents."""
    total_bytes = total_tokens = 0
    for batch in batches(documents(corpus, "heldout")):
        total_bytes += sum(len(document.text.encode()) for document in batch)
        texts = [document.text for document in batch]
        total_tokens += sum(len(e) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    return total_bytes, total_tokens
