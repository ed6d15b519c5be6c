"""What the tests of the corpus wing make: corpora from the standard library, and stages run in this process.

A test module takes the fixtures over by name: `corpus = made.corpus`.
"""

import gzip
import hashlib
import json
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.corpus_reader import Document
from data_pipelines.stages import tokenizer
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import fresh_dir
from fmtrain.artifacts.worker import Result
from fmtrain.kinds.tokenizer import TokenizerJob
from fmtrain.schema.load import dump
from fmtrain.schema.tokenizers import Bpe, Unigram, WordPiece

MODULES = ("json", "html", "http", "logging", "email", "dataclasses.py", "argparse.py", "textwrap.py", "random.py")


def stdlib_documents(names: Sequence[str] = MODULES) -> list[Document]:
    """The files of some modules of this interpreter's standard library, grouped by module, sorted by id."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [
        f for name in names for f in (sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name])
    ]
    ids = [(f, f.relative_to(root).as_posix()) for f in files]
    return [
        Document(id_, f.read_text(encoding="utf-8"), id_.split("/")[0].removesuffix(".py")) for f, id_ in sorted(ids)
    ]


def write_corpus(folder: Path, train: Sequence[Document], heldout: Sequence[Document] = ()) -> Path:
    """A corpus artifact of the documents, two files a split."""
    for split, documents in (("train", train), ("heldout", heldout)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        ordered = sorted(documents, key=lambda d: d.id)
        for i in range(2):
            part = ordered[len(ordered) // 2 :] if i else ordered[: len(ordered) // 2]
            lines = "".join(json.dumps(asdict(d), ensure_ascii=False) + "\n" for d in part)
            (folder / split / f"{i:05d}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    return folder


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """JSON lines; a row that is bytes is written as it is."""
    path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows))
    return path


@dataclass
class Ran:
    """What a stage left."""

    out: Path
    result: Result

    def rows(self, name: str) -> list[dict[str, Any]]:
        with open(self.out / name, encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def digest(self) -> str:
        """SHA-256 over all files, names and bytes."""
        files = sorted(p for p in self.out.rglob("*") if p.is_file())
        return hashlib.sha256(b"\0".join(p.name.encode() + p.read_bytes() for p in files)).hexdigest()


def run_stage(
    run: Callable[[Stage], Result],
    folder: Path,
    job: Any,
    inputs: dict[str, Path] | None = None,
    sources: Sequence[Path] = (),
) -> Ran:
    """Run a stage's `run` in this process on an empty `folder`."""
    stage = Stage(
        stage="stage",
        kind="stage",
        name="stage",
        fingerprint="f" * 32,
        run="r",
        job=dump(job),
        inputs={role: str(path) for role, path in (inputs or {}).items()},
        refs={},
        sources=[identify(str(p), p.name) for p in sources],
        work=str(folder / "work"),
        resources={"ranks": 1, "tasks": 2, "executor": "inline"},
        folder=folder,
    )
    stage.work_dir.mkdir(parents=True, exist_ok=True)
    fresh_dir(stage.out)
    return Ran(stage.out, run(stage))


@pytest.fixture(scope="session")
def modules() -> list[Document]:
    """Some fifty files of the standard library, of nine top-level modules."""
    return stdlib_documents()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, modules: list[Document]) -> Path:
    """A corpus artifact of those files, three modules of them held out."""
    heldout = {"argparse", "logging", "textwrap"}
    return write_corpus(
        tmp_path_factory.mktemp("corpus"),
        [d for d in modules if d.group not in heldout],
        [d for d in modules if d.group in heldout],
    )


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A tokenizer artifact trained on the corpus: 1,024 tokens."""
    job = TokenizerJob(Bpe(vocab_size=1024))
    return run_stage(tokenizer.run, tmp_path_factory.mktemp("tokenizer"), job, {"corpus": corpus}).out


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> dict[str, Path]:
    """A tokenizer artifact of each kind, by its name: 600 tokens, learnt from the corpus."""
    return {
        config.name: run_stage(
            tokenizer.run, tmp_path_factory.mktemp(config.name), TokenizerJob(config), {"corpus": corpus}
        ).out
        for config in (Bpe(vocab_size=600), Unigram(vocab_size=600), WordPiece(vocab_size=600))
    }
