"""Before its first stage a run fetches what it needs of a hub, once, into the hub's own cache: weights and rows.

A process of its own does it, with the keys that the stages do not get; `python -m launch.fetch FILE`. It hashes what
lies there, fetched now or long ago, so that a flipped bit is told before anything is trained on it. It may be killed at
any time: whole files stay, and the next run fetches the others.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fmtrain import redact, show
from fmtrain.artifacts import hub
from fmtrain.artifacts.hub import Entry, Repo
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import private_dir, read_json, user_umask, write_json
from fmtrain.artifacts.worker import die_with_parent
from fmtrain.errors import ExitCode, FmtrainError, InputError, StageFailed, StoreError, Unavailable
from launch.backends.environment import environment, module
from launch.backends.process import Process
from launch.graph import Folder
from launch.hub_rows import asked_of
from launch.plan import KEPT, Step
from launch.terminal import Live, duration

NAME = "fetch"  # of its log and its progress
_KINDS: tuple[type[FmtrainError], ...] = (InputError, Unavailable, StoreError)  # that end a fetch
_LOOK = 0.2  # seconds between two looks at it
_MB = 1_000_000


@dataclass
class Wanted:
    """Files of a repository at a commit; `given` is the setting that names it."""

    given: str
    repo: Repo
    names: list[str]

    @property
    def bytes(self) -> int:
        return sum(self.repo.files[name].size for name in self.names)

    def there(self) -> int:
        """Bytes that lie in the cache, those of unfinished files too."""
        blobs, found = hub.cache(self.repo.kind, self.repo.name) / "blobs", 0
        for name in self.names:
            entry = self.repo.files[name]
            if (self.repo.snapshot / name).is_file() or (blobs / entry.oid).is_file():  # or that of another commit
                found += entry.size
            else:
                found += max((_size(path) for path in blobs.glob(f"{entry.oid}.*.incomplete")), default=0)
        return found


def wanted(steps: list[Step]) -> list[Wanted]:
    """What the stages that are to be made need of a hub, each repository once."""
    found: dict[tuple[str, str], Wanted] = {}
    for folder in _folders(steps):
        assert folder.hub is not None
        repo, names = folder.hub.repo, [file.name for file in folder.files]
        one = found.setdefault((repo.kind, repo.ref), Wanted(f"model.path={folder.path}", replace(repo, files={}), []))
        one.repo.files.update({name: repo.files[name] for name in names})
        one.names += [name for name in names if name not in one.names]  # a stage may read the tokenizer alone
    for step in steps:
        for source in step.node.sources:
            if not source.stamp and (where := hub.at(source.path)):
                data = step.node.job.data
                repo = Repo("dataset", where[0], asked_of(data), where[1], {})
                one = found.setdefault((repo.kind, repo.ref), Wanted(f"data.path={data.path}", repo, []))
                if where[2] not in one.repo.files:  # which another stage reads too
                    one.names.append(where[2])
                one.repo.files[where[2]] = Entry(source.size, source.sha256, source.sha256)
    return list(found.values())


def notes(steps: list[Step]) -> list[str]:
    """What there is to fetch before the steps that are to be made."""
    found = [(one.repo, one.bytes - one.there()) for one in wanted([s for s in steps if s.action not in KEPT])]
    return [f"{repo.name}@{repo.commit[:12]}: {size / _MB:,.0f} MB are fetched first" for repo, size in found if size]


def fetch(
    steps: list[Step],
    folder: Path,
    passed: list[str],
    check: Callable[[], None],
    event: Callable[..., None] = lambda name, **data: None,
) -> None:
    """Have it all in the cache, hashed; the steps' inputs then say where it lies. `folder` is the run's.

    `check` is called while we wait, and may raise; `passed` are further names of the environment (launch.env).
    """
    for one in wanted(steps):
        begun, lacking = time.monotonic(), one.bytes - one.there()
        event("fetching", repo=one.repo.name, commit=one.repo.commit, bytes=lacking)
        files = _fetched(one, folder, passed, check)
        if one.repo.kind == "model":
            for base in _folders(steps):
                if base.hub and base.hub.repo.ref == one.repo.ref:
                    base.files = [files[file.name] for file in base.files]
        else:
            for step in steps:
                step.node.sources = [_here(source, one.repo, files) for source in step.node.sources]
        seconds = time.monotonic() - begun
        how = f"{lacking / _MB:,.0f} MB in {duration(seconds)}" if lacking else f"cached, {one.bytes / _MB:,.0f} MB"
        print(f"  {NAME:<10} {one.repo.name}@{one.repo.commit[:12]} ({how})", flush=True)
        event("fetched", repo=one.repo.name, commit=one.repo.commit, bytes=lacking, seconds=seconds)


def _folders(steps: list[Step]) -> list[Folder]:
    """The models on a hub that the steps read."""
    return [one for step in steps for one in step.parents.values() if isinstance(one, Folder) and one.hub]


def _here(source: Source, repo: Repo, files: dict[str, Source]) -> Source:
    """A file of a data set where it was fetched to, under the name that it was planned with."""
    where = None if source.stamp else hub.at(source.path)
    if where is None or f"{where[0]}@{where[1]}" != repo.ref:
        return source
    return replace(files[where[2]], name=source.name)


def _fetched(one: Wanted, run: Path, passed: list[str], check: Callable[[], None]) -> dict[str, Source]:
    """The files where they lie now, by name; InputError with what the process said."""
    place = private_dir(run / "stages" / NAME)
    order, answer = place / "wanted.json", place / "fetched.json"
    answer.unlink(missing_ok=True)
    write_json(order, {**asdict(one), "umask": user_umask()})
    env = environment("network", passed) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    live = Live(NAME, place / "progress.json")
    process = Process(module("launch.fetch", str(order)), env, run / "logs" / NAME / "rank0.log")
    begun, already = time.monotonic(), one.there()
    try:
        while process.poll() is None:
            done = one.there()
            rate = (done - already) / max(time.monotonic() - begun, 1e-9)
            left = (one.bytes - done) / rate if rate > 0 else None
            state = {"done": done // _MB, "total": one.bytes // _MB, "unit": "MB", "rate": rate / _MB}
            write_json(place / "progress.json", {**state, "seconds_left": left})
            live.poll()
            check()
            time.sleep(_LOOK)
    except BaseException:
        process.kill()
        raise
    finally:
        live.end()
    said: dict[str, Any] = read_json(answer) if answer.is_file() else {}
    if error := said.get("error"):
        raise next((kind for kind in _KINDS if kind.__name__ == said["kind"]), InputError)(error)
    if process.wait() != 0 or not said:
        log = run / "logs" / NAME / "rank0.log"
        raise StageFailed(f"{one.given}: fetching {one.repo.ref} ended with code {process.wait()}; log: {log}")
    return {file["name"]: Source(**file) for file in said["files"]}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it has just become the file
        return 0


@show.command
def main(argv: list[str] | None = None) -> int:
    """Fetch what the file says, and leave what lies there beside it, or why it does not."""
    die_with_parent()
    order = Path((sys.argv[1:] if argv is None else argv)[0])
    data = read_json(order)
    os.umask(data["umask"])
    files = {name: Entry(**entry) for name, entry in data["repo"]["files"].items()}
    one = Wanted(data["given"], Repo(**{**data["repo"], "files": files}), data["names"])
    said: dict[str, Any] = {}
    try:
        hub.fetch(one.repo, one.names, one.given)
        said["files"] = [asdict(_checked(one, name)) for name in one.names]
        hub.note(one.repo)
    except FmtrainError as e:
        said = {"error": redact.shown(str(e)), "kind": type(e).__name__}
        print(f"error: {e}", file=sys.stderr)
    write_json(order.with_name("fetched.json"), said)
    return ExitCode.INPUT if "error" in said else ExitCode.DONE


def _checked(one: Wanted, name: str) -> Source:
    """A file where it lies, known by how it looks: whoever reads it need not hash it again."""
    hub.check(one.repo, name, one.given)
    sha256 = one.repo.files[name].sha256
    found = identify(str(one.repo.snapshot / name), name, full=not sha256)
    return replace(found, sha256=sha256 or found.sha256)


if __name__ == "__main__":
    sys.exit(main())
