"""The batch script: what a value holds never becomes shell or an #SBATCH line. No cluster needed."""

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmtrain.artifacts.stage import GIVEN
from fmtrain.errors import ConfigError
from fmtrain.schema.launch import Slurm
from launch.backends import slurm, slurm_script

ODD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=30)
PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(str.isprintable)


def head_of(script: str) -> str:
    """The script as far as its values are set."""
    return script[: script.index("\nrestarts=")]


def sbatch_lines(script: str) -> list[str]:
    """As sbatch reads them: up to the first line that is no comment."""
    lines = script.splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    return [line.removeprefix("#SBATCH ") for line in lines[:first] if line.startswith("#SBATCH ")]


def as_sbatch_reads(text: str) -> str:
    """One argument of an #SBATCH line, by the rules of Slurm's own reader (src/sbatch/opt.c, _get_argument)."""
    read, quote, at = "", "", 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
            read += text[at]
        elif quote and letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        elif not quote and (letter == "#" or letter.isspace()):
            break
        else:
            read += letter
        at += 1
    assert not quote
    return read


@settings(max_examples=60, deadline=None)
@given(words=st.lists(ODD, min_size=1, max_size=4), name=ODD.filter(lambda s: "/" not in s and s.isprintable()))
def test_bash_reads_back_every_word(words: list[str], name: str) -> None:
    run_dir = Path("/tmp") / f"run {name}"
    script = slurm_script.render(Slurm(), run_dir, words)
    show = head_of(script) + '\nprintf "%s\\0" "$run_dir" "$run_id" "$python" "${command[@]}"\n'
    read = subprocess.run(["bash"], input=show.encode(), capture_output=True, check=True).stdout.decode()
    assert read.split("\0")[:-1] == [str(run_dir), run_dir.name, sys.executable, *words]


@settings(max_examples=100, deadline=None)
@given(value=PRINTABLE)
def test_sbatch_reads_back_every_option(value: str) -> None:
    lines = sbatch_lines(slurm_script.render(Slurm(partition=value, constraint=value), Path("/tmp/r"), ["true"]))
    for name in ("partition", "constraint"):
        (line,) = [line for line in lines if line.startswith(f"--{name}=")]
        assert as_sbatch_reads(line) == f"--{name}={value}"


@pytest.mark.parametrize("field", ["partition", "account", "qos", "time", "constraint"])
@pytest.mark.parametrize("value", ["a\n#SBATCH --nodes=99", "a\rb", "a\u2028b", "a\0b", "\x1b[1m"])
def test_a_line_break_in_an_option_is_refused(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--{field} cannot be"):
        slurm_script.render(Slurm(**{field: value}), Path("/tmp/r"), ["true"])


@pytest.mark.parametrize(
    ("cfg", "says"),
    [
        (Slurm(sbatch_extra=["--mem=1G\n#SBATCH --nodes=9"]), "not one option of sbatch"),
        (Slurm(sbatch_extra=["exclusive"]), "not one option of sbatch"),
        (Slurm(sbatch_extra=["--array=0-9"]), "one run is one job"),
        (Slurm(sbatch_extra=["-a0-9"]), "one run is one job"),
        (Slurm(sbatch_extra=["-N4"]), "has a setting of its own, launch.nodes"),
        (Slurm(sbatch_extra=["--mail-type=END"]), "has a setting of its own, launch.mail_type"),
        (Slurm(sbatch_extra=["--signal=USR2@9"]), "has a setting of its own, launch.signal_seconds"),
        (Slurm(sbatch_extra=["--gpus=4"]), "has a setting of its own, launch.gpus_per_node"),
        (Slurm(sbatch_extra=["--gpus-per-task=a100:1"]), "has a setting of its own, launch.gpus_per_node"),
        (Slurm(sbatch_extra=["--tres-per-task=gres/gpu:1"]), "has a setting of its own, launch.gpus_per_node"),
        (Slurm(sbatch_extra=["-G4"]), "has a setting of its own, launch.gpus_per_node"),
        (Slurm(sbatch_extra=["--mem-per-cpu=1G"], mem="8G"), "contradicts launch.mem=8G"),
        (Slurm(sbatch_extra=["--no-requeue"]), "set by launch=slurm itself"),
        (Slurm(output="/tmp/%N.out"), "launch.output=/tmp/%N.out: only %j"),
        (Slurm(gres="gpu:a100:4,shm:2", gpus_per_node=8), "different numbers of GPUs"),
        (Slurm(gres="h100:8"), "launch.gres=h100:8 names no gpu, by which Slurm knows one; did you mean gpu:h100:8?"),
        (Slurm(setup="if true"), "launch.setup is not valid shell"),
        (Slurm(setup="}; rm x; {"), "launch.setup is not valid shell"),
        (Slurm(setup="a\r\nb"), "launch.setup holds a character"),
    ],
)
def test_what_cannot_be_used_is_named(cfg: Slurm, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        slurm_script.render(cfg, Path("/tmp/r"), ["true"])


@pytest.mark.parametrize("word", ["a\0b", "a\rb", "\udcff"])
def test_what_no_script_can_hold_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="holds a character"):
        slurm_script.render(Slurm(), Path("/tmp/r"), ["echo", word])


def test_the_options_asked_for_are_there() -> None:
    cfg = Slurm(nodes=3, gpus_per_node=8, cpus_per_task=16, partition="gpu", time="2-00", sbatch_extra=["--exclude=n9"])
    lines = sbatch_lines(slurm_script.render(cfg, Path("/data/runs/100%"), ["true"]))
    for wanted in ("--nodes=3", "--gpus-per-node=8", "--cpus-per-task=16", "--partition=gpu", "--time=2-00"):
        assert wanted in lines
    assert '--output="/data/runs/100%%/slurm-%j.out"' in lines
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@90"} <= set(lines)
    assert lines[-1] == "--exclude=n9"
    assert not [line for line in lines if line.startswith(("--account", "--qos", "--constraint"))]


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("gpu", 1), ("gpu:4", 4), ("gpu:a100", 1), ("gres/gpu:a100:4", 4), ("shm:7,gpu:a100:2,gpu:v100:1", 3),
        ("shm:7", 0),
    ],
)  # fmt: skip
def test_gpus_of_a_type_are_counted(gres: str, count: int) -> None:
    assert slurm_script.gpus_per_node(Slurm(gres=gres)) == count
    script = slurm_script.render(Slurm(gres=gres), Path("/tmp/r"), ["true"])
    assert f"--gres={gres}" in sbatch_lines(script) and f"\ngpus={count}\n" in script


def test_another_resource_beside_gpus_takes_none_of_them() -> None:
    cfg = Slurm(gres="shm:2", gpus_per_node=8, sbatch_extra=["--mem-per-cpu=1G"])
    script = slurm_script.render(cfg, Path("/tmp/r"), ["true"])
    assert {"--gres=shm:2", "--gpus-per-node=8", "--mem-per-cpu=1G"} <= set(sbatch_lines(script))
    assert "\ngpus=8\n" in script


@pytest.mark.parametrize("cfg", [Slurm(), Slurm(gpus_per_node=2), Slurm(gres="shm:2"), Slurm(mem="8G")])
def test_no_variable_of_sbatch_counts_more_than_the_script(cfg: Slurm) -> None:
    """Nor allocates GPUs of which the script knows nothing; what the script leaves open stays the user's."""
    gres, memory = "SBATCH_GRES", {"SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU"}
    taken = slurm_script.variables(cfg, Path("/tmp/r"), {gres: "gpu:1"})
    assert {"SBATCH_GPUS", "SBATCH_GPUS_PER_TASK", "SBATCH_GPUS_PER_NODE", "SBATCH_TIMELIMIT", gres} <= taken
    assert (gres in slurm_script.variables(cfg, Path("/tmp/r"), {gres: "shm:1"})) == (cfg.gres is not None)
    assert taken & memory == (memory if cfg.mem else set()) and "SBATCH_PARTITION" not in taken


def test_no_gpus_asks_for_none() -> None:
    assert "--gpus-per-node" not in "\n".join(sbatch_lines(slurm_script.render(Slurm(), Path("/tmp/r"), ["true"])))


def test_every_variable_of_the_template_is_filled_in() -> None:
    template = (files("launch.templates") / slurm_script.SCRIPT).read_text()
    script = slurm_script.render(
        Slurm(setup="module() { echo $1 @{options}; }\nmodule cuda"), Path("/tmp/r"), ["a@{setup}"]
    )
    assert len(re.findall(r"@\{[a-z_]+\}", template)) == 13
    assert re.findall(r"@\{[a-z_]+\}", script) == ["@{setup}", "@{options}"]  # only what the user wrote
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_dry_run_writes_the_script_and_submits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    run_dir = tmp_path / "run"
    script = slurm.submit(Slurm(dry_run=True), run_dir, ["true"])
    assert (run_dir / "job.sbatch").read_text() == script
    assert script.startswith("#!/bin/bash\n")


def test_no_sbatch_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bash").symlink_to("/bin/bash")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConfigError, match="no sbatch on this machine.*login node"):
        slurm.submit(Slurm(), tmp_path / "run", ["true"])


@pytest.mark.parametrize(
    ("line", "cancelled"),
    [
        ("JobState=RUNNING Reason=None Dependency=(null)", False),
        ("JobState=COMPLETING Reason=None Dependency=(null)", True),
        ("JobState=CANCELLED Reason=None Dependency=(null)", True),
        ("JobState=COMPLETING Reason=TimeLimit Dependency=(null)", False),
        ("", False),  # no answer
    ],
)
def test_a_job_that_was_cancelled_is_not_queued_again(line: str, cancelled: bool, tmp_path: Path) -> None:
    """As the script asks just before it would; its user may have cancelled it while Ray went down."""
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho 'JobId=1 JobName=JobState=CANCELLED'\necho '   {line}'\n")
    (tmp_path / "scontrol").chmod(0o755)
    script = slurm_script.render(Slurm(), tmp_path / "run", ["true"]).removesuffix("main\n") + "claim\ncancelled\n"
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "1"}
    assert (subprocess.run(["bash"], input=script.encode(), env=env).returncode == 0) == cancelled


def test_a_script_that_is_submitted_again_makes_another_run(tmp_path: Path) -> None:
    """As the printed one may be; a job that was queued again has the folder that it had before."""
    run_dir = tmp_path / "runs" / "r1"
    script = slurm_script.render(Slurm(), run_dir, ["true"]).removesuffix("main\n")
    script += 'claim >&2\necho "$run_id" "$run_dir" "$log" "$answer"\n'
    for job, run in (("7", "r1"), ("8", "r1-8"), ("7", "r1"), ("8", "r1-8")):
        env = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": job}
        said = subprocess.run(["bash"], input=script, env=env, capture_output=True, text=True, check=True)
        where = run_dir.with_name(run)
        assert said.stdout.split() == [run, *map(str, (where, where / f"ray-{job}", where / "slurm-job.txt"))]
        assert ("job 7 has this script's run: this one is run r1-8" in said.stderr) == (job == "8")
        assert where.stat().st_mode & 0o777 == 0o700
    (run_dir / "job").write_text("")  # the disk was full
    said = subprocess.run(["bash"], input=script, env=env, capture_output=True, text=True, check=True)
    assert said.stdout.split()[0] == "r1"


UNDECIDED = """
pause() { :; }
whole() { return 0; }
await_nodes() { return 0; }
run_command() { return $LEFT; }
deaf_nodes() { :; }
one_turn >&2
echo "$then"
"""


@pytest.mark.parametrize(
    ("failures", "left", "restarts", "then"),
    [
        (0, 4, 0, "again"),
        (2, 4, 0, "again"),  # a moment's, or the end of a process that Slurm's TERM met
        (9, 4, 0, "requeue"),
        (9, 4, 5, "requeue"),  # its last word was of turn 3
        (9, 4, 6, "end"),
        (9, 0, 0, "end"),
    ],
)
def test_what_cannot_be_decided_is_asked_again(
    failures: int, left: int, restarts: int, then: str, tmp_path: Path
) -> None:
    """The program that decides is the real one, once it runs: until then it is killed."""
    (tmp_path / "turns.jsonl").write_text('{"event": "begun", "restart": 3, "mark": {}}\n' if restarts else "")
    (tmp_path / "python").write_text(
        f'#!/bin/sh\ncase "$*" in *begin*) exit 1 ;; esac\necho x >> {tmp_path}/tried\n'
        f'[ "$(wc -l < {tmp_path}/tried)" -gt {failures} ] || kill -TERM $$\nexec {sys.executable} "$@"\n'
    )
    (tmp_path / "python").chmod(0o755)
    script = slurm_script.render(Slurm(), tmp_path, ["true"]).removesuffix("main\n")
    script += f"python={tmp_path}/python answer={tmp_path}/slurm-job.txt\n{UNDECIDED}"
    env = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_RESTART_COUNT": str(restarts), "LEFT": str(left)}
    done = subprocess.run(["bash"], input=script, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == then, done.stderr
    assert len((tmp_path / "tried").read_text().splitlines()) == min(failures + 1, 5)


STOPPING = """
bash -c 'trap "until [ -e $0 ]; do sleep .01; done; exit 3" USR1 USR2; touch $0.up; while :; do sleep 0.01; done' "$P" &
step=$!
steps=("$step")
until [ -e "$P.up" ]; do sleep 0.01; done
seconds=0
pause() {
  SECONDS=$((SECONDS + 1)) seconds=$((seconds + 1))
  [ "$seconds" = "$NEEDS" ] || return 0
  touch "$P"
  while alive "$step"; do sleep 0.01; done
}
ray_down "$1" >&2
wait "$step"
echo $?
"""


@pytest.mark.parametrize(("signal", "needs", "code"), [("USR1", 12, 3), ("USR2", 30, 3), ("USR1", 99, 137)])
def test_a_node_has_time_to_end_ray_and_to_keep_its_logs(signal: str, needs: int, code: int, tmp_path: Path) -> None:
    """The step needs so many seconds, as the script counts them; then it is killed."""
    script = slurm_script.render(Slurm(), tmp_path, ["true"]).removesuffix("main\n") + STOPPING
    env = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "1", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    env |= {"P": str(tmp_path / "place"), "NEEDS": str(needs)}
    done = subprocess.run(["bash", "-s", signal], input=script, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == f"{code}\n", done.stderr


@pytest.mark.parametrize(("then", "kept"), [("end", False), ("requeue", True), ("gone", True)])
def test_what_a_job_was_given_goes_with_its_last_turn(then: str, kept: bool, tmp_path: Path) -> None:
    """Whatever it ended with; where somebody has queued it again, it has another."""
    given = tmp_path / "runs" / "r" / GIVEN
    given.parent.mkdir(parents=True)
    given.touch()
    script = slurm_script.render(Slurm(), given.parent, ["true"]).removesuffix("main\n")
    script += f"prepare() {{ :; }}\none_turn() {{ code=4 then={then}; }}\nscontrol() {{ :; }}\nmain >&2\n"
    env = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1"}
    done = subprocess.run(["bash"], input=script, env=env, capture_output=True, text=True)
    assert done.returncode == (75 if then == "requeue" else 4), done.stderr
    assert given.exists() == kept
