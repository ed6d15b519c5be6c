"""Rows that are given by a data set's name on a hub, or by its folder: which files hold the split, and where they lie.

What is small (all that a hub keeps in git) is fetched while planning, as the beginnings of rows are looked at anyway;
of what is large the plan reads the beginning over the network, and the run fetches it whole (launch/fetch.py). Which
files make a split the data set's card says, else their names, by the rules of `datasets`, which is imported here.
"""

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from fmtrain.artifacts import hub
from fmtrain.artifacts.hub import CARD, Repo
from fmtrain.artifacts.sources import BESIDE, HUB, identify
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import expanded
from fmtrain.errors import ConfigError, InputError
from fmtrain.schema.sources import Rows

_SHARD = re.compile(r"-[0-9]{5}-of-([0-9]{5})")
_READ = (".jsonl", ".json", ".ndjson", ".parquet")  # endings of files of rows, .gz and .zst behind the first three


def hub_rows(data: Rows, notes: list[str] | None = None) -> list[Source]:
    """The files of `data.path`'s split, sorted; InputError where there is no such data set, config, split or form.

    `notes` is told where the cache speaks for the hub.
    """
    assert data.path is not None
    key = f"data.path={data.path}"
    folder = expanded(data.path, key).absolute()
    if folder.is_dir():
        if data.revision:
            raise ConfigError(f"data.revision={data.revision}: {data.path} is a folder here; the hub's is of a name")
        files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        names = _split(files, _card(folder / CARD), data, key) or _none(data, key)
        return [identify(str(folder / name), short) for name, short in _named(names).items()]
    asked = hub.parse(data.path)
    if asked is None:
        raise InputError(f"{key}: neither a folder on this machine nor a name on the hub (OWNER/NAME@REVISION)")
    if asked[1] and data.revision:
        raise ConfigError(f"{key} data.revision={data.revision}: two revisions; give one")
    repo = hub.find("dataset", asked[0], asked[1] or data.revision, key, whole=lambda repo: _is_whole(repo, data, key))
    hub.get(repo, [CARD] if CARD in repo.files else [], key)
    names = _split(list(repo.files), _card(repo.snapshot / CARD), data, key)
    if not repo.listed and (not names or _is_in_part(names)):
        raise hub.incomplete(repo, ["files of that split"], key)
    names = names or _none(data, key)
    hub.get(repo, [name for name in names if not repo.files[name].sha256], key)
    if repo.away and (lacking := repo.lacks(names)):
        raise hub.incomplete(repo, lacking, key)
    if not repo.lacks(names):
        hub.note(repo)
    if repo.away and notes is not None:
        notes.append(repo.said(data.path))
    return [_source(repo, name, short) for name, short in _named(names).items()]


def _is_whole(repo: Repo, data: Rows, key: str) -> bool:
    """Whether all that is needed of a commit is in the cache, and known to be all."""
    needed = [CARD] if CARD in repo.files else []
    if not repo.listed or repo.lacks(needed):
        return False
    try:
        names = _split(list(repo.files), _card(repo.snapshot / CARD), data, key)
    except InputError:
        return False
    return bool(names) and not repo.lacks(names)


def _is_in_part(names: list[str]) -> bool:
    """Whether files that are called 00000-of-00002 and so on are fewer than they say."""
    found = [(name[: part.start()], int(part[1])) for name in names if (part := _SHARD.search(name))]
    return any(found.count(one) < one[1] for one in found)


def told(data: Any, sources: list[Source]) -> dict[str, Any]:
    """What a manifest says of rows from a hub; empty where they are from elsewhere."""
    found = [(where, one) for one in sources if not one.name.startswith(BESIDE) and (where := hub.at(one.path))]
    if not found or getattr(data, "path", None) is None:
        return {}
    (name, commit, _), _ = found[0]
    repo = Repo("dataset", name, asked_of(data), commit, {})
    files = {where[2]: {"bytes": one.size, "sha256": one.sha256} for where, one in found}
    said = {"repo": name, "revision": repo.asked, "commit": commit, "licence": hub.licence(repo), "files": files}
    return {"path": data.path, **said}


def asked_of(data: Any) -> str:
    """The revision that was asked for."""
    return data.revision or data.path.partition("@")[2] or "main"


def _source(repo: Repo, name: str, short: str) -> Source:
    """A file of rows in the cache, or still behind the hub's name of it."""
    path, entry = repo.snapshot / name, repo.files[name]
    if not path.is_file():
        return Source(f"{HUB}{repo.ref}/{name}", short, entry.size, "", entry.sha256)
    if entry.sha256:
        return Source(str(path), short, entry.size, "", entry.sha256)
    return identify(str(path), short, full=True)


def _named(names: list[str]) -> dict[str, str]:
    """File -> its name behind the folder that all share, as files by path are named: the same rows, however given."""
    base = os.path.commonpath([os.path.dirname(f"/{name}") for name in names])
    return {name: os.path.relpath(f"/{name}", base) for name in sorted(names)}


def _card(path: Path) -> dict[str, Any]:
    """The configs that a data set's card names, each with its files; empty where it names none."""
    from huggingface_hub import metadata_load

    try:
        configs = (metadata_load(path) or {}).get("configs")
        return {str(one["config_name"]): one for one in configs or []}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no card, or one that nobody can read
        return {}


def _split(files: list[str], configs: dict[str, Any], data: Rows, key: str) -> list[str]:
    """Which of the files hold the config and split that are asked for; none where nothing there is called so."""
    from datasets.data_files import DataFilesList, EmptyDatasetError, get_data_patterns, sanitize_patterns

    config = _config(configs, data, key)
    with tempfile.TemporaryDirectory() as skeleton:  # the rules look at files, and ask no hub so
        _build(skeleton, files)
        base = os.path.join(skeleton, str(config.get("data_dir") or ""))
        try:
            said = config.get("data_files")
            patterns = {str(k): v for k, v in (sanitize_patterns(said) if said else get_data_patterns(base)).items()}
            if data.split not in patterns:
                raise InputError(f"{key}: there is no split {data.split!r}; {_give('split', patterns)}")
            _check_inside(patterns[data.split], key)
            found = [os.path.relpath(f, skeleton) for f in DataFilesList.from_patterns(patterns[data.split], base)]
        except (EmptyDatasetError, FileNotFoundError):
            return []
        except (ValueError, TypeError) as e:
            reason = str(e).replace(skeleton, data.path or "").splitlines()[0]
            raise InputError(f"{key}: which files its split {data.split!r} has cannot be told: {reason}") from None
    found = [name for name in found if name in set(files) and name != CARD]
    if other := next((name for name in found if not _is_read(name)), None):
        raise InputError(
            f"{key}: its split {data.split!r} is {other}, and rows are read from JSON lines and Parquet. Convert it, "
            "and give the file with data.files=.."
        )
    return found


def _none(data: Rows, key: str) -> NoReturn:
    raise InputError(f"{key}: it has no file of rows for its split {data.split!r}; look at its page, or name another")


def _config(configs: dict[str, Any], data: Rows, key: str) -> dict[str, Any]:
    """The one that is named, else the only one, or the card's default."""
    usual = [name for name, one in configs.items() if one.get("default")] or ["default"]
    name = data.config or (next(iter(configs)) if len(configs) == 1 else usual[0])
    if name in configs:
        found: dict[str, Any] = configs[name]
        return found
    if configs:
        what = f"there is no config {data.config!r}" if data.config else "it has several configs"
        raise InputError(f"{key}: {what}; {_give('config', configs)}")
    if data.config:
        raise InputError(f"{key}: its card names no configs; leave out data.config={data.config}")
    return {}


def _give(setting: str, names: Iterable[str]) -> str:
    given = list(names)
    return f"it has {', '.join(given[:20]) or 'none'}; e.g. data.{setting}={given[0] if given else 'train'}"


def _build(skeleton: str, files: list[str]) -> None:
    """Empty files of these names; one that would lead out of the folder is none."""
    for name in files:
        path = os.path.normpath(os.path.join(skeleton, name))
        if path.startswith(f"{skeleton}/"):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "w").close()


def _check_inside(patterns: list[str], key: str) -> None:
    if outside := [p for p in map(str, patterns) if "://" in p or p.startswith("/") or ".." in p.split("/")]:
        raise InputError(
            f"{key}: its card names {outside[0]}, which is no file of its own; give the files: data.files="
        )


def _is_read(name: str) -> bool:
    stem = name.removesuffix(".gz").removesuffix(".zst")
    return name.endswith(".parquet") or stem.endswith(_READ[:3])
