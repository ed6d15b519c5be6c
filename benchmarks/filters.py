"""The chain of Gopher repetition, Gopher quality, C4 and FineWeb beside datatrove's filters: speed, memory, decisions.

python benchmarks/filters.py [--rounds 3] [--rules] [--data FOLDER]. Contenders: our chain; datatrove's four filters
with our splitter as their `language=`; datatrove's with their default, spaCy. Each runs in a process of its own, in
turn, over the same documents in memory; a fast one goes over them again until it has worked for two seconds. `start`
is the processor time of imports and compiling before the first document, and is in no ratio. Memory is the peak of the
process tree. --rules also counts, rule by rule on the raw texts, on how many documents each peer decides as we do.
"""

import argparse
import gzip
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measure import Peak
from peers import need

ROOT = Path(__file__).resolve().parent.parent
OURS, SAME, SPACY = "fmtrain", "datatrove, same splitter", "datatrove, spaCy"
RULES = ["gopher_repetition", "gopher_quality", "c4", "fineweb"]
WORK_SECONDS = 2.0
Decisions = dict[str, str]  # id of a document that is kept -> hash of its text


def texts(data: Path) -> list[str]:
    """All web pages; of PEPs, RFCs and books every twelfth."""
    found = list[str]()
    for path in sorted((data / "web").rglob("*.jsonl.gz")) + sorted((data / "pretrain").glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as f:
            rows = [json.loads(line)["text"] for line in f]
        found += rows if "web" in path.parts else rows[::12]
    return found


def ours(rules: list[str], found: list[str]) -> Callable[[], Decisions]:
    from data_pipelines.account import Account
    from data_pipelines.document import Document
    from data_pipelines.filters import Chain
    from fmtrain.schema.rules import Filter

    chain = Chain(Filter(name="benchmark", rules=rules), Account())
    sizes = [len(text.encode()) for text in found]  # the reader knows them

    def run() -> Decisions:
        docs = (Document(str(i), text) for i, text in enumerate(found))
        return {doc.id: doc.text for doc, size in zip(docs, sizes, strict=True) if chain(doc, size) is None}

    return run


def theirs(rules: list[str], found: list[str], **language: Any) -> Callable[[], Decisions]:
    from datatrove.data import Document
    from datatrove.pipeline.filters.c4_filters import C4QualityFilter
    from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
    from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
    from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

    kinds = dict(
        zip(RULES, [GopherRepetitionFilter, GopherQualityFilter, C4QualityFilter, FineWebQualityFilter], strict=True)
    )
    chain = [kinds[rule](**language) for rule in rules]

    def run() -> Decisions:
        docs: Iterator[Any] = (Document(text=text, id=str(i)) for i, text in enumerate(found))
        for step in chain:
            docs = step.run(docs)
        return {doc.id: doc.text for doc in docs}

    return run


def contender(name: str, rules: list[str], found: list[str]) -> Callable[[], Decisions]:
    if name == OURS:
        return ours(rules, found)
    if name == SAME:
        sys.path.insert(0, str(ROOT))
        from tests.data_pipelines.datatrove_words import OUR_WORDS

        return theirs(rules, found, language=OUR_WORDS)
    return theirs(rules, found)


def work(name: str, rules: list[str], data: Path, out: Path, again: bool) -> None:
    """In a process of its own: seconds of one pass over the texts, and what was kept."""
    found = texts(data)
    begun = time.process_time()
    contender(name, rules, found[:1])()
    start = time.process_time() - begun
    run, passes = contender(name, rules, found), 0
    cpu, wall = time.process_time(), time.perf_counter()
    while not passes or (again and time.process_time() - cpu < WORK_SECONDS):
        kept, passes = run(), passes + 1
    cpu, wall = (time.process_time() - cpu) / passes, (time.perf_counter() - wall) / passes
    decisions = {id: hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for id, text in kept.items()}
    out.write_text(json.dumps({"start": start, "cpu": cpu, "wall": wall, "kept": decisions}))


def measured(name: str, rules: list[str], data: Path, again: bool = True) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, __file__, "--data", str(data), "--work", name, "--only", *rules, "--out", str(out)]
        process = subprocess.Popen([*command, *(["--again"] if again else [])])
        with Peak(process.pid, 0.1) as peak:
            code = process.wait()
        if code:
            sys.exit(f"{name} ended with {code}")
        return {**json.loads(out.read_text()), "peak": peak.bytes}


def agreement(a: Decisions, b: Decisions, n: int) -> str:
    both = a.keys() & b.keys()
    same = sum(a[id] == b[id] for id in both)
    neither, agreed = n - len(a.keys() | b.keys()), 1 - len(a.keys() ^ b.keys()) / n
    return (
        f"kept by both {len(both)} (text the same {same}), by fmtrain alone {len(a) - len(both)}, "
        f"by the peer alone {len(b) - len(both)}, by neither {neither}; agreement {agreed:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rules", action="store_true", help="also the agreement of each rule alone")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", default=RULES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    need("spacy", data=args.data / "web")
    if args.work:
        work(args.work, args.only, args.data, args.out, args.again)
        return
    found = texts(args.data)
    size = sum(len(text.encode()) for text in found)
    print(f"{len(found)} documents, {size / 1e6:.2f} MB of text, {args.rounds} rounds, median")
    runs: dict[str, list[dict[str, Any]]] = {OURS: [], SAME: [], SPACY: []}
    for _ in range(args.rounds):
        for name, results in runs.items():
            results.append(measured(name, RULES, args.data))
    keys = ("start", "cpu", "wall", "peak")
    of = {name: {key: statistics.median(r[key] for r in results) for key in keys} for name, results in runs.items()}
    for name, m in of.items():
        cpu, wall = m["cpu"] / of[OURS]["cpu"], m["wall"] / of[OURS]["wall"]
        print(
            f"{name:26} cpu {m['cpu']:7.3f} s {size / m['cpu'] / 1e6:7.2f} MB/s  wall {m['wall']:7.3f} s  "
            f"start {m['start']:5.2f} s  peak {m['peak'] / 1e6:4.0f} MB  by ours {cpu:5.1f} (cpu) {wall:5.1f} (wall)"
        )
    for name in (SAME, SPACY):
        print(f"{name}: {agreement(runs[OURS][0]['kept'], runs[name][0]['kept'], len(found))}")
    for rule in RULES if args.rules else []:
        mine, *peers = (measured(name, [rule], args.data, again=False)["kept"] for name in runs)
        for name, peer in zip((SAME, SPACY), peers, strict=True):
            print(f"{rule:18} {name}: {agreement(mine, peer, len(found))}")


if __name__ == "__main__":
    main()
