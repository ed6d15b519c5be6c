"""`python -m fmtrain.generate FOLDER 'prompt'`: let the model in a Hugging Face folder write. Never asks a network.

A chat model answers the prompt as a user's message; `--raw` continues the text itself. A masked model fills the mask
tokens in it.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fmtrain import show
from fmtrain.errors import InputError
from fmtrain.schema import plugins

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@show.command
def main(argv: list[str] | None = None) -> int:
    """Print the continuation; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fmtrain.generate", description=__doc__)
    parser.add_argument("folder", type=Path, help="a Hugging Face model folder")
    parser.add_argument("prompt")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--raw", action="store_true", help="continue the text itself, without the chat template")
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE", help="that knows the model's class")
    args = parser.parse_args(argv)
    lost = plugins.register_found(args.plugin)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with naming(lost):
        answer = write(args.folder, args.prompt, args.max_new_tokens, args.temperature, args.seed, args.raw)
    show.exactly(answer + "\n")
    return 0


def write(folder: Path, prompt: str, max_new_tokens: int, temperature: float, seed: int, raw: bool) -> str:
    """What the model in `folder` makes of `prompt`."""
    # here, so that --help and a wrong argument are answered without loading torch
    from fmtrain.evaluate import samples
    from fmtrain.evaluate.inputs import task_of
    from fmtrain.evaluate.scoring import use_all_cpus
    from fmtrain.models.device import device

    use_all_cpus()
    model, tokenizer = load(folder)
    model.to(device())
    if task_of(folder) == "masked":
        return samples.fill_masks(model, tokenizer, prompt)[0]
    if tokenizer.chat_template and not raw:
        ids = samples.chat_prompt(tokenizer, [{"role": "user", "content": prompt}])
    else:
        ids = samples.text_prompt(tokenizer, prompt)
    return samples.continue_prompts(model, tokenizer, [ids], max_new_tokens, temperature, seed)[0]


@contextlib.contextmanager
def naming(lost: list[str]) -> Iterator[None]:
    """What cannot be loaded may miss one of these plug-ins, which could not be imported."""
    try:
        yield
    except InputError as e:
        if not lost:
            raise
        raise InputError(
            f"{e}. The plug-in {' or '.join(lost)}, of which it may be, cannot be imported here: install its package "
            "beside fmtrain, or put its folder into PYTHONPATH"
        ) from e


class Loaded(NamedTuple):
    """What `load` gives: `model, tokenizer = load(folder)`."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def load(folder: Path) -> Loaded:
    """The model of a Hugging Face folder, for what its config says, and its tokenizer; fp32, in evaluation mode."""
    from fmtrain.evaluate.inputs import task_of
    from fmtrain.models import load_model, load_tokenizer

    tokenizer = load_tokenizer(folder)
    return Loaded(load_model(folder, task_of(folder), tokenizer), tokenizer)


if __name__ == "__main__":
    sys.exit(main())
