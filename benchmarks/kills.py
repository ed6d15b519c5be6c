"""Random kills over every stage of a recipe: the same bytes in the end, the right exit codes, nothing left behind?

python benchmarks/kills.py [--kills 100] [--seed 1] [--launch inline,local] [--recipe quickstart_tiny] [--out FILE]

A walk begins with an empty store. In each stage, and in the start-up before the first, one process of the run is
killed at a random moment: the driver, a process of the stage, one of Ray's, or any. Then the same command goes on. At
the end of a walk every file that undisturbed runs have in common must be there with the same bytes. Watched besides:
the exit code of each turn and, ten seconds after it, its processes, its /tmp and its /dev/shm. As root these two are
the run's own, in a mount namespace; elsewhere its TMPDIR is, and /dev/shm is not looked at.
"""

import argparse
import collections
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from measure import tree

PATIENCE = 300.0  # seconds for a stage to begin, and for a turn to end
LEFT = 10.0  # seconds after a turn until nothing of it may be there
_PR_SET_CHILD_SUBREAPER = 36
STARTING = "(start-up)"
# Exit codes that a victim may cause: 0 where the rest goes on without it (Ray starts a lost task anew).
CODES = {"driver": {-9}, "driver, SIGTERM": {75}, "stage": {0, 4}, "ray": {0, 4}, "any": {-9, 0, 4}}


@dataclass
class Kill:
    """One kill: where it was meant to hit, whom it hit, and what came of it."""

    launch: str
    stage: str
    victim: str
    name: str = ""
    code: int | None = None
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Turn:
    """One run of the command over a store."""

    def __init__(self, recipe: str, launch: str, store: Path) -> None:
        self.store = store
        self.before = {p.name for p in store.glob("runs/*")}
        self.output = open(store.with_suffix(".log"), "ab")  # noqa: SIM115
        words = ["run", f"recipe={recipe}", f"launch={launch}", f"store={store}"]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "launch.cli", *words], stdout=self.output, stderr=self.output
        )

    def stage(self) -> str | None:
        """The stage that this turn is in; None before the first."""
        for path in self.store.glob("runs/*/run.json"):
            if path.parent.name not in self.before:
                with contextlib.suppress(OSError, ValueError):
                    return json.loads(path.read_text())["stage"]
        return None

    def until(self, stage: str) -> bool:
        """Wait for the stage to begin; False where the turn ended, or is past it."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end and not made(self.store, stage):
            if stage == STARTING or self.stage() == stage:
                return True
            time.sleep(0.02)
        return False

    def close(self) -> int | None:
        """The exit code; None where the turn had to be ended by us."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(self.process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            return None
        finally:
            self.output.close()


def made(store: Path, stage: str) -> bool:
    return any(stage == json.loads(p.read_text())["stage"] for p in store.glob("artifacts/*/*/v*/manifest.json"))


def victims(turn: Turn, kind: str) -> list[int]:
    """The processes that a kind of victim means, at this moment."""
    family = tree(turn.process.pid)
    if kind.startswith("driver"):
        return family[:1]
    lines = {pid: cmdline(pid) for pid in family[1:]}
    workers = [pid for pid, line in lines.items() if "-m fmtrain." in line or "-m data_pipelines" in line]
    if kind == "stage":
        return workers
    return [pid for pid, line in lines.items() if "ray" in line and pid not in workers] if kind == "ray" else family


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def strike(turn: Turn, kill: Kill, draw: random.Random, seconds: float) -> bool:
    """Kill one process of the kind, at a random moment of the stage; False where the moment was missed."""
    if not turn.until(kill.stage):
        return False
    time.sleep(draw.random() * seconds)
    if turn.process.poll() is not None or (kill.stage != STARTING and turn.stage() != kill.stage):
        return False
    found = victims(turn, kill.victim)
    if not found:
        return False
    pid = draw.choice(found)
    kill.name = short(cmdline(pid))
    print(f"    {kill.stage}, {kill.victim}: {kill.name or pid}", flush=True)
    try:
        os.kill(pid, signal.SIGTERM if "SIGTERM" in kill.victim else signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def short(line: str) -> str:
    """A command line in a word or two."""
    words = [w for w in line.split() if not w.startswith("-") or w == "-m"]
    if "-m" in words:
        return words[words.index("-m") + 1]
    return " ".join(os.path.basename(w) for w in words[:2])[:40]


def leftovers(own: list[Path], shown: set[str]) -> list[str]:
    """What is still there `LEFT` seconds after a turn: processes below this script, files in its temporary folders."""
    end = time.monotonic() + LEFT
    while True:
        reap()
        alive = [f"process {short(cmdline(p)) or p}" for p in tree(os.getpid())[1:]]
        files = [f"file {p}" for folder in own for p in folder.iterdir() if str(p) not in shown]
        if not (alive or files) or time.monotonic() > end:
            return alive + files
        time.sleep(0.2)


def reap() -> None:
    """Orphans come to this script (a subreaper); those that have ended are taken off the table."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def hashes(store: Path) -> dict[str, str]:
    """kind/name/file -> SHA-256, of every artifact's newest version."""
    found: dict[str, str] = {}
    for path in sorted(store.glob("artifacts/*/*/v*/manifest.json")):
        manifest = json.loads(path.read_text())
        for name, entry in manifest["files"].items():
            found[f"{manifest['kind']}/{manifest['name']}/{name}"] = entry["sha256"]
    return found


def undisturbed(recipe: str, launch: str, folder: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Files and seconds by stage of a run that nobody disturbs, `STARTING` first."""
    folder.mkdir()
    store = folder / "store"
    begun, turn = time.monotonic(), Turn(recipe, launch, store)
    while turn.process.poll() is None and turn.stage() is None:
        time.sleep(0.02)
    starting = time.monotonic() - begun
    if turn.close() != 0:
        sys.exit(f"the undisturbed run failed: {store.with_suffix('.log').read_text()[-3000:]}")
    manifests = [json.loads(p.read_text()) for p in store.glob("artifacts/*/*/v*/manifest.json")]
    order = sorted(manifests, key=lambda m: list_stages(store).index(m["stage"]))
    return hashes(store), {STARTING: starting, **{m["stage"]: m["seconds"] for m in order}}


def list_stages(store: Path) -> list[str]:
    (plan,) = store.glob("runs/*/plan.json")
    return [step["stage"] for step in json.loads(plan.read_text())]


def walk(args: argparse.Namespace, launch: str, seconds: dict[str, float], draw: random.Random, at: "Place") -> None:
    """Kills through all stages on one store, then the run to its end."""
    store = at.folder / f"walk-{at.walks}"
    at.walks += 1
    turn: Turn | None = None
    struck: Kill | None = None  # the last kill in `turn`, which may outlive it for a while
    mine: list[Kill] = []
    for stage in seconds:
        if made(store, stage):  # an earlier kill came too late for its own stage
            continue
        kinds = ["driver", "driver, SIGTERM", "stage", "any", *(["ray"] if launch == "local" else [])]
        kill = Kill(launch, stage, draw.choice(kinds[:2] + kinds[3:] if stage == STARTING else kinds))
        begun = time.monotonic()
        if turn is not None and turn.process.poll() is not None:
            end(turn, struck, at)
            turn = struck = None
        turn = turn or Turn(args.recipe, launch, store)
        hit = strike(turn, kill, draw, seconds[stage])
        if hit:
            struck = kill
            mine.append(kill)
            at.kills.append(kill)
            with contextlib.suppress(subprocess.TimeoutExpired):
                turn.process.wait(8.0)
        if turn.process.poll() is not None:
            end(turn, struck, at)
            turn = struck = None
        kill.seconds = time.monotonic() - begun
        if len(at.kills) >= at.wanted:
            break
    if turn is not None:
        end(turn, struck, at)
    last = Turn(args.recipe, launch, store)
    code = last.close()
    bad = [] if code == 0 else [f"the last run left with {code}"]
    bad += leftovers(at.own, at.shown)
    found = hashes(store)
    bad += [f"other bytes: {name}" for name, sha in at.steady.items() if found.get(name) != sha]
    for fault in bad:
        (mine[-1] if mine else Kill(launch, "", "")).faults.append(fault)
        print(f"  walk {at.walks - 1}: {fault}", flush=True)
    if not bad:
        shutil.rmtree(store)
    print(
        f"  walk {at.walks - 1} under {launch}: {len(mine)} kills, {'the same bytes' if not bad else 'FAULTS'}",
        flush=True,
    )


def end(turn: Turn, kill: Kill | None, at: "Place") -> None:
    """See a turn off: its exit code and what it left."""
    code = turn.close()
    left = leftovers(at.own, at.shown)
    at.shown |= {text.removeprefix("file ") for text in left}  # a fault of this turn, and of no later one
    if kill is not None:
        kill.code = code
        if code not in CODES[kill.victim] and (kill.stage, code) != (STARTING, -signal.SIGTERM):  # it hears none yet
            kill.faults.append(f"exit code {code}")
        kill.faults += left
    elif code != 0 or left:
        print(f"  a turn that nobody disturbed: exit code {code} {left}", flush=True)
    if kill is not None and kill.faults:
        print(f"  {kill}", flush=True)


@dataclass
class Place:
    """Where walks run, and what they have come to."""

    folder: Path
    own: list[Path]
    wanted: int
    steady: dict[str, str]
    shown: set[str] = field(default_factory=set)
    kills: list[Kill] = field(default_factory=list)
    walks: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--launch", default="inline,local")
    parser.add_argument("--recipe", default="quickstart_tiny")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    args = parser.parse_args()
    if args.out and args.out.absolute().is_relative_to("/tmp"):
        parser.error(f"--out {args.out}: the chain has a /tmp of its own, which goes with it; give another folder")
    own_namespace()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begun, draw = time.monotonic(), random.Random(args.seed)
    private = os.environ.get("FMTRAIN_KILLS")
    base = Path(private or tempfile.mkdtemp(prefix="kills"))
    own = [Path("/tmp"), Path("/dev/shm")] if private else [Path(tempfile.mkdtemp(dir=base))]
    os.environ["TMPDIR"] = str(own[0])
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)  # torch sets it in whoever imports it, such as pytest's process
    try:
        kinds = args.launch.split(",")
        runs = [undisturbed(args.recipe, launch, base / f"{n}") for n, launch in enumerate(kinds * (3 - len(kinds)))]
        seconds = dict(zip(kinds, (s for _, s in runs), strict=False))
        first = runs[0][0]
        steady = {n: s for n, s in first.items() if all(files.get(n) == s for files, _ in runs)}
        unsteady = sorted(set(first) - set(steady))
        assert not [n for n in unsteady if n.endswith(".safetensors")], unsteady
        place = Place(base, own, args.kills, steady)
        print(f"{len(steady)} files compared; with times in them, and not: {', '.join(unsteady)}", flush=True)
        left = leftovers(own, set())
        if left:
            print(f"left by undisturbed runs: {left}")
            place.shown |= {text.removeprefix("file ") for text in left}
        while len(place.kills) < args.kills:
            launch = kinds[place.walks % len(kinds)]
            walk(args, launch, seconds[launch], draw, place)
        text = table(place, time.monotonic() - begun, left)
        print(text)
        if args.out:
            args.out.write_text(text)
        sys.exit(1 if left or any(k.faults for k in place.kills) else 0)
    finally:
        for pid in tree(os.getpid())[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(base, ignore_errors=True)


def own_namespace() -> None:
    """As root: this script once more, in a mount namespace with an empty /tmp and /dev/shm of its own.

    Not where it lies in /tmp itself, or its interpreter does: there they would be gone.
    """
    hidden = any(Path(file).absolute().is_relative_to("/tmp") for file in (sys.executable, __file__))
    if os.geteuid() != 0 or "FMTRAIN_KILLS" in os.environ or hidden:
        return
    base = tempfile.mkdtemp(prefix="fmtrain-kills-", dir="/var/tmp")
    (Path(base) / "tmp").mkdir()
    os.environ["FMTRAIN_KILLS"] = base
    mount = 'mount --bind "$FMTRAIN_KILLS/tmp" /tmp && mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    os.execvp("unshare", ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, *sys.argv])


def table(place: Place, seconds: float, left: list[str]) -> str:
    """Markdown: kills and faults by stage and by victim."""
    faulty = [k for k in place.kills if k.faults]
    lines = [
        f"{len(place.kills)} kills in {place.walks} walks, {seconds:.0f} s, {os.cpu_count()} cores: "
        f"{len(faulty)} with a fault. Undisturbed runs left {left or 'nothing'}.",
        "",
    ]
    for what in ("stage", "victim"):
        rows: dict[tuple[str, str], list[Kill]] = collections.defaultdict(list)
        for kill in place.kills:
            rows[getattr(kill, what), kill.launch].append(kill)
        lines += [f"| {what} | launch | kills | exit codes | faults |", "|---|---|---|---|---|"]
        for (name, launch), kills in rows.items():
            codes = collections.Counter("went on" if k.code is None else str(k.code) for k in kills)
            shown = ", ".join(f"{code}: {n}" for code, n in sorted(codes.items()))
            lines.append(f"| {name} | {launch} | {len(kills)} | {shown} | {sum(bool(k.faults) for k in kills)} |")
        lines.append("")
    for k in faulty:
        lines.append(f"- {k.launch}, {k.stage}, {k.victim} ({k.name}), exit code {k.code}: {'; '.join(k.faults)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
