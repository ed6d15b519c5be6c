"""The tokens stage: the training documents, as a mixture wants them, as flat shards of token ids with document ends.

A document is `<bos> text <eos>`, in corpus order, never split over two shards; what its text spells is ordinary text,
also where it spells a special token. Memory is bounded by one batch of documents and one shard's document ends.
Existing Megatron datasets take the place of a corpus where `from_megatron` names them.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import tokenizers

from data_pipelines import megatron, mixture
from data_pipelines.corpus_reader import Document, documents
from data_pipelines.encoding import Encoder, Ids
from data_pipelines.folder import load, marks
from data_pipelines.token_shards import ShardWriter
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import sha256_file, write_json
from fmtrain.artifacts.worker import Progress, Result, announce, tell
from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.tokens import TokensJob, TokensStage
from fmtrain.schema.mixture import check, is_plain, weights

MEGATRON_PREFIX = "megatron/text_document"  # as preprocess_data.py names what it makes of the key `text`
_WRITTEN = np.dtype([("share", "<u4"), ("key", "<u8")])  # of each document of the first pass over the corpus


@dataclass
class _Blend:
    """The mixture in the making: the plan, and the documents that the first pass has written."""

    shares: list[mixture.Share]
    matcher: mixture.Matcher
    seed: int
    left_out: Counter[str]
    by_name: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.by_name = {share.source: i for i, share in enumerate(self.shares)}

    @property
    def documents(self) -> int:
        """Those that the mixture has a weight for."""
        return sum(share.documents for share in self.shares)

    def place(self, document: Document) -> tuple[int, int] | None:
        """The number of the document's share and its key; None where the first pass leaves it out."""
        name = self.matcher(document.source)
        if name is None:
            return None
        number, key = self.by_name[name], mixture.key(document.id, self.seed)
        return (number, key) if self.shares[number].takes(key, 0) else None

    def wrote(self, number: int, tokens: int) -> None:
        became = self.shares[number].became
        became["documents"] = became.get("documents", 0) + 1
        became["tokens"] = became.get("tokens", 0) + tokens


class _Tally:
    """Documents, bytes and tokens of the text, by source and by licence; each document once, whatever its epochs."""

    def __init__(self, marks: int) -> None:
        self.marks = marks
        self.by_source: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.by_license: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, document: Document, ids: Ids) -> None:
        size, tokens = len(document.text.encode()), len(ids) - self.marks
        for found in (self.by_source[document.source], self.by_license[document.license]):
            found["documents"] += 1
            found["bytes"] += size
            found["tokens"] += tokens

    def total(self, what: str) -> int:
        return sum(found[what] for found in self.by_source.values())

    def record(self) -> dict[str, dict[str, Counter[str]]]:
        """For sources.json."""
        return {"sources": self.by_source, "licenses": self.by_license}


def run(stage: Stage) -> Result:
    job = stage.job_as(TokensJob)
    folder = stage.input("tokenizer")
    check(job.stage.mixture, f"stages.{stage.stage}")
    if job.stage.from_megatron:
        return _from_megatron(stage, job.stage, folder)
    tokenizer = load(folder)
    around = marks(folder, tokenizer)
    encoder = Encoder(tokenizer, around)
    blend = _plan(stage, job.stage, encoder)
    tally = _Tally(encoder.marks_per_document)
    with ExitStack() as stack:
        writer = stack.enter_context(ShardWriter(stage.out, encoder.dtype.name, job.stage.shard_tokens))
        copy = stack.enter_context(_megatron(stage, encoder)) if job.stage.megatron else None
        written = stack.enter_context(open(stage.work_dir / "written", "w+b"))
        for document, ids, share, key in _first_pass(stage, encoder, blend):
            _add(ids, writer, copy)
            tally.add(document, ids)
            if blend:
                blend.wrote(share, len(ids))
                written.write(np.array([(share, key)], _WRITTEN).tobytes())
        if blend:
            _later_passes(blend, writer, copy, written)
    (stage.work_dir / "written").unlink()
    if not writer.documents:
        raise InputError(f"{stage.several('corpus')[0]} has no training documents; loosen the corpus's filter")
    start = around.end if around.start is None else around.start
    writer.write_index(
        vocab_size=encoder.vocab_size,
        bos=start,
        eos=around.end,
        tokenizer_sha256=sha256_file(folder / "tokenizer.json"),
    )
    write_json(stage.out / "sources.json", tally.record())
    return _result(stage, writer, tally, blend)


def _training(stage: Stage) -> Iterator[Document]:
    """The training documents of one corpus after the other."""
    return (document for folder in stage.several("corpus") for document in documents(folder, "train"))


def _plan(stage: Stage, config: TokensStage, encoder: Encoder) -> _Blend | None:
    """The plan, printed and written down before anything is tokenized; None where every document goes once."""
    if is_plain(config.mixture):
        return None
    at = f"stages.{stage.stage}"
    survey = mixture.Survey(weights(config.mixture, at), config.mixture.seed)
    progress = Progress(stage, "documents surveyed")
    for number, document in enumerate(_training(stage), 1):
        survey.add(document)
        progress.update(number)

    def count(texts: list[str]) -> int:
        return sum(len(e) for e in encoder.tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    shares = mixture.plan(config.mixture, survey, count, encoder.marks_per_document, at)
    announce(stage, mixture.table(shares, survey.left_out))
    write_json(stage.out / "mixture.json", mixture.record(shares, survey.left_out))
    return _Blend(shares, survey.matcher, config.mixture.seed, survey.left_out)


def _first_pass(stage: Stage, encoder: Encoder, blend: _Blend | None) -> Iterator[tuple[Document, Ids, int, int]]:
    """Each document that goes into the first epoch, its ids, its share and key."""
    places: deque[tuple[int, int]] = deque()  # of the documents that are being encoded

    def wanted() -> Iterator[Document]:
        for document in _training(stage):
            place = blend.place(document) if blend else (0, 0)
            if place is not None:
                places.append(place)
                yield document

    progress = Progress(stage, "documents")
    for number, (document, ids) in enumerate(encoder(wanted()), 1):
        share, key = places.popleft()
        yield document, ids, share, key
        progress.update(number)


def _later_passes(blend: _Blend, writer: ShardWriter, copy: "megatron.Writer | None", written: IO[bytes]) -> None:
    """The second epoch and those after it, copied from the first: nothing is tokenized twice."""
    writer.close_shard()
    written.flush()
    first = len(writer.shards)
    for epoch in range(1, max(int(np.ceil(share.epochs)) for share in blend.shares)):
        written.seek(0)
        for number in range(first):
            ids, ends = writer.shard(number)
            places = np.frombuffer(written.read(len(ends) * _WRITTEN.itemsize), _WRITTEN)
            start = 0
            for end, share, key in zip(ends.tolist(), places["share"].tolist(), places["key"].tolist(), strict=True):
                if blend.shares[share].takes(key, epoch):
                    _add(ids[start:end], writer, copy)
                    blend.wrote(share, end - start)
                start = end


def _add(ids: Ids, writer: ShardWriter, copy: "megatron.Writer | None") -> None:
    writer.add(ids)
    if copy is not None:
        copy.add(ids)


def _megatron(stage: Stage, encoder: Encoder) -> megatron.Writer:
    return megatron.Writer(stage.out / MEGATRON_PREFIX, encoder.dtype)


def _result(stage: Stage, writer: ShardWriter, tally: _Tally, blend: _Blend | None) -> Result:
    found: dict[str, Any] = {
        "tokens": writer.tokens,
        "documents": writer.documents,
        "shards": len(writer.shards),
        "bytes": tally.total("bytes"),
    }
    if blend:
        write_json(stage.out / "mixture.json", mixture.record(blend.shares, blend.left_out))
        found["mixture"] = {
            share.source: {"wanted": share.wanted, **share.became, "available": share.available}
            for share in blend.shares
        }
        announce(stage, mixture.table(blend.shares, blend.left_out))
    tokens, taken = tally.total("tokens"), tally.total("documents")
    without, beyond = (blend.left_out.total(), blend.documents - taken) if blend else (0, 0)
    gone = {"of a source without a weight": without, "beyond what the mixture wants": beyond}
    tell(stage, "training documents", without + beyond + taken, gone | {"tokenized": taken})
    return Result(
        counts=found,
        metrics={"bytes_per_token": round(tally.total("bytes") / tokens, 4) if tokens else None},
        numerics={"tokenizers": tokenizers.__version__},
    )


def _from_megatron(stage: Stage, config: TokensStage, folder: Path) -> Result:
    at = f"stages.{stage.stage}"
    if not is_plain(config.mixture):
        raise ConfigError(f"{at}.mixture needs a corpus's sources; from_megatron takes datasets as they are")
    given = {Path(path) for path in config.from_megatron}
    datasets = [path for path in given if path.suffix == ".bin"]
    if given != {file for path in datasets for file in (path, path.with_suffix(".idx"))}:
        raise ConfigError(
            f"{at}.from_megatron={config.from_megatron}: expected PREFIX.bin and PREFIX.idx of each dataset, "
            f"since the content of both is what the tokens are known by; e.g. {at}.from_megatron='PREFIX.*'"
        )
    writer = megatron.convert(datasets, stage.out, folder, config.shard_tokens)
    return Result(
        counts={"tokens": writer.tokens, "documents": writer.documents, "shards": len(writer.shards)},
        metrics={},
        numerics={},
    )
