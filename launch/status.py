"""The runs of a store: what their folders say, and of those that seem to go on what `launch.alive` finds out."""

import os
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from fmtrain import show
from fmtrain.artifacts.storage import expanded, is_ours, owner_of, read_json, read_rows
from fmtrain.artifacts.store import Store
from fmtrain.errors import ConfigError, StoreError
from launch import alive
from launch.terminal import AND, progress_text, read_progress, table

SHOWN = 15  # runs, the newest
ASK_EVERY = 10.0  # seconds between two questions to a queue while a log is followed
DEFAULT_STORE = "./store"


def store_at(text: str) -> Store:
    """The store that `text`, a command line's or FMTRAIN_STORE's, names; empty is ./store, `~` the home folder."""
    return Store(Path(os.path.abspath(expanded(text.strip() or DEFAULT_STORE, f"the store {text!r}"))))


def runs(store: Store, prefix: str | None = None, most: int = SHOWN) -> list[dict[str, Any]]:
    """The newest runs whose id starts with `prefix`, the newest last, with their stages; a damaged one is `unreadable`.

    Another user's is passed over, unless it alone has that id, and then it is `unreadable`: what stands in there may be
    meant for us.
    """
    folders = [f for f in sorted((store.root / "runs").glob("*")) if f.name.startswith(prefix or "")]
    ours = [f for f in folders if is_ours(f) and (not _readable(f) or (f / "run.json").is_file())]
    theirs = [f for f in folders if f.is_dir() and not is_ours(f)]
    shown = ours or (theirs if prefix else [])
    if prefix and not shown:
        raise ConfigError(f"no run {prefix!r} in {store.root}; `fmtrain status` lists them")
    found = [_recorded(folder) for folder in shown[-most:]]
    alive.settle(store, [run for run in found if run["state"] != "unreadable"])
    return [_with_stages(store.run_dir(run["id"]), run) for run in found]


def passed_over(store: Store) -> str:
    """A word on the runs of other users, where there are some."""
    others = [owner_of(f) for f in (store.root / "runs").glob("*") if f.is_dir() and not is_ours(f)]
    return f"{len(others)} run(s) of {', '.join(sorted(set(others)))} are passed over" if others else ""


def _readable(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def _recorded(folder: Path) -> dict[str, Any]:
    """A run as its record has it."""
    try:
        if not is_ours(folder):
            raise StoreError(f"this is a run of {owner_of(folder)}, who alone may ask for it")
        state: dict[str, Any] = {"overrides": [], "notes": [], **read_json(folder / "run.json")}
        missing = {"recipe", "launch", "state", "stage", "begun", "host", "pid", "started"} - set(state)
        if missing:
            raise StoreError(f"{folder / 'run.json'} lacks {', '.join(sorted(missing))}")
    except (StoreError, TypeError) as e:
        return _unreadable(folder, e)
    ended = folder / "exit_code"  # a Slurm job's last word
    if state["state"] == "queued" and ended.is_file():
        state |= {"state": "failed", "message": f"the job ended before the run began: {folder}/slurm-*.out"}
    return {"id": folder.name, **state}


def _unreadable(folder: Path, error: Exception) -> dict[str, Any]:
    why = str(error) if isinstance(error, StoreError) else f"{folder} is damaged: {type(error).__name__} {error}"
    return {
        "id": folder.name, "recipe": "", "launch": "", "state": "unreadable", "stage": None, "begun": "",
        "overrides": [], "notes": [], "stages": [], "asked": [], "message": why,
    }  # fmt: skip


def _with_stages(folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    if run["state"] == "unreadable":
        return run
    try:
        return {**run, "stages": _stages(folder, run)}
    except (StoreError, KeyError, TypeError, AttributeError) as e:
        return _unreadable(folder, e)


def _stages(folder: Path, state: dict[str, Any]) -> list[dict[str, Any]]:
    plan = read_json(folder / "plan.json") if (folder / "plan.json").is_file() else []
    events = read_rows(folder / "events.jsonl")
    made = {e["stage"]: e for e in events if e["event"] == "committed"}
    failed = {e["stage"] for e in events if e["event"] == "failed"}
    stages = []
    for step in plan:
        name = step["stage"]
        planned = {"reuse": "reused", "skip": "skipped"}.get(step["action"], "waiting")
        how = "made" if name in made else "failed" if name in failed else planned
        if how == "waiting" and name in (state["stage"] or "").split(AND):
            how = {"running": "running", "done": "reused"}.get(state["state"], "unfinished")
        entry = {"stage": name, "state": how, "artifact": made.get(name, {}).get("artifact"), "why": step["reason"]}
        entry["progress"] = read_progress(folder / "stages" / name / "progress.json") if how == "running" else None
        entry["seconds"] = made.get(name, {}).get("seconds")
        stages.append(entry)
    return stages


def overview(found: list[dict[str, Any]], store: Store, *, detailed: bool) -> str:
    if not found:
        return f"no runs in {store.root} yet; start one: fmtrain run recipe=quickstart"
    rows = [("run", "recipe", "launch", "state", "stage", "begun")]
    for run in found:
        rows.append((run["id"], run["recipe"], run["launch"], run["state"], run["stage"] or "", run["begun"][:16]))
    lines = [table(rows)]
    for run in found:
        if detailed or run["state"] in ("queued", "running", "unknown", "unreadable"):
            words = [f"{run['id']}: {' '.join(run['overrides'])}", *(f"  {note}" for note in run["notes"])]
            words += [f"  asked: {answer}" for answer in run["asked"]]
            words += [f"  {s['stage']:<10} {_stage(s, store)}" for s in run["stages"]]
            lines += ["", *map(show.line, words)]
            if run.get("message"):
                lines.append(textwrap.indent(show.printable(run["message"]), "  "))
    return "\n".join(lines)


def _stage(stage: dict[str, Any], store: Store) -> str:
    if stage["progress"]:
        return f"running: {progress_text(stage['progress'])}"
    if stage["state"] == "made":
        gone = "" if store.has(stage["artifact"]) else ", which is gone"
        return f"made {stage['artifact']} in {stage['seconds']:.1f} s{gone}"
    return f"{stage['state']} {stage['why']}" if stage["state"] in ("reused", "skipped") else str(stage["state"])


def logs(store: Store, run: str | None, stage: str | None, rank: int, follow: bool) -> int:
    """Print a stage's log; with `follow` until the run has ended, and without `stage` from stage to stage."""
    found = runs(store, run, most=1)
    if not found:
        raise ConfigError(f"no runs in {store.root} yet")
    if not is_ours(store.run_dir(found[-1]["id"])):
        raise ConfigError(f"run {found[-1]['id']}: {found[-1]['message']}")
    folder = store.run_dir(found[-1]["id"])
    logged = _logged(folder, rank)
    path = folder / "logs" / stage / f"rank{rank}.log" if stage else logged[-1] if logged else None
    if path is None or not path.is_file():
        have = ", ".join(p.parent.name for p in logged) or "none"
        state = found[-1]["state"]
        raise ConfigError(
            f"run {found[-1]['id']} ({state}) has no log {path or f'of rank {rank}'}; stages with logs: {have}"
        )
    seen = set(logged)
    while path is not None:
        path = _print_log(store, folder, path, rank, follow, None if stage else seen)
    return 0


def _logged(folder: Path, rank: int) -> list[Path]:
    """The rank's logs, the stage that began last at the end."""
    found = [p for p in (folder / "logs").glob(f"*/rank{rank}.log") if p.is_file()]
    return sorted(found, key=lambda p: p.parent.stat().st_mtime)


def _print_log(store: Store, folder: Path, path: Path, rank: int, follow: bool, seen: set[Path] | None) -> Path | None:
    """Print one log to its end; the log of the stage after it, the first that is not in `seen`, where that is given."""
    print(show.line(f"# {path}"), flush=True)
    asked = 0.0
    with open(path, encoding="utf-8", errors="replace") as f:
        while True:
            # asked before reading: what was written until then is all printed below
            run = _recorded(folder)
            if follow and run["state"] == "running" and time.monotonic() - asked > ASK_EVERY:
                alive.settle(store, [run], patient=False)
                asked = time.monotonic()
            going = follow and run["state"] == "running"
            later = [p for p in _logged(folder, rank) if p not in seen] if follow and seen is not None else []
            while line := f.readline(1 << 16):  # whole: what is redacted may not stand in two parts
                print(line, end="", flush=not going)
            sys.stdout.flush()
            if later and seen is not None:
                seen.add(later[0])
                return later[0]
            if not going:
                return None
            time.sleep(0.5)
