"""The batch script of a Slurm job: the template `slurm/job.sbatch` with a configuration's values filled in.

Knows sbatch's options and how bash and sbatch read their words; asks Slurm for nothing.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from fmtrain.errors import ConfigError
from fmtrain.schema.launch import Slurm

SCRIPT = "job.sbatch"
_OURS = {"chdir", "no-requeue", "ntasks", "ntasks-per-node", "open-mode", "requeue", "wrap"}
_SHORT = {
    "A": "account", "a": "array", "c": "cpus-per-task", "C": "constraint", "d": "dependency", "D": "chdir",
    "G": "gpus", "J": "job-name", "n": "ntasks", "N": "nodes", "o": "output", "p": "partition", "q": "qos", "t": "time",
}  # fmt: skip
_BARE = r"(?i)(?:rtx|[abhlv])\d+\w*(?::\d+)?"  # what a GPU's type looks like: a100:4
_GPUS = r"(?:gres[:/])?gpu(:[^:]*[^:\d][^:]*)?(?::(\d+))?"  # an entry of gres
_ARRAY = (
    "one run is one job: the tasks of an array would all make the same artifacts. For several seeds or settings submit "
    "one run each: for s in 1 2 3; do fmtrain run launch=slurm .. seed=$s; done"
)
# Variables of sbatch's environment count more than the script's lines: those of options that we set are taken out.
_VARIABLES = {
    "account": ["ACCOUNT"], "constraint": ["CONSTRAINT"], "gres": ["GRES"],
    "job-name": ["JOB_NAME"], "mem": ["MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"], "open-mode": ["OPEN_MODE"],
    "output": ["OUTPUT"], "partition": ["PARTITION"], "qos": ["QOS"], "reservation": ["RESERVATION"],
    "signal": ["SIGNAL"], "time": ["TIMELIMIT"],
}  # fmt: skip
# What nobody but the script may say: Ray has as many GPUs on a node as stand in it.
_NEVER = {"ARRAY_INX", "NO_REQUEUE", "GPUS", "GPUS_PER_NODE", "GPUS_PER_SOCKET", "GPUS_PER_TASK"}


def render(cfg: Slurm, run_dir: Path, argv: list[str]) -> str:
    """The batch script that runs `argv` (interpreter first) on Ray over the nodes of `cfg`; ConfigError names a setting
    that cannot stand in it. `run_dir` is on a file system that every node sees, in its store's `runs`; its name is the
    run's."""
    run_dir = run_dir.absolute()
    _check(cfg)
    words = {
        "run_dir": str(run_dir),
        "store": str(run_dir.parent.parent),
        "run_id": run_dir.name,
        "python": sys.executable,
        "cpus": str(cfg.cpus_per_task),
        "gpus": str(gpus_per_node(cfg)),
        "interface": cfg.interface or "",
        "max_restarts": str(cfg.max_restarts),
        "node_wait": str(cfg.node_wait_seconds),
    }
    values = {name: _word(name, text) for name, text in words.items()}
    for name, several in (("command", argv), ("container", cfg.container)):
        values[name] = " ".join(_word(name, text) for text in several)
    values |= {"setup": cfg.setup, "options": "\n".join(f"#SBATCH {line}" for line in _lines(cfg, run_dir))}
    template = (files("launch.templates") / SCRIPT).read_text(encoding="utf-8")
    return re.sub(r"@\{([a-z_]+)\}", lambda found: values[found[1]], template)  # every other @ and $ is bash's


def gpus_per_node(cfg: Slurm) -> int:
    """What launch.gpus_per_node or the gpu entries of launch.gres come to."""
    counts = _gpus_of(cfg.gres or "")
    if not counts and (bare := re.fullmatch(_BARE, cfg.gres or "")):
        raise ConfigError(f"launch.gres={cfg.gres} names no gpu, by which Slurm knows one; did you mean gpu:{bare[0]}?")
    if counts and cfg.gpus_per_node not in (0, sum(counts)):
        raise ConfigError(
            f"launch.gpus_per_node={cfg.gpus_per_node} and launch.gres={cfg.gres} ask for different numbers of GPUs; "
            "give one of them"
        )
    return sum(counts) or cfg.gpus_per_node


def _gpus_of(gres: str) -> list[int]:
    """What each gpu entry of a list of generic resources comes to."""
    entries = (re.fullmatch(_GPUS, entry.strip()) for entry in gres.split(","))
    return [int(found[2] or 1) for found in entries if found]


def gpu_type(gres: str) -> str:
    """The type that the gpu entries of a list of generic resources name, in lower case; "" where they name none."""
    entries = (re.fullmatch(_GPUS, entry.strip()) for entry in gres.split(","))
    return next((found[1][1:].lower() for found in entries if found and found[1]), "")


def variables(cfg: Slurm, run_dir: Path, given: Mapping[str, str]) -> set[str]:
    """The names of sbatch's environment that must not reach it: they would count more than the script."""
    names = _NEVER.union(*(_VARIABLES.get(name, []) for name in options(cfg, run_dir)))
    if _gpus_of(given.get("SBATCH_GRES", "")):
        names.add("GRES")
    return {f"SBATCH_{name}" for name in names}


def output(cfg: Slurm, run_dir: Path) -> str:
    """The file of the job's output, %j for its number."""
    return cfg.output or f"{str(run_dir.absolute()).replace('%', '%%')}/slurm-%j.out"


def options(cfg: Slurm, run_dir: Path) -> dict[str, str | int | None]:
    """sbatch's options, without what is not asked for."""
    chosen: dict[str, str | int | None] = {
        "job-name": cfg.job_name or f"fmtrain-{run_dir.name}",
        "comment": cfg.comment,
        "nodes": cfg.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cfg.cpus_per_task,
        "gpus-per-node": None if _gpus_of(cfg.gres or "") else cfg.gpus_per_node or None,
        "gres": cfg.gres,
        "mem": cfg.mem,
        "time": cfg.time,
        "partition": cfg.partition,
        "account": cfg.account,
        "qos": cfg.qos,
        "constraint": cfg.constraint,
        "reservation": cfg.reservation,
        "dependency": cfg.dependency,
        "mail-type": cfg.mail_type,
        "mail-user": cfg.mail_user,
        "chdir": str(Path.cwd()),  # paths on the command line are relative to it
        "output": output(cfg, run_dir),
        "open-mode": "append",
        "signal": f"B:USR1@{cfg.signal_seconds}",
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _lines(cfg: Slurm, run_dir: Path) -> list[str]:
    lines = [f"--{name}={_option(name, str(value))}" for name, value in options(cfg, run_dir).items()]
    return [*lines, *(["--exclusive"] if cfg.exclusive else []), "--requeue", *cfg.sbatch_extra]


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
    """ConfigError for options that have a field or are ours, and a setup that is no shell."""
    if cfg.output and re.search(r"%(?![j%])", cfg.output):
        raise ConfigError(f"launch.output={cfg.output}: only %j, the job's number, is known here; write %% for a %")
    for extra in cfg.sbatch_extra:
        name = _check_extra(extra)
        if cfg.mem and name.startswith("mem-per-"):
            raise ConfigError(f"launch.sbatch_extra: {extra!r} contradicts launch.mem={cfg.mem}; give one of them")
    if "\0" in cfg.setup or "\r" in cfg.setup or not _encodable(cfg.setup):
        raise ConfigError(
            "launch.setup holds a character that no batch script can: NUL, CR (DOS line end), broken UTF-8"
        )
    parsed = subprocess.run(["bash", "-n"], input=cfg.setup, capture_output=True, text=True, check=False)
    if parsed.returncode != 0:
        raise ConfigError(f"launch.setup is not valid shell: {parsed.stderr.strip()}\ngiven: {cfg.setup}")


def _check_extra(extra: str) -> str:
    """The name of one option, in sbatch's own spelling; ConfigError where it is set here."""
    named = re.match(r"--?([A-Za-z][\w-]*)", extra)
    if named is None or not extra.isprintable():
        raise ConfigError(f"launch.sbatch_extra: {extra!r} is not one option of sbatch, e.g. --exclude=n3")
    name = named[1] if extra.startswith("--") else _SHORT.get(extra[1], "")
    if name == "array":
        raise ConfigError(f"launch.sbatch_extra: {extra!r}: {_ARRAY}")
    if name.startswith("gpus") or (name.startswith("tres-per-") and "gpu" in extra):  # of which Ray would know nothing
        raise ConfigError(
            f"launch.sbatch_extra: {extra!r} has a setting of its own, launch.gpus_per_node, or launch.gres for a type"
        )
    field = name.replace("-", "_") if name != "signal" else "signal_seconds"
    if hasattr(Slurm, field) and field != "exclusive":  # which may be =user there
        raise ConfigError(f"launch.sbatch_extra: {extra!r} has a setting of its own, launch.{field}")
    if name in _OURS:
        raise ConfigError(
            f"launch.sbatch_extra: {extra!r} is set by launch=slurm itself; see launch.nodes, launch.cpus_per_task "
            "and what launch.dry_run=true prints"
        )
    return name
