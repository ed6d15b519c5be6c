"""A tiny lineage to evaluate: a corpus, tokens, examples with a held-out kind, and models of random weights."""

import gzip
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts.stage import Stage
from fmtrain.kinds.evaluate import EvaluateJob, Scored
from fmtrain.models import save_model
from fmtrain.schema.load import dump
from tests.fmtrain.fixtures import TEXT, make_tokenizer, make_tokens, tiny_bert, tiny_llama, write_jsonl

SCORED = [
    Scored("base", "base"),
    Scored("pretrain", "pretrain", chats=False),
    Scored("sft", "sft", reads=False),
    Scored("dpo", "dpo", beta=0.1, reads=False),
]


@dataclass(frozen=True)
class Lineage:
    """Folders by role."""

    folders: dict[str, Path]

    def stage(self, name: str, job: Any, roles: list[str], work: Path, **folders: Path) -> Stage:
        """A stage of that name on those inputs."""
        inputs = {role: self.folders[role] for role in roles} | folders
        if isinstance(job, EvaluateJob):
            job = replace(job, models=[scored for scored in SCORED if scored.role in inputs])
        return Stage(
            stage=name,
            kind="reference" if name == "reference" else "evaluation",
            name="test_evaluation",
            fingerprint="f" * 32,
            run="test",
            job=dump(job),
            inputs={role: str(path) for role, path in inputs.items()},
            refs={role: f"{role}@v1" for role in inputs},
            sources=[],
            work=str(work / "work"),
            folder=work,
        )


def function_row(number: int, kind: str) -> dict[str, Any]:
    return {
        "id": f"m{number % 4}.py:{number}:f:{kind}",
        "group": f"m{number % 4}",
        "kind": kind,
        "prompt": [{"role": "user", "content": f'def f{number}(a, b):\n    """Add."""\n'}],
        "chosen": f"    return a + b + {number}",
        "rejected": f"    return a + {'bc'[number % 2]} + ({number}"
        if kind == "bracket"
        else f"    return a + x + {number}",
    }


@pytest.fixture(scope="session")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    root = tmp_path_factory.mktemp("lineage")
    tokenizer = make_tokenizer()
    for seed, name in enumerate(("base", "pretrain", "sft", "dpo")):
        save_model(tiny_llama(tokenizer, seed), tokenizer, root / name)
    save_model(tiny_bert(tokenizer), tokenizer, root / "masked")
    steps = [{"step": i + 1, "loss": 5.0 / (i + 1), "lr": 1e-3, "grad_norm": 1.0} for i in range(900)]
    write_jsonl(root / "pretrain" / "metrics.jsonl", steps)
    (root / "pretrain" / "training.json").write_text(json.dumps({"objective": "clm", "counts": {"rows": 7}}))
    (root / "corpus" / "heldout").mkdir(parents=True)
    with gzip.open(root / "corpus" / "heldout" / "00000.jsonl.gz", "wt", encoding="utf-8") as f:
        for i, text in enumerate(TEXT):
            f.write(json.dumps({"id": f"d{i}", "text": text * 3 + "é <b>", "group": f"d{i}"}) + "\n")
    make_tokens(root / "tokens", tokenizer, TEXT)
    long = {**function_row(99, "bracket"), "chosen": "    return " + "a + " * 200 + "b"}
    write_jsonl(root / "examples" / "preference.train.jsonl", [function_row(i, "bracket") for i in range(6)] + [long])
    heldout = [function_row(100 + i, kind) for i in range(8) for kind in ("bracket", "foreign_name")]
    write_jsonl(root / "examples" / "preference.heldout.jsonl", [*heldout, {**long, "id": "m9.py:9:f:bracket"}])
    for split in ("train", "heldout"):
        rows = [function_row(i, "sft") for i in range(5)]
        chats = [
            {
                "id": r["id"],
                "group": r["group"],
                "messages": [*r["prompt"], {"role": "assistant", "content": r["chosen"]}],
            }
            for r in rows
        ]
        write_jsonl(root / "examples" / f"sft.{split}.jsonl", chats)
    return Lineage({path.name: path for path in root.iterdir()})
