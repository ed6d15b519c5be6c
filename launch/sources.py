"""Which files a run reads, and what they are known by: the standard library, paths, globs and URLs, a data set.

Nothing is read whole here but what is small: an input is its name, size and stamp (fmtrain.artifacts.sources). fsspec
and huggingface_hub are imported for a URL and for a name on the hub only.
"""

import os
import re
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from fmtrain.artifacts import hub, remote
from fmtrain.artifacts.sources import HUB, identify, identify_folder
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import expanded
from fmtrain.errors import ConfigError, InputError, Unavailable
from fmtrain.schema.formats import form
from fmtrain.schema.sources import Data, Hub, Local, Rows, Stdlib
from launch import paths
from launch.hub_rows import hub_rows

_REQUESTS = 16  # at a time, where files are behind URLs


def sources(data: Data, notes: list[str] | None = None) -> list[Source]:
    """The input files of `data`, sorted by name; InputError where there is none. `notes` takes what is to be said."""
    if isinstance(data, Stdlib):
        return _stdlib(data)
    if isinstance(data, Hub):
        return [_hub(data)]
    assert isinstance(data, (Local, Rows))
    if isinstance(data, Rows) and data.path is not None:
        if data.files:
            raise ConfigError(f"data.files and data.path={data.path}: rows come from one of the two; give one")
        return hub_rows(data, notes)
    files = _files(data.files)
    for source in files if isinstance(data, Local) else []:
        form(source.name, source.path)  # what nobody reads is refused here rather than in the stage
    return files


def _stdlib(data: Stdlib) -> list[Source]:
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n not in data.exclude]
        for file in files:
            path = Path(folder, file)
            name = path.relative_to(root).as_posix()
            if file.endswith(".py") and (not data.modules or name.split("/")[0].removesuffix(".py") in data.modules):
                found.append(path)
    if not found:
        raise InputError(f"data.modules={data.modules}: none of these is in the standard library at {root}")
    return [identify(str(p), p.relative_to(root).as_posix()) for p in sorted(found)]


def _hub(data: Hub) -> Source:
    """A data set on the hub by the revision that its name stands for now, a folder by its files."""
    folder = expanded(data.path, f"data.path={data.path}")
    if folder.is_dir():
        return identify_folder(str(folder.absolute()), folder.absolute().name)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", data.path):
        raise InputError(f"data.path={data.path}: neither a folder on this machine nor a name on the hub (OWNER/NAME)")
    commit = resolve(data.path, data.revision, f"data.path={data.path}", "data.revision=SHA (40 hex digits)")
    return Source(f"{HUB}{data.path}@{commit}", data.path, 0, commit, "")


def resolve(name: str, revision: str | None, given: str, mend: str) -> str:
    """The commit of a data set on the hub that a branch or tag stands for, main where there is none.

    `given` and `mend` are for the message: the setting, and how it says a commit.
    """
    revision = revision or "main"
    if hub.is_commit(revision):
        return revision
    mend = f"Or give the commit with {mend}, or a folder on this machine"
    try:
        found = hub.find("dataset", name, revision, given)
    except Unavailable as e:
        raise Unavailable(f"{e}. {mend}") from None
    if found.away:
        raise Unavailable(f"{given}: the hub does not answer ({found.away}), and {name} is read from there. {mend}")
    return found.commit


def _files(patterns: list[str]) -> list[Source]:
    if not patterns:
        raise ConfigError(
            "data.files is empty; e.g. data.files=corpus.jsonl or data.files=[a.jsonl.gz,'more/*.jsonl']; or name a "
            "data set on the hub: data.path=OWNER/NAME, of rows with data=rows, of text with data=hub"
        )
    found: set[str] = set()
    for pattern in patterns:
        pattern = pattern.removeprefix("file://")
        if not remote.is_url(pattern):
            found.update(paths.files(pattern, "data.files"))
        elif hits := remote.glob(pattern):
            found.update(hits)
        else:
            raise InputError(f"data.files: no file matches {pattern!r}")
    if len(found) > paths.MOST_FILES:
        raise InputError(
            f"data.files: {len(found)} files, and {paths.MOST_FILES} are the most: join small ones, e.g. with cat"
        )
    named = sorted(_names(found).items())
    _check_distinct(named)
    if not any(remote.is_url(path) for path in found):
        return [identify(path, name) for path, name in named]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(lambda item: identify(*item), named))


def _names(paths: set[str]) -> dict[str, str]:
    """Path -> its name: what is behind the folder that all share; URLs beside paths keep their whole address."""
    heads = {"" if not remote.is_url(p) else p.partition("://")[0] for p in paths}
    if len(heads) > 1:
        local = [p for p in paths if not remote.is_url(p)]
        return {p: remote.plain(p) for p in paths if remote.is_url(p)} | (_names(set(local)) if local else {})
    plain = {path: remote.plain(path) for path in paths}
    base = os.path.commonpath([os.path.dirname(p) for p in plain.values()])
    return {path: os.path.relpath(name, base) for path, name in plain.items()}


def _check_distinct(named: list[tuple[str, str]]) -> None:
    """Two inputs of one name are one to all that comes later. A query's values are not shown: they may be secret."""
    seen: dict[str, str] = {}
    for path, name in named:
        if (other := seen.setdefault(name, path)) != path:
            queries = [dict(parse_qsl(urlsplit(p).query, keep_blank_values=True)) for p in (other, path)]
            keys = sorted(k for k in queries[0].keys() | queries[1].keys() if queries[0].get(k) != queries[1].get(k))
            how = f" (they differ in the query's {', '.join(keys)})" if keys else ""
            raise InputError(
                f"data.files: {remote.plain(other)} and {remote.plain(path)}{how} are both named {name!r}, and every "
                "input needs a name of its own. Copy them here under different names, or give URLs that differ before "
                "the '?'"
            )
