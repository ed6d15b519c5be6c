"""How fast signatures, and the whole of deduplication, are beside datatrove, rensa and text-dedup.

python benchmarks/dedup_speed.py [--megabytes 10] [--rounds 3] [--spacy-megabytes 1]. Every measurement is a process
of its own, the contestants of a claim take turns, and the least CPU time of the rounds counts. MB are of text in UTF-8.
A speed-up counts beside the decisions: families of copies from which both, one, neither removed a document (which one
stays differs: the longest here, the first read there). Exits with 1 where a target is missed.
"""

import argparse
import multiprocessing
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dedup_common as common
import orjson
from measure import Peak
from peers import need

from data_pipelines.dedup import near, order, signatures
from data_pipelines.parts import Parts
from fmtrain.schema.dedup import Dedup
from tests.data_pipelines.datatrove_words import OUR_WORDS
from tests.data_pipelines.made_parts import make_scheduler

MB = 1e6


@dataclass
class Run:
    cpu: float
    wall: float
    peak: int
    result: Any


def measured(function: Callable[[], Any]) -> Run:
    """Run it in a fork of this process, which has everything loaded and compiled."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"

        def child() -> None:
            cpu, wall = time.process_time(), time.monotonic()
            result = function()
            times = time.process_time() - cpu, time.monotonic() - wall
            out.write_bytes(pickle.dumps((times, result)))

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert process.pid
        with Peak(process.pid, 0.05) as peak:
            process.join()
        if process.exitcode:
            sys.exit(f"a measured process ended with {process.exitcode}")
        (cpu, wall), result = pickle.loads(out.read_bytes())
        return Run(cpu, wall, peak.bytes, result)


def compare(
    title: str, sizes: dict[str, float], contestants: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, Run]:
    """Rounds in turn; a line for each. `sizes`: bytes of text that each works on."""
    best: dict[str, Run] = {}
    for _ in range(rounds):
        for name, function in contestants.items():
            run = measured(function)
            if name not in best or run.cpu < best[name].cpu:
                best[name] = run
    print(f"\n{title}\n{'':46s}{'MB/cpu-s':>9s}{'cpu s':>9s}{'wall s':>9s}{'peak MB':>9s}{'ratio':>9s}")
    first = next(iter(best))  # ours: the ratio says how many times faster it is
    for name, run in best.items():
        speed, ours = sizes[name] / MB / run.cpu, sizes[first] / MB / best[first].cpu
        numbers = f"{speed:9.2f}{run.cpu:9.2f}{run.wall:9.2f}{run.peak / MB:9.0f}{ours / speed:8.1f}x"
        print(f"{name:46s}{numbers}", flush=True)
    return best


def ratio(best: dict[str, Run], sizes: dict[str, float], ours: str, peer: str) -> float:
    return (sizes[ours] / best[ours].cpu) / (sizes[peer] / best[peer].cpu)


def sign_ours(parts: Parts, bands: int, rows: int) -> int:
    """From JSON lines to sorted runs, with the order of preference that they are sorted by."""
    with tempfile.TemporaryDirectory() as folder, make_scheduler(Path(folder)) as scheduler:
        items = [order.OrderItem(parts, "longest")] * parts.tasks
        scheduler.run(f"{order.ORDER_STEP}-runs", order.order_runs_task, items)
        scheduler.run(order.ORDER_STEP, order.order_task, [f"{order.ORDER_STEP}-runs"])
        item = signatures.SignItem(order.Corpus(parts), signatures.Shape(common.N_GRAMS, bands, rows, 1), None)
        done = scheduler.run(near.SIGNATURES, signatures.sign_task, [item] * parts.tasks)
        return sum(counts["signed"] for counts in done)


def sign_datatrove(path: Path, language: Any, bands: int, rows: int) -> None:
    """From the same JSON lines to datatrove's signature files."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.readers import JsonlReader

    common.quiet()
    config = MinhashConfig(n_grams=common.N_GRAMS, num_buckets=bands, hashes_per_bucket=rows)
    with tempfile.TemporaryDirectory() as folder:
        block = MinhashDedupSignature(folder, config=config, language=language)
        block.run(JsonlReader(str(path.parent), glob_pattern=path.name).run(None, 0, 1), 0, 1)


def with_reading(texts: list[str], few: list[str], rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name, common.laid(texts) as parts:
        paths = []
        for at, lot in enumerate((texts, few)):
            (Path(name) / f"{at}").mkdir()
            path = Path(name) / f"{at}" / "documents.jsonl"
            rows = (orjson.dumps({"id": str(i), "text": text}) for i, text in enumerate(lot))
            path.write_bytes(b"\n".join(rows) + b"\n")
            paths.append(path)
        sign_datatrove(paths[1], "eng", 14, 8)  # loads spaCy
        whole, part = (float(sum(len(t.encode()) for t in lot)) for lot in (texts, few))
        contestants: dict[str, Callable[[], Any]] = {
            "fmtrain 14x8": lambda: sign_ours(parts, 14, 8),
            "datatrove 14x8, our splitter": lambda: sign_datatrove(paths[0], OUR_WORDS, 14, 8),
            "datatrove 14x8, spaCy (its default)": lambda: sign_datatrove(paths[1], "eng", 14, 8),
            "fmtrain 20x5": lambda: sign_ours(parts, 20, 5),
        }
        sizes = {n: part if "spaCy" in n else whole for n in contestants}
        best = compare("signatures, with reading and writing", sizes, contestants, rounds)
        first, fast, spacy, _ = contestants
        return {"12x datatrove, our splitter": ratio(best, sizes, first, fast) / 12,
                "80x datatrove, spaCy": ratio(best, sizes, first, spacy) / 80}  # fmt: skip


def alone(texts: list[str], rounds: int) -> dict[str, float]:
    from rensa import RMinHash

    signer = signatures.Signer(signatures.Shape(common.N_GRAMS, common.BANDS, common.ROWS, 1))
    hashed = [signer.shingles(text) for text in texts]
    strings = [common.shingles(text) for text in texts]

    def from_text() -> None:
        for text in texts:
            signer.bands_of(signer.shingles(text))

    def rensa(shingles: Sequence[list[str]] | None) -> None:
        for at, text in enumerate(texts):
            signature = RMinHash(common.BANDS * common.ROWS, 1)
            signature.update(common.shingles(text) if shingles is None else shingles[at])
            signature.digest()

    def hashes() -> None:
        for some in hashed:
            signatures._minima(some, signer.factors, signer.terms, signer.low)

    size = float(sum(len(t.encode()) for t in texts))
    names: dict[str, Callable[[], Any]] = {
        "fmtrain, from texts": from_text,
        "rensa RMinHash, from texts": lambda: rensa(None),
        "fmtrain, from 64-bit shingles": hashes,
        "rensa RMinHash, from strings of shingles": lambda: rensa(strings),
    }
    sizes = dict.fromkeys(names, size)
    best = compare("signatures alone, 20 x 5", sizes, names, rounds)
    ours, theirs, *_ = names
    return {"5x rensa, from texts": ratio(best, sizes, ours, theirs) / 5}


def whole(texts: list[str], families: list[int], rounds: int, parts: Parts) -> dict[str, float]:
    size = float(sum(len(t.encode()) for t in texts))
    shape = f"{Dedup.bands}x{Dedup.rows}"
    names: dict[str, Callable[[], Any]] = {
        f"fmtrain {shape}, verified": lambda: common.ours(texts, parts=parts),
        "datatrove 14x8, four stages, our splitter": lambda: common.datatrove(texts, 14, 8),
        "datatrove 20x5, four stages, our splitter": lambda: common.datatrove(texts),
        "text-dedup's algorithm 20x5": lambda: common.text_dedup(texts),
    }
    sizes = dict.fromkeys(names, size)
    best = compare("the whole: from signatures to the removed", sizes, names, rounds)
    ours, *peers = names
    for what, of in (("documents kept", list(range(len(texts)))), ("families with all documents kept", families)):
        print(f"{what:46s}{'by both':>10s}{'by us':>10s}{'by it':>10s}{'by none':>10s}")
        mine = {of[number] for number in best[ours].result}
        for peer in peers:
            its = {of[number] for number in best[peer].result}
            both = len(set(of) - mine - its)
            print(f"{peer:46s}{both:10d}{len(its - mine):10d}{len(mine - its):10d}{len(mine & its):10d}")
    return {f"5x {peers[0]}": ratio(best, sizes, ours, peers[0]) / 5,
            f"ahead of {peers[2]}": ratio(best, sizes, ours, peers[2])}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--spacy-megabytes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    need("rensa", "spacy", data=common.DATA)
    texts, families, _ = common.plant(common.passages(common.pretrain(options.megabytes)))
    few = texts[: max(1, int(len(texts) * options.spacy_megabytes / options.megabytes))]
    size = sum(len(t.encode()) for t in texts) / MB
    print(f"{len(texts)} documents, {size:.1f} MB; least CPU time of {options.rounds} rounds")
    common.ours(texts[:200])  # loads and compiles what the forks then have
    common.datatrove(texts[:20])
    shares = with_reading(texts, few, options.rounds) | alone(texts, options.rounds)
    with common.laid(texts) as parts:
        shares |= whole(texts, families, options.rounds, parts)
    print()
    for name, share in shares.items():
        print(f"{'met' if share >= 1 else 'MISSED':8s}{name} ({share:.2f} of the target)")
    sys.exit(any(share < 1 for share in shares.values()))


if __name__ == "__main__":
    main()
