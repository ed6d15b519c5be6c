"""Continuations: greedy is the argmax, a seed repeats, prompts do not disturb each other; and the command."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain import generate
from fmtrain.errors import InputError
from fmtrain.evaluate.samples import continue_prompts, text_prompt
from fmtrain.models import load_model, save_model
from tests.fmtrain.fixtures import make_tokenizer, tiny_bert


@pytest.fixture
def model(llama_folder: Path) -> PreTrainedModel:
    return load_model(llama_folder, "causal")


def test_greedy_is_the_argmax(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = [text_prompt(tokenizer, "def add(a, b):\n"), text_prompt(tokenizer, "import")]
    found = continue_prompts(model, tokenizer, prompts, 8, 0.0, 1)
    for prompt, continuation in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(8):
            with torch.inference_mode():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert continuation == tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


def test_a_seed_repeats_and_leaves_the_random_state(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = [text_prompt(tokenizer, "class A:")]
    before = torch.get_rng_state()
    once, again, other = (continue_prompts(model, tokenizer, prompts, 12, 1.0, seed) for seed in (1, 1, 2))
    assert once == again != other
    assert torch.equal(before, torch.get_rng_state())


def test_a_prompt_too_long_is_refused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(InputError, match="at most 128 positions"):
        continue_prompts(model, tokenizer, [[30] * 128], 4, 0.0, 1)


def test_the_command(llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer()
    save_model(tiny_bert(tokenizer), tokenizer, tmp_path / "bert")
    for argv in (
        [str(llama_folder), "def f(a):", "--max-new-tokens", "5", "--temperature", "0.7", "--seed", "3"],
        [str(llama_folder), "def f(a):", "--max-new-tokens", "5", "--raw"],
        [str(tmp_path / "bert"), "def <mask>(a):"],
    ):
        assert generate.main(argv) == 0
        written = capsys.readouterr().out
        assert written.endswith("\n") and "<mask>" not in written
    assert generate.main([str(tmp_path / "none"), "x"]) == 3
    assert "config.json" in capsys.readouterr().err


def test_the_command_answers_for_help_without_torch() -> None:
    code = (
        "import sys, fmtrain.generate as g\ntry: g.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
