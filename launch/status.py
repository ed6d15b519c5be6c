"""The runs of a store, read from their folders alone: a run is what its files say, whoever made it and wherever."""

import json
import socket
import time
from pathlib import Path
from typing import Any

from fmtrain.errors import ConfigError
from fmtrain.run import lease
from fmtrain.run.storage import read_json
from fmtrain.run.store import Store
from launch.terminal import progress_text, read_progress, table

SHOWN = 15


def runs(store: Store, prefix: str | None = None) -> list[dict[str, Any]]:
    """The runs whose id starts with `prefix`, oldest first, with their stages."""
    found = [_run(f.parent) for f in sorted((store.root / "runs").glob(f"{prefix or ''}*/run.json"))]
    if prefix and not found:
        raise ConfigError(f"no run {prefix!r} in {store.root}; `fmtrain status` lists them")
    return found


def _run(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = read_json(folder / "run.json")
    here = state["host"] == socket.gethostname()
    if state["state"] == "running" and here and lease.process_start(state["pid"]) != state["started"]:
        state["state"] = "died"
    plan = read_json(folder / "plan.json") if (folder / "plan.json").is_file() else []
    events = _events(folder / "events.jsonl")
    made = {e["stage"]: e for e in events if e["event"] == "committed"}
    failed = {e["stage"] for e in events if e["event"] == "failed"}
    stages = []
    for step in plan:
        name = step["stage"]
        how = (
            "made"
            if name in made
            else "failed"
            if name in failed
            else "reused"
            if step["action"] == "reuse"
            else "waiting"
        )
        if how == "waiting" and state["stage"] == name:
            how = {"running": "running", "done": "reused"}.get(state["state"], "unfinished")
        entry = {"stage": name, "state": how, "artifact": made.get(name, {}).get("artifact"), "why": step["reason"]}
        entry["progress"] = read_progress(folder / "stages" / name / "progress.json") if how == "running" else None
        entry["seconds"] = made.get(name, {}).get("seconds")
        stages.append(entry)
    return {"id": folder.name, **state, "stages": stages}


def _events(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # the last line of a run that was killed while it wrote
    return found


def show(found: list[dict[str, Any]], store: Store, *, detailed: bool) -> str:
    if not found:
        return f"no runs in {store.root} yet; start one: fmtrain run recipe=quickstart"
    rows = [("run", "recipe", "launch", "state", "stage", "begun")]
    for run in found[-SHOWN:]:
        rows.append((run["id"], run["recipe"], run["launch"], run["state"], run["stage"] or "", run["begun"][:16]))
    lines = [table(rows)]
    for run in found[-SHOWN:]:
        if detailed or run["state"] == "running":
            lines += ["", f"{run['id']}: {' '.join(run['overrides'])}", *(f"  {note}" for note in run["notes"])]
            lines += [f"  {s['stage']:<10} {_stage(s)}" for s in run["stages"]]
            if run.get("message"):
                lines.append(f"  {run['message']}")
    return "\n".join(lines)


def _stage(stage: dict[str, Any]) -> str:
    if stage["progress"]:
        return f"running: {progress_text(stage['progress'])}"
    if stage["state"] == "made":
        return f"made {stage['artifact']} in {stage['seconds']:.1f} s"
    return f"{stage['state']} {stage['why']}" if stage["state"] == "reused" else str(stage["state"])


def logs(store: Store, run: str | None, stage: str | None, rank: int, follow: bool) -> int:
    """Print a stage's log; with `follow` until the run has ended."""
    found = runs(store, run)
    if not found:
        raise ConfigError(f"no runs in {store.root} yet")
    folder = store.run_dir(found[-1]["id"])
    logged = sorted((p for p in (folder / "logs").glob("*") if p.is_dir()), key=lambda p: p.stat().st_mtime)
    if stage is None and logged:
        stage = logged[-1].name
    path = folder / "logs" / (stage or "") / f"rank{rank}.log"
    if not path.is_file():
        have = ", ".join(p.name for p in logged) or "none"
        raise ConfigError(f"run {found[-1]['id']} has no log {path}; stages with logs: {have}")
    print(f"# {path}")
    with open(path, encoding="utf-8", errors="replace") as f:
        while True:
            while chunk := f.read(1 << 16):
                print(chunk, end="", flush=True)
            if not follow or _run(folder)["state"] != "running":
                return 0
            time.sleep(0.5)
