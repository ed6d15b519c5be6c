"""The folder of one run, `runs/<id>/`: what was asked for, what was planned, and what became of it."""

import datetime
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fmtrain import redact
from fmtrain.artifacts import lease
from fmtrain.artifacts.storage import append_row, private_dir, write_json
from fmtrain.artifacts.store import Store
from fmtrain.schema.load import dump
from fmtrain.schema.root import Root
from launch.plan import Step


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def new_run_id() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


class Run:
    """The folder `runs/<id>/` of one run and what is recorded there."""

    def __init__(
        self, store: Store, run: str, root: Root, overrides: list[str], config_dir: Path | None = None
    ) -> None:
        self.store, self.id, self.root, self.config_dir = store, run, root, config_dir
        self.folder = private_dir(store.run_dir(run))
        self.state: dict[str, Any] = {
            **asdict(lease.owner(run)),
            "recipe": root.recipe,
            "overrides": redact.shown_in(overrides),
            "launch": root.launch.name,
            "state": "running",
            "stage": None,
            "begun": now(),
            "notes": [],
        }

    def record(self, steps: list[Step]) -> None:
        write_json(self.folder / "config.json", redact.as_given(dump(self.root)))
        plan = [
            {"stage": s.node.stage, "action": s.action, "reason": s.reason, "fingerprint": s.fingerprint} for s in steps
        ]
        write_json(self.folder / "plan.json", redact.shown_in(plan))
        self.update()

    def update(self, **changes: Any) -> None:
        self.state.update(redact.shown_in(changes))
        write_json(self.folder / "run.json", self.state)

    def event(self, name: str, **data: Any) -> None:
        append_row(self.folder / "events.jsonl", {"time": now(), "event": name, **redact.shown_in(data)})
