"""Workers as children of one process that has imported their libraries, so that this is waited for once.

A worker runs as `python -m MODULE STAGE_DIR` would, in a process of its own: nothing that it sets or leaves behind
meets another. It may be given an edit, a word of a module's source put in the place of another: our modules are then
imported anew, with that source.
"""

import importlib
import importlib.abc
import importlib.machinery
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Self

OURS = ("fmtrain", "data_pipelines", "launch")
IMPORTED = (  # with all that they import of others
    "fmtrain.train.run", "deepspeed", "fmtrain.evaluate.evaluate", "fmtrain.evaluate.reference",
    "fmtrain.publish.publish", "data_pipelines.stages.corpus", "data_pipelines.stages.tokenizer",
    "data_pipelines.stages.tokens", "data_pipelines.stages.examples",
)  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """What a careless hand changes: `old` stands once in the module's source."""

    module: str
    old: str
    new: str


class Forks:
    """The process that forks; it ends with the `with` block."""

    def __init__(self, env: dict[str, str]) -> None:
        self.lock = threading.Lock()  # one worker at a time, whoever asks
        command, pipe = [sys.executable, "-P", "-m", __spec__.name], subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def run(self, worker: str, folder: Path, log: Path, edit: Edit | None = None) -> int:
        """The exit code of a worker on a stage's folder; what it prints goes to `log`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        log.parent.mkdir(parents=True, exist_ok=True)
        asked = {"worker": worker, "folder": str(folder), "log": str(log), "edit": asdict(edit) if edit else None}
        with self.lock:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        assert answer, "the process that forks workers has ended; what it printed stands above"
        return int(answer)


def serve() -> None:
    """A worker for each line of stdin, one after the other; its exit code is a line of stdout."""
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            work(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def work(worker: str, folder: str, log: str, edit: dict[str, str] | None) -> None:
    """Be that worker; does not return."""
    code = 1
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        if edit is not None:
            for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
                del sys.modules[name]
            sys.meta_path.insert(0, Editing(Edit(**edit)))
        frame = importlib.import_module("fmtrain.artifacts.worker")
        frame.main(importlib.import_module(f"{worker}.__main__").run, [folder])
    except SystemExit as e:
        code = int(e.code or 0)
    finally:
        os._exit(code)


class Editing(importlib.abc.MetaPathFinder):
    """Finds one module, and gives it an edited source."""

    def __init__(self, edit: Edit) -> None:
        self.edit = edit

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.edit.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None and spec.origin is not None
        spec.loader = _Edited(self.edit, spec.origin)
        return spec


class _Edited(importlib.machinery.SourceFileLoader):
    def __init__(self, edit: Edit, path: str) -> None:
        super().__init__(edit.module, path)
        self.edit = edit

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text(encoding="utf-8")
        times = source.count(self.edit.old)
        assert times == 1, f"{self.path} has {self.edit.old!r} {times} times; an edit needs a place of its own"
        return compile(source.replace(self.edit.old, self.edit.new), self.path, "exec")


if __name__ == "__main__":
    serve()
