"""Steps that fail in every way, and a process that runs them: Ray's workers import tasks from the driver's folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

TASKS = """
import json, os, signal, sys, time, uuid
from pathlib import Path
from data_pipelines import ray_tasks
from data_pipelines.schedule import Scheduler, parts_key
from fmtrain.errors import FmtrainError, InputError
from fmtrain.artifacts.stage import Stage

def attempts(task, item):
    "How many attempts there have been at this item, with this one."
    folder = task.parts / "attempts" / task.scratch.parent.name / str(item)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / uuid.uuid4().hex).touch()
    return len(list(folder.iterdir()))

def good(task, item):
    attempts(task, item)
    (task.scratch / f"{task.rank}.txt").write_text(item)
    task.tick(1)
    return {"tasks": 1, "rank": task.rank}

def bad_input(task, item):
    attempts(task, item)
    if item == "b": raise InputError("b.jsonl is damaged")
    return {"tasks": 1}

def bug(task, item):
    attempts(task, item)
    return {"tasks": int(item)}

def raises_once(task, item):
    if attempts(task, item) == 1: raise RuntimeError(f"not yet {item}")
    return {"tasks": 1}

def dies_once(task, item):
    if attempts(task, item) == 1: os.kill(os.getpid(), signal.SIGKILL)
    return {"tasks": 1}

def dies(task, item):
    attempts(task, item)
    os.kill(os.getpid(), signal.SIGKILL)

def freezes_once(task, item):
    if attempts(task, item) == 1 and item == "a":
        (task.parts / "frozen.pid").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
    return {"tasks": 1}

def freezes(task, item):
    attempts(task, item)
    os.kill(os.getpid(), signal.SIGSTOP)

def hangs_once(task, item):
    if attempts(task, item) == 1 and item == "a": time.sleep(1000)
    for n in range(10):  # slower than the heartbeat, but alive
        time.sleep(0.5)
        task.tick(n)
    return {"tasks": 1}

def full(task, item):
    attempts(task, item)
    raise OSError(28, "No space left on device", "x")

def zombie(task, item):
    pid, ended = task.parts / "zombie.pid", task.parts / "zombie.ended"
    if attempts(task, item) == 1:
        pid.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        task.scratch.mkdir(exist_ok=True)
        for name in ("out.txt", "old.txt"):
            (task.scratch / name).write_text("old")
        ended.touch()
        return {"tasks": 100}
    os.kill(int(pid.read_text()), signal.SIGCONT)
    while not ended.exists():
        time.sleep(0.05)
    time.sleep(1)
    (task.scratch / "out.txt").write_text("new")
    return {"tasks": 1}

def slow(task, item):
    attempts(task, item)
    for n in range(1, 9):
        time.sleep(0.1 if item.islower() else 0.4)
        task.tick(n, n * 1000)
    (task.scratch / f"{task.rank}.txt").write_text(item * 100)
    return {"documents": 8}

def meet(task, item):
    (task.parts / f"here-{item}").touch()
    deadline = time.monotonic() + 30
    while len(list(task.parts.glob("here-*"))) < 2:
        if time.monotonic() > deadline: raise InputError("I was alone")
        time.sleep(0.1)
        task.tick(0)
    return {"tasks": 1}

def unreachable(self, ref, run, beat):
    run.killed = time.monotonic()

def say(*words):
    # a line of its own in one write: Ray prints beside us, and not always whole lines
    os.write(1, ("\\n" + json.dumps(words) + "\\n").encode())

if __name__ == "__main__":
    work, executor, items, *names = sys.argv[1:]
    resources = {"executor": executor, "heartbeat_seconds": 3}
    stage = Stage("corpus", "corpus", "c", "f", "r", {}, {}, {}, [], work, resources, Path(work))
    import tasks_for_test
    if "zombie" in names:
        ray_tasks.GRACE_SECONDS, ray_tasks.RayTasks._kill = 1.0, unreachable
    if "meet" in names:
        import ray
        ray_tasks._connect("corpus")
        class Holder:
            def hold(self): return True
        holder = ray.remote(Holder).options(num_cpus=0.001).remote()
        ray.get(holder.hold.remote())
    with Scheduler(stage, parts_key([len(items)])) as scheduler:
        for name in names:
            name, _, own = name.partition("=")
            try:
                said = str(scheduler.run(name, getattr(tasks_for_test, name), list(own or items), unit="documents"))
            except FmtrainError as e:
                said = f"{type(e).__name__} {e}"
            say(name, said)
            tried = [len(list(p.iterdir())) for p in (scheduler.parts / "attempts" / name).glob("*")]
            say(name + " attempts", str(max(tried, default=0)))
        found = sorted(p.name for p in scheduler.parts.glob("*/*.txt"))
        say("files", " ".join(found))
        METRICS
    say("ray imported", str("ray" in sys.modules))
"""
_METRICS = """
        import ray, urllib.request
        port, text = ray.nodes()[0]["MetricsExportPort"], ""
        for _ in range(60):
            text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
            if " 16.0" in text and " 16000.0" in text: break  # they are sent every ten seconds
            time.sleep(0.5)
        say("metrics", "; ".join(l for l in text.splitlines() if "fmtrain" in l))
"""


def start(folder: Path, executor: str, steps: list[str], env: dict[str, str], items: str) -> subprocess.Popen[str]:
    """A driver that runs `steps`, each with a task a letter of `items`, or of its own: STEP=ITEMS."""
    body = _METRICS if "slow" in steps and executor == "ray" and env.get("TEST_METRICS") else ""
    (folder / "tasks_for_test.py").write_text(TASKS.replace("        METRICS\n", body))
    (folder / "work").mkdir(exist_ok=True)
    command = [sys.executable, str(folder / "tasks_for_test.py"), str(folder / "work"), executor, items, *steps]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env}, cwd=folder
    )


def drive(folder: Path, executor: str, steps: list[str], env: dict[str, str], items: str = "abc") -> dict[str, str]:
    """What came of each step: the printed results, or the error's type and words."""
    process = start(folder, executor, steps, env, items)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return {**said(out), "stderr": err}


def said(out: str) -> dict[str, str]:
    """What the driver has printed; Ray's own lines stand between."""
    return dict(json.loads(line) for line in out.splitlines() if line.startswith('["'))
