"""The strict reader beside datatrove's JsonlReader on one JSONL.zst file: processor seconds, wall, memory, decisions.

python benchmarks/reading.py DATA [--mb 200] [--rounds 5]; DATA holds pretrain/*.jsonl.gz, whose documents are repeated
to that many MB of JSON. Each reading is a process of its own, in turns, and is timed without imports. The decisions are
compared by the texts that both give: on the whole file, then on copies of it that are cut or have a bad byte.
"""

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import xxhash
import zstandard
from measure import Peak
from peers import need


def ours(path: Path) -> Iterator[str]:
    from data_pipelines import sources
    from data_pipelines.document import Document
    from fmtrain.artifacts.sources import identify
    from fmtrain.schema.sources import Local

    for record in sources.read(Local(), sources.Unit(identify(str(path), path.name), 1, 0, 0)):
        if isinstance(record, Document):
            yield record.text


def datatrove(path: Path) -> Iterator[str]:
    import logging

    from datatrove.pipeline.readers import JsonlReader
    from loguru import logger

    logger.remove()
    logging.disable()
    reader = JsonlReader(str(path.parent), glob_pattern=path.name, doc_progress=False, file_progress=False)
    try:
        for document in reader.run():
            yield document.text
    except zstandard.ZstdError as e:  # what it gave before it fell over is compared
        print(f"datatrove raises ZstdError: {e}", file=sys.stderr)


READERS = {"ours": ours, "datatrove": datatrove}


def measured(name: str, path: Path) -> tuple[float, float, list[int]]:
    """Processor seconds and wall of a second reading (the first has imported everything), and what the first gave."""
    hashes = [xxhash.xxh3_64_intdigest(text.encode()) for text in READERS[name](path)]
    cpu, wall = time.process_time(), time.monotonic()
    for _ in READERS[name](path):
        pass
    return time.process_time() - cpu, time.monotonic() - wall, hashes


def read(name: str, path: Path) -> dict[str, float | int | list[int]]:
    """One reading in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__, "--read", name, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with Peak(process.pid, 0.05) as peak:
        out = process.stdout.read()
        process.wait()
    cpu, wall, hashes = json.loads(out)
    return {"cpu": cpu, "wall": wall, "hashes": hashes, "peak": peak.bytes}


def make(data: Path, path: Path, size: int) -> tuple[int, list[int]]:
    """A file of `size` bytes of JSON or a little more: its bytes, and the hashes of its texts."""
    files = sorted((data / "pretrain").glob("*.jsonl.gz"))
    lines = [line + b"\n" for f in files for line in gzip.decompress(f.read_bytes()).splitlines()]
    texts = [xxhash.xxh3_64_intdigest(json.loads(line)["text"].encode()) for line in lines]
    written, hashes = 0, []
    with zstandard.open(path, "wb", zstandard.ZstdCompressor(3, write_checksum=True)) as f:
        while written < size:
            for line, text in zip(lines, texts, strict=True):
                f.write(line)
                written += len(line)
                hashes.append(text)
    return written, hashes


def compare(what: str, truth: list[int], path: Path) -> None:
    good = Counter(truth)
    kept = {name: Counter(read(name, path)["hashes"]) & good for name in READERS}
    a, b = kept["ours"], kept["datatrove"]
    print(
        f"{what}: {len(truth)} documents written; kept by both {(a & b).total()}, by ours alone {(a - b).total()}, by "
        f"datatrove alone {(b - a).total()}, by neither {(good - (a | b)).total()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(measured(args.read[0], Path(args.read[1]))))
        return
    need(data=args.data / "pretrain")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.jsonl.zst"
        size, truth = make(args.data, path, args.mb * 1_000_000)
        print(f"{len(truth)} documents, {size / 1e6:.0f} MB of JSON, {path.stat().st_size / 1e6:.0f} MB as .zst")
        rounds = [{name: read(name, path) for name in READERS} for _ in range(args.rounds)]
        for name in READERS:
            cpu, wall, peak = (statistics.median(r[name][k] for r in rounds) for k in ("cpu", "wall", "peak"))
            print(
                f"{name:>10}: {cpu:.2f} CPU s, {wall:.2f} s, {size / 1e6 / cpu:.0f} MB/CPU s, {peak / 1e6:.0f} MB peak"
            )
        ratios = [r["datatrove"]["cpu"] / r["ours"]["cpu"] for r in rounds]
        print(f"ours is {statistics.median(ratios):.2f}x as fast in CPU seconds ({min(ratios):.2f}-{max(ratios):.2f})")
        compare("the whole file", truth, path)
        packed = path.read_bytes()
        for what, damaged in (
            ("cut in the middle", packed[: len(packed) // 2]),
            (
                "a byte changed at two thirds",
                packed[: (n := len(packed) * 2 // 3)] + bytes([packed[n] ^ 255]) + packed[n + 1 :],
            ),
        ):
            bad = Path(folder) / "bad.jsonl.zst"
            bad.write_bytes(damaged)
            compare(what, truth, bad)


if __name__ == "__main__":
    main()
