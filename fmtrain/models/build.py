"""Models from random weights, by the name in the config. The vocabulary and its special ids are the tokenizer's."""

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.errors import ConfigError
from fmtrain.schema import plugins
from fmtrain.schema.options import OPTIONS
from fmtrain.schema.training import Bert, Llama, Model

Task = Literal["causal", "masked"]  # what the head predicts: the next token, or the masked ones
Builder = Callable[[Any, PreTrainedTokenizerBase], PreTrainedModel]
_LARGEST_SEED = 2**63 - 1


def build_model(cfg: Model, tokenizer: PreTrainedTokenizerBase, seed: int, task: Task | None = None) -> PreTrainedModel:
    """A model with fp32 weights that depend on `cfg`, the tokenizer's size and `seed` alone; in training mode.

    The process's random state is neither used nor changed. `task`, where given, must be the one the model is for.
    """
    builders = MODELS | plugins.MODELS
    if cfg.name not in builders:
        raise ConfigError(
            f"model.name: {cfg.name!r} cannot be built from random weights; choose one of {', '.join(sorted(builders))}"
        )
    if not 0 <= seed <= _LARGEST_SEED:
        raise ConfigError(f"seed: {seed} is not between 0 and {_LARGEST_SEED}")
    if task is not None and task != cfg.task:
        fits = [name for name in builders if cast(type[Model], OPTIONS[Model][name]).task == task]
        raise ConfigError(
            f"model.name={cfg.name} is a {cfg.task} language model and the objective trains a {task} one; "
            f"choose model={' or '.join(sorted(fits))}, or an objective that goes with {cfg.name}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: PreTrainedModel = builders[cfg.name](cfg, tokenizer)
        except (ValueError, TypeError, StrictDataclassError) as e:  # transformers checks that the sizes go together
            raise ConfigError(f"model: transformers refuses these values: {e}") from e
    return model.to(torch.float32).train()


def _llama(cfg: Llama, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    _divides("hidden_size", cfg.hidden_size, "num_attention_heads", cfg.num_attention_heads)
    _divides("num_attention_heads", cfg.num_attention_heads, "num_key_value_heads", cfg.num_key_value_heads)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=cfg.hidden_size,
        intermediate_size=cfg.intermediate_size,
        num_hidden_layers=cfg.num_hidden_layers,
        num_attention_heads=cfg.num_attention_heads,
        num_key_value_heads=cfg.num_key_value_heads,
        max_position_embeddings=cfg.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": cfg.rope_theta},
        tie_word_embeddings=cfg.tie_word_embeddings,
        initializer_range=cfg.initializer_range,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def _bert(cfg: Bert, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    from transformers import BertConfig, BertForMaskedLM

    _divides("hidden_size", cfg.hidden_size, "num_attention_heads", cfg.num_attention_heads)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=cfg.hidden_size,
        intermediate_size=cfg.intermediate_size,
        num_hidden_layers=cfg.num_hidden_layers,
        num_attention_heads=cfg.num_attention_heads,
        max_position_embeddings=cfg.max_position_embeddings,
        initializer_range=cfg.initializer_range,
        # No dropout: pre-training sees each token few times, and a step stays a pure function of (seed, step).
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    return BertForMaskedLM(config)


def _divides(name: str, value: int, by: str, parts: int) -> None:
    if parts < 1 or value % parts:
        raise ConfigError(f"model.{name}={value} is not a multiple of model.{by}={parts}; change one of the two")


MODELS: dict[str, Builder] = {"llama": _llama, "bert": _bert}
