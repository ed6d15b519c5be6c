"""Ray on one node of a Slurm job, held by a process that Slurm's signals pass by: python -m launch.backends.node VERB.

    place PEER..          print where Ray's head is to listen: IP:PORT, the dashboard's port, the port of Ray's client
    hold OPTIONS          bring Ray up here and hold it until USR1 (stop) or USR2 (stop, and keep its logs)
    await NODES SECONDS   until Ray itself counts so many nodes

Preempting a job, Slurm sends SIGTERM to every process of its steps and leaves them GraceTime seconds. A Ray that heard
it would be gone before its ranks had saved, so SIGTERM is blocked here, and a blocked signal stays so in every process
that this one starts. The workers of a stage unblock it for themselves (fmtrain.artifacts.worker).
"""

import argparse
import contextlib
import logging
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fmtrain.artifacts.machine import address_of, own_address
from launch.backends.environment import environment
from launch.backends.ray_cluster.keeper import object_store
from launch.backends.ray_cluster.start import SETTINGS
from launch.backends.reaper import end_all, keep_logs, keep_orphans

PORTS = range(20_000, 32_000)  # below those that the kernel hands out to whoever connects


def free_port() -> int:
    """A port that nothing on this machine is bound to at this moment."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise OSError(f"none of the ports {PORTS.start} to {PORTS.stop} is free on {socket.gethostname()}")


def address(peers: list[str]) -> str:
    """This node's address on the way to the first of `peers` that can be resolved; loopback where there is none."""
    for peer in peers:
        with contextlib.suppress(OSError):
            if not (found := own_address(peer, socket.AF_INET)).startswith("127."):
                return found
    if peers:
        raise OSError(f"{socket.gethostname()} finds no way to {' '.join(peers)}: are their names known here?")
    return "127.0.0.1"


def place(peers: list[str], interface: str) -> str:
    """The head's IP:PORT, its dashboard's port, and the port of Ray's client."""
    where = interface_address(interface) if interface else address(peers)
    ports = [free_port() for _ in range(3)]
    return f"{where}:{ports[0]} {ports[1]} {ports[2]}"


def interface_address(name: str) -> str:
    """The IPv4 address of a network interface, as launch.interface names it."""
    if (found := address_of(name)) is None or ":" in found:
        have = " ".join(entry for _, entry in socket.if_nameindex())
        raise OSError(f"launch.interface={name} has no IPv4 address on {socket.gethostname()}, which has {have}")
    return found


class Holder:
    """`ray start` as a child, with everything that it starts, until a signal or its own end."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.asked: int | None = None
        # Fresh, ours alone, and short: the path of a UNIX socket ends at 107 bytes, and TMPDIR may be long.
        self.folder = Path(tempfile.mkdtemp(prefix="fmt-", dir="/tmp"))
        self.temporary = tempfile.mkdtemp(prefix="fmtrain-")  # TMPDIR of what runs in this Ray

    def run(self) -> int:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._ask)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        keep_orphans()
        try:
            env = environment("ray") | SETTINGS | {"TMPDIR": self.temporary}
            process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, env=env)
            while self.asked is None and process.poll() is None:
                time.sleep(0.2)
            code = process.poll()
            end_all()
            if self.asked != signal.SIGUSR1:  # a node that shares nothing with the run loses them
                with contextlib.suppress(OSError, shutil.Error):
                    keep_logs(self.folder, Path(f"{self.args.logs}-{socket.gethostname()}"))
        finally:
            for folder in (self.folder, self.temporary):
                shutil.rmtree(folder, ignore_errors=True)
        return 0 if self.asked is not None else code or 1

    def _ask(self, number: int, frame: object) -> None:
        self.asked = self.asked or number

    def _command(self) -> list[str]:
        args = self.args
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--block"]
        ray += [f"--num-cpus={args.cpus}", f"--num-gpus={args.gpus}", f"--object-store-memory={object_store()}"]
        # Worker ports 0: the kernel's choice. Ray's own, 10002 and up, meet those of another job on the same node.
        ray += [f"--dashboard-agent-listen-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0"]
        ray.append(f"--temp-dir={self.folder / 'r'}")  # below ours: Ray opens its own to everybody
        if not args.head:
            return [*ray, f"--address={args.address}"]
        ip, _, port = args.address.rpartition(":")
        ray += ["--head", f"--node-ip-address={ip}", f"--port={port}"]
        ray += ["--dashboard-host=127.0.0.1", f"--dashboard-port={args.dashboard}"]
        return [*ray, f"--ray-client-server-port={args.client}"]


def await_nodes(want: int, seconds: float) -> int:
    """0 when Ray counts `want` living nodes; 1, and which there are, after `seconds`."""
    import ray

    end = time.monotonic() + seconds
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as e:
        print(f"Ray does not answer: {str(e).splitlines()[0]}", file=sys.stderr)
        return 1
    while True:
        up = sorted(n["NodeManagerHostname"] for n in ray.nodes() if n["Alive"])
        if len(up) >= want:
            return 0
        if time.monotonic() > end:
            print(f"{len(up)} of {want} nodes are in Ray after {seconds:.0f} s: {' '.join(up)}", file=sys.stderr)
            return 1
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.backends.node")
    verbs = parser.add_subparsers(dest="verb", required=True)
    where = verbs.add_parser("place")
    where.add_argument("--interface", default="")
    where.add_argument("peers", nargs="*")
    hold = verbs.add_parser("hold")
    hold.add_argument("--head", action="store_true")
    for name in ("address", "logs"):
        hold.add_argument(f"--{name}", required=True)
    for name in ("cpus", "gpus", "dashboard", "client"):
        hold.add_argument(f"--{name}", type=int, default=0)
    count = verbs.add_parser("await")
    count.add_argument("nodes", type=int)
    count.add_argument("seconds", type=float)
    args = parser.parse_args()
    try:
        if args.verb == "hold":
            return Holder(args).run()
        if args.verb == "await":
            return await_nodes(args.nodes, args.seconds)
        print(place(args.peers, args.interface))
    except OSError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
