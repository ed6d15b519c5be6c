"""A Hugging Face folder that a run starts from: what it is known by, and what can be known of it before training.

Reads names, small JSON files and the tokenizer's table; no weights but to hash them, and no library of models.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fmtrain.artifacts.inside import read_object
from fmtrain.artifacts.model_folder import model_files
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import expanded
from fmtrain.errors import ConfigError, InputError

# What transformers reads of a folder: of other files (a README, other formats of the weights) the model is independent.
_READ = (".json", ".safetensors", ".model", ".spm", ".txt", ".jinja", ".tiktoken", ".codes", ".vocab", ".bpe")
_OURS = ("manifest.json", "lineage.json")
_MOST = 256 << 20  # bytes of a model folder's JSON, text or template; the largest tokenizer.json known have 35 MB
_SAVE = "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OTHER)"


def base_files(given: str) -> list[Source]:
    """The files of the folder `model.path` names that make the model and its tokenizer; InputError names what lacks."""
    root = expanded(given, f"model.path={given}").absolute()
    if not (root / "config.json").is_file():
        raise InputError(
            f"model.path={given}: no config.json there; expected a Hugging Face model folder on this machine, or "
            "NAME@vN of the store"
        )
    names = model_files(root)
    _check_weights(root, names)
    _check_tokenizer(root, names)
    read = [n for n in names if n.endswith(_READ) and n not in _OURS]
    for name in read:
        if not name.endswith(".safetensors") and (size := (root / name).stat().st_size) > _MOST:
            raise InputError(
                f"model.path={given}: {name} holds {size} bytes, and no more than {_MOST} are expected in a model's "
                "settings and vocabulary; is this a model folder?"
            )
    return [identify(str(root / name), name, full=True) for name in read]


def check_base(given: str, lengths: Iterable[tuple[str, int]], task: str | None) -> None:
    """ConfigError where the stages ask of the model what it has not: tokens, positions, a head.

    `lengths` are the stages' keys with the tokens a row may have; `task` is causal or masked, None
    where it is not trained.
    """
    root = expanded(given, f"model.path={given}").absolute()
    config = read_object(root, "config.json")
    heads = [str(a) for a in config.get("architectures") or [] if str(a).endswith(("ForMaskedLM", "ForCausalLM"))]
    wanted = "ForMaskedLM" if task == "masked" else "ForCausalLM"
    if task and heads and not any(head.endswith(wanted) for head in heads):
        raise ConfigError(f"model.path={given} is a {heads[0]}, and its first stage trains a ...{wanted}: give another")
    positions = size_in(config, "max_position_embeddings", "n_positions")
    for key, length in lengths:
        if positions is not None and -(-length // 8) * 8 > positions:
            raise ConfigError(
                f"{key}={length} (padded to a multiple of 8) is beyond the {positions} positions of "
                f"model.path={given}; e.g. {key}={positions // 8 * 8}"
            )
    embeddings, tokens = size_in(config, "vocab_size"), tokens_in(root)
    if embeddings is not None and tokens > embeddings:
        raise ConfigError(
            f"model.path={given}: its tokenizer has {tokens} tokens and its model {embeddings} embeddings; they do not "
            "belong together. Give the tokenizer that the model was made with"
        )


def _check_weights(root: Path, names: list[str]) -> None:
    if "adapter_config.json" in names:
        raise InputError(
            f"model.path={root} is an adapter (adapter_config.json), and its base model lies elsewhere: merge the two "
            "(merge_and_unload, save_pretrained) and give that folder"
        )
    if not any(n.endswith(".safetensors") for n in names):
        other = next((n for n in names if n.endswith((".bin", ".pt", ".pth", ".h5", ".gguf", ".msgpack"))), None)
        how = f"its weights are {other}, a format that is not read; save them anew: {_SAVE}" if other else "no weights"
        raise InputError(f"model.path={root} has no .safetensors file: {how}")


def _check_tokenizer(root: Path, names: list[str]) -> None:
    if "tokenizer_config.json" not in names:
        raise InputError(
            f"model.path={root} has no tokenizer_config.json: a model is trained with its own tokenizer. Put it there: "
            "AutoTokenizer.from_pretrained(WHERE).save_pretrained(DIR)"
        )
    pieces = [n for n in names if n.endswith((".model", ".spm"))]
    lacking = [package for package in ("sentencepiece", "google.protobuf") if not _installed(package)]
    if "tokenizer.json" not in names and pieces and lacking:
        raise InputError(
            f"model.path={root}: its tokenizer is {pieces[0]} alone, which is read by sentencepiece and protobuf, and "
            f"{' and '.join(lacking)} is not installed. pip install sentencepiece protobuf; or, where these are, "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) makes the tokenizer.json that needs neither"
        )


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def size_in(config: dict[str, Any], *names: str) -> int | None:
    """The first of a model's sizes that its configuration says, of its text part where it has several."""
    for part in (config, config.get("text_config")):
        for name in names:
            if isinstance(part, dict) and isinstance(value := part.get(name), int):
                return value
    return None


def tokens_in(root: Path) -> int:
    """How many tokens tokenizer.json has, those beside its vocabulary too; 0 where that is not known."""
    if not (root / "tokenizer.json").exists():
        return 0
    table = read_object(root, "tokenizer.json", _MOST)
    model, added = table.get("model"), table.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    known = {v[0] for v in vocabulary if isinstance(v, list) and v} if isinstance(vocabulary, list) else vocabulary
    beside = {t.get("content") for t in added if isinstance(t, dict)} if isinstance(added, list) else set()
    return len(beside.union(known or ()))
