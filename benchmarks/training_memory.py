"""What `plan` says that a rank holds, beside what was seen: `python benchmarks/training_memory.py MODEL`.

MODEL is a folder with a causal model. For each setting one rank trains two steps on rows that fill its length, without
Ray. What is seen is the peak of all processes of the run, torch and the other libraries of the rank among it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Peak

from fmtrain.artifacts.storage import write_text
from launch.compose import compose
from launch.figures import measure
from launch.start import planned

CASES = [(1, 128, 2, "fp32"), (1, 512, 2, "fp32"), (4, 512, 2, "fp32"), (4, 512, 0, "fp32"), (4, 512, 2, "bf16")]


def words(folder: Path, model: str, rows: int, length: int, zero: int, precision: str) -> list[str]:
    """One stage of two steps. A row has three tokens a repetition, and some forty of its template."""
    text = "word and word " * ((length - 48) // 3)
    file = folder / f"{length}.jsonl"
    write_text(file, "".join(f'{{"prompt": "{n}", "completion": "{text}"}}\n' for n in range(40)))
    sft = ["epochs=null", "steps=2", f"global_batch_size={rows}", f"micro_batch_size={rows}", f"zero.stage={zero}"]
    sft += [f"sequence_length={length}", f"precision={precision}", "schedule.warmup_steps=0"]
    store = folder / f"{rows}-{length}-{zero}-{precision}"
    rest = ["stages.evaluate=null", "stages.publish=null", "launch=inline", "launch.ranks=1", f"store={store}"]
    return ["recipe=finetune", f"model.path={model}", f"data.files={file}", *(f"stages.sft.{s}" for s in sft), *rest]


def seen(given: list[str]) -> int:
    command = [sys.executable, "-m", "launch.cli", "run", *given]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run, Peak(run.pid, 0.05) as peak:
        assert run.wait() == 0, given
    return peak.bytes


def main() -> None:
    print("| rows | length | ZeRO | precision | said, GB | seen, GB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            given = words(Path(folder), sys.argv[1], *case)
            found = planned(compose(given))
            measure(found.steps, found.root.launch, found.store)
            said = next(step.memory for step in found.steps if step.node.stage == "sft")
            assert said is not None
            print(f"| {' | '.join(map(str, case))} | {said / 1e9:.1f} | {seen(given) / 1e9:.1f} |", flush=True)


if __name__ == "__main__":
    main()
