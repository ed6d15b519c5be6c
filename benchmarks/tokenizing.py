"""Tokenizing: our tokens stage beside the library's encode_batch on the same batches and datatrove's DocumentTokenizer.

python benchmarks/tokenizing.py [--mb 60] [--rounds 3] [--data FOLDER of JSON lines] [--vocab 16000]

Each contestant is a process of its own, in turn, on the same corpus and tokenizer. Ours and datatrove's read, tokenize
and write; encode_batch only reads and encodes. Wall and CPU seconds are those of the process's work, without imports;
memory is the peak of its process tree. The ids must be the same ones: documents that spell a special token (`<user>`)
are left out, since datatrove takes it for the token.
"""

import argparse
import gzip
import hashlib
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measure import Peak
from peers import need

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "pretrain"
CONTESTANTS = ("fmtrain", "encode_batch", "datatrove")


def texts(data: Path) -> Iterator[str]:
    """Prose and code, again and again, no two documents alike."""
    from data_pipelines.vocabulary import SPECIAL_TOKENS

    special = re.compile(f"<({'|'.join(SPECIAL_TOKENS)}|spare_[0-9]+)>")
    turn = 0
    while True:
        for path in sorted(data.glob("*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    text = json.loads(line)["text"]
                    if not special.search(text):
                        yield f"{turn} {text}"
        turn += 1


def prepare(folder: Path, data: Path, megabytes: float, vocab: int) -> int:
    """A corpus in our form and a tokenizer; the bytes of text."""
    from data_pipelines import folder as tokenizer_folder
    from data_pipelines.vocabulary import train
    from fmtrain.schema.tokenizers import Bpe

    size, number = 0, 0
    (folder / "corpus" / "train").mkdir(parents=True)
    with gzip.open(folder / "corpus" / "train" / "00000.jsonl.gz", "wb", 1) as out:
        for text in texts(data):
            row = {"id": f"{number:08d}", "text": text, "group": "g", "source": "s"}
            out.write(json.dumps(row).encode() + b"\n")
            size, number = size + len(text.encode()), number + 1
            if size > megabytes * 1e6:
                break
    config = Bpe(vocab_size=vocab)
    sample = [text for text, _ in zip(texts(data), range(400), strict=False)]
    (folder / "tokenizer").mkdir()
    tokenizer_folder.write(train(lambda: iter(sample), config), folder / "tokenizer", config)
    return size


def fmtrain(folder: Path, out: Path) -> str:
    """The stage as it runs, without its frame."""
    from data_pipelines.stages import tokens
    from fmtrain.artifacts.stage import Stage
    from fmtrain.kinds.tokens import TokensJob
    from fmtrain.schema.load import dump

    inputs = {"corpus": str(folder / "corpus"), "tokenizer": str(folder / "tokenizer")}
    stage = Stage("tokens", "tokens", "tokens", "f", "r", dump(TokensJob()), inputs, {}, [], str(out), folder=out)
    stage.out.mkdir(parents=True)
    begin()
    tokens.run(stage)
    end()
    digest = hashlib.sha256()
    for path in sorted(stage.out.glob("*.tokens")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def encode_batch(folder: Path, out: Path) -> str:
    """The library alone; the ids are hashed once the clock is stopped, by encoding again."""
    import numpy as np

    from data_pipelines.corpus_reader import batches, documents
    from data_pipelines.folder import load

    tokenizer = load(folder / "tokenizer")
    begin()
    for batch in batches(documents(folder / "corpus", "train")):
        tokenizer.encode_batch([document.text for document in batch], add_special_tokens=False)
    end()
    digest = hashlib.sha256()
    for batch in batches(documents(folder / "corpus", "train")):
        for encoding in tokenizer.encode_batch_fast([d.text for d in batch], add_special_tokens=False):
            digest.update(np.array([0, *encoding.ids, 1], "<u2").tobytes())
    return digest.hexdigest()


def datatrove(folder: Path, out: Path) -> str:
    """Its defaults, but for the token that ends a document and no upload of statistics."""
    import numpy as np
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.utils.logging import logger

    logger.remove()
    reader = JsonlReader(str(folder / "corpus" / "train"))
    writer = DocumentTokenizer(
        str(out),
        tokenizer_name_or_path=str(folder / "tokenizer" / "tokenizer.json"),
        eos_token="<eos>",
        shuffle_documents=False,
    )
    begin()
    writer.run(reader.run(None, 0, 1), 0, 1)
    end()
    ids = np.concatenate([np.fromfile(path, "<u2") for path in sorted(out.glob("*.ds"))])
    ends = np.flatnonzero(ids == 1) + 1
    parts = [np.concatenate([[0], part]) for part in np.split(ids, ends[:-1])]  # it writes no <bos>
    return hashlib.sha256(np.concatenate(parts).astype("<u2").tobytes()).hexdigest()


def begin() -> None:
    global wall, processor
    wall, processor = time.perf_counter(), _processor()


def end() -> None:
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": _processor() - processor}), flush=True)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def contest(name: str, folder: Path, out: Path) -> dict[str, float | str]:
    """One process; memory is watched until it says that its work is done."""
    command = [sys.executable, __file__, "--child", name, str(folder), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with Peak(process.pid, 0.05) as peak:
        done = process.stdout.readline()
    digest = process.stdout.readline().strip()
    if process.wait() or not done:
        raise SystemExit(f"{name} failed")
    return {**json.loads(done), "memory": peak.bytes, "ids": digest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mb", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=16_000)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--child", nargs=3)
    args = parser.parse_args()
    if args.child:
        name, folder, out = args.child
        print({"fmtrain": fmtrain, "encode_batch": encode_batch, "datatrove": datatrove}[name](Path(folder), Path(out)))
        return
    need(data=args.data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = prepare(folder, args.data, args.mb, args.vocab)
        found: dict[str, list[dict[str, float | str]]] = {name: [] for name in CONTESTANTS}
        for turn in range(args.rounds):
            for contestant in CONTESTANTS if turn % 2 == 0 else CONTESTANTS[::-1]:
                found[contestant].append(contest(contestant, folder, folder / f"{contestant}-{turn}"))
    report(size, found)


def report(size: int, found: dict[str, list[dict[str, float | str]]]) -> None:
    middle = {
        name: {what: statistics.median(float(run[what]) for run in runs) for what in ("wall", "cpu", "memory")}
        for name, runs in found.items()
    }
    print(f"{size / 1e6:.0f} MB of text, median of {len(found['fmtrain'])} rounds")
    print(f"{'':14}{'wall s':>9}{'CPU s':>9}{'MB/s':>8}{'peak MB':>9}")
    for name, run in middle.items():
        rate = size / 1e6 / run["wall"]
        print(f"{name:14}{run['wall']:9.2f}{run['cpu']:9.2f}{rate:8.2f}{run['memory'] / 1e6:9.0f}")
    ours, library, peer = (middle[name] for name in CONTESTANTS)
    print(f"speed, ours / encode_batch alone: {library['wall'] / ours['wall']:.3f} (at least 0.95)")
    print(f"memory, ours / DocumentTokenizer: {ours['memory'] / peer['memory']:.3f} (at most 0.333)")
    print(f"speed, ours / DocumentTokenizer: {peer['wall'] / ours['wall']:.3f}")
    print(f"the same ids from all: {len({run['ids'] for runs in found.values() for run in runs}) == 1}")


if __name__ == "__main__":
    main()
