"""The tokens stage: the training documents as flat shards of token ids with document ends.

A document is `<bos> text <eos>`, in corpus order, never split over two shards; what its text spells is ordinary text,
also where it spells a special token. Memory is bounded by one batch of documents and one shard's document ends.
"""

from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt
import tokenizers

from data_pipelines.corpus_reader import batches, documents
from data_pipelines.stages.tokenizer import load, token_id
from fmtrain.errors import InputError
from fmtrain.run.stage import Stage
from fmtrain.run.storage import sha256_file, write_json
from fmtrain.run.worker import Progress, Result
from fmtrain.schema.corpus import TokensJob


class ShardWriter:
    """Writes documents' ids to `00000.tokens`, `00001.tokens` ... and their ends to `00000.ends` ...

    A shard is closed before the document that would take it over `shard_tokens`; a longer document has one of its own.
    """

    def __init__(self, folder: Path, dtype: str, shard_tokens: int) -> None:
        self.folder, self.shard_tokens = folder, shard_tokens
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.shards: list[dict[str, int]] = []
        self._file: IO[bytes] | None = None
        self._ends: list[int] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def add(self, ids: npt.NDArray[np.unsignedinteger]) -> None:
        """Append one document; `ids` is (tokens,)."""
        filled = self._ends[-1] if self._ends else 0
        if self._file is not None and filled + len(ids) > self.shard_tokens:
            self._close()
            filled = 0
        if self._file is None:
            self._file = open(self.folder / f"{len(self.shards):05d}.tokens", "wb")  # noqa: SIM115 - closed by _close
        self._file.write(ids.astype(self.dtype).tobytes())
        self._ends.append(filled + len(ids))

    def _close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        ends = np.asarray(self._ends, dtype="<u8")
        (self.folder / f"{len(self.shards):05d}.ends").write_bytes(ends.tobytes())
        self.shards.append({"tokens": int(ends[-1]), "documents": len(ends)})
        self._ends = []


def run(stage: Stage) -> Result:
    """Encode every training document of the corpus."""
    job = stage.job_as(TokensJob)
    folder = stage.input("tokenizer")
    tokenizer = load(folder)
    bos, eos = token_id(tokenizer, "<bos>"), token_id(tokenizer, "<eos>")
    vocab_size = tokenizer.get_vocab_size()
    dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
    progress = Progress(stage, "documents")
    done = size = 0
    with ShardWriter(stage.out, dtype, job.stage.shard_tokens) as writer:
        for texts in batches(documents(stage.input("corpus"), "train")):
            for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                writer.add(np.asarray([bos, *encoding.ids, eos], dtype=dtype))
            done += len(texts)
            size += sum(len(text.encode()) for text in texts)
            progress.update(done)
    if not done:
        raise InputError(f"{stage.input('corpus')} has no training documents; loosen the corpus's filter")
    total = sum(shard["tokens"] for shard in writer.shards)
    index = {
        "dtype": dtype,
        "vocab_size": vocab_size,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "tokenizer_sha256": sha256_file(folder / "tokenizer.json"),
        "total_tokens": total,
        "documents": done,
        "shards": writer.shards,
    }
    write_json(stage.out / "index.json", index)
    return Result(
        counts={"tokens": total, "documents": done, "shards": len(writer.shards), "bytes": size},
        metrics={"bytes_per_token": round(size / (total - 2 * done), 4) if total > 2 * done else None},
        numerics={"tokenizers": tokenizers.__version__},
    )
