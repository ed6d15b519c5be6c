"""A recipe from an empty store: seconds, seconds a stage, peak memory of the process tree.

python benchmarks/quickstart.py [OVERRIDE...], e.g. recipe=quickstart. Memory is the sum of proportional set sizes (Pss,
pages shared by n processes count 1/n) over the driver and its descendants, sampled every half second.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Peak


def main() -> None:
    overrides = sys.argv[1:] or ["recipe=quickstart"]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        command = [sys.executable, "-m", "launch.cli", "run", *overrides, f"store={folder}/store"]
        process = subprocess.Popen(command)
        with Peak(process.pid) as peak:
            code = process.wait()
        seconds = time.monotonic() - begun
        print(f"\nexit code {code}, {seconds:.0f} s, {os.cpu_count()} cores")
        print(f"peak memory of the process tree {peak.bytes / 1e9:.2f} GB")
        for path in Path(folder).glob("store/artifacts/evaluation/*/v*/manifest.json"):
            print(json.dumps(json.loads(path.read_text())["metrics"], indent=1))
    sys.exit(code)


if __name__ == "__main__":
    main()
