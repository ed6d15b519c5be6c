"""A recipe from an empty store: seconds, seconds a stage, peak memory of the process tree.

python benchmarks/quickstart.py [OVERRIDE...], e.g. recipe=quickstart. Memory is the sum of proportional set sizes (Pss,
pages shared by n processes count 1/n) over the driver and its descendants, sampled every half second.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def tree(root: int) -> list[int]:
    """`root` and its living descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def memory(pids: list[int]) -> int:
    """Bytes of proportional set size."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def main() -> None:
    overrides = sys.argv[1:] or ["recipe=quickstart"]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        command = [sys.executable, "-m", "launch.cli", "run", *overrides, f"store={folder}/store"]
        process = subprocess.Popen(command)
        peak = 0

        def sample() -> None:
            nonlocal peak
            while process.poll() is None:
                peak = max(peak, memory(tree(process.pid)))
                time.sleep(0.5)

        thread = threading.Thread(target=sample)
        thread.start()
        code = process.wait()
        seconds = time.monotonic() - begun
        thread.join()
        print(f"\nexit code {code}, {seconds:.0f} s, {os.cpu_count()} cores")
        print(f"peak memory of the process tree {peak / 1e9:.2f} GB")
        for path in Path(folder).glob("store/artifacts/evaluation/*/v*/manifest.json"):
            print(json.dumps(json.loads(path.read_text())["metrics"], indent=1))
    sys.exit(code)


if __name__ == "__main__":
    main()
