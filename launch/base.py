"""A Hugging Face folder that a run starts from: what it is known by, and what can be known of it before training.

Reads names, small JSON files and the tokenizer's table; no weights but to hash them, and no library of models.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fmtrain.artifacts.inside import read_object
from fmtrain.artifacts.model_folder import INDEX, SINGLE, architectures, model_files
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import expanded
from fmtrain.errors import ConfigError, InputError
from fmtrain.schema import plugins

# What transformers reads of a folder: of other files (a README, other formats of the weights) the model is independent.
_READ = (".json", ".safetensors", ".model", ".spm", ".txt", ".jinja", ".tiktoken", ".codes", ".vocab", ".bpe")
WEIGHTS = (".safetensors", ".bin")  # files that hold weights
_HEADS = {"causal": ("ForCausalLM", "LMHeadModel"), "masked": ("ForMaskedLM",)}  # task -> ends of architectures
_ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "deberta", "deberta-v2", "mpnet",
             "modernbert", "camembert")  # fmt: skip
_OURS = ("manifest.json", "lineage.json")
MOST = 256 << 20  # bytes of a model folder's JSON, text or template; the largest tokenizer.json known have 35 MB
_SAVE = "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OTHER)"


def base_files(given: str, pickle: bool = False) -> list[Source]:
    """The files of the folder `model.path` names that make the model and its tokenizer; InputError names what lacks.

    `pickle`: weights may be pytorch_model.bin, where there are no safetensors.
    """
    root = expanded(given, f"model.path={given}").absolute()
    if not (root / "config.json").is_file():
        raise InputError(
            f"model.path={given}: no config.json there; expected a Hugging Face model folder on this machine, "
            "OWNER/NAME of the hub (OWNER/NAME@main where a folder here is called so), or NAME@vN of the store"
        )
    names = model_files(root)
    check_weights(f"model.path={root}", names, pickle)
    check_tokenizer(f"model.path={root}", names)
    safe = any(name.endswith(".safetensors") for name in names)
    read = [n for n in names if n.endswith(_READ if safe else (*_READ, ".bin")) and n not in _OURS]
    for name in read:
        if not name.endswith(WEIGHTS) and (size := (root / name).stat().st_size) > MOST:
            raise InputError(
                f"model.path={given}: {name} holds {size} bytes, and no more than {MOST} are expected in a model's "
                "settings and vocabulary; is this a model folder?"
            )
    return [identify(str(root / name), name, full=True) for name in read]


@dataclass(frozen=True)
class Use:
    """What a stage asks of the model that it comes of; `first` where it takes the model itself."""

    key: str
    first: bool
    task: str | None = None  # causal or masked: the head that it trains
    learns_head: bool = False  # may draw the head, where there is none
    length: int | None = None  # tokens that a row may have


def check_base(given: str, root: Path, uses: Iterable[Use]) -> str:
    """ConfigError where the stages ask of the model in `root` what it has not: tokens, positions, a head.

    What there is to say of one that does: a head that is drawn. `given` is what it is called.
    """
    config, said = read_object(root, "config.json"), ""
    _check_class(given, config)
    positions = size_in(config, "max_position_embeddings", "n_positions")
    for use in uses:
        if use.first and use.task:
            said = said or _head(given, config, use)
        if use.length is not None and positions is not None and -(-use.length // 8) * 8 > positions:
            raise ConfigError(
                f"{use.key}.sequence_length={use.length} (padded to a multiple of 8) is beyond the {positions} "
                f"positions of model.path={given}; "
                + (f"e.g. {use.key}.sequence_length={positions // 8 * 8}" if positions >= 8 else "give another model")
            )
    embeddings, tokens = size_in(config, "vocab_size"), tokens_in(root)
    if embeddings is not None and tokens > embeddings:
        raise ConfigError(
            f"model.path={given}: its tokenizer has {tokens} tokens and its model {embeddings} embeddings; they do not "
            "belong together. Give the tokenizer that the model was made with"
        )
    return said


def _head(given: str, config: dict[str, Any], use: Use) -> str:
    """ConfigError where the model has not the head that a stage trains; a word where the stage draws it."""
    names, kind = architectures(config), str(config.get("model_type") or "")
    assert use.task is not None
    what = next(iter(names), f"model of the type {kind!r}")
    another = ConfigError(
        f"{use.key} trains a {use.task} language model, and model.path={given} is a {what}; give another"
    )
    known = _classes(use.task)
    if known and kind and kind not in known and not plugins.CLASSES:  # of a plug-in's the tables know nothing
        raise ConfigError(
            f"{use.key} trains a {use.task} language model, and model.path={given} is a {what}: transformers has no "
            f"such of the type {kind!r}; give another, or name the plug-in that brings its class: plugins=[MODULE]"
        )
    ends = (*_HEADS["causal"], *_HEADS["masked"])
    if any(name in known.values() or name.endswith(_HEADS[use.task]) for name in names):
        return ""
    if any(name.endswith(ends) for name in names) or (use.task == "causal" and kind in _ENCODERS):
        raise another
    if not names or (use.task == "masked" and any(name.endswith("ForPreTraining") for name in names)):
        return ""
    if not any(name.endswith("Model") for name in names):
        raise another
    if use.learns_head:
        return (
            f"{use.key}: {given} is a {what}; the {use.task} language model's head that it lacks is drawn from the seed"
        )
    if config.get("tie_word_embeddings") is not True:
        raise ConfigError(
            f"{use.key} cannot start from model.path={given}: it is a {what}, without a language model's head; give "
            "one that has it, or let pre-training (clm, mlm) learn it first"
        )
    return ""


def _classes(task: str) -> dict[str, str]:
    """model_type -> the class that transformers has for the task, read off its source: importing it takes seconds.

    Empty where its source is written otherwise than it has been.
    """
    file = _transformers() / "auto" / "modeling_auto.py"
    if not file.is_file():
        return {}
    name = {"causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES"}[task]
    found = re.search(rf"^{name} = OrderedDict\(\n(.*?)^\)", file.read_text(encoding="utf-8"), re.M | re.S)
    return dict(re.findall(r'\("([\w.-]+)",\s*"(\w+)"\)', found[1])) if found else {}


def _transformers() -> Path:
    """The folder of transformers' models, a package each."""
    package = find_spec("transformers")
    return Path(next(iter((package and package.submodule_search_locations) or ["nowhere"])), "models")


def _check_class(given: str, config: dict[str, Any]) -> None:
    """ConfigError for a model whose class stands in its own folder alone: code of strangers is never run."""
    kind = str(config.get("model_type") or "")
    if config.get("auto_map") and not (kind and (_transformers() / kind.replace("-", "_")).is_dir()):
        raise ConfigError(
            f"model.path={given}: its config.json names code of its own (auto_map), and transformers has no model_type "
            f"{kind!r} of that name: a model's code is never run here. Give a model whose class transformers has"
        )


def check_weights(key: str, names: list[str], pickle: bool) -> None:
    """InputError where the files `names` of what `key` gives hold no weights that are read."""
    if "adapter_config.json" in names:
        raise InputError(
            f"{key} is an adapter (adapter_config.json), and its base model lies elsewhere: merge the two "
            "(merge_and_unload, save_pretrained) and give that folder"
        )
    if any(n.endswith(".safetensors") for n in names):
        return
    other = next((n for n in names if n.endswith((".bin", ".pt", ".pth", ".h5", ".gguf", ".msgpack"))), None)
    pickled = any(n in names for n in (SINGLE["bin"], INDEX["bin"]))
    if pickled and pickle:
        return
    how = f"its weights are {other}, a format that is not read; save them anew: {_SAVE}" if other else "no weights"
    if pickled:
        how = (
            "its weights are pickled (pytorch_model.bin). Where you trust whoever made them say model.pickle=true, by "
            f"which they are loaded as tensors alone (torch's weights_only); or save them anew: {_SAVE}"
        )
    raise InputError(f"{key} has no .safetensors file: {how}")


def check_tokenizer(key: str, names: list[str]) -> None:
    """InputError where the files `names` of what `key` gives hold no tokenizer that can be loaded here."""
    if "tokenizer_config.json" not in names:
        raise InputError(
            f"{key} has no tokenizer_config.json: a model is trained with its own tokenizer. Put it there: "
            "AutoTokenizer.from_pretrained(WHERE).save_pretrained(DIR)"
        )
    pieces = [n for n in names if n.endswith((".model", ".spm"))]
    lacking = [package for package in ("sentencepiece", "google.protobuf") if not _installed(package)]
    if "tokenizer.json" not in names and pieces and lacking:
        raise InputError(
            f"{key}: its tokenizer is {pieces[0]} alone, which is read by sentencepiece and protobuf, and "
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
    table = read_object(root, "tokenizer.json", MOST)
    model, added = table.get("model"), table.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    known = {v[0] for v in vocabulary if isinstance(v, list) and v} if isinstance(vocabulary, list) else vocabulary
    beside = {t.get("content") for t in added if isinstance(t, dict)} if isinstance(added, list) else set()
    return len(beside.union(known or ()))
