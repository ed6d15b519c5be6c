"""Every command of README.md: run as it stands, or as far as a test machine goes, for a reason that is named here."""

import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fmtrain.artifacts.store import Store
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "README.md").read_text()
BLOCKS = re.sub(r"\\\n +", "", TEXT).splitlines()
COMMANDS = [
    re.sub(r" {2,}", " ", re.split(r"  +#", line)[0].strip())
    for line in BLOCKS
    if re.match(r"    (fmtrain|make|git|python) [^{ ]", line) and not line.startswith("    fmtrain/")
]
COMMANDS += re.findall(r"`((?:python|make|fmtrain) [^`]+)`", TEXT)

PLANNED = "fmtrain plan"  # a run of minutes or hours, by its plan
ASIS = {  # quick enough
    "fmtrain models", "fmtrain doctor", "fmtrain generate quickstart@v1 'def add(a, b):'",
    "fmtrain completion bash >> ~/.bashrc",
    "fmtrain plan recipe=quickstart stages.dpo.objective.beta=0.2",
    "fmtrain run recipe=quickstart launch=slurm launch.dry_run=true",
}  # fmt: skip
SPELT = {  # what stands for something else, by all that it may stand for; --json where the page offers it
    "fmtrain status [RUN]": ["fmtrain status --json", "fmtrain status $RUN"],
    "fmtrain logs [RUN [STAGE]] -f": ["fmtrain logs -f", "fmtrain logs $RUN -f", "fmtrain logs $RUN sft -f"],
    "fmtrain verify [NAME | --all]": ["fmtrain verify --json", "fmtrain verify sft", "fmtrain verify --all"],
    "fmtrain corpus why ID|URL": ["fmtrain corpus why $ID", "fmtrain corpus why --json https://example.org/"],
    "fmtrain corpus sample --rule gopher_quality": ["fmtrain corpus sample --rule code", "fmtrain corpus sample"],
}
INSTEAD = {  # command -> what is run, why
    "git clone <this repository> fmtrain && cd fmtrain": ("", "the clone is where this test stands"),
    "make quickstart": ("make -n quickstart", "ten minutes; test_recipes.py runs the recipe"),
    "make test": ("make -n test", "runs this test"),
    "make install TORCH=existing": ("make -n install TORCH=existing", "CI installs, from its own index"),
    "make install TORCH=<index url>": ("make -n install TORCH=https://x.org/cpu", "the same"),
    "fmtrain run recipe=quickstart launch=slurm launch.nodes=2 launch.partition=main launch.time=02:00:00 --wait": (
        "fmtrain run recipe=quickstart launch=slurm launch.nodes=2 launch.partition=main launch.time=02:00:00 "
        "launch.dry_run=true",
        "no Slurm of two nodes: its script",
    ),
    "fmtrain run recipe=corpus_web data.files='s3://bucket/*.jsonl.zst' filter=gopher dedup.threshold=0.7": (
        "fmtrain plan recipe=corpus_web data.files='s3://bucket/*.jsonl.zst' filter=gopher dedup.threshold=0.7 "
        "--cfg job",
        "no bucket: its configuration",
    ),
    "fmtrain run recipe=corpus_web data=hub data.path=NAME "
    "filter.rules=[language,gopher_repetition,pii,decontaminate] filter.language.languages=[de] "
    "filter.decontaminate.sets=[gsm8k,mmlu,./evals/ours:test]": (
        "fmtrain plan recipe=corpus_web data=hub data.path=NAME "
        "filter.rules=[language,gopher_repetition,pii,decontaminate] filter.language.languages=[de] "
        "filter.decontaminate.sets=[gsm8k,mmlu,./evals/ours:test] --cfg job",
        "no hub: its configuration",
    ),
    "fmtrain run recipe=finetune model.path=HuggingFaceTB/SmolLM2-135M-Instruct data.path=openai/gsm8k "
    "data.config=main data.prompt_key=question data.completion_key=answer": (
        "fmtrain plan recipe=finetune model.path=HuggingFaceTB/SmolLM2-135M-Instruct data.path=openai/gsm8k "
        "data.config=main data.prompt_key=question data.completion_key=answer --cfg job",
        "no hub: its configuration",
    ),
    "fmtrain run recipe=quickstart stages.sft.inputs.model=pretrain@v1": (
        "fmtrain run recipe=quickstart_tiny launch=inline stages.sft.inputs.model=pretrain@v1",
        "the store's pretrain@v1 is the tiny recipe's, and another is refused",
    ),
    "fmtrain run --from ./my-model-math data.files=gsm8k.jsonl.gz model.path=./my-model": (
        "fmtrain plan --from store/artifacts/published/quickstart_tiny/v0001",
        "no fine-tune in the store: what is there",
    ),
    "python -m fmtrain.train STAGE_DIR": ("", "how every run of every test starts a training"),
    "python benchmarks/quickstart.py": (
        "python benchmarks/quickstart.py launch=slurm launch.dry_run=true", "ten minutes: without a run in it",
    ),
    "python benchmarks/startup.py": (
        "cd benchmarks && python -c 'import startup; startup.ROUNDS = 1; startup.main()'",
        "one round of seven",
    ),
    "python benchmarks/kills.py --kills 100": ("python benchmarks/kills.py --help", "hours; test_kills.py runs a few"),
}  # fmt: skip


def what_is_run(command: str) -> list[str]:
    if command in ASIS:
        return [command]
    if command in SPELT:
        return SPELT[command]
    if command in INSTEAD:
        return [INSTEAD[command][0]] if INSTEAD[command][0] else []
    assert command.startswith("fmtrain run "), f"{command}: nothing says how a test runs it"
    return [command.replace("fmtrain run", PLANNED, 1)]


RUN = [(command, run) for command in COMMANDS for run in what_is_run(command)]


@pytest.fixture(scope="module")
def place(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page takes for granted: a store with a quickstart, a corpus, a crawl, a model, rows."""
    folder = tmp_path_factory.mktemp("readme")
    store = Store(Path(shutil.copytree(tiny_store, folder / "store")))
    published = store.under(store.get("quickstart_tiny", "published"), name="quickstart").path
    ours = shutil.ignore_patterns("manifest.json", "lineage.json", ".*")
    shutil.copytree(published, folder / "my-model", ignore=ours)
    page = "<html><body><p>A page about nothing in particular, but long enough.</p></body></html>"
    warc = f"WARC/1.0\r\nWARC-Type: resource\r\nContent-Length: {len(page)}\r\n\r\n{page}\r\n\r\n".encode()
    rows = [line.strip().replace("...", f"text {n}") for n, line in enumerate(BLOCKS) if line.startswith('    {"')]
    files = {
        "corpus/a.jsonl.gz": gzip.compress(b'{"text": "Prose."}\n'),
        "tinyshakespeare.txt": b"First Citizen:\nSpeak.\n\n",
        "crawl/a.warc.gz": gzip.compress(warc),
        "rows.jsonl": "\n".join(rows * 2).encode(),
        "gsm8k.jsonl.gz": gzip.compress(b'{"question": "1+1?", "answer": "2"}\n{"question": "2+2?", "answer": "4"}\n'),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "bin").mkdir()
    for name, words in (("fmtrain", [sys.executable, "-P", "-m", "launch.cli"]), ("python", [sys.executable])):
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    return folder


@pytest.mark.parametrize(("command", "run"), RUN)
def test_a_command_of_the_page(command: str, run: str, place: Path) -> None:
    ledger = pq.read_table(place / "store/artifacts/corpus/corpus/v0001/ledger.parquet", columns=["id"])
    env = {name: value for name, value in os.environ.items() if name != "FMTRAIN_STORE"}
    env |= {"PATH": f"{place / 'bin'}:{env['PATH']}", "HOME": str(place), "ID": ledger["id"][0].as_py()}
    env["RUN"] = next((place / "store" / "runs").iterdir()).name
    where = place if run.startswith("fmtrain") else REPOSITORY
    done = subprocess.run(["bash", "-c", run], cwd=where, capture_output=True, text=True, env=env, timeout=600)
    fine = (0, 2) if command == "fmtrain doctor" else (0,)  # 2 where this machine lacks something
    assert done.returncode in fine and (done.stdout.strip() or ">>" in run), done.stdout + done.stderr


def test_the_page_has_commands_and_no_exception_is_left_over() -> None:
    assert len(COMMANDS) > 25
    assert not (ASIS | SPELT.keys() | INSTEAD.keys()) - set(COMMANDS), "stand on the page no more"
