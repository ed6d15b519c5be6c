"""Seconds until the command line answers, and whether anything heavy was imported: python benchmarks/startup.py

Interleaved, seven rounds, wall clock of whole processes, median and spread.
"""

import statistics
import subprocess
import sys
import time

CASES = {
    "--help": ["--help"],
    "plan": ["plan", "recipe=quickstart"],
    "a typo": ["plan", "stages.dpo.objective.betta=0.2"],
    "a wrong value": ["plan", "stages.dpo.objective.beta=big"],
    "models": ["models"],
    "status": ["status"],
}
ROUNDS = 7
HEAVY = "{'torch', 'ray', 'deepspeed', 'datatrove', 'transformers'}"
CODE = f"""
import sys
from launch.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print('HEAVY', sorted({HEAVY} & set(sys.modules)), file=sys.stderr)
"""


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, args in CASES.items():
            begun = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", CODE, *args], capture_output=True, text=True)
            seconds[name].append(time.perf_counter() - begun)
            assert "HEAVY []" in done.stderr, done.stderr
    for name, found in seconds.items():
        print(f"{name:<14} median {statistics.median(found):.2f} s  ({min(found):.2f} to {max(found):.2f})")


if __name__ == "__main__":
    main()
