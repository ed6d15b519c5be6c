"""Shared by the corpus wing's tests: a stage folder made by hand, run in this process or in one of its own."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from fmtrain.artifacts.sources import BESIDE, identify, identify_folder
from fmtrain.artifacts.stage import Source, Stage, read_stage, write_stage
from fmtrain.artifacts.storage import fresh_dir
from fmtrain.artifacts.worker import Result
from fmtrain.kinds.corpus import CorpusJob
from fmtrain.schema.load import dump

_RAY_HEAD = """
import sys, ray
for attempt in range(5):  # Ray gives its node 30 s to start, too few on a busy machine, and no setting for it
    try:
        c = ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, logging_level="ERROR",
                     _temp_dir=sys.argv[1])
        break
    except Exception as e:
        print(e, file=sys.stderr)
        ray.shutdown()
print(c.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
# Ray replaces 127.0.0.1 by the machine's address unless it is told that there is no cluster.
_RAY_ENV = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "120",  # of 30, too few on a loaded machine
}


def unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    with zstandard.open(path, "rb") as f:
        content: bytes = f.read()
    return content


@dataclass
class CorpusRun:
    """A corpus stage's folder and what its artifact holds."""

    folder: Path

    @property
    def stage(self) -> Stage:
        return read_stage(self.folder)

    @property
    def out(self) -> Path:
        return self.stage.out

    def run(self) -> Result:
        from data_pipelines.stages import corpus

        fresh_dir(self.out)
        return corpus.run(self.stage)

    def start(self, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "data_pipelines", str(self.folder)]
        return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, env={**os.environ, **env})

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Decoded lines of all files of the artifact whose name begins with `name`."""
        files = sorted(p for p in self.out.rglob("*.*") if p.relative_to(self.out).as_posix().startswith(name))
        return [json.loads(line) for p in files for line in unpacked(p).splitlines()]

    def ledger(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.out / "ledger.parquet").to_pylist()
        return rows

    def ids(self, name: str) -> list[str]:
        return [row["id"] for row in self.rows(name)]

    def files(self) -> dict[str, bytes]:
        return {p.relative_to(self.out).as_posix(): p.read_bytes() for p in self.out.rglob("*") if p.is_file()}


def _beside(path: Path) -> Source:
    return (identify_folder if path.is_dir() else identify)(str(path), f"{BESIDE}filter.x:{path.name}")


@pytest.fixture
def make_corpus(tmp_path: Path) -> Any:
    """(job, files, root, tasks, executor) -> a CorpusRun that stands ready; files are named relative to root."""

    def make(
        job: CorpusJob,
        files: list[Path],
        root: Path,
        tasks: int = 2,
        executor: str = "inline",
        name: str = "run",
        earlier: Path | None = None,
        beside: Path | None = None,
    ) -> CorpusRun:
        sources = [identify(str(p), p.relative_to(root).as_posix()) for p in files]
        sources += [_beside(beside)] if beside else []
        inputs = {} if earlier is None else {"earlier": str(earlier)}
        folder = tmp_path / name / "stage"
        resources = {"ranks": 1, "tasks": tasks, "executor": executor}
        work = str(tmp_path / name / "work")
        Path(work).mkdir(parents=True, exist_ok=True)
        write_stage(
            folder, Stage("corpus", "corpus", "corpus", "f", "r", dump(job), inputs, {}, sources, work, resources)
        )
        return CorpusRun(folder)

    return make


@pytest.fixture(scope="session")
def ray_env() -> Iterator[dict[str, str]]:
    """Environment of a process that finds a real Ray with two CPUs on loopback; it ends with the tests."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short, for it has sockets: a worker's folder of pytest is not
    environment = {**os.environ, **_RAY_ENV}
    with open(folder / "stderr", "wb") as log:
        head = subprocess.Popen(
            [sys.executable, "-c", _RAY_HEAD, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
    assert head.stdout is not None and head.stdin is not None
    address = head.stdout.readline().strip()
    assert address.startswith("127.0.0.1:"), f"Ray listens at {address!r}: {(folder / 'stderr').read_text()}"
    yield {**_RAY_ENV, "RAY_ADDRESS": address}
    head.stdin.close()
    head.wait(timeout=120)
    shutil.rmtree(folder)
