"""A Ray that runs already, of two nodes, at launch.address: what reaches ranks there, room, and nodes that differ."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fmtrain.errors import ConfigError, NodesSilent, StoreError
from fmtrain.schema.launch import LocalRay
from launch.backends.ray_cluster.backend import RayBackend, open_ray
from launch.backends.ray_cluster.nodes import prober
from launch.backends.reaper import descendants
from tests.fmtrain.artifacts.test_shared import without_locks
from tests.launch.test_ray_cluster import command, nobody_asks, wait_for
from tests.processes import placed

_CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
node = {"include_dashboard": False, "object_store_memory": 80_000_000, "node_ip_address": "127.0.0.1"}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": sys.argv[1], **node})
cluster.add_node(num_cpus=3, **node, env_vars={"NCCL_SOCKET_IFNAME": "of-the-node", "SECRET_OF_THE_NODE": "yes"})
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:  # a third node, whose workers this Python runs, for as long as that line says nothing else
    if line.strip() == "remove":
        cluster.remove_node(third)
    else:
        sys.executable = line.strip()
        third = cluster.add_node(num_cpus=1, **node)
        cluster.wait_for_nodes()
    print("done", flush=True)
cluster.shutdown()
"""
_SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
}


@dataclass
class Cluster:
    address: str
    process: "subprocess.Popen[str]"

    def do(self, line: str) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = tempfile.mkdtemp(prefix="fmt-")  # short, for the sockets; Ray writes its address into `ray` there
    head = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, f"{folder}/ray"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **_SETTINGS, "TMPDIR": folder},
    )  # fmt: skip
    assert head.stdin is not None and head.stdout is not None
    yield Cluster(head.stdout.readline().strip(), head)
    head.stdin.close()
    head.wait(60)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def backend(cluster: Cluster, run: Path) -> Iterator[RayBackend]:
    with pytest.MonkeyPatch.context() as patch:
        for name, text in _SETTINGS.items():
            patch.setenv(name, text)
        patch.setenv("MY_NAMED", "planted-named")
        config = LocalRay(address=cluster.address, wait_seconds=8.0, env=["MY_NAMED"])
        with open_ray(config, run, "quickstart", nobody_asks) as found:
            yield found


def test_settings_travel_to_a_ranks_node_and_do_not_replace_its_own(
    backend: RayBackend, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the driver HF_*, NCCL_*, proxies; nothing that is on no list, its node's keys neither."""
    here = {"NCCL_SOCKET_IFNAME": "of-the-driver", "NCCL_DEBUG": "INFO", "HF_ENDPOINT": "http://hub.example",
            "https_proxy": "http://proxy.example", "WANDB_API_KEY": "planted"}  # fmt: skip
    for name, text in here.items():
        monkeypatch.setenv(name, text)
    assert backend.node_cpus(0) == 3, "the largest node holds a process of one node, the smallest sets nothing"
    job = placed(backend.submit(command(run / "env", ranks=1, cpus=3, kind="network", passed=("MY_NAMED",))))
    path = run / "env" / "seen-0.json"
    wait_for(path.exists, "the rank runs")
    env = json.loads(path.read_text())["env"]
    keeper = backend.keeper.process.pid
    held = [Path(f"/proc/{pid}/environ").read_bytes() for pid in (keeper, *descendants(keeper))]
    (run / "env" / "stop").touch()
    assert job.wait(60) == []
    assert {name: env.get(name) for name in here} == {
        **here, "NCCL_SOCKET_IFNAME": "of-the-node", "WANDB_API_KEY": None
    }  # fmt: skip
    assert "SECRET_OF_THE_NODE" not in env
    assert env["MY_NAMED"] == "planted-named" and not any(b"planted-named" in each for each in held)


def test_ranks_of_two_nodes_need_a_file_system_with_locks(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk's fault is told as such by the driver, who has it from the process that holds Ray."""
    monkeypatch.setenv("LD_PRELOAD", str(without_locks(tmp_path)))
    for name, text in _SETTINGS.items():
        monkeypatch.setenv(name, text)
    with (
        pytest.raises(StoreError, match="-o flock"),
        open_ray(LocalRay(address=cluster.address), tmp_path, "quickstart", nobody_asks) as backend,
    ):
        placed(backend.submit(command(tmp_path / "meets", ranks=2)))


def test_what_never_fits_is_told_at_once(backend: RayBackend, run: Path) -> None:
    with pytest.raises(ConfigError, match="never fit") as never:
        placed(backend.submit(command(run / "never", ranks=2, cpus=3)))
    assert "launch.cpus_per_rank" in str(never.value)


def test_a_busy_ray_is_waited_for_with_a_word(
    cluster: Cluster, run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run holds the large node: that is said, and told as an error once launch.wait_seconds are over."""
    for name, text in _SETTINGS.items():
        monkeypatch.setenv(name, text)
    config = LocalRay(address=cluster.address, wait_seconds=8.0)
    (other := run.with_name("other-run")).mkdir()
    with open_ray(config, run, "r", nobody_asks) as first, open_ray(config, other, "r", nobody_asks) as second:
        job = placed(first.submit(command(run / "holds", ranks=1, cpus=3)))
        with pytest.raises(ConfigError, match="launch.wait_seconds=8"):
            placed(second.submit(command(other / "waits", ranks=1, cpus=3)))
        assert "wait for room in this Ray" in capfd.readouterr().out
        job.stop(5.0)


def test_a_node_that_runs_something_else_is_named(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third node with another datatrove: before the first stage, with the version there and here."""
    for name, text in _SETTINGS.items():
        monkeypatch.setenv(name, text)
    venv.create(tmp_path / "other", with_pip=False)
    (site,) = (tmp_path / "other").glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    (site / "datatrove-0.0.1.dist-info").mkdir()
    (site / "datatrove-0.0.1.dist-info" / "METADATA").write_text("Name: datatrove\nVersion: 0.0.1\n")
    cluster.do(str(tmp_path / "other/bin/python"))
    try:
        with (
            pytest.raises(ConfigError, match=r"(?s)1 of 3 node.*datatrove 0\.0\.1, here ") as error,
            open_ray(LocalRay(address=cluster.address), tmp_path, "quickstart", nobody_asks),
        ):
            pass
    finally:
        cluster.do("remove")
    assert "torch" not in str(error.value), "what is alike is not listed"


def test_room_that_a_lost_node_had_blames_no_setting(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it say that what fitted when the run began never will; a queue gives the run other nodes."""
    for name, text in _SETTINGS.items():
        monkeypatch.setenv(name, text)
    cluster.do(sys.executable)
    with open_ray(LocalRay(address=cluster.address), tmp_path, "quickstart", nobody_asks) as backend:
        assert len(backend.nodes) == 3 and backend.cpus == 5
        cluster.do("remove")
        with pytest.raises(NodesSilent, match="gone from this Ray, which has: "):
            wait_for(lambda: placed(backend.submit(command(tmp_path / "wide", ranks=5))).stop(0.0), "a refusal")


_COMPARE = """
import sys
import ray
from fmtrain.errors import FmtrainError
from launch.backends.ray_cluster import nodes
nodes.PROBE_WAIT = 5.0
ray.init(address=sys.argv[1], log_to_driver=False)
try:
    nodes.compare(nodes.living(), None)
except FmtrainError as e:
    print(type(e).__name__, e)
"""


def test_a_node_that_starts_no_process_in_time_blames_no_setting(cluster: Cluster, tmp_path: Path) -> None:
    asleep = tmp_path / "python"
    asleep.write_text(
        f'#!/bin/sh\ncase "$*" in *default_worker.py*) exec sleep 15 ;; esac\nexec "{sys.executable}" "$@"\n'
    )
    asleep.chmod(0o755)
    cluster.do(str(asleep))
    try:
        asking = [sys.executable, "-c", _COMPARE, cluster.address]
        done = subprocess.run(asking, capture_output=True, text=True, env={**os.environ, **_SETTINGS})
    finally:
        cluster.do("remove")
    assert done.stdout.startswith("NodesSilent "), done.stdout + done.stderr
    assert "of 3 node(s) of this Ray do not answer:" in done.stdout
    assert "started no process of ours within 5 s" in done.stdout


def test_a_probe_knows_other_code(tmp_path: Path) -> None:
    package = tmp_path / "fmtrain"
    package.mkdir()
    (package / "__init__.py").write_text("other = 1\n")
    code = (
        "import json, sys; from launch.backends.ray_cluster.nodes import prober; probe = prober()\n"
        "sys.path.insert(0, sys.argv[1]); del sys.modules['fmtrain']; print(json.dumps(probe()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    here, there = prober()(), json.loads(done.stdout)
    assert {name for name in here if here[name] != there[name]} == {"fmtrain's code"}
