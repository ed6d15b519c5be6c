"""Jobs on a real Slurm: Ray over both nodes, exit codes, another turn, and what `wait` makes of every end."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fmtrain.errors import ConfigError
from fmtrain.schema.launch import Slurm
from launch.backends import slurm
from launch.backends.reaper import descendants
from launch.templates.testing.cluster import Cluster
from tests.slurm.conftest import ray_processes, until_said
from tests.slurm.faults import until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(500)]
Submit = Callable[..., tuple[str, Path]]


def plain(run_dir: Path, command: str, *options: str) -> str:
    """A job of one shell line, without our template and so without Ray."""
    run_dir.mkdir(exist_ok=True)
    argv = ["sbatch", "--parsable", f"--output={run_dir}/slurm-%j.out", "--open-mode=append", *options]
    return subprocess.run([*argv, f"--wrap={command}"], capture_output=True, text=True, check=True).stdout.strip()


def wait(job: str, run_dir: Path) -> int:
    return slurm.wait(job, slurm.output(run_dir, job), run_dir, poll=0.3)


def test_refused_by_sbatch(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="(?s)sbatch refused the job: .*invalid partition.*launch.partition"):
        slurm.submit(Slurm(partition="nowhere"), tmp_path / "run", ["true"])


def test_odd_names_reach_slurm_whole(cluster: Cluster, tmp_path: Path) -> None:
    run_dir = tmp_path / """it's a "run" of 100% #1"""
    job = slurm.submit(Slurm(sbatch_extra=["--hold"]), run_dir, ["true"])
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    subprocess.run(["scancel", job], check=True)
    assert f"JobName=fmtrain-{run_dir.name}\n" in shown
    assert f"Command={run_dir}/job.sbatch\n" in shown
    assert f"WorkDir={Path.cwd()}\n" in shown


def test_two_nodes_one_ray(cluster: Cluster, submit: Submit, capsys: pytest.CaptureFixture[str]) -> None:
    job, run_dir = submit("hosts", "3")
    assert wait(job, run_dir) == 3
    out = capsys.readouterr().out
    said = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    assert said == {"hosts": ["n1", "n2"], "FMTRAIN_JOB": job, "FMTRAIN_RUN": "run-1", "RAY_AUTH_MODE": "token"}
    assert out == slurm.output(run_dir, job).read_text()
    assert (run_dir / "exit_code").read_text() == "3\n"
    assert not list(run_dir.glob("*.token"))
    assert ray_processes(cluster) == []


@pytest.mark.long
def test_saved_means_another_turn(submit: Submit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """USR1 comes to the batch shell alone, as before the time limit; the command saves, leaves with 75, goes on."""
    job, run_dir = submit("save", str(tmp_path))
    until_said(slurm.output(run_dir, job), "driver begins, turn 0")
    (token,) = run_dir.glob("*.token")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    assert wait(job, run_dir) == 0
    said = capsys.readouterr().out
    assert "queued again" in said
    assert "driver goes on from what it saved" in said
    assert "Restarts=1" in subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout


@pytest.mark.long
def test_no_more_turns_than_allowed(submit: Submit, capsys: pytest.CaptureFixture[str]) -> None:
    job, run_dir = submit("hosts", "75", nodes=1, max_restarts=0)
    assert wait(job, run_dir) == 75
    assert "a turn without a step, and launch.max_restarts=0" in capsys.readouterr().out


@pytest.mark.long
def test_cancelled_while_it_runs(
    cluster: Cluster, submit: Submit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, run_dir = submit("save", str(tmp_path))
    until_said(slurm.output(run_dir, job), "driver begins")
    subprocess.run(["scancel", job], check=True)
    assert wait(job, run_dir) == 130
    assert f"job {job} was cancelled" in capsys.readouterr().err
    assert ray_processes(cluster) == []


@pytest.mark.long
def test_a_ray_that_does_not_come_up_is_tried_again(
    cluster: Cluster, submit: Submit, capsys: pytest.CaptureFixture[str]
) -> None:
    job, run_dir = submit("hosts", "0")
    until(lambda: held(cluster, "n2") != [], 240, "Ray begins on n2")
    os.kill(held(cluster, "n2")[0], signal.SIGKILL)
    assert wait(job, run_dir) == 0
    out = capsys.readouterr().out
    assert "Ray did not come up" in out and "turn 1 in this allocation" in out


def held(cluster: Cluster, node: str) -> list[int]:
    """The processes on a node that hold Ray."""
    below = descendants(int((cluster.state / f"{node}.pid").read_text().split()[0]))
    return [pid for pid in below if b"launch.backends.node\0hold" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.long
def test_a_lost_ray_is_started_again(submit: Submit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, run_dir = submit("save", str(tmp_path))
    until_said(slurm.output(run_dir, job), "driver begins")
    subprocess.run(["scancel", "--signal=KILL", f"{job}.2"], check=True)  # the step that holds Ray on the second node
    until_said(slurm.output(run_dir, job), "turn 1 in this allocation")
    until_said(slurm.output(run_dir, job), "driver begins", count=2)
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    assert wait(job, run_dir) == 0
    out = capsys.readouterr().out
    assert "Ray ended on a node" in out and "driver goes on from what it saved" in out


def test_a_code_of_its_own(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = plain(tmp_path, "printf 'gr\\303\\274n\\n'; exit 7")
    assert wait(job, tmp_path) == 7
    assert "grün\n" in capsys.readouterr().out


def test_killed_by_a_signal(cluster: Cluster, tmp_path: Path) -> None:
    assert wait(plain(tmp_path, "kill -KILL $$"), tmp_path) == 128 + signal.SIGKILL


def test_cancelled_before_it_began(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = plain(tmp_path, "true", "--hold")
    assert slurm.state(job) == "PENDING"
    subprocess.run(["scancel", job], check=True)
    assert wait(job, tmp_path) == 130


def test_forgotten_by_slurm(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert slurm.state("999999") == "UNKNOWN"
    assert wait("999999", tmp_path) == 4
    assert "Slurm has forgotten job 999999" in capsys.readouterr().err
    (tmp_path / "exit_code").write_text("3\n")
    assert wait("999999", tmp_path) == 3


def test_requeued_from_outside(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = plain(
        tmp_path, "echo turn ${SLURM_RESTART_COUNT:-0}; [ ${SLURM_RESTART_COUNT:-0} = 1 ] || sleep 60", "--requeue"
    )
    until_said(slurm.output(tmp_path, job), "turn 0")
    subprocess.run(["scontrol", "requeue", job], check=True)
    assert wait(job, tmp_path) == 0
    assert "turn 1" in capsys.readouterr().out


def test_interrupting_the_wait_leaves_the_job(cluster: Cluster, tmp_path: Path) -> None:
    job = plain(tmp_path, "echo it runs; sleep 60")
    call = f"slurm.wait('{job}', slurm.output(Path({str(tmp_path)!r}), '{job}'), Path({str(tmp_path)!r}), 0.3)"
    code = f"import sys; from pathlib import Path; from launch.backends import slurm; sys.exit({call})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == "it runs\n"
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=20)[1]
    assert p.returncode == 130
    assert f"tail -F {tmp_path}/slurm-{job}.out; cancel it: scancel {job}" in said
    assert slurm.state(job) == "RUNNING"
    subprocess.run(["scancel", job], check=True)
    assert wait(job, tmp_path) == 130


@pytest.mark.long
def test_ended_by_slurm(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A power cut under a job that may not run again, and beside it a job that takes longer than it asked for."""
    late = plain(tmp_path, "sleep 200", "--nodelist=n1", "--time=1")
    cut = plain(tmp_path, "echo it runs; sleep 100", "--nodelist=n2", "--no-requeue")
    until_said(slurm.output(tmp_path, cut), "it runs")
    cluster("node-kill", "n2")
    try:
        assert wait(cut, tmp_path) == 4
        assert "ended by Slurm with NODE_FAIL" in capsys.readouterr().err
    finally:
        cluster("start")
    assert wait(late, tmp_path) == 4
    assert "give it longer with launch.time" in capsys.readouterr().err
