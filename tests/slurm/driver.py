"""Stands in for `python -m launch.cli run ..` inside a job: uses the Ray it is given, and leaves as it is told.

usage: driver.py hosts CODE | driver.py save FOLDER
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

ASKED: list[int] = []


def ask(number: int, frame: FrameType | None) -> None:
    ASKED.append(number)


def hosts() -> list[str]:
    """The hosts that a task on each of Ray's nodes finds itself on."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    nodes = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]
    where = ray.remote(lambda: socket.gethostname())  # Ray takes no builtin
    return sorted(ray.get([where.options(scheduling_strategy=node).remote() for node in nodes]))


def main() -> None:
    mode, argument = sys.argv[1:3]
    signal.signal(signal.SIGUSR1, ask)
    turn = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    print(f"driver begins, turn {turn}", flush=True)
    if mode == "hosts":
        names = ("FMTRAIN_JOB", "FMTRAIN_RUN", "RAY_AUTH_MODE")
        print(json.dumps({"hosts": hosts(), **{name: os.environ[name] for name in names}}), flush=True)
        sys.exit(int(argument))
    if turn > 0:
        print("driver goes on from", Path(argument, "saved").read_text(), flush=True)
        sys.exit(0)
    while not ASKED:
        time.sleep(0.1)
    Path(argument, "saved").write_text("what it saved")
    sys.exit(75)


main()
