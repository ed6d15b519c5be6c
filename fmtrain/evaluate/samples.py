"""Continuations: what a model writes after a prompt, greedy and sampled, and what a masked model puts in a gap.

Knows prompts as ids and one seed; which prompts, and where they are shown, is the caller's.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.data.chat import encode_prompt, end_token_ids
from fmtrain.data.ends import ends_of, with_ends
from fmtrain.errors import InputError
from fmtrain.evaluate.scoring import first_token, text_tokens, window_length


def chat_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]) -> list[int]:
    """The ids an assistant's turn starts from."""
    return encode_prompt(tokenizer, messages)


def text_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a document that begins with `text`."""
    return [first_token(tokenizer), *text_tokens(tokenizer, text)]


@torch.inference_mode()
def continue_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> list[str]:
    """The continuation of each prompt, without it, up to an end token; temperature 0 is greedy.

    Prompts are generated together, padded on the left; the process's random state is left as it was.
    """
    if not prompts or max_new_tokens < 1:
        return ["" for _ in prompts]
    ends = end_token_ids(tokenizer)
    pad = next((i for i in (tokenizer.pad_token_id, *ends) if i is not None), 0)
    longest = max(map(len, prompts))
    room = window_length(model, longest + max_new_tokens) - longest
    if room < 1:
        raise InputError(
            f"the prompt has {longest} tokens and the model at most {longest + room} positions; shorten it"
        )
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    with torch.random.fork_rng(devices=[] if model.device.type == "cpu" else [model.device]):
        torch.manual_seed(seed)
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=min(room, max_new_tokens),
            do_sample=temperature > 0,
            temperature=temperature if temperature > 0 else None,
            top_k=None,
            top_p=None,
            eos_token_id=ends or None,
            pad_token_id=pad,
        )
    return [_until_end(tokenizer, row, set(ends)) for row in found[:, longest:].tolist()]


def _until_end(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: set[int]) -> str:
    length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return str(tokenizer.decode(ids[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False))


@torch.inference_mode()
def fill_masks(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[str, list[str]]:
    """`text` with each mask token replaced by the model's first guess, and the guesses."""
    if tokenizer.mask_token_id is None:
        raise InputError("the tokenizer has no mask token: this is no folder of a masked language model")
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    gaps = ids[0] == tokenizer.mask_token_id
    if not gaps.any():
        raise InputError(f"a masked model fills gaps, and the prompt has none; write {tokenizer.mask_token} in it")
    ends = ends_of(tokenizer)
    given = torch.from_numpy(with_ends(ids.numpy(), ends))
    logits = model(input_ids=given.to(model.device)).logits[0, ends.before : ends.before + len(ids[0])].cpu()
    logits[:, tokenizer.all_special_ids] = -torch.inf  # a gap holds text
    best = logits.argmax(-1)
    filled = torch.where(gaps, best, ids[0]).tolist()
    return (
        str(tokenizer.decode(filled, clean_up_tokenization_spaces=False)),
        [str(tokenizer.decode([token])) for token in best[gaps].tolist()],
    )
