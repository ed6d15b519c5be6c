"""The Slurm backend: render the batch script, submit it, follow the job to its end.

Knows Slurm's commands and the template `slurm/job.sbatch`. Knows nothing of recipes and stages: it is given the command
to run in the job. The batch script brings Ray up over the job's nodes and runs that command with RAY_ADDRESS,
FMTRAIN_JOB and FMTRAIN_RUN in its environment.
"""

import codecs
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fmtrain.errors import ConfigError, ExitCode
from fmtrain.run.storage import write_text
from fmtrain.schema.launch import Slurm

SCRIPT = "job.sbatch"
EXIT_CODE = "exit_code"  # the batch script's last word; absent while the job runs or waits for another turn
OBJECT_STORE = 200_000_000  # bytes of Ray's object store on each node; stages meet on the file system, not in it
WARNING_SECONDS = 90  # between USR1 and the time limit; Slurm may send it up to 60 s before that
UNKNOWN = "UNKNOWN"
_DONE = {"COMPLETED", "FAILED"}
_BROKEN = {"TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "DEADLINE", "PREEMPTED"}
_PASSING = {"NODE_FAIL", "PREEMPTED", "CANCELLED"}  # may also be met for a moment while a job goes back to the queue
_OURS = {"array", "chdir", "nodes", "no-requeue", "ntasks", "ntasks-per-node", "open-mode", "output", "signal", "wrap"}
_OURS_SHORT = set("aDNno")
_REMEDY = {
    "TIMEOUT": "give it longer with launch.time; the same command goes on from what is saved",
    "OUT_OF_MEMORY": "ask for more with launch.sbatch_extra='[--mem=64G]'; the same command goes on from what is saved",
}
_REMEDY_OTHER = "the same command goes on from what is saved"
_SILENCE = 900.0  # seconds without an answer from Slurm after which `wait` gives up; a controller may be restarted
_PATIENCE = 60.0  # seconds a command of Slurm's may take


@dataclass
class Report:
    """What Slurm says of a job; `code` is the batch script's exit code, 128 + N where signal N ended it."""

    state: str
    code: int = 0
    reason: str = ""


def render(cfg: Slurm, run_dir: Path, argv: list[str]) -> str:
    """The batch script that runs `argv` (interpreter first) on Ray over the nodes of `cfg`; ConfigError names a setting
    that cannot stand in it. `run_dir` is on a file system that every node sees; its name is the run's."""
    run_dir = run_dir.absolute()
    _check(cfg)
    words = {
        "run_dir": str(run_dir),
        "run_id": run_dir.name,
        "python": sys.executable,
        "cpus": str(cfg.cpus_per_task),
        "gpus": str(cfg.gpus_per_node),
        "max_restarts": str(cfg.max_restarts),
        "object_store": str(OBJECT_STORE),
    }
    quoted = {name: _word(name, text) for name, text in words.items()}
    command = " ".join(_word("command", text) for text in argv)
    values = {**quoted, "command": command, "setup": cfg.setup, "options": _options(cfg, run_dir)}
    template = (files("launch.templates") / SCRIPT).read_text(encoding="utf-8")
    return re.sub(r"@\{([a-z_]+)\}", lambda found: values[found[1]], template)  # every other @ and $ is bash's


def submit(cfg: Slurm, run_dir: Path, argv: list[str]) -> str:
    """Write `run_dir/job.sbatch` and hand it to sbatch; the job id, or the script itself under launch.dry_run."""
    script = render(cfg, run_dir, argv)
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir.absolute() / SCRIPT
    write_text(path, script)
    if cfg.dry_run:
        return script
    (run_dir / EXIT_CODE).unlink(missing_ok=True)
    done = _slurm("sbatch", "--parsable", str(path), env=_clean_environment())
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise ConfigError(
            f"sbatch refused the job: {said}\nThe script is {path}; set launch.partition, launch.account, launch.qos, "
            "launch.time, launch.nodes, .. as this cluster wants them (sinfo lists its partitions)."
        )
    return done.stdout.strip().split(";")[0]  # "12" or "12;cluster"


def output(run_dir: Path, job_id: str) -> Path:
    """The file that the job's output goes to, through all its turns."""
    return run_dir / f"slurm-{job_id}.out"


def state(job_id: str) -> str:
    """PENDING, RUNNING, COMPLETED, .. as Slurm has it; UNKNOWN when it does not know the job, or does not answer."""
    return report(job_id).state


def report(job_id: str) -> Report:
    """Ask Slurm for the job: one that ended is known for MinJobAge, minutes; no accounting database is needed."""
    done = _slurm("scontrol", "--oneliner", "show", "job", job_id)
    if done.returncode != 0:
        return Report(UNKNOWN, reason=done.stderr.strip())
    fields = dict(re.findall(r"\b(JobState|ExitCode|Reason)=(\S+)", done.stdout))
    code, _, number = fields.get("ExitCode", "0:0").partition(":")
    ended_by = int(number or 0)
    return Report(fields.get("JobState", UNKNOWN), 128 + ended_by if ended_by else int(code), fields.get("Reason", ""))


def wait(job_id: str, out: Path, poll: float = 2.0) -> int:
    """Copy the job's output to stdout until it ends, through any requeue; the exit code of its command.

    130 for a cancelled job and for Ctrl-C here, which leaves the job running; 4 where Slurm ended it: time, node,
    memory. `poll` is in seconds.
    """
    follower = _Follower(out)
    try:
        return _follow(job_id, follower, poll)
    except KeyboardInterrupt:
        _say(f"job {job_id} goes on. Follow it: tail -F {out}; cancel it: scancel {job_id}")
        return ExitCode.INTERRUPTED


def _follow(job_id: str, follower: "_Follower", poll: float) -> int:
    written = follower.path.parent / EXIT_CODE
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
        if code is None and "Invalid job id" in now.reason:
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


def _slurm(*argv: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE, check=False
        )
    except FileNotFoundError:
        raise ConfigError(
            f"launch=slurm: no {argv[0]} on this machine. Run this where Slurm's commands are, e.g. on the login node; "
            "launch.dry_run=true writes the script without them, launch=local runs on this machine."
        ) from None
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 1, "", f"{argv[0]} gave no answer within {_PATIENCE:.0f} s")


def _clean_environment() -> dict[str, str]:
    """Ours without what a surrounding job or Ray set: sbatch hands it all on, and srun in the job would obey it."""
    keep = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT"}
    drop = ("SLURM_", "SRUN_", "FMTRAIN_JOB", "FMTRAIN_RUN", "RAY_ADDRESS", "RAY_AUTH_")
    return {name: value for name, value in os.environ.items() if name in keep or not name.startswith(drop)}


def _options(cfg: Slurm, run_dir: Path) -> str:
    """The #SBATCH lines."""
    chosen: dict[str, str | int | None] = {
        "job-name": f"fmtrain-{run_dir.name}",
        "nodes": cfg.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cfg.cpus_per_task,
        "gpus-per-node": cfg.gpus_per_node or None,
        "time": cfg.time,
        "partition": cfg.partition,
        "account": cfg.account,
        "qos": cfg.qos,
        "constraint": cfg.constraint,
        "chdir": str(Path.cwd()),  # paths on the command line are relative to it
        "output": f"{str(run_dir).replace('%', '%%')}/slurm-%j.out",
        "open-mode": "append",
        "signal": f"B:USR1@{WARNING_SECONDS}",
    }
    lines = [f"--{name}={_option(name, str(value))}" for name, value in chosen.items() if value is not None]
    return "\n".join(f"#SBATCH {line}" for line in [*lines, "--requeue", *cfg.sbatch_extra])


def _option(name: str, value: str) -> str:
    """Quoted as sbatch reads its lines: double quotes, a backslash escapes, also inside single quotes."""
    if not value.isprintable():
        raise ConfigError(f"launch: --{name} cannot be {value!r}: a line break or control character ends the option")
    if re.fullmatch(r"[\w@:.,/+=-]+", value, re.ASCII):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _word(name: str, text: str) -> str:
    """One word for bash; what can't stand in a script is refused: NUL, CR (sbatch takes it for DOS), broken UTF-8."""
    if "\0" in text or "\r" in text or not _encodable(text):
        raise ConfigError(f"launch=slurm: {name} {text!r} holds a character that no batch script can; rename it")
    return shlex.quote(text)


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check(cfg: Slurm) -> None:
    """ConfigError for numbers out of range, options that are ours, and a setup that is no shell."""
    for name, least in (("nodes", 1), ("cpus_per_task", 1), ("gpus_per_node", 0), ("max_restarts", 0)):
        if getattr(cfg, name) < least:
            raise ConfigError(f"launch.{name}={getattr(cfg, name)}: {least} is the least, e.g. launch.{name}={least}")
    for extra in cfg.sbatch_extra:
        named = re.match(r"--?([A-Za-z][\w-]*)", extra)
        if named is None or not extra.isprintable():
            raise ConfigError(f"launch.sbatch_extra: {extra!r} is not one option of sbatch, e.g. --exclusive")
        if named[1] in _OURS or (extra[1] != "-" and extra[1] in _OURS_SHORT):
            raise ConfigError(
                f"launch.sbatch_extra: {extra!r} is set by launch=slurm itself; see launch.nodes, launch.cpus_per_task "
                "and what launch.dry_run=true prints"
            )
    if "\0" in cfg.setup or "\r" in cfg.setup or not _encodable(cfg.setup):
        raise ConfigError(
            "launch.setup holds a character that no batch script can: NUL, CR (DOS line end), broken UTF-8"
        )
    parsed = subprocess.run(["bash", "-n"], input=cfg.setup, capture_output=True, text=True, check=False)
    if parsed.returncode != 0:
        raise ConfigError(f"launch.setup is not valid shell: {parsed.stderr.strip()}\ngiven: {cfg.setup}")
