"""A corpus end to end, rules and deduplication: does memory grow with the text? Peak of the process tree at two sizes.

python benchmarks/corpus_memory.py [--mb 200 2000] [--launch inline] [--data FOLDER]

The text is generated from the sentences of real books: documents of about 3 kB, one in ten a near copy of another (3%
of its words replaced), one in fifty an exact copy. Prints seconds, CPU seconds and the peak of each size, and the
ratio.
"""

import argparse
import gzip
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measure import Peak
from peers import need

FILES = 8
NEAR, EXACT = 0.10, 0.02


def sentences(folder: Path) -> list[str]:
    """Sentences of the books, line breaks taken out."""
    found: list[str] = []
    with gzip.open(folder / "pretrain" / "gutenberg.jsonl.gz", "rt") as lines:
        for line in lines:
            text = re.sub(r"\s+", " ", json.loads(line)["text"])
            found += [s for s in re.split(r"(?<=[.!?]) ", text) if 30 < len(s) < 400]
    return found


def documents(pool: list[str], size: int, seed: int) -> Iterator[str]:
    """Texts of about 3 kB until `size` bytes are full."""
    numbers, done = random.Random(seed), 0
    recent: list[str] = []
    while done < size:
        drawn = numbers.random()
        if drawn < NEAR + EXACT and recent:
            words = numbers.choice(recent).split(" ")
            if drawn < NEAR:
                for at in numbers.sample(range(len(words)), max(1, len(words) * 3 // 100)):
                    words[at] = f"w{numbers.randrange(10**6)}"
            text = " ".join(words)
        else:
            text = "\n".join(" ".join(numbers.choices(pool, k=6)) for _ in range(numbers.randrange(2, 7)))
            if len(recent) < 500:
                recent.append(text)
            else:
                recent[numbers.randrange(500)] = text
        done += len(text.encode())
        yield text


def generate(pool: list[str], folder: Path, mb: int) -> None:
    for number in range(FILES):
        with open(folder / f"{number}.jsonl", "w") as file:
            for n, text in enumerate(documents(pool, mb * 1_000_000 // FILES, number)):
                file.write(json.dumps({"id": f"{number}-{n}", "text": text}) + "\n")


def measure(pool: list[str], mb: int, launch: str, overrides: list[str]) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(pool, folder, mb)
        command = [sys.executable, "-m", "launch.cli", "run", "recipe=corpus_web", f"launch={launch}"]
        command += ["filter=fineweb", "filter.rules=[gopher_repetition,gopher_quality,c4,fineweb]", "dedup=minhash"]
        command += [f"data.files={folder}/*.jsonl", f"store={folder}/store", *overrides]
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with Peak(process.pid) as peak:
            code = process.wait()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = time.monotonic() - begun
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        if code:
            sys.exit(f"exit code {code}")
        manifest = next(folder.glob("store/artifacts/corpus/*/v*/manifest.json"))
        counts = json.loads(manifest.read_text())["counts"]
        print(
            f"{mb:>6} MB  {counts['read']:>8,} documents, {counts['kept']:>8,} kept  {seconds:7.1f} s  "
            f"{cpu:7.1f} cpu-s  peak {peak.bytes / 2**20:6.0f} MiB"
        )
        print(f"           dropped {counts['dropped']}", flush=True)
        return peak.bytes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--launch", default="inline")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    args, overrides = parser.parse_known_args()
    need(data=args.data / "pretrain")
    pool = sentences(args.data)
    peaks = [measure(pool, mb, args.launch, overrides) for mb in args.mb]
    print(f"peak at {args.mb[-1]} MB / peak at {args.mb[0]} MB = {peaks[-1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
