"""Memory of buckets and clustering does not grow with the corpus: the peak at two sizes of signatures.

python benchmarks/dedup_memory.py [--small 0.5] [--large 2]; the claim is made of --small 2 --large 20 (GB, on disk).
Signatures are made up: of every ten documents three are copies of others before them and share most of their bands.
Each size runs in a process of its own, from band runs to what is removed, by row; only the exact comparison, which
reads texts, is left out: every candidate counts as similar. Exits with 1 where the peaks are not within 1.3.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import dedup_common as common
import numpy as np
from measure import Peak

from data_pipelines.dedup import near, order, result
from data_pipelines.dedup.runs import Writer, merge, runs_in
from data_pipelines.dedup.signatures import BANDS, Shape
from data_pipelines.parts import Parts
from data_pipelines.schedule import Counts, Task
from fmtrain.schema.dedup import Dedup
from tests.data_pipelines.made_parts import make_scheduler

LIMIT = 1.3
TASKS = 2
CHUNK = 1 << 16  # documents made at a time
COPIES, SHARED = 0.3, 0.8


def made(task: Task, documents: int) -> Counts:
    """Band runs of one task's documents, and the files that lead from ordinal to row (the same number)."""
    numbers = np.random.default_rng(task.rank)
    first, end = task.rank * documents // task.world_size, (task.rank + 1) * documents // task.world_size
    with Writer(task.scratch, f"{task.rank:05d}", BANDS) as runs:
        for start in range(first, end, CHUNK):
            own = np.arange(start, min(end, start + CHUNK), dtype=np.uint64)
            of = np.where(numbers.random(len(own)) < COPIES, (numbers.random(len(own)) * own).astype(np.uint64), own)
            shared = numbers.random((len(own), Dedup.bands)) < SHARED
            whose = np.where(shared, of[:, None], own[:, None])
            keys = whose * np.uint64(Dedup.bands) + np.arange(Dedup.bands, dtype=np.uint64)
            keys *= np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
            keys *= np.uint64(0xBF58476D1CE4E5B9)  # odd factors and shifts: no two keys become one
            runs.add(BANDS.make(band=keys.reshape(-1), ordinal=np.repeat(own, Dedup.bands)))
    return {"rows": runs.rows}


def rows(task: Task, documents: int) -> Counts:
    with open(task.scratch / "rows.u8", "wb") as file:
        for start in range(0, documents, CHUNK):
            np.arange(start, min(documents, start + CHUNK), dtype="<u8").tofile(file)
    return {"rows": documents}


def all_similar(task: Task, _: None) -> Counts:
    """In place of verification."""
    with Writer(task.scratch, f"{task.rank:05d}", near.SIMILAR) as runs:
        candidates = runs_in(task.parts / near.CANDIDATES)
        for edges in merge(candidates, near.EDGES, part=task.rank, parts=task.world_size):
            runs.add(near.SIMILAR.make(worse=edges["worse"], better=edges["better"], value=0.8))
    return {"verified": runs.rows}


def make(folder: Path, documents: int) -> None:
    with make_scheduler(folder) as scheduler:
        scheduler.run(near.SIGNATURES, made, [documents] * TASKS)
        scheduler.run(order.ORDER_STEP, rows, [documents])


def find(folder: Path, documents: int) -> None:
    """What is measured."""
    times = time.process_time(), time.monotonic()
    with make_scheduler(folder) as scheduler:
        shape = Shape(common.N_GRAMS, Dedup.bands, Dedup.rows, 1)
        item = near.NearItem(order.Corpus(Parts(scheduler.parts, TASKS)), shape, 0.5, None, documents)
        edges = sum(c["edges"] for c in scheduler.run(near.CANDIDATES, near.candidates_task, [0] * TASKS))
        scheduler.run(near.VERIFIED, all_similar, [None] * TASKS)
        scheduler.run("dedup-minhash", near.cluster_task, [item])
        ends = result.ResultItem(("dedup-minhash",), "dedup-minhash", documents)
        [done] = scheduler.run(result.RESULT_STEP, result.result_task, [ends])
    cpu, wall = time.process_time() - times[0], time.monotonic() - times[1]
    print(f"{documents:12d} documents, {edges:12d} edges written, {done['removed']:10d} removed", end="")
    print(f" {cpu:8.1f} cpu s {wall:8.1f} wall s", end="", flush=True)


def peak(gigabytes: float, where: str | None) -> int:
    documents = int(gigabytes * 1e9 / (BANDS.dtype.itemsize * Dedup.bands))
    print(f"{gigabytes:6.2f} GB", end="", flush=True)
    with tempfile.TemporaryDirectory(dir=where) as folder:
        fork = multiprocessing.get_context("spawn")
        highest = 0
        for function in (make, find):
            process = fork.Process(target=function, args=(Path(folder), documents))
            process.start()
            assert process.pid
            with Peak(process.pid, 0.1) as measured:
                process.join()
            if process.exitcode:
                sys.exit(f"{function.__name__} ended with {process.exitcode}")
            highest = measured.bytes
    print(f"   peak {highest / 1e6:6.0f} MB", flush=True)
    return highest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=float, default=0.5)
    parser.add_argument("--large", type=float, default=2)
    parser.add_argument("--folder", help="where the runs are written; the default is the system's temporary folder")
    options = parser.parse_args()
    small, large = peak(options.small, options.folder), peak(options.large, options.folder)
    print(f"the peak at {options.large} GB is {large / small:.2f} times that at {options.small} GB; at most {LIMIT}")
    sys.exit(large > LIMIT * small)


if __name__ == "__main__":
    main()
