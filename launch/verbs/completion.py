"""`fmtrain completion`: the script that lets a shell complete our words, and what that script asks."""

import argparse
from importlib import resources

from fmtrain import show
from fmtrain.errors import ConfigError, ExitCode
from launch.verbs.parser import Verbs, add_verb


def add(verbs: Verbs) -> None:
    text = "a script for your shell that completes words: fmtrain completion bash >> ~/.bashrc"
    completion = add_verb(verbs, "completion", _completion, text, only_reads=True)
    completion.add_argument("shell", nargs="?", choices=["bash", "zsh"])
    completion.add_argument("--asked", nargs=2, metavar=("REPLACED", "LINE"), help=argparse.SUPPRESS)  # by that script
    completion.set_defaults(verbs=verbs.choices)


def _completion(args: argparse.Namespace) -> int:
    if args.asked is not None:
        _answer(args)
    elif args.shell is None:
        raise ConfigError("completion: for which shell? fmtrain completion bash, or zsh")
    else:
        file = resources.files("launch.completion").joinpath(f"complete.{args.shell}")
        print(file.read_text(encoding="utf-8"), end="")
    return int(ExitCode.DONE)


def _answer(args: argparse.Namespace) -> None:
    """Candidates, one a line; none where the line cannot be what it seems to become."""
    from launch.completion.candidates import candidates, is_final
    from launch.completion.line import read

    replaced, line = args.asked
    typed = read(line, int(replaced))
    try:
        found = candidates(typed, args.verbs)
    except ConfigError:
        return
    for word in found:
        if word == show.line(word):  # a file's name may hold what no line of a shell can
            print(typed.answer(word, is_final(word)))
