"""Whole commands, from JSON lines to deduplicated JSON lines, beside text-dedup and dolma in environments of their own.

    python3.12 -m venv /tmp/td && /tmp/td/bin/pip install text-dedup==0.4.1
    python3.11 -m venv /tmp/dolma && /tmp/dolma/bin/pip install dolma==1.2.1
    python benchmarks/dedup_peers.py --text-dedup /tmp/td/bin/python --dolma /tmp/dolma/bin/python [--megabytes 30]

Neither installs beside our pins. Near copies: MinHash 20x5 of word 5-grams at threshold .5, verified, against
text-dedup (which knows no exact step; an exact copy is a near one). Lines: against `dolma dedupe` with `dolma mix`,
Rust and a Bloom filter. Every contestant is its user's command with one process, start-up, reading and writing
included; the least CPU time of the process tree counts; `start` is that of a hundred documents. Exits with 1 where we
are behind.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dedup_common as common
import zstandard
from measure import Peak
from peers import need, need_elsewhere

MB = 1e6
Texts = dict[str, str]  # id -> what is left of the text
# Its logger wants a terminal's progress bar; the pool of one process is left out as for us.
_TEXT_DEDUP = """
[input]
input_type = "local_files"
file_type = "json"
[input.read_arguments]
path = "json"
data_files = "{folder}/documents/0.jsonl.gz"
split = "train"
[algorithm]
algorithm_name = "minhash"
text_column = "text"
num_perm = 100
bands = 20
rows = 5
ngram_size = 5
threshold = 0.5
check_false_positive = true
num_proc = 1
[output]
output_dir = "{folder}/out"
[debug]
"""


@dataclass
class Run:
    cpu: float
    wall: float
    peak: int
    left: Texts


def lay(folder: Path, texts: Sequence[str]) -> None:
    (folder / "documents").mkdir()
    with gzip.open(folder / "documents" / "0.jsonl.gz", "wt", 1) as out:
        for number, text in enumerate(texts):
            out.write(json.dumps({"id": str(number), "text": text, "source": "x"}) + "\n")


def by_id(lines: Iterable[str]) -> Texts:
    return {row["id"]: row["text"] for row in map(json.loads, lines)}


def ours(steps: str) -> Callable[[Path], Texts]:
    def run(folder: Path) -> Texts:
        command = [sys.executable, "-m", "launch.cli", "run", "recipe=corpus_web", "launch=inline", "filter=none"]
        command += [f"data.files={folder}/documents/*.gz", "data.heldout_modulus=0", f"store={folder}/store"]
        call([*command, f"dedup.steps=[{steps}]", "dedup.bands=20", "dedup.min_paragraph_words=1"], folder)
        paths = folder.glob("store/artifacts/corpus/*/v*/train/*.zst")
        return by_id(line for path in paths for line in zstandard.open(path, "rt", encoding="utf-8"))

    return run


def text_dedup(python: str) -> Callable[[Path], Texts]:
    def run(folder: Path) -> Texts:
        (folder / "config.toml").write_text(_TEXT_DEDUP.format(folder=folder))
        call([python, "-m", "text_dedup.minhash"], folder)
        read = "import datasets, json, sys; [print(json.dumps(r)) for r in datasets.load_from_disk(sys.argv[1])]"
        lines = subprocess.run([python, "-c", read, f"{folder}/out"], check=True, capture_output=True, text=True).stdout
        return by_id(lines.splitlines())

    return run


def dolma(python: str, documents_alone: bool) -> Callable[[Path], Texts]:
    """Whole documents of one text, or every line."""
    what = {"documents": {"attribute_name": "copies", "key": "$.text"}}
    if not documents_alone:
        what = {"paragraphs": {"attribute_name": "copies"}}

    def run(folder: Path) -> Texts:
        documents = [f"{folder}/documents/0.jsonl.gz"]
        bloom = {"file": f"{folder}/bloom.bin", "read_only": False, "estimated_doc_count": 1_000_000,
                 "desired_false_positive_rate": 1e-6}  # fmt: skip
        look = {"name": "copies", "skip_empty": True, **what}
        stream = {"name": "out", "documents": documents, "attributes": ["copies"],
                  "output": {"path": f"{folder}/out", "max_size_in_bytes": 1 << 40}}  # fmt: skip
        if documents_alone:
            stream["filter"] = {"exclude": ["$.attributes.copies"]}
        else:
            stream["span_replacement"] = [{"span": "$.attributes.copies", "min_score": 1, "replacement": ""}]
        for verb, config in (
            ("dedupe", {"documents": documents, "dedupe": look, "bloom_filter": bloom, "processes": 1}),
            ("mix", {"streams": [stream], "processes": 1}),
        ):
            (folder / f"{verb}.json").write_text(json.dumps(config))
            call([str(Path(python).parent / "dolma"), "-c", f"{folder}/{verb}.json", verb], folder)
        return by_id(line for path in folder.glob("out/*.gz") for line in gzip.open(path, "rt", encoding="utf-8"))

    return run


def call(command: list[str], folder: Path) -> None:
    """Run it in the folder, adding to `used`; its last words where it fails."""
    environment = {**os.environ, "HF_HOME": f"{folder}/cache", "PYTHONPATH": str(common.ROOT), "COLUMNS": "200"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        with Peak(process.pid, 0.05) as peak:
            code = process.wait()
        if code:
            log.seek(0)
            sys.exit(f"{' '.join(command)}: exit code {code}\n{log.read()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used.append(
        (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - begun, peak.bytes)
    )


used: list[tuple[float, float, int]] = []  # CPU seconds, seconds, bytes of each command of the run at hand


def measured(contestant: Callable[[Path], Texts], texts: Sequence[str]) -> Run:
    used.clear()
    with tempfile.TemporaryDirectory() as name:
        lay(Path(name), texts)
        left = contestant(Path(name))
    cpu, wall, peak = zip(*used, strict=True)
    return Run(sum(cpu), sum(wall), max(peak), left)


def compare(
    title: str,
    texts: Sequence[str],
    contestants: dict[str, Callable[[Path], Texts]],
    rounds: int,
    units: Callable[[Texts], Counter[Hashable]],
) -> float:
    """A line for each, and the units left by both and by one; how many times faster the first is than the peer."""
    size = sum(len(t.encode()) for t in texts) / MB
    print(f"\n{title}\n{'':34s}{'MB/cpu-s':>9s}{'cpu s':>8s}{'start':>7s}{'wall s':>8s}{'peak MB':>9s}"
          f"{'docs left':>10s}{'MB left':>9s}")  # fmt: skip
    best = {}
    for name, contestant in contestants.items():
        start = measured(contestant, texts[:100])
        best[name] = run = min((measured(contestant, texts) for _ in range(rounds)), key=lambda run: run.cpu)
        run.left = {i: text for i, text in run.left.items() if text.strip()}
        left = sum(len(t.encode()) for t in run.left.values()) / MB
        print(f"{name:34s}{size / run.cpu:9.2f}{run.cpu:8.1f}{start.cpu:7.1f}{run.wall:8.1f}{run.peak / MB:9.0f}"
              f"{len(run.left):10d}{left:9.2f}", flush=True)  # fmt: skip
    (_, us), (_, peer) = best.items()
    mine, its = units(us.left), units(peer.left)
    print(
        f"left by both {(mine & its).total()}, by us alone {(mine - its).total()}, by it alone {(its - mine).total()}"
    )
    return peer.cpu / us.cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text-dedup", help="the Python of an environment that has it")
    parser.add_argument("--dolma", help="the Python of an environment that has it")
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    need(data=common.DATA)
    if not options.text_dedup and not options.dolma:
        parser.error("give --text-dedup, --dolma or both; how they are installed stands above")
    for python, module in ((options.text_dedup, "text_dedup"), (options.dolma, "dolma")):
        if python:
            need_elsewhere(python, module)
    texts, families, _ = common.plant(common.passages(common.pretrain(options.megabytes)))
    size = sum(len(t.encode()) for t in texts) / MB
    print(f"{len(texts)} documents, {size:.1f} MB, least CPU time of {options.rounds} rounds")
    found = {}

    def of_families(left: Texts) -> Counter[Hashable]:
        return Counter(families[int(number)] for number in left)

    def of_lines(left: Texts) -> Counter[Hashable]:
        return Counter(s for text in left.values() for line in text.split("\n") if (s := line.strip()))

    if options.text_dedup:
        two = {
            "fmtrain 20x5, exact and minhash": ours("exact,minhash"),
            "text-dedup 20x5": text_dedup(options.text_dedup),
        }
        title = "near copies: documents of each family"
        found["text-dedup"] = compare(title, texts, two, options.rounds, of_families)
    if options.dolma:
        two = {"fmtrain, exact": ours("exact"), "dolma dedupe and mix": dolma(options.dolma, True)}
        found["dolma, documents"] = compare("exact copies of documents", texts, two, options.rounds, of_families)
        two = {"fmtrain, lines": ours("lines"), "dolma dedupe and mix": dolma(options.dolma, False)}
        found["dolma, lines"] = compare("repeated lines", texts, two, options.rounds, of_lines)
    print()
    for peer, ratio in found.items():
        print(f"{'ahead of' if ratio > 1 else 'BEHIND'} {peer}: {ratio:.2f}")
    sys.exit(any(ratio < 1 for ratio in found.values()))


if __name__ == "__main__":
    main()
