"""What follows on a turn of a Slurm job: `python -P -m launch.turns RUN_DIR begin|end ..`, called by slurm/job.sbatch.

A turn is one run of the command in the job. Each leaves two lines in the run's turns.jsonl: how far the run had come
when it began and when it ended. `end` prints what is to follow, one word, and says why on stderr. It knows the run's
folder and what Slurm says of the job (slurm-job.txt beside it, written by the batch script, so that this also runs
where Slurm's commands are not: in a container). A turn that was cut off leaves no second line, and counts for nothing.
"""

import argparse
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fmtrain.artifacts.storage import append_row, read_left, read_rows
from fmtrain.artifacts.worker import ERROR
from fmtrain.errors import Diverged, ExitCode, NodesSilent, Unavailable
from launch.backends import slurm
from launch.terminal import AND

FILE = "turns.jsonl"
AGAIN = "again"  # in this allocation, on the Ray that is there where it is whole
AFRESH = "afresh"  # in this allocation, on a new Ray
REQUEUE = "requeue"  # in another allocation
END = "end"
GONE = "gone"  # the job is queued again already, or cancelled: nothing is left to do here
_USERS = {ExitCode.CONFIG, ExitCode.INPUT, ExitCode.HELD, ExitCode.INTERRUPTED}  # would come again, or was wished
_LATE = {"TimeLimit"}


@dataclass(frozen=True, order=True)
class Mark:
    """What a run has on disk: stages committed; in those under way, steps saved, tasks finished, and results whole."""

    committed: int = 0
    saved: int = 0


@dataclass(frozen=True)
class End:
    """How a turn ended, and what was found then."""

    code: int  # the command's; 4 where Ray did not come up
    asked: str = ""  # the signal that asked the job to stop
    ray: str = "whole"  # whole, ended (on a node, under the command) or down (it never came up)
    deaf: str = ""  # nodes that did not answer
    job: slurm.Report = field(default_factory=lambda: slurm.Report("RUNNING"))
    restart: int = 0
    error: str = ""  # of the run: its kind and first line
    where: str = ""  # the stage and how far it was, whether saved or not

    @property
    def passing(self) -> bool:
        """Whether it ended by what comes and goes, whatever is done about it: a store or a hub that did not answer."""
        return self.code == Unavailable.exit_code and self.error.startswith(Unavailable.__name__)


@dataclass(frozen=True)
class Verdict:
    then: str
    why: str
    counts: bool = False  # towards launch.max_restarts, if the turn made no step


def decide(now: End, mark: Mark, past: list[dict[str, Any]], most: int) -> Verdict:
    """What follows on `now`; `past` are the lines of turns.jsonl before it, `most` is launch.max_restarts."""
    verdict = _settled(now) or _stopped(now) or _failed(now)
    if not verdict.counts:
        return verdict
    idle = _idle(past, mark)
    if idle > most:
        turns = "a turn" if idle == 1 else f"{idle} turns in a row"
        return Verdict(END, f"{verdict.why}; {turns} without a step, and launch.max_restarts={most}", counts=True)
    last = next((line for line in reversed(past) if line["event"] == "ended"), None)
    before = None
    if last and last["counts"] and not last.get("deaf"):  # beside a lost node an error says nothing of the work
        before = (last["code"], last["error"], last["where"])
    if verdict.then == AGAIN and not now.passing and before == (now.code, now.error, now.where):
        return Verdict(END, f"{verdict.why}; the same as in the turn before, at the same place", counts=True)
    return verdict if verdict.then != AGAIN or idle < 2 else Verdict(AFRESH, verdict.why, counts=True)


def _settled(now: End) -> Verdict | None:
    """Ends that nothing can change, or nobody should."""
    if now.code == ExitCode.DONE:
        return Verdict(END, "done")
    if now.job.restarts > now.restart:
        return Verdict(GONE, "the job is queued again already")
    if now.job.ended and now.job.reason not in _LATE:
        return Verdict(GONE, "the job was cancelled")
    return None


def _stopped(now: End) -> Verdict | None:
    """Ends that came from outside. They come before the command's own code: it speaks of what it saw of them."""
    if now.job.preempted:
        return Verdict(REQUEUE, "the job is preempted")
    if now.deaf:
        return Verdict(REQUEUE, f"no answer from {now.deaf}", counts=True)
    if now.ray == "ended":
        return Verdict(AFRESH, "Ray ended on a node", counts=True)
    if now.code == ExitCode.STAGE_FAILED and now.ray != "down" and now.error.startswith(NodesSilent.__name__):
        return Verdict(REQUEUE, "nodes are gone from Ray, or start no process", counts=True)
    if (now.code in _USERS and not now.passing) or now.error.startswith(Diverged.__name__):
        return Verdict(END, "the same would come again")
    if now.asked or now.job.ended:
        return Verdict(REQUEUE, f"asked to stop by {now.asked or now.job.reason}", counts=True)
    return None


def _failed(now: End) -> Verdict:
    if now.ray == "down":
        return Verdict(AFRESH, "Ray did not come up", counts=True)
    return Verdict(AGAIN, f"the command left with {now.code}", counts=True)


def _idle(past: list[dict[str, Any]], mark: Mark) -> int:
    """How many turns that count, this one among them, have ended since the run last came further."""
    idle, last = 0, Mark()
    for at, line in enumerate(past):
        here = Mark(**line["mark"])
        if at == 0 or here > last:
            idle = 0
        elif line["event"] == "ended" and line["counts"]:
            idle += 1
        last = here
    return 0 if mark > last else idle + 1


# --- what the disk says ---------------------------------------------------------------------------------------------


def mark_of(run_dir: Path) -> Mark:
    """How far the run in `run_dir` has come; a run that has no plan yet has come nowhere."""
    committed = sum(line.get("event") == "committed" for line in read_rows(run_dir / "events.jsonl"))
    saved = sum(saved_in(work) for step in _plan(run_dir) for work in _work(run_dir, step["fingerprint"]))
    return Mark(committed, saved)


def saved_in(work: Path) -> int:
    """Steps, tasks or results that a folder of unfinished work holds and an interrupted run goes on from."""
    steps = [int(p.name[5:]) for p in work.glob("checkpoints/step-*") if p.name[5:].isdigit()]
    tasks = sum(1 for _ in work.glob("parts/*/*/.done/*.json"))
    return max(steps, default=0) + tasks + (work / "result.json").is_file()


def stand(work: Path) -> str:
    """What of unfinished work is on disk, in words."""
    made, saved = len(read_rows(work / "metrics.jsonl")), saved_in(work)
    if not made:
        return f"{saved} tasks are done" if saved else "nothing of it is saved"
    lost = f"; steps made after it, and lost: {made - saved}" if made > saved else ""
    return f"step {saved} is saved{lost}" if saved else f"none of its {made} steps is saved"


def standing(run_dir: Path) -> tuple[str, str]:
    """The error that ended the run, kind and first line, and where its stage stood: NAME STEP."""
    state = read_left(run_dir / "run.json", dict)
    stages = str(state.get("stage") or "").split(AND)
    text = str(state.get("message") or "").partition("\n")[0] if state.get("state") == "failed" else ""
    error = next(filter(None, (read_left(run_dir / "stages" / stage / ERROR, dict) for stage in stages)), {})
    if text and str(error.get("message") or text + "?").partition("\n")[0] in text:  # it is what ended the run
        text = f"{error['error']}: {text}"
    elif text and state.get("error"):
        text = f"{state['error']}: {text}"
    prints = [step["fingerprint"] for step in _plan(run_dir) if step["stage"] in stages]
    steps = [max(map(_last_step, _work(run_dir, name)), default=0) for name in prints]
    return text, f"{'+'.join(stages)} {sum(steps)}"


def _last_step(work: Path) -> int:
    """The last step that a training made, or the tasks that are finished."""
    rows = read_rows(work / "metrics.jsonl")
    return int(rows[-1].get("step", 0)) if rows else saved_in(work)


def _work(run_dir: Path, fingerprint: str) -> list[Path]:
    return list((run_dir.parent.parent / "work").glob(f"*/{fingerprint}*"))


def _plan(run_dir: Path) -> list[dict[str, str]]:
    return read_left(run_dir / "plan.json", list)


# --- the command -----------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.turns")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("event", choices=["begin", "end"])
    parser.add_argument("--turn", type=int, default=0, help="in this allocation")
    parser.add_argument("--code", type=int, default=0)
    parser.add_argument("--asked", default="")
    parser.add_argument("--ray", default="whole", choices=["whole", "ended", "down"])
    parser.add_argument("--deaf", default="")
    parser.add_argument("--max-restarts", type=int, default=0)
    args = parser.parse_args()
    restart, mark = int(os.environ.get("SLURM_RESTART_COUNT") or 0), mark_of(args.run_dir)
    line = {"restart": restart, "turn": args.turn, "time": round(time.time(), 3), "mark": asdict(mark)}
    if args.event == "begin":
        append_row(args.run_dir / FILE, {"event": "begun", **line})
        return 0
    past = read_rows(args.run_dir / FILE)
    last = past[-1] if past else {}
    if last.get("then") and (last["restart"], last.get("turn")) == (restart, args.turn):
        print(last["then"])  # this was asked before, and the answer did not arrive
        return 0
    error, where = standing(args.run_dir)
    answer = args.run_dir / slurm.ANSWER
    job = slurm.parse(answer.read_text(encoding="utf-8", errors="replace") if answer.is_file() else "")
    now = End(args.code, args.asked, args.ray, args.deaf, job, restart, error, where)
    verdict = decide(now, mark, past, args.max_restarts)
    line |= {"code": now.code, "asked": now.asked, "ray": now.ray, "deaf": now.deaf, "job": job.state}
    append_row(args.run_dir / FILE, {"event": "ended", **line, "error": error, "where": where, **asdict(verdict)})
    print(f"{verdict.why}; on disk: {mark.committed} stages of this run, {mark.saved} steps or tasks", file=sys.stderr)
    print(verdict.then)
    return 0


if __name__ == "__main__":
    sys.exit(main())
