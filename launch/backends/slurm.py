"""The Slurm backend: submit the batch script, ask Slurm for the job, follow it to its end.

Knows Slurm's commands. Knows nothing of recipes and stages: it is given the command to run in the job. The batch script
brings Ray up over the job's nodes and runs that command with RAY_ADDRESS, FMTRAIN_JOB and FMTRAIN_RUN in its
environment; what follows when it has ended is decided by launch/turns.py.
"""

import codecs
import datetime
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from fmtrain.artifacts.storage import user_umask, write_text
from fmtrain.errors import ConfigError, ExitCode, StageFailed
from fmtrain.schema.launch import Slurm
from launch.backends.slurm_script import SCRIPT, options, render, variables

ANSWER = "slurm-job.txt"  # what Slurm said of the job when it was last asked to stop, or its command ended
EXIT_CODE = "exit_code"  # the batch script's last word; absent while the job runs or waits for another turn
GRACE = 30.0  # seconds that a stage has to save where nothing says when the end is
LAST_GRACE = 20.0  # and where Slurm has ended the job already: SIGKILL comes KillWait seconds later, 30 unless told
UNKNOWN = "UNKNOWN"
_DONE = {"COMPLETED", "FAILED"}
_BROKEN = {"TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "DEADLINE", "PREEMPTED"}
_PASSING = {"NODE_FAIL", "PREEMPTED", "CANCELLED"}  # may also be met for a moment while a job goes back to the queue
_REMEDY = {
    "TIMEOUT": "give it longer with launch.time; the same command goes on from what is saved",
    "OUT_OF_MEMORY": "ask for more, e.g. launch.mem=64G; the same command goes on from what is saved",
}
_REMEDY_OTHER = "the same command goes on from what is saved"
_SILENCE = 900.0  # seconds without an answer from Slurm after which `wait` gives up; a controller may be restarted
_UNSURE = "timed out|receive failure|Zero Bytes|no answer within"  # of a request that may have been heard
_PATIENCE = 60.0  # seconds a command of Slurm's may take


class NoAnswer(StageFailed):
    """Slurm was asked for something and has not answered: it may have been done."""


@dataclass(frozen=True)
class Report:
    """What Slurm says of a job; `code` is the batch script's exit code, 128 + N where signal N ended it."""

    state: str
    code: int = 0
    reason: str = ""
    restarts: int = 0
    preempted: bool = False  # asked to make room: it goes on for the partition's GraceTime
    end: float | None = None  # seconds since 1970 at which Slurm ends, or has ended it

    @property
    def ended(self) -> bool:
        """Whether Slurm is done with it. What it calls COMPLETING may be cancelled, queued again, over its time."""
        return self.state not in ("RUNNING", "CONFIGURING", "PENDING", UNKNOWN)

    @property
    def forgotten(self) -> bool:
        """Whether Slurm says that it knows no such job; it forgets one minutes after its end."""
        return self.state == UNKNOWN and "Invalid job id" in self.reason

    @property
    def over(self) -> bool:
        """Whether it will have no other turn: other states are also met while a job goes back to the queue."""
        return self.forgotten or self.state in ("COMPLETED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE")


def submit(cfg: Slurm, run_dir: Path, argv: list[str]) -> str:
    """Write `run_dir/job.sbatch` and hand it to sbatch; the job id, or the script itself under launch.dry_run.

    ConfigError where sbatch refused it; NoAnswer where the job may be in the queue.
    """
    script = render(cfg, run_dir, argv)
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir.absolute() / SCRIPT
    write_text(path, script)
    if cfg.dry_run:
        return script
    (run_dir / EXIT_CODE).unlink(missing_ok=True)
    done = _slurm("sbatch", "--parsable", str(path), env=_environment(cfg, run_dir))
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        if re.search(_UNSURE, said):
            name = shlex.quote(str(options(cfg, run_dir)["job-name"]))
            raise NoAnswer(
                f"Slurm did not say whether it took the job: {said}\nSee whether it is in the queue: squeue "
                f"--name={name}. If it is, it makes run {run_dir.name}; if not, remove {run_dir} and submit again."
            )
        raise ConfigError(
            f"sbatch refused the job: {said}\nThe script is {path}; set launch.partition, launch.account, launch.qos, "
            "launch.time, launch.mem, .. as this cluster wants them (sinfo lists its partitions)."
        )
    return done.stdout.strip().split(";")[0]  # "12" or "12;cluster"


def output(run_dir: Path, job_id: str, pattern: str | None = None) -> Path:
    """The file that the job's output goes to, through all its turns; `pattern` is launch.output."""
    if pattern is None:
        return run_dir / f"slurm-{job_id}.out"
    return Path(re.sub("%([j%])", lambda found: job_id if found[1] == "j" else "%", pattern)).absolute()


def state(job_id: str) -> str:
    """PENDING, RUNNING, COMPLETED, .. as Slurm has it; UNKNOWN when it does not know the job, or does not answer."""
    return report(job_id).state


def report(job_id: str, patience: float = _PATIENCE) -> Report:
    """Ask Slurm for the job: one that ended is known for MinJobAge, minutes; no accounting database is needed.

    UNKNOWN where no answer comes within `patience` seconds.
    """
    done = _slurm("scontrol", "show", "job", job_id, patience=patience)
    if done.returncode != 0:
        return Report(UNKNOWN, reason=done.stderr.strip())
    return parse(done.stdout)


def parse(text: str) -> Report:
    """What `scontrol show job` printed. Fields are looked for where their lines begin: names and comments are free."""
    found: dict[str, str] = {}
    for line in re.findall(r"^ +(?:JobState|Requeue|StartTime|PreemptEligibleTime)=.*$", text, re.M):
        found |= dict(re.findall(r"\b(\w+)=(\S+)", line))
    if "JobState" not in found:
        return Report(UNKNOWN)
    code, _, number = found.get("ExitCode", "0:0").partition(":")
    ended_by = int(number or 0)
    return Report(
        found["JobState"],
        128 + ended_by if ended_by else int(code),
        found.get("Reason", ""),
        int(found.get("Restarts", 0)),
        found.get("PreemptTime", "None") not in ("None", "Unknown"),
        _seconds(found.get("EndTime", "")),
    )


def _seconds(text: str) -> float | None:
    """Slurm's clock, in the local time of whoever asks, as seconds since 1970."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:  # Unknown, None
        return None


def grace(run_dir: Path) -> float:
    """Seconds that a stage of this job has to save: those until its end, less what it takes to leave in order."""
    try:
        job = parse((run_dir / ANSWER).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return GRACE
    if job.end is None:
        return GRACE
    left = job.end - time.time()
    return LAST_GRACE if left <= 0 or job.ended else max(left * 0.9 - 4, left / 2)


def wait(job_id: str, out: Path, run_dir: Path, poll: float = 2.0) -> int:
    """Copy the job's output to stdout until it ends, through any requeue; the exit code of its command.

    130 for a cancelled job and for Ctrl-C here, which leaves the job running; 4 where Slurm ended it: time, node,
    memory. `poll` is in seconds.
    """
    follower = _Follower(out)
    try:
        return _follow(job_id, follower, run_dir / EXIT_CODE, poll)
    except KeyboardInterrupt:
        _say(f"job {job_id} goes on. Follow it: tail -F {out}; cancel it: scancel {job_id}")
        return ExitCode.INTERRUPTED


def _follow(job_id: str, follower: "_Follower", written: Path, poll: float) -> int:
    last, heard = Report(""), time.monotonic()
    while True:
        now = report(job_id)  # before the output: what an ended job wrote is all there
        follower.copy()
        if now.state != UNKNOWN:
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENCE:
            _say(f"no answer from Slurm for {_SILENCE:.0f} s; job {job_id} may go on: scontrol show job {job_id}")
            return ExitCode.STAGE_FAILED
        if now.state != last.state or now.reason != last.reason:
            _tell(job_id, now)
        ended = _verdict(job_id, now, sure=now.state == last.state, written=written)
        if ended is not None:
            follower.copy()
            return ended
        last = now
        time.sleep(poll)


def _verdict(job_id: str, now: Report, *, sure: bool, written: Path) -> int | None:
    """The exit code to end with, or None while the job may go on; `sure` when the state was met twice running."""
    if now.state == UNKNOWN:
        code = _read_code(written)
        if code is None and now.forgotten:
            _say(f"Slurm has forgotten job {job_id}, and it left no exit code: see {written.parent}")
            return ExitCode.STAGE_FAILED
        return code  # a controller that does not answer comes back
    if now.state in _DONE:
        code = _read_code(written)
        return now.code if code is None else code
    if now.state in _PASSING and not sure:
        return None
    if now.state == "CANCELLED":
        _say(f"job {job_id} was cancelled; the same command goes on from what is saved")
        return ExitCode.INTERRUPTED
    if now.state in _BROKEN:
        _say(f"job {job_id} ended by Slurm with {now.state}; {_REMEDY.get(now.state, _REMEDY_OTHER)}")
        return ExitCode.STAGE_FAILED
    return None


def _tell(job_id: str, now: Report) -> None:
    """One line for each change a waiting user wants to know of."""
    if now.state == "PENDING":
        _say(f"job {job_id} is waiting in the queue ({now.reason or 'no reason given'})")
    elif now.state == "RUNNING":
        _say(f"job {job_id} is running")
    elif now.state == UNKNOWN:
        _say(f"Slurm gives no answer on job {job_id}: {now.reason}")


class _Follower:
    """Copies what is new in a file to stdout; the file may not be there yet, and a requeued job appends to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        self.decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def copy(self) -> None:
        try:
            with open(self.path, "rb") as f:
                if f.seek(0, os.SEEK_END) < self.at:  # begun anew
                    self.at = 0
                f.seek(self.at)
                while block := f.read(1 << 20):
                    self.at += len(block)
                    sys.stdout.write(self.decode(block))
        except FileNotFoundError:
            return
        sys.stdout.flush()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _read_code(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _slurm(
    *argv: str, env: dict[str, str] | None = None, patience: float | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command of Slurm's, under the user's own umask: sbatch hands it on to the job."""
    patience = patience or _PATIENCE
    try:
        return subprocess.run(
            argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=patience, check=False,
            umask=user_umask(),
        )  # fmt: skip
    except FileNotFoundError:
        raise ConfigError(
            f"launch=slurm: no {argv[0]} on this machine. Run this where Slurm's commands are, e.g. on the login node; "
            "launch.dry_run=true writes the script without them, launch=local runs on this machine."
        ) from None
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 1, "", f"{argv[0]} gave no answer within {patience:.0f} s")


def _environment(cfg: Slurm, run_dir: Path) -> dict[str, str]:
    """Ours without what a surrounding job or Ray set, and what would count more than the script's own options: sbatch
    hands it all on, and srun in the job would obey it."""
    keep = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SLURM_EXPORT_ENV"}
    drop = ("SLURM_", "SRUN_", "FMTRAIN_JOB", "FMTRAIN_RUN", "RAY_ADDRESS", "RAY_AUTH_")
    ours = variables(cfg, run_dir, os.environ)
    return {
        name: value for name, value in os.environ.items() if name in keep or not (name.startswith(drop) or name in ours)
    }
