"""A Hugging Face folder on this disk: load model and tokenizer, save them. No network, no remote code.

A tokenizer is handed on as the bytes that it was read from, and a model's own settings of generation stay.
"""

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

from fmtrain.artifacts.inside import read_object
from fmtrain.artifacts.model_folder import architectures, copy_tokenizer, model_files
from fmtrain.artifacts.storage import write_json, write_text
from fmtrain.data.chat import end_token_ids
from fmtrain.data.padding import padded_length
from fmtrain.data.templates import DAY
from fmtrain.errors import ConfigError, InputError
from fmtrain.models.build import Task
from fmtrain.schema import plugins

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")  # which nothing reads without do_sample

_SETTINGS = "tokenizer_config.json"

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
    model, missing = _loaded(folder, task, pickle)
    if missing:
        raise _lacks(folder, model, task, missing)
    if tokenizer is not None:
        _check_vocabulary(model, tokenizer)
    return model


def load_body(
    folder: Path, task: Task, tokenizer: PreTrainedTokenizerBase, seed: int, pickle: bool = False
) -> tuple[PreTrainedModel, list[str]]:
    """The same of a folder that may hold a model without a head: what the head lacks is drawn from `seed` alone.

    Also the names of the weights that were drawn; InputError where another than those of the head is missing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, missing = _loaded(folder, task, pickle)
    if any(name.startswith(f"{model.base_model_prefix}.") for name in missing):
        raise _lacks(folder, model, task, missing)
    _check_vocabulary(model, tokenizer)
    return model, missing


def headless(folder: Path) -> str | None:
    """The architecture of a model without a head, as config.json names it: BertModel; None where it has one."""
    names = architectures(read_object(folder, "config.json"))
    return next((name for name in names if name.endswith("Model") and not name.endswith("LMHeadModel")), None)


def _loaded(folder: Path, task: Task, pickle: bool) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the names of its weights that the folder does not hold."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    _require_folder(folder, ["config.json"])
    for module in plugins.CLASSES:
        with contextlib.suppress(ImportError):  # most models need none; `_load` refuses one that does
            importlib.import_module(module)
    if not pickle and not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} has no .safetensors file; save the model with safetensors (save_pretrained does)")
    auto = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}[task]
    model, info = _load(auto, folder, "sdpa", pickle)
    return model, sorted(info["missing_keys"]) + sorted(str(m) for m in info["mismatched_keys"])


def _lacks(folder: Path, model: PreTrainedModel, task: Task, missing: list[str]) -> InputError:
    return InputError(
        f"{folder} lacks {len(missing)} weights of a {type(model).__name__} ({task} language model), "
        f"{missing[0]} first: it holds another architecture, or was saved in part"
    )


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
    save_tokenizer(tokenizer, folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The bytes of the folder that it was read from, with what it was given since: a chat template, the template's day.

    One that was not read from a folder, or was changed otherwise, is written by the library.
    """
    source = Path(tokenizer.name_or_path)
    if tokenizer.name_or_path and (source / _SETTINGS).is_file():
        copy_tokenizer(source, folder)
        kept, template, day = load_tokenizer(folder), tokenizer.chat_template, tokenizer.init_kwargs.get(DAY)
        if kept.chat_template != template and isinstance(template, str):
            write_text(folder / "chat_template.jinja", template)
        if kept.init_kwargs.get(DAY) != day:
            write_json(folder / _SETTINGS, {**read_object(folder, _SETTINGS), DAY: day})
        kept = load_tokenizer(folder)
        same = (kept.chat_template, kept.special_tokens_map) == (template, tokenizer.special_tokens_map)
        if same and kept.get_vocab() == tokenizer.get_vocab():
            return
    tokenizer.save_pretrained(str(folder))


def _generation_config(old: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """The model's own settings. Generation ends at all its end tokens, and where the chat template ends a turn."""
    found = GenerationConfig() if old is None else copy.deepcopy(old)
    own = found.eos_token_id if isinstance(found.eos_token_id, list) else [found.eos_token_id]
    ends = list(dict.fromkeys([*(e for e in own if e is not None), *end_token_ids(tokenizer)]))
    found.eos_token_id = ends if len(ends) > 1 else (ends[0] if ends else None)
    if found.bos_token_id is None:
        found.bos_token_id = tokenizer.bos_token_id
    if found.pad_token_id is None:
        pad = tokenizer.pad_token_id
        found.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    if not found.do_sample:
        for name in _SAMPLING:
            setattr(found, name, getattr(GenerationConfig(), name))  # transformers refuses to write what it ignores
    return found


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
