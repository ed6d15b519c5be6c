"""A Hugging Face folder's files: which there are, and that none of them names a file elsewhere.

Asked by the planner before it hashes a folder and by whoever loads one, so that what is read is what was hashed.
"""

import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fmtrain.artifacts.inside import files_inside, inside, read_object
from fmtrain.errors import InputError

# What transformers looks for in a folder, by the format of the weights: one file, or the index of several.
SINGLE = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}
INDEX = {ending: f"{name}.index.json" for ending, name in SINGLE.items()}
INDEX_BYTES = 256 << 20  # of such an index; a line a weight
TEMPLATES = "additional_chat_templates"
# All that a tokenizer may consist of; a model's config.json and weights in the same folder are not the tokenizer's.
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "*.model",
    "*.tiktoken",
    f"{TEMPLATES}/*.jinja",
)


# What a model is made of beside its tokenizer; licences go with it. Whatever else lies there is its maker's.
_MODEL = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "vocab*",
    "*.spm",
    "*.codes",
    "*.bpe",
    "LICENSE*",
    "NOTICE*",
)


def is_models(name: str) -> bool:
    """Whether a file of that name belongs to the model in a folder, or to its tokenizer."""
    return is_tokenizers(name) or any(fnmatchcase(name, pattern) for pattern in _MODEL)


def model_files(folder: Path) -> list[str]:
    """The files of a model's or a tokenizer's folder, sorted; InputError where one, or an entry in one, leads out."""
    names = files_inside(folder, TEMPLATES)
    for index in (n for n in names if n.endswith(".index.json")):
        _check_index(folder, index, names)
    if "tokenizer_config.json" in names:
        versions = read_object(folder, "tokenizer_config.json").get("fast_tokenizer_files")
        for name in versions if isinstance(versions, list) else []:
            inside(folder, str(name))
    return names


def is_tokenizers(name: str) -> bool:
    """Whether a file of that name in a model's folder belongs to its tokenizer."""
    return any(fnmatchcase(name, pattern) for pattern in _TOKENIZER)


def tokenizer_files(folder: Path) -> list[str]:
    """The files that make a folder's tokenizer, sorted; InputError where one leads out of it."""
    return [name for name in model_files(folder) if is_tokenizers(name)]


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The tokenizer in `source`, byte for byte."""
    for name in tokenizer_files(source):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, folder / name)


def _check_index(folder: Path, index: str, names: list[str]) -> None:
    shards = read_object(folder, index, INDEX_BYTES).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
        raise InputError(f"{folder}/{index} has no weight_map of weights to files; get the file again")
    for shard in sorted(set(shards.values()).difference(names)):
        inside(folder, shard)  # says what is wrong with a path that leads out, or to nothing
        raise InputError(f"{folder}/{index} names {shard!r}, which is no file beside it; put it there")


def architectures(config: dict[str, Any]) -> list[str]:
    """The classes that a model's config.json names."""
    found = config.get("architectures")
    return [str(name) for name in found] if isinstance(found, list) else []
