"""The process that holds Ray for one run: `python -m launch.backends.ray_cluster.keeper FD recipe=NAME run=ID`.

It starts or joins Ray, says what there is, and runs commands for the driver at the other end of the socket FD. It keeps
no state that a run would miss. Signals of a terminal or a queue are the driver's to answer.
"""

import contextlib
import os
import shlex
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fmtrain.artifacts.machine import cpus
from fmtrain.artifacts.worker import die_with_parent
from fmtrain.errors import ConfigError, FmtrainError, RankLost
from launch.backends.ray_cluster import nodes
from launch.backends.ray_cluster.job import Joined, RayJob, order_of
from launch.backends.ray_cluster.line import Closed, Line, Message

POLL = 0.1  # seconds between two looks at a running command
MB = 1_000_000
_STORE_SHARE, _STORE_MB = 0.05, (100, 2000)  # of memory for Ray's objects: tasks and counts, for data lie in files
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def main(argv: list[str]) -> None:
    die_with_parent()
    line = Line(socket.socket(fileno=int(argv[0])))
    try:
        settings = line.hear(60.0)
        assert settings is not None, "the driver says what to do first"
        with contextlib.suppress(Closed):
            _run(line, settings)
    except FmtrainError as e:
        line.say("refused", error=type(e).__name__, message=str(e))
    except Exception as e:  # of Ray's, which has many; the driver's user is told, the traceback is in this log
        traceback.print_exc()
        line.say("refused", error=type(e).__name__, message=f"Ray: {type(e).__name__}: {e}")


def _run(line: Line, settings: Message) -> None:
    with _ray(settings) as where:
        have = nodes.living()
        joined = Joined(settings["run"], have, _logs() if settings["home"] else None)
        nodes.compare(have, joined.logs)
        line.say("ready", nodes=nodes.as_message(have), **where)
        _serve(line, joined)


@contextlib.contextmanager
def _ray(settings: Message) -> Iterator[dict[str, str]]:
    """Ray for the block, joined or started; its address and its dashboard's, where it has one."""
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning", "namespace": settings["run"]}
    options["job_config"] = ray.job_config.JobConfig(metadata=settings["metadata"])
    names = ("PYTHONPATH", "PYTHONSAFEPATH")
    runtime: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in names if name in os.environ}}
    if settings["address"]:
        options["address"] = settings["address"]
    else:
        options |= _start_options(settings["home"], settings["options"])
        if shlex.quote(sys.executable) != sys.executable:  # a blank, say: Ray hands it to a shell as it is
            runtime["py_executable"] = shlex.quote(sys.executable)
    # Workers of a job import from the folder that it was started in, before all others: let it be one they have anyway
    with contextlib.chdir(os.path.dirname(os.__file__)):
        try:
            context = ray.init(**options, runtime_env=runtime)
        except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as e:
            if not settings["named"]:
                raise
            raise ConfigError(
                f"launch.address={settings['address']}: that Ray does not let this driver join: {e}\nIt must be of the "
                "same version and Python; where it asks for a token, export RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN_PATH=FILE"
            ) from e
    for number in _SIGNALS:  # Ray has put handlers of its own there
        signal.signal(number, _leave_it_to_the_driver)
    try:
        yield {"address": context.address_info["gcs_address"], "dashboard": context.address_info.get("webui_url") or ""}
    finally:
        ray.shutdown()


def _leave_it_to_the_driver(number: int, frame: object) -> None:
    """What the driver's signal means for Ray, the driver says over the line."""


def object_store(given_mb: int | None = None) -> int:
    """Bytes for Ray's objects on this machine."""
    from ray._private.utils import get_system_memory

    least, most = _STORE_MB
    return (given_mb or min(most, max(least, int(get_system_memory() * _STORE_SHARE / MB)))) * MB


def _start_options(home: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "address": "local",
        "_temp_dir": os.path.join(home, "r"),
        "num_cpus": config["num_cpus"] or max(2, cpus()),
        "object_store_memory": object_store(config["object_store_mb"]),
        "include_dashboard": config["dashboard"],
        "dashboard_host": "127.0.0.1",
    }


def _serve(line: Line, joined: Joined) -> None:
    """Run what the driver submits, each command under its number, until the driver is gone or says `close`."""
    jobs: dict[int, RayJob] = {}
    while True:
        asked = line.hear(0.0 if jobs else 1.0) or {"kind": ""}
        _own_ray_lives()
        job = jobs.get(asked.get("job", -1))
        if asked["kind"] == "close":
            return
        if asked["kind"] == "submit":
            order = order_of(asked["order"])
            jobs[asked["job"]] = RayJob(order, joined, partial(line.say, "note"), lambda: len(jobs) == 1)
        elif asked["kind"] == "ask" and job is not None:
            job.ask()
        elif asked["kind"] == "stop" and job is not None:
            del jobs[asked["job"]]
            job.stop(asked["grace"])
            line.say("stopped", job=asked["job"])
        for number, one in list(jobs.items()):
            if said := _turn(one, POLL / len(jobs)):
                line.say(job=number, **said)
                if said["kind"] != "placed":
                    del jobs[number]


def _turn(job: RayJob, seconds: float) -> Message | None:
    """What there is to say of a command after one look at it."""
    try:
        if not job.hosts:
            return {"kind": "placed", "hosts": job.hosts} if job.placed() else None
        failures = job.wait(seconds)
    except FmtrainError as e:
        return {"kind": "refused", "error": type(e).__name__, "message": str(e)}
    return None if failures is None else {"kind": "ended", "failures": [asdict(failure) for failure in failures]}


def _logs() -> Path:
    import ray

    return Path(ray._private.worker._global_node.get_logs_dir_path())


def _own_ray_lives() -> None:
    """RankLost names the process of a Ray of ours that has died: without it nothing would ever be answered."""
    import ray

    node = ray._private.worker._global_node
    dead = [name for name, _ in node.dead_processes()] if node is not None else []
    if lost := [name for name in dead if name in ("gcs_server", "raylet")]:
        raise RankLost(f"Ray's {' and '.join(lost)} on this machine has died")


if __name__ == "__main__":
    main(sys.argv[1:])
