"""What a user of Slurm expects of a submission, asked of a real sbatch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fmtrain.schema.launch import Slurm
from launch.backends import slurm, slurm_script
from launch.cli import main
from launch.templates.testing.cluster import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(500)]


@pytest.mark.parametrize(
    "field",
    [
        {"mail_type": "END,FAIL", "mail_user": "A User <a@b.example>"},
        {"mem": "2G"},
        {"exclusive": True},
        {"dependency": "singleton"},
        {"reservation": "our slot"},
        {"gres": "gpu:fake:1"},
        {"signal_seconds": 300},
        {"output": "/tmp/my jobs/of %j.out"},
        {"job_name": "a name with blanks"},
        {"comment": 'it\'s "for" grant #7 & $HOME'},
        {"time": "1-00:00:00"},
        {"container": ["env", "A=b c"]},
        {"setup": "export A='b c'"},
        {"sbatch_extra": ["--wckey='a b'", "--nice=5"]},
    ],
    ids=lambda field: next(iter(field)),
)
def test_sbatch_takes_every_field(field: dict[str, object], cluster: Cluster, tmp_path: Path) -> None:
    if "reservation" in field:
        made = ["create", "reservation", "reservationname=our slot", "starttime=now", "duration=60", "user=root"]
        cluster("exec", "scontrol", *made, "nodes=ALL", "flags=overlap")
    script = tmp_path / "job.sbatch"
    script.write_text(slurm_script.render(Slurm(**field), tmp_path / "runs" / "a run", ["true"]))  # type: ignore[arg-type]
    done = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True)
    if "reservation" in field:  # what it holds is nobody else's
        cluster("exec", "scontrol", "delete", "reservationname=our slot")
    assert done.returncode == 0, done.stderr


def test_the_queue_shows_what_it_is(cluster: Cluster, tmp_path: Path) -> None:
    """squeue's eight letters are the recipe's; the printed script is submitted as it stands, from anywhere."""
    submit = ["launch=slurm", "launch.sbatch_extra=[--hold]", f"store={tmp_path / 'a store'}"]
    (tmp_path / "here").mkdir()
    printed = subprocess.run(
        [sys.executable, "-m", "launch.cli", "run", "recipe=quickstart_tiny", *submit, "launch.dry_run=true"],
        cwd=tmp_path / "here", capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert not (tmp_path / "a store").exists()
    job = subprocess.run(["sbatch", "--parsable"], input=printed, capture_output=True, text=True, check=True).stdout
    shown = subprocess.run(["squeue", "-h", "-j", job.strip(), "-o", "%.8j %k"], capture_output=True, text=True).stdout
    said = subprocess.run(["scontrol", "show", "job", job.strip()], capture_output=True, text=True).stdout
    subprocess.run(["scancel", job.strip()], check=True)
    assert re.fullmatch(r"quicksta fmtrain run [\w-]+\n", shown)
    assert f"StdOut={tmp_path}/here/slurm-{job.strip()}.out" in said


SHOWN = """
import os, ray
ray.init(log_to_driver=False)
folder = ray._private.worker.global_worker.node.get_temp_dir_path()
look = ray.remote(lambda: (os.nice(0), oct(os.stat(os.path.dirname(folder)).st_mode), os.environ.get("PLANTED_KEY")))
print(os.environ["FMTRAIN_TUNNEL"])
names = ("FMTRAIN_STORE", "RAY_ADDRESS", "A", "PLANTED_KEY")
print(*(os.environ.get(name) for name in names), *ray.get(look.remote()), sep="|")
"""


def test_a_bare_environment_and_a_careless_setup(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--export=NONE, and a `setup` that touches what is not set: Ray comes up, the store is FMTRAIN_STORE's, workers
    run at nice 0 in a folder that is fresh and private, and a key that the command has is not theirs."""
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    monkeypatch.setenv("SLURM_EXPORT_ENV", "NONE")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "2")  # would count more than the script's own line
    run_dir = tmp_path / "a store" / "runs" / "run-1"
    setup = "export PLANTED_KEY=x; echo [$nothing_of_this_name]; set -e; false || true"
    cfg = Slurm(cpus_per_task=2, setup=setup, container=["env", "A=b c"], time="00:20:00")
    job = slurm.submit(cfg, run_dir, [sys.executable, "-c", SHOWN])
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    assert "TimeLimit=00:20:00" in shown
    assert slurm.wait(job, slurm.output(run_dir, job), run_dir, 0.3) == 0
    out = capsys.readouterr().out
    assert "\n[]\n" in out
    assert re.search(rf"^{tmp_path}/a store\|127\.0\.0\.1:\d+\|b c\|x\|0\|0o40700\|None$", out, re.M), out
    assert re.search(r"^ssh -N -L 8265:127\.0\.0\.1:\d+ -J login n\d, then http://127\.0\.0\.1:8265 ", out, re.M)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["launch.gpus_per_node=8"], "launch.cpus_per_task=8"),
        (["launch.gres=gpu:a100:8"], "launch.cpus_per_task=8"),
        (["launch.ranks=2", "launch.cpus_per_rank=8"], "launch.cpus_per_task=16"),
        (["launch.ranks=3"], "global_batch_size"),
        (["launch.nodes=3", "launch.ranks=3"], "global_batch_size"),
        (["launch.gpus_per_node=1", "launch.ranks=2"], "launch.ranks=1, or launch.nodes=2"),
        (["launch.sbatch_extra=['--array=0-3']"], "one run is one job"),
    ],
)
def test_what_the_job_would_find_out_is_refused(
    overrides: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["run", "recipe=quickstart_tiny", "launch=slurm", f"store={tmp_path / 's'}", *overrides]
    assert main([*given, "launch.dry_run=true"]) == 2
    assert says in capsys.readouterr().err
