"""What the logs of a Ray on this machine say of workers that never came up; its state API knows nothing of them.

A worker that dies before it has reached Ray leaves its last words in raylet.err, one that dies a little later in a file
of its own. Ray starts another a minute later, and so on for ever.
"""

import re
from pathlib import Path

_STARTED = re.compile(r"Started worker process with pid (\d+)")
_LINES = 5
_MARKS = (":job_id:", ":task_name:", ":actor_name:")  # Ray's own, for its reader of logs


def failed_starts(logs: Path) -> int:
    """How many workers have ended before they reached Ray."""
    try:
        pids = _STARTED.findall((logs / "raylet.out").read_text(errors="replace"))
    except OSError:
        return 0
    reached = {path.stem.rpartition("_")[2] for path in logs.glob("python-core-worker-*.log")}
    return sum(pid not in reached and not Path(f"/proc/{pid}").exists() for pid in pids)


def last_words(logs: Path) -> str:
    """The last lines of workers that did not start, indented; empty where there are none."""
    texts = []
    for path in [logs / "raylet.err", *sorted(logs.glob("worker-*.err"), key=lambda p: p.stat().st_mtime)[-2:]]:
        try:
            texts += path.read_text(errors="replace").strip().splitlines()[-_LINES:]
        except OSError:
            continue
    lines = [line for line in dict.fromkeys(texts) if line and not line.startswith(_MARKS)]
    return "".join(f"\n  | {line}" for line in lines[-_LINES:])
