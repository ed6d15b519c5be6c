"""A model that is given by its name on a hub: which of its files are needed, and what a plan can know without weights.

The plan fetches what is small (settings, the tokenizer, the card) and knows the weights by the hashes that the hub
tells; they are fetched when a run needs them (launch/fetch.py). What the name stands for is fmtrain.artifacts.hub's.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any

from fmtrain.artifacts import hub
from fmtrain.artifacts.hub import CARD, Repo
from fmtrain.artifacts.inside import read_object
from fmtrain.artifacts.model_folder import INDEX, INDEX_BYTES, SINGLE
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.stage import Source
from fmtrain.errors import InputError
from fmtrain.schema.root import Root
from fmtrain.schema.training import Model
from launch.base import MOST, WEIGHTS, check_tokenizer, check_weights

# Settings and tokenizers, at the top of a repository; other folders hold other formats of the same model.
_SMALL = re.compile(
    r"(config|generation_config|special_tokens_map|added_tokens|tokenizer[^/]*|vocab[^/]*)\.json|merges\.txt"
    r"|vocab[^/]*\.(txt|bpe|model)|[^/]*\.(model|spm|tiktoken)|chat_template[^/]*|additional_chat_templates/[^/]+\.jinja"
)
_MOST_HEADERS = 64  # files whose headers are asked for, where the hub has not counted the parameters itself


@dataclass(frozen=True)
class Named:
    """A model on the hub as a plan knows it; weights that are not fetched yet are their size and SHA-256."""

    repo: Repo
    files: list[Source]
    licence: str
    parameters: int | None  # None where a folder's own headers tell, or nobody


def named(given: str, pickle: bool) -> Named:
    """The model that OWNER/NAME[@REVISION] stands for; InputError says what it lacks, or why nobody can tell."""
    asked, key = hub.parse(given), f"model.path={given}"
    assert asked is not None, given
    repo = hub.find("model", *asked, key, whole=lambda repo: _is_whole(repo, pickle))
    top = sorted(name for name in repo.files if "/" not in name)
    if not repo.listed and not any(name.endswith(WEIGHTS) for name in top):
        raise hub.incomplete(repo, ["its weights"], key)
    check_weights(key, top, pickle)
    small = _small(repo)
    weights, index = _weights_of(repo, key, pickle)
    wanted = [*small, *index, *(name for name in weights if not _is_in_store(repo, name))]
    check_tokenizer(key, small)
    hub.get(repo, [*wanted, *([CARD] if CARD in repo.files else [])], key)
    if index:
        weights = _shards(repo, index[0], key)
        hub.get(repo, [name for name in weights if not _is_in_store(repo, name)], key)
    if repo.away and (lacking := repo.lacks(weights)):
        raise hub.incomplete(repo, lacking, key)
    names = sorted({*small, *index, *weights})
    missing = repo.lacks(weights)
    parameters = _parameters(repo, missing) if missing else None
    return Named(repo, [source(repo, name) for name in names], hub.licence(repo), parameters)


def source(repo: Repo, name: str) -> Source:
    """A file of a repository where it lies, or will lie, in the cache."""
    path, entry = repo.snapshot / name, repo.files[name]
    if path.is_file() and not _is_in_store(repo, name):
        return identify(str(path), name, full=True)
    return Source(str(path), name, entry.size, "", entry.sha256)


def _is_in_store(repo: Repo, name: str) -> bool:
    """Whether a file is one of those that the hub keeps apart from git: weights, which a plan does not fetch."""
    return bool(repo.files[name].sha256) and not _SMALL.fullmatch(name)


def _small(repo: Repo) -> list[str]:
    if "config.json" not in repo.files:
        raise InputError(
            f"model.path={repo.name}: it has no config.json at {repo.asked!r}: no model that transformers loads"
        )
    found = sorted(name for name in repo.files if _SMALL.fullmatch(name))
    if large := next((name for name in found if repo.files[name].size > MOST), None):
        raise InputError(
            f"model.path={repo.name}: {large} has {repo.files[large].size} bytes, and no more than {MOST} are expected "
            "in a model's settings and vocabulary"
        )
    return found


def _weights_of(repo: Repo, key: str, pickle: bool) -> tuple[list[str], list[str]]:
    """(the file of the weights, []), or ([], the index that names several); as transformers looks for them."""
    for ending in ("safetensors", "bin") if pickle else ("safetensors",):
        if SINGLE[ending] in repo.files:
            return [SINGLE[ending]], []
        if INDEX[ending] in repo.files:
            return [], [INDEX[ending]]
    raise InputError(
        f"{key}: it has neither {SINGLE['safetensors']} nor {INDEX['safetensors']}, by which transformers finds a "
        "model's weights; save it anew with save_pretrained"
    )


def _shards(repo: Repo, index: str, key: str) -> list[str]:
    table = read_object(repo.snapshot, index, INDEX_BYTES).get("weight_map")
    found = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
    if not found or (lost := [name for name in found if name not in repo.files]):
        raise InputError(f"{key}: {index} names {lost[0] if found else 'no file'}, which the repository does not have")
    return found


def _is_whole(repo: Repo, pickle: bool) -> bool:
    """Whether a snapshot in the cache holds all that is needed of the commit."""
    try:
        weights, index = _weights_of(repo, "", pickle)
        if not repo.lacks(index):
            weights = weights or _shards(repo, index[0], "")
        return "tokenizer_config.json" in repo.files and not repo.lacks([*_small(repo), *index, *weights])
    except InputError:
        return False


def _parameters(repo: Repo, weights: list[str]) -> int | None:
    """By the hub's own count, else by the headers of the weights, which are asked for."""
    if repo.parameters:
        return repo.parameters
    if len(weights) > _MOST_HEADERS or not all(name.endswith(".safetensors") for name in weights):
        return None
    from huggingface_hub import HfApi

    def numbers(name: str) -> int:
        found: Any = HfApi().parse_safetensors_file_metadata(repo.name, name, revision=repo.commit, timeout=hub.SECONDS)
        return sum(prod(map(int, tensor.shape)) for tensor in found.tensors.values())

    try:
        with ThreadPoolExecutor(8) as pool:
            return sum(pool.map(numbers, weights))
    except hub.failures():  # an estimate that cannot be had; whoever fetches the weights hears why
        return None


def pins(root: Root, refs: dict[str, str]) -> list[str]:
    """Overrides that give every model on the hub by its commit: `refs` are its names, each with OWNER/NAME@COMMIT."""
    stages = {f"stages.{name}": stage for name, stage in root.stages.items() if stage is not None}
    models: dict[str, Model | None] = {"model": root.model}
    models |= {f"{at}.model": getattr(stage, "model", None) for at, stage in stages.items()}
    found = [
        f"{at}.path='{refs[model.folder]}'"
        for at, model in models.items()
        if model is not None and model.folder in refs
    ]
    for at, stage in stages.items():
        for role, given in stage.inputs.items():
            if any(one in refs for one in given or []):
                said = ",".join(f"'{refs.get(one, one)}'" for one in given or [])
                found.append(f"{at}.inputs.{role}=[{said}]")
    return found


def pickled(root: Root, given: str) -> bool:
    """Whether model.pickle stands beside that path."""
    own: list[Model | None] = [getattr(stage, "model", None) for stage in root.stages.values()]
    return any(model is not None and model.folder == given and model.pickle for model in [root.model, *own])
