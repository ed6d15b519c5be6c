"""A Hugging Face folder on this disk: load model and tokenizer, save them. No network, no remote code."""

import contextlib
import copy
import importlib
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from fmtrain.artifacts.model_folder import model_files
from fmtrain.data.chat import end_token_ids
from fmtrain.data.padding import padded_length
from fmtrain.errors import ConfigError, InputError
from fmtrain.models.build import Task
from fmtrain.schema import plugins

_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty")  # kept from a model's own settings

transformers_logging.disable_progress_bar()  # a stage's log is a file


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder."""
    from transformers import AutoTokenizer

    _require_folder(folder, ["tokenizer_config.json"])
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as e:  # whatever a damaged file makes the library raise is the folder's fault
        raise InputError(f"the tokenizer in {folder} cannot be loaded: {_first_line(e)}") from e
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)  # how it was loaded is not to be saved with it
    return tokenizer


def load_model(
    folder: Path, task: Task, tokenizer: PreTrainedTokenizerBase | None = None, pickle: bool = False
) -> PreTrainedModel:
    """The model of a Hugging Face folder with fp32 weights, in evaluation mode, for `task`.

    InputError where a file or a weight is missing: transformers itself would fill it with random numbers. With
    `tokenizer`, ConfigError where it has more tokens than the model has embeddings. `pickle` reads pytorch_model.bin,
    which transformers unpickles as tensors alone (weights_only).
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    _require_folder(folder, ["config.json"])
    for module in plugins.CLASSES:
        with contextlib.suppress(ImportError):  # most models need none; `_load` refuses one that does
            importlib.import_module(module)
    if not pickle and not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} has no .safetensors file; save the model with safetensors (save_pretrained does)")
    auto = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}[task]
    model, info = _load(auto, folder, "sdpa", pickle)
    missing = sorted(info["missing_keys"]) + sorted(str(m) for m in info["mismatched_keys"])
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} weights of a {type(model).__name__} ({task} language model), "
            f"{missing[0]} first: it holds another architecture, or was saved in part"
        )
    if tokenizer is not None:
        _check_vocabulary(model, tokenizer)
    return model


def check_fits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sequence_length: int) -> None:
    """ConfigError where the tokenizer has more tokens, or a row more positions, than the model was made for."""
    _check_vocabulary(model, tokenizer)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and padded_length(sequence_length) > positions:
        raise ConfigError(
            f"sequence_length={sequence_length} (padded to a multiple of 8) is beyond the model's "
            f"max_position_embeddings={positions}; lower the one, or raise the other where the model is new"
        )


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a folder that `AutoModel...from_pretrained` loads: config, weights, generation settings, tokenizer.

    `state_dict` (e.g. gathered from ZeRO partitions) stands in for the model's own weights; its dtype is what
    config.json says. The same weights give the same bytes. `model` is left as it was.
    """
    weights = dict(model.state_dict() if state_dict is None else state_dict)
    for alias, source in getattr(model, "all_tied_weights_keys", {}).items():
        if source in weights:
            weights[alias] = weights[source]  # one storage again after a gather, so that it is written once
    weights = {name: weights[name].detach().cpu() for name in sorted(weights)}
    dtypes = {w.dtype for w in weights.values() if w.is_floating_point()}
    folder.mkdir(exist_ok=True)
    model_config, model_generation = model.config, getattr(model, "generation_config", None)
    model.config = copy.deepcopy(model_config)  # save_pretrained writes into it
    try:
        if model.can_generate():
            model.generation_config = _generation_config(model_generation, tokenizer)
        model.save_pretrained(str(folder), state_dict=weights)
        if len(dtypes) == 1:
            model.config.dtype = str(dtypes.pop()).removeprefix("torch.")
            model.config.save_pretrained(str(folder))
    finally:
        model.config, model.generation_config = model_config, model_generation
    tokenizer.save_pretrained(str(folder))


def _generation_config(old: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Generation ends where the chat template ends a turn; a model's own sampling settings stay."""
    ends = end_token_ids(tokenizer)
    kept = {}
    if old is not None and old.do_sample:
        kept = {name: getattr(old, name) for name in _SAMPLING if getattr(old, name, None) is not None}
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else (ends[0] if ends else None),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        **kept,
    )


def _load(auto: type, folder: Path, attention: str, pickle: bool) -> tuple[PreTrainedModel, dict[str, set[str]]]:
    try:
        return auto.from_pretrained(  # type: ignore[attr-defined, no-any-return]
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=not pickle,
            weights_only=True,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
        )
    except ValueError as e:
        if attention == "sdpa" and "scaled_dot_product_attention" in str(e):
            return _load(auto, folder, "eager", pickle)  # an architecture without sdpa
        raise InputError(f"{folder} cannot be loaded as {auto.__name__}: {_first_line(e)}") from e
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as e:
        raise InputError(f"{folder} cannot be loaded as {auto.__name__}: {_first_line(e)}") from e
    except Exception as e:  # torch's word for pickled code is a class of a module that is not imported here
        if not pickle:
            raise
        raise InputError(f"{folder}: its pickled weights hold more than tensors, or are damaged; not loaded") from e


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {embeddings} embeddings: they do not belong "
            "together; give the tokenizer the model was made with"
        )


def _require_folder(folder: Path, files: list[str]) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; a Hugging Face folder with config.json and weights is expected")
    found = model_files(folder)
    if missing := [name for name in files if name not in found]:
        raise InputError(f"{folder} lacks {', '.join(missing)}; it holds {', '.join(found[:8]) or 'nothing'}")


def _first_line(e: Exception) -> str:
    lines = str(e).strip().splitlines()
    return f"{type(e).__name__}: {lines[0] if lines else ''}"
