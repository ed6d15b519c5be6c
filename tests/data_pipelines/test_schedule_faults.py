"""Workers that die, freeze and come back, a driver and a node that are killed: on a real Ray, with real signals."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_pipelines.tasks import MAX_RETRIES, last_beat
from tests.data_pipelines.steps import drive, said, start
from tests.processes import Place

# Two nodes on one machine; on a line of input the second one's raylet is killed, or all that it has started as well.
_TWO_NODES = """
import signal, sys, os
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False,
                  "object_store_memory": 80_000_000, "temp_dir": sys.argv[1], "node_ip_address": "127.0.0.1"})
other = cluster.add_node(num_cpus=2, object_store_memory=80_000_000, node_ip_address="127.0.0.1")
cluster.wait_for_nodes()
print(cluster.address, other.node_id, flush=True)
if what := sys.stdin.readline().strip():
    pid = other.all_processes["raylet"][0].process.pid
    children = open(f"/proc/{pid}/task/{pid}/children").read().split() if what == "node" else []
    for victim in [pid, *map(int, children)]:
        os.kill(victim, signal.SIGKILL)
    print("killed", flush=True)
    sys.stdin.read()
cluster.shutdown()
"""


def wait_for(ready: Callable[[], bool], what: str, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, f"the driver ended before {what}: {process.stderr and process.stderr.read()}"
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def parts(folder: Path) -> Path:
    (found,) = (folder / "work" / "parts").iterdir()
    return found


def files(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in sorted(parts(folder).glob("*/*.txt"))}


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_frozen_or_hanging_task_is_killed_and_run_again(tmp_path: Path, ray_env: dict[str, str]) -> None:
    """SIGSTOP, which Ray's own cancel cannot end; a task that ticks may take longer than the heartbeat."""
    outcome = drive(tmp_path, "ray", ["freezes_once", "hangs_once"], ray_env, items="ab")
    assert outcome["freezes_once"] == outcome["hangs_once"] == "[{'tasks': 1}, {'tasks': 1}]"
    assert outcome["freezes_once attempts"] == outcome["hangs_once attempts"] == "2"
    pid = int((parts(tmp_path) / "frozen.pid").read_text())
    assert not alive(pid)
    assert f"(pid {pid}): no sign of life for 3 s" in outcome["stderr"]


def test_an_attempt_out_of_reach_does_not_publish_when_it_comes_back(tmp_path: Path, ray_env: dict[str, str]) -> None:
    """The old attempt cannot be killed; it wakes and ends well while the new one works."""
    outcome = drive(tmp_path, "ray", ["zombie"], ray_env, items="a")
    assert outcome["zombie"] == "[{'tasks': 1}]" and (parts(tmp_path) / "zombie.ended").exists()
    assert files(tmp_path) == {"out.txt": "new"}
    assert [p.name for p in (parts(tmp_path) / "zombie" / ".done").iterdir()] == ["00000.json"]


def test_a_stage_that_holds_a_sliver_of_a_cpu_costs_no_whole_one(tmp_path: Path, ray_env: dict[str, str]) -> None:
    """The launcher's actor asks for 0.001 CPU: on two CPUs two tasks still run side by side."""
    outcome = drive(tmp_path, "ray", ["meet"], ray_env, items="ab")
    assert outcome["meet"] == "[{'tasks': 1}, {'tasks': 1}]"


@pytest.mark.long
@pytest.mark.parametrize(
    ("step", "words"), [("dies", "it was lost (WorkerCrashedError"), ("freezes", "no sign of life for 3 s")]
)
def test_a_task_that_always_dies_fails_the_stage(
    tmp_path: Path, ray_env: dict[str, str], step: str, words: str
) -> None:
    outcome = drive(tmp_path, "ray", [step], ray_env, items="a")
    assert outcome[step].startswith(f"StageFailed task corpus:{step}:0 failed on ") and words in outcome[step]
    assert outcome[f"{step} attempts"] == str(MAX_RETRIES + 1)


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_a_killed_driver_s_rerun_goes_on(tmp_path: Path, ray_env: dict[str, str], executor: str) -> None:
    """Finished tasks are reused; another number of tasks starts anew."""
    env, items = ray_env if executor == "ray" else {}, "abcdef"
    first = start(tmp_path, executor, ["slow"], env, items)
    wait_for(lambda: len(list(tmp_path.glob("work/parts/*/slow/.done/*.json"))) >= 2, "two tasks were done", first)
    first.kill()
    first.communicate()
    done = {int(p.stem) for p in parts(tmp_path).glob("slow/.done/*.json")}
    assert 2 <= len(done) < len(items)
    outcome = drive(tmp_path, executor, ["slow"], env, items)
    assert outcome["slow"] == str([{"documents": 8}] * len(items))
    assert files(tmp_path) == {f"{rank}.txt": item * 100 for rank, item in enumerate(items)}
    tried = {items.index(p.name): len(list(p.iterdir())) for p in parts(tmp_path).glob("attempts/slow/*")}
    assert {rank: tried[rank] for rank in done} == dict.fromkeys(done, 1)
    assert drive(tmp_path, executor, ["slow"], env, "xyz")["slow attempts"] == "1"
    assert files(tmp_path) == {f"{rank}.txt": item * 100 for rank, item in enumerate("xyz")}


@pytest.mark.long
def test_progress_stands_in_ray_s_metrics(tmp_path: Path, ray_env: dict[str, str]) -> None:
    outcome = drive(tmp_path, "ray", ["slow"], {**ray_env, "TEST_METRICS": "1"}, items="ab")
    lines = outcome["metrics"].split("; ")
    for name, value in (("documents", 16), ("bytes", 16_000)):  # drivers before this one may still be shown
        mine = [ln for ln in lines if ln.startswith(f"ray_fmtrain_corpus_{name}{{") and 'stage="corpus"' in ln]
        assert value in [float(ln.split()[-1]) for ln in mine if 'step="slow"' in ln]


@pytest.fixture
def two_nodes(ray_env: dict[str, str], place: Place) -> Iterator["tuple[subprocess.Popen[str], dict[str, str]]"]:
    env = {**ray_env, "RAY_ADDRESS": "", "RAY_health_check_failure_threshold": "2"}
    command = [sys.executable, "-c", _TWO_NODES, str(place.folder / "ray")]  # where Ray looks for its address
    nodes = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **env, **place.env},
    )  # fmt: skip
    assert nodes.stdin is not None and nodes.stdout is not None
    address, other = nodes.stdout.readline().split()
    assert address.startswith("127.0.0.1:"), address
    yield nodes, {**ray_env, "RAY_ADDRESS": address, "TEST_OTHER_NODE": other}
    nodes.stdin.close()
    nodes.wait(60)


@pytest.mark.long
@pytest.mark.parametrize("what", ["raylet", "node"])
def test_a_node_killed_in_the_middle_changes_nothing(
    tmp_path: Path, two_nodes: "tuple[subprocess.Popen[str], dict[str, str]]", what: str
) -> None:
    """Ray's workers outlive their raylet for a while: their results are taken where they still arrive."""
    nodes, env = two_nodes
    items, folder = "ABCDEFGHIJ", tmp_path / "work" / "parts"

    def begun_on_the_other_node() -> bool:
        """A task at its end could be done before the signal comes, and nothing would be lost."""
        beats = (last_beat(p) for p in list(folder.glob("*/slow/.done/*.tick")))
        return any(b is not None and b.node == env["TEST_OTHER_NODE"] and b.units <= 2 for b in beats)

    driver = start(tmp_path, "ray", ["slow"], env, items)
    wait_for(lambda: any(folder.glob("*/slow/.done/*.json")), "a task was done", driver)
    wait_for(begun_on_the_other_node, "one had begun on the other node", driver)
    assert nodes.stdin is not None and nodes.stdout is not None
    print(what, file=nodes.stdin, flush=True)
    assert nodes.stdout.readline() == "killed\n"
    out, err = driver.communicate(timeout=180)
    assert driver.returncode == 0, err
    assert said(out)["slow"] == str([{"documents": 8}] * len(items))
    assert files(tmp_path) == {f"{rank}.txt": item * 100 for rank, item in enumerate(items)}
    assert what == "raylet" or ("it was lost (" in err and "; again" in err)
