"""What must not stand in our source: a table of pattern, reason, and the files that may, each for a reason of its own.

A pattern is a regular expression, looked for in every line's code. An exception that no longer applies fails too.
"""

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("fmtrain", "data_pipelines", "launch", "slurm")


@dataclass(frozen=True)
class Rule:
    name: str
    pattern: str
    reason: str
    allowed: dict[str, str] = field(default_factory=dict)  # file -> why it may


RULES = [
    Rule(
        "unpickling",
        r"\b(import|from) (pickle|_pickle|cloudpickle|dill|joblib|marshal|shelve|jsonpickle)\b|\ballow_pickle\b",
        "what was pickled is code: whoever can write the file, the socket or the store runs it; use JSON, or tensors",
    ),
    Rule(
        "torch.load",
        r"\btorch\.load\((?!.*weights_only=True)",
        "unpickles, unless weights_only=True stands on the line",
    ),
    Rule(
        "object collectives",
        r"\b(all_gather|gather|broadcast|scatter|send|recv)_object(_list)?\b",
        "unpickles what a socket brought; Group.gather sends JSON",
    ),
    Rule("foreign code", r"\btrust_remote_code=True\b", "a model's folder is data"),
    Rule("evaluated text", r"(?<![.\w])(eval|exec)\(", "text becomes code"),
    Rule("shells", r"\bshell=True\b|\bos\.(system|popen)\(", "a name with a blank or a quote becomes a command"),
    Rule("bare except", r"\bexcept:", "hides Ctrl-C and our own mistakes; name what is expected"),
    Rule(
        "processors",
        r"\bcpu_count\(|\bsched_getaffinity\(",
        "counts the machine's, not those this process may use; fmtrain.artifacts.machine.cpus() does",
        {"fmtrain/artifacts/machine.py": "is that function"},
    ),
    Rule(
        "whole environment",
        r"\*\*os\.environ|\bdict\(os\.environ|\benv=os\.environ|os\.environ\.copy\(|\bos\.environ \|",
        "a user's keys become everybody's; launch.backends.environment says what a process gets",
    ),
    Rule(
        "import path",
        r"sys\.executable, \"-[mc]\"",
        "imports from the working directory first; launch.backends.environment.module says -P",
        {"launch/summary.py": "a command for the user to type"},
    ),
    Rule(
        "raw terminals",
        r"\\x1b|\\033|\bsys\.__std(out|err)__|\bos\.write\([12],|\bstd(out|err)\.buffer\b",
        "what stands in a document commands the user's terminal; print through fmtrain.show.terminal()",
        {
            "fmtrain/show.py": "is that sink",
            "data_pipelines/filters/html_worker.py": "speaks to its parent over a pipe",
            "fmtrain/data/template_process.py": "speaks to its parent over a pipe",
        },
    ),
    Rule(
        "predictable names",
        r"\btempfile\.mktemp\(|f\"[^\"]*\{os\.getpid\(\)\}",
        "somebody else makes the file first, or another node's process of that number; mkstemp, mkdtemp, token_hex",
        {"launch/backends/command.py": "/proc/PID/fd is the kernel's"},
    ),
]  # fmt: skip


@cache
def source() -> dict[str, list[tuple[int, str]]]:
    """File -> its numbered lines of code, without comments and docstrings; strings stay: commands are made of them."""
    found = {}
    for path in sorted(p for top in OURS for p in (ROOT / top).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            row, column = token.start
            if token.type == tokenize.COMMENT:
                lines[row - 1] = lines[row - 1][:column]
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                for row in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    lines[row - 1] = ""
        found[path.relative_to(ROOT).as_posix()] = list(enumerate(lines, 1))
    return found


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
def test_forbidden(rule: Rule) -> None:
    hits = [
        (file, number, line.strip())
        for file, lines in source().items()
        for number, line in lines
        if re.search(rule.pattern, line)
    ]
    wrong = [f"{file}:{number}: {line}" for file, number, line in hits if file not in rule.allowed]
    assert not wrong, f"{rule.reason}\n" + "\n".join(wrong)
    stale = rule.allowed.keys() - {file for file, _, _ in hits}
    assert not stale, f"needs no exception any more: {sorted(stale)}"


INHERITS = {
    "data_pipelines/filters/html.py": "a worker's own helper, of what the worker was given",
    "launch/backends/reaper.py": "Ray's keeper, in the environment that the reaper was given",
    "launch/doctor.py": "nvidia-smi and sbatch, as the user has them",
}


def test_a_python_that_we_start_is_given_its_environment() -> None:
    """Not the driver's own, by default."""
    found = []
    for file in source().keys() - INHERITS.keys():
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess.") and node.args):
                continue
            python = re.search(r"sys\.executable|\bmodule\(|\bcommand\b", ast.unparse(node.args[0]))
            if python and not any(word.arg == "env" for word in node.keywords):
                found.append(f"{file}:{node.lineno}")
    assert found == []


UNHEARD = {
    "data_pipelines/filters/html_worker.py": "its parent reads its stdout",
    "fmtrain/data/template_process.py": "its parent reads its stdout",
    **{f"fmtrain/kinds/{kind}.py": "names modules" for kind in ("evaluate", "publish", "train")},
    "launch/backends/node.py": "the batch script reads it; what that prints goes to a file, shown through the sink",
    "launch/backends/ray_cluster/keeper.py": "prints to a log, shown through the sink",
    "launch/backends/reaper.py": "says nothing",
    "launch/turns.py": "as node.py",
}


def test_a_program_of_ours_prints_through_the_sink() -> None:
    """A module that can be started is framed by `show.command`, `show.terminal` or the frame of workers."""
    found = []
    for file, lines in source().items():
        code = "\n".join(line for _, line in lines)
        framed = re.search(r"\bshow\.(command|terminal)\b|\bworker\.main\(|^    main\(run\)", code, re.M)
        if "__main__" in code and not framed:
            found.append(file)
    assert sorted(found) == sorted(UNHEARD)
