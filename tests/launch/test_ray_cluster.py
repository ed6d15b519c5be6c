"""A real Ray behind the driver: what it tells, to whom it listens, and what is left of it.

The Ray of `world` serves all tests of a running command: two ranks that write what they see and how far they are. It is
started in a hostile place: keys in the environment, modules of other names in the working directory, a long TMPDIR.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts.lease import process_start
from fmtrain.errors import ConfigError, RankLost
from fmtrain.schema.launch import LocalRay
from launch.backends.command import Command
from launch.backends.environment import module
from launch.backends.ray_cluster import start
from launch.backends.ray_cluster.backend import RayBackend, RayJob, open_ray
from launch.backends.ray_cluster.job import fit, rank_envs
from launch.backends.ray_cluster.nodes import Node
from launch.backends.ray_cluster.rank import Place
from launch.backends.reaper import descendants
from tests.processes import placed
from tests.strangers import listeners, strangers

KEYS = {"AWS_SECRET_ACCESS_KEY": "planted-aws", "WANDB_API_KEY": "planted-wandb", "HF_TOKEN": "planted-hf"}
NAMED = "planted-named"  # a variable of launch.env, for the stages
HIDDEN = ("json.py", "random.py", "launch.py", "fmtrain/__init__.py")  # in the working directory, never to be imported
RANK = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
seen = {"env": dict(os.environ), "path": sys.path, "nice": os.nice(0), "pid": os.getpid()}
(folder / f"seen-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(seen))
while not (folder / "stop").exists():
    progress = {"done": 7, "total": 30, "unit": "steps", "loss": 2.5, "tokens_per_second": 1234.0}
    (folder / "progress.json").write_text(json.dumps(progress))
    time.sleep(0.2)
"""


def nobody_asks() -> None:
    """No signal has come."""


def command(folder: Path, ranks: int = 2, code: str = RANK, **changes: Any) -> Command:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rank.py").write_text(code)
    argv = [sys.executable, "-P", str(folder / "rank.py"), str(folder)]
    return Command("pretrain", argv, folder / "logs", ranks=ranks, **changes)


def wait_for(ready: Callable[[], Any], what: str, seconds: float = 180.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


@dataclass
class World:
    backend: RayBackend
    job: RayJob
    run: Path
    stage: Path
    temporary: Path

    @property
    def dashboard(self) -> str:
        return next(note for note in self.backend.notes if note.startswith("dashboard")).split()[1].rstrip(";")

    @property
    def token(self) -> str:
        return Path(self.backend.start.token).read_text()

    def family(self) -> list[int]:
        """Every process that descends from this one through the keeper."""
        return list(descendants(self.backend.keeper.process.pid))

    def ask(self, path: str, token: str | None = None, **headers: str) -> tuple[int, str]:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.dashboard + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    here = tmp_path_factory.mktemp("here")
    for name in HIDDEN:
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("raise RuntimeError('imported from the working directory')\n")
    temporary = here / ("t" * 58)
    temporary.mkdir()
    run = tmp_path_factory.mktemp("runs") / "20260101-000000-abcd"
    run.mkdir()
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, text in KEYS.items():
                patch.setenv(name, text)
            patch.setenv("TMPDIR", str(temporary))
            patch.setattr("tempfile.tempdir", None)
            patch.chdir(here)
            patch.setenv("MY_NAMED", NAMED)
            config = LocalRay(num_cpus=3, env=["MY_NAMED"])
            backend = stack.enter_context(open_ray(config, run, "quickstart", nobody_asks))
            stage = run / "stages" / "pretrain"
            job = placed(backend.submit(command(stage, passed=("MY_NAMED",))))
        wait_for(lambda: len(list(stage.glob("seen-*.json"))) == 2, "two ranks run")
        yield World(backend, job, run, stage, temporary)
        (stage / "stop").touch()
        assert job.wait(60) == []
    assert not Path(backend.start.home).exists(), "an undisturbed run leaves nothing"
    assert list(temporary.iterdir()) == []
    assert not (run / "ray-logs").exists()


def seen(world: World) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(world.stage.glob("seen-*.json"))]


def test_ranks_are_told_their_place_and_get_no_key(world: World) -> None:
    first, second = (rank["env"] for rank in seen(world))
    assert [(r["RANK"], r["WORLD_SIZE"], r["LOCAL_RANK"]) for r in (first, second)] == [
        ("0", "2", "0"),
        ("1", "2", "1"),
    ]
    assert first["FMTRAIN_MEETING"] == second["FMTRAIN_MEETING"]
    for rank in seen(world):
        assert not set(KEYS.values()) & set(rank["env"].values())
        assert not [name for name in rank["env"] if name.startswith("RAY_")]
        assert str(world.temporary.parent) not in rank["path"] and "" not in rank["path"]
        assert rank["nice"] == os.nice(0)
        assert rank["env"]["TMPDIR"] == world.backend.start.home
        assert rank["env"]["MY_NAMED"] == NAMED


def test_no_process_holds_a_key_or_shows_the_token(world: World) -> None:
    """Daemons, agents, workers, actors and ranks, as the kernel has them."""
    titles, held = [], list[str]()
    for pid in world.family():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            titles.append(arguments)
            held += [f"{arguments}: {name}" for name, text in KEYS.items() if text in environment]
            held += [f"{arguments}: {NAMED}"] if NAMED in environment and "rank.py" not in arguments else []
            assert world.token not in arguments
            assert world.token not in environment
    assert held == []
    for wanted in ("gcs_server", "raylet", "dashboard", "rank.py"):
        assert any(wanted in title for title in titles), wanted


def test_the_token_and_rays_folders_are_this_users_alone(world: World) -> None:
    token = Path(world.backend.start.token)
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700
    inside = [str(path) for path in Path(world.backend.start.home).rglob("*")]
    assert any("sockets" in path for path in inside), "Ray's sockets stand below the private folder"
    assert any(world.backend.start.token in note for note in world.backend.notes), "the user is told where it stands"


def test_the_dashboard_answers_the_token_alone(world: World) -> None:
    assert world.ask("/api/jobs/")[0] == 401
    assert world.ask("/api/jobs/", "x" * 43)[0] == 403
    assert world.ask("/api/jobs/", Host="rebound.example")[0] == 401
    assert world.ask("/api/jobs/", world.token)[0] == 200


def test_the_dashboard_knows_the_run_and_its_ranks(world: World) -> None:
    jobs = json.loads(world.ask("/api/jobs/", world.token)[1])
    ours = next(job for job in jobs if job["metadata"].get("run") == world.run.name)
    assert ours["metadata"]["job_name"] == f"quickstart {world.run.name}"
    assert f"recipe=quickstart run={world.run.name}" in ours["entrypoint"]
    answer = json.loads(world.ask("/api/v0/actors?detail=1", world.token)[1])
    actors = answer["data"]["result"]["result"]
    shown = {actor["repr_name"] for actor in actors if actor["state"] == "ALIVE"}
    assert shown == {"pretrain rank 0 of 2", "pretrain rank 1 of 2"}


def test_metrics_show_progress_and_the_ranks_memory(world: World) -> None:
    """As Prometheus reads them from each node's agent."""
    found = wait_for(lambda: _metrics(world), "metrics of both ranks")
    ranks = {labels["rank"] for _, labels, _ in found}
    assert ranks == {"0", "1"}
    assert {(labels["run"], labels["stage"]) for _, labels, _ in found} == {(world.run.name, "pretrain")}
    values = {(name, labels["rank"]): value for name, labels, value in found}
    assert values["progress", "0"] == 7 and values["total", "0"] == 30
    assert values["loss", "1"] == 2.5 and values["tokens_per_second", "1"] == 1234
    assert values["memory_bytes", "0"] > 5e6


def _metrics(world: World) -> list[tuple[str, dict[str, str], float]]:
    found = []
    for target in metric_targets(world):
        try:
            text = urllib.request.urlopen(f"http://{target}/metrics", timeout=30).read().decode()
        except OSError:
            continue
        for name, labels, value in re.findall(r"^ray_fmtrain_(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            found.append((name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)))
    names = {(name, labels["rank"]) for name, labels, _ in found}
    return found if len(names) == 10 else []


def metric_targets(world: World) -> list[str]:
    said = json.loads(
        Path(world.backend.start.home, "r/session_latest/prom_metrics_service_discovery.json").read_text()
    )
    targets: list[str] = said[0]["targets"]
    return targets


def listening(world: World) -> set[tuple[str, int]]:
    return set(listeners([world.backend.keeper.process.pid]))


def http_status(where: tuple[str, int], path: str) -> int:
    """What a foreign Host is answered; 0 for no answer of HTTP's."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(where[0].removeprefix("::ffff:"), where[1], timeout=5)
        connection.request("GET", path, headers={"Host": "rebound.example"})
        return connection.getresponse().status
    return 0


@pytest.mark.users
def test_a_stranger_gets_nothing_from_any_port(world: World) -> None:
    """User nobody, on this machine: noise, pickles, a foreign Host, a job for Ray to run, a client of Ray's."""
    marker = Path(tempfile.mkdtemp()) / "ran"
    marker.parent.chmod(0o777)
    ports = listeners([world.backend.keeper.process.pid])
    with strangers([world.backend.keeper.process.pid], marker) as met:
        wait_for(lambda: ports.keys() & listening(world) <= met.keys(), "all are spoken to")
    assert len(met) > 8 and not marker.exists()
    marker.parent.rmdir()
    job = {"entrypoint": f"touch {marker}"}
    dashboard = urllib.request.Request(world.dashboard + "/api/jobs/", json.dumps(job).encode(), method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(dashboard, timeout=30)
    for metrics in metric_targets(world):  # open to all by Ray's design: names and numbers, and nothing is done there
        ports = {where: title for where, title in ports.items() if where[1] != int(metrics.rpartition(":")[2])}
    answered = [where for where in ports if http_status(where, "/api/jobs/") == 200]
    assert answered == []


def test_nobody_joins_without_the_token(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over Ray's own protocol, as this very user, who is told what to export."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    config = LocalRay(address=world.backend.address)
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN_PATH"), open_ray(config, tmp_path, "r", nobody_asks):
        pass
    assert "Unauthenticated" in (tmp_path / "ray.log").read_text()


def test_ranks_of_two_nodes_of_two_gpus() -> None:
    places = [Place(n, f"10.0.0.{n}", f"n{n}", [str(g)]) for n, g in [("1", 1), ("1", 0), ("2", 0), ("2", 1)]]
    envs = rank_envs(places, Path("/shared/meeting"))
    assert [e["RANK"] for e in envs] == ["0", "1", "2", "3"]
    assert [e["LOCAL_RANK"] for e in envs] == ["0", "1", "0", "1"]
    assert {(e["MASTER_ADDR"], e["WORLD_SIZE"], e["LOCAL_WORLD_SIZE"]) for e in envs} == {("10.0.0.1", "4", "2")}
    # rank r's LOCAL_RANK-th visible GPU is the one that Ray gave to its actor
    for place, env in zip(places, envs, strict=True):
        assert env["CUDA_VISIBLE_DEVICES"].split(",")[int(env["LOCAL_RANK"])] == place.gpus[0]


def test_without_gpus_nothing_is_said_of_them() -> None:
    envs = rank_envs([Place("a", "127.0.0.1", "h", []), Place("a", "127.0.0.1", "h", [])], Path("/shared/meeting"))
    assert all("CUDA_VISIBLE_DEVICES" not in env for env in envs)


def test_what_fits_is_counted_by_node() -> None:
    nodes = [Node("a", "a", "10.0.0.1", 3, 0), Node("b", "b", "10.0.0.2", 8, 2)]
    wanted = {(2, 0): 5, (4, 0): 2, (9, 0): 0, (1, 1): 2, (4, 1): 2}
    assert {each: fit(nodes, *each) for each in wanted} == wanted


@pytest.mark.parametrize("victim", ["gcs_server", "raylet/raylet", "ray_cluster.keeper", "backends.reaper"])
def test_a_dead_ray_is_told_and_its_logs_are_kept(victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's fault, with a word on how to go on; nothing is left in TMPDIR or among the processes."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(short := Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))))
    family: dict[int, str | None] = {}
    config = LocalRay(num_cpus=2, dashboard=False)
    with (
        pytest.raises(RankLost, match="The same command goes on") as error,
        open_ray(config, tmp_path, "quickstart", nobody_asks) as backend,
    ):
        job = placed(backend.submit(command(tmp_path / "stage", ranks=1)))
        wait_for(lambda: (tmp_path / "stage/seen-0.json").exists(), "the rank runs")
        reaper = backend.keeper.process.pid
        family = descendants(reaper)
        whom = (pid for pid in family if victim in title(pid) and "reaper" not in title(pid))
        os.kill(next(whom, reaper), signal.SIGKILL)
        failures = wait_for(lambda: job.wait(1.0), "the end is noticed")
        raise AssertionError(failures)
    assert "Traceback" not in str(error.value)
    assert any((tmp_path / "ray-logs").glob("raylet.*"))
    assert [pid for pid, started in family.items() if process_start(pid) == started is not None] == []
    short.rmdir()  # nothing is in there


def title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_while_ray_starts_is_a_signal(number: int, code: int, tmp_path: Path) -> None:
    """To the driver and to every process of it, as a queue sends it."""
    store = tmp_path / "store"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a line of text " * 20}) + "\n")
    words = ["recipe=tokens", "data=local", f"data.files={tmp_path}/rows.jsonl", "launch=local", f"store={store}"]
    run = subprocess.Popen(
        module("launch.cli", "run", *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not any("gcs_server" in title(pid) for pid in descendants(run.pid)):
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    for pid in [run.pid, *descendants(run.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == code, said
    assert "the same command goes on from what is saved" in said
    assert "Traceback" not in said


def test_nothing_at_the_address_is_told_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "LISTEN_WAIT", 0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and nobody listens
        config = LocalRay(address=f"127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(ConfigError, match="no Ray listens there"), open_ray(config, tmp_path, "r", nobody_asks):
            pass

        def ctrl_c() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), open_ray(config, tmp_path, "r", ctrl_c):
            pass
    with pytest.raises(ConfigError, match="HOST:PORT"), open_ray(LocalRay(address="head"), tmp_path, "r", nobody_asks):
        pass


def test_without_a_token_the_user_is_warned(tmp_path: Path) -> None:
    settled = start.settle(LocalRay(auth="disabled"), nobody_asks)
    assert not Path(settled.home).exists(), "who makes it is there to remove it"
    assert any("can run commands as you" in warning for warning in settled.warnings)


def test_commands_run_side_by_side(world: World, tmp_path: Path) -> None:
    """Each hears of its own end alone; one without room waits for that of the others, and can be stopped meanwhile."""
    job = placed(world.backend.submit(command(tmp_path / "beside", ranks=1)))
    wait_for(lambda: len(list((tmp_path / "beside").glob("seen-*.json"))) == 1, "it runs beside the first")
    world.backend.config.wait_seconds, before = 1.0, world.backend.config.wait_seconds
    given_up, waiting = (world.backend.submit(command(tmp_path / name, ranks=1)) for name in ("third", "fourth"))
    world.backend.config.wait_seconds = before
    assert waiting.wait(3.0) is None and not waiting.hosts  # longer than launch.wait_seconds, and no fault
    given_up.stop(0.0)
    assert (job.wait(0.5), world.job.wait(0.5)) == (None, None)
    (tmp_path / "beside" / "stop").touch()
    assert wait_for(lambda: job.wait(1.0) == [], "it ends")
    wait_for(lambda: placed(waiting) and list((tmp_path / "fourth").glob("seen-*.json")), "its room is free")
    waiting.ask()
    waiting.stop(20.0)
    assert world.job.wait(0.5) is None and not list((tmp_path / "third").glob("seen-*.json"))
