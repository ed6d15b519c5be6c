"""What bash and zsh offer when Tab is pressed, asked of a real bash, once in a terminal of its own."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.cli import main
from launch.completion.line import read
from tests.needs import need

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
ASK = r"""
eval "$(fmtrain completion bash)"
while IFS= read -r COMP_LINE; do
    COMP_POINT=${#COMP_LINE} COMPREPLY=()
    word=${COMP_LINE##*[ =\']}
    [[ $word == *@* ]] && word=@${word##*@}
    _fmtrain "${COMP_LINE%% *}" "$word"
    printf '%s|' "${COMPREPLY[@]}"; echo
done
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store, a recipe and a file whose name needs quotes."""
    for version in ("model/sft/v0001", "model/sft/v0002", "published/mine/v0001", "corpus/web/v0001"):
        (tmp_path / "store" / "artifacts" / version).mkdir(parents=True)
    (tmp_path / "store" / "runs" / "20260101-1-ab" / "logs" / "pretrain").mkdir(parents=True)
    (tmp_path / "mine.yaml").write_text("defaults: [quickstart_tiny, _self_]\nstages: {more: {kind: train}}\n")
    (own := tmp_path / "own" / "recipe").mkdir(parents=True)
    (own / "zmine.yaml").write_text("defaults: [quickstart_tiny, _self_]\n")
    (tmp_path / "a file.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", PATH)
    monkeypatch.delenv("FMTRAIN_STORE", raising=False)
    return tmp_path


def answers(*lines: str) -> list[list[str]]:
    """What bash would put in the place of `word`, which is cut here as readline cuts it (seen in a terminal, below)."""
    done = subprocess.run(["bash", "-c", ASK], input="".join(f"{x}\n" for x in lines), capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [line.split("|")[:-1] for line in done.stdout.splitlines()]


def test_words_in_bash(place: Path) -> None:
    asked = {
        "fmtrain sta": ["status "],
        "fmtrain logs --": ["--follow ", "--help ", "--rank ", "--store "],
        "fmtrain run --cfg ": ["job "],
        "fmtrain corpus w": ["why "],
        "fmtrain corpus why --corpus ": ["web ", "web@v1 "],
        "fmtrain generate --store=./store ": ["mine ", "mine@v1 ", "sft ", "sft@v1 ", "sft@v2 "],
        "fmtrain run --config-dir=own recipe=zm": ["zmine "],
        "fmtrain run --config-dir=~nosuch/own recipe=zm": [""],
        "fmtrain generate ": ["mine ", "mine@v1 ", "sft ", "sft@v1 ", "sft@v2 "],
        "fmtrain generate sft@": ["@v1 ", "@v2 "],
        "fmtrain generate --store ./sto": ["./store/"],
        "fmtrain verify --all w": ["web ", "web@v1 "],
        "fmtrain status ": ["20260101-1-ab "],
        "fmtrain logs 20260101-1-ab ": ["pretrain "],
        "fmtrain completion ": ["bash ", "zsh "],
        "fmtrain options obj": ["objective "],
        "fmtrain nothing ": [""],
    }
    assert dict(zip(asked, answers(*asked), strict=True)) == asked


def test_overrides_in_bash(place: Path) -> None:
    asked = {
        "fmtrain run rec": ["recipe="],
        "fmtrain run recipe=quickstart_": ["quickstart_mlm ", "quickstart_tiny "],
        "fmtrain run recipe=./m": ["./mine.yaml "],
        "fmtrain run recipe=./mine.yaml stages.m": ["stages.more.", "stages.more="],
        "fmtrain run recipe=tokens stages.": [
            f"stages.{name}{end}" for name in ("corpus", "tokenizer", "tokens") for end in ".="
        ],
        "fmtrain run recipe=quickstart stages.sft.optim.l": ["stages.sft.optim.lr="],
        "fmtrain run stages.sft.optim.lr=": [""],
        "fmtrain run stages.sft.prec": ["stages.sft.precision="],
        "fmtrain run stages.sft.precision=": ["bf16 ", "fp32 "],
        "fmtrain run stages.dpo=": ["null "],
        "fmtrain run stages.sft.zero.offload_optimizer=": ["false ", "true "],
        "fmtrain run launch=slurm launch.ex": ["launch.exclusive="],
        "fmtrain run zer": ["zero@"],
        "fmtrain run zero@stages.sft.": ["@stages.sft.zero="],
        "fmtrain run zero@stages.sft.zero=": [*(f"stage{n} " for n in range(4))],
        "fmtrain plan +stage@stages.sft2=ref": ["reference "],
        "fmtrain plan stages.sft.inputs.model=s": ["sft ", "sft@v1 ", "sft@v2 "],
        "fmtrain plan data=local data.files=a": ["a\\ file.jsonl "],
        "fmtrain plan nonsense= recipe=gone see": ["seed="],
    }
    found = dict(zip(asked, answers(*asked), strict=True))
    assert {line: sorted(words) for line, words in found.items()} == {k: sorted(v) for k, v in asked.items()}


@pytest.mark.parametrize(
    ("line", "replaced", "words", "current", "rest", "quoted"),
    [
        ("f ", "", ["f"], "", "", False),
        ("f run a=b", "b", ["f", "run"], "a=b", "b", False),
        ("f run a=", "", ["f", "run"], "a=", "", False),
        ("f a@b.c", "@b.c", ["f"], "a@b.c", "@b.c", False),
        ("f 'a=b c", "'a=b c", ["f"], "a=b c", "a=b c", True),
        ("f a='b c", "b c", ["f"], "a=b c", "b c", True),
        ('f "a b" c=d\\ e', "d\\ e", ["f", "a b"], "c=d e", "d e", False),
        ("f '' x", "x", ["f", ""], "x", "x", False),
    ],
)
def test_a_line_is_read_as_a_shell_reads_it(
    line: str, replaced: str, words: list[str], current: str, rest: str, quoted: bool
) -> None:
    typed = read(line, len(replaced))
    assert (typed.words, typed.current, typed.current[typed.kept :], typed.quoted) == (words, current, rest, quoted)


def test_tab_in_a_terminal(place: Path) -> None:
    """The whole way, `=` and `@` included: what readline makes of the answers stands in the line."""
    script = place / "rc"
    script.write_text('PS1="> "\nstty cols 300\nbind "set bell-style none"\neval "$(fmtrain completion bash)"\n')
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "dumb"
        os.execvp("bash", ["bash", "--noprofile", "--rcfile", str(script), "-i"])
    seen = ""

    def until(end: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + 40
        while end not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096).decode()

    try:
        until("> ")
        os.write(terminal, b"fmtrain plan recipe=quickstart_t\t")
        until("recipe=quickstart_tiny ")
        os.write(terminal, b"zer\tstages.sft.\tstage3\t")
        until("zero@stages.sft.zero=stage3 ")
        os.write(terminal, b"--conf\t")
        until("--config-dir ")
        os.write(terminal, b"\x15fmtrain generate mine@\t")
        until("mine@v1 ")
        os.write(terminal, b"\x15fmtrain run 'recipe=quickstart_t\t")
        until("'recipe=quickstart_tiny'")
        os.write(terminal, b"\x15fmtrain plan data=local data.files=a\t")
        until("data.files=a\\ file.jsonl ")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def test_zsh_is_given_whole_words(place: Path) -> None:
    """With the widget's variables set by hand, and compadd showing what it is given."""
    need("zsh")
    stubs = 'compdef() { :; }; compadd() { print -rl -- "${found[@]}"; }; eval "$(fmtrain completion zsh)"; '
    line = "words=(fmtrain run recipe=quickstart_); CURRENT=3; PREFIX=recipe=quickstart_; _fmtrain"
    done = subprocess.run(["zsh", "-f", "-c", stubs + line], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["recipe=quickstart_mlm ", "recipe=quickstart_tiny "], done.stderr


def test_the_scripts_are_printed_and_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0 and "compdef _fmtrain fmtrain" in capsys.readouterr().out
    assert main(["completion"]) == 2 and "bash, or zsh" in capsys.readouterr().err
